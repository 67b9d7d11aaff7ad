//! This program's one source of chance.

use std::hash::{BuildHasher as _, RandomState};

/// 64 bits that nobody outside the process knows: the seed that the standard library gives its hash maps.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}
