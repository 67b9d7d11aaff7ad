//! tshark as an independent witness of a capture: what it says of each frame's outermost IP header, added up per
//! directed 5-tuple by the rules that records promise to follow.
//!
//! The decoding is tshark's alone; only the adding up is ours: which header is the outermost, that a later fragment
//! belongs to the flow of its first, and that IP bytes are at most what the frame has after its link header.

use crate::tuple::{Counts, Table, Tuple, icmp_ports};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

/// Link types that are decoded, as wiretap numbers them: Ethernet, raw IP (three), Linux cooked (two), BSD loopback
/// (two).
const DECODED: [&str; 8] = ["1", "7", "129", "130", "25", "210", "15", "12"];
/// How long a first fragment waits for the later ones.
const DATAGRAM_SECONDS: f64 = 30.0;

const FIELDS: [&str; 43] = [
    "frame.encap_type",
    "frame.len",
    "frame.cap_len",
    "frame.time_epoch",
    "frame.protocols",
    "eth.type",
    "vlan.id",
    "ieee8021ad.id",
    "ieee8021ad.svid",
    "ieee8021ad.cvid",
    "ip.len",
    "ip.hdr_len",
    "ip.id",
    "ip.flags.mf",
    "ip.frag_offset",
    "ip.proto",
    "ip.src",
    "ip.dst",
    "ipv6.plen",
    "ipv6.nxt",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.hopopts.nxt",
    "ipv6.routing.nxt",
    "ipv6.dstopts.nxt",
    "ipv6.fraghdr.nxt",
    "ipv6.fraghdr.offset",
    "ipv6.fraghdr.more",
    "ipv6.fraghdr.ident",
    "ipv6.opt.jumbo",
    "ah.next_header",
    "tcp.srcport",
    "tcp.dstport",
    "udp.srcport",
    "udp.dstport",
    "sctp.srcport",
    "sctp.dstport",
    "icmp.type",
    "icmp.code",
    "icmpv6.type",
    "icmpv6.code",
    "ip.version",
    "ipv6.version",
];

/// What tshark says of a capture.
#[derive(Debug, Default)]
pub struct Testimony {
    /// Frames that make flows.
    pub table: Table,
    /// The others, by reason: a link type, an ethertype, or `undecodable`.
    pub unmetered: BTreeMap<&'static str, u64>,
    /// All frames.
    pub frames: u64,
}

