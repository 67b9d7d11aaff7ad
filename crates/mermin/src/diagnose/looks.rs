//! Two looks at one agent, or one at the end of a run, and how to read figures out of them.
//!
//! Read leniently: an agent of another version may say less or more, and a figure that is not told is unknown, never 0.

use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Of the time between the questions, the agent must have been up for so much. The rest is for clocks that differ.
const SAME_CLOCK: f64 = 0.9;
/// Where counts only rise,
const BOOKS: [&str; 3] = ["/statistics/ledger", "/statistics/outputs", "/statistics/flows"];
/// but for these: what may become less within one run.
const STOCKS: [&str; 5] = ["in_flight", "resident", "queued", "spooled", "active"];

/// See the module's text. `first` is absent where a run as a whole is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looks<'a> {
    pub(super) first: Option<&'a Value>,
    pub(super) last: &'a Value,
}

impl<'a> Looks<'a> {
    pub(super) fn before(&self, pointer: &str) -> Option<&'a Value> {
        self.first.and_then(|first| first.pointer(pointer))
    }

    /// What a count has risen by; where it is told. `null` says that it could not be known at that moment.
    pub(super) fn rise(&self, pointer: &str) -> Option<u64> {
        let before = match self.before(pointer) {
            Some(before) => before.as_u64()?,
            None => 0,
        };
        Some(number(self.last, pointer)?.saturating_sub(before))
    }

    /// The same, where what isn't told is none.
    pub(super) fn count(&self, pointer: &str) -> u64 {
        self.rise(pointer).unwrap_or_default()
    }

    /// The same of a number of any kind.
    pub(super) fn span(&self, pointer: &str) -> Option<f64> {
        let before = self.before(pointer).and_then(Value::as_f64).unwrap_or_default();
        Some(self.last.pointer(pointer)?.as_f64()? - before)
    }

    /// By name, those that have risen.
    pub(super) fn counts(&self, pointer: &str, within: &str) -> BTreeMap<String, u64> {
        if self.before(pointer).is_some_and(Value::is_null) {
            return BTreeMap::new();
        }
        let counts = self
            .names(pointer)
            .map(|name| (name.clone(), self.count(&format!("{pointer}/{}{within}", escaped(name)))));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// The keys of the object there.
    pub(super) fn names(&self, pointer: &str) -> impl Iterator<Item = &'a String> + use<'a> {
        self.last.pointer(pointer).and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name)
    }

    /// Whether both are of one run of the agent: `waited` lies between the questions. A process in a container may have
    /// the number of the one before it.
    pub(super) fn are_of_one_run(&self, waited: Duration) -> bool {
        let Some(first) = self.first else { return true };
        let up = self.before("/uptime_seconds").and(self.span("/uptime_seconds"));
        let ran = self.before("/statistics/duration_seconds").and(self.span("/statistics/duration_seconds"));
        let least = SAME_CLOCK * waited.as_secs_f64();
        // Counts that were not read in one cut may contradict each other, and those of before.
        let cut = |look: &Value| look.pointer("/statistics/consistent") != Some(&Value::Bool(false));
        let fell = |book: &&str| {
            self.before(book).zip(self.last.pointer(book)).is_some_and(|(first, last)| fell(first, last))
        };
        first["pid"] == self.last["pid"]
            && up.is_none_or(|up| up >= least)
            && ran.is_none_or(|ran| ran >= 0.0)
            && !(cut(first) && cut(self.last) && BOOKS.iter().any(fell))
    }
}

/// Whether any count is less than before.
fn fell(first: &Value, last: &Value) -> bool {
    match (first, last) {
        (Value::Number(first), Value::Number(last)) => last.as_u64() < first.as_u64(),
        (Value::Object(first), Value::Object(last)) => {
            let counts = first.iter().filter(|(name, _)| !STOCKS.contains(&name.as_str()));
            counts
                .filter_map(|(name, first)| Some((first, last.get(name)?)))
                .any(|(first, last)| fell(first, last))
        }
        _ => false,
    }
}

pub(super) fn number(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer)?.as_u64()
}

pub(super) fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().map(str::to_owned)
}

/// A name as a part of a JSON pointer (RFC 6901).
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn look(up: f64, packets: u64) -> Value {
        json!({"pid": 7, "uptime_seconds": up, "statistics": {
            "duration_seconds": up,
            "consistent": true,
            "flows": {"active": 1_000 - packets, "created": packets},
            "ledger": {"seen": {"packets": packets, "bytes": null}, "in_flight": {"ring": {"packets": 1_000 - packets}}},
            "outputs": {"a": {"handed": {"records": packets}, "queued": {"records": 1_000 - packets}}},
        }})
    }

    fn one_run(first: &Value, last: &Value) -> bool {
        Looks { first: Some(first), last }.are_of_one_run(Duration::from_secs(10))
    }

    #[test]
    fn an_agent_that_was_started_anew_is_another_run() {
        let first = look(100.0, 50);
        assert!(one_run(&first, &look(110.1, 60)), "what waits may become less");
        assert!(one_run(&first, &look(110.1, 50)), "nothing came");
        let mut other = look(110.1, 60);
        other["pid"] = json!(8);
        assert!(!one_run(&first, &other));
        assert!(!one_run(&first, &look(9.0, 60)), "it has not been up for longer");
        assert!(
            !one_run(&look(2.0, 50), &look(7.0, 60)),
            "it has been up for longer, but not by ten seconds"
        );
        let mut shorter = look(110.1, 60);
        shorter["statistics"]["duration_seconds"] = json!(99.0);
        assert!(!one_run(&first, &shorter));
    }

    #[test]
    fn what_was_not_known_before_has_not_risen() {
        let look = |seen: Value, lost: Value| json!({"seen": seen, "lost": lost});
        let (first, last) =
            (look(Value::Null, Value::Null), look(json!(7), json!({"ring_full": {"packets": 5}})));
        let looks = Looks { first: Some(&first), last: &last };
        assert_eq!((looks.rise("/seen"), looks.counts("/lost", "/packets").len()), (None, 0));
        let looks = Looks { first: Some(&json!({})), last: &last };
        assert_eq!(
            (looks.rise("/seen"), looks.counts("/lost", "/packets").len()),
            (Some(7), 1),
            "it was none"
        );
    }

    #[test]
    fn a_count_that_fell_is_of_another_run() {
        let first = look(100.0, 50);
        for place in [
            "/statistics/flows/created",
            "/statistics/ledger/seen/packets",
            "/statistics/outputs/a/handed/records",
        ] {
            let mut last = look(110.0, 60);
            *last.pointer_mut(place).unwrap() = json!(49);
            assert!(!one_run(&first, &last), "{place}");
            last["statistics"]["consistent"] = json!(false);
            assert!(one_run(&first, &last), "a count that was read late proves nothing");
        }
        assert!(one_run(&json!({}), &json!({})), "what isn't told proves nothing");
    }
}
