//! The breaker against a simple model, and step by step.

use super::*;
use proptest::prelude::*;

#[test]
fn other_settings_count_for_failures_to_come_and_for_the_pause_under_way() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let settings = |failures, pause_max| BreakerConfig {
        failures: NonZeroU32::new(failures).unwrap(),
        pause: Interval(Duration::from_millis(100)),
        pause_max: Interval(Duration::from_millis(pause_max)),
        ..BreakerConfig::default()
    };
    let mut breaker = Breaker::new(settings(5, 800), start);
    assert_eq!(breaker.failed(3, at(0), u64::MAX), None);
    breaker.change(settings(4, 800), at(0));
    assert_eq!(breaker.failed(1, at(0), u64::MAX), Some(Change::Opened), "failures so far count");
    assert!(matches!(breaker.permit(at(0)), Permit::Pause(left) if left > Duration::from_millis(90)));
    breaker.change(settings(4, 10), at(20));
    assert_eq!(breaker.permit(at(20)), Permit::Pause(Duration::from_millis(10)));
    breaker.change(BreakerConfig { enabled: false, ..settings(4, 10) }, at(21));
    assert_eq!((breaker.state(), breaker.permit(at(21))), (BreakerState::Closed, Permit::Free));
    assert_eq!(breaker.failed(9, at(21), 0), None);
    breaker.change(settings(1, 10), at(22));
    assert_eq!(breaker.failed(1, at(22), 0), Some(Change::Opened));
    assert_eq!(breaker.opened(), 2);
}

#[derive(Clone, Debug)]
enum Step {
    Permit,
    Succeeded,
    Failed(u32),
    Stuck,
    /// Milliseconds pass.
    Later(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Permit),
        1 => Just(Step::Succeeded),
        4 => (1_u32..3).prop_map(Step::Failed),
        1 => Just(Step::Stuck),
        3 => (0_u64..1_500).prop_map(Step::Later),
    ]
}

/// The same from what has happened since it was closed last: no state but a list.
struct Model {
    failures_max: u32,
    /// Failures since the last success, while closed.
    failures: u32,
    /// Since it was opened: when each pause began, and whether the last of them is over and was followed by a probe.
    pauses: Vec<Instant>,
    probing: bool,
}

impl Model {
    /// The bounds of the present pause's end.
    fn bounds(&self) -> (Instant, Instant) {
        let begun = *self.pauses.last().unwrap();
        let whole = Duration::from_millis((100 << (self.pauses.len() - 1).min(10)).min(800));
        (begun + whole / 2, begun + whole)
    }

    fn state(&self) -> BreakerState {
        match (self.pauses.is_empty(), self.probing) {
            (true, _) => BreakerState::Closed,
            (false, true) => BreakerState::HalfOpen,
            (false, false) => BreakerState::Open,
        }
    }

    fn open(&mut self, now: Instant) {
        if self.state() != BreakerState::Open {
            self.pauses.push(now);
            self.probing = false;
        }
    }
}

