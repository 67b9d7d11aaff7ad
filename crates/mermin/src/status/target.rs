//! Where the agent is, and how to speak to it: by the options, else by the configuration that the agent was given, else
//! at the default address.

use crate::cli::AgentArgs;
use crate::config::{Config, lower};
use crate::exit::{Exit, Stop};
use crate::server::{ServerConfig, certificates};
use http::StatusCode;
use rustls_pki_types::CertificateDer;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Target {
    /// `host:port`.
    pub(crate) authority: String,
    /// The command that asks.
    command: &'static str,
    pub(super) tls: Option<Trust>,
    pub(super) token: Option<String>,
}

/// Whom to believe that it is the agent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Who has a certificate of these authorities.
    Authorities(Vec<CertificateDer<'static>>),
    /// Who has this very certificate: the one that the agent's configuration names.
    Certificate(CertificateDer<'static>),
}

impl Target {
    pub(crate) fn find(args: &AgentArgs, config: &Config, command: &'static str) -> Result<Self, Stop> {
        let server = config.server.clone().unwrap_or_default();
        let (https, authority) = match &args.address {
            Some(address) => split(address),
            None if server.listen.0.port() == 0 => {
                return Err(Stop::new(Exit::Usage, "the configuration gives the agent any free port")
                    .at("server.listen")
                    .help(format!("its log says which: mermin {command} --address HOST:PORT")));
            }
            None => (None, server.listen.reached_at().to_string()),
        };
        let https = https.unwrap_or(server.tls.is_some() || args.ca.is_some());
        let tls = if https { Some(trust(args, &server, command)?) } else { None };
        let token_file = args.token_file.as_ref().or(server.token_file.as_ref());
        let token = token_file
            .map(|path| {
                std::fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|error| {
                    Stop::new(Exit::NoInput, format!("can't read the token: {}", lower(&error)))
                        .at(format!("--token-file {}", path.display()))
                        .help("name a file that holds the agent's token and that you may read")
                })
            })
            .transpose()?;
        Ok(Self { authority, command, tls, token })
    }

    pub(super) fn nobody(&self, why: &str) -> Stop {
        Stop::new(Exit::Unavailable, format!("no agent answers at {}: {why}", self.authority)).help(format!(
            "an agent answers when it has a server section: mermin run --set server.listen=127.0.0.1:9464; \
             another address: mermin {} --address HOST:PORT, or -c with the agent's configuration",
            self.command
        ))
    }

    pub(crate) fn wants_token(&self) -> Stop {
        let what = match self.token {
            Some(_) => format!("the agent at {} wants another token", self.authority),
            None => format!("the agent at {} wants a token", self.authority),
        };
        Stop::new(Exit::NoPermission, what)
            .help(format!("mermin {} --token-file FILE, or -c with the agent's configuration", self.command))
    }

    pub(crate) fn unexpected(&self, status: StatusCode, body: &str) -> Stop {
        let sentence: String = body.lines().next().unwrap_or_default().chars().take(200).collect();
        let what = format!("{} answers {status}: {}", self.authority, sentence.escape_debug());
        Stop::new(Exit::Unavailable, what).help("is it a mermin agent, and of this version?")
    }
}

/// Whether the address says which protocol, and its `host:port`.
fn split(address: &str) -> (Option<bool>, String) {
    let (https, rest) = match address.split_once("://") {
        Some(("https", rest)) => (Some(true), rest),
        Some((_, rest)) => (Some(false), rest),
        None => (None, address),
    };
    let authority = rest.trim_end_matches('/');
    let port = ServerConfig::default().listen.0.port();
    // An IPv6 address has its port behind a bracket.
    let has_port = match authority.rsplit_once(']') {
        Some((_, port)) => port.starts_with(':'),
        None => authority.matches(':').count() == 1,
    };
    let authority = match (has_port, authority.parse::<std::net::Ipv6Addr>()) {
        (_, Ok(address)) => format!("[{address}]:{port}"),
        (true, _) => authority.to_owned(),
        (false, _) => format!("{authority}:{port}"),
    };
    (https, authority)
}

fn trust(args: &AgentArgs, server: &ServerConfig, command: &str) -> Result<Trust, Stop> {
    let wrong = |what: String, place: String| {
        Stop::new(Exit::NoInput, what).at(place).help("give certificates in PEM that you may read")
    };
    if let Some(ca) = &args.ca {
        let place = format!("--ca {}", ca.display());
        return certificates(ca).map(Trust::Authorities).map_err(|what| wrong(what, place));
    }
    let Some(tls) = &server.tls else {
        return Err(Stop::new(Exit::Usage, "who has certified the agent is not known")
            .help(format!("mermin {command} --ca FILE, or -c with the agent's configuration")));
    };
    let chain = certificates(&tls.cert).map_err(|what| wrong(what, "server.tls.cert".to_owned()))?;
    let first = chain.into_iter().next();
    let none = || wrong("no certificate".to_owned(), "server.tls.cert".to_owned());
    first.map(Trust::Certificate).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_what_goes_without_saying() {
        for (given, https, authority) in [
            ("127.0.0.1:1", None, "127.0.0.1:1"),
            ("node-7", None, "node-7:9464"),
            ("http://node-7:80/", Some(false), "node-7:80"),
            ("https://[::1]:5", Some(true), "[::1]:5"),
            ("[::1]", None, "[::1]:9464"),
            ("::1", None, "[::1]:9464"),
        ] {
            assert_eq!(split(given), (https, authority.to_owned()), "{given}");
        }
    }

    #[test]
    fn the_configuration_of_the_agent_says_where_it_is() {
        let config = |text: &str| crate::config::parse(text).unwrap();
        let find = |text: &str| Target::find(&AgentArgs::default(), &config(text), "status");
        assert_eq!(find("").unwrap().authority, "127.0.0.1:9464");
        assert_eq!(find("server: {listen: '0.0.0.0:7'}").unwrap().authority, "127.0.0.1:7");
        let stop = find("server: {listen: '127.0.0.1:0'}").unwrap_err();
        assert_eq!(stop.exit(), Exit::Usage);
        let stop = find("server: {token_file: /nonexistent/token}").unwrap_err();
        assert_eq!(stop.exit(), Exit::NoInput);
        let args = AgentArgs { address: Some("https://a:1".to_owned()), ..AgentArgs::default() };
        assert_eq!(
            Target::find(&args, &config(""), "status").unwrap_err().exit(),
            Exit::Usage,
            "whom to trust?"
        );
    }
}
