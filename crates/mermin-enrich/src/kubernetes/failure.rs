//! Why a request or a watch came to nothing, and how long to wait before the next.
//!
//! What heals by itself (a server that starts again) is tried every few seconds, so that names are back soon after; what
//! takes a human (a missing right) after some minutes only once a minute. All waits are jittered: the agents of all
//! nodes lose the same server at the same moment.

use hyper::{HeaderMap, StatusCode};
use serde::Deserialize;
use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The server no longer has what lies between our state and its own: list again.
    #[error("the API server has forgotten what came after our last state")]
    Expired,
    /// A right is missing.
    #[error("{user} has no right to it")]
    Forbidden {
        /// Who asked, as the server names it.
        user: String,
    },
    /// The credentials don't count.
    #[error("the API server doesn't accept our credentials ({message})")]
    Unauthorized {
        /// The server's words.
        message: String,
    },
    /// The server doesn't serve this kind.
    #[error("the API server doesn't serve this kind")]
    Absent,
    /// The server knows no streaming lists.
    #[error("the API server doesn't stream lists")]
    NoStreaming,
    /// The server can't answer now.
    #[error("the API server answers {code} ({message})")]
    Busy {
        /// HTTP status.
        code: u16,
        /// The server's words.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// No connection, or it broke.
    #[error("{0}")]
    Broken(String),
    /// A connection on which nothing comes.
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
    /// An answer that makes no sense.
    #[error("the API server's answer can't be read ({0})")]
    Unreadable(String),
}

