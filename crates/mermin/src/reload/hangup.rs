//! What SIGHUP means to a live run: read the configuration again, unless it says that the terminal has gone.
//!
//! A run that was started in a terminal ends, in order, with it, as other programs do; under `nohup` it goes on. Whether
//! the terminal has gone is asked of the kernel: then the process has none any more. Whoever wants a reload may send the
//! signal from the start on: it is kept until the run can do it, and several become one.

use crate::exit::{Exit, Stop};
use crate::signals::Asked;
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;
use std::fs;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

/// Where the shell of a terminal ends, the kernel signals its children a moment before it takes the terminal from them.
const MOMENT: Duration = Duration::from_millis(50);

/// What wakes who reads the configuration again.
pub(crate) struct Hangups {
    /// Something has come.
    pub(super) woken: Receiver<()>,
    pub(super) waker: Waker,
    /// The terminal has gone, and the run is to go with it.
    pub(crate) end: Asked,
}

/// Wakes who reads the configuration again.
#[derive(Clone)]
pub(super) struct Waker(SyncSender<()>);

impl Waker {
    /// One word that was not taken yet stands for all.
    pub(super) fn wake(&self) {
        if let Err(TrySendError::Disconnected(())) = self.0.try_send(()) {
            tracing::debug!("nobody reads the configuration again: the run has ended");
        }
    }
}

impl Hangups {
    /// Listens from now on, for the rest of the process.
    pub(crate) fn listen() -> Result<Self, Stop> {
        let failed = |error| Stop::new(Exit::Software, format!("can't listen for signals: {error}"));
        // Before the handler takes the place of what `nohup` has set.
        let terminal = Terminal { had: has_terminal(), stays: is_in_mask("self", "SigIgn") };
        let signals = Signals::new([SIGHUP]).map_err(failed)?;
        let (sender, woken) = sync_channel(1);
        let (waker, end) = (Waker(sender), Asked::default());
        let (wakes, ends) = (waker.clone(), end.clone());
        thread::Builder::new()
            .name("hangups".to_owned())
            .spawn(move || terminal.wait(signals, &wakes, &ends))
            .map_err(failed)?;
        Ok(Self { woken, waker, end })
    }
}

struct Terminal {
    had: bool,
    /// The run outlasts it.
    stays: bool,
}

impl Terminal {
    fn wait(&self, mut signals: Signals, waker: &Waker, end: &Asked) {
        for _ in signals.forever() {
            if self.has_gone() {
                if !self.stays {
                    end.ask();
                }
            } else {
                waker.wake();
            }
        }
    }

    fn has_gone(&self) -> bool {
        if !self.had {
            return false;
        }
        thread::sleep(MOMENT);
        !has_terminal()
    }
}

/// Whether this process has a controlling terminal: tty(4).
fn has_terminal() -> bool {
    fs::File::open("/dev/tty").is_ok()
}

/// Whether a process ignores SIGHUP (`SigIgn`), or handles it (`SigCgt`): proc(5), which can be read of any user's.
pub(super) fn is_in_mask(process: &str, mask: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix(mask)?.strip_prefix(':'));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (SIGHUP - 1) & 1 == 1
}
