//! The agent on the town's node, and what it says of itself.

use crate::kubernetes::cluster::{Names, wait};
use crate::kubernetes::town::Town;
use mermin_tests::program::{Outcome, Program, Running};
use mermin_tests::record::Record;
use mermin_tests::servers::http::{Client, Request};
use serde_json::Value;
use std::path::Path;

/// A running agent and the way to its server.
pub(super) struct Agent {
    pub(super) running: Running,
    client: Client,
}

impl Agent {
    /// Captures on all places' links; waits for no answer of the API server.
    pub(super) fn start(town: &Town, kubeconfig: &Path) -> Self {
        let server = town.place().free_address();
        let running = Program::new("run")
            .args(["-i", "pod*"])
            .inside(&town.node.name)
            .set(&format!("enrich.kubernetes.kubeconfig={}", kubeconfig.display()))
            .set("enrich.kubernetes.labels=[app]")
            .set(&format!("server.listen={server}"))
            .set("flow.udp_timeout=2s")
            .set("flow.icmp_timeout=2s")
            .start();
        Self { running, client: Client::plain(&town.place(), server) }
    }

    fn is_ready(&self) -> bool {
        let answer = self.client.send(Request::get("/readyz"));
        answer.expect("its server answers whatever happens").status == 200
    }

    /// Waits until it says that it is ready, or that it isn't.
    pub(super) fn wait_until_ready(&self, ready: bool) {
        let what = if ready { "readiness" } else { "the end of readiness" };
        wait(what, || (self.is_ready() == ready).then_some(()));
    }

    /// Waits until it has said all that it will: flows are over, records written.
    pub(super) fn settle(&self) {
        let quiet = || {
            let stats = self.client.send(Request::get("/stats")).ok()?;
            let stats: Value = serde_json::from_slice(&stats.body).ok()?;
            let number = |path: &str| stats.pointer(path).and_then(Value::as_u64);
            let released = number("/ledger/released/packets")?;
            let done = number("/flows/active")? == 0
                && released == number("/ledger/metered/packets")?
                && released == number("/outputs/json/delivered/packets")?;
            done.then_some(())
        };
        wait("the last record", quiet);
    }

    /// Ends it.
    pub(super) fn end(self) -> Outcome {
        self.running.interrupt().kept(0)
    }
}

/// What a record says of one end.
pub(super) fn said(record: &Record, side: &str) -> Names {
    let of = |(key, value): (&String, &Value)| {
        let key = key.strip_prefix(side)?.strip_prefix('.').filter(|key| key.starts_with("k8s."))?;
        (key != "k8s.resolution").then(|| (key.to_owned(), value.as_str().unwrap().to_owned()))
    };
    record.0.iter().filter_map(of).collect()
}
