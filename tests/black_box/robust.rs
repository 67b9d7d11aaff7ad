//! Damaged input, failing outputs, impatient users.

use crate::captures;
use mermin_tests::need;
use mermin_tests::program::{Program, binary, plain};
use std::path::Path;
use std::process::Stdio;

fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_missing_file_is_66_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let good = write(folder.path(), "good.pcap", &mermin_tests::example::web());
    let outcome = Program::replay(&[&good, Path::new("/nowhere/at-all.pcap")]).run();
    assert_eq!(outcome.code, 66, "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
    assert!(outcome.stderr.contains("/nowhere/at-all.pcap"), "{}", outcome.stderr);
}

#[test]
fn damage_is_65_after_all_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let web = mermin_tests::example::web();
    let good = write(folder.path(), "good.pcap", &web);
    let whole = Program::replay(&[&good]).run().kept(0).number("/ledger/metered/packets");
    for (name, bytes) in [
        ("empty.pcap", Vec::new()),
        ("no-magic.pcap", b"this is no capture at all, but long enough for a header".to_vec()),
        ("cut-header.pcap", web[..20].to_vec()),
    ] {
        let bad = write(folder.path(), name, &bytes);
        let outcome = Program::replay(&[&good, &bad, &good]).run().kept(65);
        assert_eq!(outcome.number("/ledger/metered/packets"), 2 * whole, "{name}: the others were not read");
        assert!(outcome.stderr.contains(name), "{}", outcome.stderr);
    }
    // Cut within the last record's header, and within its bytes.
    for cut in [web.len() - 75, web.len() - 5] {
        let bad = write(folder.path(), "cut.pcap", &web[..cut]);
        let outcome = Program::replay(&[&bad]).run().kept(65);
        assert_eq!(outcome.number("/ledger/metered/packets"), whole - 1, "cut at {cut}");
    }
}

#[test]
fn a_header_without_packets_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "none.pcap", &mermin_tests::example::web()[..24]);
    let outcome = Program::replay(&[&file]).run().kept(0);
    assert_eq!(outcome.stdout, "");
}

#[test]
fn standard_input_is_read() {
    let outcome = Program::new("replay").arg("-").input(mermin_tests::example::web()).run().kept(0);
    assert_eq!(outcome.number("/ledger/metered/packets"), 51);
}

#[test]
fn formats_are_known_by_their_magic() {
    let folder = tempfile::tempdir().unwrap();
    let frames = captures::oddities();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut zipped, &mermin_tests::capture_file::pcapng(&frames)).unwrap();
    let zipped = zipped.finish().unwrap();
    let plain = write(folder.path(), "plain.txt", &mermin_tests::capture_file::pcap(&frames));
    let packed = write(folder.path(), "packed.dat", &zipped);
    let cut = write(folder.path(), "cut.gz", &zipped[..zipped.len() / 2]);
    let packets =
        |file: &Path, code: i32| Program::replay(&[file]).run().kept(code).number("/ledger/metered/packets");
    assert_eq!(packets(&plain, 0), packets(&packed, 0));
    assert!(packets(&cut, 65) < packets(&packed, 0));
}

#[test]
fn a_reader_that_stops_early_ends_it_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "many.pcap", &captures::short_flows(20_000));
    let statistics = folder.path().join("stats.json");
    let line = format!(
        "{} replay {} -o json --stats {} | head -n 1; exit ${{PIPESTATUS[0]}}",
        binary().display(),
        file.display(),
        statistics.display()
    );
    let output = plain("bash").args(["-c", &line]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains("ERROR") && !said.contains("panicked"), "{said}");
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 1);
    let statistics: serde_json::Value = serde_json::from_slice(&std::fs::read(statistics).unwrap()).unwrap();
    let book = statistics["outputs"].as_object().unwrap().values().next().unwrap().clone();
    let of = |pointer: &str| book.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap_or_default();
    assert!(of("/dropped/closed/records") > 0, "{book}");
    assert_eq!(of("/handed/records"), of("/delivered/records") + of("/dropped/closed/records"), "{book}");
}

#[test]
fn an_unwritable_path_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "web.pcap", &mermin_tests::example::web());
    let outcome = Program::replay(&[&file]).output("json:/nowhere/at-all/flows.json").run();
    assert!([64, 74].contains(&outcome.code), "{}: {}", outcome.code, outcome.stderr);
    assert!(outcome.stderr.contains("/nowhere/at-all/flows.json"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
}

#[test]
fn a_full_disk_is_74_and_in_the_books() {
    need!(Path::new("/dev/full").exists().then_some(()).ok_or("no /dev/full"));
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "many.pcap", &captures::short_flows(3000));
    let program = Program::replay(&[&file]);
    let statistics = program.folder().join("stats.json");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = program.command().stdout(full).stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    let statistics: serde_json::Value = serde_json::from_slice(&std::fs::read(statistics).unwrap()).unwrap();
    let book = statistics["outputs"].as_object().unwrap().values().next().unwrap().clone();
    let dropped: u64 =
        book["dropped"].as_object().unwrap().values().filter_map(|part| part["records"].as_u64()).sum();
    assert_eq!(book["handed"]["records"].as_u64(), Some(dropped), "{book}");
    assert!(dropped > 0, "{book}");
}

/// A file system in memory of 8 MiB, gone when let go of.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "mermin-tests"])
            .arg(folder.path())
            .output();
        let mounted = mount.is_ok_and(|output| output.status.success());
        if mounted { Ok(Self(folder)) } else { Err("a tmpfs can't be mounted".into()) }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_fills_up_costs_its_own_records_alone() {
    let disk = SmallDisk::mount();
    need!(disk.as_ref().map(|_| ()).map_err(Clone::clone));
    let disk = disk.unwrap();
    let path = disk.0.path().join("flows.jsonl");
    let folder = tempfile::tempdir().unwrap();
    let capture = write(folder.path(), "many.pcap", &captures::short_flows(30_000));
    let name = format!("json:{}", path.display());
    let outcome = Program::replay(&[&capture]).args(["-o", &name]).run().kept(74);
    assert!(outcome.stderr.contains(&format!("output {name} failed: ")), "{}", outcome.stderr);
    let outputs = &outcome.statistics()["outputs"];
    let records = |output: &str, term: &str| {
        let amount = outputs[output].pointer(term);
        amount.unwrap_or_else(|| panic!("{output} {term}: {outputs}"))["records"].as_u64().unwrap()
    };
    let handed = records(&name, "/handed");
    assert_eq!(records("json", "/delivered"), handed);
    assert_eq!(outcome.records().len(), usize::try_from(handed).unwrap());
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written.ends_with('\n') && written.len() > 7 << 20, "{} bytes", written.len());
    let on_disk = mermin_tests::record::Record::parse_lines(&written).len();
    eprintln!("{handed} records, of which {on_disk} fit on the disk");
    assert_eq!(records(&name, "/delivered"), u64::try_from(on_disk).unwrap());
    assert_eq!(records(&name, "/dropped/write_failed"), handed - u64::try_from(on_disk).unwrap());
}

#[test]
fn mistakes_on_the_command_line_are_64() {
    for arguments in [&["replay"][..], &["replay", "--set", "flow.no_such_key=1", "x"], &["no-such-command"]]
    {
        let output = plain(binary()).args(arguments).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(64),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
