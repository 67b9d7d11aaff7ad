//! Packets that are lost, and the channel that is about to lose them.

use super::agent::QUARANTINED;
use super::change::{larger_ring, more_room, set};
use super::records::full_channel;
use super::{Finding, no_core, share, times};
use crate::diagnose::figures::{Channel, Figures};
use serde_json::json;

const ROOM: &str = "pipeline.packet_channel_capacity";
const COALESCING: &str = "pipeline.coalescing_capacity";
const WORKERS: &str = "pipeline.flow_workers";

/// Reasons that have a rule of their own.
const BEFORE_THE_READER: [(&str, &str); 3] = [
    ("ring_full", "the ring between kernel and reader"),
    ("kernel_table_full", "the tables of the kernel programs, nor in the ring between kernel and reader"),
    ("socket_drop", "the rings of the packet sockets"),
];
const BEFORE_THE_WORKERS: &str = "packet_channel_full";
/// Nothing in this run's settings has to do with it.
const OF_AN_EARLIER_RUN: [&str; 2] = ["crash", "abi_change"];

/// A channel that is so full is about to be.
const NEARLY_FULL: f64 = 0.8;
/// Of one core, a thread that takes so much has no time left.
const BUSY: f64 = 0.85;
/// Packets a second above which the profile is meant, and cores that its workers take on top of two.
const HIGH_TRAFFIC: f64 = 10_000.0;
const CORES_OF_HIGH_TRAFFIC: f64 = 3.0;

fn is_full(channel: &Channel) -> bool {
    channel.fill() >= NEARLY_FULL || channel.waits > 0
}

/// The kernel had no room for packets that the reader had not fetched yet: it leaves them there while all room behind
/// it is taken, or doesn't come round to them.
pub(super) fn before_the_reader(figures: &Figures) -> Vec<Finding> {
    let finding = |(reason, place): &(&str, &str)| {
        let lost = share(figures, *figures.lost.get(*reason)?, figures.packets, "packet");
        let what = format!("{lost} found no room in {place} ({reason})");
        let channel = figures.packet_channel.as_ref();
        let full = match &figures.coalescing {
            // What the channel has no room for waits there, and packets are read until that is full too.
            Some(waiting) => Some(waiting.most > waiting.capacity),
            None => channel.map(is_full),
        };
        Some(match full {
            Some(true) => {
                let waits = so_often(channel.map_or(0, |channel| channel.waits));
                let keeps = "keeps more flows, merged, while the workers are behind";
                Finding::new(format!("{what}: the packet channel behind it was full{waits}"))
                    .faster_workers(figures)
                    .change(figures.coalescing.and_then(|_| more_room(figures, COALESCING, keeps)))
                    .change(larger_ring(figures))
            }
            Some(false) => reader_is_late(figures, what),
            // Which of both it was isn't known.
            None => Finding::new(what)
                .change(larger_ring(figures))
                .change(more_room(figures, ROOM, "holds longer bursts, if the packet channel was full"))
                .another_worker(figures, WORKERS),
        })
    };
    BEFORE_THE_READER.iter().filter_map(finding).collect()
}

impl Finding {
    /// What helps flow workers that are behind.
    fn faster_workers(self, figures: &Figures) -> Self {
        if full_channel(figures).is_some() {
            let why =
                "flow workers wait for the enrichment channel: see Slow enrichment, and change that first";
            return self.because(Some(why));
        }
        let fast = figures.live && figures.rate(figures.packets.unwrap_or_default()) > HIGH_TRAFFIC;
        let free = figures.free_cores().is_some_and(|free| free >= CORES_OF_HIGH_TRAFFIC);
        let profile = "--profile high-traffic sets room and workers for more than 10,000 packets/s";
        self.change(more_room(figures, ROOM, "holds longer bursts"))
            .another_worker(figures, WORKERS)
            .advise_if((fast && free).then_some(profile))
    }
}

fn so_often(waits: u64) -> String {
    if waits == 0 { String::new() } else { format!(" ({})", times(waits)) }
}

/// There is room behind the reader: neither that nor workers would help.
fn reader_is_late(figures: &Figures, what: String) -> Finding {
    let finding = Finding::new(format!("{what}: there was room behind it, so the reader was late"))
        .change(larger_ring(figures));
    if figures.busy("reader") >= BUSY {
        let busy = format!("the reader takes {:.0} % of a core", 100.0 * figures.busy("reader"));
        return finding
            .advise(format!("{busy}, and there is one: fewer of capture.interfaces leave it less to do"));
    }
    match no_core(figures) {
        Some(none) => finding.advise(format!("{none}: it has to wait until it may run")),
        None => finding,
    }
}

