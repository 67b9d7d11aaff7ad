//! Exit codes, where output goes, messages.

use super::{capture, mermin, pcap, ran, run, written};
use std::io::Write;
use std::process::Stdio;

#[test]
fn mistakes_on_the_command_line_are_64_and_say_what_to_type() {
    for (arguments, expected) in [
        (
            &["replay"][..],
            "error: the following required arguments were not provided: <FILE>...\nhelp: mermin replay <FILE>...\n",
        ),
        (
            &["replya"],
            "error: unrecognized subcommand 'replya'\nhelp: did you mean `replay`? the commands are run, replay, demo, check, status, reload, diagnose, cleanup, \
             config, completions, man\n",
        ),
        (
            &["replay", "x", "--profile", "fast"],
            "error: invalid value 'fast' for '--profile <NAME>'\n\
             help: one of high-traffic, low-traffic, memory-constrained, development\n",
        ),
        (
            &["replay", "x", "--sett", "a=b"],
            "error: unexpected argument '--sett' found\n\
             help: did you mean `--set`? `mermin replay --help` lists the options\n",
        ),
        (
            &["rnu"],
            "error: unrecognized subcommand 'rnu'\nhelp: did you mean `run`? the commands are run, replay, demo, check, status, reload, diagnose, cleanup, \
             config, completions, man\n",
        ),
        (
            &["frobnicate"],
            "error: unrecognized subcommand 'frobnicate'\nhelp: the commands are run, replay, demo, check, status, reload, diagnose, cleanup, config, \
             completions, man\n",
        ),
        (
            &["config", "dfeault"],
            "error: unrecognized subcommand 'dfeault'\nhelp: did you mean `default`? the commands are default, schema\n",
        ),
        (
            &["run", "--sorce=ebpf"],
            "error: unexpected argument '--sorce' found\n\
             help: did you mean `--source`? `mermin run --help` lists the options\n",
        ),
        (
            &["run", "--frobnicate"],
            "error: unexpected argument '--frobnicate' found\nhelp: `mermin run --help` lists the options\n",
        ),
        (
            &["replay", "x", "-x"],
            "error: unexpected argument '-x' found\nhelp: `mermin replay --help` lists the options\n",
        ),
        (
            &["replay", "x", "-O", "json"],
            "error: unexpected argument '-O' found\nhelp: did you mean `-o`? `mermin replay --help` lists the options\n",
        ),
        (
            &["check", "-o", "json"],
            "error: unexpected argument '-o' found\nhelp: `-o` is an option of run, replay, demo; `mermin check --help` lists the options\n",
        ),
        (
            &["--config", "x", "run"],
            "error: unexpected argument '--config' found\nhelp: `--config` is an option of run, replay, demo, check, status, reload, diagnose: write it behind the command; `mermin --help` lists the options\n",
        ),
        (
            &["run", "eth0"],
            "error: unexpected argument 'eth0' found\nhelp: to name an interface: mermin run -i eth0\n",
        ),
        (
            &["replay", "x", "-o"],
            "error: a value is required for '--output <KIND[:PATH]>' but none was supplied\nhelp: `mermin replay --help` lists the options\n",
        ),
        (
            &["replay", "x", "--color", "nver"],
            "error: invalid value 'nver' for '--color <WHEN>'\nhelp: did you mean `never`? one of auto, always, never\n",
        ),
        (
            &["completions", "ksh"],
            "error: invalid value 'ksh' for '<SHELL>'\nhelp: did you mean `zsh`? one of bash, elvish, fish, powershell, zsh\n",
        ),
        (
            &["replay", "x", "-v", "--log-level", "info"],
            "error: the argument '--verbose...' cannot be used with '--log-level <LEVEL>'\nhelp: leave one of them out\n",
        ),
        (
            &["help", "run"],
            "error: unrecognized subcommand 'help'\nhelp: `mermin COMMAND --help`; the commands are run, replay, demo, check, status, reload, diagnose, cleanup, config, completions, man\n",
        ),
        (
            &["run", "--duration", "5"],
            "error: `5` is not a duration\n  --> --duration 5\n\
             help: write a number with a unit, for example 30s, 500ms or 1m30s\n",
        ),
        (
            &["replay", "x", "--set", "pipeline.flow_worker=1"],
            "error: unknown key `flow_worker`\n  --> --set pipeline.flow_worker=1\nhelp: did you mean `flow_workers`?\n",
        ),
    ] {
        let ran = run(arguments);
        assert_eq!((ran.code, ran.err.as_str(), ran.out.as_str()), (64, expected, ""), "{arguments:?}");
    }
    let bare = run(&[]);
    assert_eq!(bare.code, 64);
    assert!(bare.err.contains("Usage: mermin <COMMAND>"), "{}", bare.err);
}

