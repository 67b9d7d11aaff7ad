//! `export.ipfix` as a whole, checked: what it says and what follows from it.

use super::config::{IpfixConfig, IpfixDirections, IpfixTransport, IpfixVersion};
use crate::error::ExportError;
use crate::secure::TlsFiles;
use rustls_pki_types::ServerName;
use std::net::IpAddr;
use std::time::Duration;

const PORT: u16 = 4_739;
/// Of IPFIX over TLS (RFC 7011 section 10.3).
const TLS_PORT: u16 = 4_740;
/// What a message has at least room for: NetFlow's and IPFIX's own advice where the path is unknown (RFC 7011 section 10.3.3).
const MESSAGE_MIN: u64 = 512;
/// A message says its length in two octets.
const MESSAGE_MAX: u64 = 65_535;
/// What Ethernet takes with headers of UDP and IPv4.
const UDP_MESSAGE: usize = 1_472;
const TCP_MESSAGE: usize = 32 << 10;
/// How often something is told beside flows, at most.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) transport: IpfixTransport,
    pub(crate) version: IpfixVersion,
    pub(crate) directions: IpfixDirections,
    pub(crate) domain: u32,
    pub(crate) enterprise: u32,
    pub(crate) template_refresh: Duration,
    pub(crate) statistics_interval: Duration,
    /// Of a message, at most.
    pub(crate) message: usize,
    /// Messages a second.
    pub(crate) rate: u32,
    pub(crate) tls: Option<TlsFiles>,
}

pub(crate) fn problem(key: &str, what: impl Into<String>, help: &str) -> ExportError {
    ExportError::Setting { place: format!("export.ipfix.{key}"), what: what.into(), help: help.to_owned() }
}

impl Settings {
    pub(crate) fn of(config: &IpfixConfig) -> Result<Self, ExportError> {
        let udp = config.transport == IpfixTransport::Udp;
        if udp && config.tls.is_some() {
            return Err(problem(
                "tls",
                "TLS is for `tcp`",
                "set export.ipfix.transport: tcp, or leave `tls` out",
            ));
        }
        if config.version == IpfixVersion::Netflow9 && !udp {
            let help = "set export.ipfix.transport: udp, or version: ipfix";
            return Err(problem("version", "`netflow9` goes over UDP only", help));
        }
        let port = if config.tls.is_some() { TLS_PORT } else { PORT };
        let (host, port) = match &config.collector {
            Some(collector) => address(collector, port)?,
            None => ("127.0.0.1".to_owned(), port),
        };
        let tls = tls(config)?;
        if tls.is_some() && ServerName::try_from(host.as_str()).is_err() {
            let what = format!("`{host}` is no name that a certificate can have");
            return Err(problem(
                "collector",
                what,
                "give the name or the address that the collector's certificate has",
            ));
        }
        let most = if udp { UDP_MESSAGE } else { TCP_MESSAGE };
        let message = match config.message_bytes {
            None => most,
            Some(bytes) if (MESSAGE_MIN..=MESSAGE_MAX).contains(&bytes.0) => bytes.0 as usize,
            Some(bytes) => {
                let what = format!("`{bytes}` is no size for a message");
                return Err(problem("message_bytes", what, "give it 512B to 65535B"));
            }
        };
        let often = [
            ("template_refresh", config.template_refresh),
            ("statistics_interval", config.statistics_interval),
        ];
        if let Some((key, interval)) = often.into_iter().find(|(_, interval)| interval.0 < INTERVAL_MIN) {
            let what = format!("`{interval}` is too often: records would have no room");
            return Err(problem(key, what, "give it 1s or more"));
        }
        // NetFlow version 9 has no elements for both directions.
        let directions = match config.version {
            IpfixVersion::Ipfix => config.directions,
            IpfixVersion::Netflow9 => IpfixDirections::Each,
        };
        Ok(Self {
            host,
            port,
            transport: config.transport,
            version: config.version,
            directions,
            domain: config.observation_domain,
            enterprise: config.enterprise_number,
            template_refresh: config.template_refresh.0,
            statistics_interval: config.statistics_interval.0,
            message,
            rate: config.message_rate.get(),
            tls,
        })
    }

    /// As users write it.
    pub(crate) fn collector(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// `UDP`, `TCP` or `TLS`.
    pub(crate) fn way(&self) -> &'static str {
        match self.transport {
            IpfixTransport::Udp => "UDP",
            IpfixTransport::Tcp if self.tls.is_some() => "TLS",
            IpfixTransport::Tcp => "TCP",
        }
    }
}

