//! The reference page of the configuration, written from the structs' documentation and defaults.

use super::schema::{Form, Property, Schema};
use super::template::flow_style;
use super::{Config, json_schema};
use serde_json::Value;
use std::fmt::Write;

/// The page in Markdown.
#[must_use]
pub fn reference_page() -> String {
    let json_schema = json_schema();
    let defaults = serde_json::to_value(Config::default()).expect("the defaults have no keys but texts");
    let mut page = String::from(
        "# Configuration reference\n\n\
         Generated from the program; `UPDATE=1 cargo test -p mermin` rewrites it. `mermin config default` prints a \
         commented file, `mermin config schema` a JSON Schema for editors.\n\n\
         A key is set, each layer over the one before, by: its default, `--profile NAME`, the file that `--config` \
         names, the environment (`MERMIN_PIPELINE__FLOW_WORKERS`: upper case, two underscores per level), `--set \
         key.path=value`, and named options such as `--log-level`. Sections merge key by key; lists replace. Unknown \
         keys, wrong types and conflicts are errors, before anything is captured.\n\n\
         The file is YAML 1.2 with the core schema, without anchors, aliases, tags, duplicate keys or second \
         documents. Durations are written `500ms`, `30s`, `1m30s`, sizes `64MiB`; bare numbers are counts.\n",
    );
    let mut sections = Vec::new();
    table(Schema::new(&json_schema), &defaults, "", &mut page, &mut sections);
    let mut index = 0;
    while let Some((path, property, default)) = sections.get(index).cloned() {
        let _ = write!(page, "\n## `{path}`\n\n{}\n", text(property));
        let mut below = Vec::new();
        table(property.schema, &default, &path, &mut page, &mut below);
        // Depth first: a section's own sections follow it.
        let next = index + 1;
        sections.splice(next..next, below);
        index = next;
    }
    page
}

type Found<'s> = (String, Property<'s>, Value);

fn table<'s>(
    schema: Schema<'s>,
    defaults: &Value,
    path: &str,
    page: &mut String,
    sections: &mut Vec<Found<'s>>,
) {
    let mut head = false;
    for property in schema.properties() {
        let below =
            if path.is_empty() { property.key.to_owned() } else { format!("{path}.{}", property.key) };
        let default = defaults.get(property.key).or(property.default()).cloned().unwrap_or(Value::Null);
        if matches!(property.schema.form(), Form::Section) {
            sections.push((below, property, default));
            continue;
        }
        if !head {
            page.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
            head = true;
        }
        let default =
            if default.is_null() { "none".to_owned() } else { format!("`{}`", flow_style(&default)) };
        let expected = cell(&property.schema.expected());
        let _ = writeln!(page, "| `{}` | {expected} | {default} | {} |", property.key, cell(&text(property)));
        if let (Form::List(items), true) = (property.schema.form(), default_is_list(&property)) {
            sections.push((format!("{below}[]"), Property { schema: items, ..property }, Value::Null));
        }
    }
}

/// Whether the items of a list are sections, which get a table of their own.
fn default_is_list(property: &Property<'_>) -> bool {
    matches!(property.schema.form(), Form::List(items) if matches!(items.form(), Form::Section))
}

fn text(property: Property<'_>) -> String {
    let mut text = property.description().split_whitespace().collect::<Vec<_>>().join(" ");
    for (word, meaning) in property.schema.documented_words() {
        let _ = write!(text, " `{word}`: {}", meaning.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
