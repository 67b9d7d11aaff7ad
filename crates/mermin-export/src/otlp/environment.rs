//! OpenTelemetry's own variables (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).
//!
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and the like go before `OTEL_EXPORTER_OTLP_ENDPOINT`; an empty one counts as
//! not there. All are read once, at start.

use super::config::OtlpSignal;
use std::collections::BTreeMap;

/// The environment, as far as this output looks at it.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Keeps what may be of use.
    #[must_use]
    pub fn new(variables: &[(String, String)]) -> Self {
        let ours = |name: &str| name.starts_with("OTEL_") || name.starts_with("K8S_");
        let kept = variables.iter().filter(|(name, value)| ours(name) && !value.trim().is_empty());
        Self(kept.map(|(name, value)| (name.clone(), value.trim().to_owned())).collect())
    }

    /// A variable by its full name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// What the node is called: by Kubernetes, where that says it, else by the host itself.
    pub(crate) fn node_name(&self) -> String {
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        self.get("K8S_NODE_NAME").map_or_else(|| host().trim().to_owned(), str::to_owned)
    }

    /// A setting of the exporter, for example `ENDPOINT`: the variable's name and its value.
    pub(crate) fn setting(&self, signal: OtlpSignal, setting: &str) -> Option<(String, &str)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{setting}", signal.name().to_ascii_uppercase());
        let all = format!("OTEL_EXPORTER_OTLP_{setting}");
        [own, all].into_iter().find_map(|name| Some((name.clone(), self.get(&name)?)))
    }

    /// Whether [`Environment::setting`] would find one for this signal alone.
    pub(crate) fn has_own(&self, signal: OtlpSignal, setting: &str) -> bool {
        self.get(&format!("OTEL_EXPORTER_OTLP_{}_{setting}", signal.name().to_ascii_uppercase())).is_some()
    }
}

/// `key=value,key=value` as in W3C's baggage, values percent-encoded; `None` where it is not of that form.
pub(crate) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let pair = |item: &str| {
        let (key, value) = item.split_once('=')?;
        let key = key.trim();
        (!key.is_empty()).then_some(())?;
        Some((decoded(key)?, decoded(value.trim())?))
    };
    text.split(',').filter(|item| !item.trim().is_empty()).map(pair).collect()
}

/// Without percent signs; `None` where two hexadecimal digits don't follow one, or the result is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok())?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signals_own_variable_goes_first_and_an_empty_one_is_none() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", " "),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = Environment::new(&variables);
        let of = |signal| environment.setting(signal, "TIMEOUT").map(|(_, value)| value);
        assert_eq!(of(OtlpSignal::Traces), Some("2"));
        assert_eq!(of(OtlpSignal::Logs), Some("1"));
        assert_eq!(environment.setting(OtlpSignal::Logs, "ENDPOINT"), None);
        assert!(environment.has_own(OtlpSignal::Traces, "TIMEOUT"));
        assert!(!environment.has_own(OtlpSignal::Logs, "TIMEOUT"));
    }

    #[test]
    fn pairs_are_decoded() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            pairs("a=1, authorization = Basic%20eDp5%3D%3D ,,empty=,b=c=d"),
            Some(vec![
                pair("a", "1"),
                pair("authorization", "Basic eDp5=="),
                pair("empty", ""),
                pair("b", "c=d")
            ])
        );
        for bad in ["a", "=b", "a=%2", "a=%zz", "a=%ff"] {
            assert_eq!(pairs(bad), None, "{bad}");
        }
    }
}
