//! Observations by hand, and where records go, for this crate's tests.

use crate::meter::RecordSink;
use crate::observation::Observation;
use crate::record::FlowRecord;
use crate::recovery::CountingSink;
use mermin_wire::PortForm;
use std::net::{IpAddr, SocketAddr};

/// One nanosecond-stamped second of 2023, so that no test depends on small numbers.
pub(crate) const T0: u64 = 1_700_000_000_000_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Keeps all records.
#[derive(Default)]
pub(crate) struct Records(pub(crate) Vec<FlowRecord>);

impl RecordSink for Records {
    fn record(&mut self, record: FlowRecord) {
        self.0.push(record);
    }
}

impl CountingSink for Records {
    fn taken(&self) -> u64 {
        self.0.len() as u64
    }
}

fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(v4) => [u64::from(u32::from_ne_bytes(v4.octets())), 0],
        IpAddr::V6(v6) => {
            let o = v6.octets();
            let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| o[at + i]));
            [word(0), word(8)]
        }
    }
}

/// One packet of 60 IP bytes, 74 frame bytes at `T0`.
pub(crate) fn packet(protocol: u8, from: IpAddr, to: IpAddr) -> Observation {
    let ([a, b], [c, d]) = (words(from), words(to));
    Observation {
        addresses: [a, b, c, d],
        start: T0,
        end: T0,
        watermark: T0,
        bytes: 60,
        frame_bytes: 74,
        packets: 1,
        buffers: 1,
        buffer_bytes: 74,
        protocol,
        ip_version: if from.is_ipv4() { 4 } else { 6 },
        ttl: 64,
        ..Observation::EMPTY
    }
}

fn with_ports(protocol: u8, from: &str, to: &str) -> Observation {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    Observation {
        ports: [from.port().to_be(), to.port().to_be()],
        port_form: PortForm::Ports,
        ..packet(protocol, from.ip(), to.ip())
    }
}

pub(crate) fn tcp(from: &str, to: &str) -> Observation {
    with_ports(6, from, to)
}

pub(crate) fn udp(from: &str, to: &str) -> Observation {
    with_ports(17, from, to)
}

pub(crate) fn icmp(from: &str, to: &str, icmp_type: u8, code: u8) -> Observation {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    Observation {
        ports: [u16::from(icmp_type).to_be(), u16::from(code).to_be()],
        port_form: PortForm::IcmpTypeCode,
        ..packet(if from.is_ipv4() { 1 } else { 58 }, from, to)
    }
}
