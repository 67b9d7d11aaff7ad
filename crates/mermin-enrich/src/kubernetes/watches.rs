//! The watches of all kinds, on a thread of their own.

use crate::clock::Clock;
use crate::kubernetes::chosen::AllChosen;
use crate::kubernetes::client::Client;
use crate::kubernetes::cluster::{Cluster, KubernetesError};
use crate::kubernetes::config::{KubernetesConfig, Scope};
use crate::kubernetes::object::Kind;
use crate::kubernetes::report::Report;
use crate::kubernetes::sink::ChangeSink;
use crate::kubernetes::status::KubernetesStatus;
use crate::kubernetes::strip::Stripper;
use crate::kubernetes::watch::{Limits, Shared, Watch};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// The thread's name, also of those that look up host names for it.
const THREAD: &str = "kubernetes";

/// Running watches. They stop when this is dropped.
pub(crate) struct Watches {
    status: Arc<KubernetesStatus>,
    /// Dropped to stop.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watches {
    /// Starts them; `sink` takes what they learn. Whether the API server answers is seen by the status.
    ///
    /// # Errors
    /// When the credentials can't be used, or there is no thread to be had.
    pub(crate) fn start(
        cluster: &Cluster,
        config: &KubernetesConfig,
        clock: Clock,
        sink: impl ChangeSink,
    ) -> Result<Self, KubernetesError> {
        Self::start_within(Limits::default(), cluster, config, clock, sink)
    }

    /// The same with other limits.
    pub(crate) fn start_within(
        limits: Limits,
        cluster: &Cluster,
        config: &KubernetesConfig,
        clock: Clock,
        sink: impl ChangeSink,
    ) -> Result<Self, KubernetesError> {
        let builder = &mut Builder::new_current_thread();
        // Blocking threads look up names and run exec plugins: few at a time.
        let builder = builder.enable_all().thread_name(THREAD).max_blocking_threads(4);
        let runtime = builder.build().map_err(KubernetesError::Thread)?;
        let client = {
            let _context = runtime.enter();
            Client::new(cluster, clock)?
        };
        let watched = |kind| !config.leave_out.contains(&kind);
        let status = Arc::new(KubernetesStatus::new(&cluster.server(), watched, (clock, clock.now())));
        let shared = Shared {
            client,
            clock,
            sink: RefCell::new(sink),
            stripper: RefCell::new(Stripper::new(AllChosen::new(config))),
            status: Arc::clone(&status),
            report: Report::new(clock),
            limits,
            streams_lists: Cell::new(true),
        };
        let kinds: Vec<_> = Kind::ALL.into_iter().filter(|kind| watched(*kind)).collect();
        let node = config.node.clone().filter(|_| config.scope == Scope::Node);
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            watch_all(&runtime, &shared, &kinds, node.as_deref(), stopped);
            drop(shared);
            // A host name that is being looked up, or an exec plugin, is not waited for.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(run);
        let thread = thread.map_err(KubernetesError::Thread)?;
        Ok(Self { status, stop: Some(stop), thread: Some(thread) })
    }

    /// How they are.
    pub(crate) fn status(&self) -> &Arc<KubernetesStatus> {
        &self.status
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported there.
            let _ = thread.join();
        }
    }
}

fn watch_all<S: ChangeSink>(
    runtime: &Runtime,
    shared: &Shared<S>,
    kinds: &[Kind],
    node: Option<&str>,
    stopped: oneshot::Receiver<()>,
) {
    let mut watches: FuturesUnordered<_> =
        kinds.iter().map(|kind| Watch::new(*kind, node, shared).run()).collect();
    runtime.block_on(async {
        tokio::select! {
            // Its error is that the sender was dropped.
            _ = stopped => {}
            () = shared.client.probe() => {}
            // With every kind left out there is nothing to wait for but the end.
            Some(()) = watches.next() => {}
        }
    });
}
