//! What the log is told of a receiver's trouble: that it began and that it ended, once a minute, however often they change
//! places.

use std::time::{Duration, Instant};

/// Trouble that lasts is said again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    since: Option<Instant>,
    /// When the log was last told of one.
    said: Option<Instant>,
    /// Whether it was told of the present one.
    told: bool,
}

impl Trouble {
    /// There is some; whether to say so.
    pub(crate) fn begins(&mut self, now: Instant) -> bool {
        self.since.get_or_insert(now);
        let says = self.said.is_none_or(|said| now.duration_since(said) >= SAY_AGAIN);
        if says {
            (self.said, self.told) = (Some(now), true);
        }
        says
    }

    /// There is none; how long there was, if that is to be said.
    pub(crate) fn ends(&mut self, now: Instant) -> Option<Duration> {
        let since = self.since.take();
        since.filter(|_| std::mem::take(&mut self.told)).map(|since| now.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a receiver that comes and goes every second, for ten minutes.
    #[test]
    fn trouble_that_comes_and_goes_is_said_once_a_minute() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        let (mut begins, mut ends) = (Vec::new(), Vec::new());
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            begins.extend(trouble.begins(now).then_some(second));
            let after = trouble.ends(now + Duration::from_millis(500));
            assert!(after.is_none_or(|after| after == Duration::from_millis(500)));
            ends.extend(after.map(|_| second));
        }
        assert_eq!(begins, (0..10).map(|minute| minute * 60).collect::<Vec<_>>());
        assert_eq!(ends, begins, "what was said to begin is said to end");
        assert_eq!(trouble.ends(start), None);
    }

    #[test]
    fn trouble_that_lasts_is_said_again_and_ends_once() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let said: Vec<_> = (0..150).filter(|second| trouble.begins(at(*second))).collect();
        assert_eq!(said, [0, 60, 120]);
        assert_eq!(trouble.ends(at(150)), Some(Duration::from_secs(150)));
        assert_eq!(trouble.ends(at(151)), None);
    }
}
