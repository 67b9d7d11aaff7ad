//! What is wrong with a configuration, where, and what to type instead.
//!
//! Problems are collected, not thrown one by one: a file with three mistakes is put right in one round.

use std::fmt;
use std::sync::Arc;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A YAML text: a file's path as given, or `profile NAME`.
    Text {
        /// What the text is called.
        name: Arc<str>,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
    /// An environment variable.
    Environment(Arc<str>),
    /// A `--set` option, as given.
    Set(Arc<str>),
    /// Another option, as given.
    Option(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Set(text) => write!(f, "--set {text}"),
            Self::Option(text) => f.write_str(text),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in a sentence without full stop.
    pub what: String,
    /// Where; absent where no line of the user's is to blame.
    pub origin: Option<Origin>,
    /// The key's path; empty where the whole text is meant.
    pub path: String,
    /// What to type.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if let Some(origin) = &self.origin {
            write!(f, "\n  --> {origin}")?;
            // A `--set` text starts with the path already.
            if !self.path.is_empty() && !matches!(origin, Origin::Set(_)) {
                write!(f, " {}", self.path)?;
            }
        }
        write!(f, "\nhelp: {}", self.help)
    }
}

/// Everything that is wrong with a configuration, in the order of its text. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}
