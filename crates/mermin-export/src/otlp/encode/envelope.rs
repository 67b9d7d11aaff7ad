//! What stands around the items of a request: resource and scope, the same in all of a run.

use crate::protobuf::wire::{length_field, push_bytes, push_varint, varint_len};
use hyper::body::Bytes;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

/// The three kinds of request have one form: resource within list, scope within resource, items within scope.
const RESOURCE_ITEMS: u8 = 1;
const RESOURCE: u8 = 1;
const SCOPE_ITEMS: u8 = 2;
const SCOPE: u8 = 1;

/// Written once.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    /// The resource, with its field.
    resource: Vec<u8>,
    /// The scope, with its field.
    scope: Vec<u8>,
}

impl Envelope {
    pub(crate) fn new(resource: &Resource) -> Self {
        let scope = InstrumentationScope {
            name: "mermin".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let (mut resource_field, mut scope_field) = (Vec::new(), Vec::new());
        push_bytes(&mut resource_field, RESOURCE, &resource.encode_to_vec());
        push_bytes(&mut scope_field, SCOPE, &scope.encode_to_vec());
        Self { resource: resource_field, scope: scope_field }
    }

    /// A request around `items`, which are not copied.
    pub(crate) fn around(&self, items: Bytes) -> Vec<Bytes> {
        let within_scope = self.scope.len() + items.len();
        let within_resource = self.resource.len() + 1 + varint_len(within_scope as u64) + within_scope;
        let mut front = Vec::with_capacity(self.len() + 32);
        front.push(length_field(RESOURCE_ITEMS));
        push_varint(&mut front, within_resource as u64);
        front.extend_from_slice(&self.resource);
        front.push(length_field(SCOPE_ITEMS));
        push_varint(&mut front, within_scope as u64);
        front.extend_from_slice(&self.scope);
        vec![Bytes::from(front), items]
    }

    /// About how many bytes it adds.
    fn len(&self) -> usize {
        self.resource.len() + self.scope.len()
    }
}
