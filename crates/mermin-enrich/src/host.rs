//! The addresses of this host's interfaces, as they are now.
//!
//! A thread listens to the kernel for addresses that come and go, and reads them all anew when some have: messages say
//! what changed, but some may be lost.

use arc_swap::ArcSwap;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of linux/rtnetlink.h.
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;
/// How often the thread looks whether it is still needed.
const LOOK: i64 = 1;
/// A pod's start changes several addresses at once; they are read together.
const TOGETHER: Duration = Duration::from_millis(50);

/// Sorted. Looked up by every record, changed rarely.
#[derive(Debug, Default)]
pub struct HostAddresses {
    sorted: ArcSwap<Vec<IpAddr>>,
}

impl HostAddresses {
    /// Those of now, followed from here on as long as somebody has them.
    ///
    /// # Errors
    /// Where the kernel tells no addresses, or no thread can be started.
    pub fn follow() -> io::Result<Arc<Self>> {
        // First the subscription, then the first look: nothing falls between.
        let messages = subscribe()?;
        let addresses = Arc::new(Self::default());
        addresses.read()?;
        let followed = Arc::downgrade(&addresses);
        thread::Builder::new()
            .name("host-addresses".to_owned())
            .spawn(move || listen(&messages, &followed))?;
        Ok(addresses)
    }

    /// These and no others.
    #[must_use]
    pub fn fixed(addresses: impl IntoIterator<Item = IpAddr>) -> Arc<Self> {
        let host = Self::default();
        host.set(addresses.into_iter().collect());
        Arc::new(host)
    }

    /// Whether `address` is one of them.
    #[inline]
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.sorted.load().binary_search(&address).is_ok()
    }

    fn set(&self, mut addresses: Vec<IpAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        if **self.sorted.load() != addresses {
            self.sorted.store(Arc::new(addresses));
        }
    }

    fn read(&self) -> io::Result<()> {
        let addresses = getifaddrs()?.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        });
        self.set(addresses.collect());
        Ok(())
    }
}

fn subscribe() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let messages = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    setsockopt(&messages, ReceiveTimeout, &TimeVal::seconds(LOOK))?;
    bind(messages.as_raw_fd(), &NetlinkAddr::new(0, ADDRESS_GROUPS))?;
    Ok(messages)
}

fn listen(messages: &OwnedFd, followed: &Weak<HostAddresses>) {
    let mut message = [0; 8_192];
    loop {
        let came = recv(messages.as_raw_fd(), &mut message, MsgFlags::empty());
        let Some(addresses) = followed.upgrade() else { return };
        match came {
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            // Messages that were lost may have told of a change.
            Ok(_) | Err(Errno::ENOBUFS) => {
                thread::sleep(TOGETHER);
                while recv(messages.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT).is_ok() {}
            }
            Err(error) => {
                tracing::warn!("Can't follow this host's addresses any more: {error}");
                return;
            }
        }
        if let Err(error) = addresses.read() {
            tracing::warn!("Can't read this host's addresses: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_itself() {
        let host = HostAddresses::follow().unwrap();
        assert!(host.has("127.0.0.1".parse().unwrap()));
        assert!(!host.has("192.0.2.77".parse().unwrap()));
    }

    #[test]
    fn given_addresses_are_found_in_any_order() {
        let all = ["10.0.0.9", "10.0.0.1", "2001:db8::1", "10.0.0.9"].map(|text| text.parse().unwrap());
        let host = HostAddresses::fixed(all);
        assert!(all.iter().all(|address| host.has(*address)));
        assert!(!host.has("10.0.0.2".parse().unwrap()));
    }
}
