//! Protobuf by hand, for outputs that write a message per record: what one is written on, and the wire format.

pub(crate) mod sheet;
pub(crate) mod wire;
