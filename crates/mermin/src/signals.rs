//! The first SIGINT or SIGTERM asks for an orderly end, the second ends the process at once.
//!
//! A thread waits for them, so that nothing else has to ask in time. What comes right behind the first is its echo:
//! `timeout` signals its child and then the child's process group.

use crate::exit::{Exit, Stop};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Nobody means two things by signals that are this near each other.
const ECHO: Duration = Duration::from_millis(250);

/// Whether a signal has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked(Arc<AtomicBool>);

impl Asked {
    /// Listens from now on, for the rest of the process.
    pub(crate) fn listen() -> Result<Self, Stop> {
        let failed = |error| Stop::new(Exit::Software, format!("can't listen for signals: {error}"));
        let asked = Self::default();
        let (signals, mark) = (Signals::new([SIGINT, SIGTERM]).map_err(failed)?, asked.clone());
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || mark.wait(signals))
            .map_err(failed)?;
        Ok(asked)
    }

    fn wait(self, mut signals: Signals) {
        let mut first = None;
        for _ in signals.forever() {
            match first {
                None => {
                    first = Some(Instant::now());
                    self.ask();
                }
                Some(at) if at.elapsed() < ECHO => {}
                Some(_) => low_level::exit(Exit::Interrupted.code().into()),
            }
        }
    }

    /// Asks for an orderly end, as the first signal does.
    pub(crate) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
