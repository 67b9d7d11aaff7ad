//! Bytes of a frame to headers: the one parser, for the kernel programs and user space.
#![no_std]
#![forbid(unsafe_code)]

mod reason;

pub use reason::Unmetered;
