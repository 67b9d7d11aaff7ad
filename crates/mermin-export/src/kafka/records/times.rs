//! The times of messages, and which of a batch a broker has not taken.
//!
//! A broker refuses a batch for one record's time and names the record. librdkafka 2.12 tells what is named where there are
//! several; where there is one, it tells of all records of the batch that their time is refused. Which one it is, the times
//! say: brokers take what is neither too far ahead nor too old.

use super::super::client::Parcel;
use super::super::refusal::REFUSED;
use super::{Records, drop_as};
use mermin_flow::{Failure, Receipt};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::cmp::Reverse;
use std::time::{SystemTime, UNIX_EPOCH};

/// Of a message, in milliseconds since 1970. 0 would mean that none is given, to librdkafka.
pub(super) fn message_time(nanoseconds: u64) -> i64 {
    i64::try_from(nanoseconds / 1_000_000).expect("2^64 / 10^6 is less than 2^63").max(1)
}

/// Puts those first whose time a broker is most likely to refuse: the newest where one is ahead of `now`, else the oldest.
fn by_suspicion(parcels: &mut [(i64, Parcel)], now: i64) {
    if parcels.iter().any(|(time, _)| *time > now) {
        parcels.sort_by_key(|(time, _)| Reverse(*time));
    } else {
        parcels.sort_by_key(|(time, _)| *time);
    }
}

impl Records {
    /// Drops the record whose time is refused; the others are sent again. Twice as many each time that none of them is
    /// delivered: a broker before Kafka 2.4 names none, and all may be meant.
    pub(super) fn refuse_untimely(
        &mut self,
        parcels: Vec<Parcel>,
        receipt: &mut Receipt,
    ) -> Result<(), Failure> {
        let timed = |parcel: Parcel| Some((self.window.time(parcel.number)?, parcel));
        let mut parcels: Vec<_> = parcels.into_iter().filter_map(timed).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        by_suspicion(&mut parcels, i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
        let others = parcels.split_off(self.suspects.min(parcels.len()));
        self.suspects = self.suspects.saturating_mul(2);
        self.again.extend(others.into_iter().map(|(_, parcel)| parcel));
        let mut result = Ok(());
        for (_, parcel) in parcels {
            let amount = self.window.settle(parcel.number).unwrap_or_default();
            let why = self.words(REFUSED, &Code::InvalidTimestamp.to_string());
            result = result.and(drop_as(REFUSED, amount, why, receipt));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_a_time_also_in_the_first_millisecond() {
        assert_eq!([0, 999_999, 1_000_000, 2_999_999].map(message_time), [1, 1, 1, 2]);
        assert_eq!(message_time(u64::MAX), 18_446_744_073_709);
    }

    #[test]
    fn what_is_ahead_is_suspected_before_what_is_old() {
        let first = |times: [i64; 3]| {
            let parcel = |time| (time, Parcel { number: 0, key: Vec::new(), value: Vec::new() });
            let mut parcels = times.map(parcel);
            by_suspicion(&mut parcels, 100);
            parcels[0].0
        };
        assert_eq!((first([1, 500, 99]), first([99, 1, 100])), (500, 1));
    }
}
