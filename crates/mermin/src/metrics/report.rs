//! The agent's own figures to a collector, from a thread of their own.

use super::gather;
use crate::agent::Agent;
use crate::config::lower;
use crate::exit::{Exit, Stop};
use mermin_export::otlp::AgentMetrics;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// Who reports at present: a reload may have another one do it.
pub(crate) type Reporter = Arc<Mutex<Option<Reporting>>>;

/// Figures that are being sent. Letting go of it sends the last ones.
pub(crate) struct Reporting {
    end: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reporting {
    pub(crate) fn start(metrics: AgentMetrics, agent: &Arc<Agent>) -> Result<Self, Stop> {
        let (end, ended) = sync_channel(1);
        let agent = Arc::clone(agent);
        let work = move || metrics.run(|| gather(&agent), &ended);
        let thread = thread::Builder::new().name("otlp-agent".to_owned()).spawn(work).map_err(|error| {
            Stop::new(Exit::Unavailable, format!("no thread for the agent's metrics: {}", lower(&error)))
                .help("raise the limit of threads (ulimit -u)")
        })?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            // A panic there has been told by its own message.
            let _ = thread.join();
        }
    }
}
