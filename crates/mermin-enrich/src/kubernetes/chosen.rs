//! Which labels and annotations records carry.

use crate::kubernetes::config::KubernetesConfig;
use crate::kubernetes::texts::Texts;
use std::sync::Arc;

/// More of one object are left out.
const COUNT_MAX: usize = 32;
/// Longer values are cut, in bytes.
const VALUE_MAX: usize = 256;

/// Attributes made of labels or annotations: `k8s.pod.label.app` and its value.
pub(crate) type Pairs = Vec<(Arc<str>, Arc<str>)>;

/// The choice for one kind of labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// The attribute's name up to the label's: `k8s.pod.label.`.
    prefix: &'static str,
    patterns: Vec<Box<str>>,
}

/// The choices for all kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AllChosen {
    pub(crate) pod_labels: Chosen,
    pub(crate) pod_annotations: Chosen,
    pub(crate) namespace_labels: Chosen,
}

impl AllChosen {
    pub(crate) fn new(config: &KubernetesConfig) -> Self {
        Self {
            pod_labels: Chosen::new("k8s.pod.label.", &config.labels),
            pod_annotations: Chosen::new("k8s.pod.annotation.", &config.annotations),
            namespace_labels: Chosen::new("k8s.namespace.label.", &config.namespace_labels),
        }
    }
}

impl Chosen {
    fn new(prefix: &'static str, patterns: &[String]) -> Self {
        Self { prefix, patterns: patterns.iter().map(|pattern| pattern.as_str().into()).collect() }
    }

    /// Whether there is nothing to look for.
    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The chosen ones of an object's labels, in the order given, which is the API server's: by name.
    pub(crate) fn pick<'l>(
        &self,
        labels: impl Iterator<Item = (&'l str, &'l str)>,
        texts: &mut Texts,
    ) -> Pairs {
        let chosen = labels
            .filter(|(name, _)| self.patterns.iter().any(|pattern| fits(pattern, name)))
            .take(COUNT_MAX);
        let mut attribute = String::new();
        let share = |(name, value): (&str, &str)| {
            attribute.clear();
            attribute.extend([self.prefix, name]);
            (texts.share(&attribute), texts.share(cut(value)))
        };
        chosen.map(share).collect()
    }
}

/// At most [`VALUE_MAX`] bytes of it.
fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary(VALUE_MAX)]
}

/// Whether `name` is as `pattern` says; `*` stands for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<_> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit() {
        for (pattern, name, expected) in [
            ("app", "app", true),
            ("app", "apps", false),
            ("*", "", true),
            ("*", "any/thing", true),
            ("app.kubernetes.io/*", "app.kubernetes.io/name", true),
            ("app.kubernetes.io/*", "app.kubernetes.io", false),
            ("*/name", "app.kubernetes.io/name", true),
            ("*/name", "app.kubernetes.io/named", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "ac", false),
            ("a*a", "a", false),
            ("*ab", "aab", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn names_and_values_are_bounded() {
        let chosen = Chosen::new("k8s.pod.label.", &["l*".to_owned()]);
        let long = "ä".repeat(VALUE_MAX);
        let names: Vec<String> = (0..40).map(|i| format!("l{i:02}")).collect();
        let labels = names.iter().map(|name| (name.as_str(), long.as_str())).chain([("m", "not chosen")]);
        let picked = chosen.pick(labels, &mut Texts::default());
        assert_eq!(picked.len(), COUNT_MAX);
        assert_eq!(&*picked[0].0, "k8s.pod.label.l00");
        assert_eq!(&*picked[0].1, &long[..VALUE_MAX]);
        let odd = format!("x{long}");
        assert_eq!(cut(&odd).len(), VALUE_MAX - 1);
    }
}
