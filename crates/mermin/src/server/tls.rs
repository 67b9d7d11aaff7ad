//! The server's side of TLS: its certificate, read again when it changes.

use super::changing::Changing;
use super::config::ServerTls;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

pub(super) struct Tls(Changing<TlsAcceptor>);

impl Tls {
    pub(super) fn read(config: &ServerTls) -> Result<Self, String> {
        let (cert, key) = (config.cert.clone(), config.key.clone());
        let files = vec![cert.clone(), key.clone()];
        Changing::new("certificate", files, move || acceptor(&cert, &key)).map(Self)
    }

    pub(super) fn acceptor(&self) -> Arc<TlsAcceptor> {
        self.0.get()
    }
}

fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let chain = certificates(cert)?;
    let key_error = |error: &dyn std::fmt::Display| format!("no private key in {}: {error}", key.display());
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| key_error(&error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("{} and its key don't serve: {error}", cert.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The certificates in a PEM file.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let none = |error: &dyn std::fmt::Display| format!("no certificate in {}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(path).map_err(|error| none(&error))?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|error| none(&error))?;
    if chain.is_empty() { Err(none(&"it holds none")) } else { Ok(chain) }
}
