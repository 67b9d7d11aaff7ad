//! The job on a real JobManager and TaskManagers, one of which is killed: `streams/tests/end-to-end`.

use mermin_tests::need;
use mermin_tests::need::{captures, root, tool};
use mermin_tests::program::{binary, plain};
use mermin_tests::servers::{FLINK, KAFKA, flink};
use std::os::unix::fs::symlink;

#[test]
fn sums_are_exact_though_a_task_manager_is_killed_and_records_come_late_and_twice() {
    need!(captures(), tool("kcat"), tool("curl"), tool("python3"), KAFKA.installed(), flink::installed());
    let folder = tempfile::tempdir().unwrap();
    let servers = folder.path().join("servers");
    for (server, name) in [(&KAFKA, "kafka"), (&FLINK, "flink")] {
        let own = servers.join(name);
        std::fs::create_dir_all(&own).unwrap();
        for part in ["lib", "plugins"].map(|part| (server.folder().join(part), own.join(part))) {
            if part.0.is_dir() {
                symlink(part.0, part.1).unwrap();
            }
        }
    }
    let mut command = plain(root().join("streams/tests/end-to-end"));
    command.arg("--servers").arg(&servers);
    command.arg("--mermin").arg(binary()).arg("--captures").arg(captures().unwrap());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
}
