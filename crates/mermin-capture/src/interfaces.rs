//! Network interfaces as sources see them: which there are, and which a run captures on.
//!
//! They are those of the calling thread's network namespace; /sys would show those of the namespace that it was mounted
//! in.

use glob::Pattern;
use mermin_wire::Link;
use std::io;
use std::sync::Arc;

/// `ARPHRD_RAWIP` (Linux 4.14): mobile data links.
const ARPHRD_RAWIP: u16 = 519;
/// `ARPHRD_IP6GRE` (Linux 3.7).
const ARPHRD_IP6GRE: u16 = 823;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: Arc<str>,
    /// The kernel's index.
    pub index: u32,
    /// What its frames start with: Ethernet or bare IP.
    pub link: Link,
    /// Whether it is up.
    pub up: bool,
}

/// A network interface of the host, whether or not its frames can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: Arc<str>,
    /// The kernel's index.
    pub index: u32,
    /// What its frames start with; `None`: something that has no parser (802.11 monitor, InfiniBand, CAN …).
    pub link: Option<Link>,
    /// Whether it is up.
    pub up: bool,
    /// Index of the link of this namespace that it lies on: a VLAN's, a macvlan's.
    pub lower: Option<u32>,
    /// Index of the link that it is a port of: a bridge, a bond.
    pub upper: Option<u32>,
    /// Whether that is a bond or a team, and this port is in use.
    pub is_bonded: bool,
    /// Whether it is of Open vSwitch, whose internal ports lie on all others.
    pub is_open_vswitch: bool,
    /// Whether it is the loopback device.
    pub is_loopback: bool,
}

/// Why no interfaces can be chosen.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// The system does not tell its interfaces.
    #[error("the network interfaces can't be listed")]
    List(#[from] io::Error),
    /// A pattern that isn't one.
    #[error("`{pattern}` is not a pattern of interface names: {reason}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A pattern that fits none.
    #[error("no interface fits `{pattern}`; {}", there_are(.available, .other))]
    NoMatch {
        /// As given.
        pattern: String,
        /// Names of interfaces that could be captured on.
        available: Vec<Arc<str>>,
        /// Names of others: down, or of a kind that can't be read.
        other: Vec<Arc<str>>,
    },
    /// All that fit are excluded, or there are none.
    #[error("no interface is left to capture on; {}", there_are(.available, .other))]
    NoneLeft {
        /// Names of interfaces that could be captured on.
        available: Vec<Arc<str>>,
        /// Names of others: down, or of a kind that can't be read.
        other: Vec<Arc<str>>,
    },
}

fn there_are(available: &[Arc<str>], other: &[Arc<str>]) -> String {
    let mut text = if available.is_empty() {
        "there are none that are up".to_owned()
    } else {
        format!("there are {}", available.join(", "))
    };
    if !other.is_empty() {
        text += &format!(" (down or of a kind that can't be read: {})", other.join(", "));
    }
    text
}

/// The interfaces of this network namespace, by index.
///
/// # Errors
/// The system's.
pub fn discover() -> io::Result<Vec<Device>> {
    crate::links::list()
}

/// What frames of a device type start with.
pub(crate) fn link_of_type(kind: u16) -> Option<Link> {
    match kind {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Some(Link::Ethernet),
        libc::ARPHRD_NONE
        | libc::ARPHRD_PPP
        | libc::ARPHRD_TUNNEL
        | libc::ARPHRD_TUNNEL6
        | libc::ARPHRD_SIT
        | libc::ARPHRD_IPGRE
        | ARPHRD_IP6GRE
        | ARPHRD_RAWIP => Some(Link::Ip),
        _ => None,
    }
}

/// Which interfaces are wanted: those whose name fits a pattern to include and none to exclude.
#[derive(Clone, Debug)]
pub struct Selection {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

impl Selection {
    /// Patterns with `*`, `?` and `[…]`.
    ///
    /// # Errors
    /// One of them isn't a pattern.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, SelectError> {
        Ok(Self { include: patterns(include)?, exclude: patterns(exclude)? })
    }

