//! The watches at a server that does what a real one can't be made to do at will: one without streamed lists, one that
//! forgets in the middle of a list, one that speaks HTTP/1.1 alone. It is a script; `real_server.rs` has the real one.

use crate::clock::Clock;
use crate::kubernetes::cluster::{Cluster, Environment};
use crate::kubernetes::config::{KubernetesConfig, Switch};
use crate::kubernetes::object::{Change, Kind, Object, Time};
use crate::kubernetes::recorder::{Run, run_with, run_within};
use crate::kubernetes::sink::ChangeSink;
use crate::kubernetes::status::{WatchState, WatchesState};
use crate::kubernetes::watch::Limits;
use crate::kubernetes::watches::Watches;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What the script says to a request.
enum Reply {
    /// A status and a body.
    Whole(u16, String),
    /// The begin of a body that goes on for ever.
    Open(String),
    /// A body of which the same piece comes again and again, for ever.
    Again(String),
    /// A list that is made while it is sent: its head, how many items, one item by its number.
    Made(usize, fn(usize) -> String),
    Nothing,
}

type Script = dyn Fn(&str) -> Reply + Send + Sync;

/// Serves HTTP/1.1 without TLS until the process ends, and writes down what was asked for.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::default());
        let (script, seen): (Arc<Script>, Arc<Mutex<Vec<String>>>) = (Arc::new(script), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                // An error is the client's going away.
                thread::spawn(move || serve(stream.unwrap(), &*script, &seen).is_ok());
            }
        });
        Self { address, asked, folder: tempfile::tempdir().unwrap() }
    }

    fn kubeconfig(&self) -> PathBuf {
        let path = self.folder.path().join("kubeconfig");
        let server = format!("http://{}", self.address);
        let config = serde_json::json!({
            "clusters": [{ "name": "c", "cluster": { "server": server } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
            "current-context": "c",
        });
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// To watch pods alone.
    fn config(&self) -> KubernetesConfig {
        KubernetesConfig {
            enabled: Switch::On,
            kubeconfig: Some(self.kubeconfig()),
            leave_out: Kind::ALL.into_iter().filter(|kind| *kind != Kind::Pod).collect(),
            ..KubernetesConfig::default()
        }
    }

    fn watch_pods(&self) -> Run {
        run_with(self.config())
    }

    /// The questions about pods so far.
    fn asked(&self) -> Vec<String> {
        let pods = |path: &&String| path.starts_with("/api/v1/pods");
        self.asked.lock().unwrap().iter().filter(pods).cloned().collect()
    }
}

fn serve(mut stream: TcpStream, script: &Script, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        while line.trim() != "" {
            line.clear();
            reader.read_line(&mut line)?;
        }
        seen.lock().unwrap().push(path.clone());
        let head = |status: u16| format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n");
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        match script(&path) {
            Reply::Whole(status, body) => {
                write!(stream, "{}content-length: {}\r\n\r\n{body}", head(status), body.len())?;
            }
            Reply::Open(text) => {
                write!(stream, "{}transfer-encoding: chunked\r\n\r\n{}", head(200), chunk(&text))?;
                // Until the client goes.
                return reader.read_to_end(&mut Vec::new()).map(drop);
            }
            Reply::Again(text) => {
                write!(stream, "{}transfer-encoding: chunked\r\n\r\n", head(200))?;
                loop {
                    write!(stream, "{}", chunk(&text))?;
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Reply::Made(count, item) => {
                write!(stream, "{}transfer-encoding: chunked\r\n\r\n", head(200))?;
                write!(stream, "{}", chunk(r#"{"metadata":{"resourceVersion":"9"},"items":["#))?;
                for i in 0..count {
                    let comma = if i == 0 { "" } else { "," };
                    write!(stream, "{}", chunk(&format!("{comma}{}", item(i))))?;
                }
                write!(stream, "{}0\r\n\r\n", chunk("]}"))?;
            }
            Reply::Nothing => return reader.read_to_end(&mut Vec::new()).map(drop),
        }
    }
}

fn pod(name: &str, version: u32) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"shop","uid":"uid-{name}","resourceVersion":"{version}"}}}}"#
    )
}

