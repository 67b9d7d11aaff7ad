//! The founding document's tuning and troubleshooting entries, each a function of figures: what it sees, and what to set.
//!
//! A new rule is a function and its line in [`RULES`], with a test that it fires and one that it doesn't, a line in
//! `docs/reference/diagnose.md` and a heading of `docs/guide/troubleshooting.md`.

mod agent;
mod budget;
mod change;
mod load;
mod loss;
mod outputs;
mod records;

pub(crate) use change::Change;

use super::figures::Figures;
use crate::summary::{grouped, time};
use change::one_more;

/// What a rule has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Finding {
    /// What is so, with the figure behind it.
    pub(crate) what: String,
    pub(crate) changes: Vec<Change>,
    /// What helps and is no setting, or why one is not advised.
    pub(crate) advice: Vec<String>,
    /// Another finding is its cause, and should be seen to first.
    pub(crate) has_cause: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    /// The heading of the troubleshooting guide that it stands under.
    pub(crate) entry: &'static str,
    find: fn(&Figures) -> Vec<Finding>,
}

const fn rule(name: &'static str, entry: &'static str, find: fn(&Figures) -> Vec<Finding>) -> Rule {
    Rule { name, entry, find }
}

/// All rules: what says that the figures can't be trusted, then what loses, then what only costs; causes before effects.
pub(crate) static RULES: [Rule; 21] = [
    rule("not_ready", "Not ready", agent::not_ready),
    rule("figures_missing", "Figures that are missing", agent::figures_missing),
    rule("books_unbalanced", "Books that do not balance", agent::unbalanced),
    rule("worker_failures", "Worker failures", agent::worker_failures),
    rule("no_packets", "No records", agent::no_packets),
    rule("ring_full", "Packet loss", loss::before_the_reader),
    rule("packet_channel_full", "Packet loss", loss::before_the_workers),
    rule("lost_otherwise", "Packet loss", loss::otherwise),
    rule("output_failing", "Records missing at an output", outputs::failing),
    rule("undelivered_at_end", "Records missing at an output", outputs::undelivered),
    rule("flow_table_full", "Flow table full", load::table_full),
    rule("output_queue_full", "Slow output", outputs::full),
    rule("short_of_cpu", "Over its budget", budget::short_of_cpu),
    rule("short_of_memory", "Over its budget", budget::short_of_memory),
    rule("kubernetes_silent", "Kubernetes unavailable", records::kubernetes_silent),
    rule("slow_enrichment", "Slow enrichment", records::slow_enrichment),
    rule("packet_channel_fills", "Backpressure warnings", loss::channel_fills),
    rule("output_queue_fills", "Slow output", outputs::fills),
    rule("high_memory", "High memory usage", load::high_memory),
    rule("high_cpu", "High CPU usage", load::high_cpu),
    rule("busy_workers", "Busy workers", load::busy_workers),
];

/// What all of them find. A setting stands on the page once, with what needs it most: whoever changes one at a time can't
/// follow two suggestions about it, and they might contradict each other.
pub(crate) fn all(figures: &Figures) -> Vec<(&'static Rule, Finding)> {
    let mut taken: Vec<Change> = Vec::new();
    let found =
        RULES.iter().flat_map(|rule| (rule.find)(figures).into_iter().map(move |finding| (rule, finding)));
    found
        .map(|(rule, mut finding)| {
            let (mut same, mut others) = (Vec::new(), Vec::new());
            for change in std::mem::take(&mut finding.changes) {
                match taken.iter().find(|earlier| earlier.key == change.key) {
                    Some(earlier) if earlier.suggested == change.suggested => same.push(change.key),
                    Some(_) => others.push(format!("{}={}", change.key, change.suggested)),
                    None => finding.changes.push(change),
                }
            }
            taken.extend(finding.changes.iter().cloned());
            let (same, others) = (same.join(", "), others.join(", "));
            let left = [
                (!same.is_empty()).then(|| format!("see above: {same}")),
                (!others.is_empty()).then(|| format!("{others} would help here, and harm above")),
            ];
            finding.advice.splice(0..0, left.into_iter().flatten());
            (rule, finding)
        })
        .collect()
}

