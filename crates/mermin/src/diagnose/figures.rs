//! What rules look at: the difference of two looks at an agent, or a whole run's final statistics.

use super::books::unbalanced;
use super::looks::{Looks, escaped, number, text};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Of less time than this, it can't be said how busy processors were. Seconds.
const LONG_ENOUGH: f64 = 1.0;

/// A channel between two stages, or an output's queue, in what it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Channel {
    pub(crate) capacity: u64,
    pub(crate) depth: u64,
    /// The most that is known of the time that is looked at.
    pub(crate) most: u64,
    /// The most since the start.
    pub(crate) high_water: u64,
    /// Times that a producer waited for room.
    pub(crate) waits: u64,
}

impl Channel {
    /// The most that was in it, of what fits: 1 is full.
    pub(crate) fn fill(&self) -> f64 {
        if self.capacity == 0 { 0.0 } else { self.most as f64 / self.capacity as f64 }
    }
}

/// An output.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) handed: u64,
    /// Records by reason, only those that are.
    pub(crate) dropped: BTreeMap<String, u64>,
    pub(crate) merged: u64,
    pub(crate) queue: Option<Channel>,
    pub(crate) error: Option<String>,
}

/// Something that the agent has looked at and that is not as it should be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FailedCheck {
    pub(crate) what: String,
    pub(crate) how: String,
}

/// A budget that is short, or was.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Shortage {
    /// Steps taken at the end.
    pub(crate) step: u64,
    /// Steps taken and taken back in the time that is looked at.
    pub(crate) changes: u64,
    /// Cores or bytes.
    pub(crate) budget: f64,
    pub(crate) taken: f64,
    /// What the agent does without, in words.
    pub(crate) without: Vec<String>,
}

/// See the module's text. Counts are those of the time between the looks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) version: String,
    /// Two looks at a running agent.
    pub(crate) live: bool,
    /// A replay's packets wait.
    pub(crate) replay: bool,
    pub(crate) seconds: f64,
    /// Why the agent is not ready, where it is not.
    pub(crate) failed_checks: Vec<FailedCheck>,
    /// The counts are not of one moment.
    pub(crate) torn: bool,
    /// The source did not say at the end what it had seen.
    pub(crate) source_silent: bool,
    /// Names of books that don't balance.
    pub(crate) unbalanced: Vec<String>,
    /// Not known where the source has not told.
    pub(crate) packets: Option<u64>,
    /// That any packet was seen since the start; not known likewise.
    pub(crate) saw_packets: Option<bool>,
    /// Since the start.
    pub(crate) up_seconds: f64,
    /// Packets by reason, only those that are.
    pub(crate) lost: BTreeMap<String, u64>,
    /// Packets that no draw took.
    pub(crate) sampled_out: u64,
    pub(crate) packet_channel: Option<Channel>,
    /// What waits in the reader while the packet channel is full.
    pub(crate) coalescing: Option<Channel>,
    pub(crate) enrichment_channel: Option<Channel>,
    /// Records handed on before everything could be known about them.
    pub(crate) early: Option<u64>,
    /// Panics that threads have contained.
    pub(crate) panics: u64,
    pub(crate) outputs: Vec<Output>,
    pub(crate) flows: u64,
    /// Those that had to go for another.
    pub(crate) evicted: u64,
    pub(crate) table_capacity: Option<u64>,
    /// Why Kubernetes is not known as it is; empty where the reason isn't told.
    pub(crate) kubernetes_trouble: Option<String>,
    /// Cores that the agent may use.
    pub(crate) cores: Option<f64>,
    /// Cores' worth of time that nobody took.
    pub(crate) idle: Option<f64>,
    /// Cores' worth of time that it took.
    pub(crate) cpu: Option<f64>,
    /// The same of its busiest thread of each kind: `flow`, `enrich`, `reader`, `out`.
    pub(crate) busiest: BTreeMap<String, f64>,
    /// Of processor time.
    pub(crate) short_of_cpu: Option<Shortage>,
    pub(crate) short_of_memory: Option<Shortage>,
    pub(crate) resident: Option<u64>,
    pub(crate) memory: Option<u64>,
    /// By key of the configuration.
    pub(crate) settings: Map<String, Value>,
    /// What the statistics would have told with `pipeline.enable_metrics: true`.
    pub(crate) untold: Vec<&'static str>,
}

