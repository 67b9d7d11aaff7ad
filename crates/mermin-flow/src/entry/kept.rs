//! A flow written down, to go on with it in another process.

use super::{Entry, Facts, IdleClass};
use crate::bytes::{Bytes, Put as _};
use crate::community_id::CommunityId;
use crate::key::FlowKey;
use crate::record::{Counts, Initiator, TcpState};
use crate::spread::Spread;

const IDLE_CLASSES: [IdleClass; IdleClass::COUNT] = [
    IdleClass::Other,
    IdleClass::Udp,
    IdleClass::Icmp,
    IdleClass::TcpFin,
    IdleClass::TcpRst,
    IdleClass::Superseded,
];

impl Counts {
    /// Appends them.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        [self.packets, self.bytes, self.frame_bytes]
            .into_iter()
            .for_each(|count| out.put(count.to_le_bytes()));
    }

    /// Reads what [`Counts::write`] has appended.
    pub(crate) fn read(bytes: &mut Bytes<'_>) -> Option<Self> {
        Some(Self { packets: bytes.number()?, bytes: bytes.number()?, frame_bytes: bytes.number()? })
    }
}

impl Entry {
    /// Where each side's packets are counted.
    pub(crate) const fn points_mut(&mut self) -> &mut [u16; 2] {
        &mut self.points
    }

    /// Appends all of it.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        // Every field by its name: a new one must be thought of here.
        let Self {
            key,
            last,
            points,
            tcp_flags,
            ttl_min,
            ttl_max,
            tcp_state,
            idle_class,
            initiator,
            sides,
            traffic_class,
            delta,
            end_time,
            active_deadline,
        } = self;
        key.words().into_iter().for_each(|word| out.put(word.to_le_bytes()));
        for time in [last, end_time, active_deadline] {
            out.put(time.to_le_bytes());
        }
        points.iter().for_each(|point| out.put(point.to_le_bytes()));
        out.put([*tcp_state as u8, *idle_class as u8, *initiator as u8, *sides]);
        [tcp_flags, ttl_min, ttl_max, traffic_class].into_iter().for_each(|pair| out.put(*pair));
        delta.iter().for_each(|delta| delta.write(out));
    }

    /// Reads what [`Entry::write`] has appended; `None`: it is cut short or says what can't be.
    pub(crate) fn read(bytes: &mut Bytes<'_>) -> Option<Self> {
        let mut words = [0; 5];
        for word in &mut words {
            *word = bytes.number()?;
        }
        let [last, end_time, active_deadline] = [bytes.number()?, bytes.number()?, bytes.number()?];
        let points = [bytes.half()?, bytes.half()?];
        let [tcp_state, idle_class, initiator, sides] = bytes.array()?;
        Some(Self {
            key: FlowKey::of_words(words),
            last,
            points,
            tcp_state: *TcpState::ALL.get(usize::from(tcp_state))?,
            idle_class: *IDLE_CLASSES.get(usize::from(idle_class))?,
            initiator: *Initiator::ALL.get(usize::from(initiator))?,
            sides,
            tcp_flags: bytes.array()?,
            ttl_min: bytes.array()?,
            ttl_max: bytes.array()?,
            traffic_class: bytes.array()?,
            delta: [Counts::read(bytes)?, Counts::read(bytes)?],
            end_time,
            active_deadline,
        })
    }
}

impl Facts {
    /// Appends all but the Community ID, which the key makes again, and the shard, which is known where it stands.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let Self {
            total,
            start_time,
            ordinal,
            sequence,
            hash,
            packets_over_buffers,
            bytes_over_buffers,
            community_id: _,
            macs,
            vlan,
            inner_vlan,
            icmp,
            shard: _,
            spread,
        } = self;
        for number in [start_time, ordinal, packets_over_buffers] {
            out.put(number.to_le_bytes());
        }
        out.put(bytes_over_buffers.to_le_bytes());
        out.put(sequence.to_le_bytes());
        out.put(hash.to_le_bytes());
        out.put(*macs);
        out.put(vlan.to_le_bytes());
        out.put(inner_vlan.to_le_bytes());
        out.put(*icmp);
        out.put([spread.byte()]);
        total.iter().for_each(|total| total.write(out));
    }

    /// Reads what [`Facts::write`] has appended, of a flow of this shard; `None`: it is cut short.
    pub(crate) fn read(bytes: &mut Bytes<'_>, shard: u8) -> Option<Self> {
        Some(Self {
            start_time: bytes.number()?,
            ordinal: bytes.number()?,
            packets_over_buffers: bytes.number()?,
            bytes_over_buffers: bytes.number()?.cast_signed(),
            sequence: bytes.word()?,
            hash: bytes.word()?,
            community_id: CommunityId([0; 20]),
            macs: bytes.array()?,
            vlan: bytes.half()?,
            inner_vlan: bytes.half()?,
            icmp: bytes.array()?,
            shard,
            spread: Spread::of_byte(bytes.byte()?),
            total: [Counts::read(bytes)?, Counts::read(bytes)?],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places() {
        assert!(TcpState::ALL.iter().enumerate().all(|(at, one)| *one as usize == at));
        assert!(Initiator::ALL.iter().enumerate().all(|(at, one)| *one as usize == at));
        assert!(IDLE_CLASSES.iter().enumerate().all(|(at, one)| *one as usize == at));
    }
}
