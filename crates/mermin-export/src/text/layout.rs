//! Columns and colours: which fit, how they are padded, the header.

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// With colours.
    pub color: bool,
    /// With a header now and then, as on a terminal.
    pub header: bool,
    /// Width to fit in; `None` where lines may be of any length.
    pub columns: Option<usize>,
}

impl Style {
    /// For files and pipes.
    pub const PLAIN: Self = Self { color: false, header: false, columns: None };
}

pub(super) const PACKETS: usize = 5;
pub(super) const BYTES: usize = 6;
pub(super) const DURATION: usize = 7;
pub(super) const STATE: usize = 12;
pub(super) const FLAGS: usize = 9;

/// The columns that a line has besides time, event, protocol, counts and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// Time with milliseconds, event with the word `end`.
    pub(super) millis: bool,
    pub(super) event: usize,
    pub(super) protocol: usize,
    pub(super) duration: bool,
    pub(super) state: bool,
    pub(super) flags: bool,
}

impl Columns {
    /// Two IPv4 ends with five-digit ports take 36 to 45 columns; the rest is for the others.
    pub(super) fn fitting(width: Option<usize>) -> Self {
        let at_least = |columns| width.is_none_or(|width| width >= columns);
        let roomy = at_least(108);
        Self {
            millis: roomy,
            event: if roomy { 10 } else { 6 },
            protocol: if roomy { 9 } else { 5 },
            duration: roomy,
            state: at_least(120),
            flags: at_least(132),
        }
    }

    /// The header: the date in the place of the time, `Z` says that times are UTC.
    pub(super) fn push_header(self, day: &[u8; 10], color: bool, out: &mut Vec<u8>) {
        Paint::Dim.on(color, out, |out| {
            if self.millis {
                left(out, 12, |out| {
                    out.extend_from_slice(day);
                    out.push(b'Z');
                });
            } else {
                left(out, 8, |out| {
                    out.extend_from_slice(&day[5..]);
                    out.push(b'Z');
                });
            }
            left(out, self.event, |out| out.extend_from_slice(b"EVENT"));
            left(out, self.protocol, |out| out.extend_from_slice(b"PROTO"));
            // Arrows are three bytes and one column: these cells bring their own width.
            out.extend_from_slice("PKTS→ ←PKTS BYTES→ ←BYTES ".as_bytes());
            if self.duration {
                right(out, DURATION, |out| out.extend_from_slice(b"TIME"));
            }
            if self.state {
                left(out, STATE, |out| out.extend_from_slice(b"STATE"));
            }
            if self.flags {
                left(out, FLAGS, |out| out.extend_from_slice(b"FLAGS"));
            }
            out.extend_from_slice("SOURCE → DESTINATION".as_bytes());
        });
        out.push(b'\n');
    }
}

/// A cell that begins at its left border; one that is too long pushes the rest on.
pub(super) fn left(out: &mut Vec<u8>, width: usize, cell: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    cell(out);
    let len = (out.len() - start).max(width);
    out.resize(start + len + 1, b' ');
}

/// A cell that ends at its right border.
pub(super) fn right(out: &mut Vec<u8>, width: usize, cell: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    cell(out);
    let missing = width.saturating_sub(out.len() - start);
    out.resize(out.len() + missing, b' ');
    out[start..].rotate_right(missing);
    out.push(b' ');
}

/// A colour of the terminal's own palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Dim,
    Green,
    Cyan,
    Yellow,
    Red,
}

impl Paint {
    pub(super) fn on(self, color: bool, out: &mut Vec<u8>, text: impl FnOnce(&mut Vec<u8>)) {
        let code: &[u8] = match self {
            _ if !color => b"",
            Self::Plain => b"",
            Self::Dim => b"\x1b[2m",
            Self::Green => b"\x1b[32m",
            Self::Cyan => b"\x1b[36m",
            Self::Yellow => b"\x1b[33m",
            Self::Red => b"\x1b[31m",
        };
        out.extend_from_slice(code);
        text(out);
        if !code.is_empty() {
            out.extend_from_slice(b"\x1b[0m");
        }
    }
}
