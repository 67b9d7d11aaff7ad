//! An agent that takes more than it may: what it does without, and that nothing is missing in its books.
//!
//! What the process takes is made up, so that the tests decide when it is too much.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

mod parts;

use mermin_flow::{FlowConfig, FlowEndReason, FlowRecord, Interval, Tally};
use mermin_pipeline::{Budget, BudgetsPulse, Observer, Outcome, PipelineConfig, Stages, Usage, start};
use parts::{Collected, Synthetic, assert_settled, config, count, in_reader, stages};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the process seems to take.
#[derive(Clone, Default)]
struct Taken {
    /// Thousandths of a core.
    cores: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Taken {
    /// A budget of one core and a hundred megabytes, looked at often.
    fn budget(&self) -> Budget {
        let (taken, mut cpu, mut looked) = (self.clone(), Duration::ZERO, Instant::now());
        let usage = move || {
            let passed = looked.elapsed();
            looked += passed;
            cpu += passed.mul_f64(taken.cores.load(Ordering::Relaxed) as f64 / 1_000.0);
            Usage { cpu, memory: taken.bytes.load(Ordering::Relaxed), throttled: 0 }
        };
        Budget {
            cpu: Some(1.0),
            memory: Some(100_000_000),
            sampling: mermin_pipeline::LOWEST_RATE,
            usage: Box::new(usage),
            interval: Duration::from_millis(2),
        }
    }

    fn cores(&self, thousandths: u64) {
        self.cores.store(thousandths, Ordering::Relaxed);
    }

    fn bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// Is told about the run again and again, until it says that it is over.
type Phase = Box<dyn FnMut(&Observer, &BudgetsPulse) -> bool>;

/// Runs live traffic of `flows` flows; one of `phases` comes after the other.
fn run(
    taken: &Taken,
    flows: u64,
    flow: &FlowConfig,
    mut phases: Vec<Phase>,
) -> (Outcome<Synthetic<true>>, Collected) {
    let collected = Collected::default();
    let source = Synthetic::<true>::new(u64::MAX, flows);
    let stages = Stages { budget: taken.budget(), ..stages(source, &collected) };
    // On a busy machine the end may take long.
    let config = PipelineConfig { shutdown_timeout: Interval::seconds(240), ..config(2, 1) };
    let running = start(&config, flow, stages).unwrap();
    let observer = running.observer();
    phases.reverse();
    let outcome = running.wait(|| {
        if phases.last_mut().is_none_or(|phase| phase(&observer, &observer.pulse().budgets)) {
            phases.pop();
        }
        phases.is_empty()
    });
    (outcome, collected)
}

#[test]
fn processor_time_that_is_short_costs_reports_and_names_and_comes_back() {
    let taken = Taken::default();
    let enough = taken.clone();
    taken.cores(2_000);
    // Every packet ends a flow, so that there are records whatever is put off.
    let flow = FlowConfig { udp_timeout: "100ms".parse().unwrap(), ..FlowConfig::default() };
    // Records delivered when the last step was seen taken, and when all were seen taken back.
    let delivered = |observer: &Observer| observer.pulse().outputs[0].delivered;
    let (mut without, mut again) = (None, None);
    let (outcome, collected) = run(
        &taken,
        200,
        &flow,
        vec![
            Box::new(move |observer, budgets| {
                if budgets.cpu.step < budgets.cpu.steps {
                    return false;
                }
                let all = [
                    "periodic reports are put off",
                    "records go without names",
                    "one packet in 64 is metered",
                ];
                assert_eq!(budgets.cpu.without, all);
                delivered(observer) > *without.get_or_insert(delivered(observer)) + 1_000
            }),
            Box::new(move |observer, budgets| {
                enough.cores(0);
                budgets.cpu.step == 0
                    && delivered(observer) > *again.get_or_insert(delivered(observer)) + 10_000
            }),
        ],
    );
    assert_settled(&outcome);
    let ledger = &outcome.statistics.ledger;
    assert_eq!(ledger.lost.values().map(|lost| lost.packets).sum::<u64>(), 0);
    let records = collected.records.lock().unwrap();
    let (omitted, named): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.enrichment.omitted);
    assert!(omitted.iter().all(|record| record.source.identity.name.is_none()));
    assert!(named.iter().all(|record| record.source.identity.name.is_some()));
    assert!(omitted.len() >= 1_000 && !named.is_empty(), "{} and {}", omitted.len(), named.len());
    let budgets = outcome.statistics.budgets.unwrap();
    assert_eq!((budgets.cpu.step, budgets.cpu.without.len()), (0, 0));
    assert!(budgets.cpu.changes >= 4, "{budgets:?}");
}

/// What records say that there was, within five standard errors.
fn assert_estimated(records: &[FlowRecord], seen: Tally) {
    let (mut packets, mut bytes, mut variances) = (0, 0, [0.0; 2]);
    for record in records {
        for counts in record.estimates() {
            packets += counts.packets;
            bytes += counts.frame_bytes;
        }
        for direction in record.sampled.iter().flat_map(|sampled| sampled.directions) {
            variances[0] += direction.packets_variance as f64;
            variances[1] += direction.bytes_variance as f64;
        }
    }
    let [packets_error, bytes_error] = variances.map(f64::sqrt);
    assert!(packets_error > 0.0 && bytes_error > 0.0);
    let off = packets as f64 - seen.packets as f64;
    assert!(off.abs() < 5.0 * packets_error, "{packets} of {seen:?}, give or take {packets_error}");
    // The error is that of IP bytes: of these packets 14 less each.
    let off = (bytes as f64 - seen.bytes as f64) * 100.0 / 114.0;
    assert!(off.abs() < 5.0 * bytes_error, "{bytes} of {seen:?}, give or take {bytes_error}");
}

#[test]
fn processor_time_that_stays_short_costs_packets_last_and_records_say_so() {
    let taken = Taken::default();
    let enough = taken.clone();
    taken.cores(2_000);
    // Each step is seen taken, then all are taken back; at every look the books balance.
    let (mut seen, mut left_out, mut again) = (BTreeSet::new(), 0, None);
    let look = |observer: &Observer| {
        let now = observer.snapshot(Duration::from_secs(60)).unwrap();
        assert!(now.ledger.balances(), "{:#?}", now.ledger);
        now.ledger
    };
    let rates = [2, 4, 8, 16, 32, 64].map(|n| format!("one packet in {n} is metered"));
    let (outcome, collected) = run(
        &taken,
        200,
        &FlowConfig::default(),
        vec![
            Box::new(move |observer, budgets| {
                seen.extend(budgets.cpu.without.get(2).cloned());
                let ledger = look(observer);
                let goes_on = ledger.sampled_out.packets > left_out;
                left_out = ledger.sampled_out.packets;
                assert!(seen.iter().all(|rate| rates.contains(rate)), "{seen:?}");
                assert!(left_out == 0 || budgets.cpu.step > 2, "{budgets:?}");
                budgets.cpu.step == budgets.cpu.steps && goes_on && left_out > 100_000
            }),
            Box::new(move |observer, budgets| {
                enough.cores(0);
                let metered = look(observer).metered.packets;
                budgets.cpu.step == 0 && metered > *again.get_or_insert(metered) + 100_000
            }),
        ],
    );
    assert_settled(&outcome);
    let ledger = &outcome.statistics.ledger;
    assert_eq!(ledger.lost.values().map(|lost| lost.packets).sum::<u64>(), 0);
    assert_eq!(ledger.metered + ledger.sampled_out, ledger.seen);
    let records = collected.records.lock().unwrap();
    let metered: Tally = records.iter().map(|record| record.tally).sum();
    assert_eq!(metered, ledger.metered);
    let rates: BTreeSet<u32> =
        records.iter().flat_map(|record| &record.sampled).flat_map(|sampled| sampled.one_in).collect();
    assert!(rates.last() == Some(&64) && rates.iter().all(|n| n.is_power_of_two() && *n > 1), "{rates:?}");
    assert!(records.iter().any(|record| record.sampled.is_none()), "it is over at last");
    assert_estimated(&records, ledger.seen);
}

#[test]
fn memory_that_is_short_costs_flows_their_place_and_nothing_else() {
    let taken = Taken::default();
    let (short, enough) = (taken.clone(), taken.clone());
    taken.bytes(10_000_000);
    let flow = FlowConfig { table_capacity: count(1_024), ..FlowConfig::default() };
    let flows = |observer: &Observer| observer.snapshot(Duration::from_secs(5)).map(|now| now.flows_active);
    let (outcome, collected) = run(
        &taken,
        640,
        &flow,
        vec![
            Box::new(move |observer, budgets| {
                assert_eq!(budgets.memory.step, 0);
                let full = flows(observer) > Some(500);
                if full {
                    short.bytes(95_000_000);
                }
                full
            }),
            Box::new(move |observer, budgets| {
                let over = budgets.memory.step == budgets.memory.steps && flows(observer) <= Some(128);
                if over {
                    assert_eq!(
                        budgets.memory.without,
                        ["periodic reports are put off", "bounds are 1/8 of what is configured"]
                    );
                    enough.bytes(10_000_000);
                }
                over
            }),
            Box::new(move |observer, budgets| budgets.memory.step == 0 && flows(observer) > Some(500)),
        ],
    );
    assert_settled(&outcome);
    let records = collected.records.lock().unwrap();
    let evicted = records.iter().filter(|record| record.end_reason == Some(FlowEndReason::LackOfResources));
    assert_eq!(evicted.count() as u64, outcome.statistics.flows_evicted);
    assert!(outcome.statistics.flows_evicted >= 500 - 128);
}

#[test]
fn bounds_that_do_not_fit_are_smaller_from_the_start() {
    let taken = Taken::default();
    taken.bytes(30_000_000);
    // 131 072 flows and 65 536 observations need 63 MB, records 16 MB, and there are 60.
    let (outcome, _) = run(
        &taken,
        10,
        &FlowConfig::default(),
        vec![Box::new(|_, budgets| {
            assert_eq!(budgets.memory.without, ["bounds are 1/2 of what is configured"]);
            assert_eq!((budgets.memory.step, budgets.memory.changes), (1, 0));
            true
        })],
    );
    assert_settled(&outcome);
}

/// It takes the time that it needs.
#[test]
fn a_replay_has_no_budget_of_processor_time() {
    for config in [config(2, 1), in_reader()] {
        let (taken, collected) = (Taken::default(), Collected::default());
        taken.cores(5_000);
        let source = Synthetic::<false>::new(100_000, 10);
        let stages = Stages { budget: taken.budget(), ..stages(source, &collected) };
        let outcome = start(&config, &FlowConfig::default(), stages).unwrap().wait(|| false);
        assert_settled(&outcome);
        let budgets = outcome.statistics.budgets.unwrap();
        assert_eq!((budgets.cpu.budget, budgets.cpu.changes), (None, 0));
        assert_eq!(outcome.statistics.ledger.sampled_out, Tally::ZERO);
        assert_eq!(budgets.memory.budget, Some(100_000_000.0));
    }
}
