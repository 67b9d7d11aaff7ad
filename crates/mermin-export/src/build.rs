//! From what users name to outputs that run.

use crate::agent::Agent;
use crate::buffer::{BufferKind, DiskBufferConfig};
use crate::destination::FileDestination;
use crate::error::ExportError;
use crate::format::Format;
use crate::ipfix::{IpfixConfig, LedgerBoard};
use crate::json::JsonLines;
use crate::kafka::KafkaConfig;
use crate::lines::Lines;
use crate::log::LogEvents;
use crate::none::Uncollected;
use crate::otlp::{Environment, OtlpConfig};
use crate::plan::{Plan, ReceiverConfig};
use crate::spec::{OutputKind, OutputSpec, Target};
use crate::text::{Style, TextLines};
use mermin_flow::{Exporter, ObservationPoints};
use mermin_spool::Spool;
use rustix::fs::{Access, access};
use std::collections::HashSet;
use std::io;
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

/// What outputs are made with.
#[derive(Clone, Debug, Default)]
pub struct Materials {
    /// Where records' observation points are named.
    pub points: Arc<ObservationPoints>,
    /// Where outputs that tell of the agent's ledger find it.
    pub ledger: Arc<LedgerBoard>,
    /// Whether text for people is coloured.
    pub color: Color,
    /// `export.otlp`.
    pub otlp: OtlpConfig,
    /// `export.ipfix`.
    pub ipfix: IpfixConfig,
    /// `export.kafka`.
    pub kafka: KafkaConfig,
    /// Who sends.
    pub agent: Agent,
    /// OpenTelemetry's own variables.
    pub environment: Environment,
    /// `export.disk_buffer`.
    pub disk_buffer: DiskBufferConfig,
}

/// An output that is open.
pub struct Open {
    /// Which of the specs it is of.
    pub spec: usize,
    /// Takes the records.
    pub exporter: Box<dyn Exporter>,
    /// Where they wait, if not in memory only.
    pub buffer: Option<Spool>,
}

impl Materials {
    /// Where the records of an output wait.
    #[must_use]
    pub fn buffer(&self, spec: &OutputSpec) -> BufferKind {
        match spec.target {
            Target::File { buffer, .. } => buffer,
            _ => self.receiver(spec).map_or(BufferKind::Memory, |config| config.buffer()),
        }
    }

    /// The settings of an output that has a receiver; `None` for other kinds.
    #[must_use]
    pub fn receiver(&self, spec: &OutputSpec) -> Option<ReceiverConfig> {
        let Target::Receiver { address } = &spec.target else { return None };
        match spec.kind {
            OutputKind::Otlp => {
                let mut config = self.otlp.clone();
                if address.is_some() {
                    config.endpoint.clone_from(address);
                }
                Some(ReceiverConfig::Otlp(Box::new(config)))
            }
            OutputKind::Ipfix => {
                let mut config = self.ipfix.clone();
                if address.is_some() {
                    config.collector.clone_from(address);
                }
                Some(ReceiverConfig::Ipfix(Box::new(config)))
            }
            OutputKind::Kafka => {
                let mut config = self.kafka.clone();
                if let Some(address) = address {
                    config.address(address);
                }
                Some(ReceiverConfig::Kafka(Box::new(config)))
            }
            OutputKind::Text | OutputKind::Json | OutputKind::Log | OutputKind::None => None,
        }
    }

    /// What an output that has a receiver would send, and where; `None` for other kinds.
    ///
    /// # Errors
    /// [`ExportError::Setting`].
    pub fn plan(&self, spec: &OutputSpec) -> Result<Option<Plan>, ExportError> {
        self.receiver(spec).map(|config| config.plan(&self.environment)).transpose()
    }
}

/// Opens all outputs, or none. One to an OpenTelemetry collector is several: one for each signal. `warn` is told what should be known
/// though nothing is wrong.
///
/// # Errors
/// [`ExportError`]: two that are the same or share a file, or one that can't be opened. Files are opened in order, so
/// those before the failing one are there afterwards.
pub fn build_all(
    specs: &[OutputSpec],
    materials: &Materials,
    mut warn: impl FnMut(String),
) -> Result<Vec<Open>, ExportError> {
    differ(specs)?;
    let mut outputs = Vec::new();
    for (place, spec) in specs.iter().enumerate() {
        let waits_on_disk = materials.buffer(spec) == BufferKind::Disk;
        // A file's before the file: whoever finds the buffer in use must not have emptied the file of the agent that uses it.
        let is_file = matches!(spec.target, Target::File { .. });
        let mut of_file =
            (waits_on_disk && is_file).then(|| materials.disk_buffer.open(&spec.name())).transpose()?;
        for exporter in build(spec, materials)? {
            let buffered = waits_on_disk && !is_file && !exporter.sums_up();
            let buffer = buffered.then(|| materials.disk_buffer.open(exporter.name())).transpose()?;
            let buffer = buffer.or_else(|| of_file.take());
            let (buffer, warning) = buffer.unzip();
            warning.flatten().into_iter().for_each(&mut warn);
            outputs.push(Open { spec: place, exporter, buffer });
        }
    }
    Ok(outputs)
}

/// Whether [`build_all`] would open all outputs, as far as that can be told without opening any: no file is made.
///
/// # Errors
/// Those of [`build_all`].
pub fn check_all(
    specs: &[OutputSpec],
    materials: &Materials,
    mut warn: impl FnMut(String),
) -> Result<(), ExportError> {
    differ(specs)?;
    for spec in specs {
        let _ = materials.plan(spec)?;
        if materials.buffer(spec) == BufferKind::Disk {
            materials.disk_buffer.check(&spec.name())?.into_iter().for_each(&mut warn);
        }
        if let Target::File { path, .. } = &spec.target {
            can_be_written(path).map_err(|source| ExportError::Open { path: path.clone(), source })?;
        }
    }
    Ok(())
}

