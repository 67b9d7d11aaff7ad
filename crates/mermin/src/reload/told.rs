//! What came of reading the configuration again: for log, status and metrics.

use crate::config::{Config, Difference, Origin, Problem, flow_style};
use crate::exit::Stop;
use serde_json::{Value, json};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What could be changed was.
    Applied,
    /// Nothing that is in use has changed.
    Unchanged,
    /// All that has changed counts from the next start on.
    AtRestart,
    /// Something is wrong with it: nothing was changed.
    Refused,
}

impl Verdict {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Applied, Self::Unchanged, Self::AtRestart, Self::Refused];

    /// The name in status and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::AtRestart => "at_restart",
            Self::Refused => "refused",
        }
    }
}

/// One reload.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) verdict: Verdict,
    pub(crate) at: SystemTime,
    /// Keys with their old and new values, as texts.
    pub(crate) applied: Vec<String>,
    pub(crate) at_restart: Vec<String>,
    /// Keys that say where records go, where `-o` says it.
    pub(crate) unheeded: Vec<String>,
    /// Why nothing was changed, each as users read it.
    pub(crate) problems: Vec<String>,
    /// Whether that is the configuration's fault; else a file, a receiver's name or the system is why.
    pub(crate) is_wrong: bool,
}

impl Told {
    /// What the log says, and `mermin reload`; without problems, which take a line each.
    pub(crate) fn sentence(&self) -> String {
        let at_restart = match self.at_restart.as_slice() {
            [] => String::new(),
            keys => format!("; a restart is needed for {}", keys.join(", ")),
        };
        let unheeded = match self.unheeded.as_slice() {
            [] => String::new(),
            keys => format!("; without effect beside -o: {}", keys.join(", ")),
        };
        match self.verdict {
            Verdict::Applied => format!("Reloaded: {}{at_restart}{unheeded}", self.applied.join(", ")),
            Verdict::Unchanged => format!("Reloaded: nothing has changed{unheeded}"),
            Verdict::AtRestart => format!("Reloaded: nothing is changed{at_restart}{unheeded}"),
            Verdict::Refused if !self.is_wrong => "Not reloaded: nothing was changed".to_owned(),
            Verdict::Refused => {
                "Not reloaded: the configuration is wrong, and nothing was changed".to_owned()
            }
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "result": self.verdict.name(),
            "time": seconds(self.at),
            "applied": self.applied,
            "at_restart": self.at_restart,
            "without_effect": self.unheeded,
            "problems": self.problems,
            "wrong": self.is_wrong,
            "sentence": self.sentence(),
        })
    }
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// `flow.idle_timeout (30s → 10s)`. Where secrets may be, and where there is much to say, the key alone.
pub(super) fn told(difference: &Difference) -> String {
    let Difference { key, before, after } = difference;
    let short = |value: &Value| matches!(value, Value::Bool(_) | Value::Number(_) | Value::String(_));
    if is_private(key) || !short(before) || !short(after) {
        return key.clone();
    }
    format!("{key} ({} → {})", flow_style(before), flow_style(after))
}

/// A problem for who asks the agent. A value that was not understood may be a secret in the wrong place: where there may be
/// one, only the agent's log says what it is.
pub(super) fn without_secrets(stop: &Stop) -> Vec<String> {
    let one = |problem: &Problem| {
        if !is_private(&problem.path) {
            return problem.to_string();
        }
        let [what, help] = [HIDDEN.0, HIDDEN.1].map(str::to_owned);
        // That of a `--set` is the value.
        let origin = problem.origin.clone().filter(|origin| !matches!(origin, Origin::Set(_)));
        Problem { what, origin, help, path: problem.path.clone() }.to_string()
    };
    match stop {
        Stop::Config(problems) => problems.0.iter().map(one).collect(),
        Stop::Error { place: Some(place), exit, .. } if is_private(place) => {
            vec![Stop::new(*exit, HIDDEN.0).at(place).help(HIDDEN.1).to_string()]
        }
        Stop::Error { .. } => vec![stop.to_string()],
    }
}

/// Instead of a problem that may quote a secret.
const HIDDEN: (&str, &str) =
    ("something is wrong here", "the agent's log says what, and `mermin check` with the same options");

/// Whether there may be secrets in this section.
fn is_private(key: &str) -> bool {
    ["export", "server"].contains(&key.split('.').next().unwrap_or_default())
}

/// All reloads of a run, and what it goes by now.
pub(crate) struct Reloads(Mutex<State>);

struct State {
    running: Config,
    counts: [u64; Verdict::ALL.len()],
    last: Option<Told>,
    /// When what was read last was right, and how many keys of it wait for a restart.
    fine_since: SystemTime,
    at_restart: usize,
}

impl Reloads {
    /// Of a run that has begun with this configuration.
    pub(crate) fn new(config: Config) -> Self {
        let fine_since = SystemTime::now();
        Self(Mutex::new(State {
            running: config,
            counts: [0; Verdict::ALL.len()],
            last: None,
            fine_since,
            at_restart: 0,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the run goes by.
    pub(crate) fn running(&self) -> Config {
        self.lock().running.clone()
    }

    /// Notes what came of one.
    pub(super) fn note(&self, told: Told, running: Option<Config>) {
        let mut state = self.lock();
        state.counts[told.verdict as usize] += 1;
        if told.verdict != Verdict::Refused {
            (state.fine_since, state.at_restart) = (told.at, told.at_restart.len());
        }
        if let Some(running) = running {
            state.running = running;
        }
        state.last = Some(told);
    }

    /// How many there were of each kind.
    pub(crate) fn counts(&self) -> [(Verdict, u64); Verdict::ALL.len()] {
        let counts = self.lock().counts;
        Verdict::ALL.map(|verdict| (verdict, counts[verdict as usize]))
    }

    pub(crate) fn last(&self) -> Option<Told> {
        self.lock().last.clone()
    }

    /// Since when the configuration has been read and found right, as seconds since 1970.
    pub(crate) fn fine_since(&self) -> f64 {
        seconds(self.lock().fine_since)
    }

    /// Keys that wait for a restart.
    pub(crate) fn at_restart(&self) -> usize {
        self.lock().at_restart
    }

    /// How long ago the last one was.
    pub(crate) fn age(&self) -> Option<Duration> {
        let at = self.lock().last.as_ref()?.at;
        Some(at.elapsed().unwrap_or_default())
    }

    pub(crate) fn to_json(&self) -> Value {
        let counts: serde_json::Map<_, _> =
            self.counts().iter().map(|(verdict, count)| (verdict.name().to_owned(), json!(count))).collect();
        json!({
            "number": self.counts().iter().map(|(_, count)| count).sum::<u64>(),
            "results": counts,
            "fine_since": self.fine_since(),
            "last": self.last().as_ref().map(Told::to_json),
        })
    }
}
