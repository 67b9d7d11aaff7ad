//! Four requests to the kernel's rtnetlink (RFC 3549; linux/rtnetlink.h): make a veth pair, give an address, set a link
//! up, ask whether it works. Written out here because a netlink crate brings an async runtime for what fits a screen.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_IFNAME: u16 = 3;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// No duplicate address detection: the address is usable at once.
const IFA_F_NODAD: u8 = 2;
const IFF_UP: u32 = 1;
/// RFC 2863 `up`.
const IF_OPER_UP: u8 = 6;

/// A connection to the network namespace of the thread that opens it.
pub(super) struct Rtnetlink(OwnedFd);

impl Rtnetlink {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        Ok(Self(fd))
    }

    /// A veth pair: `name` here, `peer` in the namespace `elsewhere`.
    pub(super) fn add_veth(&self, name: &str, peer: &str, elsewhere: BorrowedFd<'_>) -> io::Result<()> {
        let mut there = link_header(0, 0, 0);
        attribute(&mut there, IFLA_IFNAME, &text(peer));
        attribute(&mut there, IFLA_NET_NS_FD, &elsewhere.as_raw_fd().to_ne_bytes());
        let mut data = Vec::new();
        attribute(&mut data, VETH_INFO_PEER, &there);
        let mut info = Vec::new();
        attribute(&mut info, IFLA_INFO_KIND, &text("veth"));
        attribute(&mut info, IFLA_INFO_DATA, &data);
        let mut body = link_header(0, 0, 0);
        attribute(&mut body, IFLA_IFNAME, &text(name));
        attribute(&mut body, IFLA_LINKINFO, &info);
        self.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body)
    }

    pub(super) fn set_up(&self, index: u32) -> io::Result<()> {
        self.request(RTM_NEWLINK, 0, &link_header(index, IFF_UP, IFF_UP))
    }

    pub(super) fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let (family, bytes) = match address {
            IpAddr::V4(address) => (AddressFamily::Inet, address.octets().to_vec()),
            IpAddr::V6(address) => (AddressFamily::Inet6, address.octets().to_vec()),
        };
        let family = u8::try_from(family as i32).expect("address families are small numbers");
        let mut body = vec![family, prefix, IFA_F_NODAD, 0];
        body.extend(index.to_ne_bytes());
        attribute(&mut body, IFA_LOCAL, &bytes);
        attribute(&mut body, IFA_ADDRESS, &bytes);
        self.request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body)
    }

    /// Whether the kernel has noticed that the link works, and has started its queue. (`IFF_RUNNING` says so too
    /// early: also of a state that isn't known yet.)
    pub(super) fn works(&self, index: u32) -> io::Result<bool> {
        let answer = self.exchange(RTM_GETLINK, 0, &link_header(index, 0, 0))?;
        let mut attributes = answer.get(32..).unwrap_or_default();
        while let Some(&[low, high, kind, _]) = attributes.get(..4).and_then(|head| head.first_chunk()) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            if u16::from(kind) == IFLA_OPERSTATE {
                return Ok(attributes.get(4) == Some(&IF_OPER_UP));
            }
            attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }

    /// Sends one request and waits for its acknowledgement.
    fn request(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let answer = self.exchange(kind, NLM_F_ACK | flags, body)?;
        match (kind_of(&answer), answer.get(16..20).and_then(|code| code.first_chunk())) {
            (Some(NLMSG_ERROR), Some([0, 0, 0, 0])) => Ok(()),
            (Some(NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-i32::from_ne_bytes(*code))),
            _ => Err(io::Error::other("rtnetlink gave an answer that is none")),
        }
    }

    fn exchange(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        let length = u32::try_from(16 + body.len()).map_err(io::Error::other)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend([0; 8]); // sequence and port: one request at a time needs neither
        message.extend(body);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.0.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
        let mut answer = vec![0; 16 * 1024];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        answer.truncate(length);
        Ok(answer)
    }
}

fn kind_of(message: &[u8]) -> Option<u16> {
    message.get(4..6)?.first_chunk().map(|kind| u16::from_ne_bytes(*kind))
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [0, index, flags, change].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A name as the kernel wants it: with a zero at its end.
fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// Appends an attribute, padded to four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("attributes here are short");
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}
