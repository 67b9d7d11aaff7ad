//! What the black-box tests are made of. They know the program only by its command line, its output and the packets
//! on the wire, so nothing here depends on the program's own crates.

#![forbid(unsafe_code)]

pub mod capture_file;
pub mod container;
pub mod contract;
pub mod crowd;
pub mod example;
pub mod frame;
pub mod ipfix;
pub mod manifest;
pub mod memory;
pub mod need;
pub mod netns;
pub mod program;
pub mod protoc;
pub mod record;
pub mod rtnetlink;
pub mod servers;
pub mod tshark;
pub mod tuple;
pub mod witness;
