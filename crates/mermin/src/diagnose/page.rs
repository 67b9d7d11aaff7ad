//! What was found, for people and for programs.

use super::figures::{Channel, Figures, Output};
use super::rules::{Change, Finding, Rule};
use crate::summary::{grouped, time};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What a rule has found.
type Found = (&'static Rule, Finding);

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";

/// Columns of what stands left of a figure, at least; and between both.
const HEAD: usize = 26;
const GAP: usize = 2;
/// Columns of a line of sentences, at most.
const LINE: usize = 100;

/// The page, with colours where they are wanted. `of`: whose figures they are.
pub(super) fn text(figures: &Figures, found: &[Found], of: &str, color: bool) -> String {
    let paint = |code: &str, text: &str| if color { format!("{code}{text}\x1b[0m") } else { text.to_owned() };
    let mut page = String::new();
    let how = if figures.live { "looked at for" } else { "which took" };
    let _ = writeln!(page, "mermin {}, {of}, {how} {}\n", figures.version, time(figures.seconds));
    let lines = main_figures(figures);
    let width = lines.iter().map(|(head, _)| head.chars().count() + GAP).max().unwrap_or_default().max(HEAD);
    for (head, rest) in lines {
        let _ = writeln!(page, "{head:<width$}{rest}");
    }
    for (rule, finding) in found {
        let _ = writeln!(page, "\n{}", paint(RED, rule.entry));
        for line in wrapped(&finding.what, LINE - 2) {
            let _ = writeln!(page, "  {}", paint(BOLD, &line));
        }
        for line in table(&finding.changes) {
            let _ = writeln!(page, "    {line}");
        }
        for line in finding.advice.iter().flat_map(|advice| wrapped(advice, LINE - 4)) {
            let _ = writeln!(page, "    {}", paint(DIM, &line));
        }
    }
    page.push('\n');
    if !figures.untold.is_empty() {
        let untold =
            format!("Not known without pipeline.enable_metrics=true: {}.", figures.untold.join("; "));
        for line in wrapped(&untold, LINE) {
            let _ = writeln!(page, "{}", paint(DIM, &line));
        }
    }
    if found.is_empty() && figures.packets.is_none() {
        // What was lost isn't known either.
        let _ = writeln!(page, "Nothing to change, by what is known.");
    } else if found.is_empty() {
        let _ = writeln!(page, "{}", paint(GREEN, "Nothing to change."));
    } else if let Some(first) = first_change(found) {
        let _ = writeln!(page, "{}", how_to_apply(first));
    }
    page
}

/// Lines of `columns` at most, but for words that are longer.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("one is there from the start");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Names, what is and what is suggested in columns, and why.
fn table(changes: &[Change]) -> Vec<String> {
    let values = |change: &Change| {
        let present =
            if change.present.is_null() { String::new() } else { format!("{} → ", plain(&change.present)) };
        format!("{present}{}", plain(&change.suggested))
    };
    let width = |of: &dyn Fn(&Change) -> usize| changes.iter().map(of).max().unwrap_or_default();
    let (names, cells) = (width(&|change| change.key.len()), width(&|change| values(change).chars().count()));
    let line =
        |change: &Change| format!("{:<names$}  {:<cells$}  {}", change.key, values(change), change.why);
    changes.iter().map(line).collect()
}

/// Causes before what they cause.
fn first_change(found: &[Found]) -> Option<&Change> {
    let changes = |has_cause| {
        let of = found.iter().filter(move |(_, finding)| finding.has_cause == has_cause);
        of.flat_map(|(_, finding)| &finding.changes)
    };
    changes(false).chain(changes(true)).next()
}

/// One change at a time can be judged.
fn how_to_apply(first: &Change) -> String {
    // Shells take braces and spaces apart.
    let quote = if first.suggested.is_object() { "'" } else { "" };
    let set = format!("--set {quote}{}={}{quote}", first.key, plain(&first.suggested));
    format!(
        "Change one at a time, in the configuration file (then mermin reload, or start anew) or on the command line, and look again:\n  {set}"
    )
}

/// As it is written in the configuration.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(members) => {
            let members: Vec<_> =
                members.iter().map(|(key, value)| format!("{key}: {}", plain(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
        _ => value.to_string(),
    }
}

/// What is so, whatever was found. A figure that isn't known is left out.
fn main_figures(figures: &Figures) -> Vec<(String, String)> {
    let per = |count: u64| {
        if figures.live {
            format!("{}/s", grouped(figures.rate(count).round() as u64))
        } else {
            format!("{} ({}/s)", grouped(count), grouped(figures.rate(count).round() as u64))
        }
    };
    let lost = match figures.packets_lost() {
        0 => "none lost".to_owned(),
        lost => format!("{} lost", per(lost)),
    };
    let packets =
        figures.packets.map_or_else(|| "not known".to_owned(), |packets| format!("{}, {lost}", per(packets)));
    let room = |channel: Option<Channel>| {
        let channel = channel?;
        Some(format!(
            "{} of {}, at most {} since the start",
            grouped(channel.depth),
            grouped(channel.capacity),
            grouped(channel.high_water)
        ))
    };
    let flows = match figures.table_capacity {
        Some(capacity) => format!("{} of at most {}", grouped(figures.flows), grouped(capacity)),
        None => grouped(figures.flows),
    };
    let cpu = figures.cpu.zip(figures.cores).map(|(cpu, cores)| {
        let free = figures.idle.and(figures.free_cores()).map(|free| format!(", {free:.2} free"));
        format!(
            "{cpu:.2} of {cores:.0} {}{}",
            if cores == 1.0 { "core" } else { "cores" },
            free.unwrap_or_default()
        )
    });
    let memory = figures.resident.map(|resident| {
        let limit =
            figures.memory.map(|memory| format!(" of {} MiB", grouped(memory >> 20))).unwrap_or_default();
        format!("{} MiB{limit}", grouped(resident >> 20))
    });
    let merged = room(figures.coalescing.filter(|waiting| waiting.high_water > 0));
    let mut lines = vec![
        ("packets".to_owned(), Some(packets)),
        ("flows".to_owned(), figures.live.then_some(flows)),
        ("packet channel".to_owned(), room(figures.packet_channel)),
        ("coalescing".to_owned(), merged),
        ("enrichment channel".to_owned(), room(figures.enrichment_channel)),
    ];
    let queues =
        figures.outputs.iter().map(|output| (format!("queue of {}", output.name), room(output.queue)));
    lines.extend(queues);
    lines.extend([("processor".to_owned(), cpu), ("memory".to_owned(), memory)]);
    lines.into_iter().filter_map(|(head, rest)| Some((head, rest?))).collect()
}

/// One object; `ok` where there is nothing to change.
pub(super) fn json(figures: &Figures, found: &[Found]) -> Value {
    let channel = |channel: Option<Channel>| {
        channel.map(|channel| {
            json!({
                "capacity": channel.capacity,
                "depth": channel.depth,
                "most": channel.most,
                "high_water": channel.high_water,
                "waits": channel.waits,
            })
        })
    };
    let change = |change: &Change| {
        json!({
            "key": change.key,
            "present": change.present,
            "suggested": change.suggested,
            "why": change.why,
        })
    };
    let finding = |(rule, finding): &Found| {
        json!({
            "rule": rule.name,
            "entry": rule.entry,
            "what": finding.what,
            "changes": finding.changes.iter().map(change).collect::<Vec<_>>(),
            "advice": finding.advice,
            "has_cause": finding.has_cause,
        })
    };
    let output = |output: &Output| {
        json!({
            "name": output.name,
            "handed": output.handed,
            "dropped": output.dropped,
            "merged": output.merged,
            "queue": channel(output.queue),
            "error": output.error,
        })
    };
    json!({
        "version": figures.version,
        "seconds": figures.seconds,
        "ok": found.is_empty(),
        "consistent": !figures.torn,
        "findings": found.iter().map(finding).collect::<Vec<_>>(),
        "figures": {
            "packets": figures.packets,
            "lost": figures.lost,
            "flows": figures.flows,
            "flow_table_capacity": figures.table_capacity,
            "packet_channel": channel(figures.packet_channel),
            "coalescing": channel(figures.coalescing),
            "enrichment_channel": channel(figures.enrichment_channel),
            "early": figures.early,
            "outputs": figures.outputs.iter().map(output).collect::<Vec<_>>(),
            "cores": figures.cores,
            "cores_used": figures.cpu,
            "cores_free": figures.free_cores(),
            "resident_bytes": figures.resident,
            "memory_limit_bytes": figures.memory,
        },
        "untold": figures.untold,
    })
}

#[cfg(test)]
mod tests {
    use super::super::rules::{self, tests::well};
    use super::*;

    #[test]
    fn where_all_is_well_the_figures_say_so() {
        let figures = Figures { idle: Some(3.0), ..well() };
        let page = text(&figures, &rules::all(&figures), "the agent at 127.0.0.1:9464", false);
        assert_eq!(
            page,
            "mermin 0.1.0, the agent at 127.0.0.1:9464, looked at for 5.00 s\n\n\
             packets                   10,000/s, none lost\n\
             flows                     2,000 of at most 131,072\n\
             packet channel            10 of 10,000, at most 200 since the start\n\
             enrichment channel        10 of 1,000, at most 200 since the start\n\
             queue of json             10 of 8,192, at most 200 since the start\n\
             processor                 0.40 of 4 cores, 3.00 free\n\
             memory                    43 MiB of 8,192 MiB\n\n\
             Nothing to change.\n"
        );
    }

    #[test]
    fn what_is_found_is_a_table_of_settings() {
        let mut figures = well();
        figures.lost = [("packet_channel_full".to_owned(), 5_000)].into();
        figures.settings.insert("pipeline.enable_backpressure".to_owned(), json!(false));
        let findings = rules::all(&figures);
        let page = text(&figures, &findings, "an agent", false);
        let expected = "
Packet loss
  1,000 packets/s (10.0 %) found no room in the packet channel (packet_channel_full)
    pipeline.enable_backpressure      false → true   packets wait instead of being dropped
    pipeline.packet_channel_capacity  10000 → 20000  holds longer bursts
    pipeline.flow_workers             2 → 3          shares the work out

Change one at a time, in the configuration file (then mermin reload, or start anew) or on the command line, and look again:
  --set pipeline.enable_backpressure=true
";
        assert!(page.ends_with(expected), "{page}");
        assert!(page.contains("packets                   10,000/s, 1,000/s lost\n"), "{page}");
        let painted = text(&figures, &findings, "an agent", true);
        assert!(painted.contains("\x1b[31mPacket loss\x1b[0m\n  \x1b[1m1,000"), "{painted}");
        let json = json(&figures, &findings);
        assert_eq!(
            (&json["ok"], &json["findings"][0]["rule"], &json["findings"][0]["entry"]),
            (&json!(false), &json!("packet_channel_full"), &json!("Packet loss"))
        );
        assert_eq!(
            json["findings"][0]["changes"][1],
            json!({"key": "pipeline.packet_channel_capacity", "present": 10_000, "suggested": 20_000, "why": "holds longer bursts"})
        );
        assert_eq!(
            (&json["figures"]["outputs"][0]["queue"]["most"], &json["consistent"]),
            (&json!(20), &json!(true))
        );
    }

    #[test]
    fn a_cause_is_changed_first() {
        let mut figures = well();
        figures.lost = [("ring_full".to_owned(), 5_000)].into();
        figures.packet_channel = figures.packet_channel.map(|channel| Channel { waits: 9, ..channel });
        figures.enrichment_channel =
            figures.enrichment_channel.map(|channel| Channel { waits: 9, ..channel });
        let first = |figures: &Figures| {
            let page = text(figures, &rules::all(figures), "an agent", false);
            page.lines().last().unwrap().to_owned()
        };
        assert_eq!(
            first(&figures),
            "  --set pipeline.enrichment_workers=2",
            "the first on the page is of the ring"
        );
        figures.evicted = 7;
        assert_eq!(first(&figures), "  --set flow.table_capacity=262144");
    }

    #[test]
    fn sentences_are_wrapped_between_words() {
        assert_eq!(wrapped("a bc def ghij", 6), ["a bc", "def", "ghij"]);
        assert_eq!(wrapped("longer than that", 4), ["longer", "than", "that"]);
        assert_eq!(wrapped("", 4), [""]);
    }

    #[test]
    fn a_long_name_moves_the_figures() {
        let mut figures = well();
        figures.outputs[0].name = "json:/var/log/mermin/flows.jsonl".to_owned();
        let page = text(&figures, &[], "an agent", false);
        assert!(page.contains("\nqueue of json:/var/log/mermin/flows.jsonl  10 of 8,192"), "{page}");
        assert!(page.contains("\nflows                                      2,000 of"), "{page}");
    }

    #[test]
    fn a_suggestion_can_be_typed() {
        let mut figures = Figures { busiest: [("flow".to_owned(), 0.95)].into(), ..well() };
        figures.settings.insert("pipeline.flow_workers".to_owned(), json!({"min": 1, "max": 2}));
        let page = text(&figures, &rules::all(&figures), "an agent", false);
        let (_, set) = page.split_once("--set '").unwrap();
        let (key, value) = set.trim_end().strip_suffix('\'').unwrap().split_once('=').unwrap();
        let config = crate::config::parse(&key.replace('.', ": {").replacen(
            "flow_workers",
            &format!("flow_workers: {value}}}"),
            1,
        ));
        assert_eq!(config.unwrap().pipeline.flow_workers.most(), 3, "{page}");
    }

    #[test]
    fn what_is_not_known_is_said() {
        let figures = Figures { packets: None, untold: vec!["one thing", "another"], ..well() };
        let page = text(&figures, &[], "an agent", false);
        assert!(page.contains("\npackets                   not known\n"), "{page}");
        let expected = "
Not known without pipeline.enable_metrics=true: one thing; another.
Nothing to change, by what is known.
";
        assert!(page.ends_with(expected), "{page}");
        assert_eq!(json(&figures, &[])["untold"], json!(["one thing", "another"]));
    }
}