impl Figures {
    /// Of an agent's answers to `/status`, one after the other.
    pub(crate) fn between(first: &Value, last: &Value) -> Self {
        Self::of(Looks { first: Some(first), last })
    }

    /// Of a run's final statistics.
    pub(crate) fn of_run(statistics: &Value) -> Self {
        Self::of(Looks { first: None, last: &serde_json::json!({ "statistics": statistics }) })
    }

    fn of(looks: Looks<'_>) -> Self {
        let last = looks.last;
        let process = "/statistics/process";
        let live = looks.first.is_some();
        let seconds = looks.span("/statistics/duration_seconds").filter(|seconds| *seconds > 0.0);
        // The kernel counts processor time in hundredths of a second.
        let long_enough = seconds.filter(|seconds| *seconds >= LONG_ENOUGH);
        let cpu = looks.span(&format!("{process}/cpu_seconds"));
        // Since boot, so of a run as a whole it isn't known.
        let idle = looks.span(&format!("{process}/idle_seconds")).filter(|_| live);
        let seen = "/statistics/ledger/seen/packets";
        let torn = |look: &Value| look.pointer("/statistics/consistent") == Some(&Value::Bool(false));
        let torn = torn(last) || looks.first.is_some_and(torn);
        Self {
            version: text(last, "/statistics/version").unwrap_or_default(),
            live,
            replay: text(last, "/statistics/command").is_some_and(|command| command == "replay"),
            seconds: seconds.unwrap_or_default(),
            failed_checks: failed_checks(last),
            torn,
            source_silent: last.pointer(seen) == Some(&Value::Null),
            unbalanced: if torn { Vec::new() } else { unbalanced(&last["statistics"]) },
            packets: looks.rise(seen),
            saw_packets: number(last, seen).map(|packets| packets > 0),
            up_seconds: last
                .pointer("/statistics/duration_seconds")
                .and_then(Value::as_f64)
                .unwrap_or_default(),
            lost: looks.counts("/statistics/ledger/lost", "/packets"),
            sampled_out: looks.count("/statistics/ledger/sampled_out/packets"),
            packet_channel: packet_channel(looks),
            coalescing: channel(looks, "coalescing"),
            enrichment_channel: channel(looks, "enrichment_channel"),
            early: looks
                .rise("/enrichment/early")
                .or_else(|| looks.rise("/statistics/stages/enrichment_workers/early")),
            panics: looks.counts("/statistics/stages", "/panics").values().sum(),
            outputs: looks.names("/statistics/outputs").map(|name| output(looks, name)).collect(),
            flows: number(last, "/statistics/flows/active").unwrap_or_default(),
            evicted: looks.count("/statistics/flows/evicted"),
            table_capacity: number(last, "/flow_table_capacity"),
            kubernetes_trouble: kubernetes_trouble(last),
            cores: last.pointer(&format!("{process}/cores")).and_then(Value::as_f64),
            cpu: cpu.zip(long_enough).map(|(cpu, seconds)| cpu / seconds),
            idle: idle.zip(long_enough).map(|(idle, seconds)| idle / seconds),
            busiest: long_enough.map(|seconds| busiest(looks, seconds)).unwrap_or_default(),
            short_of_cpu: shortage(looks, "cpu", "cores"),
            short_of_memory: shortage(looks, "memory", "bytes"),
            resident: number(last, &format!("{process}/resident_bytes")),
            memory: number(last, &format!("{process}/memory_limit_bytes")),
            settings: last
                .pointer("/statistics/settings")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
            untold: untold(last),
        }
    }

    pub(crate) fn setting(&self, key: &str) -> Option<&Value> {
        self.settings.get(key)
    }

    /// A setting that is a number.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.setting(key)?.as_u64()
    }

    pub(crate) fn rate(&self, count: u64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 }
    }

    pub(crate) fn packets_lost(&self) -> u64 {
        self.lost.values().sum()
    }

    /// The flow tables are smaller than configured, to keep within the budget of memory.
    pub(crate) fn table_is_cut(&self) -> bool {
        let configured = self.number("flow.table_capacity");
        self.table_capacity.zip(configured).is_some_and(|(left, configured)| left < configured)
    }

    /// Cores that the agent may use and does not, and others neither as far as that is known.
    pub(crate) fn free_cores(&self) -> Option<f64> {
        Some((self.cores? - self.cpu?).min(self.idle.unwrap_or(f64::MAX)).max(0.0))
    }

    /// Of one core, what the busiest thread of this kind takes.
    pub(crate) fn busy(&self, kind: &str) -> f64 {
        self.busiest.get(kind).copied().unwrap_or_default()
    }
}

