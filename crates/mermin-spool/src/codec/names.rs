//! The numbers of enumerations on disk: for ever, whatever becomes of the order in the code. New values go to the end.

use mermin_flow::{
    FlowDirection, FlowEndReason, FlowEvent, Hook, Initiator, KubernetesAttribute, Resolution, TcpState,
};

/// Numbered from 0.
const EVENTS: [FlowEvent; 3] = [FlowEvent::Start, FlowEvent::Update, FlowEvent::End];
/// Numbered from 1, as RFC 7012 does; 0: none.
const END_REASONS: [FlowEndReason; 5] = [
    FlowEndReason::IdleTimeout,
    FlowEndReason::ActiveTimeout,
    FlowEndReason::EndOfFlowDetected,
    FlowEndReason::ForcedEnd,
    FlowEndReason::LackOfResources,
];
/// Numbered from 0.
const INITIATORS: [Initiator; 6] = [
    Initiator::Syn,
    Initiator::SynAck,
    Initiator::ServicePort,
    Initiator::Multicast,
    Initiator::IcmpRequest,
    Initiator::FirstSeen,
];
/// Numbered from 0.
const TCP_STATES: [TcpState; 9] = [
    TcpState::Unknown,
    TcpState::SynSent,
    TcpState::SynReceived,
    TcpState::Established,
    TcpState::FinWait1,
    TcpState::FinWait2,
    TcpState::Closing,
    TcpState::TimeWait,
    TcpState::Closed,
];
/// Numbered from 1; 0: none.
const DIRECTIONS: [FlowDirection; 4] =
    [FlowDirection::Inbound, FlowDirection::Outbound, FlowDirection::WithinNode, FlowDirection::Transit];
/// Numbered from 1; 0: none.
const RESOLUTIONS: [Resolution; 3] = [Resolution::Exact, Resolution::Ambiguous, Resolution::Unknown];
/// Numbered from 1; 0: none.
const HOOKS: [Hook; 2] = [Hook::Ingress, Hook::Egress];

/// Numbered from 0.
const ATTRIBUTES: [KubernetesAttribute; 20] = {
    use KubernetesAttribute as A;
    [
        A::NamespaceName,
        A::PodName,
        A::PodUid,
        A::ContainerName,
        A::NodeName,
        A::NodeUid,
        A::DeploymentName,
        A::DeploymentUid,
        A::ReplicaSetName,
        A::ReplicaSetUid,
        A::StatefulSetName,
        A::StatefulSetUid,
        A::DaemonSetName,
        A::DaemonSetUid,
        A::JobName,
        A::JobUid,
        A::CronJobName,
        A::CronJobUid,
        A::ServiceName,
        A::ServiceUid,
    ]
};

/// By the place in the code. Objects have ten each, so these are not searched for.
const ATTRIBUTE_NUMBERS: [u8; KubernetesAttribute::ALL.len()] = {
    let mut numbers = [u8::MAX; KubernetesAttribute::ALL.len()];
    let mut number = 0;
    while number < ATTRIBUTES.len() {
        numbers[ATTRIBUTES[number] as usize] = number as u8;
        number += 1;
    }
    numbers
};

/// The number of an attribute.
pub(super) const fn attribute_number(attribute: KubernetesAttribute) -> u8 {
    ATTRIBUTE_NUMBERS[attribute as usize]
}

/// `None`: of a later version.
pub(super) fn attribute(number: u64) -> Option<KubernetesAttribute> {
    ATTRIBUTES.get(usize::try_from(number).ok()?).copied()
}

/// An enumeration with numbers on disk.
pub(super) trait Numbered: Copy + PartialEq + 'static {
    const ALL: &[Self];

    /// From 0.
    fn number(self) -> u8 {
        let place = Self::ALL.iter().position(|known| *known == self);
        place.expect("`ALL` has every value: a test writes them all") as u8
    }

    /// `None`: of a later version.
    fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// From 1; 0: none.
    fn number_or_none(value: Option<Self>) -> u8 {
        value.map_or(0, |value| value.number() + 1)
    }

    /// `None`: of a later version.
    fn of_or_none(number: u8) -> Option<Option<Self>> {
        match number {
            0 => Some(None),
            _ => Self::of(number - 1).map(Some),
        }
    }
}

macro_rules! numbered {
    ($($kind:ty = $all:ident,)*) => {
        $(impl Numbered for $kind {
            const ALL: &[Self] = &$all;
        })*
    };
}

numbered! {
    FlowEvent = EVENTS,
    FlowEndReason = END_REASONS,
    Initiator = INITIATORS,
    TcpState = TCP_STATES,
    FlowDirection = DIRECTIONS,
    Resolution = RESOLUTIONS,
    Hook = HOOKS,
}
