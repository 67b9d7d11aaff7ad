//! What is answered to whom: from a request's path to a body. Knows nothing of connections.

use crate::agent::Agent;
use crate::metrics::{Form, gather};
use crate::status;
use http::StatusCode;
use mermin_export::{Format, JsonLines, Style, TextLines};
use mermin_flow::FlowOrder;
use std::sync::Arc;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Flows told where nobody says how many.
const FLOWS: usize = 20;
const FLOWS_MAX: usize = 1_000;

/// What there is to ask for, with what it tells.
pub(super) const PATHS: [(&str, &str); 6] = [
    ("/metrics", "metrics for Prometheus"),
    ("/livez", "whether the process is worth keeping"),
    ("/readyz", "whether it does what it was configured to do"),
    ("/stats", "the statistics as JSON"),
    ("/status", "everything as JSON; with format=text for people"),
    ("/flows", "live flows as JSON; with limit=N, order=bytes|packets|recent, format=text"),
];

/// A request without its connection.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) path: String,
    pub(super) query: String,
    pub(super) accept: String,
    /// The token was shown, or none is wanted.
    pub(super) trusted: bool,
}

/// An answer without its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

impl Answer {
    fn new(status: StatusCode, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type, body: body.into() }
    }

    /// A sentence for people.
    pub(super) fn sentence(status: StatusCode, sentence: &str) -> Self {
        Self::new(status, TEXT, format!("{sentence}\n"))
    }

    fn json(status: StatusCode, json: &serde_json::Value) -> Self {
        Self::new(status, JSON, format!("{json}\n"))
    }
}

impl Question {
    /// Whether the answer takes no look into the pipeline, and so no time.
    pub(super) fn is_quick(&self) -> bool {
        matches!(self.path.as_str(), "/livez" | "/readyz")
    }

    /// The value of a parameter. None of those that there are needs escapes.
    fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    }

    /// A parameter that was given but is none of the path's.
    fn unknown_parameter(&self, known: &[&str]) -> Option<&str> {
        let names = self.query.split('&').filter(|pair| !pair.is_empty());
        names.map(|pair| pair.split('=').next().unwrap_or_default()).find(|name| !known.contains(name))
    }

    pub(super) fn answer(&self, agent: &Agent) -> Answer {
        if !self.trusted && !self.is_quick() {
            return Answer::sentence(
                StatusCode::UNAUTHORIZED,
                "a token is wanted: Authorization: Bearer TOKEN",
            );
        }
        let answer = match self.path.as_str() {
            "/livez" => self.health(agent.liveness(), "alive", &[]),
            "/readyz" => self.health(agent.readiness(), "ready", &[]),
            "/metrics" => self.metrics(agent),
            "/stats" => self.with(&[]).map(|()| Answer::json(StatusCode::OK, &agent.statistics_json())),
            "/status" => self.status(agent),
            "/flows" => self.flows(agent),
            "/" => Ok(Answer::sentence(StatusCode::OK, &index())),
            path => {
                let names: Vec<_> = PATHS.iter().map(|(path, _)| *path).collect();
                let path: String = path.chars().take(100).flat_map(char::escape_default).collect();
                Err(format!("there is no {path} here; there are {}", names.join(", ")))
                    .map_err(|sentence| Answer::sentence(StatusCode::NOT_FOUND, &sentence))
            }
        };
        answer.unwrap_or_else(|refusal| refusal)
    }

    /// Refuses parameters that mean nothing: a misspelt one would be ignored in silence.
    fn with(&self, known: &[&str]) -> Result<(), Answer> {
        let Some(name) = self.unknown_parameter(known) else { return Ok(()) };
        let name: String = name.chars().take(50).flat_map(char::escape_default).collect();
        let there = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(bad(&format!("{} has no parameter {name}; there are: {there}", self.path)))
    }

    fn health(
        &self,
        readiness: crate::agent::Readiness,
        name: &str,
        known: &[&str],
    ) -> Result<Answer, Answer> {
        self.with(known)?;
        let good = readiness.is_ready();
        let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut json = readiness.to_json(name);
        if !self.trusted
            && let Some(json) = json.as_object_mut()
        {
            json.remove("checks");
        }
        Ok(Answer::json(status, &json))
    }

    fn metrics(&self, agent: &Agent) -> Result<Answer, Answer> {
        self.with(&[])?;
        let form = Form::accepted(&self.accept);
        let failed =
            |_| Answer::sentence(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written: a bug");
        let page = form.render(gather(agent)).map_err(failed)?;
        Ok(Answer::new(StatusCode::OK, form.content_type(), page))
    }

    fn status(&self, agent: &Agent) -> Result<Answer, Answer> {
        self.with(&["format", "color"])?;
        Ok(match self.style()? {
            None => Answer::json(StatusCode::OK, &agent.to_json()),
            Some(style) => Answer::new(StatusCode::OK, TEXT, status::page(agent, style.color)),
        })
    }

    fn flows(&self, agent: &Agent) -> Result<Answer, Answer> {
        self.with(&["limit", "order", "format", "columns", "color"])?;
        let limit = self.count("limit", FLOWS, FLOWS_MAX)?;
        let order = match self.parameter("order") {
            None | Some("bytes") => FlowOrder::Bytes,
            Some("packets") => FlowOrder::Packets,
            Some("recent") => FlowOrder::Recent,
            Some(_) => return Err(bad("order is bytes, packets or recent")),
        };
        let style = self.style()?;
        let Some(seen) = agent.flows(order, limit) else {
            let busy = "many ask for flows at the moment; ask again in a second";
            return Err(Answer::sentence(StatusCode::SERVICE_UNAVAILABLE, busy));
        };
        let mut body = Vec::new();
        if let Some(style) = style {
            let mut lines = TextLines::new(style);
            seen.flows.iter().for_each(|flow| lines.push(flow, &mut body));
            return Ok(Answer::new(StatusCode::OK, TEXT, body));
        }
        let mut lines = JsonLines::new(Arc::clone(&agent.points));
        body.extend_from_slice(b"{\"flows\":[");
        for (index, flow) in seen.flows.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            lines.push(flow, &mut body);
            // Each ends with a line feed.
            body.pop();
        }
        body.extend_from_slice(format!("],\"complete\":{}}}\n", seen.complete).as_bytes());
        Ok(Answer::new(StatusCode::OK, JSON, body))
    }

    /// How text is to look; nothing where JSON is wanted.
    fn style(&self) -> Result<Option<Style>, Answer> {
        match self.parameter("format") {
            None | Some("json") => return Ok(None),
            Some("text") => {}
            Some(_) => return Err(bad("format is json or text")),
        }
        let color = self.parameter("color") == Some("true");
        let columns = self.count("columns", 0, 10_000)?;
        Ok(Some(Style { color, header: columns > 0, columns: (columns > 0).then_some(columns) }))
    }

    fn count(&self, name: &str, default: usize, most: usize) -> Result<usize, Answer> {
        let Some(text) = self.parameter(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| *number <= most);
        number.ok_or_else(|| bad(&format!("{name} is a whole number from 0 to {most}")))
    }
}

fn bad(sentence: &str) -> Answer {
    Answer::sentence(StatusCode::BAD_REQUEST, sentence)
}

fn index() -> String {
    let paths = PATHS.iter().map(|(path, what)| format!("{path:<10} {what}"));
    format!("mermin {}\n\n{}", env!("CARGO_PKG_VERSION"), paths.collect::<Vec<_>>().join("\n"))
}
