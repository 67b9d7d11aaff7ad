//! What a test does with the API: makes objects, many at once, changes their status, reads and deletes them.

use crate::servers::http::{Client, Request, Response};
use serde_json::{Value, json};

/// Connections for many requests; more are not faster on two cores.
const CONNECTIONS: usize = 8;
/// The kinds that tests make: API version, kind, plural, whether in a namespace.
const KINDS: &[(&str, &str, &str, bool)] = &[
    ("v1", "ConfigMap", "configmaps", true),
    ("v1", "Namespace", "namespaces", false),
    ("v1", "Node", "nodes", false),
    ("v1", "Pod", "pods", true),
    ("v1", "ReplicationController", "replicationcontrollers", true),
    ("v1", "Secret", "secrets", true),
    ("v1", "Service", "services", true),
    ("v1", "ServiceAccount", "serviceaccounts", true),
    ("apps/v1", "DaemonSet", "daemonsets", true),
    ("apps/v1", "Deployment", "deployments", true),
    ("apps/v1", "ReplicaSet", "replicasets", true),
    ("apps/v1", "StatefulSet", "statefulsets", true),
    ("batch/v1", "CronJob", "cronjobs", true),
    ("batch/v1", "Job", "jobs", true),
    ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", true),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", false),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", false),
];

/// The API as one user sees it.
#[derive(Clone, Debug)]
pub struct Api(pub Client);

impl Api {
    /// Sends a request and gives the answer, whatever it says.
    ///
    /// # Errors
    /// What went wrong on the way.
    pub fn send(&self, request: Request) -> Result<Response, String> {
        self.0.send(request)
    }

    /// An object, or a list, by its path; nothing where there is none, or no answer.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Value> {
        let response = self.send(Request::get(path)).ok().filter(|response| response.status == 200)?;
        serde_json::from_slice(&response.body).ok()
    }

    /// Makes an object, with its status; as the API gives it back.
    #[must_use]
    pub fn create(&self, object: &Value) -> Value {
        self.create_all(std::slice::from_ref(object)).pop().expect("one for each")
    }

    /// Makes objects, all at once, with the status that stands in them; as the API gives them back.
    ///
    /// # Panics
    /// When one is refused.
    #[must_use]
    pub fn create_all(&self, objects: &[Value]) -> Vec<Value> {
        let post = |object: &Value| Request {
            method: "POST",
            path: format!("{}?fieldValidation=Strict", collection(object)),
            content_type: "application/json",
            body: object.to_string().into_bytes(),
        };
        let mut made = self.all(objects.iter().map(post).collect());
        // A status in what is posted is ignored, but for nodes.
        let (places, with): (Vec<usize>, Vec<&Value>) =
            objects.iter().enumerate().filter(|(_, object)| object.get("status").is_some()).unzip();
        let changed = self.set_status_all(with.into_iter());
        for (place, object) in places.into_iter().zip(changed) {
            made[place] = object;
        }
        made
    }

    /// Changes what stands in the objects' `status` (a merge: the rest of it stays).
    ///
    /// # Panics
    /// When one is refused.
    pub fn set_status_all<'a>(&self, objects: impl Iterator<Item = &'a Value>) -> Vec<Value> {
        let patch = |object: &Value| Request {
            method: "PATCH",
            path: format!("{}/status", path(object)),
            content_type: "application/merge-patch+json",
            body: json!({ "status": object["status"] }).to_string().into_bytes(),
        };
        self.all(objects.map(patch).collect())
    }

    /// Changes an object by a merge patch.
    ///
    /// # Panics
    /// When it is refused.
    pub fn patch(&self, object: &Value, change: &Value) -> Value {
        let patch = Request {
            method: "PATCH",
            path: path(object),
            content_type: "application/merge-patch+json",
            body: change.to_string().into_bytes(),
        };
        self.all(vec![patch]).pop().expect("one for each")
    }

    /// Deletes objects at once, without the grace that a kubelet would use; those that are gone already stay gone.
    ///
    /// # Panics
    /// When one is refused.
    pub fn delete_all<'a>(&self, objects: impl IntoIterator<Item = &'a Value>) {
        let delete = |object: &Value| Request {
            method: "DELETE",
            path: path(object),
            content_type: "application/json",
            body: json!({ "gracePeriodSeconds": 0, "propagationPolicy": "Background" }).to_string().into(),
        };
        let requests: Vec<Request> = objects.into_iter().map(delete).collect();
        for response in self.0.send_all(requests, CONNECTIONS) {
            let response = response.unwrap_or_else(|error| panic!("{error}"));
            assert!(matches!(response.status, 200 | 202 | 404), "{}: {}", response.status, response.text());
        }
    }

    fn all(&self, requests: Vec<Request>) -> Vec<Value> {
        let paths: Vec<String> = requests.iter().map(|request| request.path.clone()).collect();
        let answers = self.0.send_all(requests, CONNECTIONS);
        let read = |(path, answer): (String, Result<Response, String>)| {
            let response = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(matches!(response.status, 200 | 201), "{path}: {}: {}", response.status, response.text());
            serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        paths.into_iter().zip(answers).map(read).collect()
    }
}

/// The path of the objects of this one's kind and namespace.
///
/// # Panics
/// When no test has used the kind so far: add it to `KINDS`.
#[must_use]
pub fn collection(object: &Value) -> String {
    let word = |key: &str| object[key].as_str().unwrap_or_default();
    let (version, kind) = (word("apiVersion"), word("kind"));
    let known = KINDS.iter().find(|known| (known.0, known.1) == (version, kind));
    let &(_, _, plural, in_namespace) = known.unwrap_or_else(|| panic!("{version} {kind} is not in KINDS"));
    let root = if version.contains('/') { "apis" } else { "api" };
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    let namespace = if in_namespace { format!("/namespaces/{namespace}") } else { String::new() };
    format!("/{root}/{version}{namespace}/{plural}")
}

/// The path of an object.
///
/// # Panics
/// When it has no name.
#[must_use]
pub fn path(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().expect("it has a name");
    format!("{}/{name}", collection(object))
}