fn failed_checks(last: &Value) -> Vec<FailedCheck> {
    let checks = last.pointer("/checks").and_then(Value::as_array).into_iter().flatten();
    let failed = checks.filter(|check| check["ok"] == Value::Bool(false));
    let told = |check: &Value, what: &str| text(check, what).unwrap_or_default();
    failed.map(|check| FailedCheck { what: told(check, "/check"), how: told(check, "/detail") }).collect()
}

fn channel(looks: Looks<'_>, name: &str) -> Option<Channel> {
    let places = [format!("/channels/{name}"), format!("/statistics/stages/{name}")];
    places.iter().find_map(|place| channel_at(looks, place))
}

/// A run's statistics have the waits at who waited.
fn packet_channel(looks: Looks<'_>) -> Option<Channel> {
    let mut channel = channel(looks, "packet_channel")?;
    channel.waits = channel.waits.max(looks.count("/statistics/stages/packet_reader/waits"));
    Some(channel)
}

fn channel_at(looks: Looks<'_>, place: &str) -> Option<Channel> {
    let of = |look: &Value, what: &str| number(look, &format!("{place}/{what}"));
    let (depth, high_water) = (of(looks.last, "depth")?, of(looks.last, "high_water")?);
    let most = match looks.first {
        Some(first) if of(first, "high_water").is_some_and(|before| before >= high_water) => {
            depth.max(of(first, "depth").unwrap_or_default())
        }
        // It came to that in the time that is looked at.
        _ => high_water,
    };
    let waits = looks.count(&format!("{place}/waits"));
    Some(Channel { capacity: of(looks.last, "capacity")?, depth, most, high_water, waits })
}

fn output(looks: Looks<'_>, name: &str) -> Output {
    let book = format!("/statistics/outputs/{}", escaped(name));
    let pulses = looks.last.pointer("/outputs").and_then(Value::as_array);
    let is = |one: &Value| one.pointer("/name").and_then(Value::as_str) == Some(name);
    let pulse = pulses.and_then(|all| all.iter().position(is)).map(|index| format!("/outputs/{index}"));
    let queue = match &pulse {
        Some(pulse) => channel_at(looks, &format!("{pulse}/queue")),
        None => channel_at(looks, &format!("/statistics/stages/output {}", escaped(name))),
    };
    let error = pulse.and_then(|pulse| {
        let told = |what: &str| text(looks.last, &format!("{pulse}/{what}"));
        told("let_be").map(|why| format!("let be for now: {why}")).or_else(|| told("error"))
    });
    Output {
        name: name.to_owned(),
        handed: looks.count(&format!("{book}/handed/records")),
        dropped: looks.counts(&format!("{book}/dropped"), "/records"),
        merged: looks.count(&format!("{book}/merged/records")),
        queue,
        error,
    }
}

fn busiest(looks: Looks<'_>, seconds: f64) -> BTreeMap<String, f64> {
    let mut busiest = BTreeMap::new();
    let threads = "/statistics/process/threads";
    for name in looks.names(threads) {
        let used = looks.span(&format!("{threads}/{}", escaped(name))).unwrap_or_default() / seconds;
        let kind = name.split('-').next().unwrap_or_default().to_owned();
        let most: &mut f64 = busiest.entry(kind).or_default();
        *most = most.max(used);
    }
    busiest
}

fn shortage(looks: Looks<'_>, of: &str, unit: &str) -> Option<Shortage> {
    let place = format!("/statistics/budgets/{of}");
    let float = |what: &str| looks.last.pointer(&format!("{place}/{what}_{unit}"))?.as_f64();
    let step = number(looks.last, &format!("{place}/step"))?;
    let changes = looks.count(&format!("{place}/changes"));
    let without =
        looks.last.pointer(&format!("{place}/without")).and_then(Value::as_array).into_iter().flatten();
    let without = without.filter_map(|what| what.as_str().map(str::to_owned)).collect();
    let (budget, taken) = float("budget").zip(float("taken"))?;
    (step > 0 || changes > 0).then_some(Shortage { step, changes, budget, taken, without })
}

