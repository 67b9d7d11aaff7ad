//! The programs that tests need beside Rust and a C compiler, and how Debian names them.

use crate::run::succeed;
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// A program, the Debian package that has it, and what tests use it for.
struct Tool {
    program: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool { program: "ip", package: "iproute2", purpose: "network namespaces and veth pairs" },
    Tool { program: "ss", package: "iproute2", purpose: "witness: wire segments of each TCP socket" },
    Tool { program: "ethtool", package: "ethtool", purpose: "switches segmentation offloads on and off" },
    Tool { program: "ping", package: "iputils-ping", purpose: "ICMP traffic" },
    Tool { program: "curl", package: "curl", purpose: "HTTP traffic" },
    Tool { program: "iperf3", package: "iperf3", purpose: "bulk TCP and UDP traffic" },
    Tool { program: "tcpdump", package: "tcpdump", purpose: "witness: frames of an interface" },
    Tool { program: "tshark", package: "tshark", purpose: "witness: packets of a capture" },
    Tool { program: "nfcapd", package: "nfdump", purpose: "collector of NetFlow and IPFIX" },
    Tool {
        program: "javac",
        package: "default-jdk-headless",
        purpose: "builds the stream job, runs it and Kafka",
    },
    Tool { program: "mvn", package: "maven", purpose: "builds the stream job" },
    Tool { program: "unzip", package: "unzip", purpose: "unpacks Flink" },
    Tool { program: "bpftool", package: "bpftool", purpose: "shows that no kernel program stays behind" },
    Tool { program: "setpriv", package: "util-linux", purpose: "runs without privileges" },
    Tool { program: "crun", package: "crun", purpose: "runs the agent in a container, as the manifest says" },
    Tool { program: "systemd-analyze", package: "systemd", purpose: "judges the systemd unit" },
    Tool { program: "nft", package: "nftables", purpose: "drops packets, and sends them by several ways" },
    Tool { program: "sysctl", package: "procps", purpose: "quiets the test networks" },
    Tool { program: "kcat", package: "kcat", purpose: "witness: messages of a Kafka topic" },
    Tool { program: "protoc", package: "protobuf-compiler", purpose: "witness: reads records by the schema" },
    Tool { program: "python3", package: "python3", purpose: "the shared contract check, traffic makers" },
];

impl Tool {
    fn present(&self) -> bool {
        let path = std::env::var("PATH").unwrap_or_default();
        path.split(':')
            .chain(["/usr/sbin", "/sbin"])
            .any(|folder| Path::new(folder).join(self.program).is_file())
    }
}

/// On Debian as root: says which tools are missing and installs them. Elsewhere the tests that need them are skipped.
pub(crate) fn install_missing() -> Result<()> {
    let missing: Vec<&Tool> = TOOLS.iter().filter(|tool| !tool.present()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.dedup();
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    let can_install = root && Path::new("/etc/debian_version").exists();
    println!("{}:", if can_install { "Installing the tools that tests need" } else { "Missing tools" });
    for tool in &missing {
        println!("  {:<10} {}", tool.program, tool.purpose);
    }
    if !can_install {
        println!("Tests that need them are skipped. On Debian: apt-get install {}", packages.join(" "));
        return Ok(());
    }
    println!("  by: apt-get install {} (--no-install switches this off)", packages.join(" "));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq").args(arguments);
        command
    };
    succeed(&mut apt(&["update"]))?;
    succeed(apt(&["install", "-y", "--no-install-recommends"]).args(packages))
}
