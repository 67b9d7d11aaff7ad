//! The metrics of an agent: what the table promises stands in the page, with its values, whatever the traffic.

use super::table::{When, sections};
use super::{Form, gather, metrics_page};
use crate::agent::{Agent, Capture, KindView, KubernetesView, Views};
use mermin_capture::links::{LinkCounts, LinkOn, Technology};
use mermin_export::{Materials, OutputSpec, build_all};
use mermin_flow::{
    Amount, Delivery, DeliveryState, Exporter, Failure, Family, FlowConfig, FlowRecord, Label, Metric,
    MetricKind, Observation, Polled, PortForm, Receipt, Sample, Sightings, Sink, Source, Tally, Value,
};
use mermin_pipeline::{DiskBuffer, PipelineConfig, Running, Stages, start};
use mermin_spool::{Fsync, Spool, SpoolSettings};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

#[test]
fn the_committed_page_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/metrics.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, metrics_page()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == metrics_page(), "{} is stale: UPDATE=1 cargo test -p mermin", path.display());
}

#[test]
fn names_keep_the_conventions() {
    let mut names = BTreeSet::new();
    for (_, metric) in sections().into_iter().flat_map(|section| section.metrics) {
        assert!(names.insert(metric.name), "{} is there twice", metric.name);
        assert!(metric.name.starts_with("mermin_") || metric.name.starts_with("process_"));
        assert!(!metric.name.ends_with("_total") && !metric.help.ends_with('.'), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_seconds"), metric.unit == "s", "{}", metric.name);
        assert_eq!(metric.name.ends_with("bytes"), metric.unit == "By", "{}", metric.name);
    }
}

/// Sends so many packets of as many flows, then nothing until it is closed.
struct Few {
    packets: u32,
    closed: bool,
}

impl Source for Few {
    const LIVE: bool = true;
    fn poll(&mut self, sink: &mut impl Sink, _: usize) -> Polled {
        for flow in 0..std::mem::take(&mut self.packets) {
            sink.observe(Observation {
                addresses: [u64::from(flow.to_be()), 0, 1, 0],
                port_form: PortForm::Ports,
                packets: 1,
                bytes: 100,
                frame_bytes: 114,
                buffers: 1,
                buffer_bytes: 114,
                ..Observation::EMPTY
            });
        }
        if self.closed { Polled::Ended } else { Polled::Drained }
    }
    fn wait(&mut self, at_most: Duration) {
        std::thread::sleep(at_most.min(Duration::from_millis(1)));
    }
    fn watermark(&self) -> u64 {
        0
    }
    fn rejected(&self) -> u64 {
        0
    }
    fn close(&mut self) {
        self.closed = true;
    }
    fn after_panic(&mut self, _: Tally) -> Tally {
        Tally::ZERO
    }
    fn sightings(&mut self) -> Option<Sightings> {
        let anomalies = [("ip_length_over_frame", 5), ("link_resyncs", 1)].into();
        let filtered = [("no_dns".into(), Tally::ZERO)].into();
        Some(Sightings { anomalies, filtered, ..Sightings::default() })
    }
}

/// An output with a receiver, and the folder of its disk buffer.
struct Received {
    delivery: Arc<Delivery>,
    _folder: TempDir,
}

impl Exporter for Received {
    fn name(&self) -> &str {
        "received"
    }
    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
        records.iter().for_each(|record| receipt.delivered += Amount::of(record));
        Ok(())
    }
    fn flush(&mut self, _: &mut Receipt) -> Result<(), Failure> {
        Ok(())
    }
    fn drop_reasons(&self) -> &'static [&'static str] {
        &["rejected"]
    }
    fn delivery(&self) -> Option<Arc<Delivery>> {
        Some(Arc::clone(&self.delivery))
    }
}

