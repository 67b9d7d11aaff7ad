//! Where the API server is, and who asks it.

use crate::kubernetes::config::{KubernetesConfig, Scope, Switch};
use kube::config::{InClusterError, Kubeconfig, KubeconfigError};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What the process's environment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `KUBECONFIG`: files, separated by colons.
    pub kubeconfig: Option<OsString>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// Whether this is a pod: `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT` are set.
    pub in_pod: bool,
}

impl Environment {
    /// This process's.
    #[must_use]
    pub fn of_process() -> Self {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        Self {
            kubeconfig: set("KUBECONFIG"),
            home: set("HOME").map(PathBuf::from),
            in_pod: set("KUBERNETES_SERVICE_HOST").is_some() && set("KUBERNETES_SERVICE_PORT").is_some(),
        }
    }
}

/// An API server and the credentials for it.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(crate) config: kube::Config,
}

/// Why the API server can't be asked: something is wrong with what was configured.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// Outside a pod, and no file.
    #[error("there is no cluster to ask: this is no pod, and there is no {}", looked_for.display())]
    NoCluster {
        /// The file that would have been read.
        looked_for: PathBuf,
    },
    /// The file can't be used.
    #[error("{} can't be used: {reason}", path.display())]
    Kubeconfig {
        /// The file, or all files that `KUBECONFIG` names.
        path: PathBuf,
        /// Why, in a few words.
        reason: String,
    },
    /// In a pod, but without a service account.
    #[error("this pod has no service account to ask the API server with: {reason}")]
    NoServiceAccount {
        /// What is missing.
        reason: String,
    },
    /// Certificates, keys or an exec plugin.
    #[error("the credentials for {server} can't be used: {reason}")]
    Credentials {
        /// The API server.
        server: String,
        /// Why.
        reason: String,
    },
    /// `scope: node` without a name.
    #[error("with `scope: node` this node's name must be given")]
    NoNode,
    /// A name that no node has.
    #[error("`{node}` is no node's name")]
    BadNode {
        /// What was written.
        node: String,
    },
    /// No thread to be had.
    #[error("no thread for Kubernetes: {0}")]
    Thread(#[source] std::io::Error),
}

impl KubernetesError {
    /// The key in the configuration to look at, below `enrich.kubernetes`.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::NoCluster { .. } | Self::NoServiceAccount { .. } | Self::Thread(_) => "enabled",
            Self::Kubeconfig { .. } | Self::Credentials { .. } => "kubeconfig",
            Self::NoNode | Self::BadNode { .. } => "node",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::NoCluster { .. } => {
                "name the file with `enrich.kubernetes.kubeconfig`, or write `enrich.kubernetes.enabled: false`"
            }
            Self::Kubeconfig { .. } => {
                "`kubectl --kubeconfig FILE get nodes` should work; a context is chosen with `enrich.kubernetes.context`"
            }
            Self::NoServiceAccount { .. } => {
                "give the pod `serviceAccountName: mermin` and `automountServiceAccountToken: true`, or write \
                 `enrich.kubernetes.enabled: false`"
            }
            Self::Credentials { .. } => {
                "check the user's certificate, key, token file or exec plugin in the kubeconfig"
            }
            Self::NoNode => {
                "in the pod's manifest: `MERMIN_ENRICH__KUBERNETES__NODE` with `valueFrom.fieldRef.fieldPath: \
                 spec.nodeName`"
            }
            Self::BadNode { .. } => "`kubectl get nodes` lists them",
            Self::Thread(_) => "raise the limit of threads",
        }
    }
}

impl Cluster {
    /// The cluster to ask, or `None` when there is none or it isn't wanted. `live`: not a replay, for which `auto`
    /// means no.
    ///
    /// # Errors
    /// When what is configured can't be used. Whether anybody answers is not asked here.
    pub fn find(
        config: &KubernetesConfig,
        environment: &Environment,
        live: bool,
    ) -> Result<Option<Self>, KubernetesError> {
        let wanted = match config.enabled {
            Switch::Off => false,
            Switch::On => true,
            Switch::Auto => live && (environment.in_pod || config.kubeconfig.is_some()),
        };
        if !wanted {
            return Ok(None);
        }
        check_node(config)?;
        if let Some(path) = &config.kubeconfig {
            return Self::of_file(path, config).map(Some);
        }
        if environment.in_pod {
            return match Self::of_pod() {
                // A pod that was not given an account wasn't meant to ask.
                Err(error) if config.enabled == Switch::Auto => {
                    tracing::warn!("{error}; flows get no Kubernetes names");
                    Ok(None)
                }
                found => found.map(Some),
            };
        }
        Self::of_environment(config, environment).map(Some)
    }

