//! What can be wrong with an output before records flow.

use std::io;
use std::path::PathBuf;

/// An output that can't be.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No such kind.
    #[error("`{given}` is not a kind of output")]
    UnknownKind {
        /// What was typed.
        given: String,
        /// What to type instead.
        help: String,
    },
    /// A kind that goes nowhere else was given a path, or a path is empty.
    #[error("`{given}`: {what}")]
    Path {
        /// What was typed.
        given: String,
        /// What is wrong.
        what: &'static str,
    },
    /// Two outputs would have the same name in the statistics, and write the same twice.
    #[error("the output `{name}` is there twice")]
    Twice {
        /// Its name.
        name: String,
    },
    /// Two outputs write to one file.
    #[error("two outputs write to {}", path.display())]
    SharedFile {
        /// That file.
        path: PathBuf,
    },
    /// The file can't be opened for writing.
    #[error("can't write records to {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An output's disk buffer can't be made, read or written.
    #[error("the disk buffer in {} can't be used", folder.display())]
    BufferFolder {
        /// Its folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent has it.
    #[error("the disk buffer in {} is in use by another mermin", folder.display())]
    BufferInUse {
        /// Its folder.
        folder: PathBuf,
    },
    /// A setting of a network output is wrong, or a file that it names.
    #[error("{what}")]
    Setting {
        /// The key or the variable of the environment.
        place: String,
        /// What is wrong with it.
        what: String,
        /// What to do.
        help: String,
    },
    /// An output can't have what it needs of the system.
    #[error("can't start a network output")]
    Runtime {
        /// Why.
        source: io::Error,
    },
    /// Standard output can't be used (it is closed).
    #[error("can't write records to standard output")]
    Stdout {
        /// Why.
        source: io::Error,
    },
}

impl ExportError {
    /// What the user could do.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::UnknownKind { help, .. } => Some(help.clone()),
            Self::Path { given, .. } if given.starts_with("otlp") => {
                Some("write otlp or otlp:URL, for example `otlp:http://localhost:4317`".to_owned())
            }
            Self::Path { given, .. } if given.starts_with("ipfix") => {
                Some("write ipfix or ipfix:HOST:PORT, for example `ipfix:localhost:4739`".to_owned())
            }
            Self::Path { given, .. } if given.starts_with("kafka") => Some(
                "write kafka or kafka:BROKER,…/TOPIC, for example `kafka:localhost:9092/mermin.flows`"
                    .to_owned(),
            ),
            Self::Path { .. } => Some("write KIND or KIND:PATH, for example `json:flows.jsonl`".to_owned()),
            Self::Twice { .. } => Some("give it once".to_owned()),
            Self::SharedFile { .. } => Some("give each output a file of its own".to_owned()),
            Self::Open { path, source } => match source.kind() {
                io::ErrorKind::NotFound => path
                    .parent()
                    .map(|folder| format!("make the folder first: mkdir -p {}", folder.display())),
                _ => None,
            },
            Self::BufferFolder { folder, source } => Some(match source.kind() {
                io::ErrorKind::StorageFull => {
                    "make room on that disk, or name a folder on another".to_owned()
                }
                _ => format!(
                    "make a folder that mermin may write to: mkdir -p {}; or name another",
                    folder.parent().unwrap_or(folder).display()
                ),
            }),
            Self::BufferInUse { .. } => {
                Some("stop that one, or give each a folder of its own: export.disk_buffer.folder".to_owned())
            }
            Self::Setting { help, .. } => Some(help.clone()),
            Self::Runtime { .. } => Some("raise the limit of open files (ulimit -n)".to_owned()),
            Self::Stdout { .. } => None,
        }
    }

    /// The key of the configuration or the variable to blame, where it is one.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        match self {
            Self::Setting { place, .. } if !place.is_empty() => Some(place),
            Self::BufferFolder { .. } | Self::BufferInUse { .. } => Some("export.disk_buffer.folder"),
            _ => None,
        }
    }
}
