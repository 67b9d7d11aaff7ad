//! What goes to standard output besides records: generated texts, all or an error.

use crate::config::lower;
use crate::exit::{Exit, Stop};
use std::io::{ErrorKind, Write};

/// Writes `text` and flushes. A reader that went away is no error.
pub(crate) fn print(out: &mut dyn Write, text: &str) -> Result<Exit, Stop> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Exit::Fine),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Fine),
        Err(error) => Err(Stop::new(Exit::Io, format!("can't write to standard output: {}", lower(&error)))),
    }
}
