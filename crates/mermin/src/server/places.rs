//! Places for connections. Who asks from one address gets no more than half of them, so that nobody alone, by mistake or
//! on purpose, keeps the probes of an orchestrator out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections at once.
const ALL: usize = 32;
/// Of those, from one address.
const OF_ONE: usize = ALL / 2;

/// Who has how many.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<HashMap<IpAddr, usize>>);

/// A place, until it is let go of.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    whose: IpAddr,
}

impl Places {
    /// A place for a connection from `peer`, if there is one.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let whose = party(peer);
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(&whose).copied().unwrap_or_default();
        if all >= ALL || own >= OF_ONE {
            return None;
        }
        taken.insert(whose, own + 1);
        Some(Place { places: Arc::clone(self), whose })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.whose) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.remove(&self.whose)),
        }
    }
}

/// An IPv6 host has as many addresses as it likes in its /64.
fn party(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_gets_half_of_them() {
        let places = Arc::new(Places::default());
        let take = |peer: &str| places.take(peer.parse().unwrap());
        let mut first: Vec<_> = (0..OF_ONE).map(|host| take(&format!("fd00::{host:x}")).unwrap()).collect();
        assert!(take("fd00::ffff:1").is_none(), "the same /64");
        let second: Vec<_> = (0..OF_ONE).map(|_| take("::ffff:192.0.2.1").unwrap()).collect();
        assert!(take("192.0.2.1").is_none() && take("192.0.2.2").is_none());
        first.pop();
        let third = take("192.0.2.2");
        assert!(third.is_some() && take("fd00::1").is_none());
        drop((first, second, third));
        assert!(places.0.lock().unwrap().is_empty());
    }
}
