//! `mermin diagnose`: of an agent that loses packets, of one that is well, of a run that has ended.

use super::server::Agent;
use super::{capture, mermin, pcap, ran, run, written};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

const LISTENS: [&str; 2] = ["--set", "server.listen=127.0.0.1:0"];

/// The object that it prints.
fn diagnosis(arguments: &[&str]) -> Value {
    let ran = run(&[&["diagnose", "--json"], arguments].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

fn rules(diagnosis: &Value) -> Vec<&str> {
    diagnosis["findings"].as_array().unwrap().iter().map(|one| one["rule"].as_str().unwrap()).collect()
}

/// A channel with room for one packet, ahead of workers that the reader doesn't wait for: packets are lost without end.
#[test]
fn an_agent_that_loses_packets_is_told_which_settings_to_change() {
    let small = [
        "replay",
        "-",
        "-o",
        "none",
        "--set",
        "pipeline.packet_channel_capacity=1",
        "--set",
        "pipeline.enable_backpressure=false",
    ];
    let mut agent = Agent::start(&mut mermin(&[&small[..], &LISTENS].concat()));
    let mut input = agent.child.stdin.take().unwrap();
    let feeder = thread::spawn(move || {
        let (first, more) = (capture(1_000), capture(1_000));
        let mut result = input.write_all(&first);
        // Behind the header of the file.
        while result.is_ok() {
            result = input.write_all(&more[24..]);
        }
    });
    let address = agent.address.to_string();
    let told = diagnosis(&["--address", &address, "--for", "1s"]);
    assert_eq!((rules(&told)[0], &told["ok"]), ("packet_channel_full", &Value::from(false)), "{told:#}");
    let changes: Vec<_> = told["findings"][0]["changes"].as_array().unwrap().iter().collect();
    let change =
        |key: &str| changes.iter().find(|change| change["key"] == key).unwrap_or_else(|| panic!("{told:#}"));
    let backpressure = change("pipeline.enable_backpressure");
    assert_eq!((&backpressure["present"], &backpressure["suggested"]), (&false.into(), &true.into()));
    let room = change("pipeline.packet_channel_capacity");
    assert_eq!((&room["present"], &room["suggested"]), (&1.into(), &2.into()));
    let figures = &told["figures"];
    assert!(figures["lost"]["packet_channel_full"].as_u64() <= figures["packets"].as_u64(), "{figures}");
    let page = run(&["diagnose", "--address", &address, "--for", "1s"]);
    assert!(page.out.contains("\nPacket loss\n  ") && page.out.contains("false → true"), "{}", page.out);
    drop(agent);
    feeder.join().unwrap();
}

#[test]
fn of_an_agent_that_is_well_it_says_that_nothing_is_to_be_changed() {
    let agent = Agent::replay(&LISTENS);
    let address = agent.address.to_string();
    let ran = run(&["diagnose", "--address", &address, "--for", "1s"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    // Its reader doesn't answer while it waits for its input.
    let nothing = "\nNothing to change, by what is known.\n";
    assert!(ran.out.ends_with(nothing) && ran.out.contains("\nmemory  "), "{}", ran.out);
    let told = diagnosis(&["--address", &address, "--for", "1s"]);
    assert_eq!(told["ok"], true, "{told:#}");
    assert!(told["figures"]["resident_bytes"].as_u64() > Some(0), "{told:#}");
    agent.end();
}

/// Answers each question with the next of `looks`, in an agent's place: one that is started anew under the same process
/// number can't be had outside of containers.
fn answering(looks: Vec<Value>) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answers = thread::spawn(move || {
        for look in looks {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            let body = look.to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).unwrap();
        }
    });
    (address, answers)
}

#[test]
fn two_looks_at_two_runs_are_refused_and_torn_ones_are_taken_again() {
    let look = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let first = look(include_str!("../../src/diagnose/sample/first.json"));
    let last = look(include_str!("../../src/diagnose/sample/last.json"));
    let mut torn = last.clone();
    torn["statistics"]["consistent"] = false.into();
    let mut fewer = last.clone();
    fewer["statistics"]["ledger"]["lost"]["ring_full"]["packets"] = 1.into();
    let mut later = last.clone();
    later["uptime_seconds"] = (first["uptime_seconds"].as_f64().unwrap() + 0.5).into();
    let cases = [
        (vec![&first, &last], Ok(vec!["ring_full"])),
        (vec![&torn, &first, &torn, &last], Ok(vec!["ring_full"])),
        (vec![&first, &torn, &torn, &torn], Ok(vec!["figures_missing", "ring_full"])),
        (vec![&last, &first], Err("was started anew between the two looks")),
        (vec![&first, &fewer], Err("was started anew between the two looks")),
        (vec![&first, &later], Err("was started anew between the two looks")),
    ];
    for (looks, expected) in cases {
        let (address, answers) = answering(looks.into_iter().cloned().collect());
        let ran = run(&["diagnose", "--json", "--address", &address, "--for", "1s"]);
        answers.join().unwrap();
        let told = serde_json::from_str::<Value>(&ran.out).unwrap_or_default();
        match expected {
            Ok(expected) => assert!(rules(&told) == expected, "{told:#} {}", ran.err),
            Err(says) => assert!(ran.code == 69 && ran.err.contains(says), "{} {}", ran.code, ran.err),
        }
    }
}

#[test]
fn the_statistics_of_a_run_are_read_from_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "a.pcap", &capture(100));
    let stats = folder.path().join("stats.json");
    let (file, stats) = (file.to_str().unwrap(), stats.to_str().unwrap());
    assert_eq!(run(&["replay", file, "-o", "none", "--stats", stats]).code, 0);
    let ran = run(&["diagnose", "--stats", stats]);
    assert!(ran.out.contains("100 (") && ran.out.ends_with("\nNothing to change.\n"), "{}", ran.out);
    assert!(
        ran.out.contains("Not known without pipeline.enable_metrics=true: how full channels"),
        "{}",
        ran.out
    );
    // The same by standard input, of a run that lost some.
    let mut statistics: Value = serde_json::from_slice(&std::fs::read(stats).unwrap()).unwrap();
    statistics["ledger"]["lost"]["ring_full"] =
        serde_json::json!({"packets": 25, "buffers": 25, "buffer_bytes": 1_350});
    let lossy = written(folder.path(), "lossy.json", statistics.to_string().as_bytes());
    let input = std::fs::File::open(lossy).unwrap();
    let output = mermin(&["diagnose", "--stats", "-", "--json"]).stdin(input).output().unwrap();
    let told: Value = serde_json::from_str(&ran_out(&output)).unwrap();
    assert_eq!(rules(&told)[..2], ["books_unbalanced", "ring_full"], "they were not lost before");
    assert!(told["findings"][1]["what"].as_str().unwrap().starts_with("25 packets (25.0 %)"), "{told:#}");
}

