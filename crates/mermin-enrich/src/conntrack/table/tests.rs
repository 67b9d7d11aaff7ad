//! Which other tuple a record gets, whatever came before, between and behind its connection.

use super::*;
use crate::conntrack::message::tests::end;
use proptest::prelude::*;

const SECOND: Time = 1_000_000_000;
const NOON: Time = 1_000_000 * SECOND;

const CLIENT: &str = "10.0.0.2:40000";
const SERVICE: &str = "10.96.0.1:80";
const BACKENDS: [&str; 3] = ["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080"];

fn to_service(id: u32, backend: &str) -> Connection {
    Connection {
        protocol: 6,
        zone: 0,
        id,
        before: [CLIENT, SERVICE].map(end),
        behind: [CLIENT, backend].map(end),
    }
}

/// A message that may have been made in the `within` ns before second `at`.
fn within(within: Time, at: Time) -> Window {
    Window { from: NOON + at * SECOND - within, until: NOON + at * SECOND }
}

fn at(second: Time) -> Window {
    within(1_000_000, second)
}

const EVER: Window = Window { from: 0, until: 0 };

fn packets(from: Time, until: Time) -> Window {
    Window { from: NOON + from * SECOND, until: NOON + until * SECOND }
}

fn table() -> Table {
    Table::new(100, 7)
}

/// The destination of a record from the client to the service.
fn backend(table: &Table, packets: Window) -> Option<End> {
    match table.find(6, [CLIENT, SERVICE].map(end), packets) {
        Found::One(Other { stage: NatStage::Before, ends: [_, destination] }) => Some(destination),
        Found::One(other) => panic!("{other:?}"),
        Found::Nothing | Found::Several => None,
    }
}

#[test]
fn both_tuples_lead_to_each_other_whoever_is_called_the_source() {
    let mut table = table();
    table.begin(to_service(1, BACKENDS[0]), at(10));
    let find = |ends: [&str; 2]| table.find(6, ends.map(end), packets(10, 12));
    let one = |stage, ends: [&str; 2]| Found::One(Other { stage, ends: ends.map(end) });
    assert_eq!(find([CLIENT, SERVICE]), one(NatStage::Before, [CLIENT, BACKENDS[0]]));
    assert_eq!(find([SERVICE, CLIENT]), one(NatStage::Before, [BACKENDS[0], CLIENT]));
    assert_eq!(find([CLIENT, BACKENDS[0]]), one(NatStage::Behind, [CLIENT, SERVICE]));
    assert_eq!(find([BACKENDS[0], CLIENT]), one(NatStage::Behind, [SERVICE, CLIENT]));
    assert_eq!(find([CLIENT, BACKENDS[1]]), Found::Nothing);
    assert_eq!(table.find(17, [CLIENT, SERVICE].map(end), packets(10, 12)), Found::Nothing);
}

#[test]
fn a_record_before_or_after_a_connection_is_not_its_own() {
    let mut table = table();
    table.begin(to_service(1, BACKENDS[0]), at(10));
    table.end(to_service(1, BACKENDS[0]), EVER, at(20));
    let known = |from, until| backend(&table, packets(from, until)).is_some();
    assert!(known(10, 10) && known(15, 15) && known(19, 20) && known(5, 30));
    assert!(!known(5, 9) && !known(20, 30));
}

#[test]
fn a_tuple_used_again_is_told_apart_by_time() {
    let mut table = table();
    for (n, chosen) in (0..).zip(BACKENDS) {
        table.begin(to_service(n, chosen), at(10 * Time::from(n)));
        table.end(to_service(n, chosen), EVER, at(10 * Time::from(n) + 9));
    }
    for (n, chosen) in (0..).zip(BACKENDS) {
        assert_eq!(backend(&table, packets(10 * n + 1, 10 * n + 8)), Some(end(chosen)));
    }
    let both = [CLIENT, SERVICE].map(end);
    assert_eq!(table.find(6, both, packets(5, 15)), Found::Several);
    // The tuple behind is another one each time.
    assert!(matches!(table.find(6, [CLIENT, BACKENDS[1]].map(end), packets(0, 30)), Found::One(_)));
}

/// The kernel ends a connection in TIME_WAIT when its tuple is opened again, and says both at once.
#[test]
fn where_one_follows_another_at_once_the_edge_is_either_ones() {
    let mut table = table();
    table.begin(to_service(1, BACKENDS[0]), at(10));
    let uncertain = within(SECOND, 20);
    table.end(to_service(1, BACKENDS[0]), EVER, uncertain);
    table.begin(to_service(2, BACKENDS[1]), uncertain);
    assert_eq!(backend(&table, packets(11, 20)), None, "certainly both");
    assert_eq!(backend(&table, Window { from: NOON + 11 * SECOND, until: uncertain.until - 1 }), None);
    assert_eq!(backend(&table, packets(11, 18)), Some(end(BACKENDS[0])));
    assert_eq!(
        backend(&table, Window { from: uncertain.from + 1, until: NOON + 25 * SECOND }),
        Some(end(BACKENDS[1]))
    );
    let between = Window { from: uncertain.from + 1, until: uncertain.until - 1 };
    assert_eq!(backend(&table, between), Some(end(BACKENDS[1])), "a record of the first one began earlier");
}

