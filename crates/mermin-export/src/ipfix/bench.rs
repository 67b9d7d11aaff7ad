//! Messages without a network: what the benchmark of records measures.

use super::encode::{Encoder, Part};
use super::session::{Identity, Session, Version};
use super::window::Window;
use crate::format::Format;
use mermin_flow::{Amount, FlowRecord, ObservationPoints, Receipt};
use std::sync::Arc;

/// Of UDP over Ethernet.
const MESSAGE: usize = 1_472;

/// Makes messages of records, both directions in each.
pub struct IpfixMessages {
    encoder: Encoder,
    session: Session,
    window: Window,
    row: Vec<u8>,
    message: Vec<u8>,
    receipt: Receipt,
}

impl IpfixMessages {
    /// Of records whose points are among `points`.
    #[must_use]
    pub fn new(points: Arc<ObservationPoints>) -> Self {
        let identity = Identity { version: Version::Ipfix, domain: 0, enterprise: 32_473, booted: 0 };
        Self {
            encoder: Encoder::new(points),
            session: Session::new(identity),
            window: Window::default(),
            row: Vec::new(),
            message: Vec::new(),
            receipt: Receipt::default(),
        }
    }
}

impl Format for IpfixMessages {
    fn push(&mut self, record: &FlowRecord, out: &mut Vec<u8>) {
        self.row.clear();
        let shape = self.encoder.push(record, Part::Both, &mut self.row);
        self.window.push(shape, &self.row, Some(Amount::of(record)));
        if self.window.octets() >= MESSAGE {
            let made = self.session.make(&mut self.window, MESSAGE, 0, "too_large", &mut self.message);
            self.session.commit();
            self.window.settle(made.items, &mut self.receipt);
            out.extend_from_slice(&self.message);
        }
    }
}