impl Finding {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), ..Self::default() }
    }

    fn change(mut self, change: Option<Change>) -> Self {
        self.changes.extend(change);
        self
    }

    fn advise(self, advice: impl Into<String>) -> Self {
        self.advise_if(Some(advice))
    }

    fn advise_if(mut self, advice: Option<impl Into<String>>) -> Self {
        self.advice.extend(advice.map(Into::into));
        self
    }

    /// Why something else should be changed first, where that is so.
    fn because(mut self, cause: Option<&str>) -> Self {
        self.has_cause |= cause.is_some();
        self.advise_if(cause)
    }

    /// Another worker, where a core is free for it; else that there is none.
    fn another_worker(self, figures: &Figures, key: &'static str) -> Self {
        match no_core(figures) {
            Some(none) => {
                let name = key.rsplit('.').next().unwrap_or(key);
                self.advise(format!("{none}: more {name} would cost more than they bring"))
            }
            None => self.change(one_more(figures, key, "shares the work out")),
        }
    }
}

/// That no whole core is free, where that is so, and who takes them.
fn no_core(figures: &Figures) -> Option<String> {
    let free = figures.free_cores().filter(|free| *free < 1.0)?;
    let (cores, cpu) = figures.cores.zip(figures.cpu)?;
    let others = cores - cpu - free;
    // Below that it isn't they who matter.
    let others = (others >= 0.5).then(|| format!(" (other processes take {others:.2} of {cores:.0})"));
    Some(format!("no core is free{}", others.unwrap_or_default()))
}

/// `1,234 packets/s (12 %)` of all, or the number in a whole run. `noun` is one of them.
fn share(figures: &Figures, count: u64, of: Option<u64>, noun: &str) -> String {
    let percent = of.filter(|of| *of > 0).map(|of| 100.0 * count as f64 / of as f64);
    let percent = match percent {
        None => String::new(),
        Some(..0.1) => " (less than 0.1 %)".to_owned(),
        Some(percent) => format!(" ({percent:.1} %)"),
    };
    let rate = figures.rate(count).round() as u64;
    match (figures.live, rate) {
        (false, _) => format!("{}{percent}", several(count, noun)),
        // A rate of 0 would say that there are none.
        (true, 0) => format!("{} in {}{percent}", several(count, noun), time(figures.seconds)),
        (true, _) => format!("{}/s{percent}", several(rate, noun)),
    }
}

