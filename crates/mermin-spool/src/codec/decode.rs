//! Message → records. What is shared in the message is shared by the records again.

use super::Undecodable;
use super::bytes::Bytes;
use super::layout::{has, hop, nat as tuple};
use super::names::{self, Numbered};
use mermin_flow::{
    CommunityId, Counts, Direction, End, Enrichment, Estimate, FlowId, FlowRecord, Hop, Hops, Identity,
    KubernetesEnd, KubernetesObject, Nat, NatStage, ObservationPoint, ObservationPoints, Sampled, Tally,
};
use std::sync::Arc;
use std::time::Duration;

type Result<T> = std::result::Result<T, Undecodable>;

/// What the records of a message share.
struct Tables {
    time: u64,
    texts: Vec<Arc<str>>,
    objects: Vec<Arc<KubernetesObject>>,
    /// The numbers in this run of another run's points; `None`: numbers are this run's already.
    points: Option<Vec<u16>>,
}

/// All records of a message. Points of another run get numbers among `known`.
pub(super) fn records(message: &[u8], known: &ObservationPoints, run: u64) -> Result<Vec<FlowRecord>> {
    let mut bytes = Bytes(message);
    let own = u64::from_le_bytes(bytes.array()?) == run;
    let time = u64::from_le_bytes(bytes.array()?);
    let mut tables = Tables { time, texts: Vec::new(), objects: Vec::new(), points: None };
    let texts = bytes.count()?;
    // Each is there once, so only one is empty: the least of the others takes two bytes.
    if texts > bytes.0.len() / 2 + 1 {
        return Err(Undecodable::Content("count"));
    }
    for _ in 0..texts {
        let length = bytes.count()?;
        let text = str::from_utf8(bytes.take(length)?).map_err(|_| Undecodable::Content("text"))?;
        tables.texts.push(Arc::from(text));
    }
    for _ in 0..bytes.count()? {
        let length = bytes.count()?;
        let object = tables.object(Bytes(bytes.take(length)?))?;
        tables.objects.push(Arc::new(object));
    }
    let mut points = Vec::new();
    for _ in 0..bytes.count()? {
        points.push(tables.point(&mut bytes)?);
    }
    tables.points = (!own).then(|| points.into_iter().map(|point| known.number(point)).collect());
    let count = bytes.count()?;
    let too_many = Undecodable::Content("count");
    let flow_ids = bytes.take(count.checked_mul(16).ok_or(too_many)?)?.as_chunks::<16>().0;
    let community_ids = bytes.take(count * 20)?.as_chunks::<20>().0;
    let mut records = Vec::with_capacity(count);
    for (id, community_id) in flow_ids.iter().zip(community_ids) {
        let length = u16::from_le_bytes(bytes.array()?);
        let mut record = Bytes(bytes.take(usize::from(length))?);
        records.push(tables.record(
            FlowId(u128::from_be_bytes(*id)),
            CommunityId(*community_id),
            &mut record,
        )?);
    }
    Ok(records)
}

/// Place → what is there.
fn at<'a, T>(table: &'a [T], place: u32, what: &'static str) -> Result<Option<&'a T>> {
    match place {
        0 => Ok(None),
        _ => table.get(place as usize - 1).map(Some).ok_or(Undecodable::Content(what)),
    }
}

impl Tables {
    fn optional_text(&self, bytes: &mut Bytes<'_>) -> Result<Option<Arc<str>>> {
        Ok(at(&self.texts, bytes.place()?, "text")?.cloned())
    }

    fn text(&self, bytes: &mut Bytes<'_>) -> Result<Arc<str>> {
        self.optional_text(bytes)?.ok_or(Undecodable::Content("text"))
    }

    fn object(&self, mut bytes: Bytes<'_>) -> Result<KubernetesObject> {
        let count = bytes.count()?;
        let mut attributes = Vec::with_capacity(count);
        for _ in 0..count {
            let attribute = names::attribute(bytes.number()?);
            let value = self.text(&mut bytes)?;
            // One that this version doesn't know is left out: no output could write it.
            attributes.extend(attribute.map(|attribute| (attribute, value)));
        }
        // The order is this version's, not that of the version that wrote it.
        attributes.sort_by_key(|(attribute, _)| *attribute);
        let labels = (0..bytes.count()?).map(|_| Ok((self.text(&mut bytes)?, self.text(&mut bytes)?)));
        let labels = labels.collect::<Result<Vec<_>>>()?.into_boxed_slice();
        Ok(KubernetesObject { attributes: attributes.into_boxed_slice(), labels })
    }

