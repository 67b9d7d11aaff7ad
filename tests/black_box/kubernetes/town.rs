//! Network namespaces that carry pods' addresses, joined by one that is their node: it routes between them, and the
//! agent and the API server are in it.

use mermin_tests::netns::Namespace;
use mermin_tests::servers::place::Place;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Stdio;

/// The gateway of every place; also stands at every link of the node.
const GATEWAY: &str = "169.254.1.1";
const GATEWAY6: &str = "fe80::1";

/// The node and the places behind it, each with a range of addresses on a link `podN`.
pub(super) struct Town {
    pub(super) node: Namespace,
    places: Vec<Namespace>,
}

/// An address of a place.
pub(super) fn address(place: usize, number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, u8::try_from(place).unwrap(), u8::try_from(number + 1).unwrap())
}

/// The same of the other family.
pub(super) fn address6(place: usize, number: usize) -> Ipv6Addr {
    let [place, number] = [place, number + 1].map(|part| u16::try_from(part).unwrap());
    Ipv6Addr::new(0xfd10, 0x244, 0, place, 0, 0, 0, number)
}

/// In which place an address is.
pub(super) fn place_of(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(address) => address.octets()[2].into(),
        IpAddr::V6(address) => address.segments()[3].into(),
    }
}

/// Runs many `ip` commands in one process.
fn batch(namespace: &Namespace, lines: &[String]) {
    let mut command = namespace.command("ip");
    let mut child = command.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{lines:?}");
}

impl Town {
    /// Makes it: so many places, with so many addresses of each family in each; `own` are the node's addresses.
    pub(super) fn new(places: usize, addresses: usize, own: &[&str]) -> Self {
        let node = Namespace::new("node");
        for setting in ["ipv4.ip_forward", "ipv6.conf.all.forwarding"] {
            let _ = node.run(&format!("sysctl -q -w net.{setting}=1"));
        }
        batch(&node, &own.iter().map(|address| format!("addr add {address}/32 dev lo")).collect::<Vec<_>>());
        let places = (0..places)
            .map(|place| {
                let inside = Namespace::new("place");
                join(&node, &inside, place, addresses);
                inside
            })
            .collect();
        Self { node, places }
    }

    /// Where the node's programs run.
    pub(super) fn place(&self) -> Place {
        Place::Namespace(self.node.name.clone())
    }

    /// Does something where this address is: sockets that it opens belong there for good.
    pub(super) fn at<T: Send>(&self, address: IpAddr, act: impl FnOnce() -> T + Send) -> T {
        self.inside(place_of(address), act)
    }

    /// Does something in a place.
    pub(super) fn inside<T: Send>(&self, place: usize, act: impl FnOnce() -> T + Send) -> T {
        self.places[place].within(act)
    }
}

fn join(node: &Namespace, inside: &Namespace, place: usize, addresses: usize) {
    let link = format!("pod{place}");
    batch(
        node,
        &[
            format!("link add {link} type veth peer name eth0 netns {}", inside.name),
            format!("link set {link} addrgenmode none"),
            format!("addr add {GATEWAY}/32 dev {link}"),
            format!("link set {link} up"),
            format!("addr add {GATEWAY6}/64 dev {link} nodad"),
            format!("route add 10.244.{place}.0/24 dev {link}"),
            format!("route add fd10:244:0:{place:x}::/64 dev {link}"),
        ],
    );
    let mut lines = vec!["link set eth0 addrgenmode none".to_owned(), "link set eth0 up".to_owned()];
    for number in 0..addresses {
        lines.push(format!("addr add {}/32 dev eth0", address(place, number)));
        lines.push(format!("addr add {}/128 dev eth0 nodad", address6(place, number)));
    }
    // Neighbour discovery needs one of the link's own.
    lines.push("addr add fe80::2/64 dev eth0 nodad".to_owned());
    lines.push(format!("route add {GATEWAY} dev eth0 scope link"));
    lines.push(format!("route add default via {GATEWAY} dev eth0"));
    lines.push(format!("route add ::/0 via {GATEWAY6} dev eth0"));
    batch(inside, &lines);
}