/// `Status` of the API, as a response or in a watch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WireStatus {
    pub(crate) code: u16,
    message: String,
    reason: String,
    details: Option<WireDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireDetails {
    causes: Vec<WireCause>,
    retry_after_seconds: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireCause {
    reason: String,
}

/// Longer words of a server are cut, in bytes.
const MESSAGE_MAX: usize = 200;

impl WireStatus {
    /// From a response that isn't a success.
    pub(crate) fn of_response(code: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let mut status: Self = serde_json::from_slice(body).unwrap_or_default();
        status.code = code.as_u16();
        if status.message.is_empty() {
            status.message = code.canonical_reason().unwrap_or("no reason given").to_owned();
        }
        let retry_after =
            headers.get(hyper::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(seconds) = retry_after {
            status.details.get_or_insert_default().retry_after_seconds = seconds;
        }
        status
    }

    /// What it means; `streaming`: a streamed list was asked for.
    pub(crate) fn failure(self, streaming: bool) -> Failure {
        let details = self.details.unwrap_or_default();
        // The state we have is later than the server's: it was restored from a backup, or another one answers.
        let is_from_the_future = details.causes.iter().any(|cause| cause.reason == "ResourceVersionTooLarge");
        let mut message = self.message;
        match self.code {
            410 => return Failure::Expired,
            _ if is_from_the_future => return Failure::Expired,
            403 => return Failure::Forbidden { user: user(&message).unwrap_or("this agent").to_owned() },
            404 => return Failure::Absent,
            400 | 422 if streaming => return Failure::NoStreaming,
            _ if self.reason == "Expired" => return Failure::Expired,
            _ => {}
        }
        message.truncate(message.floor_char_boundary(MESSAGE_MAX));
        match self.code {
            401 => Failure::Unauthorized { message },
            code => {
                let seconds = Some(details.retry_after_seconds).filter(|seconds| *seconds > 0);
                Failure::Busy { code, message, retry_after: seconds.map(Duration::from_secs) }
            }
        }
    }
}

/// The user in `pods is forbidden: User "system:serviceaccount:mermin:mermin" cannot list resource "pods" …`.
fn user(message: &str) -> Option<&str> {
    message.split_once("User \"")?.1.split_once('"').map(|(user, _)| user)
}

impl Failure {
    /// From an error of the connection: its innermost cause says most.
    pub(crate) fn broken(error: &(dyn Error + 'static)) -> Self {
        let mut innermost = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        Self::Broken(innermost.to_string())
    }

    /// Whether it takes a human to end it.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self, Self::Forbidden { .. } | Self::Absent | Self::Unauthorized { .. })
    }
}

/// How long to wait between attempts.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    /// Failures in a row.
    pub(crate) failures: u32,
}

/// The first wait, doubled with each failure.
const FIRST: Duration = Duration::from_millis(200);
/// The longest wait for a server that is gone: names are back within 10 s after it.
const LONGEST: Duration = Duration::from_secs(4);
/// The longest wait for a right, in the first minutes: somebody may be about to grant it.
const LONGEST_LASTING: Duration = Duration::from_secs(5);
/// After so many failures in a row (about 5 minutes) a lasting one is tried rarely.
const PATIENCE: u32 = 60;
/// How rarely.
const RARELY: Duration = Duration::from_secs(60);
/// A server that asks for longer is asked earlier.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

impl Backoff {
    /// Notes a failure; how long to wait.
    pub(crate) fn after(&mut self, failure: &Failure) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let doubled = FIRST * 2_u32.saturating_pow(self.failures.min(16) - 1);
        let wait = match failure {
            // Another request is what helps, and at once.
            Failure::Expired | Failure::NoStreaming if self.failures == 1 => return Duration::ZERO,
            failure if failure.is_lasting() && self.failures > PATIENCE => RARELY,
            failure if failure.is_lasting() => doubled.min(LONGEST_LASTING),
            Failure::Busy { retry_after: Some(wait), .. } => {
                (*wait).clamp(doubled.min(LONGEST), RETRY_AFTER_MAX)
            }
            _ => doubled.min(LONGEST),
        };
        jittered(wait)
    }

    /// Notes a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Between 3/4 of `wait` and all of it.
fn jittered(wait: Duration) -> Duration {
    // Two hashers with keys of their own: random enough to keep agents apart.
    let random = RandomState::new().build_hasher().finish();
    let part = random as f64 / u64::MAX as f64;
    wait.mul_f64(0.75 + part / 4.0)
}

/// How long a watch may last, in seconds: between 290 and 580, so that watches don't all end at the same moment.
pub(crate) fn watch_seconds(shortest: u32) -> u32 {
    let random = RandomState::new().build_hasher().finish();
    shortest + (random % u64::from(shortest)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: u16, body: &str) -> Failure {
        let code = StatusCode::from_u16(code).unwrap();
        WireStatus::of_response(code, &HeaderMap::new(), body.as_bytes()).failure(true)
    }

    #[test]
    fn answers_are_told_apart() {
        let forbidden = concat!(
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods is forbidden: User "#,
            r#"\"system:serviceaccount:mermin:mermin\" cannot watch resource \"pods\" in API group \"\" at the cluster "#,
            r#"scope","reason":"Forbidden","details":{"kind":"pods"},"code":403}"#
        );
        let user = "system:serviceaccount:mermin:mermin".to_owned();
        assert_eq!(failure(403, forbidden), Failure::Forbidden { user });
        assert_eq!(failure(403, "plain"), Failure::Forbidden { user: "this agent".into() });
        assert_eq!(failure(410, ""), Failure::Expired);
        let future = concat!(
            r#"{"message":"Timeout: Too large resource version: 9, current: 7","reason":"Timeout","#,
            r#""details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"x"}],"retryAfterSeconds":1},"code":504}"#
        );
        assert_eq!(failure(504, future), Failure::Expired);
        let streaming =
            r#"{"message":"sendInitialEvents is forbidden for watch","reason":"Invalid","code":422}"#;
        assert_eq!(failure(422, streaming), Failure::NoStreaming);
        let busy = r#"{"message":"try later","details":{"retryAfterSeconds":3}}"#;
        let (code, message) = (429, "try later".to_owned());
        assert_eq!(
            failure(429, busy),
            Failure::Busy { code, message, retry_after: Some(Duration::from_secs(3)) }
        );
        let unauthorized = Failure::Unauthorized { message: "Unauthorized".into() };
        assert_eq!(failure(401, ""), unauthorized);
        assert!(unauthorized.is_lasting());
    }

    #[test]
    fn a_wait_that_the_header_asks_for_is_kept() {
        let headers = HeaderMap::from_iter([(hyper::header::RETRY_AFTER, "7".parse().unwrap())]);
        let status = WireStatus::of_response(StatusCode::SERVICE_UNAVAILABLE, &headers, b"");
        let failure = status.failure(false);
        let message = "Service Unavailable".to_owned();
        assert_eq!(failure, Failure::Busy { code: 503, message, retry_after: Some(Duration::from_secs(7)) });
        let wait = Backoff::default().after(&failure);
        assert!((5_250..=7_000).contains(&wait.as_millis()), "{wait:?}");
    }

    /// Sums of waits, so that jitter plays no part in what is asserted: each is 3/4 to all of it.
    #[test]
    fn waits_grow_to_their_bounds() {
        let mut backoff = Backoff::default();
        let broken = Failure::Broken("refused".into());
        let waits: Vec<_> = (0..8).map(|_| backoff.after(&broken)).collect();
        for (wait, full) in waits.iter().zip([200, 400, 800, 1_600, 3_200, 4_000, 4_000, 4_000]) {
            assert!((full * 3 / 4..=full).contains(&wait.as_millis()), "{waits:?}");
        }
        backoff.reset();
        let forbidden = Failure::Forbidden { user: "u".into() };
        let early: Duration = (0..PATIENCE).map(|_| backoff.after(&forbidden)).max().unwrap();
        assert!(early <= LONGEST_LASTING);
        assert!(backoff.after(&forbidden) >= RARELY * 3 / 4);
        backoff.reset();
        assert_eq!(backoff.after(&Failure::Expired), Duration::ZERO);
        assert!(backoff.after(&Failure::Expired) > Duration::ZERO, "an endless loop of lists");
    }

    #[test]
    fn watches_end_at_different_times() {
        let ends: std::collections::BTreeSet<_> = (0..100).map(|_| watch_seconds(290)).collect();
        assert!(ends.len() > 20 && ends.iter().all(|end| (290..580).contains(end)), "{ends:?}");
    }
}
