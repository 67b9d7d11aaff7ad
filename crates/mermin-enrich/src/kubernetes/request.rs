//! What is asked for: paths and queries by kind.

use crate::kubernetes::object::Kind;

/// Objects in a page of a list that doesn't come from the server's cache. As in Kubernetes' own clients.
const PAGE: u32 = 500;

/// The questions about one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    path: String,
    /// `fieldSelector=…&`, or nothing.
    selector: String,
    metadata_only: bool,
}

impl Request {
    /// `node`: only pods that run there.
    pub(crate) fn new(kind: Kind, node: Option<&str>) -> Self {
        let root = match kind.group() {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/v1"),
        };
        let selector = match node.filter(|_| kind == Kind::Pod) {
            // A node's name needs no escapes.
            Some(node) => format!("fieldSelector=spec.nodeName%3D{node}&"),
            None => String::new(),
        };
        let metadata_only = matches!(kind, Kind::Namespace | Kind::ReplicaSet | Kind::Job);
        Self { path: format!("{root}/{}", kind.resource()), selector, metadata_only }
    }

    /// All objects that there are, then what happens. `fresh`: not from a cache that may lag behind what was seen.
    pub(crate) fn streamed_list(&self, fresh: bool, seconds: u32) -> String {
        let version = if fresh { "" } else { "0" };
        format!(
            "{}?{}watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion={version}\
             &allowWatchBookmarks=true&timeoutSeconds={seconds}",
            self.path, self.selector
        )
    }

    /// What happened since `version`, then what happens.
    pub(crate) fn watch(&self, version: &str, seconds: u32) -> String {
        format!(
            "{}?{}watch=true&resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds={seconds}",
            self.path, self.selector
        )
    }

    /// A page of all objects, from the server's memory unless `fresh`. `token`: where the page before it ended.
    pub(crate) fn list(&self, fresh: bool, token: Option<&str>) -> String {
        let Self { path, selector, .. } = self;
        match token {
            // Tokens are base64 for URLs.
            Some(token) => format!("{path}?{selector}limit={PAGE}&continue={token}"),
            None if fresh => format!("{path}?{selector}limit={PAGE}"),
            None => format!("{path}?{selector}limit={PAGE}&resourceVersion=0"),
        }
    }

    /// The form of objects in a watch.
    pub(crate) const fn accept_watch(&self) -> &'static str {
        if self.metadata_only {
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
        } else {
            "application/json"
        }
    }

    /// The form of objects in a list.
    pub(crate) const fn accept_list(&self) -> &'static str {
        if self.metadata_only {
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
        } else {
            "application/json"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_those_of_the_api() {
        let pods = Request::new(Kind::Pod, Some("n1"));
        assert_eq!(
            pods.watch("7", 300),
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&watch=true&resourceVersion=7&allowWatchBookmarks=true\
             &timeoutSeconds=300"
        );
        assert_eq!(
            pods.list(false, None),
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&limit=500&resourceVersion=0"
        );
        let slices = Request::new(Kind::EndpointSlice, Some("n1"));
        assert_eq!(slices.list(true, None), "/apis/discovery.k8s.io/v1/endpointslices?limit=500");
        assert_eq!(
            slices.list(true, Some("x")),
            "/apis/discovery.k8s.io/v1/endpointslices?limit=500&continue=x"
        );
        assert_eq!(
            slices.streamed_list(true, 300),
            "/apis/discovery.k8s.io/v1/endpointslices?watch=true&sendInitialEvents=true\
             &resourceVersionMatch=NotOlderThan&resourceVersion=&allowWatchBookmarks=true&timeoutSeconds=300"
        );
        assert_eq!(slices.accept_watch(), "application/json");
        assert!(Request::new(Kind::Job, None).accept_list().contains("PartialObjectMetadataList"));
    }
}
