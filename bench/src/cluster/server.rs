//! An API server that tells of a made-up cluster: a script, for there is no room here for a real one's 50 000 pods. It
//! speaks HTTP/1.1 and streams its lists; what each object says and how it is wrapped is as a real one writes it.

use anyhow::Result;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Backends of each service.
const BACKENDS: usize = 5;
/// Pods of each replica set.
const REPLICAS: usize = 25;
const NODES: usize = 500;

/// How large the cluster is, and what it is to do.
pub(crate) struct Town {
    pub(crate) pods: usize,
    pub(crate) services: usize,
    /// Whether pods change, as fast as they can be told of.
    pub(crate) changes: AtomicBool,
    pub(crate) told: AtomicU64,
}

/// The address of a pod.
pub(crate) fn pod_address(number: usize) -> [u8; 4] {
    let [.., a, b, c] = number.to_be_bytes();
    [10, a, b, c]
}

/// Starts it; ends with the process. Returns a kubeconfig in `folder`.
pub(crate) fn start(town: &Arc<Town>, folder: &Path) -> Result<PathBuf> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let town = Arc::clone(town);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let town = Arc::clone(&town);
            // An error is the client's going away.
            thread::spawn(move || town.serve(stream).is_ok());
        }
    });
    let path = folder.join("kubeconfig");
    std::fs::write(&path, kubeconfig(address))?;
    Ok(path)
}

fn kubeconfig(address: SocketAddr) -> String {
    serde_json::json!({
        "clusters": [{ "name": "c", "cluster": { "server": format!("http://{address}") } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "c",
    })
    .to_string()
}

impl Town {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            while !line.trim().is_empty() {
                line.clear();
                reader.read_line(&mut line)?;
            }
            const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
            if path == "/livez" {
                write!(stream, "{HEAD}content-length: 2\r\n\r\nok")?;
                continue;
            }
            write!(stream, "{HEAD}transfer-encoding: chunked\r\n\r\n")?;
            let kind = path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
            self.list(kind, &mut stream)?;
            if kind != "pods" {
                // Until the client goes.
                return reader.read_to_end(&mut Vec::new()).map(drop);
            }
            self.change(&mut stream)?;
        }
    }

    /// All objects of a kind, and that these were all.
    fn list(&self, kind: &str, stream: &mut TcpStream) -> io::Result<()> {
        let (count, make): (usize, fn(usize, &Self) -> String) = match kind {
            "pods" => (self.pods, |number, _| pod(number, number)),
            "services" => (self.services, |number, _| service(number)),
            "endpointslices" => (self.services, endpoint_slice),
            "nodes" => (NODES, |number, _| node(number)),
            "replicasets" => (self.pods / REPLICAS, |number, _| replica_set(number)),
            _ => (0, |_, _| String::new()),
        };
        let mut text = String::new();
        for number in 0..count {
            event(&mut text, "ADDED", &make(number, self));
            if text.len() > 60_000 || number + 1 == count {
                chunk(stream, &text)?;
                text.clear();
            }
        }
        let end = r#"{"metadata":{"resourceVersion":"900000000","annotations":{"k8s.io/initial-events-end":"true"}}}"#;
        event(&mut text, "BOOKMARK", end);
        chunk(stream, &text)
    }

    /// Pods that change, a few at a time.
    fn change(&self, stream: &mut TcpStream) -> io::Result<()> {
        let mut number = 0;
        loop {
            if !self.changes.load(Ordering::Relaxed) {
                thread::sleep(std::time::Duration::from_millis(20));
                continue;
            }
            let mut text = String::new();
            for _ in 0..10 {
                event(&mut text, "MODIFIED", &pod(number * 7_919 % self.pods, 1_000_000_000 + number));
                number += 1;
            }
            chunk(stream, &text)?;
            self.told.fetch_add(10, Ordering::Relaxed);
        }
    }
}

fn chunk(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    write!(stream, "{:x}\r\n{text}\r\n", text.len())
}

