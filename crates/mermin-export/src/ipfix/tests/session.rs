//! Templates, numbers and options records of a session.

use super::decoder::Collector;
use super::{IDENTITY, PEN, messages};
use crate::ipfix::elements::{FIELDS, Registry};
use crate::ipfix::encode::{Encoder, Part, each};
use crate::ipfix::netflow9;
use crate::ipfix::options::{Options, own_elements};
use crate::ipfix::session::{Identity, Session, TEMPLATES_MAX, Version};
use crate::ipfix::shape::Shape;
use crate::ipfix::window::Window;
use crate::sample;
use mermin_flow::{Amount, FlowRecord, Receipt};

const TOO_LARGE: &str = "too_large";
/// After all samples.
const NOW: u64 = sample::START / 1_000_000 + 1_000_000_000;

fn fill(window: &mut Window, records: &[FlowRecord]) {
    let mut encoder = Encoder::new(sample::points());
    for record in records {
        let mut row = Vec::new();
        let shape = encoder.push(record, Part::Both, &mut row);
        window.push(shape, &row, Some(Amount::of(record)));
    }
}

#[test]
fn numbers_count_data_records_of_options_too_and_go_round() {
    let mut session = Session::new(IDENTITY);
    session.set_sequence(u32::MAX - 3);
    let (mut window, mut collector) = (Window::default(), Collector::default());
    for _ in 0..10 {
        fill(&mut window, &sample::all());
        for message in messages(&mut session, &mut window, 1_300) {
            collector.take(&message);
        }
    }
    assert_eq!((collector.gaps, collector.unknown), (0, 0));
    let data = 10 * sample::all().len() + own_elements().count();
    assert_eq!(session.sequence(), (u32::MAX - 3).wrapping_add(data as u32));
}

#[test]
fn a_message_that_is_taken_back_leaves_no_gap_and_no_record_without_template() {
    let mut session = Session::new(IDENTITY);
    let (mut window, mut collector, mut receipt) =
        (Window::default(), Collector::default(), Receipt::default());
    fill(&mut window, &sample::all());
    let (mut message, mut records, mut turn) = (Vec::new(), 0, 0);
    loop {
        turn += 1;
        // Each is made three times, every time for a path that takes less.
        let limit = 1_400 - 100 * (turn % 3);
        let made = session.make(&mut window, limit, 0, TOO_LARGE, &mut message);
        if !session.made_something() {
            break;
        }
        if turn % 3 != 0 {
            session.take_back();
            continue;
        }
        session.commit();
        window.settle(made.items, &mut receipt);
        records += collector.take(&message).iter().filter(|decoded| decoded.scope == 0).count();
    }
    assert_eq!((records, collector.gaps, collector.unknown), (sample::all().len(), 0, 0));
    assert_eq!(receipt.delivered.records, sample::all().len() as u64);
}

#[test]
fn who_comes_late_decodes_from_the_refresh_on() {
    let mut session = Session::new(IDENTITY);
    let (mut window, mut late) = (Window::default(), Collector::default());
    fill(&mut window, &sample::all());
    messages(&mut session, &mut window, 1_400);
    let mut take = |session: &mut Session, late: &mut Collector| {
        fill(&mut window, &sample::all());
        let messages = messages(session, &mut window, 1_400);
        messages.iter().flat_map(|message| late.take(message)).filter(|decoded| decoded.scope == 0).count()
    };
    assert_eq!(take(&mut session, &mut late), 0);
    assert!(late.unknown > 0);
    session.announce();
    assert_eq!(take(&mut session, &mut late), sample::all().len());
}

#[test]
fn what_no_message_has_room_for_is_given_up_and_the_rest_goes() {
    let (mut window, mut receipt) = (Window::default(), Receipt::default());
    let records = [sample::kubernetes(), sample::udp()];
    fill(&mut window, &records);
    let (mut session, mut collector, mut got) = (Session::new(IDENTITY), Collector::default(), 0);
    let mut message = Vec::new();
    loop {
        let made = session.make(&mut window, 512, 0, TOO_LARGE, &mut message);
        window.settle(made.items, &mut receipt);
        if !session.made_something() {
            break;
        }
        session.commit();
        got += collector.take(&message).iter().filter(|decoded| decoded.scope == 0).count();
    }
    assert_eq!((got, collector.unknown), (1, 0));
    assert_eq!(receipt.delivered, Amount::of(&records[1]));
    assert_eq!(receipt.dropped[TOO_LARGE], Amount::of(&records[0]));
    assert_eq!(window.held(), 0);
}

