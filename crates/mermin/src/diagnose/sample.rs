//! The page that the reference shows, made from two looks at a real agent (`sample/`): one that captures on a veth device
//! with little room, on two cores that others need as well.

use super::figures::Figures;
use super::{page, rules};
use serde_json::Value;

const BEGIN: &str = "<!-- sample -->\n";
const END: &str = "<!-- end of sample -->\n";

fn shown() -> String {
    let look = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let (first, last) = (look(include_str!("sample/first.json")), look(include_str!("sample/last.json")));
    let figures = Figures::between(&first, &last);
    let page = page::text(&figures, &rules::all(&figures), "the agent at 127.0.0.1:9464", false);
    format!("```\n$ mermin diagnose\n{page}```\n")
}

#[test]
fn the_reference_shows_what_the_program_prints() {
    let path = format!("{}/../../docs/reference/diagnose.md", env!("CARGO_MANIFEST_DIR"));
    let found = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = found.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let page = [before, BEGIN, &shown(), END, after].concat();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == page, "docs/reference/diagnose.md is stale: UPDATE=1 cargo test -p mermin");
}
