//! The configuration: read, merged, checked, built.
//!
//! Layers, each over the one before: defaults, profile, file, environment, `--set`, named options. They are merged as
//! trees that remember places, checked as a whole against the schema of the structs, and only then given types; every
//! problem names the line, variable or option to blame. No file is searched for: what is not given does not count.

mod check;
mod differences;
mod layers;
mod problem;
mod profile;
mod reference;
mod schema;
mod template;
mod tree;
mod yaml;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use differences::keys;
pub(crate) use differences::{Difference, differences};
pub use problem::{Origin, Problem, Problems};
pub use profile::Profile;
pub use reference::reference_page;
pub use template::default_file;
pub(crate) use template::flow_style;

use crate::resources::ResourcesConfig;
use crate::server::ServerConfig;
use mermin_capture::CaptureConfig;
use mermin_enrich::EnrichConfig;
use mermin_export::ExportConfig;
use mermin_flow::FlowConfig;
use mermin_pipeline::PipelineConfig;
use schema::{Form, Schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tree::{Node, Value, split_dotted};

/// The version of the configuration's keys that this program reads.
const VERSION: u32 = 1;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The version of this file's keys. May be left out.
    pub config_version: u32,
    /// How much is logged.
    pub log_level: LogLevel,
    /// The stages between source and outputs: how many workers, how much room between them, what happens when it is
    /// full.
    pub pipeline: PipelineConfig,
    /// Where packets come from.
    pub capture: CaptureConfig,
    /// How flows are kept and when they end.
    pub flow: FlowConfig,
    /// What is added to flow records.
    pub enrich: EnrichConfig,
    /// Where flow records go. Without any output here they go to standard output as text.
    pub export: ExportConfig,
    /// What the agent may take of the machine. What it would take beyond that, it does without, step by step, and takes back
    /// when it can.
    pub resources: ResourcesConfig,
    /// An HTTP server that tells metrics, health, statistics and live flows. Without this section nothing listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            config_version: VERSION,
            log_level: LogLevel::default(),
            pipeline: PipelineConfig::default(),
            capture: CaptureConfig::default(),
            flow: FlowConfig::default(),
            enrich: EnrichConfig::default(),
            export: ExportConfig::default(),
            resources: ResourcesConfig::default(),
            server: None,
        }
    }
}

/// The least important event that is logged.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what ends the run or loses data for good.
    Error,
    /// Also what is degraded.
    Warn,
    /// Also the pipeline's life: stages, statistics, at most ten new flows a second.
    #[default]
    Info,
    /// Also every new flow; lines name their part of the program.
    Debug,
    /// Also details for whoever changes the code.
    Trace,
}

impl LogLevel {
    /// One step more, as `-v` asks for.
    #[must_use]
    pub const fn louder(self) -> Self {
        match self {
            Self::Error => Self::Warn,
            Self::Warn => Self::Info,
            Self::Info => Self::Debug,
            Self::Debug | Self::Trace => Self::Trace,
        }
    }

    /// As written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// A key set by a named option.
#[derive(Clone, Debug)]
pub struct Override {
    /// The key's path.
    pub key: &'static str,
    /// What it becomes.
    pub value: Given,
    /// The option as given, for messages: `--log-level debug`.
    pub option: String,
}

/// The value of an [`Override`].
#[derive(Clone, Debug)]
pub enum Given {
    /// One text.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

/// Everything that a configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// `--profile`.
    pub profile: Option<Profile>,
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The environment; only `MERMIN_…` counts.
    pub environment: Vec<(String, String)>,
    /// `--set`, as given.
    pub set: Vec<String>,
    /// Named options.
    pub overrides: Vec<Override>,
}

/// Reads and checks the configuration.
///
/// # Errors
/// Everything that is wrong, in the order of the layers.
pub fn load(inputs: &Inputs) -> Result<Config, Problems> {
    let json_schema = json_schema();
    let schema = Schema::new(&json_schema);
    let mut problems = Vec::new();
    let mut texts = Vec::new();
    if let Some(profile) = inputs.profile {
        texts.push((profile.text().to_owned(), format!("profile {}", profile.name())));
    }
    if let Some(path) = &inputs.file {
        texts.push((read_file(path)?, path.display().to_string()));
    }
    let mut stack = Vec::new();
    for (text, name) in &texts {
        match yaml::read(text, name) {
            Ok(node) => stack.push(node),
            Err(problem) => problems.push(problem),
        }
    }
    stack.extend(layers::environment(schema, inputs.environment.iter().cloned(), &mut problems));
    stack.extend(layers::set(schema, &inputs.set, &mut problems));
    stack.extend(inputs.overrides.iter().map(named_option));
    build(schema, stack, problems)
}

/// Reads and checks one text, without any other layer: the configuration that a file alone would give.
///
/// # Errors
/// Everything that is wrong; no text panics.
pub fn parse(text: &str) -> Result<Config, Problems> {
    let json_schema = json_schema();
    let node = yaml::read(text, "config.yaml")?;
    build(Schema::new(&json_schema), vec![node], Vec::new())
}

/// JSON Schema of the configuration file, for editors.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

/// The largest number that a key such as `pipeline.flow_workers` takes.
pub(crate) fn largest(key: &str) -> Option<u64> {
    let json_schema = json_schema();
    let schema = key.split('.').try_fold(Schema::new(&json_schema), Schema::property)?;
    let number = |schema: Schema<'_>| match schema.form() {
        Form::Integer { max, .. } => u64::try_from(max?).ok(),
        _ => None,
    };
    match schema.form() {
        Form::Either(forms) => forms.into_iter().find_map(number),
        _ => number(schema),
    }
}

