//! What was encoded is decoded.

use super::*;
use crate::testing::{object, record, records};
use mermin_flow::{
    CommunityId, Counts, Estimate, FlowId, Hook, Hop, Hops, Identity, KubernetesAttribute, KubernetesEnd,
    Nat, NatStage, ObservationPoint, Resolution, Sampled,
};
use proptest::prelude::*;

fn points() -> Arc<ObservationPoints> {
    let points = ObservationPoints::default();
    for index in 0..3 {
        let interface = Some(format!("eth{index}").into());
        points.number(ObservationPoint { interface, index: Some(index), hook: Some(Hook::Egress) });
    }
    points.number(ObservationPoint::default());
    Arc::new(points)
}

/// As the spool gives it back.
fn stored(entry: Entry) -> Stored {
    let (mut spool, folder) = crate::testing::spool(1 << 30);
    let mut entry = entry;
    spool.append(&mut entry).unwrap();
    let Ok(Some(crate::Read::Batch(stored))) = spool.read() else { panic!("it was appended") };
    drop(folder);
    stored
}

fn round_trip(records: &[FlowRecord]) -> Vec<FlowRecord> {
    let (mut encoder, mut decoder) = codec(points());
    decoder.decode(&stored(encoder.encode(records))).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_record_comes_back(records in prop::collection::vec(record(), 0..40)) {
        prop_assert_eq!(round_trip(&records), records);
    }

    /// Nothing that is read is trusted: a message that is cut or changed is an error, or other records.
    #[test]
    fn no_bytes_make_it_panic(records in prop::collection::vec(record(), 1..5), at: prop::sample::Index, byte: u8, cut: bool) {
        let (mut parts, mut message) = (encode::Parts::default(), Vec::new());
        let points = points();
        encode::batch(&records, &points, 1, &mut parts, &mut message);
        let at = at.index(message.len());
        if cut {
            message.truncate(at);
            prop_assert!(decode::records(&message, &points, 1).is_err());
        } else {
            message[at] = byte;
            let _ = decode::records(&message, &points, 2);
        }
    }

    #[test]
    fn noise_is_an_error_or_records(message: Vec<u8>) {
        let _ = decode::records(&message, &points(), 1);
    }
}

#[test]
fn a_point_has_the_same_name_in_a_later_run() {
    let mut records = records(3);
    records[0].point = 2;
    records[1].point = 0;
    records[2].point = 77;
    let (mut encoder, mut same) = codec(points());
    let entry = encoder.encode(&records);
    let stored = stored(entry);
    let numbers = |records: &[FlowRecord]| records.iter().map(|record| record.point).collect::<Vec<_>>();
    assert_eq!(numbers(&same.decode(&stored).unwrap()), [2, 0, 77]);

    let later = Arc::new(ObservationPoints::default());
    later.number(ObservationPoint { interface: Some("lo".into()), ..ObservationPoint::default() });
    let (_, mut decoder) = codec(Arc::clone(&later));
    let decoded = decoder.decode(&stored).unwrap();
    let names = decoded.iter().map(|record| later.of(record).and_then(|point| point.interface.clone()));
    assert_eq!(names.collect::<Vec<_>>(), [Some("eth2".into()), Some("eth0".into()), None]);
    assert_eq!(decoded[2].point, ObservationPoints::UNKNOWN);
    assert_eq!(decoded[0].id, records[0].id);
}

#[test]
fn a_number_that_was_given_again_does_not_name_older_flows() {
    let points = ObservationPoints::default();
    let point = |name: &str| ObservationPoint { interface: Some(name.into()), ..ObservationPoint::default() };
    let first = points.register(point("old"), 0).unwrap();
    for n in 1..65_535_u32 {
        points.register(point(&n.to_string()), 0).unwrap();
    }
    points.retire(first);
    let mut records = records(2);
    records[0].start_time = 99;
    records[1].start_time = 100;
    assert_eq!(points.register(point("new"), 100), Some(first));
    records.iter_mut().for_each(|record| record.point = first);
    let (mut encoder, _) = codec(Arc::new(points));
    let later = Arc::new(ObservationPoints::default());
    let (_, mut decoder) = codec(Arc::clone(&later));
    let decoded = decoder.decode(&stored(encoder.encode(&records))).unwrap();
    let name = |record| later.of(record).and_then(|point| point.interface.clone());
    assert_eq!([name(&decoded[0]), name(&decoded[1])], [None, Some("new".into())]);
}

