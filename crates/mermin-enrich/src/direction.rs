//! Which way a flow runs, as seen from this node.

use crate::host::HostAddresses;
use mermin_flow::{Enricher, FlowDirection, FlowRecord};
use std::net::IpAddr;
use std::sync::Arc;

/// Where an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// On this node.
    Here,
    /// On another, or outside of the cluster.
    Elsewhere,
    /// Nothing tells.
    Unclear,
}

/// The direction between two ends. A group's members are wherever its packets go, so `destination` then doesn't matter.
pub(crate) fn direction(
    source: Location,
    destination: Location,
    destination_address: IpAddr,
) -> Option<FlowDirection> {
    use FlowDirection::{Inbound, Outbound, Transit, WithinNode};
    use Location::{Elsewhere, Here};
    match (source, destination) {
        (Here, _) if is_group(destination_address) => Some(Outbound),
        (Elsewhere, _) if is_group(destination_address) => Some(Inbound),
        (Here, Here) => Some(WithinNode),
        (Here, Elsewhere) => Some(Outbound),
        (Elsewhere, Here) => Some(Inbound),
        (Elsewhere, Elsewhere) => Some(Transit),
        _ => None,
    }
}

fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

/// Where nobody is asked but the host itself: the ends with its addresses are here.
pub(crate) struct DirectionByHost(pub(crate) Arc<HostAddresses>);

impl Enricher for DirectionByHost {
    fn enrich(&self, record: &mut FlowRecord) {
        let location = |address| if self.0.has(address) { Location::Here } else { Location::Elsewhere };
        let (source, destination) = (record.source.address, record.destination.address);
        record.enrichment.direction = direction(location(source), location(destination), destination);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FlowDirection::{Inbound, Outbound, Transit, WithinNode};
    use Location::{Elsewhere, Here, Unclear};

    #[test]
    fn ends_on_this_node_make_the_direction() {
        let host = "192.0.2.1".parse().unwrap();
        for (source, destination, expected) in [
            (Here, Here, Some(WithinNode)),
            (Here, Elsewhere, Some(Outbound)),
            (Elsewhere, Here, Some(Inbound)),
            (Elsewhere, Elsewhere, Some(Transit)),
            (Unclear, Here, None),
            (Here, Unclear, None),
            (Unclear, Unclear, None),
        ] {
            assert_eq!(direction(source, destination, host), expected, "{source:?} {destination:?}");
        }
    }

    #[test]
    fn to_a_group_is_out_from_here_and_in_from_elsewhere() {
        for group in ["224.0.0.251", "ff02::1", "255.255.255.255"] {
            let group = group.parse().unwrap();
            assert_eq!(direction(Here, Elsewhere, group), Some(Outbound));
            assert_eq!(direction(Elsewhere, Elsewhere, group), Some(Inbound));
            assert_eq!(direction(Unclear, Elsewhere, group), None);
        }
    }
}
