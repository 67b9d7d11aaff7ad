//! Who sends: what outputs may say of the agent beside its records.

/// The agent. Of a replay nothing is known: its packets are of another host and time.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    /// As in flow ids.
    pub id: String,
    /// What disciplines its clock.
    pub clock: Option<fn() -> Option<ClockError>>,
}

/// What is known of a wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockError {
    /// Nanoseconds that it is believed to be off.
    pub offset: i64,
    /// Nanoseconds that it may be off at most.
    pub bound: u64,
}
