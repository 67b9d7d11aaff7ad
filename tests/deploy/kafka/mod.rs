//! The component that has a fleet write to Kafka, with the overlay of the guide: what the API server says of it, what the
//! agent says of the configuration, and a pod of it with a real broker that comes and goes.

mod pods;

use crate::kubelet::{ACCOUNT, Given, NODE, data, environment, volume, with_volumes};
use mermin_tests::container::Container;
use mermin_tests::manifest::{objects, of_kind, overlay};
use mermin_tests::need;
use mermin_tests::need::root;
use mermin_tests::netns::Net;
use mermin_tests::program::binary;
use mermin_tests::servers::KUBERNETES;
use mermin_tests::servers::certificates::Authority;
use mermin_tests::servers::control_plane::ControlPlane;
use mermin_tests::servers::folder::Folder;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;

const TOKEN: &str = "of the secret";
const BROKERS: &str = "\"[kafka-0.example:9093, kafka-1.example:9093]\"";

/// The guide's overlay, and what it says to add for certificates in place of a password.
fn of_the_guide() -> [String; 2] {
    let text = fs::read_to_string(root().join("docs/guide/kubernetes.md")).unwrap();
    let (_, section) = text.split_once("## A fleet that writes to Kafka").unwrap();
    let blocks = section.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned());
    blocks.collect::<Vec<_>>().try_into().unwrap()
}

/// With other brokers, and more lines of the config map.
fn fleet(brokers: &str, more: &str) -> Folder {
    let [text, _] = of_the_guide();
    assert!(text.contains(BROKERS), "{text}");
    overlay(&(text.replace(BROKERS, &format!("{brokers:?}")) + more))
}

/// Its objects, by whatever kubectl makes of it.
fn objects_of(folder: &Folder) -> Vec<Value> {
    objects(&folder.path().display().to_string())
}

fn pod(objects: &[Value]) -> &Value {
    &of_kind(objects, "DaemonSet")["spec"]["template"]["spec"]
}

/// The config map that the container's environment is from.
fn map_of(objects: &[Value]) -> &str {
    let sources = pod(objects)["containers"][0]["envFrom"].as_array().unwrap();
    assert_eq!(sources.len(), 1);
    sources[0]["configMapRef"]["name"].as_str().unwrap()
}

#[test]
fn the_api_server_takes_the_fleet_and_has_what_its_pods_refer_to() {
    need!(ControlPlane::installed());
    let plane = ControlPlane::start();
    let [text, _] = of_the_guide();
    let folder = overlay(&text);
    let path = folder.path().display().to_string();
    let _ = plane.kubectl(&["create", "namespace", "mermin"]);
    let apply = ["apply", "--server-side", "--validate=strict", "--kustomize", &path];
    let dry = plane.kubectl(&[&apply[..], &["--dry-run=server"]].concat());
    let objects = objects_of(&folder);
    assert_eq!(dry.lines().count(), objects.len(), "{dry}");
    let _ = plane.kubectl(&apply);
    let get = |path: &str| plane.api().get(path).unwrap_or_else(|| panic!("no {path}"));
    let set = get("/apis/apps/v1/namespaces/mermin/daemonsets/mermin");
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let name = container["envFrom"][0]["configMapRef"]["name"].as_str().unwrap();
    let map = get(&format!("/api/v1/namespaces/mermin/configmaps/{name}"));
    assert_eq!(map["immutable"], true);
    assert_eq!(map["data"]["MERMIN_EXPORT__KAFKA__BROKERS"], BROKERS.trim_matches('"'));
    assert_eq!(container["image"], "registry.example/mermin:0.1.0");
    // What the base has is still there.
    assert_eq!(container["resources"]["requests"]["cpu"], "100m");
    let base = mermin_tests::manifest::objects("kubernetes");
    let count = |list: &Value| list.as_array().unwrap().len();
    assert_eq!(count(&container["env"]), count(&pod(&base)["containers"][0]["env"]) + 1);
    assert_eq!(count(&set["spec"]["template"]["spec"]["volumes"]), count(&pod(&base)["volumes"]) + 1);
}

#[test]
fn other_settings_are_another_config_map_and_so_a_roll_out() {
    need!(KUBERNETES.installed());
    let [one, same, other] = ["[a:1]", "[a:1]", "[b:1]"].map(|brokers| objects_of(&fleet(brokers, "")));
    assert_eq!(map_of(&one), map_of(&same));
    assert_ne!(map_of(&one), map_of(&other));
}

