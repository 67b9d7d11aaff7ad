//! The watches at a real API server: what they tell, and what they do when it is gone, hangs or refuses.

use crate::kubernetes::config::{KubernetesConfig, Scope, Switch};
use crate::kubernetes::object::{Change, Kind, Object, OwnerKind};
use crate::kubernetes::rbac::rbac_manifest;
use crate::kubernetes::recorder::{Run, run_with};
use crate::kubernetes::status::{KindReading, WatchState, WatchesState};
use mermin_tests::need;
use mermin_tests::servers::certificates::Authority;
use mermin_tests::servers::control_plane::{ControlPlane, objects};
use mermin_tests::servers::place::Place;
use serde_json::{Value, json};
use std::path::Path;

fn run(kubeconfig: &Path, config: KubernetesConfig) -> Run {
    run_with(KubernetesConfig { enabled: Switch::On, kubeconfig: Some(kubeconfig.to_owned()), ..config })
}

fn all_rules() -> Value {
    // The rules of the manifest, one a line: YAML flow style, that is nearly JSON.
    let manifest = rbac_manifest();
    let rules = manifest.lines().filter_map(|line| line.trim().strip_prefix("- {apiGroups: "));
    let rule = |line: &str| {
        let (groups, rest) = line.split_once(", resources: [").unwrap();
        let (resource, verbs) = rest.split_once("], verbs: [").unwrap();
        let verbs: Vec<&str> = verbs.trim_end_matches("]}").split(", ").collect();
        json!({
            "apiGroups": serde_json::from_str::<Value>(groups).unwrap(), "resources": [resource], "verbs": verbs,
        })
    };
    Value::Array(rules.map(rule).collect())
}

/// All but one kind's.
fn rules_without(kind: Kind) -> Value {
    let mut rules = all_rules();
    let all = rules.as_array_mut().unwrap();
    all.retain(|rule| rule["resources"] != json!([kind.resource()]));
    assert_eq!(all.len(), Kind::ALL.len() - 1);
    rules
}

