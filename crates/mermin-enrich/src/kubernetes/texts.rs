//! Texts that many objects have in common, kept once.
//!
//! Of 50 000 pods most share namespace, node, owner and container names with others, and pods, replica sets and endpoint
//! slices name each other.

use std::collections::HashSet;
use std::sync::Arc;

/// Below this many texts nothing is thrown out.
const FEW: usize = 4_096;

/// Gives equal texts the same memory, as long as anybody holds it.
#[derive(Debug)]
pub(crate) struct Texts {
    kept: HashSet<Arc<str>>,
    /// When so many are kept, those are thrown out that nobody else holds.
    sweep_at: usize,
}

impl Default for Texts {
    fn default() -> Self {
        Self { kept: HashSet::new(), sweep_at: FEW }
    }
}

impl Texts {
    /// The shared form of `text`.
    pub(crate) fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(kept) = self.kept.get(text) {
            return Arc::clone(kept);
        }
        if self.kept.len() >= self.sweep_at {
            self.kept.retain(|text| Arc::strong_count(text) > 1);
            self.sweep_at = (self.kept.len() * 2).max(FEW);
        }
        let shared: Arc<str> = text.into();
        self.kept.insert(Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_and_forgotten_ones_go() {
        let mut texts = Texts::default();
        let held = texts.share("held");
        assert!(Arc::ptr_eq(&held, &texts.share("held")));
        for i in 0..100 * FEW {
            texts.share(&i.to_string());
            assert!(texts.kept.len() <= FEW);
        }
        assert!(Arc::ptr_eq(&held, &texts.share("held")));
    }
}
