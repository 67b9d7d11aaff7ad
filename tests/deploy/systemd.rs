//! The systemd unit, as systemd judges it.

use mermin_tests::need;
use mermin_tests::need::{namespaces, root, tool};
use mermin_tests::netns::{Net, RIGHT};
use mermin_tests::program::{Program, binary};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The values of a setting of the unit.
fn setting(name: &str) -> Vec<String> {
    let unit = std::fs::read_to_string(root().join("deploy/systemd/mermin.service")).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

/// Lets anybody in.
fn open(path: &Path) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
}

#[test]
fn a_user_with_the_units_capabilities_captures() {
    need!(namespaces(), tool("setpriv"), tool("ping"));
    let (ambient, bounding) = (setting("AmbientCapabilities"), setting("CapabilityBoundingSet"));
    assert_eq!(ambient, bounding);
    let names: String = ambient.iter().map(|name| format!(",+{}", name[4..].to_lowercase())).collect();
    let net = Net::new("unit", false);
    // Nobody may not go where the tests' files are.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("mermin");
    mermin_tests::container::copy(&binary(), &copy);
    open(folder.path());
    open(&copy);
    let sets = ["bounding-set", "inh-caps", "ambient-caps"].map(|set| format!("--{set}=-all{names}"));
    let mut words = vec!["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"];
    words.extend(sets.iter().map(String::as_str));
    let instead = format!("shift; exec {} \"$@\"", copy.display());
    words.extend(["--", "sh", "-c", &instead, "sh"]);
    let program = Program::new("run").args(["--source", "ebpf", "-i", "left"]);
    open(program.folder());
    let running = program.inside(&net.left.name).under(&words).start();
    let _ = net.left.run(&format!("ping -c 3 -i 0.2 -q {RIGHT}"));
    running.signal(Signal::INT);
    let outcome = running.wait(Duration::from_secs(10)).kept(0);
    let counted = outcome.records().iter().map(|record| record.deltas(false).packets).sum::<u64>();
    assert_eq!(counted, 3, "{}", outcome.stdout);
}

#[test]
fn systemd_finds_nothing_wrong_and_little_exposed() {
    need!(tool("systemd-analyze"));
    let folder = tempfile::tempdir().unwrap();
    let unit = std::fs::read_to_string(root().join("deploy/systemd/mermin.service")).unwrap();
    // The program need not be installed here: any that can be run will do.
    let there = unit.replace("=/usr/bin/mermin", "=/bin/true");
    let mount = "run-mermin-bpf.mount";
    std::fs::copy(root().join("deploy/systemd").join(mount), folder.path().join(mount)).unwrap();
    let judge = |unit: &str, words: &[&str]| {
        let file = folder.path().join("mermin.service");
        std::fs::write(&file, unit).unwrap();
        let output = Command::new("systemd-analyze").args(words).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    let (fine, said) = judge(&there, &["verify"]);
    assert!(fine && !said.contains("mermin.service"), "{said}");
    let (_, said) = judge(&there.replace("ProtectHome=yes", "ProtectHome=perhaps"), &["verify"]);
    assert!(said.contains("perhaps"), "{said}");
    // In tenths: below 3 of 10, where a service without settings has 9.6.
    let exposed = ["security", "--offline=true", "--threshold=30", "--no-pager"];
    let (fine, said) = judge(&there, &exposed);
    assert!(fine, "{said}");
    assert!(!judge("[Service]\nExecStart=/bin/true\n", &exposed).0);
}
