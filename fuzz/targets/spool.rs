//! A folder that somebody has been at: it opens, and what it does not give back it counts. And any bytes as the message
//! of an entry: records, or an error.
//!
//! Input: a byte that says which. For a folder, four bytes for each change: a file, what is done to it, a place. The folder
//! has six entries in some segments, of which the first is acknowledged; its identity is another one each time, which
//! changes no length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mermin_flow::{
    Amount, CommunityId, Counts, Direction, End, Enrichment, FlowEvent, FlowId, FlowRecord, Identity,
    Initiator, Tally, TcpState,
};
use mermin_spool::{Decoder, Encoder, Fsync, Read, Spool, SpoolSettings, codec};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

const ENTRIES: u32 = 6;
const SETTINGS: SpoolSettings = SpoolSettings { bytes: 64 << 10, fsync: Fsync::Never };
/// For one that somebody was at: files may have grown.
const ROOMY: SpoolSettings = SpoolSettings { bytes: 1 << 20, ..SETTINGS };
/// Changes taken of an input.
const CHANGES_MAX: usize = 64;

/// Names and bytes of a folder's files.
type Files = Vec<(String, Vec<u8>)>;

fuzz_target!(|data: &[u8]| match data.split_first() {
    Some((0, changes)) => folder(changes),
    Some((_, message)) => {
        let (_, decoder) = codec(Arc::default());
        let _ = decoder.message(message);
    }
    None => {}
});

/// The records of an entry: its number is their sequence.
fn records(number: u32) -> Vec<FlowRecord> {
    let none = Counts::default();
    let side = Direction { delta: none, total: none, tcp_flags: None, ttl: None, traffic_class: None };
    let end =
        End { address: [192, 0, 2, 1].into(), port: Some(53), mac: None, identity: Identity::default() };
    let record = |n: u32| FlowRecord {
        // Nothing that compresses, so that entries have some length.
        id: FlowId(
            u128::from(n + 1 + 1_000 * number).wrapping_mul(0x2545_f491_4f6c_dd1d_9e37_79b9_7f4a_7c15),
        ),
        sequence: number,
        community_id: CommunityId([n as u8; 20]),
        event: FlowEvent::Update,
        end_reason: None,
        start_time: 1_700_000_000_000_000_000,
        end_time: 1_700_000_000_000_000_000,
        counts_from: 1_700_000_000_000_000_000,
        clock_ahead: [0; 2],
        protocol: 17,
        source: end.clone(),
        destination: end.clone(),
        initiator: Initiator::FirstSeen,
        enrichment: Enrichment::default(),
        icmp: None,
        forward: side,
        reverse: side,
        tcp_state: TcpState::Unknown,
        vlan: None,
        inner_vlan: None,
        point: u16::MAX,
        shard: 0,
        tally: Tally::frame(60 + u64::from(n)),
        sampled: None,
        hops: None,
        nat: None,
        lease: mermin_flow::Lease::default(),
    };
    (0..100 + number).map(record).collect()
}

fn carried(number: u32) -> Amount {
    let mut sum = Amount::default();
    records(number).iter().for_each(|record| sum += Amount::of(record));
    sum
}

/// The folder before anybody was at it.
fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = Folder::new();
        let mut spool = Spool::open(&folder.0, SETTINGS).expect("a new folder opens");
        let (mut encoder, _) = codec(Arc::default());
        for number in 0..ENTRIES {
            spool.append(&mut encoder.encode(&records(number))).expect("there is room");
        }
        let Ok(Some(Read::Batch(first))) = spool.read() else { panic!("it was appended") };
        spool.acknowledge(first.position()).expect("the position is written");
        drop(spool);
        let read = |file: PathBuf| {
            let name =
                file.file_name().and_then(|name| name.to_str()).expect("its names are text").to_owned();
            (name, fs::read(&file).expect("it is there"))
        };
        let mut files: Files = folder.files().into_iter().map(read).collect();
        files.sort();
        files
    })
}

/// A folder that is gone when let go of.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("mermin-fuzz-spool-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a temporary folder");
        Self(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.0).expect("it is there");
        files.map(|file| file.expect("it is there").path()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn folder(changes: &[u8]) {
    let mut files = files().clone();
    for change in changes.as_chunks::<4>().0.iter().take(CHANGES_MAX) {
        apply(*change, &mut files);
    }
    let folder = Folder::new();
    for (name, bytes) in &files {
        fs::write(folder.0.join(name), bytes).expect("it is written");
    }
    let (mut encoder, mut decoder) = codec(Arc::default());
    let first = look(&folder.0, &mut decoder, None);
    let again = look(&folder.0, &mut decoder, Some(&mut encoder));
    assert_eq!(
        first.iter().copied().chain([ENTRIES]).collect::<Vec<_>>(),
        again,
        "the same again, and one more"
    );
}

/// One change to the files.
fn apply([file, what, low, high]: [u8; 4], files: &mut Files) {
    if files.is_empty() {
        return;
    }
    let other = usize::from(what >> 4) % files.len();
    let file = usize::from(file) % files.len();
    let length = files[file].1.len();
    // Places are spread over the file, the finer part is the lower byte's.
    let at = (usize::from(high) * length / 256 + usize::from(low)).min(length);
    match what % 8 {
        0 | 1 if at < length => files[file].1[at] ^= 1 << (what >> 5),
        2 => files[file].1.truncate(at),
        3 => drop(files.remove(file)),
        4 => files[file].1.extend(std::iter::repeat_n(low, usize::from(high))),
        5 => files[file].1[at..].fill(low),
        // A piece of another file, or of itself.
        6 => {
            let from = files[other].1.clone();
            let n = from.len().min(length - at);
            files[file].1[at..at + n].copy_from_slice(&from[..n]);
        }
        7 => files[file].1 = files[other].1.clone(),
        _ => {}
    }
}

/// Opens and reads all; appends an entry first where there is an encoder. The numbers of the entries that came.
fn look(folder: &Path, decoder: &mut Decoder, encoder: Option<&mut Encoder>) -> Vec<u32> {
    let mut spool = Spool::open(folder, ROOMY).expect("no damage is an error");
    let mut expected = spool.recovery().spooled;
    assert_eq!(spool.spooled(), expected);
    if let Some(encoder) = encoder {
        spool.append(&mut encoder.encode(&records(ENTRIES))).expect("there is room");
        expected += carried(ENTRIES);
    }
    let (mut numbers, mut left, mut sum) = (Vec::new(), Amount::default(), Amount::default());
    while let Some(read) = spool.read().expect("no damage is an error") {
        match read {
            Read::Batch(stored) => {
                let records = decoder.decode(&stored).expect("what is whole is as it was encoded");
                numbers.push(records[0].sequence);
                assert!(records == self::records(records[0].sequence));
                left += stored.amount();
                sum += stored.amount();
            }
            Read::Lost(lost) => sum += lost.amount,
        }
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert_eq!(sum, expected, "{numbers:?}");
    assert_eq!(spool.spooled(), left);
    numbers
}
