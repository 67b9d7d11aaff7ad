//! What records are told, and when.

use super::*;

#[test]
fn an_answer_is_held_for_as_long_as_the_cluster_is_not_known() {
    let mut cluster = Cluster::new();
    let until = |cluster: &Cluster| cluster.shared.known_until(cluster.now);
    assert_eq!(until(&cluster), cluster.now - SETTLE);
    let heard = cluster.now;
    cluster.now += 30 * SECOND;
    assert_eq!(until(&cluster), heard - SETTLE);
    let horizon = cluster.shared.horizon();
    assert_eq!(cluster.shared.silence(&horizon, cluster.now), Some(30 * SECOND));
    cluster.later(1);
    assert_eq!(cluster.shared.silence(&cluster.shared.horizon(), cluster.now), None);
    assert_eq!(cluster.ask("10.9.9.9", 1, 6).end.resolution, Resolution::Unknown);
}

/// Records as flow tables cut them.
#[derive(Default)]
struct Records(Vec<FlowRecord>);

impl RecordSink for Records {
    fn record(&mut self, record: FlowRecord) {
        self.0.push(record);
    }
}

/// A packet from 10.1.0.1 to 10.1.0.2.
fn packet(at: Time) -> Observation {
    let word = |last| u64::from(u32::from_ne_bytes([10, 1, 0, last]));
    Observation {
        addresses: [word(1), 0, word(2), 0],
        ports: [40_000_u16.to_be(), 53_u16.to_be()],
        port_form: PortForm::Ports,
        protocol: 17,
        packets: 1,
        buffers: 1,
        start: at,
        end: at,
        watermark: at,
        ..Observation::EMPTY
    }
}

#[test]
fn a_flow_has_its_names_for_as_long_as_it_lasts() {
    let mut cluster = Cluster::new();
    let config = FlowConfig::default();
    let (mut meter, mut records) = (Meter::new(&config, ""), Records::default());
    let identity = cluster.identity();
    cluster.applied(Object::Pod(pod("client", &[])));
    cluster.applied(Object::Pod(pod("old", &["10.1.0.2"])));
    cluster.later(2);
    // The first packet comes before the API server knows the address.
    meter.observe(&[packet(cluster.now - SECOND)], &mut records);
    cluster.applied(Object::Pod(pod("client", &["10.1.0.1"])));
    let mut names = Vec::new();
    for step in 0..60 {
        // Others come and go, and are forgotten; the server moves to another pod.
        let other = pod(&format!("other-{step}"), &["10.2.0.1"]);
        cluster.applied(Object::Pod(other.clone()));
        cluster.later(10);
        cluster.tell(Change::Deleted(Object::Pod(other)));
        match step {
            20 => cluster.tell(Change::Deleted(Object::Pod(pod("old", &["10.1.0.2"])))),
            25 => cluster.applied(Object::Pod(pod("new", &["10.1.0.2"]))),
            _ => {}
        }
        meter.observe(&[packet(cluster.now - 6 * SECOND)], &mut records);
        for mut record in records.0.drain(..) {
            identity.enrich_at(&mut record, || cluster.now);
            names.push([record.source, record.destination].map(|end| {
                let end = end.identity.kubernetes.unwrap();
                let name = end.object.as_ref().and_then(|object| object.get(A::PodName)).cloned();
                (end.resolution, name.as_deref().unwrap_or_default().to_owned())
            }));
        }
    }
    let exact = |name: &str| (Resolution::Exact, name.to_owned());
    assert_eq!(names.len(), 9, "{names:?}");
    assert!(names.iter().all(|[client, _]| *client == exact("client")), "{names:?}");
    assert!(names[..3].iter().all(|[_, server]| *server == exact("old")), "{names:?}");
    assert!(names[5..].iter().all(|[_, server]| *server == exact("new")), "{names:?}");
}

