//! The same capture gives the same records, whatever the number of workers, wherever flow tables are kept, and whatever
//! the sizes of channels.

use crate::captures;
use mermin_tests::program::Program;
use std::path::{Path, PathBuf};

fn sorted(file: &Path, settings: &[&str]) -> Vec<String> {
    let program = settings.iter().fold(Program::replay(&[file]), |program, setting| program.set(setting));
    let mut lines: Vec<String> = program.run().kept(0).stdout.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

fn same_for_all_workers(file: &Path, settings: &[&str]) {
    let in_reader: Vec<&str> = settings.iter().copied().chain(["pipeline.replay_metering=reader"]).collect();
    let expected = sorted(file, &in_reader);
    assert!(!expected.is_empty());
    for flow in [1, 2, 8] {
        for enrichment in [1, 2, 4] {
            let workers = [
                format!("pipeline.flow_workers={flow}"),
                format!("pipeline.enrichment_workers={enrichment}"),
                "pipeline.replay_metering=workers".to_owned(),
            ];
            let settings: Vec<&str> =
                settings.iter().copied().chain(workers.iter().map(String::as_str)).collect();
            assert!(
                sorted(file, &settings) == expected,
                "{}: other records with {settings:?}",
                file.display()
            );
        }
    }
}

fn many_flows() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("short.pcap");
    std::fs::write(&file, captures::short_flows(9000)).unwrap();
    (folder, file)
}

#[test]
fn with_timeouts() {
    let (_folder, file) = many_flows();
    same_for_all_workers(&file, &["flow.idle_timeout=7s", "flow.udp_timeout=11s", "flow.active_timeout=20s"]);
}

#[test]
fn with_evictions() {
    let (_folder, file) = many_flows();
    let settings = ["flow.table_capacity=256"];
    let evicted = sorted(&file, &settings).iter().filter(|line| line.contains("lack of resources")).count();
    assert!(evicted > 100, "{evicted} evictions: the table is not small enough to show anything");
    same_for_all_workers(&file, &settings);
}

#[test]
fn with_tiny_channels() {
    let (_folder, file) = many_flows();
    let settings = [
        "pipeline.packet_channel_capacity=1",
        "pipeline.enrichment_channel_capacity=1",
        "pipeline.replay_metering=workers",
    ];
    assert!(sorted(&file, &settings) == sorted(&file, &[]), "other records with channels of one");
}

#[test]
fn with_every_kind_of_header() {
    let folder = tempfile::tempdir().unwrap();
    for file in captures::own(folder.path()) {
        same_for_all_workers(&file, &[]);
    }
}
