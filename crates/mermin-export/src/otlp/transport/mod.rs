//! One request, one answer: gRPC and HTTP/protobuf over the same client.
//!
//! A unary gRPC call is an HTTP/2 request whose body has five bytes in front and whose status comes in trailers; that is
//! all of gRPC that OTLP needs, so it is done here instead of by a gRPC library. Requests are made of bytes that were
//! encoded once, and a repetition sends the same bytes.

mod answer;
mod chunks;
mod client;
mod credentials;
mod gathered;
mod message;
#[cfg(test)]
pub(super) mod test_status;

pub(crate) use answer::Answer;
pub(crate) use client::Transport;
pub(crate) use credentials::Credentials;
pub(crate) use message::Message;
