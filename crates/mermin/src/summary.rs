//! The end of a run as people read it: what came in, what became of it, and whether every book balances.

use mermin_flow::Tally;
use mermin_pipeline::{Ledger, Statistics};
use std::fmt::Write;

/// Columns of a name, and of a number behind it.
const NAME: usize = 26;
const NUMBER: usize = 16;

/// The summary, several lines.
#[must_use]
pub(crate) fn summary(statistics: &Statistics) -> String {
    let ledger = &statistics.ledger;
    let mut text = format!(
        "\n{} packets processed in {}; flows: {}\n\n",
        grouped(ledger.processed()),
        time(statistics.duration.as_secs_f64()),
        grouped(statistics.flows_created),
    );
    text.push_str(&books(statistics));
    text
}

/// All books, and whether they balance.
#[must_use]
pub(crate) fn books(statistics: &Statistics) -> String {
    let (ledger, mut text) = (&statistics.ledger, String::new());
    row(&mut text, "", ["packets", "frame bytes", "buffers"].map(str::to_owned));
    sightings(&mut text, ledger);
    text.push('\n');
    metering(&mut text, ledger);
    if !statistics.outputs.is_empty() {
        text.push('\n');
        row(&mut text, "records", ["handed", "delivered", "dropped"].map(str::to_owned));
    }
    for (name, book) in &statistics.outputs {
        let dropped: u64 = book.dropped.values().map(|amount| amount.records).sum();
        let counts = [book.handed.records, book.delivered.records, dropped];
        row(&mut text, &format!("  {name}"), counts.map(grouped));
        for (reason, amount) in &book.dropped {
            let _ = writeln!(text, "    dropped: {} {reason}", grouped(amount.records));
        }
        if book.recovered.records > 0 {
            let _ = writeln!(
                text,
                "    recovered: {} left on disk by an earlier run",
                grouped(book.recovered.records)
            );
        }
        if book.spooled.records > 0 {
            let _ = writeln!(
                text,
                "    on disk: {}, for the next run if this one is over",
                grouped(book.spooled.records)
            );
        }
        if book.merged > 0 {
            let _ = writeln!(text, "    merged: {} into later records of their flows", grouped(book.merged));
        }
    }
    text.push('\n');
    text.push_str(&verdict(statistics));
    if !ledger.inexact.is_empty() && ledger.has_sources_book() {
        let _ = write!(text, " Not known to the kernel: {}.", ledger.inexact.join(", "));
    }
    text.push('\n');
    text
}

/// Whether all books balance, and which don't.
fn verdict(statistics: &Statistics) -> String {
    let ledger = &statistics.ledger;
    let mut wrong = Vec::new();
    if !ledger.sightings_balance() && ledger.has_sources_book() {
        wrong.push("sightings (seen)".to_owned());
    }
    if !ledger.metering_balances() {
        wrong.push("metering (metered)".to_owned());
    }
    let outputs = statistics.outputs.iter().filter(|(_, book)| !book.balances());
    wrong.extend(outputs.map(|(name, _)| format!("output {name}")));
    if !wrong.is_empty() {
        let books =
            if wrong.len() == 1 { "THIS BOOK DOES NOT BALANCE" } else { "THESE BOOKS DO NOT BALANCE" };
        return format!(
            "{books}: {}. This is a bug: please report it with the output of --stats.",
            wrong.join(", ")
        );
    }
    let outputs = if statistics.outputs.is_empty() { "" } else { ", outputs" };
    if !ledger.has_sources_book() {
        return format!(
            "How many packets were seen is not known: the source has not told. The other books balance (metering{outputs})."
        );
    }
    format!("All books balance (sightings, metering{outputs}): no packet is missing, none is counted twice.")
}

fn sightings(text: &mut String, ledger: &Ledger) {
    if ledger.has_sources_book() {
        tally(text, "seen", &ledger.seen);
    } else {
        row(text, "seen", ["?"; 3].map(str::to_owned));
    }
    tally(text, "  = metered", &ledger.metered);
    if ledger.secondary != Tally::ZERO {
        tally(text, "  + seen at another point", &ledger.secondary);
    }
    for (reason, amount) in &ledger.unmetered {
        tally(text, &format!("  + unmetered, {reason}"), amount);
    }
    for (rule, amount) in &ledger.filtered {
        tally(text, &format!("  + filtered, {rule}"), amount);
    }
    if ledger.sampled_out != Tally::ZERO {
        tally(text, "  + sampled out", &ledger.sampled_out);
    }
    let mut lost = Tally::ZERO;
    for (reason, amount) in ledger.lost.iter().filter(|(_, amount)| **amount != Tally::ZERO) {
        tally(text, &format!("  + lost, {reason}"), amount);
        lost += *amount;
    }
    if lost == Tally::ZERO {
        tally(text, "  + lost", &lost);
    }
    tally(text, "  + in flight", &ledger.in_flight.values().copied().sum());
}