/// Host and port of `host:port`, `host`, `[v6]:port`, `[v6]` or `v6`.
fn address(text: &str, port: u16) -> Result<(String, u16), ExportError> {
    let wrong = || {
        let help = "write host:port, for example collector.example:4739 or [2001:db8::1]:4739";
        problem("collector", format!("`{text}` is not a collector's address"), help)
    };
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address.to_string(), port));
    }
    let (host, rest) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((host, rest)) => {
            host.split('%')
                .next()
                .and_then(|host| host.parse::<std::net::Ipv6Addr>().ok())
                .ok_or_else(wrong)?;
            (host, rest)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?,
        None if rest.is_empty() => port,
        None => return Err(wrong()),
    };
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() || !host.chars().all(named) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

fn tls(config: &IpfixConfig) -> Result<Option<TlsFiles>, ExportError> {
    let Some(tls) = &config.tls else { return Ok(None) };
    let named = |key: &str, path: &std::path::PathBuf| (format!("export.ipfix.tls.{key}"), path.clone());
    let client = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => Some((named("cert", cert), named("key", key))),
        (None, None) => None,
        (Some(_), None) => {
            return Err(problem("tls.cert", "its key is missing", "name it: export.ipfix.tls.key"));
        }
        (None, Some(_)) => {
            return Err(problem("tls.key", "its certificate is missing", "name it: export.ipfix.tls.cert"));
        }
    };
    let files =
        TlsFiles { section: "export.ipfix.tls", ca: tls.ca.as_ref().map(|path| named("ca", path)), client };
    files.config()?;
    Ok(Some(files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipfix::config::IpfixTls;

    #[test]
    fn addresses_as_users_write_them() {
        for (text, expected) in [
            ("c.example:9995", "c.example:9995"),
            ("c.example", "c.example:4739"),
            ("192.0.2.1", "192.0.2.1:4739"),
            ("192.0.2.1:1", "192.0.2.1:1"),
            ("[2001:db8::1]:2055", "[2001:db8::1]:2055"),
            ("[2001:db8::1]", "[2001:db8::1]:4739"),
            ("2001:db8::1", "[2001:db8::1]:4739"),
        ] {
            let config = IpfixConfig { collector: Some(text.to_owned()), ..IpfixConfig::default() };
            assert_eq!(Settings::of(&config).unwrap().collector(), expected, "{text}");
        }
        for text in ["", ":1", "c:0", "c:99999", "c:x", "udp://c:1", "[c]:1", "[::1]x", "a b:1"] {
            let config = IpfixConfig { collector: Some(text.to_owned()), ..IpfixConfig::default() };
            let error = Settings::of(&config).unwrap_err();
            assert_eq!(error.place(), Some("export.ipfix.collector"), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_an_error_at_its_key() {
        let config = |text: &str| serde_json::from_str::<IpfixConfig>(text).unwrap();
        for (text, place) in [
            (r#"{"tls": {}}"#, "export.ipfix.tls"),
            (r#"{"version": "netflow9", "transport": "tcp"}"#, "export.ipfix.version"),
            (r#"{"message_bytes": "511B"}"#, "export.ipfix.message_bytes"),
            (r#"{"message_bytes": "64KiB"}"#, "export.ipfix.message_bytes"),
            (r#"{"template_refresh": "999ms"}"#, "export.ipfix.template_refresh"),
            (r#"{"statistics_interval": "1ms"}"#, "export.ipfix.statistics_interval"),
            (r#"{"transport": "tcp", "tls": {}, "collector": "a..b"}"#, "export.ipfix.collector"),
            (r#"{"transport": "tcp", "tls": {"cert": "a"}}"#, "export.ipfix.tls.cert"),
            (r#"{"transport": "tcp", "tls": {"key": "a"}}"#, "export.ipfix.tls.key"),
            (r#"{"transport": "tcp", "tls": {"ca": "/nowhere"}}"#, "export.ipfix.tls.ca"),
        ] {
            assert_eq!(Settings::of(&config(text)).unwrap_err().place(), Some(place), "{text}");
        }
        let settings = Settings::of(&config(r#"{"version": "netflow9"}"#)).unwrap();
        assert_eq!(settings.directions, IpfixDirections::Each);
        assert!(serde_json::from_str::<IpfixConfig>(r#"{"transport": "sctp"}"#).is_err());
        assert!(serde_json::from_str::<IpfixConfig>(r#"{"collectors": "a"}"#).is_err());
        assert!(serde_json::from_str::<IpfixConfig>(r#"{"message_rate": 0}"#).is_err());
        let _ = IpfixTls::default();
    }
}
