//! Programs built from Go modules, at the versions and with the checksums that are committed.

use crate::run::{root, succeed};
use anyhow::{Result, bail};
use mermin_tests::servers::{ETCD, GOFLOW2, KUBERNETES, OTELCOL, RUNTIME_DEFAULT, Server, cache};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a server is built.
pub(super) struct Build {
    server: &'static Server,
    packages: &'static [&'static str],
    /// `-X`: what the programs are to say of themselves.
    variables: &'static [(&'static str, &'static str)],
}

const BUILDS: [Build; 5] = [
    Build {
        server: &KUBERNETES,
        packages: &[
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "k8s.io/kubernetes/cmd/kubectl",
        ],
        variables: &[
            ("k8s.io/component-base/version.gitVersion", "v1.35.4"),
            ("k8s.io/component-base/version.gitMajor", "1"),
            ("k8s.io/component-base/version.gitMinor", "35"),
        ],
    },
    Build { server: &ETCD, packages: &["go.etcd.io/etcd/server/v3"], variables: &[] },
    Build { server: &OTELCOL, packages: &["."], variables: &[("main.version", OTELCOL.version)] },
    Build {
        server: &RUNTIME_DEFAULT,
        packages: &["."],
        variables: &[("main.version", RUNTIME_DEFAULT.version)],
    },
    Build {
        server: &GOFLOW2,
        packages: &["github.com/netsampler/goflow2/v2/cmd/goflow2"],
        variables: &[("main.version", GOFLOW2.version)],
    },
];

impl Build {
    /// Nothing where it isn't built from Go modules.
    pub(super) fn of(server: &Server) -> Option<&'static Self> {
        BUILDS.iter().find(|build| build.server.name == server.name)
    }

    fn folder(&self) -> PathBuf {
        root().join("tests/servers").join(self.server.name)
    }

    /// What is committed for it.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>> {
        super::committed(&self.folder())
    }

    /// The arguments of `go`.
    pub(super) fn command_line(&self, output: &Path) -> Vec<String> {
        let variables = self.variables.iter().map(|(name, value)| format!(" -X {name}={value}"));
        let flags: String = variables.collect();
        // Several programs go into a folder by their packages' names; a single one is named as the server says.
        let output = match self.server.programs {
            [one] => output.join(one).display().to_string(),
            _ => format!("{}/", output.display()),
        };
        // Cgo is off, so one binary runs wherever Linux does; the module cache can be removed when it may be written.
        let fixed = ["build", "-mod=readonly", "-modcacherw", "-buildvcs=false", "-trimpath", "-o"];
        let words = fixed.map(String::from).into_iter().chain([output, format!("-ldflags=-s -w{flags}")]);
        words.chain(self.packages.iter().map(|package| (*package).to_owned())).collect()
    }

    /// Builds it into a folder.
    pub(super) fn run(&self, output: &Path, caches: &Caches) -> Result<()> {
        let found = Command::new("go").arg("version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            bail!("no go: {} is built by Go 1.26 or later (https://go.dev/dl)", self.server.name);
        }
        let mut command = Command::new("go");
        command.current_dir(self.folder()).args(self.command_line(output));
        command.env("CGO_ENABLED", "0").env("GOWORK", "off").env_remove("GOFLAGS");
        caches.tell(&mut command);
        succeed(&mut command)
    }
}

/// Go's caches: the caller's where the environment names them, else ones that are removed when all is built, since they
/// take several gigabytes and nobody needs them again.
pub(super) struct Caches {
    own: [(&'static str, PathBuf); 2],
}

impl Caches {
    pub(super) fn new() -> Self {
        let folder = cache().join("go");
        Self { own: [("GOCACHE", folder.join("build")), ("GOMODCACHE", folder.join("modules"))] }
    }

    fn tell(&self, command: &mut Command) {
        for (name, folder) in &self.own {
            if std::env::var_os(name).is_none() {
                command.env(name, folder);
            }
        }
    }

    /// After a build that failed they stay: the next one goes on from there.
    pub(super) fn remove(&self) -> Result<()> {
        super::remove(&cache().join("go"))
    }
}

#[cfg(test)]
mod tests {
    use super::BUILDS;
    use std::fs;

    #[test]
    fn go_mod_and_folder_name_the_same_version() {
        for build in &BUILDS {
            let go_mod = fs::read_to_string(build.folder().join("go.mod")).unwrap();
            let version = format!(" v{}", build.server.version);
            assert!(go_mod.lines().any(|line| line.ends_with(&version)), "{}: {go_mod}", build.server.name);
        }
    }

    #[test]
    fn kubernetes_says_the_version_that_it_is() {
        let variables = BUILDS[0].variables;
        assert_eq!(variables[0].1, format!("v{}", BUILDS[0].server.version));
        assert_eq!(variables[2].1, BUILDS[0].server.version.split('.').nth(1).unwrap());
    }
}