/// With the rights of the manifest and no more: every kind, from the first list to the last deletion.
#[test]
fn a_cluster_is_followed_with_the_manifests_rights() {
    need!(ControlPlane::installed());
    let plane = ControlPlane::start();
    let api = plane.api();
    let made = api.create_all(&[
        objects::namespace("shop"),
        objects::node("n1", &["192.0.2.1"], &["10.244.1.0/24"]),
        objects::node("n2", &["192.0.2.2"], &["10.244.2.0/24"]),
    ]);
    let owned = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": { "name": "cart-7d9", "namespace": "shop", "ownerReferences": [
            { "apiVersion": "apps/v1", "kind": "Deployment", "name": "cart", "uid": "d1", "controller": true }] },
        "spec": { "replicas": 0, "selector": { "matchLabels": { "a": "b" } },
            "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } } } });
    let owner = api.create(&owned);
    let mut pod = objects::pod("shop", "cart-1", "n1", &["10.244.1.7"]);
    objects::own(&mut pod, &owner);
    let pod = api.create(&pod);
    let account = plane.account("shop", "mermin", &all_rules());
    let run = run(
        &account.kubeconfig,
        KubernetesConfig { labels: vec!["app".into()], ..KubernetesConfig::default() },
    );
    let ready = run.wait("ready", |run| run.state() == WatchesState::Ready);
    eprintln!("ready after {ready:?}");
    let found = run.recorder.pod("cart-1").unwrap();
    assert_eq!(found.meta.uid.as_ref(), pod["metadata"]["uid"].as_str().unwrap());
    assert_eq!(found.node.as_deref(), Some("n1"));
    assert_eq!(&*found.meta.labels[0].1, "cart-1");
    let replica_set = found.meta.owner.unwrap();
    assert_eq!((replica_set.kind, &*replica_set.name), (OwnerKind::ReplicaSet, "cart-7d9"));
    let owner = run.recorder.record().known.get(&(Kind::ReplicaSet, replica_set.uid)).cloned();
    let Some(Object::Owner(Kind::ReplicaSet, meta)) = owner else { panic!("{owner:?}") };
    assert_eq!(
        meta.owner.map(|owner| (owner.kind, owner.name.to_string())),
        Some((OwnerKind::Deployment, "cart".into()))
    );
    assert_eq!(run.kind(Kind::Node).objects, 2);
    assert!(run.kind(Kind::Namespace).objects >= 5, "those of the cluster and ours");
    assert!(run.kind(Kind::Service).objects >= 1, "the API server's own");
    // Lists were streamed: one request for each kind, with a bookmark at its end.
    assert!(run.watches.status().readings().all(|reading| reading.lists == 1 && reading.errors == 0));

    // The latency from the answer to a write to the change.
    let mut latencies = Vec::new();
    for i in 0..40 {
        let name = format!("late-{i}");
        let _ = api.create_all(&[objects::pod("shop", &name, "n2", &["10.244.2.9"])]);
        let written = run.clock.now();
        run.wait("a new pod", |run| run.recorder.pod(&name).is_some_and(|pod| !pod.addresses.is_empty()));
        let record = run.recorder.record();
        let told = record.changes.iter().rev().find(|(change, _)| {
            matches!(change, Change::Applied(Object::Pod(pod)) if *pod.meta.name == *name && !pod.addresses.is_empty())
        });
        latencies.push(i64::try_from(told.unwrap().1).unwrap() - i64::try_from(written).unwrap());
    }
    latencies.sort_unstable();
    eprintln!(
        "from the answer to the write to the change: median {} us, worst {} us",
        latencies[20] / 1_000,
        latencies[39] / 1_000
    );

    for kind in Kind::ALL {
        let KindReading { kind, events, bytes, .. } = run.kind(kind);
        eprintln!("{}: {events} objects received, {bytes} bytes", kind.resource());
    }

    api.delete_all([&pod]);
    run.wait("its deletion", |run| run.recorder.pod("cart-1").is_none());
    run.wait_for_news(Kind::Pod);
    assert_eq!(run.kind(Kind::Pod).objects, 40);
    // Nothing happens to nodes, and it is known that nothing does.
    run.wait_for_news(Kind::Node);
    run.wait_for_news(Kind::Node);
    let now = run.clock.now();
    let heard = run.kind(Kind::Node).heard;
    eprintln!("nodes are known up to {} ms ago", (now - heard) / 1_000_000);
    drop(made);
    drop(run.watches);
    let after = run.recorder.record().changes.len();
    let _ = api.create_all(&[objects::namespace("later")]);
    assert_eq!(run.recorder.record().changes.len(), after, "told after the end");
}

#[test]
fn only_this_nodes_pods_are_watched_on_request() {
    need!(ControlPlane::installed());
    let plane = ControlPlane::start();
    let _ = plane.api().create_all(&[
        objects::namespace("shop"),
        objects::pod("shop", "here", "n1", &["10.0.0.1"]),
        objects::pod("shop", "there", "n2", &["10.0.0.2"]),
    ]);
    let config = KubernetesConfig {
        scope: Scope::Node,
        node: Some("n1".into()),
        leave_out: vec![Kind::Job, Kind::Namespace],
        ..KubernetesConfig::default()
    };
    let run = run(plane.kubeconfig(), config);
    run.wait("ready", |run| run.state() == WatchesState::Ready);
    assert!(run.recorder.pod("here").is_some() && run.recorder.pod("there").is_none());
    let _ = plane.api().create_all(&[
        objects::pod("shop", "there-too", "n2", &["10.0.0.3"]),
        objects::pod("shop", "here-too", "n1", &["10.0.0.4"]),
    ]);
    run.wait("the new pod", |run| run.recorder.pod("here-too").is_some());
    assert!(run.recorder.pod("there-too").is_none());
    assert_eq!(run.kind(Kind::Pod).objects, 2);
    let off = [Kind::Job, Kind::Namespace].map(|kind| (run.kind(kind).state, run.kind(kind).bytes));
    assert_eq!(off, [(WatchState::Off, 0); 2]);
}

