//! What readers of every released version go on reading: each version's fields are written down under
//! `schemas/mermin/flow/v1/released`, and stay.
//!
//! A field that goes keeps its line in [`GONE`], so that neither its number nor its name is used again.

use super::fields::{HOP, field};
use super::proto::{identifier, proto, type_name};
use super::{assert_fresh, folder};
use crate::attributes::ATTRIBUTES;
use std::collections::BTreeMap;

/// Fields of released versions that there are no more, as their lines were.
const GONE: &[&str] = &[];

/// Number, type and name, a line each.
fn fields() -> Vec<String> {
    let own = ATTRIBUTES.iter().enumerate().map(|(line, attribute)| {
        let field = field(line);
        (field.number, format!("{} {} {}", field.number, type_name(field.form), identifier(attribute.name)))
    });
    let own: BTreeMap<_, _> = own.collect();
    let hop = HOP.map(|hop| format!("Hop {} optional {} {}", hop.number, hop.form, hop.name));
    own.into_values().chain(hop).collect()
}

/// What is wrong with `now` for readers of `before`.
fn breaks(before: &str, now: &[String], gone: &[&str]) -> Vec<String> {
    let kept = |line: &&str| now.iter().any(|now| now == line) || gone.contains(line);
    before.lines().filter(|line| !kept(line)).map(str::to_owned).collect()
}

#[test]
fn this_versions_fields_are_written_down() {
    let lines: String = fields().iter().map(|line| format!("{line}\n")).collect();
    assert_fresh(&format!("released/{}.txt", env!("CARGO_PKG_VERSION")), &lines);
}

#[test]
fn every_released_version_is_still_read() {
    let mut versions = 0;
    for file in std::fs::read_dir(folder().join("released")).unwrap() {
        let path = file.unwrap().path();
        let before = std::fs::read_to_string(&path).unwrap();
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
        let name = parts.next().unwrap();
        let number = line.split(' ').find(|part| part.parse::<u16>().is_ok()).unwrap();
        assert!(!proto().contains(&format!(" {name} = ")), "{name}");
        assert!(!proto().contains(&format!(" = {number} [")), "{number}");
    }
}

#[test]
fn a_change_of_number_type_or_name_breaks_and_an_addition_does_not() {
    let before = "1 optional string a\n2 optional uint32 b\n";
    let with = |second: &str| {
        let now = ["1 optional string a", second, "3 optional string new"].map(str::to_owned);
        breaks(before, &now, &[])
    };
    assert!(with("2 optional uint32 b").is_empty());
    for changed in ["4 optional uint32 b", "2 optional uint64 b", "2 optional uint32 c", ""] {
        assert_eq!(with(changed), ["2 optional uint32 b"], "{changed}");
    }
    let now = ["1 optional string a".to_owned()];
    assert!(breaks(before, &now, &["2 optional uint32 b"]).is_empty());
}
