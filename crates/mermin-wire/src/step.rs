//! The walk over a frame: one step, the straight line, the whole.

use crate::bytes::Bytes;
use crate::headers::Headers;
use crate::link::{self, Link};
use crate::reason::Unmetered;
use crate::{ip, transport};

/// Steps that are taken at most: link, tags, IP, extension headers, options of a jumbogram, transport.
pub const STEPS: u32 = 24;

/// What to read next. The numbers cross a call between kernel programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Next {
    /// The headers are complete.
    Done = 0,
    /// Not metered; [`Headers::unmetered`] says why.
    Reject = 1,
    /// An Ethernet header.
    Ethernet = 2,
    /// An IP header whose version nobody has said.
    RawIp = 3,
    /// A cooked header, version 1.
    Sll = 4,
    /// A cooked header, version 2.
    Sll2 = 5,
    /// A BSD loopback header.
    BsdNull = 6,
    /// An OpenBSD loopback header.
    BsdLoop = 7,
    /// The rest of a VLAN tag.
    Vlan = 8,
    /// An IPv4 header.
    Ipv4 = 9,
    /// An IPv6 header.
    Ipv6 = 10,
    /// An extension header.
    Extension = 11,
    /// A hop-by-hop option.
    Options = 12,
    /// A fragment header.
    Fragment = 13,
    /// An authentication header.
    Authentication = 14,
    /// A transport header.
    Transport = 15,
}

impl Next {
    /// Numbers up to this one end the walk.
    pub const LAST_END: u32 = Self::Reject as u32;

    /// The step of a number; anything unknown is [`Next::Reject`].
    #[inline(always)]
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Done,
            2 => Self::Ethernet,
            3 => Self::RawIp,
            4 => Self::Sll,
            5 => Self::Sll2,
            6 => Self::BsdNull,
            7 => Self::BsdLoop,
            8 => Self::Vlan,
            9 => Self::Ipv4,
            10 => Self::Ipv6,
            11 => Self::Extension,
            12 => Self::Options,
            13 => Self::Fragment,
            14 => Self::Authentication,
            15 => Self::Transport,
            _ => Self::Reject,
        }
    }

    /// Whether the walk is over.
    #[inline(always)]
    #[must_use]
    pub const fn is_end(self) -> bool {
        self as u32 <= Self::LAST_END
    }
}

/// One step: no loop inside, the caller decides how often. After [`STEPS`] steps the frame is too deep.
#[inline(always)]
pub fn step<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers, next: Next) -> Next {
    if next.is_end() {
        return next;
    }
    if u32::from(h.steps) >= STEPS {
        return h.reject(Unmetered::TooDeep);
    }
    h.steps += 1;
    match next {
        Next::Done | Next::Reject => next,
        Next::Ethernet => link::ethernet(bytes, h),
        Next::RawIp => link::raw_ip(bytes, h),
        Next::Sll => link::sll(bytes, h),
        Next::Sll2 => link::sll2(bytes, h),
        Next::BsdNull => link::bsd_null(bytes, h),
        Next::BsdLoop => link::bsd_loop(bytes, h),
        Next::Vlan => link::vlan(bytes, h),
        Next::Ipv4 => ip::ipv4(bytes, h),
        Next::Ipv6 => ip::ipv6(bytes, h),
        Next::Extension => ip::extension(bytes, h),
        Next::Options => ip::option(bytes, h),
        Next::Fragment => ip::fragment(bytes, h),
        Next::Authentication => ip::authentication(bytes, h),
        Next::Transport => transport::transport(bytes, h),
    }
}

/// The common frames in a straight line: Ethernet with up to two tags, or bare IP, then TCP or UDP. Where the frame is
/// anything else, or a read went past the bytes at hand, the returned step says where to go on with [`step`].
#[inline(always)]
pub fn straight<B: Bytes + ?Sized>(bytes: &B, link: Link, h: &mut Headers) -> Next {
    let mut next = match link {
        Link::Ethernet => link::ethernet(bytes, h),
        Link::Ip => link::raw_ip(bytes, h),
        _ => return link.first(),
    };
    if cut(next, h) {
        return link.first();
    }
    h.steps = 1;
    if next == Next::Vlan {
        next = link::vlan(bytes, h);
        if cut(next, h) {
            return Next::Vlan;
        }
        h.steps = 2;
        if next == Next::Vlan {
            next = link::vlan(bytes, h);
            if cut(next, h) {
                return Next::Vlan;
            }
            h.steps = 3;
        }
    }
    let version = next;
    next = match version {
        Next::Ipv4 => ip::ipv4(bytes, h),
        Next::Ipv6 => ip::ipv6(bytes, h),
        other => return other,
    };
    if cut(next, h) {
        return version;
    }
    h.steps += 1;
    if next == Next::Transport && transport::common(bytes, h) {
        h.steps += 1;
        return Next::Done;
    }
    next
}

/// A step that changes nothing where a read went past the bytes at hand can be taken again: in the kernel only the
/// linear part of the packet is at hand here, and [`step`] gets more.
#[inline(always)]
fn cut(next: Next, h: &Headers) -> bool {
    next == Next::Reject && h.reason == Unmetered::Truncated as u8
}

/// The whole walk, for user space. `h` comes from [`Headers::new`]; afterwards it holds what the frame says, or as
/// much of it as came before the reason not to meter it.
///
/// # Errors
/// The reason why the frame is not metered.
#[inline]
pub fn parse(link: Link, bytes: &[u8], h: &mut Headers) -> Result<(), Unmetered> {
    let next = straight(bytes, link, h);
    walk(bytes, h, next)
}

/// The rest of the walk, from where [`straight`] has left it.
///
/// # Errors
/// As [`parse`].
pub fn walk(bytes: &[u8], h: &mut Headers, mut next: Next) -> Result<(), Unmetered> {
    while !next.is_end() {
        next = step(bytes, h, next);
    }
    if next == Next::Done { Ok(()) } else { Err(h.unmetered()) }
}
