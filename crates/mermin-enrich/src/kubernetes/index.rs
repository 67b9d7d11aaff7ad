//! Who may have an address: what the directory writes and enrichment workers read, at the same time.
//!
//! Addresses are spread over shards by their hash. A shard is a short sorted list that is never changed: the one writer
//! puts another in its place. So a reader takes no lock and waits for nobody, and an update copies a few entries, not
//! the index. With 60 000 addresses most shards have one or none; one lies in the same piece of memory as the shard, for
//! what a lookup costs in a large cluster is the memory that it touches.

use crate::kubernetes::owner::Owner;
use crate::kubernetes::tenure::Tenure;
use arc_swap::ArcSwap;
use std::net::IpAddr;
use std::sync::Arc;

/// A power of two. As many as a large cluster has addresses: longer lists cost more than a shard's pointer.
const SHARDS: usize = 65_536;

/// What has an owner: an address, or a port of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    /// As IPv6; IPv4 is mapped.
    address: u128,
    /// Protocol and port; 0 stands for the whole address.
    port: u32,
}

impl Place {
    /// The whole address.
    pub(crate) fn address(address: IpAddr) -> Self {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        Self { address: address.to_bits(), port: 0 }
    }

    /// One port of an address.
    pub(crate) fn port(address: IpAddr, protocol: u8, port: u16) -> Self {
        Self { port: port_key(protocol, port), ..Self::address(address) }
    }

    /// One port of every node's addresses. In the index under an address that nothing can have.
    pub(crate) const fn node_port(protocol: u8, port: u16) -> Self {
        let port = port_key(protocol, port);
        // `::/96` belongs to nobody (RFC 4291, section 2.5.5.1); different ports, different shards.
        Self { address: port as u128, port }
    }

    /// Whether it is a whole address.
    pub(crate) const fn is_whole(self) -> bool {
        self.port == 0
    }

    /// Whether packets between hosts can carry the address: `::/96` holds the unspecified address and loopback.
    pub(crate) const fn is_routable(self) -> bool {
        self.address >> 32 != 0
    }

    fn shard(self) -> usize {
        let folded = (self.address as u64) ^ (self.address >> 64) as u64;
        let mixed = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) as usize % SHARDS
    }
}

const fn port_key(protocol: u8, port: u16) -> u32 {
    (protocol as u32) << 16 | port as u32
}

/// Tells tenures of one place apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TenureId(pub(crate) u64);

/// An owner's hold on a place.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) id: TenureId,
    pub(crate) tenure: Tenure,
    pub(crate) owner: Arc<Owner>,
}

/// The entries of a shard, in the order of their places.
enum Shard {
    One(Entry),
    Several(Box<[Entry]>),
}

impl Shard {
    fn entries(&self) -> &[Entry] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Several(entries) => entries,
        }
    }
}

impl From<Vec<Entry>> for Shard {
    fn from(mut entries: Vec<Entry>) -> Self {
        match (entries.len(), entries.pop()) {
            (1, Some(only)) => Self::One(only),
            (_, last) => {
                entries.extend(last);
                Self::Several(entries.into())
            }
        }
    }
}

/// All owners of all addresses.
pub(crate) struct Index {
    shards: Box<[ArcSwap<Shard>]>,
}

impl Default for Index {
    fn default() -> Self {
        // All shards share one list until they have something to say.
        let empty = Arc::new(Shard::from(Vec::new()));
        Self { shards: (0..SHARDS).map(|_| ArcSwap::new(Arc::clone(&empty))).collect() }
    }
}

impl Index {
    /// Calls `read` with the entries of an address, in the order of their ports, those of the whole address first.
    #[inline]
    pub(crate) fn read<T>(&self, address: Place, read: impl FnOnce(&[Entry]) -> T) -> T {
        let shard = self.shards[address.shard()].load();
        let entries = shard.entries();
        let start = entries.partition_point(|entry| entry.place.address < address.address);
        let rest = &entries[start..];
        let length = rest.iter().take_while(|entry| entry.place.address == address.address).count();
        read(&rest[..length])
    }

