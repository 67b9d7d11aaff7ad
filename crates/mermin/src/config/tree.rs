//! A configuration as a tree in which every node knows where it was written.
//!
//! Layers are merged here, before any type is known, so that an error about the result can still name the line, the
//! variable or the option to blame. Sections merge key by key; lists and scalars replace.

use super::problem::Origin;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// YAML's three kinds of node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A scalar as written, and what the core schema makes of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) kind: Kind,
}

/// The core schema's types (YAML 1.2.2 section 10.3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text,
}

/// A key of a map with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Of the key; the value has its own.
    pub(crate) origin: Origin,
    pub(crate) node: Node,
}

impl Node {
    /// A text given by an option.
    pub(crate) fn text(text: &str, origin: Origin) -> Self {
        let scalar = Scalar { text: text.to_owned(), kind: Kind::Text };
        Self { value: Value::Scalar(scalar), origin }
    }

    /// A section without keys.
    pub(crate) fn empty_map(origin: Origin) -> Self {
        Self { value: Value::Map(Vec::new()), origin }
    }

    /// `self` wrapped in one section per element of `path`.
    pub(crate) fn under(self, path: &[String]) -> Self {
        path.iter().rev().fold(self, |node, key| {
            let origin = node.origin.clone();
            let entry = Entry { key: key.clone(), origin: origin.clone(), node };
            Self { value: Value::Map(vec![entry]), origin }
        })
    }

    /// Whether nothing is written here.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.kind == Kind::Null)
    }

    /// Lays `above` over `self`.
    pub(crate) fn merge(&mut self, above: Self) {
        // `pipeline:` with nothing below it, over a full section, changes nothing.
        if above.is_null() && matches!(self.value, Value::Map(_)) {
            return;
        }
        match (&mut self.value, above) {
            (Value::Map(entries), Self { value: Value::Map(above), .. }) => {
                for new in above {
                    match entries.iter_mut().find(|old| old.key == new.key) {
                        Some(old) => {
                            old.origin = new.origin;
                            old.node.merge(new.node);
                        }
                        None => entries.push(new),
                    }
                }
            }
            (_, above) => *self = above,
        }
    }

    /// The deepest node that exists on the way along `keys`, as far as the path leads.
    pub(crate) fn nearest(&self, keys: &[String]) -> &Self {
        let mut node = self;
        for key in keys {
            let next = match &node.value {
                Value::Map(entries) => {
                    entries.iter().find(|entry| entry.key == *key).map(|entry| &entry.node)
                }
                Value::List(items) => key.parse().ok().and_then(|index: usize| items.get(index)),
                Value::Scalar(_) => None,
            };
            let Some(next) = next else { break };
            node = next;
        }
        node
    }

    /// The tree as JSON, for serde. Integers beyond 64 bits become texts; the check has refused them before.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Scalar(scalar) => scalar.to_json(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect()
            }
        }
    }
}

impl Scalar {
    fn to_json(&self) -> serde_json::Value {
        match self.kind {
            Kind::Null => serde_json::Value::Null,
            Kind::Bool(truth) => truth.into(),
            Kind::Integer(number) => u64::try_from(number)
                .map(serde_json::Value::from)
                .or_else(|_| i64::try_from(number).map(serde_json::Value::from))
                .unwrap_or_else(|_| self.text.clone().into()),
            Kind::Float(number) => number.into(),
            Kind::Text => self.text.clone().into(),
        }
    }
}

/// The path as users write it: `pipeline.flow_workers`; a key with a dot in quotes.
pub(crate) fn dotted(keys: &[String]) -> String {
    let mut path = String::new();
    for key in keys {
        if !path.is_empty() {
            path.push('.');
        }
        if key.contains('.') {
            path.push('"');
            path.push_str(key);
            path.push('"');
        } else {
            path.push_str(key);
        }
    }
    path
}

/// The reverse of [`dotted`]; `None` where a key is empty or a quote is left open.
pub(crate) fn split_dotted(path: &str) -> Option<Vec<String>> {
    let mut keys = Vec::new();
    let mut rest = path;
    loop {
        let (key, after) = if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"')?;
            (&quoted[..end], &quoted[end + 1..])
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            rest.split_at(end)
        };
        if key.is_empty() {
            return None;
        }
        keys.push(key.to_owned());
        if after.is_empty() {
            return Some(keys);
        }
        rest = after.strip_prefix('.')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_and_join() {
        for path in ["log_level", "pipeline.flow_workers", "enrich.names.\"10.0.0.0/8\"", "a.\"b.c\".d"] {
            assert_eq!(dotted(&split_dotted(path).unwrap()), path);
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a.\"b", "\"a\"b"] {
            assert_eq!(split_dotted(bad), None, "{bad}");
        }
    }
}