/// IPv6's least MTU, less headers: no record lacks its template there.
#[test]
fn the_largest_template_fits_any_path_of_ipv6() {
    let mut all = Shape::default();
    (0..FIELDS.len()).for_each(|place| all.add(place as u8));
    let mut template = Vec::new();
    all.push_template(300, Some(PEN), &mut template);
    assert!(16 + 4 + template.len() <= 1_280 - 48, "{}", template.len());
}

#[test]
fn a_session_has_so_many_templates_and_says_when_it_has_no_more() {
    let (mut session, mut window) = (Session::new(IDENTITY), Window::default());
    for n in 0..=TEMPLATES_MAX as u32 {
        let mut shape = Shape::default();
        // Of ten fields of eleven octets in all each is there or not.
        let mut row = Vec::new();
        for (bit, place) in (0..FIELDS.len() as u8)
            .filter(|place| FIELDS[usize::from(*place)].kind.length(false) == 1)
            .enumerate()
        {
            if n >> bit & 1 == 1 && bit < 11 {
                shape.add(place);
                row.push(0);
            }
        }
        if n == 0 {
            shape.add(0);
            row.extend([0; 8]);
        }
        window.push(shape, &row, Some(Amount { records: 1, packets: 0, bytes: 0 }));
    }
    let (mut message, mut receipt) = (Vec::new(), Receipt::default());
    let made = loop {
        let made = session.make(&mut window, 1_400, 0, TOO_LARGE, &mut message);
        window.settle(made.items, &mut receipt);
        if !session.made_something() {
            break made;
        }
        session.commit();
    };
    assert!(made.exhausted && made.items == 0);
    assert_eq!((receipt.delivered.records, window.held()), (TEMPLATES_MAX as u64, 1));
    let mut next = Session::new(IDENTITY);
    assert_eq!(messages(&mut next, &mut window, 60_000).len(), 2, "what isn't about flows, and one of these");
    assert_eq!(window.held(), 0);
}

/// RFC 5610: a collector learns what our elements are from what it gets.
#[test]
fn type_information_tells_of_every_element_of_our_own() {
    let (mut session, mut collector) = (Session::new(IDENTITY), Collector::default());
    let messages = messages(&mut session, &mut Window::default(), 1_400);
    let told: Vec<_> = messages.iter().flat_map(|message| collector.take(message)).collect();
    let types: Vec<_> = told.iter().filter(|decoded| decoded.template == Options::Types.id()).collect();
    let fields: Vec<_> = FIELDS.iter().filter(|field| field.registry == Registry::Own).collect();
    assert!(types.len() > fields.len(), "and those of the ledger");
    for field in fields {
        let about =
            types.iter().find(|decoded| decoded.values[&(0, 303)] == field.number.to_be_bytes()).unwrap();
        assert_eq!(about.scope, 2);
        assert_eq!(about.values[&(0, 346)], PEN.to_be_bytes());
        assert_eq!(about.values[&(0, 341)], field.name.as_bytes());
        assert_eq!(about.values[&(0, 339)], [field.kind.code()]);
        assert_eq!(about.values[&(0, 343)], u64::from(field.greatest).to_be_bytes());
    }
}

#[test]
fn a_draw_is_told_of_once_and_again_with_the_templates() {
    let (mut session, mut collector) = (Session::new(IDENTITY), Collector::default());
    let mut told = |session: &mut Session| {
        let messages = messages(session, &mut Window::default(), 1_400);
        let told = messages.iter().flat_map(|message| collector.take(message));
        let of_draws = told.filter(|decoded| decoded.template == Options::Selector.id());
        let of_draws = of_draws.map(|decoded| {
            assert_eq!(decoded.values[&(0, 304)], [0, 4]);
            let one_in = u64::from_be_bytes(decoded.values[&(0, 302)][..].try_into().unwrap());
            let probability = f64::from_be_bytes(decoded.values[&(0, 311)][..].try_into().unwrap());
            assert_eq!(probability, 1.0 / one_in as f64);
            one_in
        });
        of_draws.collect::<Vec<_>>()
    };
    assert!(told(&mut session).is_empty());
    session.tell_of_draws(4 | 128);
    session.tell_of_draws(4 | 8);
    assert_eq!(told(&mut session), [4, 128, 8]);
    session.announce();
    assert_eq!(told(&mut session), [4, 8, 128]);
}