fn breaker(failures: u32, start: Instant) -> Breaker {
    let config = BreakerConfig {
        failures: NonZeroU32::new(failures).unwrap(),
        pause: Interval(Duration::from_millis(100)),
        pause_max: Interval(Duration::from_millis(800)),
        ..BreakerConfig::default()
    };
    Breaker::new(config, start)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_a_simple_model_does(
        steps in prop::collection::vec((step(), any::<u64>()), 1..80),
        failures_max in 1_u32..6,
    ) {
        let start = Instant::now();
        let (mut now, mut breaker) = (start, breaker(failures_max, start));
        let mut model = Model { failures_max, failures: 0, pauses: Vec::new(), probing: false };
        let mut opened = 0;
        for (step, random) in steps {
            let was_closed = model.state() == BreakerState::Closed;
            let change = match step {
                Step::Later(millis) => {
                    now += Duration::from_millis(millis);
                    None
                }
                Step::Permit => {
                    let permit = breaker.permit(now);
                    match model.state() {
                        BreakerState::Closed => prop_assert_eq!(permit, Permit::Free),
                        BreakerState::HalfOpen => prop_assert_eq!(permit, Permit::Probe),
                        BreakerState::Open => {
                            let (least, most) = model.bounds();
                            match permit {
                                Permit::Probe => prop_assert!(now >= least, "too early"),
                                Permit::Pause(left) => {
                                    prop_assert!(now < most && now + left >= least && now + left <= most);
                                }
                                Permit::Free => prop_assert!(false, "it is open"),
                            }
                            model.probing = permit == Permit::Probe;
                        }
                    }
                    None
                }
                Step::Succeeded => {
                    let change = breaker.succeeded(now);
                    (model.failures, model.probing) = (0, false);
                    model.pauses.clear();
                    change
                }
                Step::Failed(attempts) => {
                    let change = breaker.failed(attempts, now, random);
                    model.failures += attempts;
                    if !was_closed || model.failures >= model.failures_max {
                        model.open(now);
                    }
                    change
                }
                Step::Stuck => {
                    let change = breaker.open(now, random);
                    model.open(now);
                    change
                }
            };
            prop_assert_eq!(breaker.state(), model.state());
            // The log hears of what turns, once.
            let is_closed = model.state() == BreakerState::Closed;
            match change {
                Some(Change::Opened) => prop_assert!(was_closed && !is_closed),
                Some(Change::Closed(_)) => prop_assert!(!was_closed && is_closed),
                None => prop_assert_eq!(was_closed, is_closed),
            }
            opened += u64::from(was_closed && !is_closed);
            prop_assert_eq!(breaker.opened(), opened);
        }
    }
}

#[test]
fn a_receiver_that_is_gone_and_comes_back() {
    let start = Instant::now();
    let mut breaker = breaker(3, start);
    let at = |millis| start + Duration::from_millis(millis);
    assert_eq!([breaker.failed(1, at(0), 0), breaker.failed(1, at(1), 0)], [None, None]);
    assert_eq!(breaker.permit(at(1)), Permit::Free);
    assert_eq!(breaker.failed(1, at(2), 0), Some(Change::Opened));
    assert_eq!(breaker.permit(at(2)), Permit::Pause(Duration::from_millis(50)));
    assert_eq!([breaker.permit(at(52)), breaker.permit(at(60))], [Permit::Probe; 2]);
    assert_eq!(breaker.failed(1, at(60), u64::MAX), None, "it is said once");
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.permit(at(259)), Permit::Pause(Duration::from_millis(1)), "twice as long");
    assert_eq!(breaker.permit(at(261)), Permit::Probe);
    assert_eq!(breaker.succeeded(at(270)), Some(Change::Closed(Duration::from_millis(268))));
    assert_eq!((breaker.permit(at(270)), breaker.opened()), (Permit::Free, 1));
    // What failed before is forgotten.
    assert_eq!(breaker.failed(2, at(280), 0), None);
}

#[test]
fn successes_in_between_keep_it_closed_and_one_call_that_is_stuck_opens_it() {
    let start = Instant::now();
    let mut breaker = breaker(2, start);
    for _ in 0..10 {
        assert_eq!((breaker.failed(1, start, 0), breaker.succeeded(start)), (None, None));
    }
    assert_eq!((breaker.open(start, 0), breaker.open(start, 0)), (Some(Change::Opened), None));
}

#[test]
fn one_that_is_switched_off_stays_closed() {
    let config = BreakerConfig { enabled: false, ..BreakerConfig::default() };
    let mut breaker = Breaker::new(config, Instant::now());
    assert_eq!(breaker.failed(100, Instant::now(), 0).or(breaker.open(Instant::now(), 0)), None);
    assert_eq!(breaker.permit(Instant::now()), Permit::Free);
}
