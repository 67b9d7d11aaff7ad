//! Reads every figure of the running agent, once.

use super::process::Process;
use super::table::{self, AMOUNT_UNITS, TALLY_UNITS};
use crate::agent::{Agent, KindView, KubernetesView};
use crate::reload::Verdict;
use mermin_enrich::ConntrackReading;
use mermin_flow::{Amount, Delivery, DeliveryState, Family, Label, Loss, Metric, Sample, Tally, Value};
use mermin_pipeline::{
    BreakerState, BudgetPulse, BudgetsPulse, ChannelPulse, Ledger, OutputBook, Pulse, Statistics,
};
use mermin_wire::Unmetered;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// All families of `agent`, in the table's order.
pub(crate) fn gather(agent: &Agent) -> Vec<Family> {
    let began = Instant::now();
    let (statistics, consistent) = agent.statistics();
    let pulse = agent.pulse();
    let mut all = Gathering(Vec::new());
    all.ledger(&statistics.ledger, consistent);
    all.outputs(&statistics.outputs, &pulse);
    all.flows(&statistics, pulse.budgets.left_of(agent.present.means().table_capacity));
    all.stages(&pulse);
    all.journal(&pulse);
    all.capture(agent);
    all.kubernetes(agent.kubernetes().as_ref());
    all.conntrack(agent.conntrack());
    all.configuration(agent);
    all.one(&table::BUILD, [("version", env!("CARGO_PKG_VERSION").into())], 1);
    all.one(&table::READY, [], u64::from(agent.readiness().is_ready()));
    all.number(&table::SCRAPE_DURATION, began.elapsed().as_secs_f64());
    all.budgets(&pulse.budgets);
    all.process(Process::this());
    all.0
}

/// Finds a count among those of a delivery.
type CountOf = fn(&Delivery) -> &AtomicU64;

/// A metric with where its value is found.
type Figure<From, To> = (&'static Metric, fn(&From) -> To);

struct Gathering(Vec<Family>);

fn sample<const N: usize>(labels: [Label; N], value: impl Into<u64>) -> Sample {
    Sample { labels: labels.into(), value: Value::Count(value.into()) }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// 1 for the present one of a closed set of states, 0 for the others.
fn states<'a>(
    labels: &'a [Label],
    all: &'a [&'static str],
    present: &'a str,
) -> impl Iterator<Item = Sample> + 'a {
    all.iter().map(move |state| {
        let labels = labels.iter().cloned().chain([("state", Cow::Borrowed(*state))]).collect();
        Sample { labels, value: Value::Count(u64::from(*state == present)) }
    })
}

impl Gathering {
    fn many(&mut self, metric: &'static Metric, samples: impl IntoIterator<Item = Sample>) {
        let samples: Vec<_> = samples.into_iter().collect();
        if !samples.is_empty() {
            self.0.push(Family { metric, samples });
        }
    }

    fn one<const N: usize>(&mut self, metric: &'static Metric, labels: [Label; N], value: u64) {
        self.many(metric, [sample(labels, value)]);
    }

    fn number(&mut self, metric: &'static Metric, value: f64) {
        self.many(metric, [Sample { labels: Vec::new(), value: Value::Number(value) }]);
    }

    /// A term in all units of a tally.
    fn tallies(&mut self, metrics: &'static [Metric; 4], terms: &[(Vec<Label>, Tally)]) {
        for (metric, unit) in metrics.iter().zip(TALLY_UNITS) {
            self.many(
                metric,
                terms.iter().map(|(labels, tally)| Sample {
                    labels: labels.clone(),
                    value: Value::Count(unit(tally)),
                }),
            );
        }
    }

    /// A term in all units of an amount.
    fn amounts(&mut self, metrics: &'static [Metric; 3], terms: &[(Vec<Label>, Amount)]) {
        for (metric, unit) in metrics.iter().zip(AMOUNT_UNITS) {
            self.many(
                metric,
                terms.iter().map(|(labels, amount)| Sample {
                    labels: labels.clone(),
                    value: Value::Count(unit(amount)),
                }),
            );
        }
    }

