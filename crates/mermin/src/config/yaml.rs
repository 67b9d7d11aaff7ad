//! YAML text to a tree: YAML 1.2 with the core schema, and less of it.
//!
//! Anchors, aliases, tags, merge keys, duplicate keys, keys that are not scalars and second documents are refused:
//! each lets a file mean something other than what its reader sees. The scanner is `saphyr-parser`, which reports
//! events with places; types are resolved here, because the loader needs the text beside the type.

use super::problem::{Origin, Problem};
use super::tree::{Entry, Kind, Node, Scalar, Value};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};
use std::sync::Arc;

/// Sections within sections; the configuration needs five.
const DEPTH_MAX: usize = 32;

/// The tree of `text`, or what is wrong with it. An empty text is an empty map.
pub(crate) fn read(text: &str, name: &str) -> Result<Node, Problem> {
    let mut builder = Builder { name: Arc::from(name), open: Vec::new(), root: None, documents: 0 };
    // A byte order mark is not content.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => builder.event(event, span)?,
            Err(error) => {
                let what = format!("this is not YAML: {}", error.info());
                let help = "check indentation (two spaces a level, no tabs), colons and quotes around here";
                let mut problem = builder.problem(what, *error.marker(), help);
                problem.origin = problem.origin.map(|origin| within(text, origin));
                return Err(problem);
            }
        }
    }
    let start = builder.origin(Marker::new(0, 1, 0));
    Ok(builder.root.unwrap_or_else(|| Node::empty_map(start)))
}

/// `place`, or the end of what is written where that lies behind it: what the scanner misses at the end of the text it
/// misses on the line after.
fn within(text: &str, place: Origin) -> Origin {
    let written = text.trim_end();
    let (last, width) =
        written.lines().last().map_or((1, 0), |last| (written.lines().count(), last.chars().count()));
    match place {
        Origin::Text { name, line, .. } if line > last => {
            Origin::Text { name, line: last, column: width + 1 }
        }
        other => other,
    }
}

/// Builds the tree from events with a stack of its own, so that depth is bounded by a number and not by memory.
struct Builder {
    name: Arc<str>,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
}

enum Open {
    List { origin: Origin, items: Vec<Node> },
    Map { origin: Origin, entries: Vec<Entry>, key: Option<(String, Origin)> },
}

impl Builder {
    fn origin(&self, mark: Marker) -> Origin {
        Origin::Text { name: Arc::clone(&self.name), line: mark.line().max(1), column: mark.col() + 1 }
    }

    fn problem(&self, what: impl Into<String>, mark: Marker, help: &str) -> Problem {
        Problem {
            what: what.into(),
            origin: Some(self.origin(mark)),
            path: super::tree::dotted(&self.path()),
            help: help.to_owned(),
        }
    }

    /// The keys that lead to where the builder stands.
    fn path(&self) -> Vec<String> {
        let step = |open: &Open| match open {
            Open::List { items, .. } => Some(items.len().to_string()),
            Open::Map { key, .. } => key.as_ref().map(|(key, _)| key.clone()),
        };
        self.open.iter().filter_map(step).collect()
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let at = span.start;
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents == 1 {
                    return Ok(());
                }
                let help =
                    "keep one document: remove the `---` line and what follows, or merge it into the first";
                Err(self.problem("a second document in one file", at, help))
            }
            Event::Alias(_) => {
                Err(self.problem("an alias (`*name`)", at, "write the value out where it is meant"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse(anchor, tag.is_some(), at)?;
                self.scalar(&text, style, at)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse(anchor, tag.is_some(), at)?;
                let origin = self.origin(at);
                self.descend(Open::List { origin, items: Vec::new() }, at)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse(anchor, tag.is_some(), at)?;
                let origin = self.origin(at);
                self.descend(Open::Map { origin, entries: Vec::new(), key: None }, at)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let node = match self.open.pop().expect("the parser closes only what it opened") {
                    Open::List { origin, items } => Node { value: Value::List(items), origin },
                    Open::Map { origin, entries, .. } => Node { value: Value::Map(entries), origin },
                };
                self.attach(node);
                Ok(())
            }
        }
    }

    fn refuse(&self, anchor: usize, tagged: bool, at: Marker) -> Result<(), Problem> {
        if anchor > 0 {
            return Err(self.problem(
                "an anchor (`&name`)",
                at,
                "remove it and write the value out where it is meant",
            ));
        }
        if tagged {
            return Err(self.problem(
                "a tag (`!name`)",
                at,
                "remove it: types follow from the key; put a text in quotes",
            ));
        }
        Ok(())
    }

