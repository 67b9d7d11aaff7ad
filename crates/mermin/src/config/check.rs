//! The check of a tree against the schema: everything that is wrong, each with its place and a way out.
//!
//! It also makes ends meet where YAML and the structs differ: an empty section is `{}`, and a text from the environment
//! or an option stays a text where one is wanted, whatever it looks like.

use super::problem::{Origin, Problem};
use super::schema::{Form, Schema};
use super::tree::{Entry, Kind, Node, Scalar, Value, dotted};
use mermin_flow::{ByteSize, Interval, UnitError};

/// Everything that is wrong with `node`, which is changed into what serde expects.
pub(crate) fn check(schema: Schema<'_>, node: &mut Node) -> Vec<Problem> {
    let mut check = Check { path: Vec::new(), problems: Vec::new() };
    check.node(schema, node, None);
    check.problems
}

struct Check {
    path: Vec<String>,
    problems: Vec<Problem>,
}

impl Check {
    fn problem(&mut self, what: String, origin: &Origin, help: String) {
        let path = dotted(&self.path);
        self.problems.push(Problem { what, origin: Some(origin.clone()), path, help });
    }

    /// The last key, as messages name it.
    fn key(&self) -> String {
        // An item of a list goes by the list's name.
        match self.path.iter().rev().find(|key| key.parse::<usize>().is_err()) {
            Some(key) => format!("`{key}`"),
            None => "the configuration".to_owned(),
        }
    }

    fn mismatch(&mut self, schema: Schema<'_>, node: &Node, key_origin: Option<&Origin>) {
        let key = self.key();
        if let Value::Scalar(Scalar { text, .. }) = &node.value
            && schema.name() == Some("Interval")
            && matches!(text.parse::<Interval>(), Err(UnitError::Zero(_)))
        {
            let help = "expected a duration above 0s, for example 30s".to_owned();
            return self.problem(format!("{key} can't be zero"), &node.origin, help);
        }
        let expected = schema.expected();
        let (what, origin) = match &node.value {
            // An empty value stands nowhere; its key does.
            Value::Scalar(Scalar { kind: Kind::Null, .. }) => {
                (format!("{key} has no value"), key_origin.unwrap_or(&node.origin))
            }
            Value::Scalar(scalar) => {
                let found = match scalar.kind {
                    Kind::Bool(_) => format!("the truth value `{}`", scalar.text),
                    Kind::Integer(_) | Kind::Float(_) => format!("the number `{}`", scalar.text),
                    Kind::Text | Kind::Null => format!("the text `{}`", scalar.text.escape_debug()),
                };
                (format!("{key} can't be {found}"), &node.origin)
            }
            Value::List(_) => (format!("{key} can't be a list"), &node.origin),
            Value::Map(_) => (format!("{key} can't be a section"), &node.origin),
        };
        let origin = origin.clone();
        self.problem(what, &origin, format!("expected {expected}{}", self.hint(schema, node)));
    }

