//! Layers, messages (exact), the generated file and pages.

use super::*;
use mermin_flow::Interval;
use proptest::prelude::*;

fn message(result: Result<Config, Problems>) -> String {
    result.expect_err("this configuration is wrong").to_string()
}

/// Every message is exact: file, line, column, key, and what to type.
#[test]
fn messages() {
    let cases = [
        (
            "pipeline:\n  flow_worker: 2\n",
            "error: unknown key `flow_worker`\n  --> config.yaml:2:3 pipeline.flow_worker\n\
             help: did you mean `flow_workers`?",
        ),
        (
            "pipelines: {}",
            "error: unknown key `pipelines`\n  --> config.yaml:1:1 pipelines\nhelp: did you mean `pipeline`?",
        ),
        (
            "pipeline:\n  stats_interval: 30\n",
            "error: `stats_interval` can't be the number `30`\n  --> config.yaml:2:19 pipeline.stats_interval\n\
             help: expected a duration with a unit, for example 30s, 500ms or 1m30s; if seconds are meant: 30s",
        ),
        (
            "pipeline:\n  packet_channel_capacity: 0\n",
            "error: `packet_channel_capacity` can't be the number `0`\n  \
             --> config.yaml:2:28 pipeline.packet_channel_capacity\nhelp: expected a whole number from 1 to 16777216",
        ),
        (
            "pipeline:\n  flow_workers: many\n",
            "error: `flow_workers` can't be the text `many`\n  --> config.yaml:2:17 pipeline.flow_workers\n\
             help: expected a whole number from 1 to 64, or `auto`, or a section with keys of min, max",
        ),
        (
            "pipeline:\n  flow_workers: {min: 4, max: 2}\n",
            "error: `min` is more than `max`\n  --> config.yaml:2:17 pipeline.flow_workers\n\
             help: `mermin config schema` and docs/reference/configuration.md say what goes here",
        ),
        (
            "pipeline:\n  flow_workers: {min: 1, max: 65}\n",
            "error: `max` can't be the number `65`\n  --> config.yaml:2:31 pipeline.flow_workers.max\n\
             help: expected a whole number from 1 to 64",
        ),
        (
            "pipeline:\n  flow_workers: {min: 1}\n",
            "error: missing field `max`\n  --> config.yaml:2:17 pipeline.flow_workers\n\
             help: `mermin config schema` and docs/reference/configuration.md say what goes here",
        ),
        (
            "pipeline:\n  flow_workers: '2'\n",
            "error: `flow_workers` can't be the text `2`\n  --> config.yaml:2:17 pipeline.flow_workers\n\
             help: expected a whole number from 1 to 64, or `auto`, or a section with keys of min, max",
        ),
        (
            "pipeline:\n  flow_workers:\n",
            "error: `flow_workers` has no value\n  --> config.yaml:2:3 pipeline.flow_workers\n\
             help: expected a whole number from 1 to 64, or `auto`, or a section with keys of min, max",
        ),
        (
            "pipeline:\n  enrichment_workers: 100000\n",
            "error: `enrichment_workers` can't be the number `100000`\n  \
             --> config.yaml:2:23 pipeline.enrichment_workers\n\
             help: expected a whole number from 1 to 64, or `auto`, or a section with keys of min, max",
        ),
        (
            "pipeline:\n  stats_interval: 0s\n",
            "error: `stats_interval` can't be zero\n  --> config.yaml:2:19 pipeline.stats_interval\n\
             help: expected a duration above 0s, for example 30s",
        ),
        (
            "flow:\n  community_id_seed: 65536\n",
            "error: `community_id_seed` can't be the number `65536`\n  \
             --> config.yaml:2:22 flow.community_id_seed\nhelp: expected a whole number from 0 to 65535",
        ),
        (
            "log_level: debgu\n",
            "error: `log_level` can't be the text `debgu`\n  --> config.yaml:1:12 log_level\n\
             help: expected one of error, warn, info, debug, trace; did you mean `debug`?",
        ),
        (
            "config_version: 2\n",
            "error: config_version 2 is not known to this program, which reads version 1\n  \
             --> config.yaml:1:17 config_version\n\
             help: write config_version: 1, or use the mermin that the file was written for",
        ),
        (
            "log_level: info\nlog_level: debug\n",
            "error: key `log_level` appears twice\n  --> config.yaml:2:1 log_level\n\
             help: keep one of them: the first is on line 1",
        ),
        (
            "pipeline: &p\n  flow_workers: 1\n",
            "error: an anchor (`&name`)\n  --> config.yaml:1:11 pipeline\n\
             help: remove it and write the value out where it is meant",
        ),
        (
            "log_level: !!str info\n",
            "error: a tag (`!name`)\n  --> config.yaml:1:12 log_level\n\
             help: remove it: types follow from the key; put a text in quotes",
        ),
        (
            "log_level: info\n---\nlog_level: debug\n",
            "error: a second document in one file\n  --> config.yaml:2:1\n\
             help: keep one document: remove the `---` line and what follows, or merge it into the first",
        ),
        (
            "pipeline:\n\tflow_workers: 1\n",
            "error: this is not YAML: tabs disallowed within this context (block indentation)\n  \
             --> config.yaml:2:2 pipeline\n\
             help: check indentation (two spaces a level, no tabs), colons and quotes around here",
        ),
        (
            "pipeline:\n  priority:\n    - match: {port: [443]}\n      class: high\n",
            "error: unknown key `port`\n  --> config.yaml:3:15 pipeline.priority.0.match.port\n\
             help: did you mean `ports`?",
        ),
        (
            "pipeline:\n  priority:\n    - match: {ports: 443}\n      class: urgent\n",
            "error: `ports` can't be the number `443`\n  --> config.yaml:3:22 pipeline.priority.0.match.ports\n\
             help: expected a list, each item a whole number from 0 to 65535\n\n\
             error: `class` can't be the text `urgent`\n  --> config.yaml:4:14 pipeline.priority.0.class\n\
             help: expected one of high, normal, low",
        ),
        (
            "pipeline:\n  priority:\n    - match:\n        networks: [10.1.0.0/8]\n      class: low\n",
            "error: `10.1.0.0/8` has bits set behind its prefix; the network is 10.0.0.0/8\n  \
             --> config.yaml:4:20 pipeline.priority.0.match.networks.0\n\
             help: `mermin config schema` and docs/reference/configuration.md say what goes here",
        ),
        (
            "pipeline:\n  priority:\n    - match: {}\n",
            "error: missing field `class`\n  --> config.yaml:3:7 pipeline.priority.0\n\
             help: `mermin config schema` and docs/reference/configuration.md say what goes here",
        ),
        (
            "just a text",
            "error: the configuration can't be the text `just a text`\n  --> config.yaml:1:1\n\
             help: expected a section with keys of config_version, log_level, pipeline, capture, flow, enrich, export, resources, server",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(message(parse(text)), expected, "{text}");
    }
}

#[test]
fn all_problems_of_a_file_are_reported_at_once() {
    let text = "pipeline:\n  flow_workers: 0\n  enable_metrics: yes\nfluw: {}\n";
    let problems = parse(text).unwrap_err();
    let paths: Vec<_> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["pipeline.flow_workers", "pipeline.enable_metrics", "fluw"]);
    assert_eq!(problems.to_string().matches("error: ").count(), 3);
    assert!(problems.to_string().contains("help: expected true or false; write true"));
}