/// A hundred flows through a table with one place for each shard.
#[test]
fn flows_that_had_to_go_are_counted_as_the_records_say() {
    let folder = tempfile::tempdir().unwrap();
    let one = capture(1);
    let flow = |number: u8| {
        let mut frame = one[40..].to_vec();
        frame[29] = number;
        (1_700_000_000, u32::from(number), frame)
    };
    let file = written(folder.path(), "a.pcap", &pcap(1, (0..100).map(flow)));
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (file, stats, records) = (file.to_str().unwrap(), &path("stats.json"), &path("records.json"));
    let output = &format!("json:{records}");
    let small = "flow.table_capacity=1";
    assert_eq!(run(&["replay", file, "-o", output, "--stats", stats, "--set", small]).code, 0);
    let records = std::fs::read_to_string(records).unwrap();
    let gone = records.lines().filter(|line| line.contains("lack of resources")).count();
    assert!(gone >= 36, "{gone} of a hundred flows in 64 places");
    let told = diagnosis(&["--stats", stats]);
    let what = told["findings"][0]["what"].as_str().unwrap();
    assert_eq!(rules(&told), ["flow_table_full"]);
    assert!(what.starts_with(&format!("{gone} flows had to go for others")), "{what}");
}

fn ran_out(output: &std::process::Output) -> String {
    let ran = ran(output);
    assert_eq!(ran.code, 0, "{}", ran.err);
    ran.out
}

#[test]
fn what_can_t_be_asked_or_read_is_an_error_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| written(folder.path(), name, bytes).to_str().unwrap().to_owned();
    let other = &file("other.json", b"{\"ledger\": {}}");
    let (binary, cut) = (&file("binary", b"{\"ledger\": \xff}"), &file("cut.json", b"{\"ledger\": {"));
    let missing = folder.path().join("missing");
    let missing = missing.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--address", "127.0.0.1:1", "--for", "1s"], 69, "mermin diagnose --address HOST:PORT"),
        (&["--stats", missing], 66, "can't read the statistics"),
        (&["--stats", other], 65, "these are no statistics of mermin"),
        (&["--stats", binary], 65, "the statistics are not UTF-8"),
        (
            &["--stats", cut],
            65,
            "the statistics are no JSON: EOF while parsing an object at line 1 column 12",
        ),
        (&["--stats", other, "--address", "127.0.0.1:1"], 64, "cannot be used with"),
        (&["--for", "soon"], 64, "--for soon"),
        (&["--for", "999ms"], 64, "`999ms` is too short"),
    ];
    for (arguments, code, says) in cases {
        let ran = run(&[&["diagnose"], arguments].concat());
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(says) && ran.err.contains("help: ") && ran.out.is_empty(), "{}", ran.err);
    }
}