    /// The API server's address.
    #[must_use]
    pub fn server(&self) -> String {
        self.config.cluster_url.to_string().trim_end_matches('/').to_owned()
    }

    fn of_pod() -> Result<Self, KubernetesError> {
        let config = kube::Config::incluster_env().map_err(|error| {
            let reason = match error {
                InClusterError::ReadDefaultNamespace(_) | InClusterError::ReadCertificateBundle(_) => {
                    "nothing is mounted at /var/run/secrets/kubernetes.io/serviceaccount".to_owned()
                }
                other => other.to_string(),
            };
            KubernetesError::NoServiceAccount { reason }
        })?;
        Ok(Self { config })
    }

    fn of_environment(config: &KubernetesConfig, environment: &Environment) -> Result<Self, KubernetesError> {
        let Some(paths) = &environment.kubeconfig else {
            let path = environment.home.clone().unwrap_or_default().join(".kube/config");
            if !path.exists() {
                return Err(KubernetesError::NoCluster { looked_for: path });
            }
            return Self::of_file(&path, config);
        };
        let shown = PathBuf::from(paths);
        let fail = |error| unusable(&shown, &error);
        let mut merged = Kubeconfig::default();
        // As kubectl does: of several files those count that are there.
        let files: Vec<_> = env::split_paths(paths).filter(|path| path.exists()).collect();
        if files.is_empty() {
            return Err(KubernetesError::NoCluster { looked_for: shown });
        }
        for path in files {
            let next = Kubeconfig::read_from(path).map_err(fail)?;
            merged = merged.merge(next).map_err(fail)?;
        }
        Self::of_kubeconfig(&shown, merged, config)
    }

    fn of_file(path: &Path, config: &KubernetesConfig) -> Result<Self, KubernetesError> {
        let kubeconfig = Kubeconfig::read_from(path).map_err(|error| unusable(path, &error))?;
        Self::of_kubeconfig(path, kubeconfig, config)
    }

    fn of_kubeconfig(
        path: &Path,
        mut kubeconfig: Kubeconfig,
        config: &KubernetesConfig,
    ) -> Result<Self, KubernetesError> {
        // The environment's proxy is for the way out of a cluster's network, which this isn't.
        let proxied =
            kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref()?.proxy_url.as_ref());
        if let Some(proxy) = proxied.into_iter().find(|url| !url.is_empty()) {
            let reason = format!("it asks for the proxy {proxy}, and proxies aren't supported");
            return Err(KubernetesError::Kubeconfig { path: path.to_owned(), reason });
        }
        if let Some(context) = &config.context {
            kubeconfig.current_context = Some(context.clone());
        }
        let config = kube::Config::try_from(kubeconfig).map_err(|error| unusable(path, &error))?;
        Ok(Self { config })
    }
}

fn unusable(path: &Path, error: &KubeconfigError) -> KubernetesError {
    let reason = match error {
        KubeconfigError::ReadConfig(error, _) => error.to_string(),
        KubeconfigError::CurrentContextNotSet => "it has no current context".to_owned(),
        KubeconfigError::LoadContext(name) => format!("it has no context `{name}`"),
        KubeconfigError::LoadClusterOfContext(name) => format!("it has no cluster `{name}`"),
        KubeconfigError::Parse(error) => {
            // The first line has what and where; a picture of the place follows.
            let text = error.to_string();
            format!("it is no kubeconfig ({})", text.lines().next().unwrap_or_default())
        }
        other => other.to_string(),
    };
    KubernetesError::Kubeconfig { path: path.to_owned(), reason }
}

fn check_node(config: &KubernetesConfig) -> Result<(), KubernetesError> {
    match &config.node {
        None if config.scope == Scope::Node => Err(KubernetesError::NoNode),
        // It becomes part of a query.
        Some(node)
            if node.is_empty()
                || !node.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)) =>
        {
            Err(KubernetesError::BadNode { node: node.clone() })
        }
        _ => Ok(()),
    }
}
