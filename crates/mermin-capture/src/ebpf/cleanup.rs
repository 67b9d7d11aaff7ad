//! What runs have left that nobody goes on with: told, or taken away.

use super::clsact::Filters;
use super::error::EbpfError;
use super::kept;
use super::pins::{self, Holder, Pins};
use super::words::Words;
use crate::interfaces::discover;
use mermin_flow::Tally;
use std::path::Path;

/// What is kept in this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The folder of its names.
    pub folder: String,
    /// The agent that uses it; `None`: it waits for the next one.
    pub holder: Option<Holder>,
    /// Interfaces that programs are on by links.
    pub interfaces: Vec<String>,
    /// What was read out of the maps in all lives since they were made, if they can be looked at.
    pub books: Option<LeftBooks>,
}

/// `due == settled + lost` and, while an agent lives, what it has in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftBooks {
    /// Was to become flow records.
    pub due: Tally,
    /// Was released, or given another verdict.
    pub settled: Tally,
    /// Was in memory of runs that were killed.
    pub lost: Tally,
}

/// What is kept of programs and maps in the calling thread's network namespace. Changes nothing.
#[must_use]
pub fn left() -> Option<Left> {
    let folder = pins::folder_of_namespace()?;
    Some(Left {
        holder: pins::holder_of(&folder),
        interfaces: pins::interfaces(&folder),
        books: books(&folder),
        folder: folder.display().to_string(),
    })
}

fn books(folder: &Path) -> Option<LeftBooks> {
    let words = Words::of(pins::get_in(folder, kept::WORDS)?).ok()?;
    // In this order: what is settled was due before.
    let (settled, lost) = (words.settled(), words.crashed());
    Some(LeftBooks { due: words.committed().1, settled, lost })
}

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Interfaces whose links were taken off.
    pub links: Vec<String>,
    /// Interfaces whose filters were taken off.
    pub filters: Vec<String>,
    /// Names of maps and links.
    pub names: usize,
    /// Folders of agents of other versions.
    pub others: Vec<String>,
}

/// Takes programs off that runs have left in the calling thread's network namespace, and the maps away in which they count;
/// what is in those is lost. Leaves alone what agents use that live.
///
/// # Errors
/// [`EbpfError::Held`]: an agent that keeps its state lives. No rights.
pub fn clean_up() -> Result<Removed, EbpfError> {
    let mut removed = Removed::default();
    if let Some(folder) = pins::folder_of_namespace() {
        let pins = Pins::lock(folder.clone())?;
        removed.links = pins::interfaces(&folder);
        removed.names = pins.clear();
        removed.others = pins.clear_others();
    }
    let failed = |what| move |source| EbpfError::Kernel { what, source };
    let mut filters = Filters::new().map_err(failed("a netlink socket"))?;
    for device in discover().map_err(failed("the list of interfaces"))? {
        if filters.clear_leftovers(device.index) {
            removed.filters.push(device.name.to_string());
        }
    }
    Ok(removed)
}
