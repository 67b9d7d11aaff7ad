//! A container as a pod's manifest describes it, run by a real OCI runtime (crun) with containerd's default seccomp
//! profile: its root file system holds the program and what it is linked with, as the image does.
//!
//! Left out is what only a whole container stack has: the image itself, cgroups with their limits, AppArmor or SELinux.
//! crun 1.8 does not start on hosts that have both versions of cgroups, so it is shown version 2 alone.

use crate::need::tool;
use crate::servers::RUNTIME_DEFAULT;
use crate::servers::folder::Folder;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// What containerd hides from a container, and what it lets it only read.
const MASKED: [&str; 6] =
    ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// The libraries of the image that the Containerfile names (glibc, libgcc, OpenSSL).
const IMAGE: [&str; 9] = [
    "ld-linux",
    "libc.so",
    "libm.so",
    "libgcc_s.so",
    "libdl.so",
    "libpthread.so",
    "librt.so",
    "libssl.so.3",
    "libcrypto.so.3",
];

/// How the container is to be.
#[derive(Debug)]
pub struct Container {
    folder: Folder,
    capabilities: Vec<String>,
    read_only: bool,
    new_privileges: bool,
    network: Option<String>,
    mounts: Vec<Value>,
}

impl Container {
    /// Whether there is what it takes.
    ///
    /// # Errors
    /// What is missing.
    pub fn possible() -> Result<(), String> {
        crate::need::namespaces()?;
        tool("crun")?;
        tool("unshare")?;
        RUNTIME_DEFAULT.installed()
    }

    /// As a container of a pod's manifest says.
    ///
    /// # Panics
    /// When the manifest wants what this can't give.
    #[must_use]
    pub fn of(pod_spec: &Value, container: &Value) -> Self {
        let security = &container["securityContext"];
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(pod_spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(security["runAsUser"], 0);
        assert!(security.get("privileged").is_none(), "then nothing here would hold");
        let added = security["capabilities"]["add"].as_array().into_iter().flatten();
        let named = |name: &Value| format!("CAP_{}", name.as_str().expect("a name"));
        Self {
            folder: Folder::new(),
            capabilities: added.map(named).collect(),
            read_only: security["readOnlyRootFilesystem"] == true,
            new_privileges: security["allowPrivilegeEscalation"] != false,
            network: None,
            mounts: Vec::new(),
        }
    }

    /// Its capabilities, as `CAP_…`.
    #[must_use]
    pub fn capabilities(&self) -> &[String] {
        &self.capabilities
    }

    /// Takes a capability away.
    #[must_use]
    pub fn without(mut self, capability: &str) -> Self {
        self.capabilities.retain(|name| name != capability);
        self
    }

    /// Puts it into a network namespace, which plays the node's.
    #[must_use]
    pub fn on_node(mut self, namespace: &str) -> Self {
        self.network = Some(namespace.into());
        self
    }

    /// Mounts a file or folder.
    ///
    /// # Panics
    /// When a path is no text.
    #[must_use]
    pub fn mounting(mut self, from: &Path, to: &Path, writable: bool) -> Self {
        let way = if writable { "rw" } else { "ro" };
        self.mounts.push(json!({
            "destination": to, "source": from, "type": "bind", "options": ["bind", way, "nosuid", "nodev"],
        }));
        self
    }

    /// Writes a file and mounts it for reading.
    #[must_use]
    pub fn with_file(self, to: &str, contents: &str) -> Self {
        let file = self.folder.write(&to.replace('/', "-"), contents);
        self.mounting(&file, Path::new(to), false)
    }

    /// Mounts a folder for writing that is empty and goes with it.
    ///
    /// # Panics
    /// When none can be made.
    #[must_use]
    pub fn with_folder(self, to: &str) -> Self {
        let folder = self.folder.path().join(to.replace('/', "-"));
        fs::create_dir(&folder).expect("the folder takes a folder");
        self.mounting(&folder, Path::new(to), true)
    }

    /// A command that runs a program in it; signals to it reach the program.
    ///
    /// # Panics
    /// When the container's files can't be written.
    #[must_use]
    pub fn command(
        &self,
        program: &Path,
        arguments: &[OsString],
        environment: &[(String, String)],
    ) -> Command {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        self.fill_root(program);
        let inside = PathBuf::from("/usr/bin").join(program.file_name().expect("a program"));
        let arguments = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
        let words: Vec<String> = [inside.display().to_string()].into_iter().chain(arguments).collect();
        let environment = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let config = self.config(&words, environment);
        self.folder.write("config.json", config.to_string());
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"", "sh"]);
        command.arg("crun").arg("--root").arg(self.folder.path().join("state"));
        command.args(["--cgroup-manager", "disabled", "run", "--bundle"]).arg(self.folder.path());
        command.arg(format!("mmn-{}-{number}", std::process::id()));
        command
    }

    /// The program, and the libraries that it is linked with.
    fn fill_root(&self, program: &Path) {
        let root = self.folder.path().join("rootfs");
        let linked = Command::new("ldd").arg(program).output().expect("ldd starts");
        let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
        let libraries =
            linked.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
        for library in libraries.map(Path::new) {
            let name = library.file_name().expect("a file").to_string_lossy();
            assert!(IMAGE.iter().any(|known| name.starts_with(known)), "the image has no {name}");
            copy(library, &root.join(library.strip_prefix("/").expect("it starts with it")));
        }
        copy(program, &root.join("usr/bin").join(program.file_name().expect("a program")));
        for folder in ["proc", "sys", "dev", "tmp", "etc"] {
            fs::create_dir_all(root.join(folder)).expect("the folder takes folders");
        }
        // A runtime makes the points at which it mounts before the root is read-only.
    }

    fn config(&self, words: &[String], environment: Vec<String>) -> Value {
        let mut namespaces = ["mount", "pid", "ipc", "uts"].map(|kind| json!({ "type": kind })).to_vec();
        if let Some(name) = &self.network {
            namespaces.push(json!({ "type": "network", "path": format!("/run/netns/{name}") }));
        }
        let temporary = ["nosuid", "strictatime", "mode=755", "size=65536k"];
        let mut mounts = vec![
            json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
            json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": temporary }),
            json!({
                "destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            }),
        ];
        mounts.extend(self.mounts.iter().cloned());
        let rights = &self.capabilities;
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "cwd": "/", "user": { "uid": 0, "gid": 0 },
                "args": words, "env": environment, "noNewPrivileges": !self.new_privileges,
                "capabilities": { "bounding": rights, "effective": rights, "permitted": rights },
            },
            "root": { "path": "rootfs", "readonly": self.read_only },
            "mounts": mounts,
            "linux": {
                "namespaces": namespaces, "seccomp": seccomp(rights),
                "maskedPaths": MASKED, "readonlyPaths": READ_ONLY,
            },
        })
    }
}

/// What containerd allows a container with these capabilities.
fn seccomp(capabilities: &[String]) -> Value {
    let program = RUNTIME_DEFAULT.program("runtime-default").unwrap_or_else(|missing| panic!("{missing}"));
    let output = Command::new(program).args(capabilities).output().expect("it starts");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

/// Copies a program or a library, by a process of its own: what this one has open for writing, a child that another test is just
/// starting has too, and while anybody has it so the kernel runs no program from it.
///
/// # Panics
/// When it can't be copied.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a file is in a folder")).expect("the folder takes folders");
    let copied = Command::new("cp").arg("--dereference").args([from, to]).status().expect("cp starts");
    assert!(copied.success(), "{} to {}", from.display(), to.display());
}
