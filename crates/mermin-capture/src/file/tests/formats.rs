//! What the formats can say, and what becomes of it.

use super::Order::{Big, Little};
use super::made::{block, enhanced, frame, gzip, interface, obsolete, pcap, plain, section, simple};
use super::{drain, read, reader};
use mermin_flow::{NO_VLAN, Observation, ObservationPoint, Source, Tally};
use mermin_wire::Unmetered;

#[test]
fn classic_magics() {
    for (order, magic, nanos) in [
        (Little, 0xa1b2_c3d4, 7_000),
        (Big, 0xa1b2_c3d4, 7_000),
        (Little, 0xa1b2_3c4d, 7),
        (Big, 0xa1b2_3c4d, 7),
        (Little, 0xa1b2_cd34, 7_000),
        (Big, 0xa1b2_cd34, 7_000),
    ] {
        let file = pcap(order, magic, 1, &[(5, 7, frame(1, 10), 52), (6, 7, frame(2, 0), 1500)]);
        let (kept, sightings, damages) = read(file);
        assert_eq!(damages, [""; 0], "{order:?} {magic:x}");
        assert_eq!(kept.times(), [5_000_000_000 + nanos, 6_000_000_000 + nanos]);
        assert_eq!((kept.0[0].bytes, kept.0[0].frame_bytes), (38, 52));
        assert_eq!((kept.0[1].bytes, kept.0[1].frame_bytes), (28, 1500));
        assert_eq!(sightings.seen.buffer_bytes, 1552);
    }
}

#[test]
fn an_observation_says_what_the_frame_says() {
    let (kept, ..) = read(pcap(Little, 0xa1b2_c3d4, 0xf000_0001, &[(5, 7, frame(0x1234, 10), 52)]));
    let expected = Observation {
        addresses: [
            u64::from(u32::from_ne_bytes([10, 0, 0, 1])),
            0,
            u64::from(u32::from_ne_bytes([10, 0, 0, 2])),
            0,
        ],
        start: 5_000_007_000,
        end: 5_000_007_000,
        bytes: 38,
        frame_bytes: 52,
        packets: 1,
        buffers: 1,
        buffer_bytes: 52,
        ports: [0x1234u16.to_be(), 53u16.to_be()],
        macs: [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2],
        vlan: NO_VLAN,
        inner_vlan: NO_VLAN,
        protocol: 17,
        ip_version: 4,
        port_form: mermin_flow::PortForm::Ports,
        ttl: 64,
        ..Observation::EMPTY
    };
    assert_eq!(kept.0, [expected]);
}

#[test]
fn what_is_not_metered_is_counted_by_reason() {
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 28]].concat();
    let (kept, sightings, _) =
        read(pcap(Little, 0xa1b2_c3d4, 1, &[(1, 0, arp.clone(), 60), (2, 0, arp, 60)]));
    assert_eq!(kept.0.len(), 0);
    assert_eq!(
        sightings.unmetered[Unmetered::Arp as usize],
        Tally { packets: 2, bytes: 120, buffers: 2, buffer_bytes: 120 }
    );
    assert_eq!(sightings.ethertypes.into_iter().collect::<Vec<_>>(), [(0x0806, 2)]);
    assert_eq!(sightings.unmetered_span, Some((1_000_000_000, 2_000_000_000)));

    // PPP has no parser here, and that is no damage.
    let (_, sightings, damages) = read(pcap(Little, 0xa1b2_c3d4, 9, &[(1, 0, vec![0; 40], 40)]));
    assert_eq!(sightings.unmetered[Unmetered::LinkType as usize].packets, 1);
    assert_eq!(sightings.unmetered_span, Some((1_000_000_000, 1_000_000_000)));
    assert_eq!(damages.len(), 0);

    // The datagram claims 38 bytes, the wire had 10 fewer.
    let (kept, sightings, _) = read(pcap(Little, 0xa1b2_c3d4, 1, &[(1, 0, frame(1, 10)[..42].to_vec(), 42)]));
    assert_eq!(kept.0[0].bytes, 28);
    assert_eq!(sightings.anomalies.into_iter().collect::<Vec<_>>(), [("ip_length_over_frame", 1)]);

    // Fewer bytes on the wire than captured can't be.
    let (kept, ..) = read(pcap(Little, 0xa1b2_c3d4, 1, &[(1, 0, frame(1, 10), 3)]));
    assert_eq!(kept.0[0].frame_bytes, 52);
}

