//! Several files as one stream: opened together, read in order, closed in the middle.

use super::Order::Little;
use super::made::{frame, gzip, interface, plain, section, simple};
use super::{Kept, drain, reader};
use crate::file::{Fault, OpenError, Part, ReplaySource};
use mermin_flow::{ObservationPoints, Polled, Source};
use std::path::PathBuf;
use std::sync::Arc;

#[test]
fn files_are_one_stream_and_damage_ends_only_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let named = [section(Little), interface(Little, 1, 0, &[]), simple(Little, &frame(9, 9), 51)].concat();
    let paths = [
        write("a.gz", &plain(2)),
        write("cut", &plain(2)[..100]),
        write("empty", &[]),
        write("b.pcap", &gzip(&named)),
        write("c", &plain(1)),
    ];
    let points = Arc::new(ObservationPoints::default());
    let mut source = ReplaySource::open(&paths, points).unwrap();
    let (kept, _) = drain(&mut source, 2);
    assert_eq!(kept.ports(), [0, 1, 0, 9, 0]);
    // The simple block takes the time of the packet before, in another file.
    assert_eq!(kept.times()[3], 1_000_000_007_000);
    assert_eq!(source.watermark(), 1_001_000_007_000);
    assert!(kept.0.iter().all(|seen| seen.point == 0));
    let faults: Vec<_> =
        source.damages().iter().map(|damage| (damage.file.as_str(), &damage.fault)).collect();
    assert!(
        matches!(faults.as_slice(), [(cut, Fault::Cut(Part::Record)), (empty, Fault::Empty)]
            if cut.ends_with("cut") && empty.ends_with("empty")),
        "{faults:?}"
    );
}

#[test]
fn nothing_is_read_when_one_file_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    std::fs::write(&good, plain(1)).unwrap();
    let open = |paths: &[PathBuf]| ReplaySource::open(paths, Arc::default()).err().unwrap();
    assert!(
        matches!(open(&[good.clone(), folder.path().join("none")]), OpenError::Open { path, .. } if path.ends_with("none"))
    );
    assert!(matches!(open(&[good, folder.path().to_owned()]), OpenError::Directory { .. }));
    assert!(matches!(open(&["-".into(), "-".into()]), OpenError::StandardInputTwice));
}

#[test]
fn closing_ends_the_replay() {
    let (mut source, _) = reader(plain(10));
    let mut kept = Kept::default();
    source.poll(&mut kept, 4);
    source.poll(&mut kept, 4);
    source.close();
    assert_eq!(source.poll(&mut kept, 4), Polled::Ended);
    assert_eq!((kept.0.len(), source.sightings().unwrap().seen.buffers), (4, 4));

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), plain(2)).unwrap();
    let paths = [file.path().to_owned(), file.path().to_owned()];
    let mut source = ReplaySource::open(&paths, Arc::default()).unwrap();
    source.poll(&mut kept, 1);
    source.close();
    assert_eq!(source.poll(&mut kept, 1), Polled::Ended);
}