#[test]
fn help_and_version_go_to_standard_output() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["replay", "--help"],
        &["demo", "-h"],
        &["config", "--help"],
        &["--version"],
    ] {
        let ran = run(arguments);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
        assert!(ran.out.len() > 10, "{arguments:?}");
    }
    assert_eq!(run(&["--version"]).out, format!("mermin {}\n", env!("CARGO_PKG_VERSION")));
    assert!(run(&["--help"]).out.contains("  75  pipeline.shutdown_timeout passed"));
}

#[test]
fn generated_texts() {
    assert!(run(&["config", "default"]).out.contains("\n  flow_workers: 2\n"));
    let schema: serde_json::Value = serde_json::from_str(&run(&["config", "schema"]).out).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell]).out.contains("mermin"), "{shell}");
    }
    let man = run(&["man"]).out;
    assert!(
        man.starts_with(".ie")
            && man.contains(".SH \"MERMIN REPLAY\"")
            && man.contains(".SH \"EXIT STATUS\""),
        "{man}"
    );
}

#[test]
fn a_full_disk_is_74() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        eprintln!("SKIP a_full_disk_is_74: /dev/full");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "a.pcap", &capture(1_000));
    let generated = mermin(&["config", "default"]).stdout(full.try_clone().unwrap()).output().unwrap();
    assert_eq!(ran(&generated).code, 74);
    let replay = mermin(&["replay", file.to_str().unwrap(), "-o", "json"]).stdout(full).output().unwrap();
    let replay = ran(&replay);
    assert_eq!(replay.code, 74, "{}", replay.err);
    assert!(
        replay.err.contains("error: output json failed: no space left on device\nhelp: "),
        "{}",
        replay.err
    );
    let absent = folder.path().join("none/stats.json");
    let stats = run(&["replay", file.to_str().unwrap(), "-o", "none", "--stats", absent.to_str().unwrap()]);
    assert_eq!(stats.code, 74);
    assert!(
        stats.err.starts_with("error: can't write the statistics: no such file or directory\n  --> --stats ")
    );
}

#[test]
fn inputs_that_cannot_be_opened_are_66_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "a.pcap", &capture(10));
    let ran = run(&["replay", file.to_str().unwrap(), "/nonexistent.pcap"]);
    assert_eq!((ran.code, ran.out.as_str()), (66, ""));
    assert_eq!(
        ran.err,
        "error: /nonexistent.pcap can't be opened: no such file or directory\n\
         help: name captures that exist and that you may read: mermin replay FILE...\n"
    );
}

#[test]
fn a_capture_is_not_overwritten_by_its_own_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "a.pcap", &capture(1));
    let (name, same) = (path.to_str().unwrap(), format!("{}/./a.pcap", folder.path().display()));
    let output = format!("json:{same}");
    for arguments in [["-o", output.as_str()], ["--stats", same.as_str()]] {
        let ran = run(&["replay", name, arguments[0], arguments[1]]);
        assert_eq!(ran.code, 64, "{}", ran.err);
        assert!(ran.err.contains("would be overwritten"), "{}", ran.err);
        assert_eq!(std::fs::read(&path).unwrap(), capture(1));
    }
}

#[test]
fn records_and_statistics_do_not_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "a.pcap", &capture(1));
    let there = written(folder.path(), "there", b"kept");
    let (name, folder) = (path.to_str().unwrap(), folder.path().display());
    for file in ["new", "there"] {
        let (output, stats) = (format!("json:{folder}/{file}"), format!("{folder}/./{file}"));
        let ran = run(&["replay", name, "-o", "none", "-o", &output, "--stats", &stats]);
        let expected = format!(
            "error: records and statistics would be written to one file\n  --> --stats {stats}\n\
             help: give the statistics a file of their own\n"
        );
        assert_eq!((ran.code, ran.err), (64, expected));
    }
    assert_eq!(std::fs::read(&there).unwrap(), b"kept");
    assert_eq!(run(&["replay", name, "-o", "json:/dev/null", "--stats", "/dev/null"]).code, 0);
}

#[test]
fn damage_is_65_after_all_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let whole = capture(10);
    let file = written(folder.path(), "cut.pcap", &whole[..whole.len() - 7]);
    let ran = run(&["replay", file.to_str().unwrap(), "-o", "json"]);
    assert_eq!(ran.code, 65, "{}", ran.err);
    assert_eq!(ran.out.lines().count(), 1);
    assert!(ran.out.contains("\"flow.packets.total\":9,"), "{}", ran.out);
    assert!(ran.err.contains("cut.pcap"), "{}", ran.err);
    let empty = written(folder.path(), "header.pcap", &whole[..24]);
    assert_eq!(run(&["replay", empty.to_str().unwrap()]).code, 0);
}

