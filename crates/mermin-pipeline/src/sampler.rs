//! Which packets are metered, while processor time is so short that not all can be.
//!
//! Each is kept by a draw of its own, one in 2, 4 … 64, whatever it is and whoever sent it, so that what is kept stands for
//! all (`mermin_flow::Sampled`). A draw takes a buffer as a whole. Never left out: a packet with SYN, FIN or RST, so that
//! flows begin and end as they do, and what a source has summed up, which costs no more than one packet.

use crate::random::random;
use crate::shed::Shed;
use mermin_flow::{Observation, Sampling, Tally};
use std::sync::Arc;

/// See the module's text.
pub(crate) struct Sampler {
    shed: Arc<Shed>,
    /// One in 2 to this power is kept.
    exponent: u8,
    state: u64,
    left_out: Tally,
}

impl Sampler {
    pub(crate) fn new(shed: Arc<Shed>) -> Self {
        Self { shed, exponent: 0, state: random(), left_out: Tally::ZERO }
    }

    /// From now on draws at the rate that is called for.
    pub(crate) fn follow(&mut self) {
        self.exponent = self.shed.sampling();
    }

    /// Whether packets are drawn at all.
    #[inline(always)]
    pub(crate) const fn samples(&self) -> bool {
        self.exponent > 0
    }

    /// Whether this one, whose datagram is known, is metered; notes in it by what draw. Only while packets are drawn.
    pub(crate) fn keeps(&mut self, o: &mut Observation) -> bool {
        if o.is_turn() || o.buffers > 1 {
            return true;
        }
        if self.next() >> (64 - u32::from(self.exponent)) != 0 {
            self.left_out += o.tally();
            return false;
        }
        o.sampling = Sampling::kept(self.exponent, o.bytes);
        true
    }

    /// Uniform over 64 bits: splitmix64. Its beginning is nobody's to guess, and what it decides is seen by nobody who
    /// sends packets.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// What was left out so far.
    pub(crate) const fn left_out(&self) -> Tally {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK: u8 = 0x10;

    fn sampler(exponent: u8) -> Sampler {
        Sampler { exponent, state: 7, ..Sampler::new(Arc::default()) }
    }

    fn packet(flags: u8, bytes: u64) -> Observation {
        Observation {
            packets: 1,
            buffers: 1,
            bytes,
            frame_bytes: bytes + 14,
            buffer_bytes: bytes as u32 + 14,
            has_tcp_flags: true,
            tcp_flags: flags,
            ..Observation::EMPTY
        }
    }

    #[test]
    fn without_a_call_for_it_nothing_is_drawn() {
        assert!((1..=6).all(|exponent| sampler(exponent).samples()));
        let mut nothing_called_for = sampler(3);
        nothing_called_for.follow();
        assert!(!nothing_called_for.samples());
    }

    /// Within five standard deviations of one in n, of packets of every kind.
    #[test]
    fn one_in_n_is_kept_of_every_kind_of_packet() {
        const DRAWS: u32 = 200_000;
        for exponent in 1..=6 {
            let mut sampler = sampler(exponent);
            let p = 0.5_f64.powi(exponent.into());
            let slack = 5.0 * (f64::from(DRAWS) * p * (1.0 - p)).sqrt();
            let mut seen = Tally::ZERO;
            for (flags, bytes) in [(ACK, 40), (ACK, 1_500), (0, 60), (ACK | 8, 64_000)] {
                let mut kept = Tally::ZERO;
                for _ in 0..DRAWS {
                    let mut o = packet(flags, bytes);
                    seen += o.tally();
                    if sampler.keeps(&mut o) {
                        assert_eq!(o.sampling, Sampling::kept(exponent, bytes));
                        kept += o.tally();
                    }
                }
                let off = kept.packets as f64 - f64::from(DRAWS) * p;
                assert!(off.abs() < slack, "1:{}: {} of {DRAWS}", 1 << exponent, kept.packets);
                seen = seen - kept;
            }
            assert_eq!(sampler.left_out(), seen);
        }
    }

    /// Whether the one before was kept says nothing about the next.
    #[test]
    fn draws_do_not_hang_together() {
        let mut sampler = sampler(1);
        let kept: Vec<bool> = (0..200_000).map(|_| sampler.keeps(&mut packet(ACK, 40))).collect();
        for apart in [1, 2, 3, 64] {
            let alike = kept.iter().zip(&kept[apart..]).filter(|(one, other)| one == other).count() as f64;
            let pairs = (kept.len() - apart) as f64;
            assert!((alike - pairs / 2.0).abs() < 5.0 * (pairs / 4.0).sqrt(), "{alike} of {pairs}");
        }
    }

    #[test]
    fn what_begins_or_ends_a_connection_is_never_left_out_nor_what_is_summed_up() {
        const TURNS: [u8; 5] = [0x02, 0x12, 0x11, 0x04, 0x14];
        let mut sampler = sampler(6);
        for n in 0..10_000 {
            let mut turn = packet(TURNS[n % 5], 40);
            assert!(sampler.keeps(&mut turn) && turn.sampling == Sampling::NONE);
            let mut sum = Observation { packets: 9, buffers: 9, ..packet(ACK, 400) };
            assert!(sampler.keeps(&mut sum) && sum.sampling == Sampling::NONE);
        }
        assert_eq!(sampler.left_out(), Tally::ZERO);
    }
}
