//! Cuts, and what is left of them after a crash.

use crate::files::{Folder, JournalError, at, content, create, path_of};
use crate::frame::{Kind, push};
use crate::read_log::{self, ReadLog};
use mermin_flow::KeptFlows;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const NAME: &str = "cuts";

/// A file of cuts is begun anew, with everything as it is, when it has become so many times as large as it was at its begin; below
/// this many bytes never.
const GROWTH: u64 = 4;
const SMALL: u64 = 32 << 20;
/// What memory to write from is kept.
const BUFFER: usize = 1 << 20;

/// What all stages say at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a> {
    /// One more than that of the cut before.
    pub number: u64,
    /// Whether the changes are all that there is, not only what has changed.
    pub is_whole: bool,
    /// What the run says of itself: where the source stood, what the books said.
    pub state: &'a [u8],
    /// The first file of the [`ReadLog`] that is behind it.
    pub read_from: u64,
    /// What each flow worker's meter has appended ([`mermin_flow::Meter::cut`]).
    pub changes: &'a [Vec<u8>],
    /// Records that were made since the cut before, in batches as they are encoded.
    pub records: &'a [Vec<u8>],
}

/// A journal that was opened.
#[derive(Debug)]
pub struct Opened {
    /// To go on with.
    pub journal: Journal,
    /// For the source.
    pub read_log: ReadLog,
    /// What a run that was killed has left.
    pub recovered: Recovered,
}

/// What is left of a run that was killed.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Number of the last cut; 0: there is none.
    pub cut: u64,
    /// What the run said of itself in it.
    pub state: Vec<u8>,
    /// Flows as they were.
    pub flows: KeptFlows,
    /// Records that were not settled, batch by batch, as they were encoded, and of which cut.
    pub records: Vec<(u64, Vec<u8>)>,
    /// What the source had read behind it, in its own parts.
    pub read: Vec<Vec<u8>>,
    /// Something has changed the files, and nothing of them is to be trusted.
    pub is_damaged: bool,
    read_from: u64,
    settled: BTreeSet<u64>,
}

/// See the crate's text.
#[derive(Debug)]
pub struct Journal {
    folder: Folder,
    whose: Vec<u8>,
    pub(crate) file: File,
    /// Its number, its length now and behind its first cut.
    number: u64,
    length: u64,
    whole: u64,
    /// What is in the file can't be gone on with.
    is_broken: bool,
    /// The last cut that was committed.
    cut: u64,
    /// What the run said of itself in it.
    state: Vec<u8>,
    /// Records of cuts that are not settled, to be carried into the next file; and how many bytes.
    unsettled: BTreeMap<u64, Vec<Vec<u8>>>,
    bytes_unsettled: usize,
    buffer: Vec<u8>,
}

impl Journal {
    /// Opens the journal in `folder`, and gives back what a run of the same owner has left. `whose` has everything in it that has to be
    /// the same: boot, network namespace, versions. Its first cut has to be whole.
    ///
    /// # Errors
    /// The folder is in use, or can't be used.
    pub fn open(folder: &Path, whose: &[u8]) -> Result<Opened, JournalError> {
        let folder = Folder::open(folder)?;
        let (cuts, reads) = (folder.numbers(NAME)?, folder.numbers(read_log::NAME)?);
        let (mut recovered, mut settled) = (Recovered::default(), BTreeSet::new());
        // Each begins with a whole cut, if it has any.
        for number in cuts.iter().rev() {
            let path = path_of(&folder.path, NAME, *number);
            let file = fs::read(&path).map_err(at(&path))?;
            let Some(mut entries) = content(&file, whose) else { continue };
            let all = entries.try_for_each(|entry| {
                let (kind, entry) = entry.ok()?;
                recovered.take_in(kind, entry)
            });
            if all.is_none() {
                // What was sent is not known: nobody may go on from what was before.
                (recovered, settled) =
                    (Recovered { is_damaged: true, ..Recovered::default() }, BTreeSet::new());
                break;
            }
            if recovered.cut > 0 {
                break;
            }
            // Of a run that came to no cut of its own.
            settled.append(&mut recovered.settled);
            recovered = Recovered::default();
        }
        recovered.records.retain(|(number, _)| !settled.contains(number));
        // Without a cut there is nothing that it could be behind.
        let reads_behind = if recovered.cut > 0 { &reads[..] } else { &[] };
        for number in reads_behind.iter().filter(|number| **number >= recovered.read_from) {
            let path = path_of(&folder.path, read_log::NAME, *number);
            let file = fs::read(&path).map_err(at(&path))?;
            let entries = content(&file, whose).into_iter().flatten();
            recovered.read.extend(entries.map_while(Result::ok).map(|(_, entry)| entry.to_vec()));
        }
        let behind_last = |numbers: &[u64]| numbers.last().map_or(0, |last| last + 1);
        let next = behind_last(&cuts);
        let file = create(&path_of(&folder.path, NAME, next), whose)?;
        let read_log = ReadLog::begin(folder.path.clone(), whose.to_vec(), behind_last(&reads))?;
        let mut journal = Self {
            folder,
            whose: whose.to_vec(),
            file,
            number: next,
            length: 0,
            whole: 0,
            is_broken: false,
            cut: recovered.cut,
            state: Vec::new(),
            unsettled: BTreeMap::new(),
            bytes_unsettled: 0,
            buffer: Vec::new(),
        };
        recovered.records.iter().for_each(|(number, batch)| journal.hold(*number, batch));
        Ok(Opened { journal, read_log, recovered })
    }

