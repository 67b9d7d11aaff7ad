//! Four hosts in a row: client, two routers, server. The second router translates the address that the client knows, and the
//! link between the routers loses packets.
//!
//! ```text
//! client ── first ── wire ── second ── server
//! 10.80.1.2          │       10.80.9.9:80 becomes 10.80.3.2:8080
//!                    every so many segments with data are dropped
//! ```

use mermin_tests::netns::Namespace;
use std::collections::BTreeMap;

/// The address that clients know.
pub(super) const SERVICE: (&str, u16) = ("10.80.9.9", 80);
/// What it becomes.
pub(super) const SERVER: (&str, u16) = ("10.80.3.2", 8080);
pub(super) const CLIENT: &str = "10.80.1.2";
/// One segment with data in so many is lost.
const ONE_IN: u64 = 40;

/// The namespaces; gone when let go of.
pub(super) struct RowOfHosts {
    pub(super) client: Namespace,
    pub(super) first: Namespace,
    wire: Namespace,
    pub(super) second: Namespace,
    pub(super) server: Namespace,
}

impl RowOfHosts {
    pub(super) fn new() -> Self {
        let [client, first, wire, second, server] =
            ["client", "first", "wire", "second", "server"].map(Namespace::new);
        let row = Self { client, first, wire, second, server };
        for host in [&row.client, &row.first, &row.wire, &row.second, &row.server] {
            quiet(host);
        }
        link((&row.client, "c0", "10.80.1.2/24"), (&row.first, "f0", "10.80.1.1/24"));
        link((&row.first, "f1", "10.80.2.1/24"), (&row.wire, "w0", ""));
        link((&row.wire, "w1", ""), (&row.second, "s0", "10.80.2.2/24"));
        link((&row.second, "s1", "10.80.3.1/24"), (&row.server, "e0", "10.80.3.2/24"));
        row.wire.ip("link add br0 type bridge");
        for line in ["link set w0 master br0", "link set w1 master br0", "link set br0 up"] {
            row.wire.ip(line);
        }
        row.client.ip("route add default via 10.80.1.1");
        row.server.ip("route add default via 10.80.3.1");
        row.first.ip("route add 10.80.3.0/24 via 10.80.2.2");
        row.first.ip("route add 10.80.9.0/24 via 10.80.2.2");
        row.second.ip("route add 10.80.1.0/24 via 10.80.2.1");
        row.translate();
        row
    }

    fn translate(&self) {
        let ((service, port), (server, to)) = (SERVICE, SERVER);
        nft(&self.second, "add table ip nat");
        nft(&self.second, "add chain ip nat pre { type nat hook prerouting priority dstnat; }");
        nft(
            &self.second,
            &format!("add rule ip nat pre ip daddr {service} tcp dport {port} dnat to {server}:{to}"),
        );
    }

    /// From now on the wire loses segments with data that run to the server, and counts them by the client's port.
    /// Acknowledgements come through: a lost one would be made up for by a segment that the other end sends again.
    pub(super) fn lose_some(&self) {
        for line in [
            "add table netdev lossy".to_owned(),
            "add set netdev lossy lost { type inet_service; flags dynamic; counter; }".to_owned(),
            "add chain netdev lossy in { type filter hook ingress device w0 priority 0; }".to_owned(),
            format!(
                "add rule netdev lossy in ip length > 100 tcp dport {} numgen inc mod {ONE_IN} == 7 \
                 add @lost {{ tcp sport }} drop",
                SERVICE.1
            ),
        ] {
            nft(&self.wire, &line);
        }
    }

    /// Packets that the wire has lost, by the client's port. From now on it loses none.
    pub(super) fn lost(&self) -> BTreeMap<u16, u64> {
        nft(&self.wire, "flush chain netdev lossy in");
        let text = self.wire.run("nft -j list set netdev lossy lost");
        let listed: serde_json::Value = serde_json::from_str(&text).expect("nft writes JSON");
        let sets = listed["nftables"].as_array().expect("a list");
        let elements = sets.iter().find_map(|one| one["set"]["elem"].as_array());
        let element = |one: &serde_json::Value| {
            let one = &one["elem"];
            let port = one["val"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
            (port, one["counter"]["packets"].as_u64().expect("a count"))
        };
        elements.map(|elements| elements.iter().map(element).collect()).unwrap_or_default()
    }
}

/// Routes, doesn't speak by itself, and has TCP segments whose headers have one length.
fn quiet(host: &Namespace) {
    for setting in [
        "net.ipv6.conf.all.disable_ipv6=1",
        "net.ipv6.conf.default.disable_ipv6=1",
        "net.ipv4.ip_forward=1",
        "net.ipv4.conf.all.rp_filter=0",
        "net.ipv4.conf.default.rp_filter=0",
        "net.ipv4.tcp_timestamps=0",
        "net.ipv4.tcp_sack=0",
    ] {
        let _ = host.run(&format!("sysctl -q -w {setting}"));
    }
}

/// A link between two namespaces, each end with an address or none; both up.
fn link(one: (&Namespace, &str, &str), other: (&Namespace, &str, &str)) {
    one.0.ip(&format!("link add {} type veth peer name {} netns {}", one.1, other.1, other.0.name));
    for (namespace, name, address) in [one, other] {
        let _ = namespace.run(&format!("ethtool -K {name} tso off gso off gro off"));
        if !address.is_empty() {
            namespace.ip(&format!("addr add {address} dev {name}"));
        }
        namespace.ip(&format!("link set {name} up"));
    }
}

fn nft(namespace: &Namespace, line: &str) {
    let output = namespace.command("nft").arg(line).output().expect("nft starts");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}