    fn descend(&mut self, open: Open, at: Marker) -> Result<(), Problem> {
        if self.expects_key() {
            let what = "a key that is a list or a section";
            return Err(self.problem(what, at, "write a plain key, then a colon and a space"));
        }
        if self.open.len() == DEPTH_MAX {
            let what = format!("more than {DEPTH_MAX} levels");
            return Err(self.problem(what, at, "no key of the configuration lies that deep"));
        }
        self.open.push(open);
        Ok(())
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open::Map { key: None, .. }))
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, at: Marker) -> Result<(), Problem> {
        let origin = self.origin(at);
        if !self.expects_key() {
            let kind = if style == ScalarStyle::Plain { core_schema(text) } else { Kind::Text };
            self.attach(Node { value: Value::Scalar(Scalar { text: text.to_owned(), kind }), origin });
            return Ok(());
        }
        if text == "<<" && style == ScalarStyle::Plain {
            return Err(self.problem("a merge key (`<<`)", at, "write the keys out"));
        }
        let Some(Open::Map { entries, key, .. }) = self.open.last_mut() else { return Ok(()) };
        let first = entries.iter().find(|entry| entry.key == text).map(|entry| entry.origin.clone());
        *key = Some((text.to_owned(), origin));
        if let Some(Origin::Text { line, .. }) = first {
            let what = format!("key `{text}` appears twice");
            let help = format!("keep one of them: the first is on line {line}");
            return Err(self.problem(what, at, &help));
        }
        Ok(())
    }

    fn attach(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => {
                if let Some((key, origin)) = key.take() {
                    entries.push(Entry { key, origin, node });
                }
            }
        }
    }
}

/// The type of a plain scalar: the regular expressions of YAML 1.2.2 section 10.3.2.
pub(crate) fn core_schema(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Kind::Float(f64::NAN),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Kind::Float(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    let in_radix = |digits: &str, radix| {
        let plain = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
        plain.then(|| i128::from_str_radix(digits, radix).ok()).flatten()
    };
    if let Some(number) = text.strip_prefix("0x").and_then(|digits| in_radix(digits, 16)) {
        return Kind::Integer(number);
    }
    if let Some(number) = text.strip_prefix("0o").and_then(|digits| in_radix(digits, 8)) {
        return Kind::Integer(number);
    }
    if let Some(number) = in_radix(unsigned, 10) {
        return Kind::Integer(if text.starts_with('-') { -number } else { number });
    }
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    match text.parse() {
        Ok(number) if text.chars().all(numeric) => Kind::Float(number),
        _ => Kind::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_schema_types() {
        for (text, kind) in [
            ("", Kind::Null),
            ("~", Kind::Null),
            ("True", Kind::Bool(true)),
            ("yes", Kind::Text),
            ("on", Kind::Text),
            ("0", Kind::Integer(0)),
            ("-12", Kind::Integer(-12)),
            ("+7", Kind::Integer(7)),
            ("0x1F", Kind::Integer(31)),
            ("0o17", Kind::Integer(15)),
            ("017", Kind::Integer(17)),
            ("1_000", Kind::Text),
            ("30s", Kind::Text),
            ("1.5", Kind::Float(1.5)),
            ("1e3", Kind::Float(1000.0)),
            ("+-5", Kind::Text),
            ("0x-1", Kind::Text),
            ("inf", Kind::Text),
            ("-.inf", Kind::Float(f64::NEG_INFINITY)),
            ("12:30:45", Kind::Text),
        ] {
            assert_eq!(core_schema(text), kind, "{text}");
        }
    }

    #[test]
    fn an_empty_text_is_an_empty_map() {
        for text in ["", "\n", "# nothing\n", "---\n", "\u{feff}", "{}"] {
            let node = read(text, "x").unwrap();
            assert!(node.is_null() || node.value == Value::Map(Vec::new()), "{text:?}");
        }
    }

    #[test]
    fn quoted_scalars_are_texts() {
        let node = read("a: '1'\nb: \"true\"\nc: |\n  2\n", "x").unwrap();
        for key in ["a", "b", "c"] {
            let Value::Scalar(scalar) = &node.nearest(&[key.to_owned()]).value else { panic!("{key}") };
            assert_eq!(scalar.kind, Kind::Text, "{key}");
        }
    }

    #[test]
    fn what_is_missing_at_the_end_is_missed_on_the_last_line() {
        let place = |text| read(text, "x").unwrap_err().origin.unwrap().to_string();
        for (text, expected) in [
            ("a: [1", "x:1:6"),
            ("a: [1\n", "x:1:6"),
            ("a: {b: 1\n\n\n", "x:1:9"),
            ("a:\n  - [\n# ä\n", "x:3:4"),
            ("a: b: c\n", "x:1:5"),
            ("a: \"x\n", "x:1:4"),
        ] {
            assert_eq!(place(text), expected, "{text:?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(DEPTH_MAX + 1);
        assert_eq!(read(&deep, "x").unwrap_err().what, "more than 32 levels");
        assert!(read(&format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX)), "x").is_ok());
    }
}
