//! The numbers of enumerations on disk: for ever, whatever becomes of the order in the code. New values go to the end.

use mermin_flow::{
    FlowDirection, FlowEndReason, FlowEvent, Hook, Initiator, KubernetesAttribute, Resolution, TcpState,
};

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
        place.expect("`ALL` has every value, or `numbered!` would not compile") as u8
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

/// A new value doesn't compile until it has a number.
macro_rules! numbered {
    ($($kind:ident: $($value:ident),+;)*) => {
        $(
            impl Numbered for $kind {
                const ALL: &[Self] = &[$(Self::$value),+];
            }

            const _: fn($kind) = |value| match value {
                $($kind::$value)|+ => (),
            };
        )*
    };
}

numbered! {
    FlowEvent: Start, Update, End;
    FlowEndReason: IdleTimeout, ActiveTimeout, EndOfFlowDetected, ForcedEnd, LackOfResources;
    Initiator: Syn, SynAck, ServicePort, Multicast, IcmpRequest, FirstSeen;
    TcpState: Unknown, SynSent, SynReceived, Established, FinWait1, FinWait2, Closing, TimeWait, Closed;
    FlowDirection: Inbound, Outbound, WithinNode, Transit;
    Resolution: Exact, Ambiguous, Unknown;
    Hook: Ingress, Egress;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out a second time: what is on disk doesn't follow the code.
    #[test]
    fn numbers_stay() {
        fn names<T: Numbered + std::fmt::Debug>() -> String {
            T::ALL.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(" ")
        }
        assert_eq!(names::<FlowEvent>(), "Start Update End");
        assert_eq!(
            names::<FlowEndReason>(),
            "IdleTimeout ActiveTimeout EndOfFlowDetected ForcedEnd LackOfResources"
        );
        assert_eq!(names::<Initiator>(), "Syn SynAck ServicePort Multicast IcmpRequest FirstSeen");
        assert_eq!(
            names::<TcpState>(),
            "Unknown SynSent SynReceived Established FinWait1 FinWait2 Closing TimeWait Closed"
        );
        assert_eq!(names::<FlowDirection>(), "Inbound Outbound WithinNode Transit");
        assert_eq!(names::<Resolution>(), "Exact Ambiguous Unknown");
        assert_eq!(names::<Hook>(), "Ingress Egress");
        let attributes: Vec<_> = ATTRIBUTES.iter().map(|attribute| format!("{attribute:?}")).collect();
        assert_eq!(
            attributes.join(" "),
            "NamespaceName PodName PodUid ContainerName NodeName NodeUid DeploymentName DeploymentUid \
             ReplicaSetName ReplicaSetUid StatefulSetName StatefulSetUid DaemonSetName DaemonSetUid JobName JobUid \
             CronJobName CronJobUid ServiceName ServiceUid"
        );
    }
}
