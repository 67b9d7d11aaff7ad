//! Reads messages of the schema with `protoc --decode`, which knows them by the committed definition alone, and gives them
//! the form of JSON lines: so both forms of a record can be compared.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Wraps many messages, so that one process reads them all.
const WRAPPER: &str = "syntax = \"proto3\"; import \"mermin/flow/v1/flow.proto\"; message All { repeated mermin.flow.v1.Flow all = 1; }";

/// Each message as a JSON line would have it.
///
/// # Errors
/// `protoc` can't read them, or says something that is no text format.
pub fn lines(messages: &[Vec<u8>]) -> Result<Vec<Map<String, Value>>> {
    let schemas = crate::need::root().join("schemas");
    let definition = fs::read_to_string(schemas.join("mermin/flow/v1/flow.proto"))?;
    let fields = fields(&definition);
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("all.proto"), WRAPPER)?;
    let mut all = Vec::new();
    for message in messages {
        prost::encoding::bytes::encode(1, message, &mut all);
    }
    let text = decode(&[folder.path(), &schemas], &all)?;
    let mut lines = text.lines().map(str::trim);
    let mut records = Vec::new();
    while let Some(line) = lines.next() {
        ensure!(line == "all {", "not a record: {line}");
        records.push(as_line(&block(&mut lines)?, &fields)?);
    }
    Ok(records)
}

fn decode(folders: &[&Path], bytes: &[u8]) -> Result<String> {
    let mut command = Command::new("protoc");
    folders.iter().for_each(|folder| {
        command.arg("--proto_path").arg(folder);
    });
    command.args(["--decode", "All", "all.proto"]);
    let input = tempfile::NamedTempFile::new()?;
    input.as_file().write_all(bytes)?;
    let output = command.stdin(Stdio::from(input.reopen()?)).output().context("can't run protoc")?;
    ensure!(output.status.success(), "protoc: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// What the definition says of a field.
struct Field {
    key: String,
    form: String,
}

/// By name.
fn fields(definition: &str) -> BTreeMap<String, Field> {
    let field = |line: &str| {
        let (declared, json) = line.trim().split_once(" [json_name = \"")?;
        let (form, name) = declared.split_once(" = ")?.0.rsplit_once(' ')?;
        let key = json.strip_suffix("\"];")?.to_owned();
        Some((name.to_owned(), Field { key, form: form.to_owned() }))
    };
    definition.lines().filter_map(field).collect()
}

/// What stands in a block: names, and texts or blocks.
type Block = Vec<(String, Item)>;

enum Item {
    Value(Value),
    Block(Block),
}

/// Up to its closing brace.
fn block<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Result<Block> {
    let mut items = Vec::new();
    while let Some(line) = lines.next() {
        if line == "}" {
            return Ok(items);
        }
        items.push(match (line.strip_suffix(" {"), line.split_once(": ")) {
            (Some(name), _) => (name.to_owned(), Item::Block(block(lines)?)),
            (None, Some((name, value))) => (name.to_owned(), Item::Value(scalar(value)?)),
            (None, None) => bail!("not a field: {line}"),
        });
    }
    bail!("a block does not end")
}

fn scalar(text: &str) -> Result<Value> {
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(quoted) => Ok(Value::String(String::from_utf8(unescaped(quoted))?)),
        None => serde_json::from_str(text).with_context(|| format!("not a value: {text}")),
    }
}

/// C's escapes: one character, or an octal number.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes().peekable();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(digit @ b'0'..=b'7') => {
                let mut number = u32::from(digit - b'0');
                for _ in 0..2 {
                    if let Some(digit) = bytes.next_if(|byte| matches!(byte, b'0'..=b'7')) {
                        number = number * 8 + u32::from(digit - b'0');
                    }
                }
                out.push(number as u8);
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

/// Keys as in JSON, lists put together, members of maps as keys of their own, times as texts.
fn as_line(block: &Block, fields: &BTreeMap<String, Field>) -> Result<Map<String, Value>> {
    let mut line = Map::new();
    for (name, item) in block {
        let Field { key, form } =
            fields.get(name).with_context(|| format!("the definition has no {name}"))?;
        let value = match item {
            Item::Value(value) if form == "optional fixed64" => rfc3339(value.as_u64().context("a time")?),
            Item::Value(value) => value.clone(),
            Item::Block(entry) if form.starts_with("map<") => {
                let text = |name: &str| {
                    entry.iter().find_map(|(key, item)| match item {
                        Item::Value(value) if key == name => Some(value.clone()),
                        _ => None,
                    })
                };
                let member = text("key").unwrap_or_default();
                let member = format!("{key}.{}", member.as_str().unwrap_or_default());
                ensure!(line.insert(member, text("value").unwrap_or("".into())).is_none(), "{key} twice");
                continue;
            }
            Item::Block(nested) => Value::Object(as_line(nested, fields)?),
        };
        if form.starts_with("repeated ") {
            let list = line.entry(key.clone()).or_insert_with(|| Value::Array(Vec::new()));
            list.as_array_mut().context("a list")?.push(value);
        } else {
            ensure!(line.insert(key.clone(), value).is_none(), "{key} twice");
        }
    }
    Ok(line)
}

/// `2026-01-31T23:59:59.123456789Z`
fn rfc3339(nanos: u64) -> Value {
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z", days + 1).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_escapes_are_read() {
        assert_eq!(rfc3339(1_767_225_599_987_654_321), "2025-12-31T23:59:59.987654321Z");
        assert_eq!(rfc3339(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(unescaped("a\\\"\\n\\303\\274\\\\"), "a\"\nü\\".as_bytes());
    }
}
