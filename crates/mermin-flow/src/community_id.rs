//! Community ID version 1: a hash of the conversation that any tool computes alike
//! (<https://github.com/corelight/community-id-spec>).

use crate::key::{FlowKey, KeyForm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::block_api::compress;
use std::fmt;
use std::net::IpAddr;

/// The SHA-1 digest; prints as `1:` and its Base64 form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommunityId(pub [u8; 20]);

impl CommunityId {
    /// Length of the text form.
    pub const TEXT_LEN: usize = 30;

    /// Of a key, with the seed that all tools involved share (0 unless configured otherwise).
    #[must_use]
    pub fn of(key: &FlowKey, seed: u16) -> Self {
        // Seed, two addresses, protocol, padding, two ports: 40 bytes at most, so with SHA-1's own padding (RFC 3174
        // section 4) one block.
        let mut block = [0; 64];
        let mut length = 0;
        let mut push = |bytes: &[u8]| {
            block[length..length + bytes.len()].copy_from_slice(bytes);
            length += bytes.len();
        };
        push(&seed.to_be_bytes());
        for address in key.addresses() {
            match address {
                IpAddr::V4(v4) => push(&v4.octets()),
                IpAddr::V6(v6) => push(&v6.octets()),
            }
        }
        push(&[key.protocol(), 0]);
        if key.form() != KeyForm::Portless {
            let [a, b] = key.ports().map(u16::to_be_bytes);
            push(&[a[0], a[1], b[0], b[1]]);
        }
        push(&[0x80]);
        block[56..].copy_from_slice(&(8 * (length as u64 - 1)).to_be_bytes());
        let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
        compress(&mut state, &[block]);
        let mut digest = [0; 20];
        for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
            *bytes = word.to_be_bytes();
        }
        Self(digest)
    }

    /// The text form, without allocation.
    #[must_use]
    pub fn text(&self) -> [u8; Self::TEXT_LEN] {
        let mut text = *b"1:............................";
        let written = STANDARD.encode_slice(self.0, &mut text[2..]);
        debug_assert_eq!(written, Ok(28));
        text
    }
}

impl fmt::Display for CommunityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for CommunityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::HashSecret;
    use crate::observation::Observation;
    use crate::testing::{icmp, tcp, udp};
    use mermin_wire::PortForm;

    fn id(mut o: Observation) -> String {
        o.orient(&HashSecret::new(1));
        CommunityId::of(&FlowKey::of(&o), 0).to_string()
    }

    /// The specification's baseline (its `baseline/baseline_deflt.json`) and the founding document's example.
    #[test]
    fn published_vectors() {
        assert_eq!(id(tcp("128.232.110.120:34855", "66.35.250.204:80")), "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        assert_eq!(id(tcp("66.35.250.204:80", "128.232.110.120:34855")), "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        assert_eq!(id(udp("192.168.1.52:54585", "8.8.8.8:53")), "1:d/FP5EW3wiY1vCndhwleRRKHowQ=");
        assert_eq!(id(icmp("192.168.0.89", "192.168.0.1", 8, 0)), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=");
        assert_eq!(id(icmp("192.168.0.1", "192.168.0.89", 0, 0)), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=");
        assert_eq!(id(tcp("1.2.3.4:1122", "5.6.7.8:3344")), "1:wCb3OG7yAFWelaUydu0D+125CLM=");
    }

    #[test]
    fn a_seed_changes_it_and_ports_count_only_where_there_are_any() {
        let mut o = udp("1.2.3.4:0", "5.6.7.8:0");
        let with_ports = id(o);
        o.port_form = PortForm::Absent;
        assert_ne!(id(o), with_ports);
        o.orient(&HashSecret::new(1));
        let key = FlowKey::of(&o);
        assert_ne!(CommunityId::of(&key, 0), CommunityId::of(&key, 1));
    }
}
