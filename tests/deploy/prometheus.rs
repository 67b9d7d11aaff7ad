//! Alert rules and dashboard: what Prometheus says of them, and whether the metrics that they ask for exist.

use mermin_tests::need;
use mermin_tests::need::root;
use mermin_tests::servers::place::Place;
use mermin_tests::servers::prometheus::{Prometheus, promtool};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/mermin.json")).unwrap()
}

/// A panel's queries, the dashboard's variables replaced by what they may stand for.
fn queries(panel: &Value) -> impl Iterator<Item = String> {
    let expressions = panel["targets"].as_array().into_iter().flatten().map(|target| target["expr"].as_str());
    expressions.map(|text| {
        text.unwrap().replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$job", ".*")
    })
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
    let dashboard = dashboard();
    let prometheus = Prometheus::start(&Place::Here, &[]);
    let queries: Vec<_> = dashboard["panels"].as_array().unwrap().iter().flat_map(queries).collect();
    assert!(queries.len() > 20);
    for query in &queries {
        assert!(!query.contains('$'), "a variable that the dashboard has not: {query}");
        let _ = prometheus.query(query);
    }
    let ids: BTreeSet<u64> =
        dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), dashboard["panels"].as_array().unwrap().len());
    // "All" are all of Mermin: with a pattern of its own, process_* of every other program would be shown, too.
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().all(|variable| variable.get("allValue").is_none()), "{variables:?}");
}

#[test]
fn the_ledgers_panel_shows_0_only_where_every_equation_holds() {
    need!(Prometheus::installed());
    let dashboard = dashboard();
    let panel = dashboard["panels"].as_array().unwrap().iter().find(|panel| panel["title"] == "Ledger");
    let query = queries(panel.unwrap()).next().unwrap();
    let rules = root().join("deploy/prometheus/rules.yaml");
    let series = |instance: &str, term: &str, value: u64| {
        json!({ "series": term.replace('}', &format!(r#", instance="{instance}", job="m"}}"#)).replace("{,", "{"),
                "values": format!("{value}+0x10") })
    };
    // An agent's figures, out of balance by so much in each of the three.
    let agent = |instance: &'static str, [seen, metered, handed]: [u64; 3], consistent| {
        [
            ("mermin_seen_buffers_total{}", 100 + seen),
            (r#"mermin_verdict_buffers_total{verdict="metered"}"#, 90),
            (r#"mermin_in_flight_buffers{place="ring"}"#, 10),
            (r#"mermin_verdict_packets_total{verdict="metered"}"#, 90 + metered),
            ("mermin_released_packets_total{}", 80),
            (r#"mermin_resident_packets{place="flow_table"}"#, 10),
            (r#"mermin_output_handed_packets_total{output="json"}"#, 80 + handed),
            (r#"mermin_output_settled_packets_total{output="json", outcome="delivered"}"#, 70),
            (r#"mermin_output_waiting_packets{output="json", place="queue"}"#, 10),
            ("mermin_ledger_consistent{}", consistent),
            (r#"mermin_output_recovered_packets_total{output="json"}"#, 0),
        ]
        .map(|(term, value)| series(instance, term, value))
    };
    let fine = agent("a", [0; 3], 1);
    let cases = [
        (true, [0; 3], 1, Some(0)),
        (true, [1, 0, 0], 1, Some(1)),
        (true, [0, 1, 0], 1, Some(1)),
        (true, [0, 0, 1], 1, Some(1)),
        (true, [1, 1, 1], 1, Some(1)),
        (true, [1, 1, 1], 0, Some(0)),
        (false, [1, 1, 1], 1, None),
    ];
    for (loaded, out, consistent, shown) in cases {
        let all: Vec<Value> = fine.iter().cloned().chain(agent("b", out, consistent)).collect();
        let samples: Vec<_> = shown.iter().map(|value| json!({ "labels": "{}", "value": value })).collect();
        let tests = json!({
            "rule_files": if loaded { vec![rules.display().to_string()] } else { vec![] },
            "evaluation_interval": "1m",
            "tests": [{
                "interval": "1m",
                "input_series": all,
                "promql_expr_test": [{ "expr": query, "eval_time": "5m", "exp_samples": samples }],
            }],
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("panel.test.yaml");
        // JSON is YAML.
        std::fs::write(&file, tests.to_string()).unwrap();
        let (code, said) = promtool(&["test", "rules", &file.display().to_string()], "");
        assert_eq!(code, 0, "{loaded} {out:?} {consistent}: {said}");
    }
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
