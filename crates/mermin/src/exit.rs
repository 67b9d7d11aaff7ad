//! How a run ends: the exit codes, in one table, and failures as users see them.
//!
//! The codes are those of sysexits(3) where it has one for the case, so that scripts and service managers can tell a
//! mistake in the configuration from a full disk.

use crate::config::Problems;
use std::fmt;
use std::process::ExitCode;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Fine, also after the first SIGINT or SIGTERM, the end of `--duration`, or a closed standard output.
    Fine = 0,
    /// A mistake on the command line or in the configuration.
    Usage = 64,
    /// A capture is damaged.
    Data = 65,
    /// An input can't be opened.
    NoInput = 66,
    /// A service that the run needs can't be reached.
    Unavailable = 69,
    /// A bug in this program.
    Software = 70,
    /// An output failed.
    Io = 74,
    /// `shutdown_timeout` passed with records undelivered.
    TimedOut = 75,
    /// A permission is missing.
    NoPermission = 77,
    /// A second signal.
    Interrupted = 130,
}

impl Exit {
    /// All of them with what they mean, for help and manual page.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Fine, "fine, also after Ctrl-C and at the end of --duration"),
        (Self::Usage, "a mistake on the command line or in the configuration"),
        (Self::Data, "a capture is damaged (all before the damage was delivered)"),
        (Self::NoInput, "an input can't be opened"),
        (Self::Unavailable, "a service that the run needs can't be reached"),
        (Self::Software, "a bug in mermin"),
        (Self::Io, "an output failed, for example a full disk"),
        (Self::TimedOut, "pipeline.shutdown_timeout passed with records undelivered"),
        (Self::NoPermission, "a permission is missing"),
        (Self::Interrupted, "a second signal: ended at once, without summary"),
    ];

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// `other`, unless that is fine: what came to light later explains more.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        if other == Self::Fine { self } else { other }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a run could not start or did not end well, as printed: no chain of causes, but what to type.
#[derive(Debug)]
pub enum Stop {
    /// The configuration is wrong.
    Config(Problems),
    /// Anything else.
    Error {
        /// What happened, in a sentence without full stop.
        what: String,
        /// The option, file or key that it is about.
        place: Option<String>,
        /// What to type.
        help: Option<String>,
        /// How the run ends.
        exit: Exit,
    },
}

impl Stop {
    /// An error with an exit code.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self::Error { what: what.into(), place: None, help: None, exit }
    }

    /// With the option, file or key that it is about.
    #[must_use]
    pub fn at(mut self, text: impl Into<String>) -> Self {
        if let Self::Error { place, .. } = &mut self {
            *place = Some(text.into());
        }
        self
    }

    /// With what to type.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        if let Self::Error { help, .. } = &mut self {
            *help = Some(text.into());
        }
        self
    }

    /// How the run ends.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::Usage,
            Self::Error { exit, .. } => *exit,
        }
    }
}

impl From<Problems> for Stop {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => problems.fmt(f),
            Self::Error { what, place, help, .. } => {
                write!(f, "error: {what}")?;
                if let Some(place) = place {
                    write!(f, "\n  --> {place}")?;
                }
                match help {
                    Some(help) => write!(f, "\nhelp: {help}"),
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_published_ones() {
        let codes: Vec<_> = Exit::ALL.iter().map(|(exit, _)| exit.code()).collect();
        assert_eq!(codes, [0, 64, 65, 66, 69, 70, 74, 75, 77, 130]);
    }

    #[test]
    fn a_stop_reads_as_error_place_help() {
        let stop = Stop::new(Exit::NoInput, "no such file").at("a.pcap").help("name a capture");
        assert_eq!(stop.to_string(), "error: no such file\n  --> a.pcap\nhelp: name a capture");
        assert_eq!(stop.exit(), Exit::NoInput);
        assert_eq!(Stop::new(Exit::Io, "disk full").to_string(), "error: disk full");
    }
}