#[test]
fn every_file_and_folder_of_the_configuration_is_in_a_volume_that_has_it() {
    need!(KUBERNETES.installed());
    let [text, certificates] = of_the_guide();
    for (text, files) in [
        (text.clone(), &["ca.crt", "password"][..]),
        (text + &certificates, &["ca.crt", "tls.crt", "tls.key"][..]),
    ] {
        let objects = objects_of(&overlay(&text));
        let pod = pod(&objects);
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        let mut of_secret = BTreeSet::new();
        for (key, value) in data(&objects, map_of(&objects)) {
            let Some(path) = value.starts_with('/').then(|| Path::new(&value)) else { continue };
            let mount = mounts.iter().find(|mount| path.starts_with(mount["mountPath"].as_str().unwrap()));
            let mount = mount.unwrap_or_else(|| panic!("{key}: nothing is mounted at {value}"));
            let volume = volume(pod, mount["name"].as_str().unwrap());
            if key == "MERMIN_EXPORT__DISK_BUFFER__FOLDER" {
                // What waits for brokers is to be there for the next pod.
                assert_eq!(volume["hostPath"]["type"], "DirectoryOrCreate", "{volume}");
                assert!(volume.get("emptyDir").is_none() && mount.get("readOnly").is_none());
            } else {
                assert_eq!(
                    (&volume["secret"]["secretName"], &mount["readOnly"]),
                    (&"mermin-kafka".into(), &true.into())
                );
                assert!(volume["secret"].get("optional").is_none(), "pods are to wait for it");
                let _ = of_secret.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
        assert!(of_secret.iter().eq(files), "{of_secret:?}");
    }
}

/// What `mermin check` says in the pod's container, where the secret holds this.
fn checked(objects: &[Value], secrets: &[(&str, &str, &str)]) -> Output {
    let pod = pod(objects);
    let (state, account) = (Folder::new(), Folder::new());
    let authority = Authority::new();
    account.write("ca.crt", fs::read(authority.certificate()).unwrap());
    account.write("token", "a.b.c");
    account.write("namespace", "mermin");
    let net = Net::new("check", false);
    let container = Container::of(pod, &pod["containers"][0]).on_node(&net.left.name).mounting(
        account.path(),
        Path::new(ACCOUNT),
        false,
    );
    let given = Given { secrets, folders: &[("/var/lib/mermin", state.path())] };
    let container = with_volumes(container, pod, objects, given);
    let arguments = pod["containers"][0]["args"].as_array().unwrap().iter().skip(1);
    let arguments = arguments.map(|word| word.as_str().unwrap().into());
    let arguments: Vec<_> = ["check".into()].into_iter().chain(arguments).collect();
    let mut environment = environment(&pod["containers"][0], objects);
    let of_service = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", "1")];
    environment.extend(of_service.map(|(name, value)| (name.to_owned(), value.to_owned())));
    container.command(&binary(), &arguments, &environment).output().unwrap()
}

#[test]
fn the_agent_takes_the_configuration_and_says_what_it_makes_of_it() {
    need!(Container::possible(), KUBERNETES.installed());
    let [text, certificates] = of_the_guide();
    let authority = Authority::new();
    let pair = authority.client("mermin", &[]);
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let (ca, shown, key) = (read(authority.certificate()), read(&pair.certificate), read(&pair.key));
    let of_kafka = |key, contents| ("mermin-kafka", key, contents);
    let token = ("mermin-server", "token", TOKEN);
    let by_password = objects_of(&overlay(&text));
    let by_certificate = objects_of(&overlay(&(text + &certificates)));
    for (objects, secrets, how) in [
        (
            &by_password,
            vec![token, of_kafka("ca.crt", &*ca), of_kafka("password", "secret\n")],
            "TLS, login mermin by SCRAM-SHA-512",
        ),
        (
            &by_certificate,
            vec![token, of_kafka("ca.crt", &ca), of_kafka("tls.crt", &shown), of_kafka("tls.key", &key)],
            "TLS with a certificate of its own",
        ),
    ] {
        let output = checked(objects, &secrets);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        let kafka = format!(
            "kafka           protobuf to topic mermin.flows at kafka-0.example:9093,kafka-1.example:9093, compression lz4, {how}\n"
        );
        let node = format!("                node {NODE}\n");
        for line in [&*kafka, &node, "conntrack       asked\n"] {
            assert!(said.contains(line), "no {line}: {said}");
        }
    }
    // What the agent can't read it names: a check that takes anything would show nothing.
    let output = checked(&by_password, &[token, of_kafka("ca.crt", &ca)]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(
        said.contains("export.kafka.sasl.password_file") && said.contains("/etc/mermin/kafka/password"),
        "{said}"
    );
}

#[test]
fn it_goes_with_the_other_components() {
    need!(Container::possible(), KUBERNETES.installed());
    let [text, _] = of_the_guide();
    let beside = |component: &str| {
        let list = "[path/to/deploy/kubernetes/kafka";
        assert!(text.contains(list), "{text}");
        objects_of(&overlay(&text.replace(list, &format!("{list}, path/to/deploy/kubernetes/{component}"))))
    };
    let authority = Authority::new();
    let ca = fs::read_to_string(authority.certificate()).unwrap();
    let secrets = [
        ("mermin-server", "token", TOKEN),
        ("mermin-kafka", "ca.crt", &*ca),
        ("mermin-kafka", "password", "secret"),
    ];
    // Without the right to ask for translated connections the agent goes on.
    let output = checked(&beside("af-packet"), &secrets);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("conntrack       there is no right to ask"),
        "{output:?}"
    );
    let cleaning = beside("cleanup");
    assert_eq!(pod(&cleaning)["containers"][0]["args"], serde_json::json!(["cleanup"]));
    let monitors = beside("pod-monitor");
    assert_eq!(of_kind(&monitors, "PodMonitor")["metadata"]["name"], "mermin");
    assert_eq!(map_of(&monitors), map_of(&cleaning));
}