#[test]
fn a_replay_of_1000_packets_logs_as_documented() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "a.pcap", &capture(1_000));
    let stats = folder.path().join("stats.json");
    let ran = run(&["replay", file.to_str().unwrap(), "-o", "none", "--stats", stats.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let first = format!("mermin {}: replay of {}; records: none", env!("CARGO_PKG_VERSION"), file.display());
    assert_eq!(ran.err.lines().next(), Some(first.as_str()));
    let logged: Vec<_> = ran.err.lines().filter_map(|line| Some(line.split_once("Z ")?.1)).collect();
    for line in [
        "INFO  Flow processing pipeline initialized",
        "INFO  Packet reader task started",
        "INFO  Processed 1000 packets",
        "INFO  New flow created: 1:wCb3OG7yAFWelaUydu0D+125CLM=",
        "INFO  Flow Pipeline Stats: 0 active flows, 1 total created, 1 total released, 1000 packets processed",
    ] {
        assert_eq!(logged.iter().filter(|found| **found == line).count(), 1, "{line} in {}", ran.err);
    }
    assert!(ran.err.contains("All books balance (sightings, metering, outputs)"), "{}", ran.err);
    let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(stats).unwrap()).unwrap();
    assert_eq!(stats["packets_processed"], 1_000);
    assert_eq!(stats["ledger"]["released"]["packets"], 1_000);
}

/// One packet is metered; an ARP request and the packet of another link type lie around it.
#[test]
fn capture_seconds_span_all_packets() {
    let folder = tempfile::tempdir().unwrap();
    let arp = pcap(1, [(1_699_999_990, 0, [&[0xff; 12][..], &[8, 6], &[0; 28]].concat())]);
    let ppp = pcap(9, [(1_700_000_005, 0, vec![0; 4])]);
    let files = [("arp", arp), ("one", capture(1)), ("ppp", ppp)]
        .map(|(name, bytes)| written(folder.path(), name, &bytes).to_str().unwrap().to_owned());
    let stats = folder.path().join("stats.json");
    let stats = stats.to_str().unwrap();
    let ran = run(&["replay", &files[0], &files[1], &files[2], "-o", "none", "--stats", stats]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(stats).unwrap()).unwrap();
    assert_eq!(stats["ledger"]["metered"]["packets"], 1);
    assert_eq!(stats["capture_seconds"], 15.0);
}

#[test]
fn log_level_from_file_and_options() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "a.pcap", &capture(1));
    let config =
        written(folder.path(), "m.yaml", b"log_level: error\nexport:\n  stdout:\n    format: json\n");
    let quiet = run(&["replay", file.to_str().unwrap(), "-c", config.to_str().unwrap()]);
    assert!(!quiet.err.contains("INFO"), "{}", quiet.err);
    assert!(quiet.out.starts_with('{'), "{}", quiet.out);
    let loud = run(&[
        "replay",
        file.to_str().unwrap(),
        "-c",
        config.to_str().unwrap(),
        "-v",
        "--log-format",
        "json",
    ]);
    let line = loud.err.lines().find(|line| line.starts_with('{')).unwrap();
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    assert!(event["target"].is_string() && event["time"].is_string(), "{line}");
}

#[test]
fn records_go_to_the_log_whatever_its_level() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "a.pcap", &capture(1));
    let config = written(folder.path(), "m.yaml", b"log_level: warn\nexport:\n  log: {}\n");
    let file = file.to_str().unwrap();
    for arguments in [
        &["replay", file, "-o", "log", "--log-level", "error"][..],
        &["replay", file, "-c", config.to_str().unwrap()],
    ] {
        let ran = run(arguments);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let lines: Vec<_> = ran.err.lines().filter(|line| line.contains("Z INFO  ")).collect();
        assert!(lines.len() == 1 && lines[0].contains("flow.community_id="), "{arguments:?}: {}", ran.err);
    }
}

#[test]
fn standard_input_is_a_capture() {
    let mut child = mermin(&["replay", "-", "-o", "json"]);
    let mut child =
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&capture(3)).unwrap();
    let ran = ran(&child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.out.lines().count()), (0, 1), "{}", ran.err);
}

#[test]
fn a_closed_standard_output_ends_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "a.pcap", &capture(100));
    let mut child = mermin(&["replay", file.to_str().unwrap(), "-o", "json"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = ran(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!ran.err.contains("error: "), "{}", ran.err);
}
