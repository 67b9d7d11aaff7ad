//! The HTTP server: metrics, health, statistics and live flows for who asks.
//!
//! On a thread of its own with a runtime of its own, so that nothing it does touches a packet. What is asked looks at
//! the pipeline from outside ([`crate::agent`]). Everything has a limit: connections, the length of a request's head, the
//! time it may take; a request has no body.

mod answer;
mod changing;
mod config;
mod places;
mod serve;
mod tls;
mod token;

pub use config::{Listen, ListenError, ServerConfig, ServerTls};
pub(crate) use serve::Serving;
pub(crate) use tls::certificates;

use crate::config::{Config, lower};
use crate::exit::{Exit, Stop};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use tls::Tls;
use token::Token;

/// A server that listens and does not answer yet: it is made before anything is attached, so that a port that is taken
/// ends a run before it has begun.
pub(crate) struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    token: Option<Token>,
}

impl Bound {
    /// What the configuration says; nothing where it says nothing.
    pub(crate) fn bind(config: &Config) -> Result<Option<Arc<Self>>, Stop> {
        let Some(server) = config.server.as_ref().filter(|server| server.enabled) else { return Ok(None) };
        let wrong = |what: String, key: &str, help: &str| {
            Stop::new(Exit::Usage, what).at(format!("server.{key}")).help(help)
        };
        let token = server.token_file.as_deref().map(Token::read).transpose().map_err(|what| {
            wrong(what, "token_file", "name a file that holds the token, readable by this process alone")
        })?;
        let tls = server
            .tls
            .as_ref()
            .map(Tls::read)
            .transpose()
            .map_err(|what| wrong(what, "tls", "give a certificate and its private key, both in PEM"))?;
        let listen = server.listen.0;
        let listener = TcpListener::bind(listen).map_err(|error| cannot_listen(listen, &error))?;
        let address = listener.local_addr().unwrap_or(listen);
        Ok(Some(Arc::new(Self { listener, address, tls, token })))
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// What is worth a warning.
    fn warning(&self) -> Option<String> {
        (!self.address.ip().is_loopback() && self.token.is_none()).then(|| {
            format!(
                "Whoever reaches {} may see flows and statistics: server.token_file asks for a token",
                self.address
            )
        })
    }
}

fn cannot_listen(listen: SocketAddr, error: &std::io::Error) -> Stop {
    let what = format!("can't listen on {listen}: {}", lower(error));
    let (exit, help) = match error.kind() {
        ErrorKind::AddrInUse => (
            Exit::Unavailable,
            "another program has this port; choose one that is free, for example --set server.listen=127.0.0.1:9465",
        ),
        ErrorKind::PermissionDenied => {
            (Exit::NoPermission, "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one")
        }
        _ => (
            Exit::Unavailable,
            "give an address of this host, for example --set server.listen=127.0.0.1:9464",
        ),
    };
    Stop::new(exit, what).at("server.listen").help(help)
}
