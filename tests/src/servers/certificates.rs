//! A certificate authority of the test's own, what it signs, and clients that trust it alone.

use super::folder::Folder;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rcgen::{KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

/// A certificate and its key, in PEM files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key, PKCS #8.
    pub key: PathBuf,
}

/// A certificate authority.
pub struct Authority {
    folder: Folder,
    issuer: Issuer<'static, KeyPair>,
    certificate: PathBuf,
    key: PathBuf,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes one.
    ///
    /// # Panics
    /// When the temporary folder takes no files.
    #[must_use]
    pub fn new() -> Self {
        let folder = Folder::new();
        let key = key_pair();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority for tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).expect("ring signs");
        let certificate = folder.write("ca.crt", certificate.pem());
        let key_file = folder.write("ca.key", key.serialize_pem());
        Self { folder, issuer: Issuer::new(params, key), certificate, key: key_file }
    }

    /// The file that clients and servers are to trust.
    #[must_use]
    pub fn certificate(&self) -> &std::path::Path {
        &self.certificate
    }

    /// The authority's own pair, for a server that signs in its name.
    #[must_use]
    pub fn pair(&self) -> Pair {
        Pair { certificate: self.certificate.clone(), key: self.key.clone() }
    }

    /// A certificate for a server on this machine: 127.0.0.1, `::1`, `localhost` and what else it is to be called.
    #[must_use]
    pub fn server(&self, name: &str, also: &[&str]) -> Pair {
        let mut params = named(name, &[]);
        params.subject_alt_names = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]
            .map(SanType::IpAddress)
            .into();
        for other in ["localhost"].iter().chain(also) {
            let other = other.parse().map_or_else(
                |_| SanType::DnsName((*other).try_into().expect("a host name")),
                SanType::IpAddress,
            );
            params.subject_alt_names.push(other);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(name, params)
    }

    /// A certificate by which a client shows that it is `name`, a member of `groups`.
    #[must_use]
    pub fn client(&self, name: &str, groups: &[&str]) -> Pair {
        let mut params = named(name, groups);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(name, params)
    }

    fn sign(&self, name: &str, params: CertificateParams) -> Pair {
        let key = key_pair();
        let certificate = params.signed_by(&key, &self.issuer).expect("ring signs");
        let file: String = name.chars().map(|sign| if sign.is_alphanumeric() { sign } else { '-' }).collect();
        Pair {
            certificate: self.folder.write(&format!("{file}.crt"), certificate.pem()),
            key: self.folder.write(&format!("{file}.key"), key.serialize_pem()),
        }
    }

    /// A TLS client that trusts this authority alone and shows `pair`.
    ///
    /// # Panics
    /// When the files are gone.
    #[must_use]
    pub fn trusting(&self, pair: Option<&Pair>) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(self.roots());
        Arc::new(match pair {
            Some(pair) => {
                let (chain, key) = pair.read();
                builder.with_client_auth_cert(chain, key).expect("key and certificate belong together")
            }
            None => builder.with_no_client_auth(),
        })
    }

    /// A TLS server that shows `pair`; with `mutual` it asks clients for a certificate of this authority.
    ///
    /// # Panics
    /// When the files are gone.
    #[must_use]
    pub fn serving(&self, pair: &Pair, mutual: bool) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has them");
        let builder = if mutual {
            let roots = Arc::new(self.roots());
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            builder.with_client_cert_verifier(verifier.expect("the authority is one"))
        } else {
            builder.with_no_client_auth()
        };
        let (chain, key) = pair.read();
        builder.with_single_cert(chain, key).expect("key and certificate belong together")
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(&self.certificate).expect("it was written");
        roots.add(certificate).expect("it is an authority");
        roots
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Pair {
    fn read(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_file(&self.certificate).expect("it was written");
        (vec![certificate], PrivateKeyDer::from_pem_file(&self.key).expect("it was written"))
    }
}

/// Of this crate's own choice, whatever else the program is linked with.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn key_pair() -> KeyPair {
    KeyPair::generate().expect("the system gives random numbers")
}

fn named(name: &str, groups: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}
