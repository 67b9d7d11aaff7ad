//! The configuration of a live agent, read again.

use super::live::{has_privileges, signal};
use super::mermin;
use super::server::{Agent, LONG};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

pub(super) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
}

/// An agent on lo that reads `file`.
fn agent(file: &Path, more: &[&str]) -> Agent {
    let file = file.to_str().unwrap();
    let run = ["run", "-i", "lo", "-o", "none", "-c", file, "--set", "server.listen=127.0.0.1:0"];
    Agent::start(&mut mermin(&[&run, more].concat()))
}

/// Signals the agent; what came of it.
fn reload(agent: &Agent) -> Value {
    let number = |status: &Value| status["reload"]["number"].as_u64().unwrap();
    let before = number(&agent.get("/status").json());
    signal(&agent.child, "-HUP");
    until("no reload", || {
        let status = agent.get("/status").json();
        (number(&status) > before).then(|| status["reload"]["last"].clone())
    })
}

#[test]
fn a_reload_applies_what_it_can_and_names_the_rest() {
    if !has_privileges("a_reload_applies_what_it_can_and_names_the_rest") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mermin.yaml");
    write(&file, "log_level: info\n");
    let agent = agent(&file, &["--set", "capture.ring_bytes=1MiB"]);
    assert_eq!(reload(&agent)["sentence"], "Reloaded: nothing has changed");

    write(
        &file,
        "log_level: debug\ncapture: {ring_bytes: 2MiB}\nexport: {queue_capacity: 70}\npipeline:\n  \
         {stats_interval: 7s, enrichment_workers: 3, breaker: {slow: 2s}, priority: [{match: {ports: [53]}, class: low}]}\n",
    );
    let last = reload(&agent);
    assert_eq!(last["result"], "applied");
    assert_eq!(
        last["sentence"],
        "Reloaded: log_level (info → debug), pipeline.stats_interval (30s → 7s), pipeline.priority, \
         pipeline.breaker.slow (5s → 2s), export.queue_capacity; a restart is needed for pipeline.enrichment_workers (1 → 3)",
        "--set still goes ahead of the file"
    );
    let settings = || agent.get("/stats").json()["settings"].clone();
    assert_eq!(settings()["pipeline.stats_interval"], "7s");
    assert_eq!(settings()["pipeline.enrichment_workers"], 1);
    assert_eq!(settings()["pipeline.priority"][0]["class"], "low");
    assert_eq!(settings()["export.queue_capacity"], 70);

    // One mistake, and nothing of the rest counts.
    write(&file, "log_level: loud\npipeline: {stats_interval: 1s}\nflow:\n  idle_timeout: 5\n");
    let last = reload(&agent);
    assert_eq!(last["result"], "refused");
    let problems: Vec<_> =
        last["problems"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    let place = format!("\n  --> {}:1:12 log_level\nhelp: expected one of error, ", file.display());
    assert!(problems[0].starts_with("error: `log_level` can't be the text `loud`"), "{problems:?}");
    assert!(
        problems[0].contains(&place) && problems[1].contains("; if seconds are meant: 5s"),
        "{problems:?}"
    );
    assert_eq!(settings()["pipeline.stats_interval"], "7s");
    let page = agent.get("/metrics").body;
    for (series, value) in [
        ("mermin_config_reloads_total{result=\"applied\"}", 1.0),
        ("mermin_config_reloads_total{result=\"unchanged\"}", 1.0),
        ("mermin_config_reloads_total{result=\"at_restart\"}", 0.0),
        ("mermin_config_reloads_total{result=\"refused\"}", 1.0),
        ("mermin_config_last_reload_successful", 0.0),
        ("mermin_config_keys_at_restart", 1.0),
    ] {
        assert_eq!(super::server::metric(&page, series), value, "{series}");
    }
    let page = agent.get("/status?format=text").body;
    assert!(
        page.contains(" ago: Not reloaded: the configuration is wrong, and nothing was changed"),
        "{page}"
    );

    std::fs::remove_file(&file).unwrap();
    assert!(reload(&agent)["problems"][0].as_str().unwrap().contains("no such file or directory"));

    let said = agent.end();
    assert!(said.contains("All books balance (sightings, metering, outputs)"), "{said}");
    for line in [
        "INFO  Reloaded: nothing has changed\n",
        "INFO  mermin::reload: Reloaded: log_level (info → debug), ",
        "WARN  mermin::reload: Not reloaded: the configuration is wrong, and nothing was changed\n",
        "WARN  mermin::reload: `log_level` can't be the text `loud` --> ",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
}

/// Whether the process handles SIGHUP.
fn is_listening(child: &Child) -> Option<()> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    (u64::from_str_radix(caught.trim(), 16).ok()? & 1 == 1).then_some(())
}

#[test]
fn a_reload_that_is_asked_for_before_the_agent_is_up_comes_after() {
    if !has_privileges("a_reload_that_is_asked_for_before_the_agent_is_up_comes_after") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("config");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let mut command = mermin(&["run", "-i", "lo", "-o", "none", "-c", pipe.to_str().unwrap()]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // It waits for its configuration.
    until("nobody listens", || is_listening(&child));
    signal(&child, "-HUP");
    signal(&child, "-HUP");
    write(&pipe, "log_level: info\n");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    // It has read to the end of that by then.
    assert!(lines.any(|line| line.starts_with("mermin ")), "it is up");
    write(&pipe, "pipeline: {stats_interval: 9s}\n");
    assert!(lines.any(|line| line.contains("Reloaded: pipeline.stats_interval (30s → 9s)")));
    signal(&child, "-INT");
    // Two signals are one reload: a second one would wait for another text, and the end waits for nobody.
    assert_eq!(lines.filter(|line| line.contains("eloaded")).count(), 0);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Nothing listens for it there: a terminal that closes ends what was begun in it.
#[test]
fn a_replay_ends_by_it_as_other_programs_do() {
    use std::os::unix::process::ExitStatusExt;
    let mut agent = Agent::replay(&["--set", "server.listen=127.0.0.1:0"]);
    signal(&agent.child, "-HUP");
    if is_hangup_ignored() {
        // These tests run under nohup: so does the replay, and stays.
        assert!(agent.get("/status").json().is_object());
        return;
    }
    assert_eq!(agent.child.wait().unwrap().signal(), Some(1));
}

/// By this process, and so by those that it starts.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1
}

/// Another selection of interfaces, and one that fits none.
#[test]
fn interfaces_are_selected_anew() {
    if !has_privileges("interfaces_are_selected_anew") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mermin.yaml");
    let select = |pattern: &str| {
        write(
            &file,
            &format!(
                "capture: {{interfaces: {{include: [{pattern}], exclude: [], wait: {}}}}}\n",
                pattern == "none*"
            ),
        );
    };
    select("l?");
    let run = ["run", "-o", "none", "-c", file.to_str().unwrap(), "--set", "server.listen=127.0.0.1:0"];
    let agent = Agent::start(&mut mermin(&run));
    let on = || agent.get("/status").json()["capture"]["interfaces"].as_array().unwrap().len();
    assert_eq!(on(), 1);
    select("no-such");
    let last = reload(&agent);
    assert_eq!(last["result"], "refused");
    assert!(
        last["problems"][0].as_str().unwrap().starts_with("error: no interface fits `no-such`; there are ")
    );
    assert_eq!(on(), 1);
    select("none*");
    assert_eq!(reload(&agent)["applied"].as_array().unwrap().len(), 2);
    until("it goes off", || (on() == 0).then_some(()));
    select("lo");
    assert_eq!(reload(&agent)["result"], "applied");
    until("it goes on", || (on() == 1).then_some(()));
    let said = agent.end();
    assert!(said.contains("All books balance (sightings, metering, outputs)"), "{said}");
}

#[test]
fn the_command_asks_the_agent_and_says_what_came_of_it() {
    if !has_privileges("the_command_asks_the_agent_and_says_what_came_of_it") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mermin.yaml");
    write(&file, "");
    let agent = agent(&file, &[]);
    let (address, pid) = (agent.address.to_string(), agent.child.id().to_string());
    let asks = |more: &[&str]| super::run(&[&["reload", "--address", &address], more].concat());
    let number = || agent.get("/status").json()["reload"]["number"].as_u64().unwrap();

    let super::Ran { code, out, err } = asks(&[]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "Reloaded: nothing has changed\n", ""));
    write(&file, "flow: {idle_timeout: 3s, community_id_seed: 1}\n");
    let super::Ran { code, out, err } = asks(&["--pid", &pid]);
    let sentence =
        "Reloaded: flow.idle_timeout (30s → 3s); a restart is needed for flow.community_id_seed (0 → 1)\n";
    assert_eq!((code, out.as_str(), err.as_str()), (0, sentence, ""));

    // Wrong here: the agent isn't asked. Wrong there: it says so.
    let wrong = folder.path().join("wrong.yaml");
    write(&wrong, "flow: {idle_timeout: 0s}\n");
    let before = number();
    let super::Ran { code, out, err } = asks(&["-c", wrong.to_str().unwrap()]);
    assert_eq!((code, out.as_str(), number()), (64, "", before));
    assert!(err.starts_with("error: `idle_timeout` can't be zero\n  --> "), "{err}");
    write(&file, "flow: {idle_timeout: 0s}\n");
    let super::Ran { code, out, err } = asks(&[]);
    assert_eq!((code, out.as_str(), number()), (64, "", before + 1));
    let place =
        format!("error: `idle_timeout` can't be zero\n  --> {}:1:22 flow.idle_timeout\n", file.display());
    assert!(err.starts_with(&place) && err.contains("\nerror: not reloaded: "), "{err}");

    // Without a server to ask only its log tells.
    let super::Ran { code, out, .. } = super::run(&["reload", "--address", "127.0.0.1:1", "--pid", &pid]);
    assert_eq!(code, 0, "{out}");
    assert!(
        out.ends_with("was asked to read its configuration again; its log says what came of it\n"),
        "{out}"
    );
    until("the agent is asked", || (number() == before + 2).then_some(()));
    assert_eq!(agent.end().matches("Not reloaded").count(), 2);
}

/// A server on an agent's port may be anybody's, and name whom it likes.
#[test]
fn the_command_signals_nobody_but_an_agent() {
    let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let pid = other.id();
    let replay = Agent::replay(&["--set", "server.listen=127.0.0.1:0"]);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            use std::io::{Read, Write};
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4_096]);
            let body = format!("{{\"pid\":{pid},\"reload\":{{\"number\":0}}}}");
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
    let (other_pid, replay_pid) = (pid.to_string(), replay.child.id().to_string());
    for (arguments, why) in [
        (&["--address", &address][..], format!("process {other_pid} is no agent that can be asked here")),
        (&["--address", &address, "--pid", &other_pid], format!("process {other_pid} is no agent")),
        // It has the name, and would end by it.
        (&["--address", "127.0.0.1:1", "--pid", &replay_pid], format!("process {replay_pid} is no agent")),
        (&["--address", &replay.address.to_string()], "does not read its configuration again".to_owned()),
        (&["--address", "127.0.0.1:1"], "no agent answers at 127.0.0.1:1".to_owned()),
    ] {
        let super::Ran { code, out, err } = super::run(&[&["reload"], arguments].concat());
        assert_eq!((code, out.as_str()), (69, ""), "{arguments:?}: {err}");
        assert!(err.contains(&why) && err.contains("\nhelp: "), "{arguments:?}: {err}");
    }
    assert!(other.try_wait().unwrap().is_none(), "it was signalled");
    other.kill().unwrap();
    other.wait().unwrap();
    replay.end();
}

