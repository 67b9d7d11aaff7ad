//! What programs of another version of the shared structs have counted: it can't be gone on with, nor told by flow, but added
//! up, by the description that lies beside it.

use super::error::EbpfError;
use super::grace::Grace;
use super::kept::{WORDS, take_filters_off};
use super::layout::{CONTROL, Elements};
use super::pins::{self, Pins};
use super::words::Words;
use mermin_flow::Tally;
use std::io;
use std::path::Path;

/// The books of all lives of another version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// Was to become flow records; what was in its maps is in it.
    pub(super) due: Tally,
    pub(super) settled: Tally,
    /// Was lost, as its own lives have said.
    pub(super) lost: Tally,
    /// The tick from which on its programs have counted nothing; 0: there was none.
    pub(super) deadline: u64,
}

impl Past {
    /// What nobody reads any more.
    pub(super) fn unread(&self) -> Tally {
        self.due - self.settled - self.lost
    }
}

/// Takes the programs of other versions off and adds up what they have counted. Changes nothing else: whoever is killed before
/// the sum has a name of its own leaves the same to the next.
pub(super) fn add_up(pins: &Pins) -> Result<Past, EbpfError> {
    let others = pins.others();
    let mut sum = Past::default();
    if others.is_empty() {
        return Ok(sum);
    }
    others.iter().for_each(|folder| pins::take_links_off(folder));
    take_filters_off()?;
    let no_grace = |source| EbpfError::Kernel { what: "the end of an epoch", source };
    Grace::new().and_then(|grace| grace.wait()).map_err(no_grace)?;
    for folder in &others {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        match past(folder) {
            Ok(past) => {
                tracing::warn!(
                    "an agent of another version had left programs that count ({name}): they are off, and {} packets that \
                     nobody has read are lost (lost.abi_change)",
                    past.unread().packets
                );
                sum.due += past.due;
                sum.settled += past.settled;
                sum.lost += past.lost;
                sum.deadline = sum.deadline.max(past.deadline);
            }
            Err(error) => tracing::warn!(
                %error,
                "an agent of another version had left programs that count ({name}): they are off, and what they have \
                 counted since its end is lost; how much can't be read"
            ),
        }
    }
    Ok(sum)
}

/// The books of a folder, no program of which runs any more.
fn past(folder: &Path) -> Result<Past, EbpfError> {
    let get = |name: &str| {
        pins::get_at(folder, name)
            .map_err(|source| EbpfError::Kernel { what: "a map of another version", source })
    };
    let words = Words::of(get(WORDS)?)?;
    let unknown = || io::Error::other("no description of the maps");
    let layout = words
        .layout()
        .ok_or_else(|| EbpfError::Kernel { what: "maps of another version", source: unknown() })?;
    let control = Elements::of(&get(CONTROL)?)?;
    let live = control.number(0, layout.epoch)? as u32;
    let deadline = control.number(0, layout.deadline)?;
    let (committed, mut due) = words.committed();
    // Two, where the one before the live one was closed and not read.
    let unread = live.wrapping_sub(committed).min(2);
    for place in &layout.places {
        let Some(name) = place.name() else { continue };
        let elements = Elements::of(&get(name)?)?;
        for back in 0..unread {
            due += elements.sum(live.wrapping_sub(back), &place.fields)?;
        }
    }
    Ok(Past { due, settled: words.settled(), lost: words.crashed(), deadline })
}