fn running(enable_metrics: bool, packets: u32, delivery: &Arc<Delivery>) -> Running<Few> {
    let config = PipelineConfig { enable_metrics, ..PipelineConfig::default() };
    let none = OutputSpec::parse("none").unwrap();
    let none = build_all(&[none], &Materials::default(), |_| {}).unwrap();
    let mut exporters: Vec<Box<dyn Exporter>> = none.into_iter().map(|open| open.exporter).collect();
    let folder = tempfile::tempdir().unwrap();
    // With details there is a disk buffer, too.
    let buffer = enable_metrics.then(|| {
        let spool =
            Spool::open(folder.path(), SpoolSettings { bytes: 1 << 20, fsync: Fsync::Never }).unwrap();
        ("received".to_owned(), DiskBuffer { spool, points: Arc::default() })
    });
    let buffers = buffer.into_iter().collect();
    let journal = enable_metrics.then(|| {
        let folder = tempfile::tempdir().unwrap();
        mermin_pipeline::RunJournal::open(folder.path(), b"test", &Arc::default()).unwrap().0
    });
    exporters.push(Box::new(Received { delivery: Arc::clone(delivery), _folder: folder }));
    let stages = Stages {
        source: Few { packets, closed: false },
        enricher: Some(Arc::new(mermin_enrich::Chain::default())),
        exporters,
        buffers,
        output_queue_capacity: 100,
        agent_id: String::new(),
        journal,
        budget: mermin_pipeline::Budget::default(),
        hold: mermin_pipeline::Hold::default(),
    };
    start(&config, &FlowConfig::default(), stages).unwrap()
}

fn agent(running: &Running<Few>, views: Views) -> Agent {
    Agent {
        command: "run",
        headline: Mutex::default(),
        started: std::time::Instant::now(),
        observer: running.observer(),
        points: Arc::default(),
        enricher: None,
        present: Arc::new(crate::agent::Present::of(&crate::config::Config::default(), "run")),
        reloads: views.capture.is_some().then(|| Arc::new(crate::reload::Reloads::new(Default::default()))),
        views,
        looked: Mutex::default(),
    }
}

fn all_views() -> Views {
    let interface = LinkOn {
        name: "eth0".into(),
        index: 2,
        technology: Technology::Tcx,
        since: SystemTime::now(),
        up: true,
    };
    let counts = LinkCounts { attached: 1, ..LinkCounts::default() };
    let capture = Capture { source: "ebpf".to_owned(), interfaces: vec![interface], counts };
    let kinds =
        ["pods", "nodes"].map(|kind| KindView { kind, state: "watching", objects: 7, ..KindView::default() });
    let kubernetes = KubernetesView {
        state: "ready",
        ready: true,
        server: String::new(),
        kinds: kinds.into(),
        watch_states: vec!["watching", "degraded"],
    };
    Views {
        capture: Some(Box::new(move || capture.clone())),
        kubernetes: Some(Box::new(move || kubernetes.clone())),
        conntrack: Some(Arc::default()),
    }
}

fn names(families: &[Family]) -> Vec<&'static str> {
    families.iter().map(|family| family.metric.name).collect()
}

fn told(wanted: impl Fn(When) -> bool) -> Vec<&'static str> {
    let all = sections().into_iter().flat_map(|section| section.metrics);
    all.filter(|(when, _)| wanted(*when)).map(|(_, metric)| metric.name).collect()
}

#[test]
fn everything_in_the_table_is_told_in_its_order_and_nothing_else() {
    let delivery = Arc::default();
    let full = running(true, 0, &delivery);
    let families = gather(&agent(&full, all_views()));
    assert_eq!(names(&families), told(|_| true));
    for family in &families {
        let mut seen = BTreeSet::new();
        for sample in &family.samples {
            let labels: Vec<_> = sample.labels.iter().map(|(name, _)| *name).collect();
            assert!(labels.iter().all(|label| family.metric.labels.contains(label)), "{family:?}");
            assert!(seen.insert(sample.labels.clone()), "twice: {sample:?} of {}", family.metric.name);
            let distribution = matches!(sample.value, Value::Distribution { .. });
            assert_eq!(distribution, family.metric.kind == MetricKind::Histogram, "{}", family.metric.name);
        }
    }
    let _ = full.wait(|| true);
    let plain = running(false, 0, &delivery);
    let families = gather(&agent(&plain, Views::default()));
    assert_eq!(names(&families), told(|when| matches!(when, When::Always | When::WithReceiver)));
    let _ = plain.wait(|| true);
}