    /// What the user may have meant.
    fn hint(&self, schema: Schema<'_>, node: &Node) -> String {
        let Value::Scalar(Scalar { text, kind }) = &node.value else { return String::new() };
        match (schema.form(), kind) {
            // A text where it comes from an option.
            (Form::Text, _) if schema.name() == Some("Interval") && text.parse::<u64>().is_ok() => {
                format!("; if seconds are meant: {text}s")
            }
            (Form::Text, Kind::Integer(_) | Kind::Float(_) | Kind::Bool(_)) if schema.name().is_none() => {
                format!("; in quotes: \"{text}\"")
            }
            (Form::Bool, Kind::Text) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "true" => "; write true".to_owned(),
                "no" | "off" | "n" | "false" => "; write false".to_owned(),
                _ => String::new(),
            },
            (Form::Words(words), _) => nearest(text, words.iter().copied())
                .map(|word| format!("; did you mean `{word}`?"))
                .unwrap_or_default(),
            (Form::List(_), Kind::Text) => format!("; write [{text}]"),
            _ => String::new(),
        }
    }

    fn node(&mut self, schema: Schema<'_>, node: &mut Node, key_origin: Option<&Origin>) {
        let form = schema.form();
        if node.is_null() && matches!(form, Form::Section | Form::Map(_)) {
            node.value = Value::Map(Vec::new());
        }
        match (&form, &mut node.value) {
            (Form::Section, Value::Map(entries)) => return self.section(schema, entries),
            (Form::Map(values), Value::Map(entries)) => {
                for entry in entries {
                    self.path.push(entry.key.clone());
                    self.node(*values, &mut entry.node, Some(&entry.origin));
                    self.path.pop();
                }
                return;
            }
            (Form::List(items), Value::List(nodes)) => {
                for (index, item) in nodes.iter_mut().enumerate() {
                    self.path.push(index.to_string());
                    self.node(*items, item, None);
                    self.path.pop();
                }
                return;
            }
            // Where a section is one of several forms, nothing is not an empty one.
            (Form::Either(_), Value::Scalar(Scalar { kind: Kind::Null, .. })) => {}
            (Form::Either(schemas), _) => return self.either(schema, schemas, node, key_origin),
            (_, Value::Scalar(scalar)) => {
                let free_text = !matches!(node.origin, Origin::Text { .. });
                if matches!(form, Form::Text | Form::Words(_)) && free_text && scalar.kind != Kind::Null {
                    scalar.kind = Kind::Text;
                }
                if scalar_fits(schema, &form, scalar) {
                    return;
                }
            }
            _ => {}
        }
        self.mismatch(schema, node, key_origin);
    }

    fn section(&mut self, schema: Schema<'_>, entries: &mut [Entry]) {
        for entry in entries {
            self.path.push(entry.key.clone());
            match schema.property(&entry.key) {
                Some(property) => self.node(property, &mut entry.node, Some(&entry.origin)),
                None => self.unknown(schema, entry),
            }
            self.path.pop();
        }
    }

    fn unknown(&mut self, schema: Schema<'_>, entry: &Entry) {
        let keys = || schema.properties().map(|property| property.key);
        let help = match nearest(&entry.key, keys()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("valid here: {}", keys().collect::<Vec<_>>().join(", ")),
        };
        self.problem(format!("unknown key `{}`", entry.key), &entry.origin, help);
    }

    /// The first form that fits; if none does, the problems within the one of the same kind.
    fn either(
        &mut self,
        schema: Schema<'_>,
        schemas: &[Schema<'_>],
        node: &mut Node,
        key_origin: Option<&Origin>,
    ) {
        let mut closest = None;
        for alternative in schemas {
            let mut trial = Self { path: self.path.clone(), problems: Vec::new() };
            let mut copy = node.clone();
            trial.node(*alternative, &mut copy, key_origin);
            if trial.problems.is_empty() {
                *node = copy;
                return;
            }
            let same_kind = matches!(
                (alternative.form(), &node.value),
                (Form::Section | Form::Map(_), Value::Map(_)) | (Form::List(_), Value::List(_))
            );
            if same_kind {
                closest = Some(trial.problems);
            }
        }
        match closest {
            Some(problems) => self.problems.extend(problems),
            None => self.mismatch(schema, node, key_origin),
        }
    }
}

fn scalar_fits(schema: Schema<'_>, form: &Form<'_>, scalar: &Scalar) -> bool {
    match (form, scalar.kind) {
        (Form::Words(words), Kind::Text) => words.contains(&scalar.text.as_str()),
        (Form::Text, Kind::Text) => match schema.name() {
            Some("Interval") => scalar.text.parse::<Interval>().is_ok(),
            Some("ByteSize") => scalar.text.parse::<ByteSize>().is_ok(),
            _ => true,
        },
        (Form::Integer { min, max }, Kind::Integer(number)) => {
            min.is_none_or(|min| number >= min) && max.is_none_or(|max| number <= max)
        }
        (Form::Number, Kind::Float(number)) => number.is_finite(),
        (Form::Number, Kind::Integer(_)) | (Form::Bool, Kind::Bool(_)) => true,
        _ => false,
    }
}

/// The candidate that `text` is most likely a slip of.
pub(crate) fn nearest<'c>(text: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let text = text.to_ascii_lowercase().replace('-', "_");
    let near = |candidate: &str| strsim::jaro_winkler(&text, &candidate.to_ascii_lowercase());
    candidates
        .map(|candidate| (near(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
