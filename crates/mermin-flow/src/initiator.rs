//! Which end opened the conversation.

use crate::icmp;
use crate::key::{FlowKey, KeyForm};
use crate::observation::Observation;
use crate::record::Initiator;
use crate::tcp::{ACK, SYN};
use mermin_wire::PortForm;
use std::net::IpAddr;

const TCP: u8 = 6;

/// The initiating side (0: the key's first end) and how it was inferred, from a flow's first packet.
pub(crate) fn infer(key: &FlowKey, first: &Observation) -> (usize, Initiator) {
    let groups = key.addresses().map(is_group);
    match by_packet(key, first) {
        // An unsolicited router advertisement "answers" a group, which can't have asked.
        (side, _) if groups[side] && !groups[1 - side] => (1 - side, Initiator::Multicast),
        (sender, Initiator::FirstSeen) => match groups {
            [true, false] | [false, true] => (sender, Initiator::Multicast),
            _ => by_port(key).unwrap_or((sender, Initiator::FirstSeen)),
        },
        inferred => inferred,
    }
}

/// What the packet itself says; its sender, if nothing.
fn by_packet(key: &FlowKey, first: &Observation) -> (usize, Initiator) {
    let sender = usize::from(first.reversed);
    let receiver = 1 - sender;
    if first.protocol == TCP && first.has_tcp_flags && first.tcp_flags & SYN != 0 {
        return if first.tcp_flags & ACK == 0 {
            (sender, Initiator::Syn)
        } else {
            (receiver, Initiator::SynAck)
        };
    }
    if first.port_form == PortForm::IcmpTypeCode && key.form() == KeyForm::IcmpTwoWay {
        let asks = icmp::is_request(first.protocol, first.icmp_type());
        return (if asks { sender } else { receiver }, Initiator::IcmpRequest);
    }
    (sender, Initiator::FirstSeen)
}

fn by_port(key: &FlowKey) -> Option<(usize, Initiator)> {
    let [a, b] = key.ports().map(port_class);
    (key.form() == KeyForm::Ports && a != b).then_some((usize::from(b > a), Initiator::ServicePort))
}

/// Multicast, or IPv4's limited broadcast.
fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}

/// System ports, user ports, and those that hosts give to clients (Linux's default range begins at 32 768).
const fn port_class(port: u16) -> u8 {
    match port {
        0..1024 => 0,
        1024..32768 => 1,
        32768.. => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::HashSecret;
    use crate::testing::{icmp, packet, tcp, udp};

    /// The address of the inferred source, and how.
    fn source(mut o: Observation) -> (String, Initiator) {
        o.orient(&HashSecret::new(1));
        let key = FlowKey::of(&o);
        let (side, how) = infer(&key, &o);
        (key.addresses()[side].to_string(), how)
    }

    fn flagged(from: &str, to: &str, tcp_flags: u8) -> Observation {
        Observation { tcp_flags, has_tcp_flags: true, ..tcp(from, to) }
    }

    #[test]
    fn by_handshake_in_both_address_orders() {
        for (client, server) in [("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1")] {
            // The ports would say otherwise.
            let (c, s) = (format!("{client}:80"), format!("{server}:50000"));
            assert_eq!(source(flagged(&c, &s, SYN)), (client.into(), Initiator::Syn));
            assert_eq!(source(flagged(&s, &c, SYN | ACK)), (client.into(), Initiator::SynAck));
        }
    }

    #[test]
    fn by_port_class() {
        for (high, low) in [("40000", "443"), ("40000", "5432"), ("5432", "443")] {
            let (a, b) = (format!("10.0.0.1:{low}"), format!("10.0.0.2:{high}"));
            assert_eq!(source(flagged(&a, &b, ACK)), ("10.0.0.2".into(), Initiator::ServicePort));
            assert_eq!(source(udp(&b, &a)), ("10.0.0.2".into(), Initiator::ServicePort));
        }
        assert_eq!(source(udp("10.0.0.9:1023", "10.0.0.1:0")), ("10.0.0.9".into(), Initiator::FirstSeen));
        assert_eq!(source(udp("10.0.0.9:1024", "10.0.0.1:32767")), ("10.0.0.9".into(), Initiator::FirstSeen));
        assert_eq!(
            source(udp("10.0.0.9:32767", "10.0.0.1:32768")),
            ("10.0.0.1".into(), Initiator::ServicePort)
        );
        assert_eq!(
            source(udp("10.0.0.9:1024", "10.0.0.1:1023")),
            ("10.0.0.9".into(), Initiator::ServicePort)
        );
    }

    #[test]
    fn a_group_is_never_the_source() {
        for group in ["224.0.0.251", "255.255.255.255"] {
            let (one, other) = ("10.0.0.1:53".to_owned(), format!("{group}:40000"));
            assert_eq!(source(udp(&one, &other)), ("10.0.0.1".into(), Initiator::Multicast));
            assert_eq!(source(udp(&other, &one)), ("10.0.0.1".into(), Initiator::Multicast));
        }
        assert_eq!(
            source(udp("[ff02::fb]:5353", "[fe80::1]:5353")),
            ("fe80::1".into(), Initiator::Multicast)
        );
    }

    #[test]
    fn icmp_by_request_else_by_first_packet() {
        assert_eq!(source(icmp("10.0.0.1", "10.0.0.2", 8, 0)), ("10.0.0.1".into(), Initiator::IcmpRequest));
        assert_eq!(source(icmp("10.0.0.1", "10.0.0.2", 0, 0)), ("10.0.0.2".into(), Initiator::IcmpRequest));
        assert_eq!(source(icmp("fe80::1", "ff02::1", 134, 0)), ("fe80::1".into(), Initiator::Multicast));
        assert_eq!(source(icmp("10.0.0.1", "224.0.0.1", 8, 0)), ("10.0.0.1".into(), Initiator::IcmpRequest));
        assert_eq!(source(icmp("10.0.0.2", "10.0.0.1", 3, 1)), ("10.0.0.2".into(), Initiator::FirstSeen));
        assert_eq!(
            source(packet(47, [10, 0, 0, 9].into(), [10, 0, 0, 1].into())),
            ("10.0.0.9".into(), Initiator::FirstSeen)
        );
    }
}
