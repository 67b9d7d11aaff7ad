//! An output as users name it: `KIND[:PATH]`.

use crate::buffer::BufferKind;
use crate::error::ExportError;
use std::path::PathBuf;

/// What an output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputKind {
    /// Lines for people.
    Text,
    /// JSON lines.
    Json,
    /// Structured log events.
    Log,
    /// An OpenTelemetry collector.
    Otlp,
    /// A collector of IPFIX or NetFlow.
    Ipfix,
    /// A Kafka topic.
    Kafka,
    /// Counts only.
    None,
}

impl OutputKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Text, Self::Json, Self::Log, Self::Otlp, Self::Kafka, Self::Ipfix, Self::None];

    /// What to type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Log => "log",
            Self::Otlp => "otlp",
            Self::Ipfix => "ipfix",
            Self::Kafka => "kafka",
            Self::None => "none",
        }
    }

    /// Whether it sends records over a network.
    #[must_use]
    pub const fn has_receiver(self) -> bool {
        matches!(self, Self::Otlp | Self::Kafka | Self::Ipfix)
    }

    const fn has_lines(self) -> bool {
        matches!(self, Self::Text | Self::Json)
    }
}

/// Where an output writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether records are added to what it holds; else it is emptied first.
        append: bool,
        /// Where its records wait.
        buffer: BufferKind,
    },
    /// Somebody over a network, with the settings that the configuration has for this kind.
    Receiver {
        /// Where it listens, in the place of the configuration's.
        address: Option<String>,
    },
    /// To nothing of its own: the log, or nothing at all.
    Nowhere,
}

/// An output.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutputSpec {
    /// What it is.
    pub kind: OutputKind,
    /// Where it writes.
    pub target: Target,
}

impl OutputSpec {
    /// Reads `KIND`, `KIND:PATH`, `otlp:URL`, `kafka:BROKER,…/TOPIC` or `ipfix:HOST:PORT`; `-` as path is standard output. A
    /// file is emptied first, as a shell's `>` does.
    ///
    /// # Errors
    /// [`ExportError::UnknownKind`] with the nearest kind, [`ExportError::Path`] for a path that is empty or has no use.
    pub fn parse(text: &str) -> Result<Self, ExportError> {
        let (word, path) = match text.split_once(':') {
            Some((word, path)) => (word, Some(path)),
            None => (text, None),
        };
        let kind = OutputKind::ALL.into_iter().find(|kind| kind.name() == word);
        let kind = kind.ok_or_else(|| unknown_kind(text, word))?;
        let wrong = |what| ExportError::Path { given: text.to_owned(), what };
        let target = match path {
            Some("") if kind.has_receiver() => return Err(wrong("the address is empty")),
            _ if kind.has_receiver() => Target::Receiver { address: path.map(str::to_owned) },
            _ if !kind.has_lines() => match path {
                None => Target::Nowhere,
                Some(_) => return Err(wrong("this kind takes no path")),
            },
            None | Some("-") => Target::Stdout,
            Some("") => return Err(wrong("the path is empty")),
            Some(path) => Target::File { path: path.into(), append: false, buffer: BufferKind::Memory },
        };
        Ok(Self { kind, target })
    }

    /// The output's name in the statistics: `json`, `text:flows.log`.
    #[must_use]
    pub fn name(&self) -> String {
        let kind = self.kind.name();
        match &self.target {
            Target::File { path, .. } => format!("{kind}:{}", path.display()),
            Target::Stdout | Target::Receiver { .. } | Target::Nowhere => kind.to_owned(),
        }
    }

    /// Whether it writes to standard output.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        self.target == Target::Stdout
    }
}

fn unknown_kind(given: &str, word: &str) -> ExportError {
    let kinds = "the kinds are `text`, `json`, `log`, `otlp`, `kafka`, `ipfix` and `none`";
    let lower = word.to_ascii_lowercase();
    let nearest = OutputKind::ALL
        .into_iter()
        .map(|kind| (strsim::damerau_levenshtein(&lower, kind.name()), kind.name()))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    let help = match nearest {
        _ if given.contains(['/', '.']) && !given.contains(':') => {
            format!("to write to a file say in which form: `json:{given}`")
        }
        Some((_, name)) => format!("did you mean `{name}{}`? {kinds}", &given[word.len()..]),
        None => kinds.to_owned(),
    };
    ExportError::UnknownKind { given: given.to_owned(), help }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_paths() {
        let file = |path: &str| Target::File { path: path.into(), append: false, buffer: BufferKind::Memory };
        for (text, kind, target, name) in [
            ("text", OutputKind::Text, Target::Stdout, "text"),
            ("json", OutputKind::Json, Target::Stdout, "json"),
            ("json:-", OutputKind::Json, Target::Stdout, "json"),
            ("json:flows.jsonl", OutputKind::Json, file("flows.jsonl"), "json:flows.jsonl"),
            ("text:a:b", OutputKind::Text, file("a:b"), "text:a:b"),
            ("log", OutputKind::Log, Target::Nowhere, "log"),
            ("none", OutputKind::None, Target::Nowhere, "none"),
            ("otlp", OutputKind::Otlp, Target::Receiver { address: None }, "otlp"),
            ("kafka", OutputKind::Kafka, Target::Receiver { address: None }, "kafka"),
            (
                "kafka:b1:9092,b2:9092/flows",
                OutputKind::Kafka,
                Target::Receiver { address: Some("b1:9092,b2:9092/flows".to_owned()) },
                "kafka",
            ),
            (
                "otlp:http://c:4317",
                OutputKind::Otlp,
                Target::Receiver { address: Some("http://c:4317".to_owned()) },
                "otlp",
            ),
            ("ipfix", OutputKind::Ipfix, Target::Receiver { address: None }, "ipfix"),
            (
                "ipfix:[::1]:4739",
                OutputKind::Ipfix,
                Target::Receiver { address: Some("[::1]:4739".to_owned()) },
                "ipfix",
            ),
        ] {
            let spec = OutputSpec::parse(text).unwrap();
            assert_eq!(spec, OutputSpec { kind, target });
            assert_eq!(spec.name(), name);
        }
    }

    #[test]
    fn errors_say_what_to_type() {
        for (text, message, help) in [
            ("jsn", "`jsn` is not a kind of output", "did you mean `json`?"),
            ("JSON:x", "`JSON:x` is not a kind of output", "did you mean `json:x`?"),
            ("flows.jsonl", "`flows.jsonl` is not a kind of output", "`json:flows.jsonl`"),
            (
                "parquet",
                "`parquet` is not a kind of output",
                "the kinds are `text`, `json`, `log`, `otlp`, `kafka`, `ipfix` and `none`",
            ),
            ("", "`` is not a kind of output", "the kinds are"),
            ("json:", "`json:`: the path is empty", "KIND:PATH"),
            ("otlp:", "`otlp:`: the address is empty", "otlp:http://localhost:4317"),
            ("ipfix:", "`ipfix:`: the address is empty", "ipfix:localhost:4739"),
            ("ipfx", "`ipfx` is not a kind of output", "did you mean `ipfix`?"),
            ("kafka:", "`kafka:`: the address is empty", "kafka:localhost:9092/mermin.flows"),
            ("log:x", "`log:x`: this kind takes no path", "KIND:PATH"),
            ("none:x", "`none:x`: this kind takes no path", "KIND:PATH"),
        ] {
            let error = OutputSpec::parse(text).unwrap_err();
            assert_eq!(error.to_string(), message);
            let given = error.help().unwrap();
            assert!(given.contains(help), "{given}");
        }
    }
}
