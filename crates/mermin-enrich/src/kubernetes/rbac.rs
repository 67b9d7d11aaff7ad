//! The rights that the watches need: `deploy/kubernetes/rbac.yaml` is written from the table of kinds.

use crate::kubernetes::object::Kind;

/// A rule of a ClusterRole for one kind, on one line.
pub(crate) fn rule(kind: Kind) -> String {
    format!(r#"{{apiGroups: ["{}"], resources: [{}], verbs: [list, watch]}}"#, kind.group(), kind.resource())
}

/// The service account, its role and their binding, as a manifest.
#[must_use]
pub fn rbac_manifest() -> String {
    let rules: String = Kind::ALL.into_iter().map(|kind| format!("  - {}\n", rule(kind))).collect();
    format!(
        "\
# The rights that the agent needs, and no more: to read the kinds that names come from.
# Generated from the program: `UPDATE=1 cargo test -p mermin-enrich` rewrites it. A kind that
# `enrich.kubernetes.leave_out` names needs no rule.
apiVersion: v1
kind: ServiceAccount
metadata:
  name: mermin
  namespace: mermin
  labels: {{app.kubernetes.io/name: mermin}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: mermin
  labels: {{app.kubernetes.io/name: mermin}}
rules:
{rules}---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: mermin
  labels: {{app.kubernetes.io/name: mermin}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: mermin
subjects:
  - {{kind: ServiceAccount, name: mermin, namespace: mermin}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_manifest_is_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes/rbac.yaml");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, rbac_manifest()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(written, rbac_manifest(), "stale: UPDATE=1 cargo test -p mermin-enrich");
    }

    #[test]
    fn a_rule_names_group_resource_and_verbs() {
        assert_eq!(rule(Kind::Pod), r#"{apiGroups: [""], resources: [pods], verbs: [list, watch]}"#);
        assert_eq!(rule(Kind::Job), r#"{apiGroups: ["batch"], resources: [jobs], verbs: [list, watch]}"#);
    }
}
