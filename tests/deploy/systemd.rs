//! The systemd unit, as systemd judges it.

use mermin_tests::need;
use mermin_tests::need::{root, tool};
use std::process::Command;

#[test]
fn systemd_finds_nothing_wrong_and_little_exposed() {
    need!(tool("systemd-analyze"));
    let folder = tempfile::tempdir().unwrap();
    let unit = std::fs::read_to_string(root().join("deploy/systemd/mermin.service")).unwrap();
    // The program need not be installed here: any that can be run will do.
    let there = unit.replace("ExecStart=/usr/bin/mermin", "ExecStart=/bin/true");
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