    fn ledger(&mut self, ledger: &Ledger, consistent: bool) {
        self.tallies(&table::SEEN, &[(Vec::new(), ledger.seen)]);
        self.tallies(&table::VERDICT, &verdicts(ledger));
        let places = |terms: &BTreeMap<&'static str, Tally>| -> Vec<_> {
            terms.iter().map(|(place, tally)| (vec![("place", Cow::Borrowed(*place))], *tally)).collect()
        };
        self.tallies(&table::IN_FLIGHT, &places(&ledger.in_flight));
        self.tallies(&table::RESIDENT, &places(&ledger.resident));
        self.tallies(&table::RELEASED, &[(Vec::new(), ledger.released)]);
        self.one(&table::LEDGER_CONSISTENT, [], u64::from(consistent));
        self.one(&table::LEDGER_INEXACT, [], ledger.inexact.len() as u64);
    }

    fn outputs(&mut self, books: &[(String, OutputBook)], pulse: &Pulse) {
        let output = |name: &str| ("output", Cow::Owned(name.to_owned()));
        let handed = books.iter().map(|(name, book)| (vec![output(name)], book.handed));
        self.amounts(&table::HANDED, &handed.collect::<Vec<_>>());
        let recovered = books.iter().map(|(name, book)| (vec![output(name)], book.recovered));
        self.amounts(&table::RECOVERED, &recovered.collect::<Vec<_>>());
        let settled: Vec<_> = books.iter().flat_map(|(name, book)| settled(name, book, pulse)).collect();
        self.amounts(&table::SETTLED, &settled);
        let waiting = books.iter().flat_map(|(name, book)| {
            [("queue", book.queued), ("spool", book.spooled)]
                .map(|(place, amount)| (vec![output(name), ("place", place.into())], amount))
        });
        self.amounts(&table::WAITING, &waiting.collect::<Vec<_>>());
        let inexact = |(name, book): &(String, OutputBook)| sample([output(name)], book.inexact.len() as u64);
        self.many(&table::OUTPUT_INEXACT, books.iter().map(inexact));
        let healthy = pulse.outputs.iter().map(|one| sample([output(&one.name)], one.is_healthy()));
        self.many(&table::OUTPUT_HEALTHY, healthy);
        let all = BreakerState::ALL.map(BreakerState::name);
        let mut breakers = Vec::new();
        for one in &pulse.outputs {
            breakers.extend(states(&[output(&one.name)], &all, one.breaker.name()));
        }
        self.many(&table::OUTPUT_BREAKER, breakers);
        let opened = pulse.outputs.iter().map(|one| sample([output(&one.name)], one.opened));
        self.many(&table::OUTPUT_BREAKER_OPENED, opened);
        let buffers = || pulse.outputs.iter().filter_map(|one| Some((one, one.buffer.as_ref()?)));
        let bytes = buffers().map(|(one, buffer)| sample([output(&one.name)], buffer.bytes));
        self.many(&table::OUTPUT_BUFFER_BYTES, bytes);
        let capacity = buffers().map(|(one, buffer)| sample([output(&one.name)], buffer.capacity));
        self.many(&table::OUTPUT_BUFFER_CAPACITY, capacity);
        let works = buffers().map(|(one, buffer)| sample([output(&one.name)], buffer.trouble.is_none()));
        self.many(&table::OUTPUT_BUFFER_WRITABLE, works);
        self.deliveries(pulse);
    }

    fn journal(&mut self, pulse: &Pulse) {
        let Some(journal) = &pulse.journal else { return };
        self.one(&table::JOURNAL_CUTS, [], journal.cuts);
        self.one(&table::JOURNAL_BYTES, [], journal.bytes);
        self.one(&table::JOURNAL_WRITABLE, [], u64::from(journal.trouble.is_none()));
    }

    fn deliveries(&mut self, pulse: &Pulse) {
        let outputs: Vec<(Label, &Delivery)> = pulse
            .outputs
            .iter()
            .filter_map(|one| Some((("output", Cow::Owned(one.name.clone())), one.delivery.as_deref()?)))
            .collect();
        let counts: [(&'static Metric, CountOf); 6] = [
            (&table::OUTPUT_REQUESTS, |delivery| &delivery.requests),
            (&table::OUTPUT_RETRIES, |delivery| &delivery.retries),
            (&table::OUTPUT_FAILURES, |delivery| &delivery.failures),
            (&table::OUTPUT_CONNECTIONS, |delivery| &delivery.connections),
            (&table::OUTPUT_SENT, |delivery| &delivery.bytes),
            (&table::OUTPUT_IN_FLIGHT, |delivery| &delivery.in_flight),
        ];
        for (metric, count) in counts {
            let value =
                |(output, delivery): &(Label, &Delivery)| sample([output.clone()], load(count(delivery)));
            self.many(metric, outputs.iter().map(value));
        }
        let latency = outputs.iter().map(|(output, delivery)| {
            let (buckets, sum) = delivery.latency();
            Sample { labels: vec![output.clone()], value: Value::Distribution { buckets, sum } }
        });
        self.many(&table::OUTPUT_DURATION, latency);
        let all = DeliveryState::ALL.map(DeliveryState::name);
        let mut samples = Vec::new();
        for (output, delivery) in outputs {
            samples.extend(states(&[output], &all, delivery.condition().0.name()));
        }
        self.many(&table::OUTPUT_STATE, samples);
    }

    fn flows(&mut self, statistics: &Statistics, capacity: u64) {
        self.one(&table::FLOWS_ACTIVE, [], statistics.flows_active);
        self.one(&table::FLOW_TABLE_CAPACITY, [], capacity);
        self.one(&table::FLOWS_CREATED, [], statistics.flows_created);
        self.one(&table::FLOWS_RELEASED, [], statistics.flows_released);
        self.one(&table::FLOWS_EVICTED, [], statistics.flows_evicted);
        self.one(&table::PACKETS_PROCESSED, [], statistics.ledger.processed());
        let anomaly = |kind: &'static str| {
            let count = statistics.anomalies.get(kind).copied();
            sample([("kind", kind.into())], count.unwrap_or_default())
        };
        self.many(&table::ANOMALIES, table::ANOMALY_KINDS.map(anomaly));
    }

    fn stages(&mut self, pulse: &Pulse) {
        let stage = |name: &'static str| [("stage", Cow::Borrowed(name))];
        let mut stages = vec!["packet_reader", "packet_channel", "flow_workers"];
        if pulse.enrichment.is_some() {
            stages.extend(["enrichment_channel", "enrichment_workers"]);
        }
        stages.extend(pulse.coalescing.as_ref().map(|_| "coalescing"));
        let drops = |name: &&'static str| {
            let drops = if *name == "packet_channel" { pulse.packet_channel.drops } else { 0 };
            sample(stage(name), drops)
        };
        self.many(&table::STAGE_DROPS, stages.iter().map(drops));
        let merges = |name: &&'static str| {
            let waiting = pulse.coalescing.as_ref().filter(|_| *name == "coalescing");
            sample(stage(name), waiting.map_or(0, |waiting| waiting.merges))
        };
        self.many(&table::STAGE_MERGES, stages.iter().map(merges));
        let enrichment = pulse.enrichment.as_ref().map(|(_, workers)| workers);
        let mut panics = vec![
            sample(stage("packet_reader"), pulse.reader.panics),
            sample(stage("flow_workers"), pulse.flow_workers.panics),
        ];
        panics.extend(enrichment.map(|workers| sample(stage("enrichment_workers"), workers.panics)));
        let outputs = pulse.past_panics + pulse.outputs.iter().map(|output| output.panics).sum::<u64>();
        panics.push(sample(stage("outputs"), outputs));
        panics.push(sample(stage("tasks"), pulse.task_panics));
        self.many(&table::STAGE_PANICS, panics);
        if !pulse.detailed {
            return;
        }
        let (reader, workers) = (&pulse.reader, &pulse.flow_workers);
        let both = |reader, workers| {
            [sample(stage("packet_reader"), reader), sample(stage("flow_workers"), workers)]
        };
        self.many(&table::STAGE_PACKETS, both(reader.packets, workers.packets));
        let records =
            |workers: &mermin_pipeline::EnrichmentPulse| sample(stage("enrichment_workers"), workers.records);
        self.many(&table::STAGE_RECORDS, enrichment.map(records));
        self.many(&table::STAGE_BATCHES, both(reader.polls, workers.batches));
        self.channels(pulse);
        self.number(&table::READER_GAP, reader.longest_gap.as_secs_f64());
        if let Some(workers) = enrichment {
            self.one(&table::ENRICHMENT_HELD, [], workers.held);
            self.one(&table::ENRICHMENT_EARLY, [], workers.early);
        }
    }

    fn channels(&mut self, pulse: &Pulse) {
        let name = |name: &'static str| vec![("channel", Cow::Borrowed(name))];
        let mut channels = vec![(name("packet_channel"), &pulse.packet_channel)];
        channels.extend(pulse.coalescing.iter().map(|waiting| (name("coalescing"), &waiting.room)));
        channels.extend(pulse.enrichment.iter().map(|(channel, _)| (name("enrichment_channel"), channel)));
        channels.extend(pulse.outputs.iter().map(|output| {
            let mut labels = name("output_queue");
            labels.push(("output", Cow::Owned(output.name.clone())));
            (labels, &output.queue)
        }));
        let figures: [Figure<ChannelPulse, u64>; 4] = [
            (&table::CHANNEL_DEPTH, |channel| channel.depth),
            (&table::CHANNEL_CAPACITY, |channel| channel.capacity),
            (&table::CHANNEL_HIGH_WATER, |channel| channel.high_water),
            (&table::CHANNEL_WAITS, |channel| channel.waits),
        ];
        for (metric, figure) in figures {
            let value = |(labels, channel): &(Vec<Label>, &ChannelPulse)| Sample {
                labels: labels.clone(),
                value: Value::Count(figure(channel)),
            };
            self.many(metric, channels.iter().map(value));
        }
        let waits = channels.into_iter().filter_map(|(labels, channel)| {
            let wait = channel.wait.clone()?;
            Some(Sample { labels, value: Value::Distribution { buckets: wait.buckets, sum: wait.sum } })
        });
        self.many(&table::CHANNEL_WAIT, waits);
    }

    fn budgets(&mut self, budgets: &BudgetsPulse) {
        let both = [("cpu", &budgets.cpu), ("memory", &budgets.memory)];
        self.number(&table::BUDGET_CORES, budgets.cpu.budget.unwrap_or_default());
        self.number(&table::BUDGET_MEMORY, budgets.memory.budget.unwrap_or_default());
        let figures: [Figure<BudgetPulse, u64>; 2] = [
            (&table::SHEDDING_STEP, |budget| budget.step),
            (&table::SHEDDING_CHANGES, |budget| budget.changes),
        ];
        for (metric, figure) in figures {
            self.many(metric, both.map(|(name, budget)| sample([("budget", name.into())], figure(budget))));
        }
    }

    fn configuration(&mut self, agent: &Agent) {
        let Some(reloads) = &agent.reloads else { return };
        let last = reloads.last();
        let result = |(verdict, count): (Verdict, u64)| sample([("result", verdict.name().into())], count);
        self.many(&table::CONFIG_RELOADS, reloads.counts().map(result));
        let refused = last.as_ref().is_some_and(|last| last.verdict == Verdict::Refused);
        self.one(&table::CONFIG_VALID, [], u64::from(!refused));
        self.number(&table::CONFIG_TIME, reloads.fine_since());
        self.one(&table::CONFIG_AT_RESTART, [], reloads.at_restart() as u64);
    }

    fn capture(&mut self, agent: &Agent) {
        let Some(capture) = agent.capture() else { return };
        self.one(&table::INTERFACES_ATTACHED, [], capture.interfaces.len() as u64);
        let event = |(event, count): (&'static str, u64)| sample([("event", event.into())], count);
        self.many(&table::INTERFACE_EVENTS, capture.events().into_iter().map(event));
    }

    fn kubernetes(&mut self, view: Option<&KubernetesView>) {
        let present = view.map_or(KubernetesView::OFF, |view| view.state);
        self.many(&table::KUBERNETES_STATE, states(&[], &KubernetesView::STATES, present));
        let Some(view) = view else { return };
        let kind = |view: &KindView| ("kind", Cow::Borrowed(view.kind));
        let mut watches = Vec::new();
        for one in &view.kinds {
            watches.extend(states(&[kind(one)], &view.watch_states, one.state));
        }
        self.many(&table::KUBERNETES_WATCH_STATE, watches);
        let count = |of: fn(&KindView) -> u64| move |one: &KindView| sample([kind(one)], of(one));
        self.many(&table::KUBERNETES_OBJECTS, view.kinds.iter().map(count(|one| one.objects)));
        let ages = view
            .kinds
            .iter()
            .map(|one| Sample { labels: vec![kind(one)], value: Value::Number(one.age.as_secs_f64()) });
        self.many(&table::KUBERNETES_AGE, ages);
        let counts: [Figure<KindView, u64>; 5] = [
            (&table::KUBERNETES_EVENTS, |one| one.events),
            (&table::KUBERNETES_RECEIVED, |one| one.bytes),
            (&table::KUBERNETES_LISTS, |one| one.lists),
            (&table::KUBERNETES_ERRORS, |one| one.errors),
            (&table::KUBERNETES_UNREADABLE, |one| one.unreadable),
        ];
        for (metric, of) in counts {
            self.many(metric, view.kinds.iter().map(count(of)));
        }
    }

    fn conntrack(&mut self, reading: Option<ConntrackReading>) {
        let Some(reading) = reading else { return };
        for (metric, count) in [
            (&table::CONNTRACK_CONNECTIONS, reading.connections),
            (&table::CONNTRACK_EVENTS, reading.events),
            (&table::CONNTRACK_LOOKS, reading.looks),
            (&table::CONNTRACK_OVERRUNS, reading.overruns),
            (&table::CONNTRACK_REFUSED, reading.refused),
            (&table::CONNTRACK_FORGOTTEN, reading.forgotten),
            (&table::CONNTRACK_TRANSLATED, reading.translated),
            (&table::CONNTRACK_AMBIGUOUS, reading.ambiguous),
        ] {
            self.one(metric, [], count);
        }
    }

    fn process(&mut self, process: Process) {
        if let Some(seconds) = process.cpu_seconds {
            self.number(&table::CPU, seconds);
        }
        let counts = [
            (&table::RESIDENT_MEMORY, process.resident_bytes),
            (&table::VIRTUAL_MEMORY, process.virtual_bytes),
            (&table::OPEN_FILES, process.open_files),
            (&table::MAX_FILES, process.max_files),
            (&table::THREADS, process.threads),
        ];
        for (metric, count) in counts {
            self.many(metric, count.map(|count| sample([], count)));
        }
        if let Some(seconds) = process.started {
            self.number(&table::START_TIME, seconds);
        }
    }
}