#[test]
fn absent_empty_and_partial_sections_take_defaults() {
    for text in ["", "# nothing", "pipeline:\n", "pipeline: {}\nflow:\n", "config_version: 1", "---\n"] {
        assert_eq!(parse(text).unwrap(), Config::default(), "{text}");
    }
    let config = parse("pipeline:\n  flow_workers: 3\n").unwrap();
    assert_eq!(config.pipeline.flow_workers.most(), 3);
    assert_eq!(config.pipeline.packet_channel_capacity.get(), 10_000);
}

fn inputs(file: Option<PathBuf>) -> Inputs {
    Inputs { file, ..Inputs::default() }
}

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mermin.yaml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

/// defaults < profile < file < environment < `--set` < named options, each proven against the one below.
#[test]
fn precedence() {
    let (_folder, path) = written("log_level: error\npipeline:\n  flow_workers: 5\n");
    let level = |inputs: &Inputs| load(inputs).unwrap().log_level;
    let mut inputs = Inputs::default();
    assert_eq!(level(&inputs), LogLevel::Info);
    inputs.profile = Some(Profile::Development);
    assert_eq!(level(&inputs), LogLevel::Debug);
    inputs.file = Some(path);
    assert_eq!(level(&inputs), LogLevel::Error);
    inputs.environment = vec![("MERMIN_LOG_LEVEL".into(), "warn".into())];
    assert_eq!(level(&inputs), LogLevel::Warn);
    inputs.set = vec!["log_level=trace".into()];
    assert_eq!(level(&inputs), LogLevel::Trace);
    inputs.overrides = vec![Override {
        key: "log_level",
        value: Given::Text("info".into()),
        option: "--log-level info".into(),
    }];
    assert_eq!(level(&inputs), LogLevel::Info);
    let config = load(&inputs).unwrap();
    assert_eq!(config.pipeline.flow_workers.most(), 5, "the file's other keys stay");
    assert_eq!(config.pipeline.stats_interval, Interval::seconds(10), "and the profile's");
}

