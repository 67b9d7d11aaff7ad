//! Text for people: the golden lines, columns by width, colours, the header.

use super::*;
use crate::sample;

fn lines(style: Style) -> String {
    let mut text = TextLines::new(style);
    let mut out = Vec::new();
    sample::all().iter().for_each(|record| text.push(record, &mut out));
    String::from_utf8(out).unwrap()
}

#[test]
fn golden() {
    let mut all = String::new();
    for columns in [80, 110, 124, 140] {
        all += &format!("── a terminal of {columns} columns\n");
        all += &lines(Style { color: false, header: true, columns: Some(columns) });
    }
    all += "── a file\n";
    all += &lines(Style::PLAIN);
    sample::assert_golden("records.txt", all.as_bytes());
}

/// A terminal shows the same text with and without colour, and no colour is left on at a line's end.
#[test]
fn colour_adds_only_colour() {
    let plain = Style { color: false, header: true, columns: Some(140) };
    let colored = lines(Style { color: true, ..plain });
    assert!(colored.contains("\x1b["));
    let mut stripped = String::new();
    for (place, part) in colored.split("\x1b[").enumerate() {
        stripped += if place == 0 { part } else { part.split_once('m').unwrap().1 };
    }
    // Padding is within the colour of its cell, so the text is the same to the byte.
    assert_eq!(stripped, lines(plain));
    for line in colored.lines() {
        assert!(line.rfind("\x1b[").is_none_or(|last| line[last..].starts_with("\x1b[0m")), "{line:?}");
    }
}

#[test]
fn elsewhere_than_on_a_terminal_each_line_is_a_record() {
    assert_eq!(lines(Style::PLAIN).lines().count(), sample::all().len());
}

#[test]
fn the_header_comes_again_after_fifty_lines_and_with_a_new_day() {
    let mut text = TextLines::new(Style { color: false, header: true, columns: Some(120) });
    let mut headers = Vec::new();
    let mut record = sample::udp();
    record.end_time = sample::START;
    for number in 0..120 {
        if number == 110 {
            record.end_time += 60_000_000_000;
        }
        let mut out = Vec::new();
        text.push(&record, &mut out);
        if out.iter().filter(|&&byte| byte == b'\n').count() == 2 {
            headers.push((number, String::from_utf8_lossy(&out[..11]).into_owned()));
        }
    }
    let expected = [(0, "2025-12-31Z"), (50, "2025-12-31Z"), (100, "2025-12-31Z"), (110, "2026-01-01Z")];
    assert_eq!(headers, expected.map(|(number, day)| (number, day.to_owned())));
}

#[test]
fn events_and_reasons_are_told_apart() {
    use FlowEndReason::{ActiveTimeout, EndOfFlowDetected, ForcedEnd, IdleTimeout, LackOfResources};
    let mut record = sample::udp();
    let mut words = std::collections::HashSet::new();
    for (event, reason) in [
        (FlowEvent::Start, None),
        (FlowEvent::Update, Some(ActiveTimeout)),
        (FlowEvent::End, Some(IdleTimeout)),
        (FlowEvent::End, Some(ActiveTimeout)),
        (FlowEvent::End, Some(EndOfFlowDetected)),
        (FlowEvent::End, Some(ForcedEnd)),
        (FlowEvent::End, Some(LackOfResources)),
    ] {
        (record.event, record.end_reason) = (event, reason);
        let mut out = Vec::new();
        TextLines::new(Style::PLAIN).push(&record, &mut out);
        let line = String::from_utf8(out).unwrap();
        let word = line[24..34].trim().to_owned();
        assert_eq!(word.starts_with("end "), event == FlowEvent::End, "{word}");
        assert!(words.insert(word));
    }
}

#[test]
fn names_cannot_act_on_the_terminal() {
    let mut record = sample::udp();
    record.source.identity.name = Some("\u{1b}]0;evil\u{7}\nnext".into());
    let mut out = Vec::new();
    TextLines::new(Style::PLAIN).push(&record, &mut out);
    assert!(!out[..out.len() - 1].iter().any(u8::is_ascii_control));
}
