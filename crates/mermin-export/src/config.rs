//! The `export` section of the configuration.

use crate::buffer::{BufferKind, DiskBufferConfig};
use crate::ipfix::IpfixConfig;
use crate::kafka::KafkaConfig;
use crate::otlp::OtlpConfig;
use crate::spec::{OutputKind, OutputSpec, Target};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Where flow records go. Without any output here they go to standard output as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExportConfig {
    /// Records that wait for one output, each output having a queue of its own. A replay with backpressure waits when
    /// one is full. Live, what waits in it is then put in order (`pipeline.priority`; what begins or ends a flow goes ahead
    /// of periodic reports), periodic reports of one flow become one record (`merged`), and what still has no room is
    /// dropped, the least important first, and counted (`queue_full`).
    pub queue_capacity: NonZeroUsize,
    /// Where records of outputs with `buffer: disk` wait.
    pub disk_buffer: DiskBufferConfig,
    /// Records to standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<StdoutConfig>,
    /// Records to files, one output each.
    pub files: Vec<FileConfig>,
    /// Records as structured events in the log: level INFO, target `mermin::flow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogConfig>,
    /// Records to an OpenTelemetry collector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<OtlpConfig>,
    /// Records to a collector of IPFIX or NetFlow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipfix: Option<IpfixConfig>,
    /// Records to a Kafka topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaConfig>,
}

impl Default for ExportConfig {
    fn default() -> Self {
        Self {
            queue_capacity: NonZeroUsize::new(8_192).expect("the default is not zero"),
            disk_buffer: DiskBufferConfig::default(),
            stdout: None,
            files: Vec::new(),
            log: None,
            otlp: None,
            ipfix: None,
            kafka: None,
        }
    }
}

/// Records to standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StdoutConfig {
    /// `false` switches this output off.
    pub enabled: bool,
    /// The form of the lines.
    pub format: LineFormat,
}

impl Default for StdoutConfig {
    fn default() -> Self {
        Self { enabled: true, format: LineFormat::Text }
    }
}

/// Records to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// `false` switches this output off.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The file; made if it isn't there. Its folder must be there.
    pub path: PathBuf,
    /// The form of the lines.
    #[serde(default = "json")]
    pub format: LineFormat,
    /// Whether records are added to what the file holds (so that a restart loses none); `false` empties it at start, as
    /// `-o KIND:PATH` does.
    #[serde(default = "yes")]
    pub append: bool,
    /// `disk`: records wait in `export.disk_buffer`, while the file can't be written and over a restart.
    #[serde(default)]
    pub buffer: BufferKind,
}

/// Records as structured log events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `false` switches this output off.
    pub enabled: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { enabled: true }
    }
}

const fn yes() -> bool {
    true
}

const fn json() -> LineFormat {
    LineFormat::Json
}

/// The form of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LineFormat {
    /// One line in columns for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LineFormat {
    const fn kind(self) -> OutputKind {
        match self {
            Self::Text => OutputKind::Text,
            Self::Json => OutputKind::Json,
        }
    }
}

impl FileConfig {
    fn target(&self) -> Target {
        Target::File { path: self.path.clone(), append: self.append, buffer: self.buffer }
    }
}

impl ExportConfig {
    /// The outputs that are switched on. An output that is there but switched off is not replaced by the default.
    #[must_use]
    pub fn outputs(&self) -> Vec<OutputSpec> {
        let none = self.stdout.is_none()
            && self.files.is_empty()
            && self.log.is_none()
            && self.otlp.is_none()
            && self.ipfix.is_none()
            && self.kafka.is_none();
        if none {
            return vec![OutputSpec { kind: OutputKind::Text, target: Target::Stdout }];
        }
        let stdout =
            self.stdout.iter().filter(|stdout| stdout.enabled).map(|stdout| (stdout.format, Target::Stdout));
        let files = self.files.iter().filter(|file| file.enabled).map(|file| (file.format, file.target()));
        let lines = stdout.chain(files).map(|(format, target)| OutputSpec { kind: format.kind(), target });
        let log = self.log.iter().filter(|log| log.enabled);
        let log = log.map(|_| OutputSpec { kind: OutputKind::Log, target: Target::Nowhere });
        let otlp = self.otlp.iter().filter(|otlp| otlp.enabled);
        let otlp = otlp.map(|_| OutputKind::Otlp);
        let kafka = self.kafka.iter().filter(|kafka| kafka.enabled).map(|_| OutputKind::Kafka);
        let ipfix = self.ipfix.iter().filter(|ipfix| ipfix.enabled).map(|_| OutputKind::Ipfix);
        let receivers = otlp.chain(kafka).chain(ipfix);
        let receivers = receivers.map(|kind| OutputSpec { kind, target: Target::Receiver { address: None } });
        lines.chain(log).chain(receivers).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(config: &str) -> Vec<String> {
        let config: ExportConfig = serde_json::from_str(config).unwrap();
        config.outputs().iter().map(OutputSpec::name).collect()
    }

    #[test]
    fn presence_switches_on_and_enabled_switches_off() {
        for (config, expected) in [
            ("{}", vec!["text"]),
            (r#"{"queue_capacity": 5}"#, vec!["text"]),
            (r#"{"stdout": {}}"#, vec!["text"]),
            (r#"{"stdout": {"format": "json"}}"#, vec!["json"]),
            (r#"{"stdout": {"enabled": false}}"#, vec![]),
            (r#"{"files": [{"path": "a.jsonl"}]}"#, vec!["json:a.jsonl"]),
            (r#"{"files": [{"path": "a", "enabled": false}]}"#, vec![]),
            (
                r#"{"stdout": {}, "files": [{"path": "a", "format": "text"}, {"path": "b"}], "log": {}}"#,
                vec!["text", "text:a", "json:b", "log"],
            ),
            (r#"{"log": {"enabled": false}}"#, vec![]),
            (r#"{"otlp": {}, "log": {}}"#, vec!["log", "otlp"]),
            (r#"{"otlp": {"enabled": false}}"#, vec![]),
            (r#"{"ipfix": {}, "otlp": {}}"#, vec!["otlp", "ipfix"]),
            (r#"{"ipfix": {"enabled": false}}"#, vec![]),
            (r#"{"kafka": {}, "otlp": {}}"#, vec!["otlp", "kafka"]),
            (r#"{"kafka": {"enabled": false}}"#, vec![]),
        ] {
            assert_eq!(outputs(config), expected, "{config}");
        }
    }

    #[test]
    fn files_are_appended_to_unless_told_otherwise() {
        let config: ExportConfig =
            serde_json::from_str(r#"{"files": [{"path": "a"}, {"path": "b", "append": false}]}"#).unwrap();
        let appended: Vec<_> = config
            .outputs()
            .into_iter()
            .map(|spec| matches!(spec.target, Target::File { append: true, .. }))
            .collect();
        assert_eq!(appended, [true, false]);
    }

    #[test]
    fn what_is_unknown_or_zero_is_an_error() {
        for bad in [
            r#"{"queue_capacity": 0}"#,
            r#"{"std_out": {}}"#,
            r#"{"stdout": {"format": "xml"}}"#,
            r#"{"files": [{"format": "json"}]}"#,
            r#"{"files": [{"path": "a", "mode": "append"}]}"#,
        ] {
            assert!(serde_json::from_str::<ExportConfig>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_default_is_read_back() {
        let text = serde_json::to_string(&ExportConfig::default()).unwrap();
        assert_eq!(serde_json::from_str::<ExportConfig>(&text).unwrap(), ExportConfig::default());
    }
}
