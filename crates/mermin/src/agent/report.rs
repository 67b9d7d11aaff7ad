//! The agent as one JSON object: what `GET /status` answers.

use super::{Agent, Readiness};
use mermin_enrich::ConntrackReading;
use mermin_pipeline::{BufferPulse, ChannelPulse, OutputPulse};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

impl Readiness {
    /// As `/readyz` and `/livez` tell it.
    pub(crate) fn to_json(&self, name: &str) -> Value {
        let checks =
            self.0.iter().map(|check| json!({ "check": check.what, "ok": check.ok, "detail": check.how }));
        json!({ name: self.is_ready(), "checks": checks.collect::<Vec<_>>() })
    }
}

impl Agent {
    /// The statistics as one JSON object, and whether they are one cut.
    pub(crate) fn statistics_json(&self) -> Value {
        let (statistics, consistent) = self.statistics();
        let mut json = statistics.to_json(env!("CARGO_PKG_VERSION"));
        json["consistent"] = json!(consistent);
        self.present.means().tell(&mut json);
        json
    }

    /// Everything that there is to know.
    pub(crate) fn to_json(&self) -> Value {
        let pulse = self.pulse();
        let readiness = self.readiness().to_json("ready");
        let capture = self.capture().map(|capture| {
            let interfaces = capture.interfaces.iter().map(|one| {
                json!({
                    "name": &*one.name,
                    "index": one.index,
                    "technology": one.technology.name(),
                    "up": one.up,
                })
            });
            json!({
                "source": capture.source,
                "interfaces": interfaces.collect::<Vec<_>>(),
                "events": BTreeMap::from(capture.events()),
            })
        });
        let mut channels = Map::new();
        channels.insert("packet_channel".to_owned(), channel(&pulse.packet_channel));
        if let Some(waiting) = &pulse.coalescing {
            channels.insert("coalescing".to_owned(), channel(&waiting.room));
        }
        if let Some((enrichment, _)) = &pulse.enrichment {
            channels.insert("enrichment_channel".to_owned(), channel(enrichment));
        }
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "command": self.command,
            "headline": self.headline(),
            "uptime_seconds": self.uptime_seconds(),
            "ready": readiness["ready"],
            "checks": readiness["checks"],
            "capture": capture,
            "kubernetes": self.kubernetes_json(),
            "conntrack": self.conntrack_json(),
            "flow_table_capacity": pulse.budgets.left_of(self.present.means().table_capacity),
            "reload": self.reloads.as_ref().map(|reloads| reloads.to_json()),
            "channels": channels,
            "enrichment": pulse.enrichment.as_ref().map(|(_, workers)| json!({
                "records": workers.records,
                "held": workers.held,
                "early": workers.early,
            })),
            "journal": pulse.journal.as_ref().map(|journal| json!({
                "cuts": journal.cuts,
                "bytes": journal.bytes,
                "trouble": journal.trouble,
            })),
            "outputs": pulse.outputs.iter().map(output).collect::<Vec<_>>(),
            "statistics": self.statistics_json(),
        })
    }

    pub(crate) fn uptime_seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn conntrack_json(&self) -> Value {
        let json = |reading: ConntrackReading| {
            json!({
                "connections": reading.connections,
                "events": reading.events,
                "looks": reading.looks,
                "overruns": reading.overruns,
                "refused": reading.refused,
                "forgotten": reading.forgotten,
                "translated": reading.translated,
                "ambiguous": reading.ambiguous,
            })
        };
        self.conntrack().map_or(Value::Null, json)
    }

    fn kubernetes_json(&self) -> Value {
        let Some(view) = self.kubernetes() else {
            return json!({ "state": super::KubernetesView::OFF });
        };
        let kinds = view.kinds.iter().map(|one| {
            json!({
                "kind": one.kind,
                "state": one.state,
                "age_seconds": one.age.as_secs_f64(),
                "objects": one.objects,
                "events": one.events,
                "lists": one.lists,
                "errors": one.errors,
                "unreadable": one.unreadable,
                "failure": one.failure,
            })
        });
        json!({ "state": view.state, "server": view.server, "kinds": kinds.collect::<Vec<_>>() })
    }
}

fn channel(channel: &ChannelPulse) -> Value {
    json!({
        "depth": channel.depth,
        "capacity": channel.capacity,
        "high_water": channel.high_water,
        "waits": channel.waits,
    })
}

fn buffer(buffer: &BufferPulse) -> Value {
    json!({ "bytes": buffer.bytes, "capacity": buffer.capacity, "trouble": buffer.trouble })
}

fn output(output: &OutputPulse) -> Value {
    let (state, error) = output.delivery.as_ref().map(|delivery| delivery.condition()).unzip();
    json!({
        "name": output.name,
        "healthy": output.is_healthy(),
        "closed": output.closed,
        "state": state.map(mermin_flow::DeliveryState::name),
        "error": output.failing.clone().or(error.flatten()),
        "queue": channel(&output.queue),
        "buffer": output.buffer.as_ref().map(buffer),
        "breaker": output.breaker.name(),
        "let_be": output.let_be,
        "breaker_opened": output.opened,
    })
}