/// What `GET /status` calls its outputs.
fn outputs(agent: &Agent) -> Vec<String> {
    let status = agent.get("/status").json();
    let names =
        status["outputs"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned());
    names.collect()
}

/// Files and a collector that come, go and change; every record is in a file or in a book.
#[test]
fn outputs_come_and_go_with_the_configuration() {
    if !has_privileges("outputs_come_and_go_with_the_configuration") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (file, stats) = (folder.path().join("mermin.yaml"), path("stats.json"));
    let configure = |export: &str| {
        let pipeline = "pipeline: {shutdown_timeout: 2s, breaker: {failures: 1}}";
        write(
            &file,
            &format!("flow: {{udp_timeout: 100ms, idle_timeout: 1s}}\n{pipeline}\nexport: {export}\n"),
        );
    };
    let lines = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default().lines().count() as u64;
    // Something is written to it.
    let grows = |name: &str| {
        let before = lines(name);
        until(name, || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.send_to(b"x", "127.0.0.1:9").unwrap();
            (lines(name) > before).then_some(())
        });
    };
    let (a, b, c) = (path("a"), path("b"), path("c"));
    configure(&format!("{{files: [{{path: {a}}}, {{path: {b}}}]}}"));
    let run = ["run", "-i", "lo", "-c", file.to_str().unwrap(), "--stats", &stats];
    let agent = Agent::start(&mut mermin(&[&run[..], &["--set", "server.listen=127.0.0.1:0"]].concat()));
    assert_eq!(outputs(&agent), [format!("json:{a}"), format!("json:{b}")]);
    grows("a");
    grows("b");

    // One goes, one comes, one has another form: what it had written stays, though it is not appended to at a start.
    configure(&format!("{{files: [{{path: {a}, format: text, append: false}}, {{path: {c}}}]}}"));
    assert_eq!(reload(&agent)["sentence"], "Reloaded: export.files");
    assert_eq!(outputs(&agent), [format!("text:{a}"), format!("json:{c}")]);
    let status = agent.get("/status").json();
    let headline = status["headline"].as_str().unwrap();
    assert!(headline.contains(&format!("; records: text to {a}, json to {c}; ")), "{headline}");
    grows("a");
    grows("c");
    let both = std::fs::read_to_string(&a).unwrap();
    assert!(
        both.starts_with('{') && !both.trim_end().lines().next_back().unwrap().starts_with('{'),
        "{both}"
    );

    // What can't be is refused as a whole.
    let new = path("new");
    configure(&format!("{{queue_capacity: 5, files: [{{path: {new}}}, {{path: /nonexistent/folder/d}}]}}"));
    let last = reload(&agent);
    assert_eq!(last["result"], "refused");
    assert!(!Path::new(&new).exists() && outputs(&agent) == [format!("text:{a}"), format!("json:{c}")]);
    assert_eq!(agent.get("/stats").json()["settings"]["export.queue_capacity"], 8_192);

    // A disk buffer that is to be elsewhere than where the agent has them takes a restart.
    let there = format!("disk_buffer: {{folder: {}}}", path("there"));
    configure(&format!("{{{there}, files: [{{path: {a}, format: text}}, {{path: {c}, buffer: disk}}]}}"));
    assert_eq!(reload(&agent)["result"], "at_restart");

    // A collector that isn't there; then none is wanted any more.
    let files = format!("files: [{{path: {a}, format: text}}]");
    configure(&format!("{{{files}, otlp: {{endpoint: \"http://127.0.0.1:1\", signals: [traces]}}}}"));
    assert_eq!(reload(&agent)["applied"].as_array().unwrap().len(), 2);
    let is_ready = || agent.get("/status").json()["ready"] == true;
    until("nobody notices", || {
        grows("a");
        (!is_ready()).then_some(())
    });
    configure(&format!("{{{files}}}"));
    assert_eq!(reload(&agent)["sentence"], "Reloaded: export.otlp");
    assert!(is_ready());
    let figure = |what: &str| {
        let series = format!("mermin_output_{what}");
        super::server::metric(&agent.get("/metrics").body, &series)
    };
    let dropped =
        "settled_records_total{output=\"otlp:traces\",outcome=\"dropped\",reason=\"shutdown_timeout\"}";
    until("it is given up", || {
        (figure("waiting_records{output=\"otlp:traces\",place=\"queue\"}") < 0.5).then_some(())
    });
    assert!(figure(dropped) > 0.5 && figure(&format!("handed_records_total{{output=\"json:{b}\"}}")) > 0.5);

    // One that comes again goes on with its book.
    let files = files.replace('[', &format!("[{{path: {b}}}, "));
    configure(&format!("{{{files}, log: {{}}}}\nlog_level: warn"));
    assert_eq!(reload(&agent)["result"], "applied");
    grows("b");
    let said = agent.end();
    assert!(said.contains("All books balance (sightings, metering, outputs)"), "{said}");
    let statistics: Value = serde_json::from_str(&std::fs::read_to_string(stats).unwrap()).unwrap();
    let delivered = |name: String| statistics["outputs"][&name]["delivered"]["records"].as_u64().unwrap();
    assert_eq!(delivered(format!("json:{a}")) + delivered(format!("text:{a}")), lines("a"));
    let logged = said.lines().filter(|line| line.contains("flow.sequence=")).count() as u64;
    assert!(logged > 0 && logged == delivered("log".to_owned()), "whatever the level: {logged}");
    assert_eq!([delivered(format!("json:{b}")), delivered(format!("json:{c}"))], [lines("b"), lines("c")]);
}