/// The tuple's next connection may be one that nobody translates, and so is not in the table.
#[test]
fn what_begins_when_a_connection_may_have_ended_is_not_its_own() {
    let mut table = table();
    table.begin(to_service(1, BACKENDS[0]), at(10));
    table.end(to_service(1, BACKENDS[0]), EVER, within(SECOND, 20));
    assert_eq!(backend(&table, packets(10, 20)), Some(end(BACKENDS[0])));
    let next = Window { from: NOON + 19 * SECOND + 1, until: NOON + 30 * SECOND };
    assert_eq!(table.find(6, [CLIENT, SERVICE].map(end), next), Found::Nothing);
    // One that began and ended at once is known all the same.
    let short = numbered(1);
    table.begin(short, within(SECOND, 40));
    table.end(short, EVER, within(SECOND, 40));
    let packets = Window { from: NOON + 40 * SECOND - 5, until: NOON + 40 * SECOND - 1 };
    assert!(matches!(table.find(6, short.before, packets), Found::One(_)));
}

#[test]
fn connections_that_say_the_same_are_one_answer() {
    let mut table = table();
    for n in 0..3 {
        table.begin(to_service(n, BACKENDS[0]), at(10 * Time::from(n)));
        table.end(to_service(n, BACKENDS[0]), EVER, at(10 * Time::from(n) + 5));
    }
    assert_eq!(backend(&table, packets(0, 30)), Some(end(BACKENDS[0])));
}

#[test]
fn an_end_that_was_lost_follows_from_the_next_begin() {
    let mut table = table();
    table.begin(to_service(1, BACKENDS[0]), at(10));
    table.found(to_service(1, BACKENDS[0]), EVER, NOON + 30 * SECOND);
    table.begin(to_service(2, BACKENDS[1]), at(50));
    assert_eq!(backend(&table, packets(10, 30)), Some(end(BACKENDS[0])));
    assert_eq!(backend(&table, packets(51, 60)), Some(end(BACKENDS[1])));
    // In another zone the same tuple may be another connection's.
    table.begin(Connection { zone: 9, ..to_service(3, BACKENDS[2]) }, at(60));
    assert_eq!(table.find(6, [CLIENT, SERVICE].map(end), packets(61, 61)), Found::Several);
}

#[test]
fn what_a_look_finds_has_begun_since_ever_and_what_it_misses_has_ended() {
    let mut table = table();
    let (there, gone) =
        (to_service(1, BACKENDS[0]), Connection { protocol: 17, ..to_service(2, BACKENDS[1]) });
    table.found(there, EVER, NOON);
    table.found(gone, EVER, NOON);
    assert_eq!(backend(&table, packets(0, 0)), Some(end(BACKENDS[0])));
    assert_eq!(backend(&table, Window { from: 5, until: 9 }), Some(end(BACKENDS[0])));
    // The next look finds one of the two.
    let look = NOON + 60 * SECOND;
    table.found(there, EVER, look + SECOND);
    assert!(table.sweep(0, 1, look, look + 2 * SECOND) && !table.sweep(1, 1, look, look + 2 * SECOND));
    let udp = |table: &Table, packets| table.find(17, [CLIENT, SERVICE].map(end), packets);
    assert!(matches!(udp(&table, packets(30, 30)), Found::One(_)), "it may have lived until then");
    assert_eq!(udp(&table, packets(63, 63)), Found::Nothing);
    assert!(backend(&table, packets(63, 63)).is_some());
    // A look that passed over it was wrong: it is there.
    table.found(gone, EVER, look + 60 * SECOND);
    assert!(matches!(udp(&table, packets(63, 63)), Found::One(_)));
    // One that was said to have ended isn't there again, even if the kernel calls the next one the same.
    table.end(gone, EVER, at(200));
    table.found(gone, at(200), NOON + 210 * SECOND);
    assert_eq!(table.len(), 3);
}

#[test]
fn a_begin_that_comes_after_the_look_that_found_it_is_no_other_connection() {
    let mut table = table();
    table.found(to_service(1, BACKENDS[0]), EVER, NOON);
    table.begin(to_service(1, BACKENDS[0]), at(0));
    assert_eq!(table.len(), 1);
}