/// Asks tshark about a capture.
///
/// # Errors
/// When tshark can't read any of it.
pub fn witness(capture: &Path) -> Result<Testimony, String> {
    let mut command = Command::new("tshark");
    command.args(["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE", "-n", "-T", "fields"]);
    command.args(["-E", "occurrence=a", "-E", "separator=/t", "-E", "aggregator=,"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.arg("-r").arg(capture).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut testimony = Testimony::default();
    let mut datagrams = HashMap::new();
    for line in text.lines() {
        let frame = Frame::new(line);
        testimony.frames += 1;
        match frame.flow(&mut datagrams) {
            Ok((tuple, counts)) => *testimony.table.entry(tuple).or_default() += counts,
            Err(reason) => *testimony.unmetered.entry(reason).or_default() += 1,
        }
    }
    if testimony.frames == 0 && !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(testimony)
}

/// The datagrams whose first fragment was seen, and when.
type Datagrams = HashMap<(IpAddr, IpAddr, u8, u64, String), (Tuple, f64)>;

/// One line of tshark's output.
struct Frame<'a> {
    fields: HashMap<&'static str, &'a str>,
}

/// The outermost IP header.
struct Outer {
    source: IpAddr,
    destination: IpAddr,
    /// What the fields say after the last header that is walked.
    protocol: u8,
    /// What the fragment's own header says, for telling datagrams apart.
    fragment_protocol: u8,
    /// The IP length, where the header has one.
    length: Option<u64>,
    offset: u64,
    more: bool,
    identification: u64,
    /// The protocol that tshark found after it.
    then: String,
}

impl<'a> Frame<'a> {
    fn new(line: &'a str) -> Self {
        Self { fields: FIELDS.into_iter().zip(line.split('\t')).collect() }
    }

    /// The nth occurrence of a field.
    fn nth(&self, field: &str, n: usize) -> Option<&'a str> {
        self.fields.get(field)?.split(',').nth(n).filter(|text| !text.is_empty())
    }

    fn number(&self, field: &str, n: usize) -> Option<u64> {
        let text = self.nth(field, n)?;
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        }
    }

    /// Its flow and what it adds, or why it makes none.
    fn flow(&self, datagrams: &mut Datagrams) -> Result<(Tuple, Counts), &'static str> {
        if !self.nth("frame.encap_type", 0).is_some_and(|kind| DECODED.contains(&kind)) {
            return Err("link_type");
        }
        let layers: Vec<&str> = self.fields["frame.protocols"].split(':').collect();
        let (at, link_length) =
            network_layer(&layers).map_err(|reason| self.untagged_reason(&layers, reason))?;
        let wire = self.number("frame.len", 0).ok_or("undecodable")?;
        let outer = self.outer(&layers[at..]).ok_or("undecodable")?;
        let available = wire.saturating_sub(link_length);
        let bytes = outer.length.map_or(available, |length| length.min(available));
        let counts = Counts { packets: 1, bytes, frame_bytes: wire };
        let time =
            self.nth("frame.time_epoch", 0).and_then(|time| time.parse::<f64>().ok()).unwrap_or_default();
        let tags = ["vlan.id", "ieee8021ad.id"].map(|field| self.nth(field, 0).unwrap_or_default()).concat();
        let datagram = (outer.source, outer.destination, outer.fragment_protocol, outer.identification, tags);
        let portless = Tuple {
            source: outer.source,
            destination: outer.destination,
            protocol: outer.protocol,
            ports: None,
        };
        if outer.offset > 0 {
            let known = datagrams.get(&datagram).filter(|(_, first)| time - first < DATAGRAM_SECONDS);
            return Ok((known.map_or(portless, |(tuple, _)| *tuple), counts));
        }
        let tuple = Tuple { ports: self.ports(&outer)?, ..portless };
        if outer.more {
            datagrams.insert(datagram, (tuple, time));
        }
        Ok((tuple, counts))
    }

    /// A frame without tags tells its ethertype: tshark's layers have one name for several (ARP and RARP).
    fn untagged_reason(&self, layers: &[&str], named: &'static str) -> &'static str {
        let tagged = layers.iter().any(|layer| ["vlan", "ieee8021ad"].contains(layer));
        match self.number("eth.type", 0).filter(|_| !tagged) {
            None => named,
            Some(0x0806) => "arp",
            Some(0x88cc) => "lldp",
            Some(0x888e) => "eapol",
            Some(0x8847 | 0x8848) => "mpls",
            Some(0x8863 | 0x8864) => "pppoe",
            Some(0..0x0600) => "llc",
            Some(_) => "other_ethertype",
        }
    }

    /// Reads the outermost IP header's fields. An inner header's fields come after it, so the outermost ones are the
    /// first occurrences.
    fn outer(&self, layers: &[&str]) -> Option<Outer> {
        let ipv4 = layers[0] == "ip";
        let (source, destination, next) =
            if ipv4 { ("ip.src", "ip.dst", "ip.proto") } else { ("ipv6.src", "ipv6.dst", "ipv6.nxt") };
        let mut outer = Outer {
            source: self.nth(source, 0)?.parse().ok()?,
            destination: self.nth(destination, 0)?.parse().ok()?,
            protocol: u8::try_from(self.number(next, 0)?).ok()?,
            fragment_protocol: 0,
            length: None,
            offset: 0,
            more: false,
            identification: 0,
            then: String::new(),
        };
        if ipv4 {
            outer.length = self.number("ip.len", 0).filter(|length| *length != 0);
            outer.offset = self.number("ip.frag_offset", 0)?;
            outer.more = self.nth("ip.flags.mf", 0)? == "1";
            outer.identification = self.number("ip.id", 0)?;
        } else {
            let jumbo = self.number("ipv6.opt.jumbo", 0);
            outer.length = match self.number("ipv6.plen", 0)? {
                0 if jumbo.is_some() => jumbo.map(|length| length + 40),
                0 if outer.protocol == 59 => Some(40),
                0 => None,
                length => Some(length + 40),
            };
        }
        outer.fragment_protocol = outer.protocol;
        self.walk(&layers[1..], &mut outer);
        // A header that is walked but that tshark did not show lies beyond the captured bytes.
        let cut = matches!(outer.protocol, 0 | 43 | 44 | 60) && !ipv4 || outer.protocol == 51;
        (!cut || outer.offset > 0).then_some(outer)
    }

    /// Follows the extension and authentication headers that tshark lists after the outermost IP header.
    fn walk(&self, layers: &[&str], outer: &mut Outer) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for layer in layers {
            let field = match *layer {
                "ipv6.hopopts" => "ipv6.hopopts.nxt",
                "ipv6.routing" => "ipv6.routing.nxt",
                "ipv6.dstopts" => "ipv6.dstopts.nxt",
                "ipv6.fraghdr" => "ipv6.fraghdr.nxt",
                "ah" => "ah.next_header",
                other => {
                    other.clone_into(&mut outer.then);
                    return;
                }
            };
            let n = seen.entry(layer).or_default();
            let Some(next) = self.number(field, *n).and_then(|next| u8::try_from(next).ok()) else { break };
            outer.protocol = next;
            if *layer == "ipv6.fraghdr" {
                outer.fragment_protocol = next;
                outer.offset = self.number("ipv6.fraghdr.offset", *n).unwrap_or_default();
                outer.more = self.nth("ipv6.fraghdr.more", *n) == Some("1");
                outer.identification = self.number("ipv6.fraghdr.ident", *n).unwrap_or_default();
            }
            *n += 1;
        }
    }

    /// The ports or what stands in their place; undecodable where the protocol has them and tshark found none.
    fn ports(&self, outer: &Outer) -> Result<Option<(u16, u16)>, &'static str> {
        let (layer, from, to) = match outer.protocol {
            6 => ("tcp", "tcp.srcport", "tcp.dstport"),
            17 => ("udp", "udp.srcport", "udp.dstport"),
            132 => ("sctp", "sctp.srcport", "sctp.dstport"),
            1 => ("icmp", "icmp.type", "icmp.code"),
            58 => ("icmpv6", "icmpv6.type", "icmpv6.code"),
            _ => return Ok(None),
        };
        let word = |field: &str| self.number(field, 0).and_then(|value| u16::try_from(value).ok());
        let (Some(from), Some(to)) = (word(from), word(to)) else { return Err("undecodable") };
        if outer.then != layer {
            return Err("undecodable");
        }
        Ok(Some(if layer.starts_with("icmp") { icmp_ports(outer.protocol, from, to) } else { (from, to) }))
    }
}

/// Where the network layer stands among tshark's layers, and how long the headers before it are.
fn network_layer(layers: &[&str]) -> Result<(usize, u64), &'static str> {
    let mut length = 0;
    for (index, layer) in layers.iter().enumerate() {
        length += match *layer {
            "eth" if index == 0 => 14,
            "sll" => 16,
            "null" => 4,
            "vlan" | "ieee8021ad" => 4,
            "ethertype" | "raw" => 0,
            "ip" | "ipv6" => return Ok((index, length)),
            "arp" => return Err("arp"),
            "lldp" => return Err("lldp"),
            "eapol" => return Err("eapol"),
            "llc" => return Err("llc"),
            "mpls" => return Err("mpls"),
            "pppoed" | "pppoes" => return Err("pppoe"),
            _ => return Err("other_ethertype"),
        };
    }
    Err("undecodable")
}
