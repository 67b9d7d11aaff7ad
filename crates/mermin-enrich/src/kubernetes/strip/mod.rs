//! From the API server's JSON to what is kept of it.
//!
//! A pod's JSON has 4 to 20 kB; of it some 300 bytes are kept. The structs here name only what is used: serde skips the
//! rest without building it, and takes texts from the buffer without copying them.

mod endpoint_slice;
mod meta;
mod node;
mod pod;
mod service;
mod text;
mod time;

#[cfg(test)]
mod tests;

use crate::kubernetes::chosen::{AllChosen, Chosen, Pairs};
use crate::kubernetes::object::{Kind, Meta, Object, Owner};
use crate::kubernetes::texts::Texts;
use meta::WireMeta;
use serde::Deserialize;
use text::Text;

/// Reads objects.
#[derive(Debug, Default)]
pub(crate) struct Stripper {
    texts: Texts,
    chosen: AllChosen,
}

/// An object as it came.
#[derive(Debug)]
pub(crate) struct Stripped {
    pub(crate) object: Object,
    /// `metadata.resourceVersion`: where a watch goes on behind it.
    pub(crate) version: Box<str>,
}

/// An object of which nothing but the metadata is used.
#[derive(Deserialize)]
struct MetaOnly<'a> {
    #[serde(borrow)]
    metadata: WireMeta<'a>,
}

impl Stripper {
    pub(crate) fn new(chosen: AllChosen) -> Self {
        Self { texts: Texts::default(), chosen }
    }

    /// An object of the given kind. Of namespaces, replica sets and jobs, `PartialObjectMetadata` does.
    ///
    /// # Errors
    /// When it is not such an object.
    pub(crate) fn strip(&mut self, kind: Kind, json: &[u8]) -> Result<Stripped, serde_json::Error> {
        match kind {
            Kind::Pod => self.pod(serde_json::from_slice(json)?),
            Kind::Node => self.node(serde_json::from_slice(json)?),
            Kind::Service => self.service(serde_json::from_slice(json)?),
            Kind::EndpointSlice => self.endpoint_slice(serde_json::from_slice(json)?),
            Kind::Namespace => {
                let wire: MetaOnly<'_> = serde_json::from_slice(json)?;
                let labels = pick(&self.chosen.namespace_labels, &wire.metadata.labels.0, &mut self.texts);
                let meta = Meta { labels: labels.into(), ..self.meta(&wire.metadata) };
                Ok(stripped(Object::Namespace(meta), &wire.metadata))
            }
            Kind::ReplicaSet | Kind::Job => {
                let wire: MetaOnly<'_> = serde_json::from_slice(json)?;
                Ok(stripped(Object::Owner(kind, self.meta(&wire.metadata)), &wire.metadata))
            }
        }
    }

    /// All but the labels.
    fn meta(&mut self, wire: &WireMeta<'_>) -> Meta {
        Meta {
            namespace: self.texts.share(wire.namespace.as_str()),
            // Pods name replica sets, slices name pods and services.
            name: self.texts.share(wire.name.as_str()),
            uid: self.texts.share(wire.uid.as_str()),
            created: wire.created.and_then(|time| time.0),
            deletion_asked: wire.deletion_asked(),
            owner: wire.controller().map(|(kind, owner)| Owner {
                kind,
                name: self.texts.share(owner.name.as_str()),
                uid: self.texts.share(owner.uid.as_str()),
            }),
            labels: Box::default(),
        }
    }
}

fn stripped(object: Object, wire: &WireMeta<'_>) -> Stripped {
    Stripped { object, version: wire.resource_version.as_str().into() }
}

fn pick(chosen: &Chosen, labels: &[(Text<'_>, Text<'_>)], texts: &mut Texts) -> Pairs {
    if chosen.is_empty() {
        return Vec::new();
    }
    chosen.pick(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())), texts)
}
