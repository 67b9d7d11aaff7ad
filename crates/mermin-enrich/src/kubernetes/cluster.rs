//! Where the API server is, and who asks it.

use crate::clock::Clock;
use crate::kubernetes::client::Client;
use crate::kubernetes::config::{KubernetesConfig, Scope, Switch};
use kube::config::{InClusterError, Kubeconfig, KubeconfigError};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tokio::runtime::Builder;

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

    /// Whether a client can be made of the credentials, for which an exec plugin is run. Nobody is asked.
    ///
    /// # Errors
    /// [`KubernetesError::Credentials`], or no runtime to be had.
    pub fn try_credentials(&self) -> Result<(), KubernetesError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(KubernetesError::Thread)?;
        let _context = runtime.enter();
        Client::new(self, Clock::new()).map(drop)
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
        if let Some(context) = &config.context {
            kubeconfig.current_context = Some(context.clone());
        }
        if let Some(proxy) = proxy(&kubeconfig) {
            let reason = format!("it asks for the proxy {proxy}, and proxies aren't supported");
            return Err(KubernetesError::Kubeconfig { path: path.to_owned(), reason });
        }
        let config = kube::Config::try_from(kubeconfig).map_err(|error| unusable(path, &error))?;
        Ok(Self { config })
    }
}

/// The proxy of the current context's cluster. The environment's (`HTTPS_PROXY`) isn't asked: it is for the way out of
/// a network, and an API server is inside.
fn proxy(kubeconfig: &Kubeconfig) -> Option<&str> {
    let name = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == *name)?.context.as_ref()?;
    let cluster =
        kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster)?.cluster.as_ref()?;
    cluster.proxy_url.as_deref().filter(|url| !url.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A kubeconfig with two contexts, and a certificate authority beside it.
    const KUBECONFIG: &str = r#"
apiVersion: v1
kind: Config
clusters:
- {name: here, cluster: {server: "https://192.0.2.1:6443", certificate-authority: ca.crt}}
- {name: there, cluster: {server: "https://192.0.2.2:6443"}}
- {name: behind, cluster: {server: "https://192.0.2.3:6443", proxy-url: "http://192.0.2.4:3128"}}
users:
- {name: me, user: {token: secret}}
contexts:
- {name: here, context: {cluster: here, user: me}}
- {name: there, context: {cluster: there, user: me}}
- {name: nowhere, context: {cluster: gone, user: me}}
current-context: here
"#;

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            let home = Self(tempfile::tempdir().unwrap());
            let certificate = mermin_tests::servers::certificates::Authority::new();
            fs::copy(certificate.certificate(), home.path("ca.crt")).unwrap();
            home
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }
    }

    fn given(enabled: Switch, kubeconfig: Option<PathBuf>) -> KubernetesConfig {
        KubernetesConfig { enabled, kubeconfig, ..KubernetesConfig::default() }
    }

    fn server(
        config: &KubernetesConfig,
        environment: &Environment,
        live: bool,
    ) -> Result<Option<String>, KubernetesError> {
        Cluster::find(config, environment, live).map(|found| found.map(|cluster| cluster.server()))
    }

    #[test]
    fn auto_asks_in_a_pod_or_where_a_file_is_given() {
        let home = Home::new();
        let file = home.write("some.yaml", KUBECONFIG);
        let nowhere = Environment::default();
        let found = |enabled, file: Option<&PathBuf>, environment: &Environment, live| {
            server(&given(enabled, file.cloned()), environment, live).unwrap()
        };
        let here = Some("https://192.0.2.1:6443".to_owned());
        assert_eq!(found(Switch::Auto, None, &nowhere, true), None);
        assert_eq!(found(Switch::Auto, Some(&file), &nowhere, true), here);
        assert_eq!(found(Switch::Auto, Some(&file), &nowhere, false), None, "a replay");
        assert_eq!(found(Switch::On, Some(&file), &nowhere, false), here);
        assert_eq!(found(Switch::Off, Some(&file), &nowhere, true), None);
        // A file that nobody gave doesn't count until somebody asks.
        let standard = home.path(".kube/config");
        home.write(".kube/config", &KUBECONFIG.replace("ca.crt", "../ca.crt"));
        let user = Environment { home: Some(home.0.path().to_owned()), ..Environment::default() };
        assert_eq!(found(Switch::Auto, None, &user, true), None);
        assert_eq!(found(Switch::On, None, &user, true), here);
        fs::remove_file(standard).unwrap();
        // In a pod without an account.
        let pod = Environment { in_pod: true, ..Environment::default() };
        if !Path::new("/var/run/secrets/kubernetes.io").exists() {
            assert_eq!(found(Switch::Auto, None, &pod, true), None);
            let error = server(&given(Switch::On, None), &pod, true).unwrap_err();
            assert!(matches!(error, KubernetesError::NoServiceAccount { .. }), "{error}");
        }
    }

    #[test]
    fn the_environments_files_are_merged_and_a_context_is_chosen() {
        let home = Home::new();
        let contexts = home
            .write("a", "contexts:\n- {name: x, context: {cluster: there, user: me}}\ncurrent-context: x\n");
        let rest = home.write("b", KUBECONFIG);
        let paths = env::join_paths([home.path("missing"), contexts, rest]).unwrap();
        let environment = Environment { kubeconfig: Some(paths), ..Environment::default() };
        let on = given(Switch::On, None);
        assert_eq!(server(&on, &environment, true).unwrap().unwrap(), "https://192.0.2.2:6443");
        let config = KubernetesConfig { context: Some("here".into()), ..on };
        assert_eq!(server(&config, &environment, true).unwrap().unwrap(), "https://192.0.2.1:6443");
    }

    #[test]
    fn errors_say_what_where_and_what_to_do() {
        let home = Home::new();
        let good = home.write("good", KUBECONFIG);
        let broken = home.write("broken", "clusters: [");
        let no_authority = home.write("no-authority", &KUBECONFIG.replace("ca.crt", "missing.crt"));
        let nowhere = Environment::default();
        let config = |file: &PathBuf| given(Switch::On, Some(file.clone()));
        let with_context =
            |context: &str| KubernetesConfig { context: Some(context.into()), ..config(&good) };
        let with_node = |node: Option<&str>, scope| KubernetesConfig {
            node: node.map(Into::into),
            scope,
            ..config(&good)
        };
        for (config, expected, key) in [
            (config(&home.path("none")), "none can't be used: No such file or directory", "kubeconfig"),
            (config(&broken), "broken can't be used: it is no kubeconfig", "kubeconfig"),
            (config(&no_authority), "missing.crt", "kubeconfig"),
            (with_context("away"), "good can't be used: it has no context `away`", "kubeconfig"),
            (with_context("nowhere"), "good can't be used: it has no cluster `gone`", "kubeconfig"),
            (with_node(None, Scope::Node), "with `scope: node` this node's name must be given", "node"),
            (with_node(Some("a&b"), Scope::Cluster), "`a&b` is no node's name", "node"),
            (given(Switch::On, None), "there is no cluster to ask", "enabled"),
        ] {
            let error = server(&config, &nowhere, true).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.key(), key);
            assert!(!error.help().is_empty());
        }
        let proxied = home.write("proxied", &KUBECONFIG.replace("cluster: here", "cluster: behind"));
        let error = server(&config(&proxied), &nowhere, true).unwrap_err().to_string();
        assert!(error.contains("proxies aren't supported"), "{error}");
    }
}