/// The channel to the flow workers dropped packets.
pub(super) fn before_the_workers(figures: &Figures) -> Vec<Finding> {
    let Some(&lost) = figures.lost.get(BEFORE_THE_WORKERS) else { return Vec::new() };
    let lost = share(figures, lost, figures.packets, "packet");
    let backpressure = figures.setting("pipeline.enable_backpressure") == Some(&json!(false));
    let backpressure = backpressure.then(|| {
        set(figures, "pipeline.enable_backpressure", json!(true), "packets wait instead of being dropped")
    });
    let finding = Finding::new(format!("{lost} found no room in the packet channel ({BEFORE_THE_WORKERS})"))
        .change(backpressure)
        .faster_workers(figures);
    vec![finding]
}

/// What is lost for a reason that no other rule knows is said all the same.
pub(super) fn otherwise(figures: &Figures) -> Vec<Finding> {
    let known = |reason: &str| {
        [BEFORE_THE_WORKERS, QUARANTINED].contains(&reason)
            || OF_AN_EARLIER_RUN.contains(&reason)
            || BEFORE_THE_READER.iter().any(|(known, _)| *known == reason)
    };
    let others = figures.lost.iter().filter(|(reason, _)| !known(reason));
    let finding = |(reason, lost): (&String, &u64)| {
        let what = format!("{} lost ({reason})", share(figures, *lost, figures.packets, "packet"));
        Finding::new(what).advise("its log says more; docs/reference/statistics.md has what the reason means")
    };
    others.map(finding).collect()
}