/// Killed and started again, and stopped in its tracks: what happened meanwhile is known soon after.
#[test]
fn a_server_that_dies_or_hangs_is_found_again() {
    need!(ControlPlane::installed());
    let mut plane = ControlPlane::start();
    let api = plane.api();
    let made = api.create_all(&[
        objects::namespace("shop"),
        objects::pod("shop", "stays", "n1", &["10.0.0.1"]),
        objects::pod("shop", "goes", "n1", &["10.0.0.2"]),
    ]);
    let run = run(plane.kubeconfig(), KubernetesConfig::default());
    run.wait("ready", |run| run.state() == WatchesState::Ready);

    plane.kill_api_server();
    let noticed = run
        .wait("degraded", |run| Kind::ALL.iter().all(|kind| run.kind(*kind).state == WatchState::Degraded));
    eprintln!("a death is noticed after {noticed:?}");
    assert!(run.watches.status().degraded_since().is_some());
    plane.restart_api_server();
    api.delete_all([&made[2]]);
    let _ = api.create_all(&[objects::pod("shop", "new", "n1", &["10.0.0.3"])]);
    let back = run.wait("ready again", |run| run.state() == WatchesState::Ready);
    eprintln!("back {back:?} after the server");
    run.wait("the new pod", |run| run.recorder.pod("new").is_some());
    run.wait("the deleted pod", |run| run.recorder.pod("goes").is_none());
    assert!(run.recorder.pod("stays").is_some());
    assert_eq!(run.kind(Kind::Pod).objects, 2);
    assert_eq!(interruptions(&run).first(), Some(&"interrupted"));

    let heard = run.kind(Kind::Pod).heard;
    plane.hang_api_server();
    let noticed = run
        .wait("degraded", |run| Kind::ALL.iter().all(|kind| run.kind(*kind).state == WatchState::Degraded));
    eprintln!("a hang is noticed after {noticed:?}");
    // Nothing was called known that could not be.
    let last = run.kind(Kind::Pod).heard;
    assert!(last >= heard && last < run.clock.now() - 3_000_000_000, "{last}");
    plane.resume_api_server();
    let back = run.wait("ready again", |run| run.state() == WatchesState::Ready);
    eprintln!("back {back:?} after the server went on");
    let _ = api.create_all(&[objects::pod("shop", "newer", "n1", &["10.0.0.4"])]);
    run.wait("the newer pod", |run| run.recorder.pod("newer").is_some());
}

/// Interruptions and lists of pods, after the first list.
fn interruptions(run: &Run) -> Vec<&'static str> {
    let record = run.recorder.record();
    let told = record.changes.iter().filter_map(|(change, _)| match change {
        Change::Interrupted(Kind::Pod) => Some("interrupted"),
        Change::ListBegins(Kind::Pod) => Some("list"),
        _ => None,
    });
    told.skip(1).collect()
}

/// Versions that have been compacted away: the watch can't go on, and lists at once.
#[test]
fn what_the_server_forgot_is_listed_again() {
    need!(ControlPlane::installed());
    let mut plane = ControlPlane::start();
    let api = plane.api();
    let made = api.create_all(&[
        objects::namespace("shop"),
        objects::pod("shop", "stays", "n1", &["10.0.0.1"]),
        objects::pod("shop", "goes", "n1", &["10.0.0.2"]),
    ]);
    let run = run(plane.kubeconfig(), KubernetesConfig::default());
    run.wait("ready", |run| run.state() == WatchesState::Ready);
    // The versions of pods fall behind.
    let _ = api.create_all(&["a", "b", "c"].map(objects::namespace));
    plane.kill_api_server();
    plane.compact();
    plane.restart_api_server();
    run.wait("a list", |run| interruptions(run) == ["interrupted", "list"]);
    api.delete_all([&made[2]]);
    run.wait("ready again", |run| run.state() == WatchesState::Ready);
    run.wait("the deletion", |run| run.recorder.pod("goes").is_none());
    assert!(run.recorder.pod("stays").is_some());
    assert_eq!((run.kind(Kind::Pod).objects, run.kind(Kind::Pod).lists), (1, 2));
}

