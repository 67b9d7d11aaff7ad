//! The commented default file, written from the structs' documentation and defaults.

use super::schema::{Form, Property, Schema};
use super::{Config, json_schema};
use serde_json::Value;
use std::fmt::Write;

/// Columns of a comment.
const WIDTH: usize = 100;

/// A configuration file that says what every key does and sets it to its default.
#[must_use]
pub fn default_file() -> String {
    let json_schema = json_schema();
    let defaults = serde_json::to_value(Config::default()).expect("the defaults have no keys but texts");
    let mut file = String::from(
        "# Every key of Mermin's configuration with its default. A key that is left out has this value, so a\n\
         # file needs only what differs. Durations and sizes carry units: 500ms, 30s, 1m30s; 64MiB.\n",
    );
    section(Schema::new(&json_schema), &defaults, 0, WIDTH, &mut file);
    file
}

/// `width`: columns of a line, indentation included.
fn section(schema: Schema<'_>, defaults: &Value, depth: usize, width: usize, file: &mut String) {
    let indent = "  ".repeat(depth);
    for (index, property) in schema.properties().enumerate() {
        // Top-level keys stand apart; keys within a section stay together.
        let section_within = index > 0 && matches!(property.schema.form(), Form::Section);
        if depth == 0 || section_within {
            file.push('\n');
        }
        comment(property, &indent, width, file);
        let default = defaults.get(property.key).or(property.default()).unwrap_or(&Value::Null);
        match (property.schema.form(), default) {
            (Form::Section, Value::Object(_)) => {
                let _ = writeln!(file, "{indent}{}:", property.key);
                section(property.schema, default, depth + 1, width, file);
            }
            (Form::Section, _) => switched_off(property, &indent, width, file),
            (_, Value::Null) => {
                let example = property.example().unwrap_or_else(|| "…".to_owned());
                let _ = writeln!(file, "{indent}# {}: {example}", property.key);
            }
            (form, _) => {
                let line = format!("{}: {}", property.key, flow_style(default));
                match default {
                    Value::Array(items) if indent.len() + line.len() > width => {
                        let _ = writeln!(file, "{indent}{}:", property.key);
                        for item in items {
                            let _ = writeln!(file, "{indent}- {}", flow_style(item));
                        }
                    }
                    _ => {
                        let _ = writeln!(file, "{indent}{line}");
                    }
                }
                if let Form::List(items) = form
                    && matches!(items.form(), Form::Section)
                {
                    let keys: Vec<_> = items.properties().map(|item| item.key).collect();
                    let _ = writeln!(file, "{indent}# Keys of an item: {}.", keys.join(", "));
                }
            }
        }
    }
}

/// A section that is off until it is written: its keys, commented out.
fn switched_off(property: Property<'_>, indent: &str, width: usize, file: &mut String) {
    let mut keys = String::new();
    section(property.schema, &Value::Null, 1, width - indent.len() - "# ".len(), &mut keys);
    let _ = writeln!(file, "{indent}# {}:", property.key);
    for line in keys.lines() {
        let _ = writeln!(file, "{indent}# {line}");
    }
}

fn comment(property: Property<'_>, indent: &str, width: usize, file: &mut String) {
    let width = width - indent.len() - "# ".len();
    for line in wrap(property.description(), width) {
        let _ = writeln!(file, "{indent}# {line}");
    }
    if let (Form::Map(_), Some(example)) = (property.schema.form(), property.schema.example_value()) {
        let _ = writeln!(file, "{indent}# For example: {}", flow_style(example));
    }
    for (word, meaning) in property.schema.documented_words() {
        for (index, line) in wrap(&format!("{word}: {meaning}"), width - 2).iter().enumerate() {
            let bullet = if index == 0 { "-" } else { " " };
            let _ = writeln!(file, "{indent}# {bullet} {line}");
        }
    }
}

/// `text` in lines of at most `width` characters, broken at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A default on one line, as YAML.
pub(crate) fn flow_style(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(flow_style).collect::<Vec<_>>().join(", "))
        }
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| format!("{}: {}", quoted(key), flow_style(value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// `text` plain where that is safe, else in single quotes.
fn quoted(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    let plain = text.chars().all(safe)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && super::yaml::core_schema(text) == super::tree::Kind::Text;
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}