#[test]
fn an_end_of_what_was_not_known_is_kept_for_its_records() {
    let mut table = table();
    table.end(to_service(1, BACKENDS[0]), EVER, at(10));
    assert_eq!(backend(&table, packets(5, 9)), Some(end(BACKENDS[0])));
    assert_eq!(backend(&table, packets(11, 12)), None);
}

#[test]
fn ended_connections_are_forgotten_in_time() {
    let mut table = table();
    for (n, second) in [(0_u8, 10), (1, 20)] {
        let connection = to_service(n.into(), BACKENDS[usize::from(n)]);
        table.begin(connection, at(second));
        table.end(connection, EVER, at(second + 5));
    }
    table.expire(NOON + 14 * SECOND);
    assert_eq!(table.len(), 2);
    table.expire(NOON + 16 * SECOND);
    assert_eq!((table.len(), backend(&table, packets(10, 15))), (1, None));
    assert_eq!(backend(&table, packets(20, 25)), Some(end(BACKENDS[1])));
    table.expire(Time::MAX);
    assert_eq!((table.len(), table.index.len(), table.given_up()), (0, 0, GivenUp::default()));
}

fn numbered(n: u16) -> Connection {
    let client = (end(CLIENT).0, 1_024 + n);
    Connection {
        before: [client, end(SERVICE)],
        behind: [client, end(BACKENDS[0])],
        ..to_service(0, BACKENDS[0])
    }
}

#[test]
fn at_the_bound_the_first_ended_goes_and_else_the_new_one() {
    let mut table = Table::new(3, 7);
    let known = |table: &Table, n| table.find(6, numbered(n).before, packets(0, 100)) != Found::Nothing;
    (0..3).for_each(|n| table.begin(numbered(n), at(n.into())));
    table.begin(numbered(3), at(3));
    assert_eq!(table.given_up(), GivenUp { refused: 1, forgotten: 0 });
    assert!(!known(&table, 3));
    table.end(numbered(1), EVER, at(4));
    table.end(numbered(0), EVER, at(5));
    table.begin(numbered(4), at(6));
    assert_eq!(table.given_up(), GivenUp { refused: 1, forgotten: 1 });
    assert_eq!([0, 1, 2, 4].map(|n| known(&table, n)), [true, false, true, true]);
    assert_eq!((table.len(), table.slots.len()), (3, 3));
}

#[test]
fn a_tuple_that_is_used_over_and_over_does_not_fill_the_table() {
    let mut table = Table::new(1_000, 7);
    for n in 0..10_000 {
        let connection = to_service(n, BACKENDS[n as usize % 3]);
        table.begin(connection, at(n.into()));
        table.end(connection, EVER, at(n.into()));
    }
    assert_eq!(table.len(), TUPLE_MAX);
    assert_eq!(table.given_up().forgotten, 10_000 - TUPLE_MAX as u64);
    assert!(table.ended.len() <= 2_000, "{}", table.ended.len());
    assert!(backend(&table, packets(9_999, 9_999)).is_some());
}

/// What can happen to one of a few connections.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(u16),
    End(u16),
    Found(u16),
    Sweep,
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u16).prop_map(Step::Begin),
        3 => (0..12_u16).prop_map(Step::End),
        1 => (0..12_u16).prop_map(Step::Found),
        1 => Just(Step::Sweep),
        1 => Just(Step::Expire),
    ]
}

proptest! {
    /// Whatever comes in whatever order: places, index and bound fit together, and who lives is found.
    #[test]
    fn the_books_fit_together(steps in prop::collection::vec(step(), 0..300)) {
        let mut table = Table::new(8, 7);
        for (second, step) in (1..).zip(steps) {
            match step {
                Step::Begin(n) => table.begin(numbered(n), at(second)),
                Step::End(n) => table.end(numbered(n), EVER, at(second)),
                Step::Found(n) => table.found(numbered(n), EVER, NOON + second * SECOND),
                Step::Sweep => {
                    let now = NOON + second * SECOND;
                    table.sweep(0, usize::MAX, now - 20 * SECOND, now);
                }
                Step::Expire => table.expire(NOON + second.saturating_sub(10) * SECOND),
            }
            let all: Vec<_> = table.slots.iter().flatten().cloned().collect();
            prop_assert_eq!(all.len(), table.len());
            prop_assert!(table.len() <= 8);
            prop_assert_eq!(table.index.len(), 2 * table.len());
            for slot in &all {
                let until = if slot.is_alive() { NOON + second * SECOND } else { slot.span.ended.until };
                for ends in [slot.connection.before, slot.connection.behind] {
                    let found = table.find(6, ends, Window { from: slot.span.began.from, until });
                    prop_assert!(found != Found::Nothing, "{:?}", slot);
                }
            }
            let ended = all.iter().filter(|slot| !slot.is_alive()).count();
            prop_assert!(table.ended.len() >= ended);
        }
    }
}
