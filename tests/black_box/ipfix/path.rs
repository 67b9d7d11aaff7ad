//! A path that takes less than Ethernet: messages fit it, and nobody fragments.

use super::sighting::{of_data, of_record, same, table};
use super::{Form, all_delivered, replay, sessions};
use crate::otlp::capture;
use mermin_tests::ipfix::Reader;
use mermin_tests::need;
use mermin_tests::need::namespaces;
use mermin_tests::netns::{Namespace, Net, RIGHT, RIGHT6};
use mermin_tests::program::Outcome;
use mermin_tests::servers::ipfix_tap::{Datagram, Tap};
use mermin_tests::servers::place::Place;
use std::net::SocketAddr;
use std::time::Duration;

/// The least that IPv6 asks for.
const MTU: usize = 1_280;
const FLOWS: u64 = 5_000;

/// Fragments that a namespace has made or put together, of both families.
fn fragments(namespace: &Namespace) -> u64 {
    let ipv6 = namespace.run("cat /proc/net/snmp6");
    let ipv6 = ipv6.lines().filter_map(|line| {
        let (name, count) = line.split_once(char::is_whitespace)?;
        ["Ip6FragCreates", "Ip6ReasmReqds"].contains(&name).then(|| count.trim().parse::<u64>())
    });
    let ipv4 = namespace.run("cat /proc/net/snmp");
    let [names, counts] = ipv4.lines().filter(|line| line.starts_with("Ip: ")).collect::<Vec<_>>()[..] else {
        panic!("{ipv4}")
    };
    let ipv4 = names.split(' ').zip(counts.split(' '));
    let ipv4 = ipv4.filter(|(name, _)| ["FragCreates", "ReasmReqds"].contains(name));
    ipv4.map(|(_, count)| count.parse::<u64>()).chain(ipv6).map(Result::unwrap).sum()
}

/// A replay in `from` to a tap at `to`, in `far`.
fn sent(from: &Namespace, far: &Namespace, to: SocketAddr) -> (Outcome, Vec<Datagram>) {
    let tap = Tap::start_at(&Place::Namespace(far.name.clone()), to);
    let outcome = replay(to, Form::Both).inside(&from.name).arg("-").input(capture(FLOWS)).run();
    all_delivered(&outcome);
    (outcome, tap.finish())
}

/// Whether messages are missing. They went again.
fn have_gaps(datagrams: &[Datagram]) -> bool {
    let mut reader = Reader::default();
    datagrams.first().and_then(|first| Reader::number(&first.bytes)) != Some(0)
        || datagrams.iter().any(|datagram| reader.take(&datagram.bytes).is_err())
}

/// All records get there, in messages of at most so many octets.
fn goes(from: &Namespace, far: &Namespace, to: SocketAddr, room: usize) -> Vec<Datagram> {
    let (mut outcome, mut datagrams) = sent(from, far, to);
    if have_gaps(&datagrams) {
        // On a machine with more to do than it can the router's answer may come later than the first message waits for it. Now
        // the host knows the path.
        eprintln!("{to}: the path's answer came late");
        (outcome, datagrams) = sent(from, far, to);
    }
    let longest = datagrams.iter().map(|datagram| datagram.bytes.len()).max().unwrap();
    assert!(longest <= room && longest > room - 200, "{to}: {longest} octets, {room} fit");
    let records = outcome.records();
    let expected = table(records.iter().flat_map(|record| of_record(record, Form::Both)));
    let sessions = sessions(&datagrams);
    same(
        &to.to_string(),
        &expected,
        &table(sessions.iter().flat_map(|(_, reader)| &reader.flows).map(of_data)),
    );
    datagrams
}

#[test]
fn messages_fit_a_link_of_1280_octets() {
    need!(namespaces());
    let net = Net::new("mtu", false);
    net.left.ip(&format!("link set left mtu {MTU}"));
    for (address, headers) in [(format!("{RIGHT}:4739"), 28), (format!("[{RIGHT6}]:4739"), 48)] {
        let _ = goes(&net.left, &net.right, address.parse().unwrap(), MTU - headers);
    }
    assert_eq!((fragments(&net.left), fragments(&net.right)), (0, 0));
}

#[test]
fn messages_fit_a_path_that_is_narrow_behind_a_router() {
    need!(namespaces());
    let net = Net::new("path", false);
    let far = Namespace::new("path");
    net.right.ip(&format!("link add near type veth peer name far netns {}", far.name));
    for (side, name, number) in [(&net.right, "near", 1), (&far, "far", 2)] {
        side.ip(&format!("addr add 10.78.0.{number}/24 dev {name}"));
        side.ip(&format!("addr add fd78::{number}/64 dev {name} nodad"));
        side.ip(&format!("link set {name} mtu {MTU} up"));
    }
    for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
        let _ = net.right.run(&format!("sysctl -q -w {setting}"));
    }
    for (side, networks, gateways) in [
        (&net.left, ["10.78.0.0/24", "fd78::/64"], [RIGHT, RIGHT6]),
        (&far, ["10.77.0.0/24", "fd77::/64"], ["10.78.0.1", "fd78::1"]),
    ] {
        for (network, gateway) in networks.into_iter().zip(gateways) {
            side.ip(&format!("route add {network} via {gateway}"));
        }
    }
    for (address, headers) in [("10.78.0.2:4739", 28), ("[fd78::2]:4739", 48)] {
        let _ = goes(&net.left, &far, address.parse().unwrap(), MTU - headers);
    }
    for namespace in [&net.left, &net.right, &far] {
        assert_eq!(fragments(namespace), 0, "{}", namespace.name);
    }
}

/// Hosts refuse a few datagrams at once, then one a second (`icmp_ratelimit`): no refusal is no consent.
#[test]
fn records_wait_while_nobody_listens_on_another_host() {
    need!(namespaces());
    let net = Net::new("void", false);
    let address: SocketAddr = format!("{RIGHT}:4739").parse().unwrap();
    let running =
        replay(address, Form::Both).inside(&net.left.name).arg("-").input(capture(FLOWS)).start_reading();
    // Five questions and more.
    std::thread::sleep(Duration::from_secs(6));
    let tap = Tap::start_at(&Place::Namespace(net.right.name.clone()), address);
    let outcome = running.wait(Duration::from_secs(40));
    all_delivered(&outcome);
    let records = outcome.records();
    let expected = table(records.iter().flat_map(|record| of_record(record, Form::Both)));
    let sessions = sessions(&tap.finish());
    let got = sessions.iter().flat_map(|(_, reader)| &reader.flows).map(of_data);
    same("the tap", &expected, &table(got));
}