fn event(text: &mut String, kind: &str, object: &str) {
    // Writing to a string doesn't fail.
    let _ = writeln!(text, r#"{{"type":"{kind}","object":{object}}}"#);
}

fn uid(kind: usize, number: usize) -> String {
    format!("{kind:08x}-0000-4000-8000-{number:012x}")
}

fn ip([a, b, c, d]: [u8; 4]) -> String {
    format!("{a}.{b}.{c}.{d}")
}

/// A pod of 6 kB, as a busy cluster has them; `version` differs in what an agent keeps, too.
fn pod(number: usize, version: usize) -> String {
    let (set, address) = (number / REPLICAS, ip(pod_address(number)));
    let noise = r#""f:x":{"f:y":{}},"#.repeat(300);
    let metadata = format!(
        r#"{{"name":"app-{set}-7d9c6f5b4-{number:05}","namespace":"ns-{}","uid":"{}","resourceVersion":"{version}","creationTimestamp":"2026-01-02T03:04:05Z","labels":{{"app":"app-{set}","version":"v{}"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"app-{set}-7d9c6f5b4","uid":"{}","controller":true}}],"managedFields":[{{"fieldsV1":{{{noise}"f:z":{{}}}}}}]}}"#,
        set % 100,
        uid(1, number),
        version % 1_000,
        uid(2, set),
    );
    format!(
        r#"{{"metadata":{metadata},"spec":{{"nodeName":"node-{}","containers":[{{"name":"app","ports":[{{"containerPort":8080,"protocol":"TCP"}}]}}]}},"status":{{"phase":"Running","podIP":"{address}","podIPs":[{{"ip":"{address}"}}],"startTime":"2026-01-02T03:04:06Z","containerStatuses":[{{"name":"app","state":{{"running":{{"startedAt":"2026-01-02T03:04:07Z"}}}}}}]}}}}"#,
        number % NODES
    )
}

fn service(number: usize) -> String {
    let [.., high, low] = number.to_be_bytes();
    format!(
        r#"{{"metadata":{{"name":"service-{number}","namespace":"ns-{}","uid":"{}","resourceVersion":"{number}"}},"spec":{{"type":"ClusterIP","clusterIP":"172.20.{high}.{low}","clusterIPs":["172.20.{high}.{low}"],"ports":[{{"port":80,"targetPort":8080,"protocol":"TCP"}}]}}}}"#,
        number % 100,
        uid(3, number),
    )
}

/// Pods of all over the cluster before a service.
fn endpoint_slice(number: usize, town: &Town) -> String {
    let backend = |step: usize| {
        let pod = (number * BACKENDS + step) % town.pods;
        format!(
            r#"{{"addresses":["{}"],"conditions":{{"ready":true}},"targetRef":{{"kind":"Pod","name":"p","uid":"{}"}}}}"#,
            ip(pod_address(pod)),
            uid(1, pod)
        )
    };
    let backends: Vec<_> = (0..BACKENDS).map(backend).collect();
    format!(
        r#"{{"metadata":{{"name":"service-{number}-x","namespace":"ns-{}","uid":"{}","resourceVersion":"{number}","labels":{{"kubernetes.io/service-name":"service-{number}"}}}},"addressType":"IPv4","endpoints":[{}],"ports":[{{"port":8080,"protocol":"TCP"}}]}}"#,
        number % 100,
        uid(4, number),
        backends.join(",")
    )
}

fn node(number: usize) -> String {
    let [.., high, low] = number.to_be_bytes();
    format!(
        r#"{{"metadata":{{"name":"node-{number}","uid":"{}","resourceVersion":"{number}"}},"spec":{{}},"status":{{"addresses":[{{"type":"InternalIP","address":"192.168.{high}.{low}"}}]}}}}"#,
        uid(5, number)
    )
}

fn replica_set(number: usize) -> String {
    format!(
        r#"{{"metadata":{{"name":"app-{number}-7d9c6f5b4","namespace":"ns-{}","uid":"{}","resourceVersion":"{number}","ownerReferences":[{{"apiVersion":"apps/v1","kind":"Deployment","name":"app-{number}","uid":"{}","controller":true}}]}}}}"#,
        number % 100,
        uid(2, number),
        uid(6, number),
    )
}