fn kubernetes_trouble(last: &Value) -> Option<String> {
    (text(last, "/kubernetes/state")? == "degraded").then_some(())?;
    let kinds = last.pointer("/kubernetes/kinds").and_then(Value::as_array).into_iter().flatten();
    Some(kinds.filter_map(|kind| text(kind, "/failure")).next().unwrap_or_default())
}

/// A stage is told of always, its details by the setting alone.
fn untold(last: &Value) -> Vec<&'static str> {
    let detailed = |stage: &str, detail: &str| {
        last.pointer(&format!("/statistics/stages/{stage}")).is_none_or(|stage| stage.get(detail).is_some())
    };
    let mut untold = Vec::new();
    if last.get("channels").is_none() && !detailed("packet_channel", "capacity") {
        untold.push("how full channels and queues were");
    }
    if last.get("enrichment").is_none() && !detailed("enrichment_workers", "early") {
        untold.push("how many records went on early");
    }
    untold
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn look(seconds: f64, count: u64) -> Value {
        json!({
            "flow_table_capacity": 131_072,
            "ready": false,
            "checks": [{"check": "threads", "ok": true, "detail": "all run"}, {"check": "capture", "ok": false, "detail": "none"}],
            "channels": {"packet_channel": {"depth": 100 - count, "capacity": 100, "high_water": 100, "waits": count}},
            "outputs": [{"name": "text:/tmp/x", "error": "gone", "queue": {"depth": 1, "capacity": 8, "high_water": count / 10, "waits": 0}}],
            "kubernetes": {"state": "degraded", "kinds": [{"failure": null}, {"failure": "refused"}]},
            "statistics": {
                "version": "0.1.0",
                "command": "replay",
                "duration_seconds": seconds,
                "flows": {"active": 7, "evicted": 2 * count},
                "ledger": {"seen": {"packets": 10 * count}, "lost": {"ring_full": {"packets": count}, "socket_drop": {"packets": 3}}},
                "outputs": {"text:/tmp/x": {"handed": {"records": count}, "dropped": {"queue_full": {"records": count}}}},
                "stages": {"flow_workers": {"panics": count / 20}, "enrichment_workers": {"panics": 0, "early": count}},
                "process": {"cpu_seconds": seconds / 2.0, "cores": 2, "idle_seconds": 3.0 * seconds, "threads": {"flow-0": seconds, "flow-1": 0.5 * seconds}},
                "settings": {"pipeline.flow_workers": 2},
            },
        })
    }

    #[test]
    fn two_looks_tell_what_was_between_them() {
        let figures = Figures::between(&look(10.0, 20), &look(15.0, 60));
        assert!(
            figures.live && (figures.seconds - 5.0).abs() < 1e-9 && (figures.up_seconds - 15.0).abs() < 1e-9
        );
        assert_eq!(
            (figures.packets, figures.packets_lost(), figures.saw_packets),
            (Some(400), 40, Some(true))
        );
        assert_eq!(figures.lost, [("ring_full".to_owned(), 40)].into());
        assert_eq!((figures.panics, figures.early, figures.evicted), (2, Some(40), 80));
        assert_eq!(figures.enrichment_channel, None);
        let check = FailedCheck { what: "capture".to_owned(), how: "none".to_owned() };
        assert_eq!((figures.failed_checks, figures.torn), (vec![check], false));
        let output = &figures.outputs[0];
        assert_eq!((output.handed, output.dropped["queue_full"]), (40, 40));
        assert_eq!((output.queue.unwrap().capacity, output.error.as_deref()), (8, Some("gone")));
        let mut open = look(15.0, 60);
        open["outputs"][0]["let_be"] = json!("it hangs");
        let figures_open = Figures::between(&look(10.0, 20), &open);
        assert_eq!(figures_open.outputs[0].error.as_deref(), Some("let be for now: it hangs"));
        assert_eq!(figures.kubernetes_trouble.as_deref(), Some("refused"));
        assert_eq!(figures.settings["pipeline.flow_workers"], 2);
    }

    #[test]
    fn a_channel_was_as_full_as_it_came_to_be_meanwhile() {
        let figures = Figures::between(&look(10.0, 20), &look(15.0, 60));
        let channel = Channel { capacity: 100, depth: 40, most: 80, high_water: 100, waits: 40 };
        assert_eq!(figures.packet_channel, Some(channel), "its high-water mark is of before");
        let queue = figures.outputs[0].queue.unwrap();
        assert_eq!((queue.depth, queue.most), (1, 6), "its high-water mark has risen");
    }

    #[test]
    fn processors_are_told_apart_from_what_others_take() {
        let figures = Figures::between(&look(10.0, 20), &look(15.0, 60));
        assert!((figures.cpu.unwrap() - 0.5).abs() < 1e-9 && (figures.busy("flow") - 1.0).abs() < 1e-9);
        assert!((figures.free_cores().unwrap() - 1.5).abs() < 1e-9);
        let others = Figures { idle: Some(0.2), ..figures };
        assert!((others.free_cores().unwrap() - 0.2).abs() < 1e-9, "others need them");
        let moment = Figures::between(&look(10.0, 20), &look(10.9, 60));
        assert_eq!(
            (moment.cpu, moment.busiest.len(), moment.packets),
            (None, 0, Some(400)),
            "too short a time"
        );
    }

    #[test]
    fn a_run_is_told_as_a_whole() {
        let mut statistics = look(10.0, 20)["statistics"].clone();
        statistics["stages"] = json!({
            "packet_reader": {"waits": 5},
            "packet_channel": {"depth": 0, "capacity": 100, "high_water": 90},
            "output text:/tmp/x": {"depth": 0, "capacity": 8, "high_water": 8},
        });
        let figures = Figures::of_run(&statistics);
        assert!(!figures.live && figures.replay && figures.untold.is_empty());
        assert_eq!((figures.packets, figures.packets_lost()), (Some(200), 23));
        let channel = figures.packet_channel.unwrap();
        assert!((channel.fill() - 0.9).abs() < 1e-9 && channel.waits == 5, "{channel:?}");
        assert_eq!(figures.outputs[0].queue.unwrap().most, 8);
    }

    #[test]
    fn what_the_statistics_leave_out_is_named() {
        let mut last = look(15.0, 60);
        last["statistics"]["stages"] =
            json!({"packet_channel": {"drops": 0}, "enrichment_workers": {"drops": 0}});
        let figures = Figures::between(&look(10.0, 20), &last);
        assert_eq!((figures.untold.len(), figures.early), (1, None), "channels are told in any case");
        last["enrichment"] = json!({"early": 7});
        let figures = Figures::between(&look(10.0, 20), &last);
        assert_eq!(
            (figures.untold.len(), figures.early),
            (0, Some(7)),
            "an agent tells this in any case, too"
        );
        assert_eq!(Figures::of_run(&last["statistics"]).untold.len(), 2);
    }

    #[test]
    fn a_source_that_did_not_answer_leaves_its_count_unknown() {
        let mut statistics = look(10.0, 20)["statistics"].clone();
        statistics["ledger"]["seen"]["packets"] = Value::Null;
        let figures = Figures::of_run(&statistics);
        assert_eq!((figures.source_silent, figures.packets, figures.saw_packets), (true, None, None));
    }

    #[test]
    fn books_are_reckoned_only_of_one_moment() {
        let mut last = look(15.0, 60);
        last["statistics"]["ledger"]["metered"] = json!({"packets": 7});
        last["statistics"]["ledger"]["resident"] = json!({"flow_table": {"packets": 6}});
        last["statistics"]["ledger"]["released"] = json!({"packets": 0});
        let figures = Figures::between(&look(10.0, 20), &last);
        assert_eq!((figures.unbalanced, figures.torn), (vec!["metering".to_owned()], false));
        last["statistics"]["consistent"] = json!(false);
        let figures = Figures::between(&look(10.0, 20), &last);
        assert_eq!((figures.unbalanced, figures.torn), (vec![], true));
    }

    #[test]
    fn what_is_not_told_is_not_known() {
        let figures = Figures::of_run(&json!({}));
        assert_eq!(figures, Figures::default());
    }
}