fn event(kind: &str, object: &str) -> String {
    format!(r#"{{"type":"{kind}","object":{object}}}{}"#, "\n")
}

fn list(pods: &[(&str, u32)], version: u32, token: &str) -> String {
    let items: Vec<_> = pods.iter().map(|(name, version)| pod(name, *version)).collect();
    let metadata = format!(r#"{{"resourceVersion":"{version}","continue":"{token}"}}"#);
    format!(r#"{{"kind":"PodList","metadata":{metadata},"items":[{}]}}"#, items.join(","))
}

const GONE: &str =
    r#"{"kind":"Status","status":"Failure","message":"too old","reason":"Expired","code":410}"#;
const NO_STREAMING: &str = concat!(
    r#"{"kind":"Status","message":"sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the "#,
    r#"WatchList feature gate is enabled","reason":"Invalid","code":422}"#
);

fn names(run: &Run) -> Vec<String> {
    run.recorder
        .record()
        .known
        .values()
        .map(|object| match object {
            Object::Pod(pod) => pod.meta.name.to_string(),
            other => panic!("{other:?}"),
        })
        .collect()
}

/// No streamed lists; a page that expires; a watch that expires. Over HTTP/1.1, where a probe stands for pings.
#[test]
fn lists_come_in_pages_and_start_over_when_they_expire() {
    let expired_once = Mutex::new((false, false));
    let server = Server::start(move |path| {
        let mut expired = expired_once.lock().unwrap();
        let once = |flag: &mut bool| !std::mem::replace(flag, true);
        match path {
            "/livez" => Reply::Whole(200, "ok".into()),
            path if path.contains("sendInitialEvents") => Reply::Whole(422, NO_STREAMING.into()),
            path if path.contains("watch=true&resourceVersion=9") && once(&mut expired.1) => {
                let added = event("ADDED", &pod("c", 10));
                let unreadable = event("MODIFIED", r#"{"metadata":{"name":7}}"#);
                let bookmark = event(
                    "BOOKMARK",
                    r#"{"kind":"Pod","metadata":{"resourceVersion":"12","creationTimestamp":null}}"#,
                );
                Reply::Open([added, unreadable, bookmark, event("ERROR", GONE)].concat())
            }
            path if path.contains("watch=true") => Reply::Open(event("DELETED", &pod("b", 21))),
            path if path.contains("continue=second") && once(&mut expired.0) => {
                Reply::Whole(410, GONE.into())
            }
            path if path.contains("continue=second") => Reply::Whole(200, list(&[("b", 2)], 9, "")),
            path if path.contains("continue=fresh") => Reply::Whole(200, list(&[("b", 2)], 20, "")),
            _ if expired.1 => Reply::Whole(200, list(&[("a", 1)], 20, "fresh")),
            _ => Reply::Whole(200, list(&[("a", 1)], 9, "second")),
        }
    });
    let run = server.watch_pods();
    run.wait("the deletion", |run| {
        run.recorder.record().changes.iter().any(|(change, _)| matches!(change, Change::Deleted(_)))
    });
    run.wait_for_news(Kind::Pod);
    assert_eq!(names(&run), ["a"]);
    let asked = server.asked();
    let short: Vec<_> =
        asked.iter().map(|path| path.split_once('?').unwrap().1.split("&allow").next().unwrap()).collect();
    let streamed = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0";
    let expected = [
        streamed,
        // From the server's memory; its second page has expired: then no longer from memory, which may lag.
        "limit=500&resourceVersion=0",
        "limit=500&continue=second",
        "limit=500",
        "limit=500&continue=second",
        "watch=true&resourceVersion=9",
        "limit=500",
        "limit=500&continue=fresh",
        "watch=true&resourceVersion=20",
    ];
    assert_eq!(short, expected);
    let reading = run.kind(Kind::Pod);
    assert_eq!((reading.unreadable, reading.lists, reading.objects), (1, 3, 1));
    assert_eq!(reading.state, WatchState::Watching);
}

/// As Kubernetes 1.35 over etcd 3.4.23 says it.
const NO_PROGRESS: &str = concat!(
    r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"a watch stream was requested by the "#,
    r#"client but the required storage feature RequestWatchProgress is disabled","reason":"InternalError","code":500}"#
);

/// Refusals of streamed lists, each in its way: none costs a wait, all lead to pages.
#[test]
fn a_refused_stream_is_followed_by_pages_at_once() {
    type Refuse = fn() -> Reply;
    let refusals: [Refuse; 3] = [
        || Reply::Open(event("ERROR", NO_PROGRESS)),
        || Reply::Whole(422, NO_STREAMING.into()),
        || Reply::Whole(400, "{}".into()),
    ];
    for refuse in refusals {
        let server = Server::start(move |path| match path {
            path if path.contains("sendInitialEvents") => refuse(),
            path if path.contains("watch=true") => Reply::Open("\n".into()),
            "/livez" => Reply::Whole(200, "ok".into()),
            _ => Reply::Whole(200, list(&[("a", 1)], 9, "")),
        });
        let run = server.watch_pods();
        run.wait("ready", |run| run.state() == WatchesState::Ready);
        assert_eq!(server.asked().len(), 3, "{:?}", server.asked());
        assert_eq!(names(&run), ["a"]);
    }
}

/// A server whose streamed lists fail for reasons of their own: one attempt in four is for pages.
#[test]
fn a_stream_that_keeps_failing_is_followed_by_pages() {
    let server = Server::start(|path| match path {
        path if path.contains("sendInitialEvents") => Reply::Whole(503, "{}".into()),
        path if path.contains("watch=true") => Reply::Open("\n".into()),
        "/livez" => Reply::Whole(200, "ok".into()),
        _ => Reply::Whole(200, list(&[("a", 1)], 9, "")),
    });
    let run = server.watch_pods();
    run.wait("ready", |run| run.state() == WatchesState::Ready);
    assert_eq!(run.kind(Kind::Pod).errors, 3);
    assert_eq!(names(&run), ["a"]);
}

/// A list that is made from a cache that lags: what has happened since comes before its end.
#[test]
fn what_is_deleted_in_the_middle_of_a_list_is_not_in_it() {
    let server = Server::start(|path| match path {
        "/livez" => Reply::Whole(200, "ok".into()),
        path if path.contains("sendInitialEvents") => {
            let end =
                r#"{"metadata":{"resourceVersion":"5","annotations":{"k8s.io/initial-events-end":"true"}}}"#;
            let list = [event("ADDED", &pod("stays", 1)), event("ADDED", &pod("goes", 2))];
            let since = [event("MODIFIED", &pod("stays", 3)), event("DELETED", &pod("goes", 4))];
            Reply::Open([list.concat(), since.concat(), event("BOOKMARK", end)].concat())
        }
        path => panic!("{path}"),
    });
    let run = server.watch_pods();
    run.wait("ready", |run| run.state() == WatchesState::Ready);
    assert_eq!(names(&run), ["stays"]);
    assert_eq!(run.kind(Kind::Pod).objects, 1);
}

/// A server of before streamed lists ignores the wish: it tells what there is, and no end of it.
#[test]
fn a_streamed_list_without_an_end_is_not_waited_for() {
    let server = Server::start(|path| match path {
        path if path.contains("sendInitialEvents") => Reply::Open(event("ADDED", &pod("old", 1))),
        path if path.contains("watch=true") => Reply::Open(event("ADDED", &pod("new", 11))),
        "/livez" => Reply::Whole(403, "{}".into()),
        _ => Reply::Whole(200, list(&[("a", 1)], 9, "")),
    });
    let run = server.watch_pods();
    run.wait("the watch", |run| run.recorder.pod("new").is_some());
    assert_eq!(names(&run), ["a", "new"]);
    run.wait("ready", |run| run.state() == WatchesState::Ready);
}

/// Over HTTP/1.1: a watch that is silent while the probe isn't answered.
#[test]
fn a_hang_is_noticed_without_pings() {
    let hangs = Arc::new(Mutex::new(false));
    let hanging = Arc::clone(&hangs);
    let server = Server::start(move |path| match path {
        _ if *hanging.lock().unwrap() => Reply::Nothing,
        "/livez" => Reply::Whole(200, "ok".into()),
        path if path.contains("sendInitialEvents") => {
            let end =
                r#"{"metadata":{"resourceVersion":"5","annotations":{"k8s.io/initial-events-end":"true"}}}"#;
            Reply::Open(event("ADDED", &pod("a", 1)) + &event("BOOKMARK", end))
        }
        path if path.contains("watch=true&resourceVersion=5") => Reply::Open(event("MODIFIED", &pod("a", 6))),
        path => panic!("{path}"),
    });
    let run = server.watch_pods();
    run.wait("ready", |run| run.state() == WatchesState::Ready);
    for _ in 0..2 {
        run.wait_for_news(Kind::Pod);
    }
    *hangs.lock().unwrap() = true;
    run.wait("degraded", |run| run.state() == WatchesState::Degraded);
    *hangs.lock().unwrap() = false;
    run.wait("ready again", |run| run.state() == WatchesState::Ready);
    let again =
        |change: &Change| matches!(change, Change::Applied(Object::Pod(pod)) if *pod.meta.name == *"a");
    assert!(run.recorder.record().changes.iter().any(|(change, _)| again(change)), "it went on at version 5");
    assert_eq!(run.kind(Kind::Pod).lists, 1);
}

/// An answer to the probe that a proxy gives for a server that is gone.
#[test]
fn a_probe_that_a_gateway_answers_is_no_sign_of_life() {
    let is_gone = Arc::new(Mutex::new(false));
    let gone = Arc::clone(&is_gone);
    let server = Server::start(move |path| match path {
        "/livez" if *gone.lock().unwrap() => Reply::Whole(503, "{}".into()),
        "/livez" => Reply::Whole(200, "ok".into()),
        path if path.contains("sendInitialEvents") => Reply::Whole(422, NO_STREAMING.into()),
        path if path.contains("watch=true") => Reply::Open("\n".into()),
        _ => Reply::Whole(200, list(&[("a", 1)], 9, "")),
    });
    let run = server.watch_pods();
    run.wait("ready", |run| run.state() == WatchesState::Ready);
    *is_gone.lock().unwrap() = true;
    run.wait("degraded", |run| run.state() == WatchesState::Degraded);
    assert_eq!(run.kind(Kind::Pod).failure.unwrap().as_str(), "nothing was heard for 6 s");
}

/// A server that answers the probe and lists, and whose watches do as told, under limits that don't count but for one.
fn taken_up_anew(limits: Limits, watch: fn() -> Reply) {
    let server = Server::start(move |path| match path {
        "/livez" => Reply::Whole(200, "ok".into()),
        path if path.contains("sendInitialEvents") => Reply::Whole(422, NO_STREAMING.into()),
        path if path.contains("watch=true") => watch(),
        _ => Reply::Whole(200, list(&[("a", 1)], 9, "")),
    });
    let run = run_within(limits, server.config());
    let watches = || server.asked().iter().filter(|path| path.contains("resourceVersion=9&")).count();
    run.wait("another watch", |_| watches() > 1);
    // What the old one has not told isn't thought not to have happened.
    let record = run.recorder.record();
    let interrupted = record.changes.iter().any(|(change, _)| *change == Change::Interrupted(Kind::Pod));
    assert!(interrupted, "{:?}", record.changes);
    assert!(
        record.changes.iter().filter(|(change, _)| *change == Change::ListBegins(Kind::Pod)).count() == 1
    );
}

const NEVER: Duration = Duration::from_secs(3_600);

#[test]
fn a_watch_that_tells_nothing_is_taken_up_anew_though_the_server_lives() {
    let limits = Limits { watch_stall: Duration::from_secs(2), overtime: NEVER, ..Limits::default() };
    taken_up_anew(limits, || Reply::Open("\n".into()));
}

#[test]
fn a_watch_that_the_server_does_not_end_is_taken_up_anew() {
    let limits = Limits {
        watch_seconds: 1,
        overtime: Duration::from_secs(1),
        watch_stall: NEVER,
        ..Limits::default()
    };
    taken_up_anew(limits, || Reply::Again("\n".into()));
}

/// One kind's list stands still; the others' are streamed as before.
#[test]
fn a_list_that_stands_still_is_one_kinds_matter() {
    let (paged, signal) = (Mutex::new(false), std::sync::Condvar::new());
    let server = Server::start(move |path| match path {
        "/livez" => Reply::Whole(200, "ok".into()),
        path if path.starts_with("/api/v1/pods") && path.contains("sendInitialEvents") => {
            Reply::Open(event("ADDED", &pod("a", 1)))
        }
        path if path.starts_with("/api/v1/pods") && path.contains("watch=true") => Reply::Open("\n".into()),
        path if path.starts_with("/api/v1/pods") => {
            *paged.lock().unwrap() = true;
            signal.notify_all();
            Reply::Whole(200, list(&[("a", 1)], 9, ""))
        }
        path if path.contains("sendInitialEvents") => {
            let end =
                r#"{"metadata":{"resourceVersion":"5","annotations":{"k8s.io/initial-events-end":"true"}}}"#;
            Reply::Whole(200, event("BOOKMARK", end))
        }
        // The nodes' version is forgotten after the pods' list has stood still.
        _ => {
            drop(signal.wait_while(paged.lock().unwrap(), |paged| !*paged).unwrap());
            Reply::Whole(410, GONE.into())
        }
    });
    let mut config = server.config();
    config.leave_out.retain(|kind| *kind != Kind::Node);
    let limits = Limits { streamed_list_stall: Duration::from_secs(2), ..Limits::default() };
    let run = run_within(limits, config);
    let nodes = || {
        let asked = server.asked.lock().unwrap();
        asked.iter().filter(|path| path.starts_with("/api/v1/nodes")).cloned().collect::<Vec<_>>()
    };
    run.wait("another list", |_| nodes().len() > 2);
    assert!(nodes()[2].contains("sendInitialEvents"), "{:?}", nodes());
    assert_eq!(names(&run), ["a"]);
}

/// A pod of 6 kB, as a busy cluster has them.
fn large_pod(i: usize) -> String {
    let noise = "\"f:x\":{\"f:y\":{}},".repeat(300);
    format!(
        r#"{{"metadata":{{"name":"pod-{i}","namespace":"ns-{}","uid":"00000000-0000-0000-0000-{i:012}","resourceVersion":"{i}","creationTimestamp":"2026-01-02T03:04:05Z","labels":{{"app":"app-{}"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"app-{}-7d9","uid":"10000000-0000-0000-0000-{:012}","controller":true}}],"managedFields":[{{"fieldsV1":{{{noise}"f:z":{{}}}}}}]}},"spec":{{"nodeName":"node-{}","containers":[{{"name":"app","ports":[{{"containerPort":8080,"protocol":"TCP"}}]}}]}},"status":{{"phase":"Running","podIP":"10.{}.{}.{}","podIPs":[{{"ip":"10.{}.{}.{}"}}],"startTime":"2026-01-02T03:04:06Z"}}}}"#,
        i % 100,
        i % 2000,
        i % 2000,
        i % 2000,
        i % 500,
        i >> 16,
        i >> 8 & 255,
        i & 255,
        i >> 16,
        i >> 8 & 255,
        i & 255
    )
}

/// Keeps objects and nothing else.
#[derive(Clone, Default)]
struct Keep(Arc<Mutex<Vec<Object>>>);

impl ChangeSink for Keep {
    fn change(&mut self, change: Change, _: Time) {
        if let Change::Listed(object) = change {
            self.0.lock().unwrap().push(object);
        }
    }

    fn settle(&mut self) {}
}

/// Of a list one object at a time is in memory. `MERMIN_PODS=50000` for figures.
#[test]
fn a_large_list_takes_the_memory_of_what_is_kept() {
    let pods = std::env::var("MERMIN_PODS").map_or(2_000, |pods| pods.parse().unwrap());
    let server = Server::start(move |path| match path {
        path if path.contains("sendInitialEvents") => Reply::Whole(422, NO_STREAMING.into()),
        path if path.contains("watch=true") => Reply::Open("\n".into()),
        "/livez" => Reply::Whole(200, "ok".into()),
        _ => Reply::Made(pods, large_pod),
    });
    let (keep, config) = (Keep::default(), server.config());
    let cluster = Cluster::find(&config, &Environment::default(), true).unwrap().unwrap();
    let (before, began) = (resident(), Instant::now());
    let watches = Watches::start(&cluster, &config, Clock::new(), keep.clone()).unwrap();
    let reading = || watches.status().readings().find(|reading| reading.kind == Kind::Pod).unwrap();
    while reading().objects != pods as u64 {
        assert!(began.elapsed().as_secs() < 600, "{:?}", reading());
        thread::sleep(Duration::from_millis(5));
    }
    let took = began.elapsed();
    let (json, (now, most)) = (reading().bytes, resident());
    eprintln!(
        "{pods} pods, {} MB of JSON in {took:?}: {} bytes a pod are kept; {} kB more at most",
        json / 1_000_000,
        now.saturating_sub(before.0) * 1_024 / pods as u64,
        most.saturating_sub(before.0),
    );
    assert_eq!(keep.0.lock().unwrap().len(), pods);
    assert!(json > pods as u64 * 5_000);
}

/// Resident memory of this process now and at most, kB.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (line("VmRSS:"), line("VmHWM:"))
}
