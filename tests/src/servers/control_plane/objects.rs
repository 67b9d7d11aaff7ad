//! Objects as tests make them, to be changed before they are made: JSON, as the API's documentation has it.

use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// A namespace.
#[must_use]
pub fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// A node with its own addresses and the ranges that its pods' addresses are of; ready.
#[must_use]
pub fn node(name: &str, addresses: &[&str], pod_ranges: &[&str]) -> Value {
    let internal = |address: &&str| json!({ "type": "InternalIP", "address": address });
    let mut all: Vec<Value> = addresses.iter().map(internal).collect();
    all.push(json!({ "type": "Hostname", "address": name }));
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        } },
        "spec": { "podCIDR": pod_ranges.first(), "podCIDRs": pod_ranges },
        "status": {
            "addresses": all,
            "capacity": { "cpu": "32", "memory": "64Gi", "pods": "500" },
            "allocatable": { "cpu": "32", "memory": "64Gi", "pods": "500" },
            "conditions": [{ "type": "Ready", "status": "True", "reason": "Test", "lastTransitionTime": now() }],
        },
    })
}

/// A pod on a node, running since now with these addresses (of one family or both).
#[must_use]
pub fn pod(namespace: &str, name: &str, node: &str, addresses: &[&str]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": { "app": name } },
        "spec": {
            "nodeName": node,
            "containers": [{ "name": "main", "image": "none" }],
            "terminationGracePeriodSeconds": 0,
        },
        "status": running(addresses),
    })
}

/// The status of a pod that runs since now.
#[must_use]
pub fn running(addresses: &[&str]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|address| json!({ "ip": address })).collect();
    let ready = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": now() });
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(ready);
    json!({
        "phase": "Running",
        "startTime": now(),
        "podIP": addresses.first(),
        "podIPs": ips,
        "conditions": conditions,
        "containerStatuses": [{
            "name": "main", "image": "none", "imageID": "none", "ready": true, "restartCount": 0,
            "started": true, "state": { "running": { "startedAt": now() } },
        }],
    })
}

/// The status of a pod whose containers have all ended.
#[must_use]
pub fn succeeded() -> Value {
    json!({ "phase": "Succeeded", "conditions": [
        { "type": "Ready", "status": "False", "reason": "PodCompleted", "lastTransitionTime": now() },
    ]})
}

/// Sets the owner of an object: `owner` as the API gave it back.
pub fn own(object: &mut Value, owner: &Value) {
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": false,
    }]);
}

/// This second, as the API writes times.
///
/// # Panics
/// On a clock before 1970.
#[must_use]
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    rfc3339(since.as_secs())
}

/// Civil date from days: the shift to years that begin in March makes leap days the last of their year.
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times_are_as_the_system_writes_them() {
        // date -u -d @N +%FT%TZ
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
