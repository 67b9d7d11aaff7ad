//! Service accounts with rights of their own: for what happens when a right is missing, or is taken away.

use super::ControlPlane;
use super::api::Api;
use crate::servers::http::{Client, Request};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A service account, its token and its way to the API.
#[derive(Clone, Debug)]
pub struct Account {
    /// The namespace that it is in.
    pub namespace: String,
    /// Its name, and that of its role and binding.
    pub name: String,
    /// Valid for an hour.
    pub token: String,
    /// Of a kubeconfig with the token in it.
    pub kubeconfig: PathBuf,
}

impl ControlPlane {
    /// Makes a service account that may do what `rules` say in the whole cluster (as in a ClusterRole), and gets a token
    /// for it. The namespace must be there.
    #[must_use]
    pub fn account(&self, namespace: &str, name: &str, rules: &Value) -> Account {
        let metadata = json!({ "name": name });
        let objects = [
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "name": name, "namespace": namespace },
            }),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": metadata, "rules": rules,
            }),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": metadata,
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
                "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": namespace }],
            }),
        ];
        let _ = self.api().create_all(&objects);
        self.existing_account(namespace, name)
    }

    /// Gets a token for a service account that is there.
    ///
    /// # Panics
    /// When it isn't.
    #[must_use]
    pub fn existing_account(&self, namespace: &str, name: &str) -> Account {
        let asked = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 3600 },
        });
        let request = Request {
            method: "POST",
            path: format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"),
            content_type: "application/json",
            body: asked.to_string().into_bytes(),
        };
        let response = self.api().send(request).expect("the API server answers");
        assert_eq!(response.status, 201, "{}", response.text());
        let answer: Value = serde_json::from_slice(&response.body).expect("JSON");
        let token = answer["status"]["token"].as_str().expect("a token").to_owned();
        let kubeconfig = self.kubeconfig_of_token(&format!("{namespace}-{name}"), &token);
        Account { namespace: namespace.into(), name: name.into(), token, kubeconfig }
    }

    /// Gives the account's role other rules; the API server knows within a second or so.
    pub fn set_rules(&self, account: &Account, rules: &Value) {
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": account.name },
        });
        self.api().patch(&role, &json!({ "rules": rules }));
    }

    /// The API as an account sees it.
    #[must_use]
    pub fn api_as(&self, account: &Account) -> Api {
        Api(Client { authorization: Some(format!("Bearer {}", account.token)), ..self.client(None) })
    }
}
