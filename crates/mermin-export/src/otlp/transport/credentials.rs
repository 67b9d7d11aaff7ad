//! The header `authorization`, from files.

use crate::error::ExportError;
use crate::otlp::config::OtlpConfig;
use crate::otlp::settings::problem;
use crate::secure::secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use std::path::PathBuf;

/// What Mermin shows a collector.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    None,
    Bearer { file: PathBuf },
    Basic { username: String, file: PathBuf },
}

impl Credentials {
    /// As configured; the files are tried.
    pub(crate) fn of(config: &OtlpConfig) -> Result<Self, ExportError> {
        let credentials = match (&config.bearer_token_file, &config.basic_auth) {
            (None, None) => return Ok(Self::None),
            (Some(_), Some(_)) => {
                return Err(problem(
                    "export.otlp.basic_auth",
                    "a bearer token and basic authentication exclude each other",
                    "leave one of bearer_token_file and basic_auth out",
                ));
            }
            (Some(file), None) => Self::Bearer { file: file.clone() },
            (None, Some(basic)) => {
                Self::Basic { username: basic.username.clone(), file: basic.password_file.clone() }
            }
        };
        if config.headers.keys().any(|name| name.eq_ignore_ascii_case("authorization")) {
            return Err(problem(
                "export.otlp.headers",
                "the header authorization and a credential from a file exclude each other",
                "leave the header, or bearer_token_file or basic_auth, out",
            ));
        }
        credentials.header().map_err(|why| {
            let (place, help) = match &credentials {
                Self::Basic { .. } => ("export.otlp.basic_auth.password_file", "a password in one line"),
                _ => ("export.otlp.bearer_token_file", "a token in one line"),
            };
            problem(place, why, format!("name a file that may be read and holds {help}"))
        })?;
        Ok(credentials)
    }

    /// The file that it comes from.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::None => None,
            Self::Bearer { file } | Self::Basic { file, .. } => Some(file),
        }
    }

    /// The header, from what the file holds now; or what is wrong, without the content.
    pub(crate) fn header(&self) -> Result<Option<HeaderValue>, String> {
        let Some(file) = self.file() else { return Ok(None) };
        let secret = secret(file).map_err(|error| format!("can't read {}: {error}", file.display()))?;
        let text = match self {
            Self::Basic { username, .. } => {
                format!("Basic {}", STANDARD.encode(format!("{username}:{secret}")))
            }
            _ => format!("Bearer {secret}"),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| format!("{} holds more than one line of plain text", file.display()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// For people.
    pub(crate) fn describe(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Bearer { file } => Some(format!("bearer token from {}", file.display())),
            Self::Basic { username, .. } => Some(format!("basic authentication as {username}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn headers_are_those_of_the_standards_and_follow_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "s3cret\n").unwrap();
        let header = |credentials: &Credentials| {
            credentials.header().map(|header| header.map(|value| value.to_str().unwrap().to_owned()))
        };
        let bearer = Credentials::Bearer { file: file.clone() };
        let basic = Credentials::Basic { username: "Aladdin".into(), file: file.clone() };
        assert_eq!(header(&bearer).unwrap().unwrap(), "Bearer s3cret");
        fs::write(&file, "open sesame").unwrap();
        // RFC 7617's own example.
        assert_eq!(header(&basic).unwrap().unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        fs::write(&file, "two\nlines").unwrap();
        let error = header(&bearer).unwrap_err();
        assert!(error.contains("more than one line") && !error.contains("two"), "{error}");
        assert_eq!(header(&Credentials::None), Ok(None));
    }

    #[test]
    fn two_kinds_exclude_each_other() {
        let config = r#"{"bearer_token_file": "a", "basic_auth": {"username": "u", "password_file": "p"}}"#;
        let error = Credentials::of(&serde_json::from_str(config).unwrap()).unwrap_err();
        assert!(error.to_string().contains("exclude each other"));
    }
}