/// The flow goes on while its server's address moves, and what it had to report by then comes later.
#[test]
fn a_record_that_was_put_off_names_nobody_who_had_the_address_for_a_part_of_it() {
    let mut cluster = Cluster::new();
    let (mut meter, mut records) = (Meter::new(&FlowConfig::default(), ""), Records::default());
    cluster.applied(Object::Pod(pod("client", &["10.1.0.1"])));
    let (old, new) = (pod("old", &["10.1.0.2"]), pod("new", &[]));
    cluster.applied(Object::Pod(old.clone()));
    cluster.applied(Object::Pod(new));
    cluster.later(20);
    let began = cluster.now;
    let mut names = Vec::new();
    for at in (0..=420).step_by(10) {
        if at == 100 {
            cluster.tell(Change::Deleted(Object::Pod(old.clone())));
            cluster.applied(Object::Pod(pod("new", &["10.1.0.2"])));
        }
        cluster.later(10);
        // The interval in which the address moves is left out, and the next one.
        meter.postpone_updates((100..200).contains(&at));
        meter.observe(&[packet(began + at * SECOND)], &mut records);
        for mut record in records.0.drain(..) {
            cluster.identity().enrich_at(&mut record, || cluster.now);
            let end = record.destination.identity.kubernetes.unwrap();
            let name = end.object.as_ref().and_then(|object| object.get(A::PodName)).cloned();
            let last = (record.end_time - began) / SECOND;
            names.push((last, end.resolution, name.as_deref().unwrap_or_default().to_owned()));
        }
    }
    let exact = |last, name: &str| (last, Resolution::Exact, name.to_owned());
    let expected = [
        exact(50, "old"),
        (230, Resolution::Ambiguous, String::new()),
        exact(290, "new"),
        exact(350, "new"),
        exact(410, "new"),
    ];
    assert_eq!(names, expected);
}

#[test]
fn who_has_an_address_goes_before_whose_network_it_is_in() {
    let mut cluster = Cluster::new();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let meta = Meta { namespace: "".into(), ..meta("n1") };
    let pod_networks = vec![(address("10.1.0.0"), 16)];
    let addresses = vec![address("192.0.2.1")];
    cluster.applied(Object::Node(Node { meta, addresses, pod_networks }));
    cluster.applied(Object::Pod(Pod { node: Some("n2".into()), ..pod("far", &["10.1.0.2"]) }));
    cluster.later(10);
    let identity = cluster.identity();
    let (mut meter, mut records) = (Meter::new(&FlowConfig::default(), ""), Records::default());
    meter.observe(&[packet(cluster.now - 6 * SECOND)], &mut records);
    meter.finish(cluster.now, &mut records);
    let mut record = records.0.pop().unwrap();
    identity.enrich_at(&mut record, || cluster.now);
    assert_eq!(record.enrichment.direction, Some(FlowDirection::Outbound));
}

#[test]
fn a_kind_that_is_forbidden_is_not_waited_for() {
    let mut cluster = Cluster::new();
    cluster.tell(Change::Forbidden(Kind::Service));
    let at = cluster.now;
    for _ in 0..10 {
        cluster.now += SECOND;
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Service) {
            cluster.tell(Change::Heard(kind));
        }
    }
    assert_eq!(cluster.shared.known_until(cluster.now), cluster.now - SETTLE);
    assert_eq!(cluster.shared.silence(&cluster.shared.horizon(), cluster.now), None);
    assert!(cluster.shared.horizon().known.services_until < at);
    cluster.tell(Change::Heard(Kind::Service));
    cluster.later(1);
    assert!(cluster.shared.horizon().known.services_until > at);
    let back = cluster.now;
    cluster.now += 10 * SECOND;
    cluster.tell(Change::Heard(Kind::Pod));
    cluster.tell(Change::Heard(Kind::Node));
    assert_eq!(cluster.shared.known_until(cluster.now), back - SETTLE, "it is waited for again");
}

/// Nobody waits for them either, but records say that what they know is old.
#[test]
fn names_of_pods_grow_old_when_the_right_to_watch_them_is_gone() {
    let mut cluster = Cluster::new();
    cluster.applied(Object::Pod(pod("web", &["10.1.0.1"])));
    cluster.later(10);
    cluster.tell(Change::Forbidden(Kind::Pod));
    for _ in 0..10 {
        cluster.now += SECOND;
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Pod) {
            cluster.tell(Change::Heard(kind));
        }
    }
    assert_eq!(cluster.shared.known_until(cluster.now), cluster.now - SETTLE);
    let identity = cluster.identity();
    let (mut meter, mut records) = (Meter::new(&FlowConfig::default(), ""), Records::default());
    meter.observe(&[packet(cluster.now - 6 * SECOND)], &mut records);
    meter.finish(cluster.now, &mut records);
    let mut record = records.0.pop().unwrap();
    identity.enrich_at(&mut record, || cluster.now);
    assert_eq!(record.enrichment.degraded, Some(Duration::from_secs(10)));
    let end = record.source.identity.kubernetes.unwrap();
    let name = end.object.as_ref().and_then(|object| object.get(A::PodName)).cloned();
    assert_eq!((end.resolution, name.as_deref()), (Resolution::Ambiguous, Some("web")));
}