#[test]
fn an_empty_section_above_a_full_one_changes_nothing() {
    let (_folder, path) = written("pipeline:\nlog_level: warn\n");
    let config = load(&Inputs { profile: Some(Profile::Development), ..inputs(Some(path)) }).unwrap();
    assert!(config.pipeline.enable_metrics, "the profile's key stays");
    assert_eq!(config.log_level, LogLevel::Warn);
}

#[test]
fn environment_and_set_name_themselves() {
    let environment = |name: &str, value: &str| Inputs {
        environment: vec![(name.into(), value.into()), ("PATH".into(), "x".into())],
        ..Inputs::default()
    };
    assert_eq!(
        load(&environment("MERMIN_PIPELINE__FLOW_WORKERS", "4")).unwrap().pipeline.flow_workers.most(),
        4
    );
    for (name, value, expected) in [
        (
            "MERMIN_PIPELINE__FLOW_WORKER",
            "4",
            "error: no key of the configuration belongs to MERMIN_PIPELINE__FLOW_WORKER\n  \
             --> environment MERMIN_PIPELINE__FLOW_WORKER\n\
             help: did you mean MERMIN_PIPELINE__FLOW_WORKERS? Otherwise: unset MERMIN_PIPELINE__FLOW_WORKER",
        ),
        (
            "MERMIN_PIPELINE__FLOW_WORKERS",
            "none",
            "error: `flow_workers` can't be the text `none`\n  \
             --> environment MERMIN_PIPELINE__FLOW_WORKERS pipeline.flow_workers\n\
             help: expected a whole number from 1 to 64, or `auto`, or a section with keys of min, max",
        ),
        (
            "MERMIN_LOG_LEVEL",
            "",
            "error: `log_level` can't be the text ``\n  --> environment MERMIN_LOG_LEVEL log_level\n\
             help: expected one of error, warn, info, debug, trace",
        ),
    ] {
        assert_eq!(message(load(&environment(name, value))), expected);
    }
    let set = |text: &str| Inputs { set: vec![text.into()], ..Inputs::default() };
    for (text, expected) in [
        (
            "pipeline.flow_worker=4",
            "error: unknown key `flow_worker`\n  --> --set pipeline.flow_worker=4\n\
             help: did you mean `flow_workers`?",
        ),
        (
            "flow_workers",
            "error: `flow_workers` is not a setting\n  --> --set flow_workers\n\
             help: write --set key.path=value, for example --set pipeline.flow_workers=4",
        ),
        (
            "pipeline.shutdown_timeout=5",
            "error: `shutdown_timeout` can't be the text `5`\n  --> --set pipeline.shutdown_timeout=5\n\
             help: expected a duration with a unit, for example 30s, 500ms or 1m30s; if seconds are meant: 5s",
        ),
        (
            "log_level=[a",
            "error: this is not YAML: while parsing a flow sequence, expected ',' or ']'\n  \
             --> --set log_level=[a log_level\n\
             help: write the value as in the file; quote what holds `: `, `#`, `*` or `&`",
        ),
    ] {
        let found = message(load(&set(text)));
        if text == "log_level=[a" {
            assert!(found.starts_with("error: this is not YAML: "), "{found}");
        } else {
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn a_key_of_the_users_choice_may_hold_dots() {
    for text in [
        "enrich.names.10.0.0.0/8=office",
        "enrich.names.\"10.0.0.0/8\"=office",
        "enrich.names={10.0.0.0/8: office}",
    ] {
        let config = load(&Inputs { set: vec![text.into()], ..Inputs::default() }).unwrap();
        let names: Vec<_> =
            config.enrich.names.0.iter().map(|(net, name)| (net.0.to_string(), name.as_str())).collect();
        assert_eq!(names, [("10.0.0.0/8".to_owned(), "office")], "{text}");
    }
    let mapped = Inputs { set: vec!["enrich.names.::ffff:10.0.0.0/104=x".into()], ..Inputs::default() };
    assert!(message(load(&mapped)).contains("write 10.0.0.0/8\n"));
}

#[test]
fn a_file_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent.yaml");
    let expected = format!(
        "error: can't read the configuration file: no such file or directory\n  --> --config {}\n\
         help: give a readable YAML file; `mermin config default` prints one to start from",
        path.display()
    );
    assert_eq!(message(load(&inputs(Some(path)))), expected);
    let path = folder.path().join("binary.yaml");
    std::fs::write(&path, b"a: 1\nb: \xff\n").unwrap();
    assert!(
        message(load(&inputs(Some(path)))).starts_with("error: the configuration file is not UTF-8 (line 2)")
    );
}

#[test]
fn every_profile_loads_alone_and_sets_what_it_says() {
    for profile in Profile::ALL {
        let config = load(&Inputs { profile: Some(profile), ..Inputs::default() }).unwrap();
        let file = format!("{}/../../examples/{}.yaml", env!("CARGO_MANIFEST_DIR"), profile.name());
        assert_eq!(load(&inputs(Some(file.into()))).unwrap(), config, "{}", profile.name());
        let default = PipelineConfig::default();
        let pipeline = &config.pipeline;
        match profile {
            Profile::HighTraffic => {
                assert_eq!(pipeline.packet_channel_capacity.get(), 50_000);
                assert_eq!((pipeline.flow_workers.most(), pipeline.enrichment_workers.most()), (4, 2));
                assert!(pipeline.enable_backpressure && pipeline.enable_metrics);
            }
            Profile::LowTraffic | Profile::MemoryConstrained => {
                assert_eq!(pipeline.packet_channel_capacity.get(), 5_000);
                assert_eq!(pipeline.enrichment_channel_capacity.get(), 500);
                assert_eq!((pipeline.flow_workers.most(), pipeline.enrichment_workers.most()), (1, 1));
                assert!(!pipeline.enable_metrics);
            }
            Profile::Development => {
                assert_eq!(pipeline.stats_interval, Interval::seconds(10));
                assert!(pipeline.enable_metrics);
                assert_eq!(config.log_level, LogLevel::Debug);
                assert_eq!(pipeline.flow_workers, default.flow_workers);
            }
        }
    }
}

#[test]
fn the_default_file_loads_and_changes_nothing() {
    let file = default_file();
    assert_eq!(parse(&file).unwrap(), Config::default());
    let documented = file.lines().filter(|line| !line.trim_start().starts_with('#')).count();
    assert!(documented > 20, "{file}");
    assert!(file.lines().all(|line| line.chars().count() <= 102), "{file}");
}

#[test]
fn every_section_of_the_schema_is_closed_and_every_key_documented() {
    fn walk(schema: Schema<'_>, path: &str) {
        for property in schema.properties() {
            let below = format!("{path}.{}", property.key);
            assert!(!property.description().is_empty(), "{below} has no documentation");
            match property.schema.form() {
                Form::Section => walk(property.schema, &below),
                Form::Either(forms) => {
                    assert!(!forms.is_empty(), "{below}: a form that is not understood");
                }
                _ => {}
            }
        }
    }
    fn closed(value: &serde_json::Value) {
        if value.get("properties").is_some() {
            assert_eq!(value.get("additionalProperties"), Some(&serde_json::Value::Bool(false)), "{value:#}");
        }
        for below in value
            .as_object()
            .into_iter()
            .flat_map(|map| map.values())
            .chain(value.as_array().into_iter().flatten())
        {
            closed(below);
        }
    }
    let json_schema = json_schema();
    closed(&json_schema);
    walk(Schema::new(&json_schema), "");
}

#[test]
fn the_reference_page_is_fresh() {
    let path = format!("{}/../../docs/reference/configuration.md", env!("CARGO_MANIFEST_DIR"));
    let page = reference_page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/reference/configuration.md is stale: UPDATE=1 cargo test -p mermin");
}

/// Text that is likely to look like a configuration.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("pipeline:"),
        Just("flow:"),
        Just("log_level:"),
        Just("config_version:"),
        Just("flow_workers:"),
        Just("stats_interval: "),
        Just(" "),
        Just("  "),
        Just("\n"),
        Just("\n  "),
        Just("- "),
        Just("? "),
        Just(": "),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(","),
        Just("&a "),
        Just("*a"),
        Just("!!str "),
        Just("<<"),
        Just("---"),
        Just("..."),
        Just("|\n"),
        Just(">-\n"),
        Just("'"),
        Just("\""),
        Just("\t"),
        Just("#"),
        Just("%TAG ! x\n"),
        Just("1"),
        Just("-1"),
        Just("0x"),
        Just("99999999999999999999999999999999999999999999"),
        Just("30s"),
        Just("~"),
        Just("\u{feff}"),
        Just("é"),
        Just("\r\n"),
        Just("\\x"),
        Just("true"),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_panics(text in prop_oneof![yaml_like(), any::<String>()]) {
        if let Err(problems) = parse(&text) {
            prop_assert!(!problems.0.is_empty());
            for problem in &problems.0 {
                prop_assert!(!problem.what.is_empty() && !problem.help.is_empty());
            }
        }
    }

    #[test]
    fn what_loads_from_yaml_is_what_was_written(workers in 1_usize..=64, seconds in 1_u64..100_000, metrics: bool) {
        let text = format!(
            "pipeline:\n  flow_workers: {workers}\n  stats_interval: {seconds}s\n  enable_metrics: {metrics}\n"
        );
        let pipeline = parse(&text).unwrap().pipeline;
        prop_assert_eq!(pipeline.flow_workers.most(), workers);
        prop_assert_eq!(pipeline.stats_interval, Interval::seconds(seconds));
        prop_assert_eq!(pipeline.enable_metrics, metrics);
    }
}
