//! Where lock-free code takes atomics and threads from: in its model (`tests/loom`) they are others.

pub(crate) use std::sync::atomic;
pub(crate) use std::thread;