/// Every verdict with every reason that it can have.
fn verdicts(ledger: &Ledger) -> Vec<(Vec<Label>, Tally)> {
    let verdict = |verdict: &'static str| vec![("verdict", Cow::Borrowed(verdict))];
    let mut terms = vec![
        (verdict("metered"), ledger.metered),
        (verdict("secondary"), ledger.secondary),
        (verdict("sampled_out"), ledger.sampled_out),
    ];
    terms.extend(ledger.filtered.iter().map(|(rule, tally)| {
        let mut labels = verdict("filtered");
        labels.push(("reason", Cow::Owned(rule.to_string())));
        (labels, *tally)
    }));
    let unmetered = Unmetered::ALL.map(Unmetered::name);
    let lost = Loss::ALL.map(Loss::name);
    for (name, known, counted) in
        [("unmetered", &unmetered[..], &ledger.unmetered), ("lost", &lost[..], &ledger.lost)]
    {
        let reasons: BTreeSet<_> = known.iter().chain(counted.keys()).copied().collect();
        for reason in reasons {
            let mut labels = verdict(name);
            labels.push(("reason", Cow::Borrowed(reason)));
            terms.push((labels, counted.get(reason).copied().unwrap_or_default()));
        }
    }
    terms
}

/// Every outcome that records of an output can have, with every reason.
fn settled(name: &str, book: &OutputBook, pulse: &Pulse) -> Vec<(Vec<Label>, Amount)> {
    let outcome =
        |outcome| vec![("output", Cow::Owned(name.to_owned())), ("outcome", Cow::Borrowed(outcome))];
    let known = pulse.outputs.iter().filter(|output| output.name == *name);
    let known = known.flat_map(|output| output.drop_reasons.iter().copied());
    let reasons: BTreeSet<_> = known.chain(book.dropped.keys().copied()).collect();
    let mut terms = vec![(outcome("delivered"), book.delivered)];
    for reason in reasons {
        let mut labels = outcome("dropped");
        labels.push(("reason", Cow::Borrowed(reason)));
        terms.push((labels, book.dropped.get(reason).copied().unwrap_or_default()));
    }
    terms.push((outcome("merged"), Amount { records: book.merged, ..Amount::default() }));
    terms
}
