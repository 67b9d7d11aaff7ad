//! A cluster's objects, and what records must say of their addresses.
//!
//! Controllers make the pods; the kubelets' part, which node a pod is on, which addresses it has, and that it runs, is
//! the test's. What is expected is read from the API server, not from what was meant to be there.

use crate::kubernetes::town::{address, address6};
use mermin_tests::record::Record;
use mermin_tests::servers::control_plane::{ControlPlane, objects};
use mermin_tests::servers::http::Request;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Pods' addresses in one place.
pub(super) const CROWD: usize = 20;
/// The port at which services' backends answer.
pub(super) const PORT: u16 = 8_080;
/// The port of a pod with host network.
pub(super) const HOST_PORT: u16 = 9_100;
/// The nodes: names and addresses.
pub(super) const NODES: [(&str, &str); 2] = [("n1", "10.100.0.1"), ("n2", "10.100.0.2")];

/// Everything that records say of an end, by key without `source.` or `destination.`; not the resolution.
pub(super) type Names = BTreeMap<String, String>;

/// Waits until something is there: three minutes at most, which is for machines that have other things to do.
pub(super) fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(180), "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A pod of an app, as its controller makes it.
fn template(app: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": app } },
        "spec": {
            "containers": [{ "name": "main", "image": "none", "ports": [{ "containerPort": PORT }] }],
            "terminationGracePeriodSeconds": 0,
            // Nodes without kubelet carry the taint of those that are not ready.
            "tolerations": [{ "operator": "Exists" }],
        },
    })
}

/// A workload with pods of one app; `more` stands in its spec too.
fn workload(version: &str, kind: &str, app: &str, more: &Value) -> Value {
    let mut spec = json!({ "selector": { "matchLabels": { "app": app } }, "template": template(app) });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let metadata = json!({ "name": app, "namespace": "shop" });
    json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec })
}

/// So many pods of a deployment.
pub(super) fn deployment(app: &str, replicas: usize) -> Value {
    workload("apps/v1", "Deployment", app, &json!({ "replicas": replicas }))
}

/// So many pods of a stateful set, made all at once.
pub(super) fn stateful_set(app: &str, replicas: usize) -> Value {
    let more = json!({ "replicas": replicas, "serviceName": app, "podManagementPolicy": "Parallel" });
    workload("apps/v1", "StatefulSet", app, &more)
}

/// A pod on each node.
pub(super) fn daemon_set(app: &str) -> Value {
    workload("apps/v1", "DaemonSet", app, &json!({}))
}

/// A job that a clock will not start within the test.
pub(super) fn cron_job(app: &str, pods: usize) -> Value {
    let mut pod = template(app);
    pod["spec"]["restartPolicy"] = json!("Never");
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": { "name": app, "namespace": "shop" },
        "spec": { "schedule": "0 0 1 1 *", "jobTemplate": { "spec": {
            "parallelism": pods, "completions": pods, "template": pod,
        } } },
    })
}

/// A service before an app's pods, at port 80.
pub(super) fn service(app: &str, kind: &str) -> Value {
    let port = json!({ "port": 80, "targetPort": PORT, "protocol": "UDP" });
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": format!("{app}-service"), "namespace": "shop" },
        "spec": { "type": kind, "selector": { "app": app }, "ports": [port] },
    })
}

/// A pod that answers at a port of its node.
pub(super) fn on_host(node: (&str, &str)) -> Value {
    let mut pod = objects::pod("shop", &format!("exporter-{}", node.0), node.0, &[node.1]);
    pod["spec"]["hostNetwork"] = json!(true);
    pod["spec"]["containers"][0]["ports"] =
        json!([{ "containerPort": HOST_PORT, "hostPort": HOST_PORT, "protocol": "UDP" }]);
    pod
}

/// Objects of a kind in the namespace, by the last words of their path.
pub(super) fn list(plane: &ControlPlane, path: &str) -> Vec<Value> {
    let list = plane.api().get(path).unwrap_or_else(|| panic!("{path} answers"));
    list["items"].as_array().unwrap().clone()
}

/// Plays the kubelets for all pods that wait for one, from the `first` address on; returns how many that were.
pub(super) fn run_pods(plane: &ControlPlane, first: usize, count: usize) {
    let pods = wait("every pod", || {
        let mut pods = list(plane, "/api/v1/namespaces/shop/pods");
        pods.retain(|pod| pod["spec"]["nodeName"].is_null());
        (pods.len() == count).then_some(pods)
    });
    let bind = |(number, pod): (usize, &Value)| {
        let name = pod["metadata"]["name"].as_str().unwrap();
        // A daemon set says which node a pod is for.
        let wanted = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution\
                      /nodeSelectorTerms/0/matchFields/0/values/0";
        let node = pod.pointer(wanted).and_then(Value::as_str).unwrap_or(NODES[number % 2].0);
        let target = json!({ "apiVersion": "v1", "kind": "Node", "name": node });
        let body =
            json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name }, "target": target });
        Request {
            method: "POST",
            path: format!("/api/v1/namespaces/shop/pods/{name}/binding"),
            content_type: "application/json",
            body: body.to_string().into_bytes(),
        }
    };
    for bound in plane.api().0.send_all(pods.iter().enumerate().map(bind).collect(), 8) {
        let bound = bound.unwrap();
        assert_eq!(bound.status, 201, "{}", bound.text());
    }
    let run = |(number, pod): (usize, &Value)| {
        let (place, number) = ((first + number) / CROWD, (first + number) % CROWD);
        let addresses = [address(place, number).to_string(), address6(place, number).to_string()];
        let mut pod = pod.clone();
        // In a list it does not stand at every item.
        (pod["apiVersion"], pod["kind"]) = (json!("v1"), json!("Pod"));
        pod["status"] = objects::running(&addresses.each_ref().map(String::as_str));
        pod
    };
    let running: Vec<Value> = pods.iter().enumerate().map(run).collect();
    let _ = plane.api().set_status_all(running.iter());
}

