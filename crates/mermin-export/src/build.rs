//! From what users name to outputs that run.

use crate::destination::FileDestination;
use crate::error::ExportError;
use crate::format::Format;
use crate::json::JsonLines;
use crate::lines::Lines;
use crate::log::LogEvents;
use crate::none::Uncollected;
use crate::spec::{OutputKind, OutputSpec, Target};
use crate::text::{Style, TextLines};
use mermin_flow::{Exporter, ObservationPoints};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whether text for people is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set or the terminal is `dumb`.
    #[default]
    Auto,
    /// Also into files and pipes.
    Always,
    /// Not even on a terminal.
    Never,
}

impl Color {
    /// Whether to colour what goes to a terminal, or not to one.
    #[must_use]
    pub fn wanted(self, terminal: bool) -> bool {
        let asked_not_to = || {
            std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
                || std::env::var_os("TERM").is_some_and(|term| term == "dumb")
        };
        match self {
            Self::Auto => terminal && !asked_not_to(),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// Opens all outputs, or none.
///
/// # Errors
/// [`ExportError`]: two that are the same or share a file, or one that can't be opened. Files are opened in order, so
/// those before the failing one are there afterwards.
pub fn build_all(
    specs: &[OutputSpec],
    points: &Arc<ObservationPoints>,
    color: Color,
) -> Result<Vec<Box<dyn Exporter>>, ExportError> {
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for spec in specs {
        if !names.insert(spec.name()) {
            return Err(ExportError::Twice { name: spec.name() });
        }
        if let Target::File { path, .. } = &spec.target
            && !paths.insert(resolved(path))
        {
            return Err(ExportError::SharedFile { path: path.clone() });
        }
    }
    specs.iter().map(|spec| build(spec, points, color)).collect()
}

/// The file that a path will lead to: `./a`, a link and a folder's other names are told as what they are.
#[must_use]
pub fn resolved(path: &Path) -> PathBuf {
    let whole = path.canonicalize();
    whole.unwrap_or_else(|_| {
        // Not there yet: its folder is, or opening it will fail.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        path.file_name().map_or_else(|| folder.clone(), |name| folder.join(name))
    })
}

/// Opens one output.
///
/// # Errors
/// [`ExportError::Open`] and [`ExportError::Stdout`].
pub fn build(
    spec: &OutputSpec,
    points: &Arc<ObservationPoints>,
    color: Color,
) -> Result<Box<dyn Exporter>, ExportError> {
    let name = spec.name();
    match spec.kind {
        OutputKind::Log => Ok(Box::new(LogEvents::new(name, Arc::clone(points)))),
        OutputKind::None => Ok(Box::new(Uncollected::new(name))),
        OutputKind::Json => Ok(lines(name, JsonLines::new(Arc::clone(points)), open(&spec.target)?)),
        OutputKind::Text => {
            let destination = open(&spec.target)?;
            let terminal = destination.is_terminal();
            let columns = if terminal { destination.columns() } else { None };
            let style = Style { color: color.wanted(terminal), header: terminal, columns };
            Ok(lines(name, TextLines::new(style), destination))
        }
    }
}

fn lines(name: String, format: impl Format + 'static, destination: FileDestination) -> Box<dyn Exporter> {
    Box::new(Lines::new(name, format, destination))
}

fn open(target: &Target) -> Result<FileDestination, ExportError> {
    match target {
        Target::File { path, append } => FileDestination::open(path, *append)
            .map_err(|source| ExportError::Open { path: path.clone(), source }),
        Target::Stdout | Target::Nowhere => {
            FileDestination::stdout().map_err(|source| ExportError::Stdout { source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(specs: &[&str]) -> ExportError {
        let specs: Vec<_> = specs.iter().map(|spec| OutputSpec::parse(spec).unwrap()).collect();
        let points = Arc::new(ObservationPoints::default());
        build_all(&specs, &points, Color::Never).err().unwrap()
    }

    #[test]
    fn outputs_that_collide_or_cant_be_opened_are_errors() {
        assert!(matches!(error(&["json", "json:-"]), ExportError::Twice { name } if name == "json"));
        assert!(matches!(error(&["json:/nowhere/x", "text:/nowhere/x"]), ExportError::SharedFile { .. }));
        assert!(matches!(error(&["json:shared", "text:./shared"]), ExportError::SharedFile { .. }));
        let error = error(&["none", "json:/nowhere/x"]);
        assert_eq!(error.to_string(), "can't write records to /nowhere/x");
        assert_eq!(error.help().unwrap(), "make the folder first: mkdir -p /nowhere");
    }

    #[test]
    fn several_outputs_are_named_as_given() {
        let specs = ["text", "json", "log", "none"].map(|spec| OutputSpec::parse(spec).unwrap());
        let outputs = build_all(&specs, &Arc::new(ObservationPoints::default()), Color::Auto).unwrap();
        assert_eq!(
            outputs.iter().map(|output| output.name()).collect::<Vec<_>>(),
            ["text", "json", "log", "none"]
        );
    }

    #[test]
    fn colour_by_policy() {
        assert!(!Color::Auto.wanted(false) && Color::Always.wanted(false) && !Color::Never.wanted(true));
    }
}
