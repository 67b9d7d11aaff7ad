//! The real Prometheus: scrapes the program every second, answers queries; and promtool.

use super::PROMETHEUS;
use super::folder::Folder;
use super::http::{Client, Request};
use super::place::Place;
use super::process::{Process, without_surroundings};
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    client: Client,
    _folder: Folder,
}

/// One series of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels, `__name__` among them where the query keeps it.
    pub labels: Value,
    /// Its value.
    pub value: f64,
}

impl Prometheus {
    /// Whether its programs are there.
    ///
    /// # Errors
    /// What is missing.
    pub fn installed() -> Result<(), String> {
        crate::need::tool("setpriv")?;
        PROMETHEUS.installed()
    }

    /// Starts one that scrapes plain `/metrics` at this address every second, as job `mermin`.
    #[must_use]
    pub fn scraping(place: &Place, target: SocketAddr) -> Self {
        let job = json!({ "job_name": "mermin", "static_configs": [{ "targets": [target.to_string()] }] });
        Self::start(place, &[job])
    }

    /// Starts one with these entries of `scrape_configs`, each scraped every second.
    ///
    /// # Panics
    /// When it doesn't come up.
    #[must_use]
    pub fn start(place: &Place, scrape_configs: &[Value]) -> Self {
        let folder = Folder::new();
        let config = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s" },
            "scrape_configs": scrape_configs,
        });
        let address = place.free_address();
        let arguments = [
            format!("--config.file={}", folder.write("prometheus.yml", config.to_string()).display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            // Every interface otherwise.
            format!("--web.listen-address={address}"),
        ];
        let program = PROMETHEUS.program("prometheus").unwrap_or_else(|missing| panic!("{missing}"));
        let mut process = Process::start(place, &program, &arguments, folder.path());
        let client = Client::plain(place, address);
        process.wait_until(|| {
            client.send(Request::get("/-/ready")).is_ok_and(|response| response.status == 200)
        });
        Self { process, client, _folder: folder }
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The value of an expression now: a series for each set of labels, a scalar as one without labels.
    ///
    /// # Panics
    /// When the expression is wrong.
    #[must_use]
    pub fn query(&self, expression: &str) -> Vec<Sample> {
        let answer = self.ask(&format!("/api/v1/query?query={}", escaped(expression)));
        let value = |pair: &Value| pair[1].as_str().and_then(|text| text.parse().ok()).expect("a number");
        let result = &answer["data"]["result"];
        if answer["data"]["resultType"] == "scalar" {
            return vec![Sample { labels: json!({}), value: value(result) }];
        }
        let sample =
            |series: &Value| Sample { labels: series["metric"].clone(), value: value(&series["value"]) };
        result.as_array().expect("a list").iter().map(sample).collect()
    }

    /// Returns when the expression has a value for which `holds` says so; that value.
    ///
    /// # Panics
    /// When it has none after 30 s.
    pub fn wait_for(&self, expression: &str, holds: impl Fn(&[Sample]) -> bool) -> Vec<Sample> {
        let began = std::time::Instant::now();
        loop {
            let samples = self.query(expression);
            if holds(&samples) {
                return samples;
            }
            assert!(began.elapsed().as_secs() < 30, "{expression} is {samples:?}; {}", self.targets());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// What it says of its targets: address, health, last error.
    #[must_use]
    pub fn targets(&self) -> String {
        let answer = self.ask("/api/v1/targets?state=active");
        let target =
            |target: &Value| format!("{} {} {}", target["scrapeUrl"], target["health"], target["lastError"]);
        answer["data"]["activeTargets"]
            .as_array()
            .into_iter()
            .flatten()
            .map(target)
            .collect::<Vec<_>>()
            .join("; ")
    }

    fn ask(&self, path: &str) -> Value {
        let response = self.client.send(Request::get(path)).expect("it answers");
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        serde_json::from_slice(&response.body).expect("JSON")
    }
}

/// Runs `promtool WORDS…` with `input` on its standard input; exit code and all that it wrote.
///
/// # Panics
/// When it can't be started.
#[must_use]
pub fn promtool(words: &[&str], input: &str) -> (i32, String) {
    let program = PROMETHEUS.program("promtool").unwrap_or_else(|missing| panic!("{missing}"));
    let mut command = without_surroundings(std::process::Command::new(program));
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it was piped");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()).is_ok());
        child.wait_with_output().expect("it was started")
    });
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// For a query string: all but letters, digits and a few signs as `%XX`.
fn escaped(text: &str) -> String {
    let sign = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(sign).collect()
}
