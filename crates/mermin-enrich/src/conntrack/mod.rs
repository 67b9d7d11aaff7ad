//! The other tuple of a translated connection, from the kernel's connection tracking: one thread follows it, records ask.

mod config;
mod follow;
mod message;
mod shared;
mod socket;
mod status;
mod table;

pub use config::ConntrackConfig;
pub use status::{ConntrackReading, ConntrackStatus};

use crate::clock::Clock;
use crate::retention::retention;
use follow::{Follower, PATIENCE};
use mermin_flow::{CommunityId, Enricher, FlowConfig, FlowKey, FlowRecord, Nat, WallClock};
use nix::errno::Errno;
use shared::Shared;
use status::add;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};
use table::{Found, Table, Window};

/// Why connection tracking can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The kernel refuses.
    #[error("there is no right to ask the kernel's connection tracking (CAP_NET_ADMIN)")]
    NoRight,
    /// The kernel has none.
    #[error("the kernel has no connection tracking, or doesn't tell of it (module nf_conntrack_netlink)")]
    NoConntrack,
    /// Anything else.
    #[error("connection tracking can't be asked: {0}")]
    Other(#[from] io::Error),
}

impl ConntrackError {
    fn of(error: Errno) -> Self {
        match error {
            Errno::EPERM | Errno::EACCES => Self::NoRight,
            Errno::EPROTONOSUPPORT | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOENT => Self::NoConntrack,
            other => Self::Other(other.into()),
        }
    }
}

/// Whether this host's connection tracking can be asked: subscribes, and asks.
///
/// # Errors
/// Why it can't.
pub fn try_conntrack() -> Result<(), ConntrackError> {
    socket::attempt()
}

/// Says whether the kernel tells of connections that begin and end.
const EVENTS: &str = "/proc/sys/net/netfilter/nf_conntrack_events";

/// Adds the other tuple. The thread ends soon after this is dropped.
pub(crate) struct Conntrack {
    shared: Arc<Shared>,
    clock: Clock,
    seed: u16,
}

impl Conntrack {
    /// Looks at all connections there are, and follows them from here on. Records of flows with the timeouts of `flow` will
    /// ask, of times on the clock `live`.
    pub(crate) fn start(
        config: &ConntrackConfig,
        flow: &FlowConfig,
        live: &WallClock,
    ) -> Result<Self, ConntrackError> {
        let clock = Clock::of(Some(live));
        let random = RandomState::new().hash_one(0);
        let table = Table::new(config.connections_max.get(), random);
        let shared = Arc::new(Shared::new(table, retention(PATIENCE, flow)));
        let follower = Follower::start(clock, &shared)?;
        if fs::read_to_string(EVENTS).is_ok_and(|mode| mode.trim() == "0") {
            tracing::warn!(
                "The kernel doesn't tell of connections that begin (net.netfilter.nf_conntrack_events is 0): those that \
                 live for less than a minute are not known as translated"
            );
        }
        let followed = Arc::downgrade(&shared);
        thread::Builder::new().name("conntrack".to_owned()).spawn(move || follower.run(&followed))?;
        Ok(Self { shared, clock, seed: flow.community_id_seed })
    }

    /// Records of flows with these timeouts will ask, too.
    pub(crate) fn expect(&self, flow: &FlowConfig) {
        self.shared.remember(retention(PATIENCE, flow));
    }

    /// How it is.
    pub(crate) fn status(&self) -> &Arc<ConntrackStatus> {
        &self.shared.status
    }

    fn other_tuple(&self, record: &FlowRecord) -> Option<Nat> {
        let (source, destination) = (&record.source, &record.destination);
        let ends = [(source.address, source.port?), (destination.address, destination.port?)];
        if !message::has_ports(record.protocol) {
            return None;
        }
        // The packets that the record counts: what the tuple was earlier is a matter of earlier records. Of a first record
        // these are the flow's: packets that came late are of its connection, too, and it is not asked about earlier ones.
        let from = record.counts_from.max(record.start_time).min(record.end_time);
        let packets = Window { from, until: record.end_time };
        match self.shared.ask(|table| table.find(record.protocol, ends, packets)) {
            Found::Nothing => None,
            Found::Several => {
                add(&self.shared.status.ambiguous, 1);
                None
            }
            Found::One(other) => {
                add(&self.shared.status.translated, 1);
                let community_id = CommunityId::of(&FlowKey::between(record.protocol, other.ends), self.seed);
                let [source, destination] = other.ends;
                Some(Nat { stage: other.stage, source, destination, community_id })
            }
        }
    }
}

impl Enricher for Conntrack {
    fn enrich(&self, record: &mut FlowRecord) {
        record.nat = self.other_tuple(record).map(Box::new);
    }

    fn known_until(&self) -> u64 {
        self.shared.known_until(self.clock.now(), PATIENCE)
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}