    fn hold(&mut self, cut: u64, batch: &[u8]) {
        self.bytes_unsettled += batch.len();
        self.unsettled.entry(cut).or_default().push(batch.to_vec());
    }

    /// The oldest cuts with records that are not settled, of which there are more than so many bytes: as many as are too many.
    #[must_use]
    pub fn too_many(&self, bytes: usize) -> Vec<u64> {
        let mut more = self.bytes_unsettled.saturating_sub(bytes);
        let size = |batches: &[Vec<u8>]| batches.iter().map(Vec::len).sum::<usize>();
        let oldest = self.unsettled.iter().take_while(|(_, batches)| {
            let is_too_many = more > 0;
            more = more.saturating_sub(size(batches));
            is_too_many
        });
        oldest.map(|(cut, _)| *cut).collect()
    }

    /// Whether the next cut has to be whole.
    #[must_use]
    pub fn wants_whole(&self) -> bool {
        self.whole == 0 || self.is_broken || self.length > SMALL.max(GROWTH * self.whole)
    }

    /// Number of the last cut, of this or an earlier run; 0: there was none.
    #[must_use]
    pub const fn cut(&self) -> u64 {
        self.cut
    }

    /// What its file of cuts takes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.length
    }

    /// What was found is of no use to who has opened it: from here on it is as if nothing had been found.
    pub fn forget(&mut self) {
        self.unsettled.clear();
        self.bytes_unsettled = 0;
    }

    /// Makes a cut true; a whole one where one is wanted.
    ///
    /// # Errors
    /// It is not, and the next one has to be whole. Its records go with that one.
    pub fn commit(&mut self, cut: &Cut<'_>) -> Result<(), JournalError> {
        let committed = self.write(cut);
        if committed.is_ok() {
            self.cut = cut.number;
            self.state.clear();
            self.state.extend_from_slice(cut.state);
        }
        cut.records.iter().for_each(|batch| self.hold(cut.number, batch));
        self.is_broken = committed.is_err();
        committed
    }

    fn write(&mut self, cut: &Cut<'_>) -> Result<(), JournalError> {
        if self.is_broken && !cut.is_whole {
            let path = path_of(&self.folder.path, NAME, self.number);
            return Err(at(&path)(io::Error::other("what is in it was not written to its end")));
        }
        if !cut.is_whole && cut.says_nothing() && cut.state == self.state {
            // Nothing was read, either.
            return self.remove(read_log::NAME, cut.read_from);
        }
        if cut.is_whole && (self.whole > 0 || self.is_broken) {
            self.number += 1;
            self.file = create(&path_of(&self.folder.path, NAME, self.number), &self.whose)?;
            (self.length, self.whole) = (0, 0);
        }
        self.buffer.clear();
        if self.whole == 0 {
            for (number, batch) in
                self.unsettled.iter().flat_map(|(n, batches)| batches.iter().map(move |b| (n, b)))
            {
                push(&mut self.buffer, Kind::Carried, &[&number.to_le_bytes(), batch]);
            }
        }
        cut.push(&mut self.buffer);
        let path = path_of(&self.folder.path, NAME, self.number);
        self.file.write_all(&self.buffer).map_err(at(&path))?;
        self.length += self.buffer.len() as u64;
        if self.whole == 0 {
            self.whole = self.length;
        }
        // A whole cut is large, and seldom.
        self.buffer.shrink_to(BUFFER);
        if cut.is_whole {
            self.remove(NAME, self.number)?;
        }
        self.remove(read_log::NAME, cut.read_from)
    }

    /// Records of these cuts were delivered, given up or written to a buffer by every output.
    ///
    /// # Errors
    /// That is not noted: they may be sent again. The next cut has to be whole.
    pub fn settle(&mut self, cuts: &[u64]) -> Result<(), JournalError> {
        let mut settled = Vec::new();
        for cut in cuts {
            if let Some(batches) = self.unsettled.remove(cut) {
                self.bytes_unsettled -= batches.iter().map(Vec::len).sum::<usize>();
                settled.extend_from_slice(&cut.to_le_bytes());
            }
        }
        if settled.is_empty() || self.is_broken {
            return Ok(());
        }
        self.buffer.clear();
        push(&mut self.buffer, Kind::Settled, &[&settled]);
        self.length += self.buffer.len() as u64;
        let written = self.file.write_all(&self.buffer);
        self.is_broken = written.is_err();
        written.map_err(at(&path_of(&self.folder.path, NAME, self.number)))
    }

    /// What was written down is not true any more, as things go on without it: it is removed. The next cut has to be whole, and has
    /// the records that are not settled by then. `read_from`: what [`ReadLog::pause`] has said.
    ///
    /// # Errors
    /// A file can't be removed.
    pub fn abandon(&mut self, read_from: u64) -> Result<(), JournalError> {
        self.is_broken = true;
        self.remove(NAME, u64::MAX)?;
        self.remove(read_log::NAME, read_from)
    }

    /// An orderly end: nothing is left to go on with.
    ///
    /// # Errors
    /// A file can't be removed.
    pub fn close(&self) -> Result<(), JournalError> {
        self.remove(NAME, u64::MAX)?;
        self.remove(read_log::NAME, u64::MAX)
    }

    /// Removes the files of a kind below a number.
    fn remove(&self, name: &str, below: u64) -> Result<(), JournalError> {
        for number in self.folder.numbers(name)?.into_iter().filter(|number| *number < below) {
            let path: PathBuf = path_of(&self.folder.path, name, number);
            fs::remove_file(&path).map_err(at(&path))?;
        }
        Ok(())
    }
}