#[test]
fn pcapng_blocks_in_both_byte_orders() {
    for order in [Little, Big] {
        let file = [
            section(order),
            interface(order, 1, 0, &[(2, b"eth0".to_vec())]),
            block(order, 0x4242, &[1; 1000]),
            enhanced(order, 0, 5_000_007, &frame(1, 1), 43),
            simple(order, &frame(2, 2), 44),
            block(order, 5, &[0; 12]),
            obsolete(order, 0, 6_000_000, &frame(3, 3)),
        ]
        .concat();
        let (kept, _, damages) = read(file);
        assert_eq!(damages, [""; 0], "{order:?}");
        assert_eq!(kept.ports(), [1, 2, 3]);
        assert_eq!(kept.times(), [5_000_007_000, 5_000_007_000, 6_000_000_000]);
        assert_eq!(kept.0.iter().map(|seen| seen.frame_bytes).collect::<Vec<_>>(), [43, 44, 45]);
    }
}

#[test]
fn pcapng_clocks_links_and_names_belong_to_the_interface() {
    for order in [Little, Big] {
        let offset: i64 = -2;
        let offset = if order == Big { offset.to_be_bytes() } else { offset.to_le_bytes() };
        let file = [
            section(order),
            interface(order, 1, 0, &[(9, vec![9]), (2, b"eth0".to_vec())]),
            interface(order, 101, 0, &[(9, vec![0x80 | 1]), (14, offset.to_vec())]),
            interface(order, 9, 0, &[(2, b"ppp0".to_vec())]),
            enhanced(order, 0, 5_000_000_007, &frame(1, 1), 43),
            enhanced(order, 1, 13, &frame(2, 2)[14..], 30),
            enhanced(order, 2, 1, &[0; 9], 9),
            // Before 1970.
            enhanced(order, 1, 1, &frame(3, 3)[14..], 31),
            // Another section, other interfaces; eth0 is the same point.
            section(order),
            interface(order, 1, 0, &[]),
            interface(order, 1, 0, &[(2, b"eth0\0\0".to_vec()), (0, vec![])]),
            enhanced(order, 0, 7_000_000, &frame(4, 4), 46),
            enhanced(order, 1, 8_000_000, &frame(5, 5), 47),
        ]
        .concat();
        let (mut source, points) = reader(file);
        let (kept, sightings) = drain(&mut source, 100);
        assert_eq!(source.damages().len(), 0);
        assert_eq!(kept.ports(), [1, 2, 4, 5]);
        assert_eq!(kept.times(), [5_000_000_007, 4_500_000_000, 7_000_000_000, 8_000_000_000]);
        assert_eq!(sightings.unmetered[Unmetered::LinkType as usize].packets, 1);
        assert_eq!(sightings.unmetered[Unmetered::BadTimestamp as usize].packets, 1);
        let name = |i: usize| points.get(kept.0[i].point).unwrap();
        assert_eq!(name(0).interface.as_deref(), Some("eth0"));
        assert_eq!(*name(1), ObservationPoint { interface: None, index: Some(1), hook: None });
        assert_eq!(*name(2), ObservationPoint::default());
        assert_eq!(kept.0[3].point, kept.0[0].point);
        assert_eq!(source.watermark(), 8_000_000_000);
    }
}

#[test]
fn sections_may_change_the_byte_order() {
    let part = |order, ticks| {
        [section(order), interface(order, 1, 0, &[]), enhanced(order, 0, ticks, &frame(1, 1), 43)]
    };
    let (kept, _, damages) = read([part(Little, 1), part(Big, 2), part(Little, 3)].concat().concat());
    assert_eq!((kept.times(), damages.len()), (vec![1_000, 2_000, 3_000], 0));
}

#[test]
fn simple_blocks_are_as_long_as_the_snap_length_says() {
    let data = frame(1, 22);
    let file = [section(Little), interface(Little, 1, 50, &[]), simple(Little, &data[..52], 64)].concat();
    let (kept, ..) = read(file);
    assert_eq!((kept.0[0].bytes, kept.0[0].frame_bytes, kept.0[0].start), (50, 64, 0));
}

#[test]
fn compression_is_recognised_by_magic() {
    let file = plain(1000);
    let (front, back) = file.split_at(30_000);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(&file)].concat();
    for (name, bytes) in [
        ("gzip", gzip(&file)),
        ("two gzip members", [gzip(front), gzip(back)].concat()),
        ("zstd", zstd(&file)),
        ("two zstd frames", [zstd(front), zstd(back)].concat()),
        ("zstd after a skippable frame", skippable),
    ] {
        let (kept, _, damages) = read(bytes);
        assert_eq!((kept.0.len(), damages.as_slice()), (1000, &[] as &[String]), "{name}");
    }
}

#[test]
fn a_header_without_packets_is_fine() {
    for file in
        [plain(0), section(Little), [section(Big), interface(Big, 1, 0, &[])].concat(), gzip(&plain(0))]
    {
        let (kept, sightings, damages) = read(file);
        assert_eq!((kept.0.len(), sightings.seen, damages.len()), (0, Tally::ZERO, 0));
    }
}