    fn point(&self, bytes: &mut Bytes<'_>) -> Result<ObservationPoint> {
        let interface = self.optional_text(bytes)?;
        let index = match bytes.number()? {
            0 => None,
            more => Some(u32::try_from(more - 1).map_err(|_| Undecodable::Content("index"))?),
        };
        let hook = value_or_none(bytes.byte()?, "hook")?;
        Ok(ObservationPoint { interface, index, hook })
    }

    fn record(&self, id: FlowId, community_id: CommunityId, bytes: &mut Bytes<'_>) -> Result<FlowRecord> {
        let flags = u32::from_le_bytes(bytes.array()?);
        let [event, end_reason, protocol, initiator, direction, tcp_state, shard] = bytes.array()?;
        let sequence = u32::try_from(bytes.number()?).map_err(|_| Undecodable::Content("sequence"))?;
        let start_time = self.time.wrapping_add_signed(bytes.signed()?);
        let end_time = start_time.wrapping_add_signed(bytes.signed()?);
        let counts_from = if flags & has::COUNTS_FROM != 0 { bytes.signed()? } else { 0 };
        let clock_ahead = optional(flags & has::CLOCK_AHEAD, || Ok([bytes.signed()?, bytes.signed()?]))?;
        let source = self.end(flags, bytes)?;
        let destination = self.end(flags >> has::DESTINATION, bytes)?;
        let point = self.number_of_point(bytes)?;
        let forward = read_direction(flags, bytes)?;
        let reverse = read_direction(flags >> has::REVERSE, bytes)?;
        let icmp =
            optional(flags & has::ICMP, || bytes.array::<2>())?.map(|[icmp_type, code]| (icmp_type, code));
        let vlan = optional(flags & has::VLAN, || bytes.array())?.map(u16::from_le_bytes);
        let inner_vlan = optional(flags & has::INNER_VLAN, || bytes.array())?.map(u16::from_le_bytes);
        let degraded = optional(flags & has::DEGRADED, || bytes.number())?.map(Duration::from_nanos);
        let tally = if flags & has::TALLY == 0 {
            super::expected_tally(&forward.delta, &reverse.delta)
        } else {
            let mut next = || bytes.number();
            Tally { packets: next()?, bytes: next()?, buffers: next()?, buffer_bytes: next()? }
        };
        let sampled = optional(flags & has::SAMPLED, || read_sampled(bytes))?.map(Box::new);
        let hops = optional(flags & has::HOPS, || self.hops(bytes))?.map(Box::new);
        let nat = optional(flags & has::NAT, || read_nat(bytes))?.map(Box::new);
        // What may follow was added by a later version.
        Ok(FlowRecord {
            id,
            sequence,
            community_id,
            event: value(event, "event")?,
            end_reason: value_or_none(end_reason, "end reason")?,
            start_time,
            end_time,
            counts_from: start_time.wrapping_add_signed(counts_from),
            clock_ahead: clock_ahead.unwrap_or_default(),
            protocol,
            source,
            destination,
            initiator: value(initiator, "initiator")?,
            enrichment: Enrichment {
                direction: value_or_none(direction, "direction")?,
                degraded,
                omitted: flags & has::OMITTED != 0,
            },
            icmp,
            forward,
            reverse,
            tcp_state: value(tcp_state, "tcp state")?,
            vlan,
            inner_vlan,
            point,
            shard,
            tally,
            sampled,
            hops,
            nat,
            lease: mermin_flow::Lease::default(),
        })
    }

    fn number_of_point(&self, bytes: &mut Bytes<'_>) -> Result<u16> {
        let (place, number) = (bytes.place()?, u16::from_le_bytes(bytes.array()?));
        Ok(match &self.points {
            Some(points) => at(points, place, "point")?.copied().unwrap_or(ObservationPoints::UNKNOWN),
            None => number,
        })
    }