#[test]
fn version_9_is_padded_and_numbers_messages() {
    let identity =
        Identity { version: Version::NetFlow9, booted: sample::START / 1_000_000 - 5_000, ..IDENTITY };
    let (mut session, mut window) = (Session::new(identity), Window::default());
    let mut expected = 0;
    for record in sample::all() {
        for part in each(&record) {
            let mut row = Vec::new();
            let shape = netflow9::push(&record, part, &sample::points(), [identity.booted, NOW], &mut row);
            window.push(shape, &row, Some(Amount::of(&record)));
            expected += 1;
        }
    }
    session.tell(Options::Sent, |_, out| out.extend([0; 28]));
    session.tell(Options::NotSent, |_, _| panic!("version 9 has no such"));
    let mut collector = Collector::default();
    let messages = messages(&mut session, &mut window, 300);
    let decoded: Vec<_> = messages.iter().flat_map(|message| collector.take(message)).collect();
    assert_eq!((collector.gaps, collector.unknown), (0, 0));
    let (flows, options): (Vec<_>, Vec<_>) = decoded.iter().partition(|decoded| decoded.scope == 0);
    assert_eq!((flows.len(), options.len()), (expected, 1));
    for flow in &flows {
        assert!(flow.values.keys().all(|(enterprise, _)| *enterprise == 0));
    }
    let tcp = flows.iter().find(|flow| flow.values[&(0, 4)] == [6]).unwrap();
    assert_eq!(tcp.values[&(0, 22)], 5_000_u32.to_be_bytes(), "milliseconds since the system started");
    assert_eq!(tcp.values[&(0, 1)], 104_u64.to_be_bytes());
    // A flow that began before has no such time.
    let early = Identity { booted: sample::START / 1_000_000 + 1_000, ..identity };
    let mut row = Vec::new();
    let shape =
        netflow9::push(&sample::bare(), Part::Forward, &sample::points(), [early.booted, NOW], &mut row);
    assert!(shape.fields().all(|field| field.number != 22));
    // Nor has one that ends after it is told.
    let (end, mut tells) = (sample::tcp().end_shown() / 1_000_000, [false; 2]);
    for (tells, now) in tells.iter_mut().zip([end - 1, end]) {
        let shape = netflow9::push(
            &sample::tcp(),
            Part::Forward,
            &sample::points(),
            [identity.booted, now],
            &mut Vec::new(),
        );
        *tells = shape.fields().any(|field| field.number == 21);
    }
    assert_eq!(tells, [false, true]);
}

/// What tells exporters apart by address and domain alone takes both sessions for one.
#[test]
fn the_next_session_gives_no_id_a_second_meaning() {
    let ids = |session: &mut Session, records: &[FlowRecord]| {
        let (mut window, mut collector) = (Window::default(), Collector::default());
        fill(&mut window, records);
        let messages = messages(session, &mut window, 1_400);
        let decoded = messages.iter().flat_map(|message| collector.take(message));
        let ids = decoded.filter(|decoded| decoded.scope == 0).map(|decoded| decoded.template);
        ids.collect::<std::collections::BTreeSet<_>>()
    };
    let mut session = Session::new(IDENTITY);
    let mut first = ids(&mut session, &sample::all());
    for _ in 0..3 {
        session = session.successor();
        assert_eq!(session.sequence(), 0);
        let mut next = ids(&mut session, &sample::all());
        assert!(first.is_disjoint(&next), "{first:?} {next:?}");
        first.append(&mut next);
    }
    let mut old = Session::new(Identity { version: Version::NetFlow9, ..IDENTITY });
    old.set_sequence(7);
    assert_eq!(old.successor().sequence(), 7, "it numbers messages of an exporter");
}

/// Type and code are the first packet's, and so is the point: an answer has others.
#[test]
fn the_way_back_does_not_have_what_the_first_packet_had() {
    let mut record = sample::icmpv6();
    (record.reverse, record.point) = (record.forward, 0);
    let points = sample::points();
    assert!(points.of(&record).is_some_and(|point| point.index.is_some() && point.hook.is_some()));
    let shapes = [Part::Forward, Part::Reverse].map(|part| {
        let mut row = Vec::new();
        let new = Encoder::new(sample::points()).push(&record, part, &mut row);
        [new, netflow9::push(&record, part, &points, [0, NOW], &mut row)]
    });
    for (shapes, there) in shapes.into_iter().zip([true, false]) {
        for shape in shapes {
            let has = |number: [u16; 2]| shape.fields().any(|field| number.contains(&field.number));
            assert_eq!([has([32, 139]), has([10, 14]), has([61, 61])], [there; 3]);
        }
    }
}

#[test]
fn a_time_that_ntp_has_no_seconds_for_is_in_milliseconds_alone() {
    let mut record = sample::udp();
    let numbers = |record: &FlowRecord| {
        let shape = Encoder::new(sample::points()).push(record, Part::Both, &mut Vec::new());
        let times = shape.fields().map(|field| field.number).filter(|number| (152..158).contains(number));
        times.collect::<Vec<_>>()
    };
    assert_eq!(numbers(&record), [152, 153, 156, 157]);
    record.end_time = 2_085_978_496_000_000_000;
    assert_eq!(numbers(&record), [152, 153]);
}
