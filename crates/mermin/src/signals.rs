//! The first SIGINT or SIGTERM asks for an orderly end, the second ends the process at once.

use crate::exit::{Exit, Stop};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a signal has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked(Arc<AtomicBool>);

impl Asked {
    /// Listens from now on, for the rest of the process.
    pub(crate) fn listen() -> Result<Self, Stop> {
        let asked = Self::default();
        let listen = |signal| -> io::Result<()> {
            // In this order: the one that ends the process must not see the mark of its own signal.
            flag::register_conditional_shutdown(
                signal,
                Exit::Interrupted.code().into(),
                Arc::clone(&asked.0),
            )?;
            flag::register(signal, Arc::clone(&asked.0)).map(drop)
        };
        listen(SIGINT)
            .and_then(|()| listen(SIGTERM))
            .map_err(|error| Stop::new(Exit::Software, format!("can't listen for signals: {error}")))?;
        Ok(asked)
    }

    pub(crate) fn now(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