    fn hops(&self, bytes: &mut Bytes<'_>) -> Result<Hops> {
        let mut hops = Hops::default();
        for direction in &mut hops.directions {
            for _ in 0..bytes.number()? {
                let point = self.number_of_point(bytes)?;
                let is = bytes.byte()?;
                let (first, counted) = (is & hop::FIRST != 0, is & hop::COUNTED != 0);
                let mut next = || bytes.number();
                let counts = Counts { packets: next()?, bytes: next()?, frame_bytes: next()? };
                direction.push(Hop { point, first, counted, counts });
            }
        }
        Ok(hops)
    }

    fn end(&self, flags: u32, bytes: &mut Bytes<'_>) -> Result<End> {
        let address =
            if flags & has::V6 == 0 { bytes.array::<4>()?.into() } else { bytes.array::<16>()?.into() };
        let port = optional(flags & has::PORT, || bytes.array())?.map(u16::from_le_bytes);
        let mac = optional(flags & has::MAC, || bytes.array())?;
        let name = optional(flags & has::NAME, || self.text(bytes))?;
        let kubernetes = optional(flags & has::KUBERNETES, || {
            Ok(KubernetesEnd {
                resolution: value(bytes.byte()?, "resolution")?,
                object: at(&self.objects, bytes.place()?, "object")?.cloned(),
                container: self.optional_text(bytes)?,
                service: at(&self.objects, bytes.place()?, "object")?.cloned(),
            })
        })?;
        Ok(End { address, port, mac, identity: Identity { name, kubernetes } })
    }
}

fn read_nat(bytes: &mut Bytes<'_>) -> Result<Nat> {
    let is = bytes.byte()?;
    let mut end = || {
        let address =
            if is & tuple::V6 == 0 { bytes.array::<4>()?.into() } else { bytes.array::<16>()?.into() };
        Ok((address, u16::from_le_bytes(bytes.array()?)))
    };
    let (source, destination) = (end()?, end()?);
    let stage = if is & tuple::BEHIND == 0 { NatStage::Before } else { NatStage::Behind };
    Ok(Nat { stage, source, destination, community_id: CommunityId(bytes.array()?) })
}

fn read_sampled(bytes: &mut Bytes<'_>) -> Result<Sampled> {
    let mut one_in = [0; 2];
    for one_in in &mut one_in {
        *one_in = u32::try_from(bytes.number()?).map_err(|_| Undecodable::Content("rate"))?;
    }
    let mut directions = [Estimate::default(); 2];
    for Estimate { excess, packets_variance, bytes_variance } in &mut directions {
        *excess = Counts { packets: bytes.number()?, bytes: bytes.number()?, frame_bytes: bytes.number()? };
        for variance in [packets_variance, bytes_variance] {
            *variance = u128::from(bytes.number()?) | u128::from(bytes.number()?) << 64;
        }
    }
    Ok(Sampled { one_in, directions })
}

fn optional<T>(flag: u32, read: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    if flag == 0 { Ok(None) } else { read().map(Some) }
}

fn value<T: Numbered>(number: u8, what: &'static str) -> Result<T> {
    T::of(number).ok_or(Undecodable::Content(what))
}

fn value_or_none<T: Numbered>(number: u8, what: &'static str) -> Result<Option<T>> {
    T::of_or_none(number).ok_or(Undecodable::Content(what))
}

fn read_direction(flags: u32, bytes: &mut Bytes<'_>) -> Result<Direction> {
    let mut counts =
        || Ok(Counts { packets: bytes.number()?, bytes: bytes.number()?, frame_bytes: bytes.number()? });
    let delta = counts()?;
    let earlier = if flags & has::EARLIER == 0 { Counts::default() } else { counts()? };
    let total = Counts {
        packets: delta.packets.wrapping_add(earlier.packets),
        bytes: delta.bytes.wrapping_add(earlier.bytes),
        frame_bytes: delta.frame_bytes.wrapping_add(earlier.frame_bytes),
    };
    let tcp_flags = optional(flags & has::TCP_FLAGS, || bytes.byte())?;
    let ttl = optional(flags & has::TTL, || bytes.array::<2>())?.map(|[least, greatest]| (least, greatest));
    let traffic_class = optional(flags & has::TRAFFIC_CLASS, || bytes.byte())?;
    Ok(Direction { delta, total, tcp_flags, ttl, traffic_class })
}
