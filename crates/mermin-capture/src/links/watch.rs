//! What the kernel says of links (RTNLGRP_LINK) and of filters that are taken off them (RTNLGRP_TC): as messages while it
//! goes on; a list of links when messages were lost.

use super::netlink::{self, Body, Message, Requests, attributes, half, messages, word};
use crate::interfaces::{Device, link_of_type};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_DELQDISC: u16 = 37;
const RTM_DELTFILTER: u16 = 45;
/// The bits of RTNLGRP_LINK and RTNLGRP_TC.
const GROUPS: u32 = 1 | 1 << 3;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
/// Within `IFLA_LINKINFO`.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BOND_SLAVE_STATE: u16 = 1;
const BOND_STATE_BACKUP: u8 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const AF_UNSPEC: u8 = 0;
/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;

/// Room for a thousand links that are made at once: some messages each, of a few kilobytes in the kernel's count.
pub(super) const RECEIVE_BYTES: usize = 16 << 20;

/// One thing that happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is there, as described.
    Is(Device),
    /// It has gone, or into another network namespace.
    Gone(u32),
    /// Filters were taken off it, anybody's.
    Unfiltered(u32),
}

impl Change {
    /// `None`: about something else. A bridge tells of its members in messages of its own family, and says "gone" of
    /// one that has left it.
    fn of(message: Message<'_>) -> Option<Self> {
        let body = message.body;
        if *body.first()? != AF_UNSPEC {
            return None;
        }
        let (kind, index, flags) = (half(body, 2)?, word(body, 4)?, word(body, 8)?);
        match message.kind {
            // `struct tcmsg` has the index at the same place.
            RTM_DELQDISC | RTM_DELTFILTER => Some(Self::Unfiltered(index)),
            RTM_DELLINK => Some(Self::Gone(index)),
            RTM_NEWLINK => {
                let body = body.get(LINK_HEADER..)?;
                let get =
                    |wanted: u16| attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
                let info = |wanted: u16| {
                    attributes(get(IFLA_LINKINFO)?).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
                };
                let named = |wanted: u16| info(wanted).map(netlink::text).unwrap_or_default();
                let name = get(IFLA_IFNAME)?;
                let own = named(IFLA_INFO_KIND);
                // Of a pair it is the other end; with a namespace it is a link of that one.
                let lies_on_it = own != "veth" && own != "netkit" && get(IFLA_LINK_NETNSID).is_none();
                let other = |wanted| get(wanted).and_then(|value| word(value, 0)).filter(|other| *other != 0);
                let port = named(IFLA_INFO_SLAVE_KIND);
                let state = info(IFLA_INFO_SLAVE_DATA).and_then(|data| {
                    attributes(data)
                        .find(|(kind, _)| *kind == IFLA_BOND_SLAVE_STATE)
                        .and_then(|(_, value)| value.first())
                });
                let is_backup = port == "bond" && state == Some(&BOND_STATE_BACKUP);
                Some(Self::Is(Device {
                    name: netlink::text(name).into(),
                    index,
                    link: link_of_type(kind),
                    up: flags & libc::IFF_UP as u32 != 0,
                    lower: other(IFLA_LINK).filter(|lower| lies_on_it && *lower != index),
                    upper: other(IFLA_MASTER),
                    is_bonded: (port == "bond" || port == "team") && !is_backup,
                    is_open_vswitch: own == "openvswitch",
                    is_loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
                }))
            }
            _ => None,
        }
    }
}

/// What a look at the socket gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// All that there was.
    All,
    /// Messages were lost: only a new list tells how things are.
    Lost,
}

/// What the kernel lists.
#[derive(Debug)]
pub(super) struct Listed {
    /// By index.
    pub(super) devices: Vec<Device>,
    /// It changed while it was read, and may lack some.
    pub(super) has_gaps: bool,
}

/// Hears of links in the network namespace of the thread that opens it.
pub(super) struct Watch {
    events: OwnedFd,
    requests: Requests,
    buffer: Vec<u8>,
}

impl Watch {
    /// Hears from now on. Messages for which `receive_bytes` have no room are lost.
    pub(super) fn open(receive_bytes: usize) -> io::Result<Self> {
        let events = netlink::open(GROUPS)?;
        // Beyond the host's limit only with CAP_NET_ADMIN; less room means an earlier list, no loss.
        if sockopt::set_socket_recv_buffer_size_force(&events, receive_bytes).is_err() {
            sockopt::set_socket_recv_buffer_size(&events, receive_bytes)?;
        }
        Ok(Self { events, requests: Requests::open()?, buffer: vec![0; netlink::DATAGRAM] })
    }

