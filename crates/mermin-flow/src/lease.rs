//! What tells that nobody needs a record any more.

use std::sync::Arc;

/// Goes with a record and all copies of it, wherever they go: when the last one is dropped, whoever gave it out knows that each of
/// the record's ways has come to an end. Says nothing of the flow, so all leases are equal.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    own: Option<Arc<()>>,
    /// Of records that this one has taken in.
    taken_in: Vec<Arc<()>>,
}

impl Lease {
    /// One to give out.
    #[must_use]
    pub fn new() -> Self {
        Self { own: Some(Arc::new(())), taken_in: Vec::new() }
    }

    /// Whether this is the last one of those that were cloned from each other.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.own.as_ref().is_none_or(|lease| Arc::strong_count(lease) == 1)
    }

    /// Whether it is one that nobody gave out.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.own.is_none() && self.taken_in.is_empty()
    }

    /// Whether both are of one, and of nothing else.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        let is_same = match (&self.own, &other.own) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        is_same && self.taken_in.is_empty() && other.taken_in.is_empty()
    }

    /// Its record takes in the other's: it stands for both.
    pub(crate) fn take_in(&mut self, other: &Self) {
        for more in other.own.iter().chain(&other.taken_in) {
            if !self.own.iter().chain(&self.taken_in).any(|known| Arc::ptr_eq(known, more)) {
                self.taken_in.push(Arc::clone(more));
            }
        }
    }
}

impl PartialEq for Lease {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Lease {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_knows_that_it_is() {
        let own = Lease::new();
        let given = [own.clone(), own.clone()];
        assert!(!own.is_last() && !given[0].is_last() && given[0].is_of(&own));
        drop(given);
        assert!(own.is_last());
        assert!(Lease::default().is_last() && Lease::default().is_none() && !own.is_none());
        assert!(!own.is_of(&Lease::new()));
        assert_eq!(own, Lease::default(), "records that say the same are equal");
    }

    #[test]
    fn what_has_taken_in_others_stands_for_all_of_them() {
        let given_out: [Lease; 3] = std::array::from_fn(|_| Lease::new());
        let mut record = given_out[0].clone();
        for earlier in [&given_out[1], &given_out[0], &given_out[1]] {
            record.take_in(&earlier.clone());
        }
        let mut later = given_out[2].clone();
        later.take_in(&record);
        drop(record);
        assert_eq!(later.taken_in.len(), 2);
        assert!(!later.is_of(&given_out[2]) && !later.is_none());
        assert_eq!(given_out.each_ref().map(Lease::is_last), [false; 3]);
        drop(later);
        assert_eq!(given_out.each_ref().map(Lease::is_last), [true; 3]);
    }
}
