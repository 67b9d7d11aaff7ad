//! Names by longest prefix.
//!
//! Networks only nest, never overlap otherwise, so they cut the address space into ranges that each have one smallest
//! network. A lookup is a binary search over the ranges' first addresses: no pointers to follow, 4 or 16 bytes a
//! step. 10 000 networks make at most 20 001 ranges: 80 KiB for IPv4. Built once; a change of configuration builds
//! another.

use crate::config::Names;
use ipnet::IpNet;
use mermin_flow::{End, Enricher, FlowRecord};
use std::net::IpAddr;
use std::sync::Arc;

/// Gives both ends of a record the name of the smallest network that holds their address.
#[derive(Debug)]
pub struct NamesByNetwork {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl NamesByNetwork {
    /// From the configuration's names.
    #[must_use]
    pub fn new(names: &Names) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, name) in &names.0 {
            let name: Arc<str> = name.as_str().into();
            match network.0 {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits(), name)),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits(), name)),
            }
        }
        Self { v4: Ranges::new(v4), v6: Ranges::new(v6) }
    }

    /// The name of the smallest network that holds `address`.
    #[must_use]
    pub fn name(&self, address: IpAddr) -> Option<&Arc<str>> {
        match address {
            IpAddr::V4(address) => self.v4.name(address.to_bits()),
            IpAddr::V6(address) => self.v6.name(address.to_bits()),
        }
    }

    /// An end in no network keeps what it has.
    fn identify_both(&self, source: &mut End, destination: &mut End) {
        for end in [source, destination] {
            if let Some(name) = self.name(end.address) {
                end.identity.name = Some(Arc::clone(name));
            }
        }
    }
}

impl Enricher for NamesByNetwork {
    fn enrich(&self, record: &mut FlowRecord) {
        self.identify_both(&mut record.source, &mut record.destination);
    }
}

/// Addresses as numbers.
trait Bits: Copy + Ord {
    const ZERO: Self;
    /// The next address, where there is one.
    fn next(self) -> Option<Self>;
}

