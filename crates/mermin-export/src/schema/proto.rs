//! The Protobuf definition.

use super::fields::{Field, Form, HOP, field};
use super::{MESSAGE, SCHEMA};
use crate::attributes::{ATTRIBUTES, Attribute, KEY, Kind, Presence};
use std::fmt::Write as _;

const HEAD: &str = "\
// A flow record, as Mermin sends it to Kafka with `encoding: protobuf`.
//
// Generated from the attribute table by `UPDATE=1 cargo test -p mermin-export`. What the attributes mean in full:
// docs/reference/records.md. An optional field that is not there is not known: 0 and an empty text are values. A list or
// map that has nothing in it may be empty or not known: Protobuf does not tell. Fields are only added; numbers and types
// stay. The JSON mapping has the keys of Mermin's JSON lines, but there times are RFC 3339 texts, and members of a map are
// keys of their own.

syntax = \"proto3\";

";

/// `schemas/mermin/flow/v1/flow.proto`.
#[must_use]
pub fn proto() -> String {
    let mut text = format!("{HEAD}package {SCHEMA};\n\n");
    write_hop(&mut text);
    write!(text, "// A flow, or the part of it since the flow's previous record.\nmessage {MESSAGE} {{")
        .expect("a String takes everything");
    for (line, attribute) in ATTRIBUTES.iter().enumerate() {
        write_field(&mut text, attribute, field(line));
    }
    text + "}\n"
}

/// The name of an attribute's field.
pub(super) fn identifier(name: &str) -> String {
    json_name(name).replace('.', "_")
}

/// The key in JSON; of a family what all its members begin with.
pub(super) fn json_name(name: &str) -> &str {
    name.strip_suffix(KEY).map_or(name, |family| family.trim_end_matches('.'))
}

/// As the definition has it.
pub(super) const fn type_name(form: Form) -> &'static str {
    match form {
        Form::Text => "optional string",
        Form::Texts => "repeated string",
        Form::Uint32 => "optional uint32",
        Form::Uint64 => "optional uint64",
        Form::Sint64 => "optional sint64",
        Form::Time => "optional fixed64",
        Form::Family => "map<string, string>",
        Form::Hops => "repeated Hop",
    }
}

fn write_field(text: &mut String, attribute: &Attribute, Field { number, form }: Field) {
    let mut comment = match form {
        Form::Time => time_description(attribute),
        Form::Family => format!("{} By the rest of its name.", attribute.description),
        _ => attribute.description.to_owned(),
    };
    if let Kind::Text(values) | Kind::List(values) = attribute.kind
        && !values.is_empty()
    {
        let values: Vec<_> = values.iter().map(|value| format!("\"{value}\"")).collect();
        comment += &format!(" Known values: {}.", values.join(", "));
    }
    if let Presence::When(when) = attribute.presence {
        comment += &format!(" There when {}.", when.trim_start_matches("when "));
    }
    let (kind, name, json) = (type_name(form), identifier(attribute.name), json_name(attribute.name));
    text.push('\n');
    for line in wrapped(&comment, 112) {
        writeln!(text, "  // {line}").expect("a String takes everything");
    }
    writeln!(text, "  {kind} {name} = {number} [json_name = \"{json}\"];")
        .expect("a String takes everything");
}

/// What differs from the text of JSON lines: the form of the time.
fn time_description(attribute: &Attribute) -> String {
    let form = ": RFC 3339, UTC, nine digits of the second";
    format!("Nanoseconds since 1970-01-01T00:00:00Z. {}", attribute.description.replace(form, ""))
}

fn write_hop(text: &mut String) {
    text.push_str("// What an observation point on the packets' way saw of a direction.\nmessage Hop {\n");
    for hop in HOP {
        writeln!(
            text,
            "  // {}\n  optional {} {} = {} [json_name = \"{}\"];",
            hop.description, hop.form, hop.name, hop.number, hop.name
        )
        .expect("a String takes everything");
    }
    text.push_str("}\n\n");
}

/// Lines of at most so many characters, if words allow.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one from the start");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::assert_fresh;
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_committed_definition_is_fresh() {
        assert_fresh("flow.proto", &proto());
    }

    #[test]
    fn fields_have_names_of_their_own() {
        let mut names = HashSet::new();
        for attribute in ATTRIBUTES {
            let name = identifier(attribute.name);
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
            assert!(
                names.insert(name.replace('_', "")),
                "{name}: also without its underscores, as Java has it"
            );
        }
    }
}