impl Cut<'_> {
    /// Whether nothing has changed.
    fn says_nothing(&self) -> bool {
        self.records.is_empty() && self.changes.iter().all(Vec::is_empty)
    }

    /// Appends its entry.
    fn push(&self, out: &mut Vec<u8>) {
        let number = |n: usize| u32::try_from(n).expect("a part has less than 4 GiB").to_le_bytes();
        let (cut, read_from, is_whole) =
            (self.number.to_le_bytes(), self.read_from.to_le_bytes(), [u8::from(self.is_whole)]);
        let state = [self.state.to_vec()];
        let groups = [&state[..], self.changes, self.records];
        let counts = groups.map(|group| number(group.len()));
        let lengths = groups.map(|group| group.iter().map(|part| number(part.len())).collect::<Vec<_>>());
        let mut parts: Vec<&[u8]> = vec![&cut, &read_from, &is_whole];
        for ((group, count), lengths) in groups.into_iter().zip(&counts).zip(&lengths) {
            parts.push(count);
            for (part, length) in group.iter().zip(lengths) {
                parts.extend([&length[..], part]);
            }
        }
        push(out, Kind::Cut, &parts);
    }
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    fn parts(&mut self) -> Option<Vec<&'a [u8]>> {
        let mut parts = Vec::new();
        for _ in 0..self.count()? {
            let length = self.count()?;
            let (part, rest) = self.0.split_at_checked(length)?;
            self.0 = rest;
            parts.push(part);
        }
        Some(parts)
    }
}

impl Recovered {
    fn take_in(&mut self, kind: Kind, entry: &[u8]) -> Option<()> {
        let mut bytes = Bytes(entry);
        match kind {
            Kind::Cut => {
                let number = u64::from_le_bytes(bytes.array()?);
                let read_from = u64::from_le_bytes(bytes.array()?);
                let [is_whole] = bytes.array()?;
                let (state, changes, records) = (bytes.parts()?, bytes.parts()?, bytes.parts()?);
                if is_whole != 0 {
                    self.flows = KeptFlows::default();
                }
                for changes in changes {
                    self.flows.take_in(changes)?;
                }
                (self.cut, self.read_from) = (number, read_from);
                self.state = state.concat();
                self.records.extend(records.into_iter().map(|batch| (number, batch.to_vec())));
            }
            Kind::Carried => {
                let number = u64::from_le_bytes(bytes.array()?);
                self.records.push((number, bytes.0.to_vec()));
            }
            Kind::Settled => {
                while !bytes.0.is_empty() {
                    self.settled.insert(u64::from_le_bytes(bytes.array()?));
                }
                self.records.retain(|(number, _)| !self.settled.contains(number));
            }
            Kind::Header | Kind::Read => {}
        }
        Some(())
    }
}