impl Bits for u32 {
    const ZERO: Self = 0;
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Bits for u128 {
    const ZERO: Self = 0;
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

/// The whole address space, cut where the smallest network changes.
#[derive(Debug)]
struct Ranges<A> {
    /// First address of each range, ascending; the first is 0.
    starts: Vec<A>,
    /// The name of each range.
    names: Vec<Option<Arc<str>>>,
}

impl<A: Bits> Ranges<A> {
    /// From networks as first address, last address, name.
    fn new(mut networks: Vec<(A, A, Arc<str>)>) -> Self {
        // A network comes before those inside it.
        networks.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        let mut ranges = Self { starts: vec![A::ZERO], names: vec![None] };
        let mut around: Vec<(A, Arc<str>)> = Vec::new();
        for (first, last, name) in networks {
            ranges.close(&mut around, Some(first));
            ranges.begin(first, Some(Arc::clone(&name)));
            around.push((last, name));
        }
        ranges.close(&mut around, None);
        ranges
    }

    /// Ends the networks that end before `until`, innermost first; what is around them goes on.
    fn close(&mut self, around: &mut Vec<(A, Arc<str>)>, until: Option<A>) {
        while let Some((last, _)) = around.last()
            && until.is_none_or(|until| *last < until)
        {
            let after = last.next();
            around.pop();
            if let Some(after) = after {
                self.begin(after, around.last().map(|(_, name)| Arc::clone(name)));
            }
        }
    }

    fn begin(&mut self, start: A, name: Option<Arc<str>>) {
        if self.starts.last() == Some(&start) {
            self.names.pop();
        } else {
            self.starts.push(start);
        }
        self.names.push(name);
    }

    #[inline]
    fn name(&self, address: A) -> Option<&Arc<str>> {
        let behind = self.starts.partition_point(|start| *start <= address);
        self.names.get(behind.checked_sub(1)?)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mermin_flow::Identity;
    use mermin_flow::Network;
    use proptest::prelude::*;

    fn table(names: &[(&str, &str)]) -> NamesByNetwork {
        let pairs = names.iter().map(|(network, name)| (network.parse().unwrap(), (*name).to_owned()));
        NamesByNetwork::new(&Names(pairs.collect()))
    }

    #[test]
    fn the_longest_prefix_wins() {
        let table = table(&[
            ("10.0.0.0/8", "office"),
            ("10.1.0.0/16", "lab"),
            ("10.1.2.3", "printer"),
            ("255.255.255.0/24", "top"),
            ("2001:db8::/32", "v6"),
            ("2001:db8::/48", "v6 lab"),
            ("ff00::/8", "multicast"),
        ]);
        for (address, name) in [
            ("9.255.255.255", None),
            ("10.0.0.0", Some("office")),
            ("10.0.255.255", Some("office")),
            ("10.1.0.0", Some("lab")),
            ("10.1.2.2", Some("lab")),
            ("10.1.2.3", Some("printer")),
            ("10.1.2.4", Some("lab")),
            ("10.1.255.255", Some("lab")),
            ("10.2.0.0", Some("office")),
            ("11.0.0.0", None),
            ("255.255.254.255", None),
            ("255.255.255.255", Some("top")),
            ("2001:db8::1", Some("v6 lab")),
            ("2001:db8:1::", Some("v6")),
            ("2001:db9::", None),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("multicast")),
            ("::ffff:10.0.0.1", None),
        ] {
            let found = table.name(address.parse().unwrap()).map(AsRef::as_ref);
            assert_eq!(found, name, "{address}");
        }
    }

    #[test]
    fn a_default_route_names_all() {
        let table = table(&[("0.0.0.0/0", "world"), ("128.0.0.0/1", "upper")]);
        assert_eq!(table.name("0.0.0.0".parse().unwrap()).map(AsRef::as_ref), Some("world"));
        assert_eq!(table.name("255.255.255.255".parse().unwrap()).map(AsRef::as_ref), Some("upper"));
        assert_eq!(table.name("::".parse().unwrap()), None);
    }

    #[test]
    fn both_ends_of_a_record_are_named() {
        let end = |address: &str| End {
            address: address.parse().unwrap(),
            port: None,
            mac: None,
            identity: Identity { name: Some("before".into()), ..Identity::default() },
        };
        let [mut source, mut destination, mut stranger] = ["10.0.0.1", "10.1.0.1", "192.0.2.1"].map(end);
        let table = table(&[("10.0.0.0/16", "a"), ("10.1.0.0/16", "b")]);
        table.identify_both(&mut source, &mut destination);
        table.identify_both(&mut stranger, &mut destination);
        let name = |end: End| end.identity.name.unwrap().to_string();
        assert_eq!([source, destination, stranger].map(name), ["a", "b", "before"]);
    }

    fn network() -> impl Strategy<Value = Network> {
        // Few high bits, so that networks nest and meet.
        (0_u32..16, 0_u32..4, 0_u8..=32).prop_map(|(high, low, len)| {
            let address = IpAddr::V4((high << 28 | low).into());
            Network(IpNet::new(address, len).unwrap().trunc())
        })
    }

    proptest! {
        #[test]
        fn as_a_search_through_all(networks in prop::collection::vec(network(), 0..20), probes in prop::collection::vec((0_u32..16, 0_u32..6), 1..20)) {
            let names = Names(networks.into_iter().map(|network| (network, network.0.to_string())).collect());
            let table = NamesByNetwork::new(&names);
            for (high, low) in probes {
                let address = IpAddr::V4((high << 28).wrapping_add(low).wrapping_sub(1).into());
                let longest = names.0.iter().filter(|(network, _)| network.0.contains(&address)).max_by_key(|(network, _)| network.0.prefix_len());
                prop_assert_eq!(table.name(address).map(AsRef::as_ref), longest.map(|(_, name)| name.as_str()));
            }
        }
    }
}