    /// Whether an interface of this name is wanted.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        let fits = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        fits(&self.include) && !fits(&self.exclude)
    }

    /// Those of `devices` to capture on now: up, readable and wanted. There may be none.
    #[must_use]
    pub fn present(&self, devices: &[Device]) -> Vec<Interface> {
        let wanted = devices.iter().filter(|device| device.up && self.wants(&device.name));
        let interface = |device: &Device| {
            let Device { name, index, link, up, .. } = device;
            Some(Interface { name: Arc::clone(name), index: *index, link: (*link)?, up: *up })
        };
        wanted.filter_map(interface).collect()
    }

    /// Those of `devices` to capture on now.
    ///
    /// # Errors
    /// A pattern to include fits none that is up and readable, or none is left.
    pub fn choose(&self, devices: &[Device]) -> Result<Vec<Interface>, SelectError> {
        let (usable, unusable): (Vec<_>, Vec<_>) =
            devices.iter().partition(|device| device.up && device.link.is_some());
        let names =
            |devices: &[&Device]| devices.iter().map(|device| Arc::clone(&device.name)).collect::<Vec<_>>();
        if let Some(pattern) =
            self.include.iter().find(|pattern| !usable.iter().any(|device| pattern.matches(&device.name)))
        {
            let pattern = pattern.as_str().to_owned();
            return Err(SelectError::NoMatch { pattern, available: names(&usable), other: names(&unusable) });
        }
        let selected = self.present(devices);
        if selected.is_empty() {
            return Err(SelectError::NoneLeft { available: names(&usable), other: names(&unusable) });
        }
        Ok(selected)
    }
}

pub(crate) fn patterns(texts: &[String]) -> Result<Vec<Pattern>, SelectError> {
    let pattern = |text: &String| {
        Pattern::new(text).map_err(|error| SelectError::Pattern { pattern: text.clone(), reason: error.msg })
    };
    texts.iter().map(pattern).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Vec<Device> {
        [("lo", 772, true), ("eth0", 1, true), ("eth1", 1, false), ("wg0", 0xfffe, true), ("can0", 280, true)]
            .into_iter()
            .zip(1..)
            .map(|((name, kind, up), index)| Device {
                name: name.into(),
                index,
                link: link_of_type(kind),
                up,
                lower: None,
                upper: None,
                is_bonded: false,
                is_open_vswitch: false,
                is_loopback: kind == 772,
            })
            .collect()
    }

    fn chosen(include: &[&str], exclude: &[&str]) -> Result<Vec<String>, String> {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        Selection::new(&owned(include), &owned(exclude))
            .and_then(|selection| selection.choose(&devices()))
            .map(|selected| selected.iter().map(|interface| interface.name.to_string()).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn patterns_choose_what_is_up_and_readable() {
        for (include, exclude, names) in [
            (&["*"][..], &["lo"][..], &["eth0", "wg0"][..]),
            (&["lo"], &[], &["lo"]),
            (&["eth?"], &[], &["eth0"]),
            (&["[ew]*0"], &["wg*", "none"], &["eth0"]),
            (&["wg0", "eth0", "eth0"], &[], &["eth0", "wg0"]),
        ] {
            assert_eq!(chosen(include, exclude).unwrap(), names, "{include:?}");
        }
    }

    #[test]
    fn a_pattern_that_fits_none_lists_the_names() {
        let there = "there are lo, eth0, wg0 (down or of a kind that can't be read: eth1, can0)";
        assert_eq!(chosen(&["*", "br*"], &[]).unwrap_err(), format!("no interface fits `br*`; {there}"));
        assert_eq!(chosen(&["eth1"], &[]).unwrap_err(), format!("no interface fits `eth1`; {there}"));
        assert_eq!(
            chosen(&["lo"], &["l*"]).unwrap_err(),
            format!("no interface is left to capture on; {there}")
        );
        assert_eq!(chosen(&[], &[]).unwrap_err(), format!("no interface is left to capture on; {there}"));
        assert!(chosen(&["[e"], &[]).unwrap_err().starts_with("`[e` is not a pattern of interface names: "));
        assert_eq!(
            Selection::new(&["*".to_owned()], &[]).unwrap().choose(&[]).unwrap_err().to_string(),
            "no interface fits `*`; there are none that are up"
        );
    }

    #[test]
    fn what_frames_start_with() {
        let found: Vec<_> = devices().iter().map(|device| device.link).collect();
        assert_eq!(
            found,
            [Some(Link::Ethernet), Some(Link::Ethernet), Some(Link::Ethernet), Some(Link::Ip), None]
        );
    }

    #[test]
    fn loopback_is_discovered() {
        let devices = discover().unwrap();
        let loopback = devices.iter().find(|device| &*device.name == "lo").expect("every namespace has lo");
        assert_eq!((loopback.index, loopback.link), (1, Some(Link::Ethernet)));
    }
}