fn metering(text: &mut String, ledger: &Ledger) {
    tally(text, "metered", &ledger.metered);
    tally(text, "  = released as records", &ledger.released);
    tally(text, "  + resident", &ledger.resident.values().copied().sum());
}

fn tally(text: &mut String, name: &str, tally: &Tally) {
    row(text, name, [tally.packets, tally.bytes, tally.buffers].map(grouped));
}

fn row(text: &mut String, name: &str, cells: [String; 3]) {
    let [first, second, third] = cells;
    let _ = writeln!(text, "{name:<NAME$}{first:>NUMBER$}{second:>NUMBER$}{third:>NUMBER$}");
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// About three digits of a time.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        ..0.001 => "less than 1 ms".to_owned(),
        ..1.0 => format!("{:.0} ms", seconds * 1_000.0),
        ..10.0 => format!("{seconds:.2} s"),
        _ => format!("{seconds:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mermin_flow::Amount;
    use mermin_pipeline::OutputBook;
    use std::time::Duration;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn times_have_about_three_digits() {
        for (seconds, text) in [
            (0.0, "less than 1 ms"),
            (0.001, "1 ms"),
            (0.0344, "34 ms"),
            (1.234, "1.23 s"),
            (12.34, "12 s"),
            (5_000.0, "5000 s"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }

    fn statistics() -> Statistics {
        let mut statistics =
            Statistics { flows_created: 2, duration: Duration::from_millis(1_234), ..Statistics::default() };
        let ledger = &mut statistics.ledger;
        ledger.metered = Tally { packets: 1_500, bytes: 90_000, buffers: 1_000, buffer_bytes: 80_000 };
        ledger.released = ledger.metered;
        ledger.unmetered.insert("arp", Tally { packets: 2, bytes: 84, buffers: 2, buffer_bytes: 84 });
        ledger.seen = Tally { packets: 1_502, bytes: 90_084, buffers: 1_002, buffer_bytes: 80_084 };
        statistics
    }

    #[test]
    fn the_summary_is_a_table_that_balances() {
        let expected = "
1,502 packets processed in 1.23 s; flows: 2

                                   packets     frame bytes         buffers
seen                                 1,502          90,084           1,002
  = metered                          1,500          90,000           1,000
  + unmetered, arp                       2              84               2
  + lost                                 0               0               0
  + in flight                            0               0               0

metered                              1,500          90,000           1,000
  = released as records              1,500          90,000           1,000
  + resident                             0               0               0

All books balance (sightings, metering): no packet is missing, none is counted twice.
";
        assert_eq!(summary(&statistics()), expected);
    }

    fn with_output(mut statistics: Statistics) -> Statistics {
        let amount = Amount { records: 2, packets: 1_500, bytes: 90_000 };
        let book = OutputBook { handed: amount, delivered: amount, ..OutputBook::default() };
        statistics.outputs.push(("json".to_owned(), book));
        statistics
    }

    fn last_line(statistics: &Statistics) -> String {
        summary(statistics).lines().last().unwrap().to_owned()
    }

    #[test]
    fn all_books_are_spoken_of() {
        let line = last_line(&with_output(statistics()));
        assert!(line.starts_with("All books balance (sightings, metering, outputs): "), "{line}");
    }

    #[test]
    fn a_source_that_has_not_told_is_no_bug() {
        let mut statistics = with_output(statistics());
        statistics.ledger.inexact = vec!["seen.packets", "seen.buffers"];
        let text = summary(&statistics);
        assert!(
            text.contains("\nseen                                     ?               ?               ?\n"),
            "{text}"
        );
        assert_eq!(
            text.lines().last().unwrap(),
            "How many packets were seen is not known: the source has not told. The other books balance (metering, outputs)."
        );
        statistics.ledger.released.bytes += 1;
        let line = last_line(&statistics);
        assert!(line.starts_with("THIS BOOK DOES NOT BALANCE: metering (metered)."), "{line}");
    }

    #[test]
    fn a_book_that_does_not_balance_is_named() {
        let wrong = |change: fn(&mut Statistics)| {
            let mut statistics = with_output(statistics());
            change(&mut statistics);
            last_line(&statistics)
        };
        for (line, expected) in [
            (wrong(|all| all.ledger.seen.buffers += 1), "THIS BOOK DOES NOT BALANCE: sightings (seen)."),
            (wrong(|all| all.ledger.released.bytes += 1), "THIS BOOK DOES NOT BALANCE: metering (metered)."),
            (wrong(|all| all.outputs[0].1.handed.records += 1), "THIS BOOK DOES NOT BALANCE: output json."),
            (wrong(|all| all.outputs[0].1.delivered.bytes -= 1), "THIS BOOK DOES NOT BALANCE: output json."),
            (
                wrong(|all| {
                    all.ledger.seen.buffers += 1;
                    all.outputs[0].1.queued.packets += 1;
                }),
                "THESE BOOKS DO NOT BALANCE: sightings (seen), output json.",
            ),
        ] {
            assert!(line.starts_with(expected), "{line}");
        }
    }
}
