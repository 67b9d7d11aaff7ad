//! Alert rules and dashboard: what Prometheus says of them, and whether the metrics that they ask for exist.

use mermin_tests::need;
use mermin_tests::need::root;
use mermin_tests::servers::place::Place;
use mermin_tests::servers::prometheus::{Prometheus, promtool};
use serde_json::Value;
use std::collections::BTreeSet;

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// The dashboard's queries, its variables replaced by what they may stand for.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expression = |target: &Value| target["expr"].as_str().unwrap().to_owned();
    let filled = |text: String| {
        text.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$job", ".*")
    };
    targets.map(expression).map(filled).collect()
}

#[test]
fn promtool_takes_the_rules_and_their_tests_hold() {
    need!(Prometheus::installed());
    let file = |name: &str| root().join("deploy/prometheus").join(name).display().to_string();
    let (code, said) = promtool(&["check", "rules", &file("rules.yaml")], "");
    assert_eq!(code, 0, "{said}");
    let (code, said) = promtool(&["test", "rules", &file("rules.test.yaml")], "");
    assert_eq!(code, 0, "{said}");
}

#[test]
fn prometheus_understands_the_dashboard() {
    need!(Prometheus::installed());
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/mermin.json")).unwrap();
    let prometheus = Prometheus::start(&Place::Here, &[]);
    let queries = queries(&dashboard);
    assert!(queries.len() > 20);
    for query in &queries {
        assert!(!query.contains('$'), "a variable that the dashboard has not: {query}");
        let _ = prometheus.query(query);
    }
    let ids: BTreeSet<u64> =
        dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), dashboard["panels"].as_array().unwrap().len());
}
#[test]
fn every_metric_that_is_asked_for_is_in_the_reference() {
    let reference = read("docs/reference/metrics.md");
    let asked = read("deploy/prometheus/rules.yaml") + &read("deploy/grafana/mermin.json");
    let words = asked.split(|sign: char| !(sign.is_ascii_alphanumeric() || "_:".contains(sign)));
    let names: BTreeSet<&str> =
        words.filter(|word| word.starts_with("mermin_") || word.starts_with("process_")).collect();
    assert!(names.len() > 30, "{names:?}");
    let known = |name: &&&str| reference.contains(&format!("`{}`", name.trim_end_matches("_bucket")));
    let unknown: Vec<_> = names.iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