/// A server that streams no lists: they come in pages.
#[test]
fn without_streamed_lists_pages_do() {
    need!(ControlPlane::installed());
    let plane = ControlPlane::start_with(&Place::Here, &["--feature-gates=WatchList=false"]);
    let api = plane.api();
    let _ = api.create_all(&[objects::namespace("shop"), objects::pod("shop", "a", "n1", &["10.0.0.1"])]);
    let run = run(plane.kubeconfig(), KubernetesConfig::default());
    let ready = run.wait("ready", |run| run.state() == WatchesState::Ready);
    eprintln!("ready after {ready:?}");
    let _ = api.create_all(&[objects::pod("shop", "b", "n1", &["10.0.0.2"])]);
    run.wait("the new pod", |run| run.recorder.pod("b").is_some());
    // The refusal is the only error, and cost no wait.
    let readings: Vec<_> = run.watches.status().readings().collect();
    assert!(readings.iter().all(|reading| reading.lists == 1 && reading.errors <= 1), "{readings:?}");
    assert!(readings.iter().any(|reading| reading.errors == 1), "{readings:?}");
}

/// One right less: that kind says so, the others go on; given back, it is watched.
#[test]
fn a_missing_right_stops_one_kind_alone() {
    need!(ControlPlane::installed());
    let mut plane = ControlPlane::start();
    let _ =
        plane.api().create_all(&[objects::namespace("shop"), objects::pod("shop", "a", "n1", &["10.0.0.1"])]);
    let account = plane.account("shop", "mermin", &rules_without(Kind::EndpointSlice));
    let run = run(&account.kubeconfig, KubernetesConfig::default());
    run.wait("refused", |run| run.kind(Kind::EndpointSlice).state == WatchState::Forbidden);
    run.wait("the others", |run| run.state() == WatchesState::Degraded);
    let failure = run.kind(Kind::EndpointSlice).failure.unwrap();
    assert!(failure.contains("system:serviceaccount:shop:mermin"), "{failure}");
    assert!(run.recorder.pod("a").is_some());
    plane.set_rules(&account, &all_rules());
    let back = run.wait("the right", |run| run.state() == WatchesState::Ready);
    eprintln!("watched {back:?} after the right was given");

    // Rights taken away are felt when the watch is taken up again; what is known stays.
    plane.set_rules(&account, &rules_without(Kind::Pod));
    plane.restart_api_server();
    run.wait("refused", |run| run.kind(Kind::Pod).state == WatchState::Forbidden);
    run.wait("the others", |run| {
        Kind::ALL.iter().all(|kind| *kind == Kind::Pod || run.kind(*kind).state == WatchState::Watching)
    });
    assert!(run.recorder.pod("a").is_some());
    plane.set_rules(&account, &all_rules());
    let back = run.wait("the right", |run| run.state() == WatchesState::Ready);
    eprintln!("watched {back:?} after the right was given back");
}

/// What is wrong stands in the status, in words that help.
#[test]
fn what_is_wrong_with_the_connection_is_said() {
    need!(ControlPlane::installed());
    let plane = ControlPlane::start();
    let text = std::fs::read_to_string(plane.kubeconfig()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let changed = |name: &str, from: &str, to: &str| {
        let path = folder.path().join(name);
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        path
    };
    let stranger = Authority::new();
    let (authority, strange) =
        (plane.authority().to_str().unwrap(), stranger.certificate().to_str().unwrap());
    let port = plane.url().rsplit_once(':').unwrap().1.to_owned();
    for (kubeconfig, expected) in [
        (changed("stranger", authority, strange), "certificate"),
        (changed("port", &port, "1"), "refused"),
        (plane.kubeconfig_of_token("bad", "nonsense"), "doesn't accept our credentials"),
    ] {
        let run = run(&kubeconfig, KubernetesConfig::default());
        run.wait(expected, |run| {
            run.kind(Kind::Pod).failure.is_some_and(|failure| failure.contains(expected))
        });
        assert_eq!(run.state(), WatchesState::Starting);
        eprintln!("{}", run.kind(Kind::Pod).failure.unwrap());
    }
}