/// Outputs with disk buffers that come, go, and come again, one of them to a collector that never answers. Every record that
/// was handed over is in a file, once, or on disk.
#[test]
fn outputs_with_disk_buffers_come_and_go_with_the_configuration() {
    let what = "outputs_with_disk_buffers_come_and_go_with_the_configuration";
    if !has_privileges(what) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (file, stats, a, b) = (folder.path().join("mermin.yaml"), path("stats.json"), path("a"), path("b"));
    let collector = ", otlp: {endpoint: \"http://127.0.0.1:1\", signals: [logs], buffer: disk}";
    let configure = |files: &str, more: &str| {
        let export = format!("{{disk_buffer: {{folder: {}}}, files: [{files}]{more}}}", path("buffers"));
        let pipeline = "pipeline: {shutdown_timeout: 5s}";
        write(&file, &format!("flow: {{udp_timeout: 100ms}}\n{pipeline}\nexport: {export}\n"));
    };
    let send = || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", "127.0.0.1:9").unwrap();
    };
    let records = |file: &str| -> Vec<(String, u64)> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let record = |line: &str| {
            let record: Value = serde_json::from_str(line).unwrap();
            (record["flow.id"].as_str().unwrap().to_owned(), record["flow.sequence"].as_u64().unwrap())
        };
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(record).collect()
    };
    let disk = |file: &str| format!("{{path: {file}, buffer: disk}}");
    configure(&disk(&a), collector);
    let run = ["run", "-i", "lo", "-c", file.to_str().unwrap(), "--stats", &stats];
    let agent = Agent::start(&mut mermin(&[&run[..], &["--set", "server.listen=127.0.0.1:0"]].concat()));
    let book = |name: &str| agent.get("/stats").json()["outputs"][name].clone();
    let spooled = |name: &str| book(name)["spooled"]["records"].as_u64().unwrap_or_default();
    until("nothing waits on disk", || {
        send();
        (spooled("otlp:logs") > 20 && records(&a).len() > 20).then_some(())
    });

    // One that stays, one that goes with its records on disk, two that come.
    configure(&format!("{}, {}, {{path: {}}}", disk(&a), disk(&b), path("c")), "");
    assert_eq!(reload(&agent)["sentence"], "Reloaded: export.files, export.otlp");
    assert_eq!(outputs(&agent), [format!("json:{a}"), format!("json:{b}"), format!("json:{}", path("c"))]);
    // Its folder is still its own.
    configure(&disk(&b), collector);
    let last = reload(&agent);
    let why = last["problems"].to_string();
    assert!(last["result"] == "refused" && why.contains("output otlp:logs, which was removed"), "{last}");
    assert_eq!(outputs(&agent).len(), 3, "nothing is changed");
    until("nothing comes", || {
        send();
        (records(&b).len() > 20).then_some(())
    });
    // It is free then, and what waits there is in one book only.
    until("it is not free", || (reload(&agent)["result"] == "applied").then_some(()));
    assert_eq!(outputs(&agent), [format!("json:{b}"), "otlp:logs".to_owned()]);
    assert!(spooled("otlp:logs") > 20 && book("otlp:logs")["recovered"]["records"] == 0);
    let said = agent.end();
    assert!(said.contains("All books balance (sightings, metering, outputs)"), "{said}");
    let statistics: Value = serde_json::from_str(&std::fs::read_to_string(stats).unwrap()).unwrap();
    let figure = |name: &str, what: &str| statistics["outputs"][name][what]["records"].as_u64().unwrap();
    for file in [&a, &b] {
        let (name, records) = (format!("json:{file}"), records(file));
        let different: std::collections::HashSet<_> = records.iter().collect();
        assert_eq!(different.len(), records.len(), "none comes twice");
        assert_eq!(
            [figure(&name, "handed"), figure(&name, "delivered")],
            [records.len() as u64; 2],
            "{name}"
        );
    }
    assert_eq!(figure("otlp:logs", "spooled"), figure("otlp:logs", "handed"));
}