    /// Takes all messages that wait, in order. After a loss the rest is thrown away: it is older than the list that
    /// has to be asked for, and would undo parts of it.
    pub(super) fn hear(&mut self, mut take: impl FnMut(Change)) -> io::Result<Heard> {
        let mut heard = Heard::All;
        loop {
            match recv(&self.events, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, length)) if heard == Heard::All => {
                    let datagram = &self.buffer[..length.min(netlink::DATAGRAM)];
                    messages(datagram).filter_map(Change::of).for_each(&mut take);
                }
                Ok(_) => {}
                Err(Errno::NOBUFS) => heard = Heard::Lost,
                Err(Errno::AGAIN) => return Ok(heard),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// All links. Messages that come meanwhile wait.
    pub(super) fn list(&mut self) -> io::Result<Listed> {
        list_by(&mut self.requests)
    }

    /// One link as it is now; `None`: there is none of this index.
    pub(super) fn ask(&mut self, index: u32) -> io::Result<Option<Device>> {
        let mut header = [0; LINK_HEADER];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let body = Body::new(&header).number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let mut found = None;
        let asked = self.requests.ask(RTM_GETLINK, &body, |message| {
            if let Some(Change::Is(device)) = Change::of(message) {
                found = Some(device);
            }
        });
        match asked {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    /// Returns when a message waits or `wake` can be read, or after `at_most`.
    pub(super) fn wait(&self, wake: BorrowedFd<'_>, at_most: Duration) {
        let mut fds =
            [PollFd::new(&self.events, PollFlags::IN), PollFd::from_borrowed_fd(wake, PollFlags::IN)];
        let timeout = Timespec::try_from(at_most).ok();
        // A signal is a reason to look, too.
        let _ = poll(&mut fds, timeout.as_ref());
    }
}

/// All links of this thread's network namespace, by index.
pub(crate) fn list() -> io::Result<Vec<Device>> {
    list_by(&mut Requests::open()?).map(|listed| listed.devices)
}

fn list_by(requests: &mut Requests) -> io::Result<Listed> {
    const ATTEMPTS: u32 = 20;
    let body = Body::new(&[0; LINK_HEADER]).number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    let mut attempt = 1;
    loop {
        let mut devices = Vec::new();
        let whole = requests.dump(RTM_GETLINK, &body, |message| {
            if let Some(Change::Is(device)) = Change::of(message) {
                devices.push(device);
            }
        })?;
        // While links come and go without a pause each list may have gaps.
        if whole || attempt == ATTEMPTS {
            devices.sort_by_key(|device| device.index);
            return Ok(Listed { devices, has_gaps: !whole });
        }
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(family: u8, kind: u16, index: u32, flags: u32, name: &str) -> Vec<u8> {
        let mut body = vec![family, 0];
        body.extend(kind.to_ne_bytes());
        for word in [index, flags, 0] {
            body.extend(word.to_ne_bytes());
        }
        let length = (4 + name.len() + 1) as u16;
        body.extend(length.to_ne_bytes());
        body.extend(IFLA_IFNAME.to_ne_bytes());
        body.extend(name.as_bytes());
        body.resize((body.len() + 1).next_multiple_of(4), 0);
        body
    }

    #[test]
    fn a_member_that_leaves_its_bridge_has_not_gone() {
        const AF_BRIDGE: u8 = 7;
        let of = |kind, body: &[u8]| Change::of(messages(&datagram(kind, body)).next().unwrap());
        let veth = link(AF_UNSPEC, libc::ARPHRD_ETHER, 7, 1, "veth7");
        let Some(Change::Is(device)) = of(RTM_NEWLINK, &veth) else { panic!() };
        assert_eq!((&*device.name, device.index, device.up), ("veth7", 7, true));
        assert_eq!(of(RTM_DELLINK, &veth), Some(Change::Gone(7)));
        let member = link(AF_BRIDGE, libc::ARPHRD_ETHER, 7, 0, "veth7");
        assert_eq!((of(RTM_DELLINK, &member), of(RTM_NEWLINK, &member)), (None, None));
        let down = link(AF_UNSPEC, libc::ARPHRD_CAN, 9, 0, "can0");
        let Some(Change::Is(device)) = of(RTM_NEWLINK, &down) else { panic!() };
        assert_eq!((device.link, device.up), (None, false));
        assert_eq!(of(RTM_NEWLINK, &veth[..12]), None);
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn links_say_on_which_they_lie_and_of_which_they_are_ports() {
        let said = |kind: &str, port: &str, namespace: bool, state: u8| {
            let mut body = link(AF_UNSPEC, libc::ARPHRD_ETHER, 7, 1, "link7");
            body.extend(attribute(IFLA_LINK, &5_u32.to_ne_bytes()));
            let mut info = attribute(IFLA_INFO_KIND, kind.as_bytes());
            if !port.is_empty() {
                body.extend(attribute(IFLA_MASTER, &9_u32.to_ne_bytes()));
                info.extend(attribute(IFLA_INFO_SLAVE_KIND, port.as_bytes()));
                info.extend(attribute(IFLA_INFO_SLAVE_DATA, &attribute(IFLA_BOND_SLAVE_STATE, &[state])));
            }
            body.extend(attribute(IFLA_LINKINFO, &info));
            if namespace {
                body.extend(attribute(IFLA_LINK_NETNSID, &[0; 4]));
            }
            let datagram = datagram(RTM_NEWLINK, &body);
            let Some(Change::Is(device)) = Change::of(messages(&datagram).next().unwrap()) else { panic!() };
            (device.lower, device.upper, device.is_bonded)
        };
        assert_eq!(said("vlan", "", false, 0), (Some(5), None, false));
        assert_eq!(said("macvlan", "bridge", false, 0), (Some(5), Some(9), false));
        assert_eq!(said("dummy", "bond", true, 0), (None, Some(9), true));
        assert_eq!(said("dummy", "bond", true, BOND_STATE_BACKUP), (None, Some(9), false));
        assert_eq!(said("dummy", "team", true, 1), (None, Some(9), true));
        for pair in ["veth", "netkit"] {
            assert_eq!(said(pair, "bridge", false, 0), (None, Some(9), false));
        }
    }

    fn datagram(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn loopback_is_listed_and_can_be_asked_for() {
        let mut watch = Watch::open(RECEIVE_BYTES).unwrap();
        let listed = watch.list().unwrap().devices;
        let loopback = listed.iter().find(|device| &*device.name == "lo").unwrap();
        assert_eq!(watch.ask(loopback.index).unwrap().as_ref(), Some(loopback));
        assert_eq!(watch.ask(999_999).unwrap(), None);
    }
}
