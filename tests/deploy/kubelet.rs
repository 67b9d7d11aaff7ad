//! What kubelet makes of a pod's manifest before its container starts: the environment, and the files of its volumes.

use mermin_tests::container::Container;
use mermin_tests::netns::LEFT;
use mermin_tests::servers::control_plane::ControlPlane;
use serde_json::Value;
use std::path::Path;

/// The node that the pod is on.
pub(crate) const NODE: &str = "left";

/// Where a container finds its service account.
pub(crate) const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What is on the node, or is brought to it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Given<'a> {
    /// Files of secrets: the secret's name, the key, what it holds.
    pub(crate) secrets: &'a [(&'a str, &'a str, &'a str)],
    /// Folders of the node, by the path that they have there. Volumes of others are left out.
    pub(crate) folders: &'a [(&'a str, &'a Path)],
}

/// A container's environment, with what is put in place of references. Its own variables go before those of config maps.
pub(crate) fn environment(container: &Value, objects: &[Value]) -> Vec<(String, String)> {
    let own = container["env"].as_array().unwrap().iter().map(|variable| variable["name"].as_str().unwrap());
    let own: Vec<&str> = own.collect();
    let sources = container["envFrom"].as_array().into_iter().flatten();
    let maps = sources.map(|source| data(objects, source["configMapRef"]["name"].as_str().unwrap()));
    let mut environment: Vec<_> = maps.flatten().filter(|(name, _)| !own.contains(&&**name)).collect();
    for variable in container["env"].as_array().unwrap() {
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("status.podIP") => LEFT.to_owned(),
            Some("spec.nodeName") => NODE.to_owned(),
            Some("metadata.namespace") => "mermin".to_owned(),
            Some("metadata.name") => "mermin-x7k2p".to_owned(),
            Some("metadata.uid") => "5f2a7c31-0d6e-4b7e-9a43-2f1c8e6b9d10".to_owned(),
            Some(other) => panic!("{other}"),
            None => {
                let written = variable["value"].as_str().unwrap().to_owned();
                environment
                    .iter()
                    .fold(written, |text, (name, value)| text.replace(&format!("$({name})"), value))
            }
        };
        environment.push((variable["name"].as_str().unwrap().to_owned(), value));
    }
    environment
}

/// The variables that say where the API server is.
pub(crate) fn service(plane: &ControlPlane) -> [(String, String); 2] {
    let url = plane.url();
    let (_, port) = url.rsplit_once(':').unwrap();
    [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", port)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

/// The container with the volumes that it mounts, each where its mount says.
pub(crate) fn with_volumes(
    mut made: Container,
    pod: &Value,
    objects: &[Value],
    given: Given<'_>,
) -> Container {
    for mount in pod["containers"][0]["volumeMounts"].as_array().unwrap() {
        assert!(mount.get("subPath").is_none(), "it would never change");
        let place = mount["mountPath"].as_str().unwrap();
        let volume = volume(pod, mount["name"].as_str().unwrap());
        let secret = volume["secret"]["secretName"].as_str();
        let files = given.secrets.iter().filter(|(of, ..)| Some(*of) == secret);
        for (_, key, contents) in files {
            made = made.with_file(&format!("{place}/{key}"), contents);
        }
        if let Some(name) = volume["configMap"]["name"].as_str() {
            for (key, contents) in data(objects, name) {
                made = made.with_file(&format!("{place}/{key}"), &contents);
            }
        }
        if volume.get("emptyDir").is_some() {
            made = made.with_folder(place);
        }
        let on_node = volume["hostPath"]["path"].as_str();
        if let Some((_, folder)) = given.folders.iter().find(|(path, _)| Some(*path) == on_node) {
            made = made.mounting(folder, Path::new(place), mount["readOnly"] != true);
        }
    }
    made
}

/// A pod's volume.
pub(crate) fn volume<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let mut volumes = pod["volumes"].as_array().unwrap().iter();
    volumes.find(|volume| volume["name"] == name).unwrap_or_else(|| panic!("no volume {name}"))
}

/// What a config map holds.
pub(crate) fn data(objects: &[Value], name: &str) -> Vec<(String, String)> {
    let mut maps = objects.iter().filter(|object| object["kind"] == "ConfigMap");
    let map = maps.find(|map| map["metadata"]["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    let entries = map["data"].as_object().unwrap().iter();
    entries.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect()
}
