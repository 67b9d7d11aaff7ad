//! Who an end is, in a word for people: the configuration's name, else Kubernetes'.

use crate::form::{Dialect, push_foreign};
use mermin_flow::{Identity, KubernetesAttribute as K, KubernetesEnd, Resolution};

/// `office`, `shop/cart-0`, `service shop/cart`, `node n1`, `ambiguous`; nothing where nobody is known.
pub(super) fn push_owner(identity: &Identity, out: &mut Vec<u8>) {
    match (&identity.name, &identity.kubernetes) {
        (Some(name), _) => push_foreign(out, name, Dialect::Plain),
        (None, Some(end)) => push_kubernetes(end, out),
        (None, None) => {}
    }
}

fn push_kubernetes(end: &KubernetesEnd, out: &mut Vec<u8>) {
    if end.resolution == Resolution::Ambiguous {
        return out.extend_from_slice(b"ambiguous");
    }
    let Some(object) = &end.object else { return };
    let namespaced = [("", K::PodName), ("service ", K::ServiceName)];
    let named = namespaced.into_iter().find_map(|(kind, name)| Some((kind, object.get(name)?)));
    if let Some((kind, name)) = named {
        out.extend_from_slice(kind.as_bytes());
        if let Some(namespace) = object.get(K::NamespaceName) {
            push_foreign(out, namespace, Dialect::Plain);
            out.push(b'/');
        }
        push_foreign(out, name, Dialect::Plain);
    } else if let Some(node) = object.get(K::NodeName) {
        out.extend_from_slice(b"node ");
        push_foreign(out, node, Dialect::Plain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mermin_flow::KubernetesObject;
    use std::sync::Arc;

    fn owner(name: Option<&str>, resolution: Resolution, attributes: &[(K, &str)]) -> String {
        let attributes = attributes.iter().map(|(key, value)| (*key, Arc::from(*value))).collect();
        let object = Some(Arc::new(KubernetesObject { attributes, labels: Box::default() }));
        let kubernetes = Some(KubernetesEnd { resolution, object, container: None, service: None });
        let mut out = Vec::new();
        push_owner(&Identity { name: name.map(Arc::from), kubernetes }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_owner_is_named_by_what_it_is() {
        use Resolution::{Ambiguous, Exact};
        let pod = [(K::NamespaceName, "shop"), (K::PodName, "cart-0"), (K::NodeName, "n1")];
        assert_eq!(owner(None, Exact, &pod), "shop/cart-0");
        assert_eq!(owner(Some("office"), Exact, &pod), "office");
        assert_eq!(owner(None, Ambiguous, &pod[..1]), "ambiguous");
        let service = [(K::NamespaceName, "shop"), (K::ServiceName, "cart")];
        assert_eq!(owner(None, Exact, &service), "service shop/cart");
        assert_eq!(owner(None, Exact, &[(K::NodeName, "n\u{1b}1")]), "node n\\u{1b}1");
        assert_eq!(owner(None, Exact, &[]), "");
        let mut out = Vec::new();
        push_owner(&Identity { name: None, kubernetes: Some(KubernetesEnd::UNKNOWN) }, &mut out);
        assert!(out.is_empty());
    }
}