fn read_file(path: &Path) -> Result<String, Problem> {
    let problem = |what: String| Problem {
        what,
        origin: Some(Origin::Option(Arc::from(format!("--config {}", path.display())))),
        path: String::new(),
        help: "give a readable YAML file; `mermin config default` prints one to start from".to_owned(),
    };
    let bytes = std::fs::read(path)
        .map_err(|error| problem(format!("can't read the configuration file: {}", lower(&error))))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        problem(format!("the configuration file is not UTF-8 (line {line})"))
    })
}

/// An I/O error as part of a sentence: without the number that Rust adds.
pub(crate) fn lower(error: &std::io::Error) -> String {
    in_sentence(&error.to_string())
}

/// The text of an I/O error as part of a sentence.
pub(crate) fn in_sentence(text: &str) -> String {
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

fn named_option(option: &Override) -> Node {
    let origin = Origin::Option(Arc::from(option.option.as_str()));
    let text = |text: &String| Node::text(text, origin.clone());
    let node = match &option.value {
        Given::Text(one) => text(one),
        Given::List(many) => {
            Node { value: Value::List(many.iter().map(text).collect()), origin: origin.clone() }
        }
    };
    node.under(&split_dotted(option.key).expect("keys of named options are written in this program"))
}

fn build(schema: Schema<'_>, stack: Vec<Node>, mut problems: Vec<Problem>) -> Result<Config, Problems> {
    let mut layers = stack.into_iter();
    let Some(mut tree) = layers.next() else {
        return if problems.is_empty() { Ok(Config::default()) } else { Err(Problems(problems)) };
    };
    layers.for_each(|layer| tree.merge(layer));
    problems.extend(version_problem(&tree));
    problems.extend(check::check(schema, &mut tree));
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    Ok(deserialize(&tree)?)
}

/// A number that is not ours makes every other message about the file pointless, so it is said plainly.
fn version_problem(tree: &Node) -> Option<Problem> {
    let keys = ["config_version".to_owned()];
    let node = tree.nearest(&keys);
    let Value::Scalar(tree::Scalar { kind: tree::Kind::Integer(number), .. }) = node.value else {
        return None;
    };
    (number != i128::from(VERSION) && u32::try_from(number).is_ok()).then(|| Problem {
        what: format!("config_version {number} is not known to this program, which reads version {VERSION}"),
        origin: Some(node.origin.clone()),
        path: keys.concat(),
        help: format!("write config_version: {VERSION}, or use the mermin that the file was written for"),
    })
}

fn deserialize(tree: &Node) -> Result<Config, Problem> {
    serde_path_to_error::deserialize(tree.to_json()).map_err(|error| {
        let keys: Vec<_> = error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                serde_path_to_error::Segment::Map { key } => Some(key.clone()),
                serde_path_to_error::Segment::Seq { index } => Some(index.to_string()),
                _ => None,
            })
            .collect();
        Problem {
            what: error.inner().to_string(),
            origin: Some(tree.nearest(&keys).origin.clone()),
            path: tree::dotted(&keys),
            help: "`mermin config schema` and docs/reference/configuration.md say what goes here".to_owned(),
        }
    })
}