#[test]
fn what_records_share_takes_room_once_and_is_shared_again() {
    let shared = Arc::new(object("cart"));
    let end = KubernetesEnd {
        resolution: Resolution::Exact,
        object: Some(Arc::clone(&shared)),
        container: Some("sidecar".into()),
        service: None,
    };
    let mut records = records(200);
    for record in &mut records {
        record.source.identity = Identity { name: Some("office".into()), kubernetes: Some(end.clone()) };
    }
    let (mut parts, mut message) = (encode::Parts::default(), Vec::new());
    encode::batch(&records, &points(), 1, &mut parts, &mut message);
    let times = |text: &str| message.windows(text.len()).filter(|window| *window == text.as_bytes()).count();
    assert_eq!(["cart PodUid", "office", "sidecar"].map(times), [1; 3]);
    let decoded = round_trip(&records);
    let objects = decoded.iter().map(|record| record.source.identity.kubernetes.as_ref().unwrap());
    let first = decoded[0].source.identity.kubernetes.as_ref().unwrap().object.as_ref().unwrap();
    assert!(objects.clone().all(|end| Arc::ptr_eq(end.object.as_ref().unwrap(), first)));
    assert_eq!(**first, *shared);
}

/// What the first version wrote is read for ever, and as long as the layout is the same, written. `UPDATE=1` blesses.
#[test]
fn the_layout_stays() {
    let mut records = records(2);
    let end = |object, service| KubernetesEnd {
        resolution: Resolution::Ambiguous,
        object: Some(object),
        container: Some("app".into()),
        service,
    };
    let (pod, service) = (Arc::new(object("pod")), Arc::new(object("service")));
    records[0].source.identity.kubernetes = Some(end(Arc::clone(&pod), None));
    records[1].destination.identity =
        Identity { name: Some("office".into()), kubernetes: Some(end(pod, Some(service))) };
    records[1].destination.address = "2001:db8::1".parse().unwrap();
    records[1].icmp = Some((128, 1));
    records[1].clock_ahead = [-1, 1_500_000_000];
    records[1].reverse.total.packets = 1_000;
    assert_stays("message-1", &records);
}

/// The same of what stands behind that, where packets were sampled.
#[test]
fn the_layout_of_what_was_sampled_stays() {
    let mut records = records(2);
    let estimate = |n: u64| Estimate {
        excess: Counts { packets: n, bytes: 100 * n, frame_bytes: 114 * n },
        packets_variance: u128::from(n) << 63,
        bytes_variance: u128::from(n) << 70,
    };
    records[0].sampled = Some(Box::new(Sampled { one_in: [2, 64], directions: [3, 700].map(estimate) }));
    assert_stays("message-1-sampled", &records);
}

/// The same of what several observation points saw.
#[test]
fn the_layout_of_hops_stays() {
    let mut records = records(2);
    let hop = |point, first, packets| Hop {
        point,
        first,
        counted: first,
        counts: Counts { packets, bytes: 60 * packets, frame_bytes: 74 * packets },
    };
    let directions = [vec![hop(0, true, 300), hop(1, false, 299)], vec![hop(77, true, 1)]];
    records[1].hops = Some(Box::new(Hops { directions }));
    assert_stays("message-1-hops", &records);
}

/// The same of translated connections.
#[test]
fn the_layout_of_other_tuples_stays() {
    let mut records = records(2);
    let nat = |stage, ends: [&str; 2]| {
        let [source, destination] = [0, 1].map(|at| (ends[at].parse().unwrap(), 40_000 + at as u16));
        Some(Box::new(Nat { stage, source, destination, community_id: CommunityId([3; 20]) }))
    };
    records[0].nat = nat(NatStage::Before, ["192.0.2.1", "198.51.100.9"]);
    records[1].nat = nat(NatStage::Behind, ["2001:db8::1", "2001:db8::2"]);
    assert_stays("message-1-nat", &records);
}

/// Where numbers are others, hops are those of the points' names.
#[test]
fn hops_have_the_same_names_in_a_later_run() {
    let mut records = records(1);
    let hop = |point| Hop { point, first: false, counted: false, counts: Counts::default() };
    records[0].hops = Some(Box::new(Hops { directions: [vec![hop(0), hop(2)], Vec::new()] }));
    let (mut encoder, _) = codec(points());
    let later = Arc::new(ObservationPoints::default());
    later.number(ObservationPoint::default());
    let (_, mut decoder) = codec(Arc::clone(&later));
    let decoded = decoder.decode(&stored(encoder.encode(&records))).unwrap();
    let names = |record: &FlowRecord| {
        let name = |hop: &Hop| later.get(hop.point).and_then(|point| point.interface.clone());
        record.hops.as_ref().unwrap().directions[0].iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names(&decoded[0]), [Some("eth0".into()), Some("eth2".into())]);
}

