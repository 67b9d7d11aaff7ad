//! Times in Kubernetes' objects: RFC 3339, whole seconds.

use crate::kubernetes::object::Time;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Deserializer};

/// A time; `None` when absent, null or before 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WireTime(pub(super) Option<Time>);

impl<'de> Deserialize<'de> for WireTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let time: Option<Timestamp> = Option::deserialize(deserializer)?;
        Ok(Self(time.and_then(|time| Time::try_from(time.as_nanosecond()).ok())))
    }
}