fn can_be_written(path: &Path) -> io::Result<()> {
    match path.metadata() {
        Ok(there) if there.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(access(folder(path), Access::WRITE_OK | Access::EXEC_OK)?)
        }
        _ => Ok(access(path, Access::WRITE_OK)?),
    }
}

/// The folder that a file is in, or will be.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn differ(specs: &[OutputSpec]) -> Result<(), ExportError> {
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
    Ok(())
}

/// The file that a path will lead to: `./a`, a link and a folder's other names are told as what they are.
#[must_use]
pub fn resolved(path: &Path) -> PathBuf {
    let whole = path.canonicalize();
    whole.unwrap_or_else(|_| {
        // Not there yet: its folder is, or opening it will fail.
        let folder = folder(path).canonicalize().unwrap_or_else(|_| folder(path).to_owned());
        path.file_name().map_or_else(|| folder.clone(), |name| folder.join(name))
    })
}

fn build(spec: &OutputSpec, materials: &Materials) -> Result<Vec<Box<dyn Exporter>>, ExportError> {
    if let Some(plan) = materials.plan(spec)? {
        return plan.open(&materials.points, &materials.ledger, &materials.agent);
    }
    let (name, points) = (spec.name(), Arc::clone(&materials.points));
    let output: Box<dyn Exporter> = match spec.kind {
        OutputKind::Log => Box::new(LogEvents::new(name, points)),
        // One that has a receiver has a plan, see above: what is left counts only.
        OutputKind::None | OutputKind::Otlp | OutputKind::Kafka | OutputKind::Ipfix => {
            Box::new(Uncollected::new(name))
        }
        OutputKind::Json => lines(name, JsonLines::new(points), open(&spec.target)?),
        OutputKind::Text => {
            let destination = open(&spec.target)?;
            let terminal = destination.is_terminal();
            let columns = if terminal { destination.columns() } else { None };
            let style = Style { color: materials.color.wanted(terminal), header: terminal, columns };
            lines(name, TextLines::new(style), destination)
        }
    };
    Ok(vec![output])
}

fn lines(name: String, format: impl Format + 'static, destination: FileDestination) -> Box<dyn Exporter> {
    Box::new(Lines::new(name, format, destination))
}

fn open(target: &Target) -> Result<FileDestination, ExportError> {
    match target {
        Target::File { path, append, .. } => FileDestination::open(path, *append)
            .map_err(|source| ExportError::Open { path: path.clone(), source }),
        Target::Stdout | Target::Receiver { .. } | Target::Nowhere => {
            FileDestination::stdout().map_err(|source| ExportError::Stdout { source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(specs: &[&str]) -> ExportError {
        let specs: Vec<_> = specs.iter().map(|spec| OutputSpec::parse(spec).unwrap()).collect();
        build_all(&specs, &Materials::default(), |_| {}).err().unwrap()
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
    fn whoever_finds_a_buffer_in_use_leaves_the_file_of_the_other_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.jsonl");
        let mut spec = OutputSpec::parse(&format!("json:{}", path.display())).unwrap();
        let Target::File { buffer, .. } = &mut spec.target else { panic!("a file") };
        *buffer = BufferKind::Disk;
        let disk_buffer =
            DiskBufferConfig { folder: folder.path().join("buffer"), ..DiskBufferConfig::default() };
        let materials = Materials { disk_buffer, ..Materials::default() };
        let specs = [spec];
        let first = build_all(&specs, &materials, |_| {}).unwrap();
        assert!(first[0].buffer.is_some());
        std::fs::write(&path, "records").unwrap();
        let second = build_all(&specs, &materials, |_| {}).err().unwrap();
        assert!(matches!(second, ExportError::BufferInUse { .. }), "{second}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "records");
    }

    #[test]
    fn a_check_says_what_opening_would_and_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| format!("json:{}", folder.path().join(name).display());
        std::fs::write(folder.path().join("there"), "kept").unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        for specs in [
            &["json", "json:-"][..],
            &[&file("new"), &file("there"), "text", "log", "otlp"],
            &[&file("folder")],
            &[&file("no/folder")],
        ] {
            let specs: Vec<_> = specs.iter().map(|spec| OutputSpec::parse(spec).unwrap()).collect();
            let checked = check_all(&specs, &Materials::default(), |_| {}).map_err(|error| error.to_string());
            let there = std::fs::read(folder.path().join("there")).unwrap();
            assert!(there == b"kept" && !folder.path().join("new").exists(), "{specs:?}");
            let opened = build_all(&specs, &Materials::default(), |_| {});
            let opened = opened.map(drop).map_err(|error| error.to_string());
            assert_eq!(checked, opened, "{specs:?}");
            std::fs::write(folder.path().join("there"), "kept").unwrap();
            let _ = std::fs::remove_file(folder.path().join("new"));
        }
    }

    #[test]
    fn several_outputs_are_named_as_given() {
        let specs = ["text", "json", "log", "otlp", "none"].map(|spec| OutputSpec::parse(spec).unwrap());
        let outputs = build_all(&specs, &Materials::default(), |_| {}).unwrap();
        assert_eq!(
            outputs.iter().map(|output| output.exporter.name()).collect::<Vec<_>>(),
            ["text", "json", "log", "otlp:traces", "none"]
        );
    }

    #[test]
    fn colour_by_policy() {
        assert!(!Color::Auto.wanted(false) && Color::Always.wanted(false) && !Color::Never.wanted(true));
    }
}
