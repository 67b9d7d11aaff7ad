//! What outputs over a network share: certificates, and files of secrets, that are read again when they change.

mod files;
mod tls;

pub(crate) use files::{Watched, secret};
pub(crate) use tls::TlsFiles;
