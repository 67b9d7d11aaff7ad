//! TLS with rustls and ring.
//!
//! An authority that is named beats everything in the environment. Without one the host's own are used, by
//! rustls-native-certs: what the host's administrator trusts is what users expect, and the alternative, Mozilla's list as
//! a crate, is data under a licence (CDLA) that this project's dependencies don't otherwise need. There is no switch that
//! turns the check of certificates off.

use crate::error::ExportError;
use hyper_rustls::ConfigBuilderExt;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file, and the key or variable that names it.
type Named = (String, PathBuf);

/// Where certificates come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFiles {
    /// The section of the configuration that names them.
    pub(crate) section: &'static str,
    pub(crate) ca: Option<Named>,
    /// Certificate and key.
    pub(crate) client: Option<(Named, Named)>,
}

impl TlsFiles {
    /// All of them.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let client = self.client.iter().flat_map(|((_, cert), (_, key))| [cert, key]);
        self.ca.iter().map(|(_, path)| path).chain(client)
    }

    /// What they say, read now.
    pub(crate) fn config(&self) -> Result<ClientConfig, ExportError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has every version");
        let builder = match &self.ca {
            Some(named) => builder.with_root_certificates(roots(named)?),
            None => builder.with_native_roots().map_err(|error| {
                let what = format!("this host has no authorities to check certificates against: {error}");
                problem(&format!("{}.ca", self.section), what, "name a file with the collector's authority")
            })?,
        };
        let Some((cert, key)) = &self.client else { return Ok(builder.with_no_client_auth()) };
        builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(|error| {
            problem(
                &cert.0,
                format!("{} and {} don't fit each other: {error}", cert.1.display(), key.1.display()),
                "name a certificate and its own key",
            )
        })
    }

    /// For people.
    pub(crate) fn describe(&self, secure: bool) -> Option<String> {
        let authority = match &self.ca {
            Some((_, path)) => path.display().to_string(),
            None => "the host's authorities".to_owned(),
        };
        let mutual = if self.client.is_some() { ", client certificate" } else { "" };
        secure.then(|| format!("TLS with {authority}{mutual}"))
    }
}

fn problem(place: &str, what: String, help: &str) -> ExportError {
    ExportError::Setting { place: place.to_owned(), what, help: help.to_owned() }
}

fn unreadable((place, path): &Named, what: &str, error: &rustls_pki_types::pem::Error) -> ExportError {
    let why = match error {
        rustls_pki_types::pem::Error::Io(error) => error.to_string(),
        rustls_pki_types::pem::Error::NoItemsFound => format!("it holds no {what}"),
        _ => "it is not PEM".to_owned(),
    };
    problem(
        place,
        format!("can't read the {what} in {}: {why}", path.display()),
        "name a PEM file that may be read",
    )
}

fn certificates(named: &Named) -> Result<Vec<CertificateDer<'static>>, ExportError> {
    let read = |path: &Path| CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let found = read(&named.1).map_err(|error| unreadable(named, "certificate", &error))?;
    if found.is_empty() {
        return Err(unreadable(named, "certificate", &rustls_pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn private_key(named: &Named) -> Result<PrivateKeyDer<'static>, ExportError> {
    PrivateKeyDer::from_pem_file(&named.1).map_err(|error| unreadable(named, "private key", &error))
}

fn roots(named: &Named) -> Result<RootCertStore, ExportError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(named)? {
        roots.add(certificate).map_err(|error| {
            problem(
                &named.0,
                format!("{} holds what can't be an authority: {error}", named.1.display()),
                "name a PEM file of certificates",
            )
        })?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_hold_something_else_are_errors_at_their_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "nothing of the kind").unwrap();
        let named = |key: &str, path: &Path| (format!("export.otlp.tls.{key}"), path.to_owned());
        let missing = folder.path().join("missing");
        for (files, place) in [
            (TlsFiles { ca: Some(named("ca", &path)), ..TlsFiles::default() }, "export.otlp.tls.ca"),
            (TlsFiles { ca: Some(named("ca", &missing)), ..TlsFiles::default() }, "export.otlp.tls.ca"),
        ] {
            let error = files.config().unwrap_err();
            assert_eq!(error.place(), Some(place));
            assert!(error.to_string().starts_with("can't read the certificate in "), "{error}");
        }
    }
}
