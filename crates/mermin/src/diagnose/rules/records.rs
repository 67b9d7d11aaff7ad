//! What is added to records: enrichment that is slow, a cluster that is not known.

use super::change::more_room;
use super::load::many_records;
use super::{Finding, share, times};
use crate::diagnose::figures::{Channel, Figures};

const NEARLY_FULL: f64 = 0.8;
/// Records out of a thousand that may be handed on early before it is said.
const EARLY_PER_MILLE: u64 = 1;

/// The enrichment channel, where it was as good as full. A replay fills it as fast as it can, and waits.
pub(super) fn full_channel(figures: &Figures) -> Option<Channel> {
    let channel = figures.enrichment_channel.filter(|_| !figures.replay);
    channel.filter(|channel| channel.fill() >= NEARLY_FULL || channel.waits > 0)
}

/// Records wait for enrichment workers, or for what may still become known.
pub(super) fn slow_enrichment(figures: &Figures) -> Vec<Finding> {
    let records = figures.outputs.iter().map(|output| output.handed).max().unwrap_or_default();
    let early = figures.early.filter(|early| *early > 0 && early * 1_000 > records * EARLY_PER_MILLE);
    let full = full_channel(figures);
    let room = more_room(figures, "pipeline.enrichment_channel_capacity", "lets more records wait");
    let finding = match (full, early) {
        (None, None) => return Vec::new(),
        (Some(channel), _) => {
            let mut what = format!("the enrichment channel is {:.0} % full", 100.0 * channel.fill());
            if channel.waits > 0 {
                what += &format!("; flow workers waited {} for room", times(channel.waits));
            }
            let finding = Finding::new(what).because(many_records(figures));
            finding.another_worker(figures, "pipeline.enrichment_workers").change(room)
        }
        (None, Some(early)) => {
            let share = share(figures, early, Some(records), "record");
            let what = format!("{share} went on before everything was known about their ends");
            Finding::new(what)
                .change(room)
                .advise("enrich.kubernetes.wait says how long a record may wait for the API server")
        }
    };
    vec![finding.advise("where names aren't needed, enrich.enabled=false takes the stage away")]
}

/// The API server does not answer.
pub(super) fn kubernetes_silent(figures: &Figures) -> Vec<Finding> {
    let Some(why) = &figures.kubernetes_trouble else { return Vec::new() };
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    let what = format!("what is known of the cluster is not of now{why}; records say `enrichment: degraded`");
    let finding = Finding::new(what)
        .advise("no setting helps; mermin status says which kinds are missing, and since when");
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{changes, fires, well};
    use super::*;
    use serde_json::json;

    const WORKERS: &str = "pipeline.enrichment_workers";
    const ROOM: &str = "pipeline.enrichment_channel_capacity";

    #[test]
    fn slow_enrichment_wants_workers_and_room() {
        let full = Channel { capacity: 1_000, depth: 950, most: 950, high_water: 1_000, waits: 3 };
        let finding = fires(slow_enrichment, |figures| figures.enrichment_channel = Some(full));
        assert_eq!(finding.what, "the enrichment channel is 95 % full; flow workers waited 3 times for room");
        assert_eq!(changes(&finding), [(WORKERS, json!(2)), (ROOM, json!(2_000))]);
        assert!(finding.advice.concat().contains("enrich.enabled=false"), "{finding:?}");
        let flood = Figures { enrichment_channel: Some(full), evicted: 7, ..well() };
        let advice = &slow_enrichment(&flood)[0].advice[0];
        assert!(advice.starts_with("the flow table is full"), "{advice}");
        let replay = Figures { enrichment_channel: Some(full), replay: true, ..well() };
        assert_eq!(slow_enrichment(&replay), []);
    }

    #[test]
    fn records_that_go_early_want_room_and_time() {
        let finding = fires(slow_enrichment, |figures| figures.early = Some(10));
        assert!(finding.what.contains("before everything was known"), "{finding:?}");
        assert_eq!(changes(&finding), [(ROOM, json!(2_000))], "more workers would not know more");
        assert!(finding.advice[0].starts_with("enrich.kubernetes.wait"), "{finding:?}");
        let early = |early| Figures { early, ..well() };
        assert_eq!(slow_enrichment(&early(Some(1))), [], "one in a thousand is no trouble");
        assert_eq!(slow_enrichment(&early(None)), [], "it isn't known");
    }

    #[test]
    fn a_silent_api_server_is_said() {
        let finding =
            fires(kubernetes_silent, |figures| figures.kubernetes_trouble = Some("refused".to_owned()));
        assert!(finding.what.contains("not of now (refused);") && finding.changes.is_empty(), "{finding:?}");
    }
}