/// Nothing is lost yet.
pub(super) fn channel_fills(figures: &Figures) -> Vec<Finding> {
    let Some(channel) = figures.packet_channel else { return Vec::new() };
    // A replay fills it as fast as it can, and waits.
    if !is_full(&channel) || figures.packets_lost() > 0 || figures.replay {
        return Vec::new();
    }
    let fill = 100.0 * channel.fill();
    let what = match channel.waits {
        0 => format!("the packet channel was {fill:.0} % full: the flow workers are behind"),
        waits => format!("the packet channel was full{}: the flow workers are behind", so_often(waits)),
    };
    vec![Finding::new(what).faster_workers(figures)]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{changes, fires, well};
    use super::*;

    fn lose(reason: &str, packets: u64) -> impl FnOnce(&mut Figures) {
        let reason = reason.to_owned();
        move |figures| figures.lost = [(reason, packets)].into()
    }

    const FULL: Channel =
        Channel { capacity: 10_000, depth: 9_000, most: 9_000, high_water: 9_500, waits: 0 };

    #[test]
    fn a_reader_that_merges_leaves_packets_in_the_ring_only_when_that_is_full_too() {
        const MERGED: Channel =
            Channel { capacity: 65_536, depth: 0, most: 65_600, high_water: 65_600, waits: 0 };
        let of = |coalescing| {
            let mut figures = Figures { packet_channel: Some(FULL), coalescing: Some(coalescing), ..well() };
            lose("ring_full", 5_000)(&mut figures);
            before_the_reader(&figures).remove(0)
        };
        let full = of(MERGED);
        assert!(full.what.ends_with("the packet channel behind it was full"), "{}", full.what);
        let keys: Vec<_> = changes(&full).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [ROOM, WORKERS, COALESCING, "capture.ring_bytes"]);
        let late = of(Channel { most: 60_000, high_water: 60_000, ..MERGED });
        assert!(late.what.ends_with("so the reader was late"), "{}", late.what);
    }

    #[test]
    fn a_ring_that_is_full_because_the_channel_is_wants_room_and_workers() {
        let finding = fires(before_the_reader, |figures| {
            lose("ring_full", 5_000)(figures);
            figures.packet_channel = Some(FULL);
        });
        assert_eq!(
            finding.what,
            "1,000 packets/s (10.0 %) found no room in the ring between kernel and reader (ring_full): the packet channel behind it was full"
        );
        let full =
            Figures { packet_channel: Some(Channel { depth: 0, most: 0, waits: 36, ..FULL }), ..well() };
        let what =
            &before_the_reader(&Figures { lost: [("ring_full".to_owned(), 5)].into(), ..full })[0].what;
        assert!(what.ends_with("was full (36 times)"), "at no look, but in between: {what}");
        assert_eq!(
            changes(&finding),
            [(ROOM, json!(20_000)), (WORKERS, json!(3)), ("capture.ring_bytes", json!("32MiB"))]
        );
        assert_eq!(finding.changes[0].present, json!(10_000));
    }

    #[test]
    fn workers_that_wait_for_enrichment_are_no_cause() {
        let held_up = |figures: &mut Figures| {
            figures.packet_channel = Some(FULL);
            figures.enrichment_channel = Some(Channel { waits: 5, ..FULL });
        };
        let finding = fires(channel_fills, held_up);
        assert_eq!(finding.changes, []);
        assert!(finding.has_cause && finding.advice[0].contains("see Slow enrichment"), "{finding:?}");
        let lossy = |figures: &mut Figures| {
            held_up(figures);
            lose("ring_full", 1)(figures);
        };
        assert_eq!(changes(&fires(before_the_reader, lossy)), [("capture.ring_bytes", json!("32MiB"))]);
    }

    #[test]
    fn fast_links_have_a_profile() {
        let advice = |packets, idle| {
            let figures = Figures { packet_channel: Some(FULL), packets, idle, ..well() };
            channel_fills(&figures)[0].advice.join("\n")
        };
        assert!(advice(Some(60_000), Some(3.0)).starts_with("--profile high-traffic"));
        assert_eq!(advice(Some(50_000), Some(3.0)), "");
        assert_eq!(advice(Some(60_000), Some(2.0)), "", "its workers want cores");
        assert_eq!(advice(None, Some(3.0)), "");
    }

    #[test]
    fn a_ring_that_is_full_because_the_reader_is_late_wants_a_larger_ring() {
        let finding = fires(before_the_reader, lose("socket_drop", 1));
        assert!(finding.what.contains("(less than 0.1 %) found no room in the rings of the packet sockets"));
        assert!(finding.what.ends_with("there was room behind it, so the reader was late"), "{finding:?}");
        assert_eq!(changes(&finding), [("capture.ring_bytes", json!("32MiB"))]);
        assert!(finding.advice.is_empty(), "{finding:?}");
        let advice = |change: fn(&mut Figures)| {
            let lossy = |figures: &mut Figures| {
                lose("ring_full", 1)(figures);
                change(figures);
            };
            fires(before_the_reader, lossy).advice.join("\n")
        };
        let busy = advice(|figures| figures.busiest = [("reader".to_owned(), 0.97)].into());
        assert!(busy.starts_with("the reader takes 97 % of a core, and there is one"), "{busy}");
        assert!(advice(|figures| figures.idle = Some(0.2)).starts_with("no core is free"));
    }

    #[test]
    fn where_nothing_is_known_of_the_channel_both_are_suggested() {
        let finding = fires(before_the_reader, |figures| {
            lose("ring_full", 1)(figures);
            figures.packet_channel = None;
        });
        let keys: Vec<_> = finding.changes.iter().map(|change| change.key).collect();
        assert_eq!(keys, ["capture.ring_bytes", ROOM, WORKERS]);
    }

    #[test]
    fn a_loss_is_said_whatever_is_known_of_settings() {
        for reason in ["ring_full", "socket_drop", "packet_channel_full", "new"] {
            let mut figures = Figures { settings: serde_json::Map::new(), ..well() };
            lose(reason, 5_000)(&mut figures);
            let found: Vec<_> = [before_the_reader, before_the_workers, otherwise]
                .iter()
                .flat_map(|rule| rule(&figures))
                .collect();
            assert_eq!(found.len(), 1, "{reason}");
            assert!(found[0].what.starts_with("1,000 packets/s (10.0 %)"), "{found:?}");
            assert_eq!(found[0].changes, [], "none is known");
        }
    }

    #[test]
    fn a_full_channel_wants_backpressure_where_it_is_off() {
        let off = |figures: &mut Figures| {
            lose("packet_channel_full", 100)(figures);
            figures.settings.insert("pipeline.enable_backpressure".to_owned(), json!(false));
        };
        let finding = fires(before_the_workers, off);
        assert_eq!(
            changes(&finding),
            [("pipeline.enable_backpressure", json!(true)), (ROOM, json!(20_000)), (WORKERS, json!(3))]
        );
        let finding = fires(before_the_workers, lose("packet_channel_full", 100));
        assert_eq!(changes(&finding), [(ROOM, json!(20_000)), (WORKERS, json!(3))]);
    }

    #[test]
    fn a_reason_that_no_rule_knows_is_said() {
        let finding = fires(otherwise, lose("moonlight", 1));
        assert!(finding.what.ends_with(" lost (moonlight)") && !finding.advice.is_empty(), "{finding:?}");
        let mut known = well();
        let reasons = mermin_flow::Loss::ALL.map(mermin_flow::Loss::name);
        known.lost = reasons.map(|reason| (reason.to_owned(), 1)).into();
        assert_eq!(otherwise(&known), []);
    }

    #[test]
    fn a_channel_that_fills_is_said_before_it_loses() {
        let finding = fires(channel_fills, |figures| figures.packet_channel = Some(FULL));
        assert_eq!(finding.what, "the packet channel was 90 % full: the flow workers are behind");
        assert_eq!(changes(&finding), [(ROOM, json!(20_000)), (WORKERS, json!(3))]);
        let once = Channel { depth: 100, most: 100, ..FULL };
        let of = |channel| Figures { packet_channel: Some(channel), ..well() };
        assert_eq!(channel_fills(&of(once)), [], "it was full once");
        let waited = channel_fills(&of(Channel { waits: 1, ..once }));
        assert!(waited[0].what.starts_with("the packet channel was full (once)"), "{waited:?}");
        assert_eq!(channel_fills(&Figures { replay: true, ..of(FULL) }), []);
        let mut lossy = of(FULL);
        lose("ring_full", 1)(&mut lossy);
        assert_eq!(channel_fills(&lossy), [], "another rule says it");
    }
}
