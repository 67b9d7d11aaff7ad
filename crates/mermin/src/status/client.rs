//! One request to the agent's server.

use super::target::{Target, Trust};
use crate::config::lower;
use crate::exit::{Exit, Stop};
use http::header::{AUTHORIZATION, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long an agent may take to answer: it looks into its pipeline first.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer that is longer is none of an agent's: 1 000 flows take about 1 MiB.
const ANSWER_MAX: usize = 16 << 20;

/// What came back.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

/// Asks for `path`.
pub(crate) fn ask(target: &Target, path: &str) -> Result<Reply, Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| target.nobody(&lower(&error)))?;
    runtime.block_on(async {
        let answer = tokio::time::timeout(PATIENCE, connect(target, path)).await;
        answer.unwrap_or_else(|_| Err(target.nobody(&format!("it took more than {} s", PATIENCE.as_secs()))))
    })
}

async fn connect(target: &Target, path: &str) -> Result<Reply, Stop> {
    let connected = TcpStream::connect(&target.authority).await;
    let stream = connected.map_err(|error| target.nobody(&lower(&error)))?;
    let Some(trust) = &target.tls else { return speak(target, stream, path).await };
    let config = client_config(trust).map_err(|error| target.nobody(&error))?;
    let host = target.authority.rsplit_once(':').map_or(target.authority.as_str(), |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|_| target.nobody("that is no name of a host"))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
        let what = format!("the agent at {} can't be trusted: {}", target.authority, lower(&error));
        Stop::new(Exit::Unavailable, what).help("does it speak HTTPS, and is its certificate of --ca?")
    })?;
    speak(target, stream, path).await
}

async fn speak(
    target: &Target,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    path: &str,
) -> Result<Reply, Stop> {
    let no_http = |_| target.nobody("what answers there speaks no HTTP (or HTTPS: --address https://…)");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(no_http)?;
    let connection = tokio::spawn(connection);
    let mut request = Request::get(path).header(HOST, &target.authority);
    if let Some(token) = &target.token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| target.nobody("that is no address"))?;
    let response = sender.send_request(request).await.map_err(no_http)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|_| target.nobody("its answer was cut off"))?.to_bytes();
    connection.abort();
    Ok(Reply { status, body: String::from_utf8_lossy(&body).into_owned() })
}

fn client_config(trust: &Trust) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match trust {
        Trust::Authorities(certificates) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates {
                roots.add(certificate.clone()).map_err(|error| error.to_string())?;
            }
            builder.with_root_certificates(roots)
        }
        Trust::Certificate(certificate) => {
            let only = Only { certificate: certificate.clone(), provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(only))
        }
    };
    Ok(builder.with_no_client_auth())
}

/// Believes who has this very certificate and its key, whatever name it was asked by.
#[derive(Debug)]
struct Only {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("it shows another certificate than server.tls.cert".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