fn value<'f>(families: &'f [Family], name: &str, labels: &[(&str, &str)]) -> &'f Value {
    let family = families.iter().find(|family| family.metric.name == name).unwrap();
    let fits = |sample: &&Sample| {
        labels
            .iter()
            .all(|(name, value)| sample.labels.iter().any(|label| label.0 == *name && label.1 == *value))
    };
    &family.samples.iter().find(fits).unwrap_or_else(|| panic!("{name} {labels:?}")).value
}

#[test]
fn figures_are_those_of_the_pipeline_and_their_number_is_fixed() {
    let delivery = Arc::new(Delivery::default());
    let running = running(true, 300, &delivery);
    let agent = agent(&running, all_views());
    let series = |families: &[Family]| families.iter().map(|family| family.samples.len()).sum::<usize>();
    let families = loop {
        let families = gather(&agent);
        if *value(&families, "mermin_flows_active", &[]) == Value::Count(300) {
            break families;
        }
        std::thread::yield_now();
    };
    for (name, labels, count) in [
        ("mermin_verdict_packets", &[("verdict", "metered")][..], 300),
        ("mermin_verdict_bytes", &[("verdict", "metered")], 300 * 114),
        ("mermin_verdict_packets", &[("verdict", "unmetered"), ("reason", "arp")], 0),
        ("mermin_verdict_packets", &[("verdict", "lost"), ("reason", "ring_full")], 0),
        ("mermin_verdict_packets", &[("verdict", "filtered"), ("reason", "no_dns")], 0),
        ("mermin_resident_packets", &[("place", "flow_table")], 300),
        ("mermin_released_packets", &[], 0),
        ("mermin_ledger_consistent", &[], 1),
        ("mermin_output_settled_records", &[("output", "none"), ("reason", "queue_full")], 0),
        ("mermin_output_settled_records", &[("output", "received"), ("reason", "rejected")], 0),
        ("mermin_output_state", &[("output", "received"), ("state", "idle")], 1),
        ("mermin_output_state", &[("output", "received"), ("state", "failing")], 0),
        ("mermin_output_recovered_records", &[("output", "received")], 0),
        ("mermin_output_buffer_capacity_bytes", &[("output", "received")], 1 << 20),
        ("mermin_output_buffer_writable", &[("output", "received")], 1),
        ("mermin_stage_packets", &[("stage", "packet_reader")], 300),
        ("mermin_interfaces_attached", &[], 1),
        ("mermin_kubernetes_state", &[("state", "ready")], 1),
        ("mermin_kubernetes_state", &[("state", "off")], 0),
        ("mermin_kubernetes_watch_state", &[("kind", "nodes"), ("state", "watching")], 1),
        ("mermin_kubernetes_objects", &[("kind", "pods")], 7),
        ("mermin_interface_events", &[("event", "restored")], 0),
        ("mermin_anomalies", &[("kind", "ip_length_over_frame")], 5),
        ("mermin_anomalies", &[("kind", "unresolved_fragments")], 0),
        ("mermin_ready", &[], 1),
    ] {
        assert_eq!(*value(&families, name, labels), Value::Count(count), "{name} {labels:?}");
    }
    let anomalies = families.iter().find(|family| family.metric.name == "mermin_anomalies").unwrap();
    assert_eq!(anomalies.samples.len(), 5, "of packets alone: {anomalies:?}");
    delivery.turn(DeliveryState::Failing, None);
    delivery.answered(Duration::from_millis(2));
    let later = gather(&agent);
    assert_eq!(*value(&later, "mermin_ready", &[]), Value::Count(0));
    assert_eq!(series(&families), series(&later));
    let outcome = running.wait(|| true);
    assert!(!outcome.timed_out && outcome.panicked.is_empty());
    // What a look a moment ago has found is no answer any more.
    let ended = gather(&agent);
    assert_eq!(series(&families), series(&ended));
    for (name, labels, count) in [
        ("mermin_flows_active", &[][..], 0),
        ("mermin_released_packets", &[], 300),
        ("mermin_output_settled_records", &[("output", "received"), ("outcome", "delivered")], 300),
        ("mermin_ledger_consistent", &[], 1),
    ] {
        assert_eq!(*value(&ended, name, labels), Value::Count(count), "{name} {labels:?}");
    }
}

