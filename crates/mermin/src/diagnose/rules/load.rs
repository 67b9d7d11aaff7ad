//! What the agent takes of the machine: memory, cores, places in the flow table.

use super::change::{less_room, more_room, one_fewer, set};
use super::{Finding, share};
use crate::diagnose::figures::Figures;
use crate::summary::grouped;
use serde_json::json;

/// Of what there is, so much is high.
const HIGH: f64 = 0.8;
/// Of one core.
const BUSY: f64 = 0.85;
/// The table is as good as full: shards fill unevenly.
const TABLE_FULL: f64 = 0.9;
/// Where channels are as large, batches don't grow any more.
const LARGE_ROOM: u64 = 50_000;
/// The founding document's capacities for little memory.
const SMALL_PACKETS: u64 = 5_000;
const SMALL_RECORDS: u64 = 500;
const SMALL_TABLE: u64 = 1_024;

const PACKETS: &str = "pipeline.packet_channel_capacity";
const RECORDS: &str = "pipeline.enrichment_channel_capacity";
const TABLE: &str = "flow.table_capacity";
const METRICS: &str = "pipeline.enable_metrics";
const FLOW_WORKERS: &str = "pipeline.flow_workers";
const ENRICHMENT_WORKERS: &str = "pipeline.enrichment_workers";

/// Why there are many records, where it is for want of room in the flow table.
pub(super) fn many_records(figures: &Figures) -> Option<&'static str> {
    let why = "the flow table is full, and every flow that has to go gives a record: see above, and change that first";
    (figures.evicted > 0).then_some(why)
}

/// Flows end for lack of room, or are about to.
pub(super) fn table_full(figures: &Figures) -> Vec<Finding> {
    let capacity = figures.table_capacity.filter(|capacity| *capacity > 0);
    let fill = capacity.map_or(0.0, |capacity| figures.flows as f64 / capacity as f64);
    let full = capacity.map_or_else(String::new, |capacity| {
        format!("{} flows of at most {} ({:.0} %)", grouped(figures.flows), grouped(capacity), 100.0 * fill)
    });
    let what = if figures.evicted > 0 {
        let full = if full.is_empty() { full } else { format!("{full}: ") };
        let evicted = share(figures, figures.evicted, None, "flow");
        format!("{full}{evicted} had to go for others, those that were quiet for longest (lack of resources)")
    } else if fill >= TABLE_FULL {
        format!("{full}: when it is full, the one that was quiet for longest has to go for a new one")
    } else {
        return Vec::new();
    };
    if figures.table_is_cut() {
        // More room would be taken away again.
        let why =
            "the table is smaller than configured, to keep within resources.memory: see Over its budget";
        return vec![Finding::new(what).because(Some(why))];
    }
    let finding = Finding::new(what)
        .change(more_room(figures, TABLE, "about 300 bytes a flow"))
        .advise("or shorter timeouts: flow.idle_timeout, flow.udp_timeout");
    vec![finding]
}

/// The agent needs nearly all memory that it may have.
pub(super) fn high_memory(figures: &Figures) -> Vec<Finding> {
    let (Some(resident), Some(memory)) = (figures.resident, figures.memory) else { return Vec::new() };
    let fill = resident as f64 / memory.max(1) as f64;
    if fill < HIGH {
        return Vec::new();
    }
    let what = format!(
        "{} MiB of {} MiB are in use by the agent ({:.0} %)",
        grouped(resident >> 20),
        grouped(memory >> 20),
        100.0 * fill
    );
    // Memory is taken as flows come: a table that is not half full takes less than half as it is.
    let table = less_room(figures, TABLE, SMALL_TABLE, "the largest part: about 300 bytes a flow");
    let table = table.filter(|table| !figures.live || Some(figures.flows) > table.suggested.as_u64());
    let metrics = figures.setting(METRICS) == Some(&json!(true));
    let metrics = metrics.then(|| set(figures, METRICS, json!(false), "keeps less about stages"));
    let mut finding = Finding::new(what)
        .change(table)
        .change(less_room(figures, PACKETS, SMALL_PACKETS, "128 bytes an observation"))
        .change(less_room(figures, RECORDS, SMALL_RECORDS, "about half a KiB a record"))
        .change(metrics);
    finding = match finding.changes.as_slice() {
        [] => finding.advise("what it holds is as small as it is suggested: it needs more memory"),
        _ => finding.advise("--profile memory-constrained sets the channels, and one worker of each kind"),
    };
    vec![finding]
}

/// The agent takes nearly all cores that it may have.
pub(super) fn high_cpu(figures: &Figures) -> Vec<Finding> {
    let (Some(cores), Some(cpu)) = (figures.cores, figures.cpu) else { return Vec::new() };
    // A replay is meant to.
    if cpu < HIGH * cores || figures.replay || cores <= 0.0 {
        return Vec::new();
    }
    let what = format!(
        "{cpu:.2} of {cores:.0} {} in use by the agent",
        if cores > 1.0 { "cores are" } else { "core is" }
    );
    // With a core free for each, workers share none.
    let crowded = figures.free_cores().is_some_and(|free| free < 1.0);
    let fewer = |key| {
        let why = "threads that share a core cost more than they bring";
        crowded.then(|| one_fewer(figures, key, why)).flatten()
    };
    let batches = |key| {
        let small = figures.number(key)? < LARGE_ROOM;
        small.then(|| more_room(figures, key, "more work is done per wake-up")).flatten()
    };
    let finding = Finding::new(what)
        .change(fewer(FLOW_WORKERS))
        .change(fewer(ENRICHMENT_WORKERS))
        .change(batches(PACKETS))
        .change(batches(RECORDS));
    vec![finding]
}