    /// Puts `entry` in, in place of one with its id.
    pub(crate) fn put(&self, entry: Entry) {
        let shard = &self.shards[entry.place.shard()];
        let mut entries = shard.load().entries().to_vec();
        entries.retain(|other| (other.place, other.id) != (entry.place, entry.id));
        let at = entries.partition_point(|other| (other.place, other.id) < (entry.place, entry.id));
        entries.insert(at, entry);
        shard.store(Arc::new(entries.into()));
    }

    /// Takes an entry out.
    pub(crate) fn remove(&self, place: Place, id: TenureId) {
        let shard = &self.shards[place.shard()];
        let old = shard.load();
        let rest = old.entries().iter().filter(|entry| (entry.place, entry.id) != (place, id));
        shard.store(Arc::new(rest.cloned().collect::<Vec<_>>().into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::owner::Role;
    use rustix::time::{ClockId, clock_gettime};
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    /// Time that this thread has had a processor for: what others do on the machine doesn't count.
    fn busy() -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    }

    fn entry(n: u32, id: u64) -> Entry {
        let tenure =
            Tenure { possible_from: 0, certain_from: 0, certain_until: u64::MAX, possible_until: u64::MAX };
        let place = Place::address(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)));
        Entry { place, id: TenureId(id), tenure, owner: Arc::new(Owner::new(Role::Pod)) }
    }

    #[test]
    fn entries_are_replaced_by_their_ids_and_ports_are_apart() {
        let index = Index::default();
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        index.put(entry(1, 1));
        index.put(entry(1, 1));
        index.put(entry(1, 2));
        index.put(Entry { place: Place::port(address, 6, 80), ..entry(1, 3) });
        let ids = |address| {
            index.read(address, |entries| entries.iter().map(|entry| entry.id.0).collect::<Vec<_>>())
        };
        assert_eq!(ids(Place::address(address)), [1, 2, 3]);
        index.remove(Place::address(address), TenureId(1));
        assert_eq!(ids(Place::address(address)), [2, 3]);
        index.put(Entry { place: Place::node_port(6, 30_080), ..entry(1, 4) });
        assert_eq!(ids(Place::node_port(6, 30_080)), [4]);
        assert!(!Place::address("::1".parse().unwrap()).is_routable());
        assert!(Place::address("0.0.0.1".parse().unwrap()).is_routable());
    }

    /// 50 000 pods and 10 000 services, looked up while a writer changes entries as fast as it can. Times are printed,
    /// not judged; that each lookup finds its entry is.
    #[test]
    fn lookups_go_on_while_all_changes() {
        const ADDRESSES: u32 = 60_000;
        const LOOKUPS: u32 = if cfg!(debug_assertions) { 200_000 } else { 5_000_000 };
        let index = Index::default();
        (0..ADDRESSES).for_each(|n| index.put(entry(n, 1)));
        let entry_place =
            |n: u32| Place::address(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n % ADDRESSES)));
        let look = |title: &str| {
            let (mut n, mut worst) = (1_u32, Duration::ZERO);
            let began = busy();
            for _ in 0..LOOKUPS / 100 {
                let batch = busy();
                for _ in 0..100 {
                    n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let place = entry_place(n >> 8);
                    let owner =
                        index.read(place, |entries| Arc::clone(&entries.first().expect("it is there").owner));
                    assert_eq!(owner.role, Role::Pod);
                }
                worst = worst.max(busy() - batch);
            }
            let each = (busy() - began) / LOOKUPS;
            println!("{title}: {each:?} a lookup, at worst {worst:?} for a hundred");
        };
        look("at rest");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut updates = 0_u32;
                let began = busy();
                while !over.load(Ordering::Relaxed) {
                    index.put(entry(updates % ADDRESSES, 1));
                    updates += 1;
                }
                (updates, busy() - began)
            });
            look("under updates");
            over.store(true, Ordering::Relaxed);
            let (updates, took) = writer.join().expect("it does not panic");
            assert!(updates > 0);
            println!("{updates} updates, {:?} each", took / updates);
        });
    }
}
