//! Links made and unmade without a process for each: veth pairs by the hundred, and the kernel's counters of them.
//!
//! rtnetlink (RFC 3549; linux/rtnetlink.h), as far as that needs it; it acts in the network namespace of the thread that
//! opens it.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWNEIGH: u16 = 28;
const NLMSG_ERROR: u16 = 2;
const REQUEST_AND_ACK: u16 = 5;
const CREATE: u16 = 0x600;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_NET_NS_FD: u16 = 28;
const IFF_UP: u32 = 1;
const NUD_PERMANENT: u16 = 0x80;

/// A connection to one network namespace.
#[derive(Debug)]
pub struct Rtnetlink(OwnedFd);

/// Appends an attribute, padded to four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("attributes here are short");
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32) -> Vec<u8> {
    [0, index, flags, flags].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn named(name: &str) -> Vec<u8> {
    let mut body = link(0, 0);
    attribute(&mut body, IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
    body
}

impl Rtnetlink {
    /// To the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(fd))
    }

    /// A veth pair, down: `name` here, `peer` in the namespace of `there`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_veth(&self, name: &str, peer: &str, there: impl AsFd) -> io::Result<()> {
        let mut far = named(peer);
        attribute(&mut far, IFLA_NET_NS_FD, &there.as_fd().as_raw_fd().to_ne_bytes());
        let (mut data, mut info, mut body) = (Vec::new(), Vec::new(), named(name));
        attribute(&mut data, 1, &far);
        attribute(&mut info, 1, b"veth\0");
        attribute(&mut info, 2, &data);
        attribute(&mut body, IFLA_LINKINFO, &info);
        self.request(RTM_NEWLINK, CREATE, &body).map(|_| ())
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_up(&self, index: u32) -> io::Result<()> {
        self.request(RTM_NEWLINK, 0, &link(index, IFF_UP)).map(|_| ())
    }

    /// Removes a link.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self, index: u32) -> io::Result<()> {
        self.request(RTM_DELLINK, 0, &link(index, 0)).map(|_| ())
    }

    /// The index of a link, how many frames it has received, and their bytes.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Panics
    /// When the kernel's answer is none.
    pub fn received(&self, name: &str) -> io::Result<(u32, [u64; 2])> {
        let answer = self.request(RTM_GETLINK, 0, &named(name))?;
        let index = u32::from_ne_bytes(*answer[4..].first_chunk().expect("a link has an index"));
        let mut rest = &answer[16..];
        while let Some(&[low, high, kind, more]) = rest.first_chunk() {
            let length = usize::from(u16::from_ne_bytes([low, high])).max(4);
            if u16::from_ne_bytes([kind, more]) == IFLA_STATS64 {
                let counter = |at: usize| {
                    let bytes = rest[4 + 8 * at..].first_chunk().expect("the kernel tells two dozen");
                    u64::from_ne_bytes(*bytes)
                };
                return Ok((index, [counter(0), counter(2)]));
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        panic!("{name} has no counters")
    }

    /// Gives a link an address of a network of two, and tells where the other one lives.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_address(&self, index: u32, own: Ipv4Addr, other: Ipv4Addr) -> io::Result<()> {
        const INET: u8 = 2;
        let mut body = vec![INET, 31, 0, 0];
        body.extend(index.to_ne_bytes());
        attribute(&mut body, 1, &own.octets());
        attribute(&mut body, 2, &own.octets());
        self.request(RTM_NEWADDR, CREATE, &body)?;
        // `struct ndmsg`.
        let mut body = vec![INET, 0, 0, 0];
        body.extend(index.to_ne_bytes());
        body.extend(NUD_PERMANENT.to_ne_bytes());
        body.extend([0, 0]);
        attribute(&mut body, 1, &other.octets());
        attribute(&mut body, 2, &[2, 0, 0, 0, 0, 9]);
        self.request(RTM_NEWNEIGH, CREATE, &body).map(|_| ())
    }

    /// Sends one request; the body of the answer, or nothing.
    fn request(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut message = u32::try_from(16 + body.len()).map_err(io::Error::other)?.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST_AND_ACK | flags).to_ne_bytes());
        message.extend([0; 8]); // sequence and port: one request at a time needs neither
        message.extend(body);
        send(&self.0, &message, SendFlags::empty())?;
        let (mut answer, mut buffer) = (Vec::new(), vec![0; 32 << 10]);
        loop {
            let (_, length) = recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let datagram = &buffer[..length];
            if datagram.get(4..6) != Some(&NLMSG_ERROR.to_ne_bytes()) {
                answer = datagram[16..].to_vec();
                continue;
            }
            let code = datagram[16..].first_chunk().map_or(-1, |code| i32::from_ne_bytes(*code));
            return if code == 0 { Ok(answer) } else { Err(io::Error::from_raw_os_error(-code)) };
        }
    }
}