/// A worker takes a whole core while others are free.
pub(super) fn busy_workers(figures: &Figures) -> Vec<Finding> {
    let free = figures.free_cores().is_some_and(|free| free >= 1.0);
    let finding = |(kind, key, name): (&str, &'static str, &str)| {
        let busy = figures.busy(kind);
        (busy >= BUSY && free && !figures.replay).then(|| {
            let what =
                format!("the busiest {name} takes {:.0} % of a core, and others are free", 100.0 * busy);
            Finding::new(what).another_worker(figures, key)
        })
    };
    [("flow", FLOW_WORKERS, "flow worker"), ("enrich", ENRICHMENT_WORKERS, "enrichment worker")]
        .into_iter()
        .filter_map(finding)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{changes, fires, well};
    use super::*;

    #[test]
    fn a_full_table_wants_room() {
        let finding = fires(table_full, |figures| (figures.flows, figures.evicted) = (131_000, 500));
        assert_eq!(
            finding.what,
            "131,000 flows of at most 131,072 (100 %): 100 flows/s had to go for others, those that were quiet for longest (lack of resources)"
        );
        assert_eq!(changes(&finding), [(TABLE, json!(262_144))]);
        let finding = fires(table_full, |figures| figures.flows = 125_000);
        assert!(
            finding.what.starts_with("125,000 flows of at most 131,072 (95 %): when it is"),
            "{finding:?}"
        );
        let of_a_run = Figures { live: false, table_capacity: None, flows: 0, evicted: 7, ..well() };
        assert!(table_full(&of_a_run)[0].what.starts_with("7 flows had to go for others"));
        let halved = fires(table_full, |figures| {
            figures.evicted = 500;
            figures.table_capacity = figures.number(TABLE).map(|configured| configured / 2);
        });
        assert_eq!(changes(&halved), [], "more would be taken away again");
        assert_eq!(many_records(&well()), None);
        assert!(many_records(&of_a_run).is_some());
    }

    #[test]
    fn high_memory_wants_less_room() {
        let finding =
            fires(high_memory, |figures| (figures.resident, figures.flows) = (Some(7 << 30), 100_000));
        assert_eq!(finding.what, "7,168 MiB of 8,192 MiB are in use by the agent (88 %)");
        assert_eq!(
            changes(&finding),
            [(TABLE, json!(65_536)), (PACKETS, json!(5_000)), (RECORDS, json!(500)), (METRICS, json!(false))]
        );
        let mut small = Figures { resident: Some(8 << 30), ..well() };
        for (key, value) in [(PACKETS, json!(5_000)), (RECORDS, json!(500)), (METRICS, json!(false))] {
            small.settings.insert(key.to_owned(), value);
        }
        let left = |figures: &Figures| changes(&high_memory(figures)[0]);
        assert!(high_memory(&small)[0].advice[0].ends_with("it needs more memory"));
        assert_eq!(left(&small), [], "a table that is nearly empty takes little");
        (small.live, small.flows) = (false, 0);
        assert_eq!(left(&small), [(TABLE, json!(65_536))], "of a run, flows aren't known");
    }

    #[test]
    fn high_cpu_wants_fewer_workers_and_larger_batches() {
        let finding = fires(high_cpu, |figures| figures.cpu = Some(3.5));
        assert_eq!(finding.what, "3.50 of 4 cores are in use by the agent");
        assert_eq!(
            changes(&finding),
            [(FLOW_WORKERS, json!(1)), (PACKETS, json!(20_000)), (RECORDS, json!(2_000))]
        );
        let large = Figures { cores: Some(64.0), cpu: Some(60.0), ..well() };
        let expected = [(PACKETS, json!(20_000)), (RECORDS, json!(2_000))];
        assert_eq!(changes(&high_cpu(&large)[0]), expected, "workers have cores of their own");
        assert_eq!(high_cpu(&Figures { cpu: Some(3.5), replay: true, ..well() }), [], "a replay is meant to");
    }

    #[test]
    fn a_busy_worker_wants_another_while_cores_are_free() {
        let busy = |kind: &str| [(kind.to_owned(), 0.95)].into();
        let finding = fires(busy_workers, |figures| figures.busiest = busy("flow"));
        assert_eq!(finding.what, "the busiest flow worker takes 95 % of a core, and others are free");
        assert_eq!(changes(&finding), [(FLOW_WORKERS, json!(3))]);
        let finding = fires(busy_workers, |figures| figures.busiest = busy("enrich"));
        assert_eq!(changes(&finding), [(ENRICHMENT_WORKERS, json!(2))]);
        assert_eq!(busy_workers(&Figures { busiest: busy("flow"), cpu: Some(3.2), ..well() }), []);
    }
}
