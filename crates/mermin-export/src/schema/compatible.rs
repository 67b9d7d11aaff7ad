//! What readers of every released version go on reading: each version's fields are written down under
//! `schemas/mermin/flow/v1/released`, and stay.
//!
//! A field that goes keeps its line in [`GONE`], so that neither its number nor its name is used again. A list that is written
//! is never written over by a test: whether its version is released is known to whoever releases.

use super::fields::{HOP, field};
use super::folder;
use super::proto::{identifier, json_name, proto, type_name};
use crate::attributes::ATTRIBUTES;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Fields of released versions that there are no more, as their lines were.
const GONE: &[&str] = &[];

/// Number, type, name, and name in JSON, a line each.
fn fields() -> Vec<String> {
    let own = ATTRIBUTES.iter().enumerate().map(|(line, attribute)| {
        let field = field(line);
        let (number, kind) = (field.number, type_name(field.form));
        let line = format!("{number} {kind} {} {}", identifier(attribute.name), json_name(attribute.name));
        (number, line)
    });
    let own: BTreeMap<_, _> = own.collect();
    let hop = HOP.map(|hop| format!("Hop {0} optional {1} {2} {2}", hop.number, hop.form, hop.name));
    own.into_values().chain(hop).collect()
}

/// What is wrong with `now` for readers of `before`.
fn breaks(before: &str, now: &[String], gone: &[&str]) -> Vec<String> {
    let kept = |line: &&str| now.iter().any(|now| now == line) || gone.contains(line);
    before.lines().filter(|line| !kept(line)).map(str::to_owned).collect()
}

/// Whether the list at `path` has these lines. It is written where there is none, and `may_write`.
fn written_down(path: &Path, lines: &str, may_write: bool) -> Result<(), String> {
    let shown = path.display();
    if may_write && !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, lines).unwrap();
    }
    let committed = fs::read_to_string(path)
        .map_err(|_| format!("there is no {shown}: UPDATE=1 cargo test -p mermin-export writes it"))?;
    if committed == lines {
        return Ok(());
    }
    Err(format!(
        "the schema is not what {shown} says. Is this version released: raise the version of the workspace. Is it not: remove \
         the file. Then UPDATE=1 cargo test -p mermin-export writes the list"
    ))
}

#[test]
fn this_versions_fields_are_written_down() {
    let lines: String = fields().iter().map(|line| format!("{line}\n")).collect();
    let path = folder().join(format!("released/{}.txt", env!("CARGO_PKG_VERSION")));
    written_down(&path, &lines, std::env::var_os("UPDATE").is_some()).unwrap();
}

#[test]
fn a_list_that_is_there_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("released/1.2.3.txt");
    assert!(written_down(&path, "1 a\n", false).unwrap_err().starts_with("there is no "));
    written_down(&path, "1 a\n", true).unwrap();
    written_down(&path, "1 a\n", false).unwrap();
    for may_write in [false, true] {
        let error = written_down(&path, "2 a\n", may_write).unwrap_err();
        assert!(error.contains("raise the version"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "1 a\n");
    }
}

#[test]
fn every_released_version_is_still_read() {
    let mut versions = 0;
    for file in fs::read_dir(folder().join("released")).unwrap() {
        let path = file.unwrap().path();
        let before = fs::read_to_string(&path).unwrap();
        let broken = breaks(&before, &fields(), GONE);
        assert!(broken.is_empty(), "{} has {broken:#?}", path.display());
        versions += 1;
    }
    assert!(versions > 0);
}

#[test]
fn what_is_gone_is_not_used_again() {
    for line in GONE {
        let mut parts = line.rsplit(' ');
        let name = parts.nth(1).unwrap();
        let number = line.split(' ').find(|part| part.parse::<u16>().is_ok()).unwrap();
        assert!(!proto().contains(&format!(" {name} = ")), "{name}");
        assert!(!proto().contains(&format!(" = {number} [")), "{number}");
    }
}

#[test]
fn a_change_of_number_type_or_name_breaks_and_an_addition_does_not() {
    let before = "1 optional string a_c a.c\n2 optional uint32 b b\n";
    let with = |second: &str| {
        let now = ["1 optional string a_c a.c", second, "3 optional string new new"].map(str::to_owned);
        breaks(before, &now, &[])
    };
    assert!(with("2 optional uint32 b b").is_empty());
    for changed in [
        "4 optional uint32 b b",
        "2 optional uint64 b b",
        "2 optional uint32 c b",
        "2 optional uint32 b c",
        "",
    ] {
        assert_eq!(with(changed), ["2 optional uint32 b b"], "{changed}");
    }
    let now = ["1 optional string a_c a.c".to_owned()];
    assert!(breaks(before, &now, &["2 optional uint32 b b"]).is_empty());
}
