//! Real servers that tests talk to: a Kubernetes control plane, the OpenTelemetry Collector, Prometheus, Kafka, and
//! collectors of IPFIX.
//!
//! `cargo xtask servers` puts their programs into the user's cache, by name and version; a test that needs one begins
//! with `need!(ControlPlane::installed())`. Whoever starts a server owns it: letting go of it ends it and removes its
//! files, also when the test panics, and the kernel ends it when the test program dies without that (`process.rs`).
//! Everything listens on 127.0.0.1, of the test program's network namespace or of one that the test names
//! (`place.rs`).

pub mod certificates;
pub mod collector;
pub mod control_plane;
pub mod faulty_collector;
pub mod flink;
pub mod folder;
pub mod goflow2;
pub mod http;
pub mod ipfix_receiver;
pub mod ipfix_tap;
pub mod kafka;
pub mod nfcapd;
pub mod place;
pub mod process;
pub mod prometheus;
pub mod tunnel;
pub mod udp_socket;

use std::path::PathBuf;

/// Programs of one project at one version, in a folder of their own.
#[derive(Debug)]
pub struct Server {
    /// Of the folder, and what `cargo xtask servers` takes.
    pub name: &'static str,
    /// As the programs say it themselves.
    pub version: &'static str,
    /// What the folder holds.
    pub programs: &'static [&'static str],
}

/// API server, controllers and command line.
pub const KUBERNETES: Server = Server {
    name: "kubernetes",
    version: "1.35.4",
    programs: &["kube-apiserver", "kube-controller-manager", "kubectl"],
};
/// What the API server keeps its objects in.
pub const ETCD: Server = Server { name: "etcd", version: "3.6.16", programs: &["etcd"] };
/// The OpenTelemetry Collector with the components in `tests/servers/otelcol/main.go`.
pub const OTELCOL: Server = Server { name: "otelcol", version: "0.165.0", programs: &["otelcol"] };
/// As Debian has it.
pub const PROMETHEUS: Server =
    Server { name: "prometheus", version: "2.42.0", programs: &["prometheus", "promtool"] };
/// No server, but what a container runtime adds to a pod's rights: prints containerd's default seccomp profile.
pub const RUNTIME_DEFAULT: Server =
    Server { name: "runtime-default", version: "2.4.2", programs: &["runtime-default"] };
/// A collector of NetFlow and IPFIX.
pub const GOFLOW2: Server = Server { name: "goflow2", version: "2.2.6", programs: &["goflow2"] };
/// Apache Kafka: its jars from Maven Central, and a script that runs a class of them.
pub const KAFKA: Server = Server { name: "kafka", version: "4.4.0", programs: &["kafka"] };
/// Apache Flink: its libraries from PyPI, and a script that runs them (`streams/tests/servers/flink.sh`).
pub const FLINK: Server = Server { name: "flink", version: "2.2.1", programs: &["flink"] };
/// All of them.
pub const ALL: [&Server; 8] =
    [&KUBERNETES, &ETCD, &OTELCOL, &PROMETHEUS, &RUNTIME_DEFAULT, &GOFLOW2, &KAFKA, &FLINK];

impl Server {
    /// Where its programs are, or would be.
    ///
    /// # Panics
    /// When neither `XDG_CACHE_HOME` nor `HOME` is set.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        cache().join(format!("{}-{}", self.name, self.version))
    }

    /// One of its programs.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub fn program(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.folder().join(name);
        if path.is_file() {
            Ok(path)
        } else {
            Err(format!("no {name} {}: cargo xtask servers {}", self.version, self.name))
        }
    }

    /// Whether all its programs are there.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub fn installed(&self) -> Result<(), String> {
        self.programs.iter().try_for_each(|name| self.program(name).map(drop))
    }
}

/// The folder of all servers, shared by all checkouts of this user.
///
/// # Panics
/// When neither `XDG_CACHE_HOME` nor `HOME` is set.
#[must_use]
pub fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    cache.expect("HOME or XDG_CACHE_HOME is set").join("mermin-ci/servers")
}
