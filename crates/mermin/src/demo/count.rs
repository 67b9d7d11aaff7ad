//! An output that only adds up records by protocol, for the comparison at the demo's end.

use super::witness::Sent;
use mermin_flow::{Amount, Exporter, Failure, FlowRecord, Receipt};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts what records carry; clones share the sums.
#[derive(Clone, Debug, Default)]
pub(super) struct CountByProtocol(Arc<Mutex<Sent>>);

impl CountByProtocol {
    pub(super) fn sums(&self) -> Sent {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exporter for CountByProtocol {
    fn name(&self) -> &str {
        "count"
    }

    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            let packets = record.forward.delta.packets + record.reverse.delta.packets;
            // IANA protocol numbers.
            match record.protocol {
                1 => sums.icmp += packets,
                6 => sums.tcp += packets,
                17 => sums.udp += packets,
                58 => sums.icmpv6 += packets,
                _ => {}
            }
            receipt.delivered += Amount::of(record);
        }
        Ok(())
    }

    fn flush(&mut self, _: &mut Receipt) -> Result<(), Failure> {
        Ok(())
    }

    fn after_panic(&mut self) -> Option<u64> {
        Some(0)
    }
}