fn assert_stays(file: &str, records: &[FlowRecord]) {
    let (mut parts, mut message) = (encode::Parts::default(), Vec::new());
    encode::batch(records, &points(), 7, &mut parts, &mut message);
    let path = format!("{}/src/codec/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &message).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert_eq!(decode::records(&golden, &points(), 7).unwrap(), records);
    assert!(golden == message, "the layout has changed: is it another format?");
}

#[test]
fn what_a_later_version_added_is_passed_over() {
    let records = records(1);
    let (mut parts, mut message) = (encode::Parts::default(), Vec::new());
    let points = points();
    encode::batch(&records, &points, 1, &mut parts, &mut message);
    // The last record's length stands two bytes before it.
    let length_of_record = message.len()
        - (0..)
            .find(|back| {
                let at = message.len() - 2 - back;
                usize::from(u16::from_le_bytes([message[at], message[at + 1]])) == *back
            })
            .map(|back| back + 2)
            .unwrap();
    let longer = u16::from_le_bytes([message[length_of_record], message[length_of_record + 1]]) + 3;
    message[length_of_record..length_of_record + 2].copy_from_slice(&longer.to_le_bytes());
    message.extend_from_slice(&[1, 2, 3]);
    assert_eq!(decode::records(&message, &points, 1).unwrap(), records);
    message.extend_from_slice(b"and more of the message");
    assert_eq!(decode::records(&message, &points, 1).unwrap(), records);
}

#[test]
fn entries_that_are_not_known_say_what_is_lost() {
    let records = records(3);
    let (mut encoder, mut decoder) = codec(points());
    let entry = encoder.encode(&records);
    let carried = entry.amount();
    assert_eq!(carried.records, 3);
    let mut later = stored(entry);
    later.head.format = 2;
    assert!(matches!(decoder.decode(&later), Err(Undecodable::Format(2))));
    assert_eq!(later.amount(), carried);

    let payload = |payload: &[u8]| {
        stored(Entry::with_payload(FORMAT, carried, true, |bytes| bytes.extend_from_slice(payload)))
    };
    assert!(matches!(decoder.decode(&payload(&[])), Err(Undecodable::Content("length"))));
    assert!(matches!(decoder.decode(&payload(&[255; 9])), Err(Undecodable::Content("length"))));
    assert!(matches!(decoder.decode(&payload(&[1, 0, 0, 0, 1, 1])), Err(Undecodable::Compression(_))));
    let mut other = stored(encoder.encode(&records));
    other.head.amount.records = 4;
    assert!(matches!(decoder.decode(&other), Err(Undecodable::Amount { said, .. }) if said.records == 4));
}

#[test]
fn a_batch_of_none_is_an_entry() {
    assert_eq!(round_trip(&[]), []);
}

#[test]
fn all_attributes_have_numbers_for_ever() {
    let numbers: Vec<u8> = KubernetesAttribute::ALL.iter().map(|a| names::attribute_number(*a)).collect();
    for (attribute, number) in KubernetesAttribute::ALL.iter().zip(&numbers) {
        assert_eq!(names::attribute(u64::from(*number)), Some(*attribute));
    }
    assert_eq!(names::attribute(255), None);
    assert_eq!(numbers[..3], [0, 1, 2]);
}

#[test]
fn a_flow_id_is_all_of_its_bits() {
    let mut records = records(1);
    records[0].id = FlowId(u128::MAX - 1);
    records[0].community_id.0 = std::array::from_fn(|n| n as u8);
    assert_eq!(round_trip(&records), records);
}

/// What bytes say of themselves decides how much memory is taken for them: no more than this.
#[test]
fn a_message_that_is_too_long_is_neither_written_nor_believed() {
    let (mut encoder, mut decoder) = codec(points());
    let mut large = records(2);
    large[0].source.identity.name = Some("x".repeat(MESSAGE_MAX).into());
    let mut entry = encoder.encode(&large);
    let (mut spool, _folder) = crate::testing::spool(1 << 30);
    assert!(matches!(spool.append(&mut entry), Err(crate::SpoolError::TooLarge { .. })));
    let said = (MESSAGE_MAX as u32 + 1).to_le_bytes();
    let zeros = zstd::bulk::compress(&vec![0; MESSAGE_MAX + 1], LEVEL).unwrap();
    let payload = [&said[..], &zeros].concat();
    assert!(matches!(decoder.payload(FORMAT, &payload), Err(Undecodable::Content("length"))));
    // Run, time, the number of texts; all of them are empty.
    let mut empty = vec![0; 16];
    bytes::Write::number(&mut empty, 1_000_000);
    empty.resize(1_000_100, 0);
    assert!(matches!(decoder.message(&empty), Err(Undecodable::Content("count"))));
}