/// `1 record`, `1,234 records`.
fn several(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { several(count, "time") }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::diagnose::figures::{Channel, Output};
    use serde_json::{Value, json};
    use std::collections::HashSet;

    /// An agent that is well, at its defaults, on four cores.
    pub(crate) fn well() -> Figures {
        let room = |capacity| Some(Channel { capacity, depth: 10, most: 20, high_water: 200, waits: 0 });
        let settings = json!({
            "pipeline.packet_channel_capacity": 10_000, "pipeline.coalescing_capacity": 65_536, "pipeline.enrichment_channel_capacity": 1_000,
            "pipeline.flow_workers": 2, "pipeline.enrichment_workers": 1, "pipeline.shutdown_timeout": "5s",
            "pipeline.enable_backpressure": true, "pipeline.enable_metrics": true,
            "flow.table_capacity": 131_072, "flow.active_timeout": "1m", "export.queue_capacity": 8_192,
            "capture.ring_bytes": "16MiB", "enrich.enabled": true,
        });
        Figures {
            version: "0.1.0".to_owned(),
            live: true,
            seconds: 5.0,
            packets: Some(50_000),
            saw_packets: Some(true),
            up_seconds: 600.0,
            packet_channel: room(10_000),
            enrichment_channel: room(1_000),
            early: Some(0),
            outputs: vec![Output {
                name: "json".to_owned(),
                handed: 1_000,
                queue: room(8_192),
                ..Output::default()
            }],
            flows: 2_000,
            table_capacity: Some(131_072),
            cores: Some(4.0),
            cpu: Some(0.4),
            busiest: [("flow".to_owned(), 0.1), ("enrich".to_owned(), 0.1)].into(),
            resident: Some(43 << 20),
            memory: Some(8 << 30),
            settings: settings.as_object().unwrap().clone(),
            ..Figures::default()
        }
    }

    /// What the rule finds in an agent that is well but for `change`; it finds nothing in one that is well.
    pub(super) fn fires(find: fn(&Figures) -> Vec<Finding>, change: impl FnOnce(&mut Figures)) -> Finding {
        assert_eq!(find(&well()), []);
        let mut figures = well();
        change(&mut figures);
        let mut findings = find(&figures);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings.remove(0)
    }

    pub(super) fn changes(finding: &Finding) -> Vec<(&'static str, Value)> {
        finding.changes.iter().map(|change| (change.key, change.suggested.clone())).collect()
    }

    #[test]
    fn where_all_is_well_nothing_is_found() {
        assert!(all(&well()).is_empty());
        assert!(all(&Figures::default()).is_empty(), "where nothing is told neither");
        assert_eq!(RULES.iter().map(|rule| rule.name).collect::<HashSet<_>>().len(), RULES.len());
    }

    /// Every rule stands in the reference with its entry, and nothing else does; every entry is a heading of the guide.
    #[test]
    fn the_reference_and_the_guide_know_the_rules() {
        let rules: Vec<_> = RULES.iter().map(|rule| (rule.name, rule.entry)).collect();
        let page = include_str!("../../../../../docs/reference/diagnose.md");
        let listed = page.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
            Some((name, rest.split(" |").next()?))
        });
        assert_eq!(listed.collect::<Vec<_>>(), rules);
        let guide = include_str!("../../../../../docs/guide/troubleshooting.md");
        let headings: HashSet<_> = guide.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        for (_, entry) in rules {
            assert!(headings.contains(entry), "{entry}");
        }
    }

    #[test]
    fn a_setting_stands_on_the_page_once() {
        let mut figures = well();
        figures.lost = [("ring_full".to_owned(), 5), ("packet_channel_full".to_owned(), 5)].into();
        figures.packet_channel = figures.packet_channel.map(|channel| Channel { most: 10_000, ..channel });
        figures.resident = Some(7 << 30);
        figures.busiest = [("flow".to_owned(), 0.95)].into();
        let found = all(&figures);
        let names: Vec<_> = found.iter().map(|(rule, _)| rule.name).collect();
        assert_eq!(names, ["ring_full", "packet_channel_full", "high_memory", "busy_workers"]);
        let keys: Vec<_> =
            found.iter().flat_map(|(_, finding)| &finding.changes).map(|one| one.key).collect();
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len(), "{keys:?}");
        let advice = |at: usize| found[at].1.advice.join("\n");
        assert_eq!(advice(1), "see above: pipeline.packet_channel_capacity, pipeline.flow_workers");
        assert_eq!(
            advice(2).lines().next(),
            Some("pipeline.packet_channel_capacity=5000 would help here, and harm above")
        );
        assert_eq!(advice(3), "see above: pipeline.flow_workers");
    }

    #[test]
    fn another_worker_wants_a_free_core() {
        let key = "pipeline.flow_workers";
        let mut figures = well();
        let more = |figures: &Figures| Finding::default().another_worker(figures, key);
        assert_eq!(changes(&more(&figures)), [(key, json!(3))]);
        figures.cpu = Some(3.5);
        let none = more(&figures);
        let advice = "no core is free: more flow_workers would cost more than they bring";
        assert_eq!((changes(&none).len(), none.advice[0].as_str()), (0, advice));
        figures.idle = Some(0.0);
        assert_eq!(no_core(&figures).as_deref(), Some("no core is free (other processes take 0.50 of 4)"));
        figures.cpu = None;
        assert_eq!(changes(&more(&figures)), [(key, json!(3))]);
    }

    #[test]
    fn a_share_is_a_rate_or_a_number() {
        let mut figures = well();
        assert_eq!(share(&figures, 5_000, Some(50_000), "packet"), "1,000 packets/s (10.0 %)");
        assert_eq!(share(&figures, 5, Some(50_000), "packet"), "1 packet/s (less than 0.1 %)");
        assert_eq!(share(&figures, 2, Some(50_000), "packet"), "2 packets in 5.00 s (less than 0.1 %)");
        figures.live = false;
        assert_eq!(share(&figures, 1, Some(2), "record"), "1 record (50.0 %)");
        assert_eq!(share(&figures, 5_000, Some(0), "record"), "5,000 records");
        assert_eq!(share(&figures, 5_000, None, "record"), "5,000 records");
    }
}
