//! What all objects have.

use super::text::{Labels, Text, list};
use super::time::WireTime;
use crate::kubernetes::object::{OwnerKind, Time};
use serde::Deserialize;

/// `ObjectMeta` of the API.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WireMeta<'a> {
    #[serde(borrow)]
    pub(super) namespace: Text<'a>,
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) uid: Text<'a>,
    #[serde(borrow)]
    pub(super) resource_version: Text<'a>,
    #[serde(rename = "creationTimestamp")]
    pub(super) created: Option<WireTime>,
    deletion_timestamp: Option<WireTime>,
    deletion_grace_period_seconds: Option<u32>,
    #[serde(borrow, deserialize_with = "list")]
    owner_references: Vec<WireOwner<'a>>,
    #[serde(borrow)]
    pub(super) labels: Labels<'a>,
    #[serde(borrow)]
    pub(super) annotations: Labels<'a>,
}

/// `OwnerReference` of the API.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireOwner<'a> {
    #[serde(borrow)]
    api_version: Text<'a>,
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) uid: Text<'a>,
    #[serde(default)]
    controller: Option<bool>,
}

impl WireMeta<'_> {
    /// When its deletion was asked for: `deletionTimestamp` is when the grace period ends.
    pub(super) fn deletion_asked(&self) -> Option<Time> {
        let end = self.deletion_timestamp?.0?;
        let grace = u64::from(self.deletion_grace_period_seconds.unwrap_or_default());
        Some(end.saturating_sub(grace * 1_000_000_000))
    }

    /// The owner that controls it, if records name owners of its kind.
    pub(super) fn controller(&self) -> Option<(OwnerKind, &WireOwner<'_>)> {
        let owner = self.owner_references.iter().find(|owner| owner.controller == Some(true))?;
        let group = owner.api_version.as_str().split_once('/').map_or("", |(group, _)| group);
        let kind = match (group, owner.kind.as_str()) {
            ("apps", "Deployment") => OwnerKind::Deployment,
            ("apps", "ReplicaSet") => OwnerKind::ReplicaSet,
            ("apps", "StatefulSet") => OwnerKind::StatefulSet,
            ("apps", "DaemonSet") => OwnerKind::DaemonSet,
            ("batch", "Job") => OwnerKind::Job,
            ("batch", "CronJob") => OwnerKind::CronJob,
            _ => return None,
        };
        Some((kind, owner))
    }
}