/// What the API server has, to look names up in.
pub(super) struct Directory {
    /// By kind and name, those of namespace `shop` and of none.
    objects: HashMap<(String, String), Value>,
    /// By address; not those with host network.
    pods: HashMap<IpAddr, Value>,
}

impl Directory {
    /// Reads all of it.
    pub(super) fn read(plane: &ControlPlane) -> Self {
        let mut objects = HashMap::new();
        for path in [
            "/api/v1/nodes",
            "/api/v1/namespaces/shop/pods",
            "/api/v1/namespaces/shop/services",
            "/apis/apps/v1/namespaces/shop/replicasets",
            "/apis/batch/v1/namespaces/shop/jobs",
        ] {
            let kind = path.rsplit('/').next().unwrap();
            for object in list(plane, path) {
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                objects.insert((kind.to_owned(), name), object);
            }
        }
        let mut pods = HashMap::new();
        for pod in objects.values().filter(|object| object["spec"]["hostNetwork"] != true) {
            for ip in pod["status"]["podIPs"].as_array().into_iter().flatten() {
                let before = pods.insert(ip["ip"].as_str().unwrap().parse().unwrap(), pod.clone());
                assert_eq!(before, None, "two pods have one address");
            }
        }
        Self { objects, pods }
    }

    fn get(&self, kind: &str, name: &str) -> &Value {
        &self.objects[&(kind.to_owned(), name.to_owned())]
    }

    /// All addresses of pods that are not their node's, in order.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = self.pods.keys().copied().collect();
        all.sort_unstable();
        all
    }

    /// The address of a service.
    pub(super) fn service_address(&self, app: &str) -> IpAddr {
        let service = self.get("services", &format!("{app}-service"));
        service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap()
    }

    /// The port at which every node answers for a service.
    pub(super) fn node_port(&self, app: &str) -> u16 {
        let service = self.get("services", &format!("{app}-service"));
        u16::try_from(service["spec"]["ports"][0]["nodePort"].as_u64().unwrap()).unwrap()
    }

    /// What a record must say of one of its ends. All services and ports of nodes here are UDP's.
    pub(super) fn names(&self, record: &Record, side: &str) -> Names {
        let address: IpAddr = record.text(&format!("{side}.address")).parse().unwrap();
        let is_udp = record.text("network.transport") == "udp";
        let port = record.whole(&format!("{side}.port")).filter(|_| is_udp);
        let port = port.map(|port| u16::try_from(port).unwrap());
        let mut names = Names::new();
        if let Some(pod) = self.pods.get(&address) {
            self.pod(pod, &mut names);
            let app = pod["metadata"]["labels"]["app"].as_str().unwrap();
            let service = self.objects.get(&("services".into(), format!("{app}-service")));
            if let Some(service) = service.filter(|_| port == Some(PORT)) {
                put(&mut names, "service", service);
            }
        } else if let Some(node) = NODES.iter().find(|node| node.1 == address.to_string()) {
            let mut services = self
                .objects
                .values()
                .filter(|object| port.is_some_and(|port| object["spec"]["ports"][0]["nodePort"] == port));
            put(&mut names, "node", self.get("nodes", node.0));
            if port == Some(HOST_PORT) {
                self.pod(self.get("pods", &format!("exporter-{}", node.0)), &mut names);
            } else if let Some(service) = services.next() {
                put(&mut names, "service", service);
                names.insert("k8s.namespace.name".into(), "shop".into());
            }
        } else {
            let has = |object: &&Value| {
                [&object["spec"]["clusterIP"], &object["status"]["loadBalancer"]["ingress"][0]["ip"]]
                    .contains(&&json!(address.to_string()))
            };
            if let Some(service) = self.objects.values().find(has) {
                put(&mut names, "service", service);
                names.insert("k8s.namespace.name".into(), "shop".into());
            }
        }
        names
    }

    fn pod(&self, pod: &Value, names: &mut Names) {
        put(names, "pod", pod);
        put(names, "node", self.get("nodes", pod["spec"]["nodeName"].as_str().unwrap()));
        names.insert("k8s.namespace.name".into(), "shop".into());
        names.insert("k8s.container.name".into(), "main".into());
        let app = pod["metadata"]["labels"]["app"].as_str().unwrap();
        names.insert("k8s.pod.label.app".into(), app.into());
        let mut owned = pod;
        while let Some(owner) = owned["metadata"]["ownerReferences"].get(0) {
            let (kind, name) =
                (owner["kind"].as_str().unwrap().to_lowercase(), owner["name"].as_str().unwrap());
            names.insert(format!("k8s.{kind}.name"), name.into());
            names.insert(format!("k8s.{kind}.uid"), owner["uid"].as_str().unwrap().into());
            let Some(object) = self.objects.get(&(format!("{kind}s"), name.into())) else { break };
            owned = object;
        }
    }
}

/// Adds an object's name and uid.
fn put(names: &mut Names, kind: &str, object: &Value) {
    for key in ["name", "uid"] {
        names.insert(format!("k8s.{kind}.{key}"), object["metadata"][key].as_str().unwrap().into());
    }
}