static COUNT: Metric = Metric {
    name: "mermin_a_bytes",
    kind: MetricKind::Counter,
    unit: "By",
    help: "A count",
    labels: &["output"],
};
static LEVEL: Metric =
    Metric { name: "mermin_b", kind: MetricKind::Gauge, unit: "{flow}", help: "A level", labels: &[] };
static WAIT: Metric =
    Metric { name: "mermin_c_seconds", kind: MetricKind::Histogram, unit: "s", help: "A wait", labels: &[] };

fn families() -> Vec<Family> {
    let output: Label = ("output", "a\"b\\c\nd".into());
    let distribution = Value::Distribution { buckets: vec![(0.5, 2), (f64::INFINITY, 1)], sum: 9.5 };
    let sample = |labels: &[Label], value| vec![Sample { labels: labels.to_vec(), value }];
    vec![
        Family { metric: &COUNT, samples: sample(&[output], Value::Count(u64::MAX)) },
        Family { metric: &LEVEL, samples: sample(&[], Value::Number(1.5)) },
        Family { metric: &WAIT, samples: sample(&[], distribution) },
    ]
}

#[test]
fn both_forms_read_as_their_formats_want() {
    let classic = "\
# HELP mermin_a_bytes_total A count
# TYPE mermin_a_bytes_total counter
mermin_a_bytes_total{output=\"a\\\"b\\\\c\\nd\"} 18446744073709551615
# HELP mermin_b A level
# TYPE mermin_b gauge
mermin_b 1.5
# HELP mermin_c_seconds A wait
# TYPE mermin_c_seconds histogram
mermin_c_seconds_bucket{le=\"0.5\"} 2
mermin_c_seconds_bucket{le=\"+Inf\"} 3
mermin_c_seconds_sum 9.5
mermin_c_seconds_count 3
";
    assert_eq!(Form::Classic.render(families()).unwrap(), classic);
    let open = Form::OpenMetrics.render(families()).unwrap();
    for line in [
        "# TYPE mermin_a_bytes counter",
        "# UNIT mermin_a_bytes bytes",
        "mermin_a_bytes_total{output=\"a\\\"b\\\\c\\nd\"} 18446744073709551615",
        "mermin_c_seconds_bucket{le=\"+Inf\"} 3",
    ] {
        assert!(open.lines().any(|one| one == line), "{line} in {open}");
    }
    assert!(open.ends_with("# EOF\n"));
}

#[test]
fn the_form_is_what_the_request_accepts() {
    for (header, form) in [
        ("", Form::Classic),
        ("*/*", Form::Classic),
        ("text/plain;version=0.0.4", Form::Classic),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", Form::OpenMetrics),
        ("text/plain;q=0.2,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1", Form::OpenMetrics),
        ("application/openmetrics-text;q=0, text/plain", Form::Classic),
    ] {
        assert_eq!(Form::accepted(header), form, "{header}");
    }
}
