//! Outputs that come and go when the configuration is read again.

use super::Work;
use crate::config::{Config, in_sentence};
use crate::exit::{Exit, Stop};
use crate::logging;
use crate::metrics::Reporting;
use crate::outputs::{Exchange, Opened, Workshop};
use mermin_export::otlp::OtlpConfig;
use mermin_export::{BufferKind, ExportConfig, FileConfig};
use mermin_pipeline::ChangeError;
use std::cell::RefCell;
use std::sync::PoisonError;
use tracing::{error, warn};

/// The outputs of a live run, and what others are made with.
pub(crate) struct Outlets {
    pub(crate) workshop: Workshop,
    /// What there is at present.
    pub(crate) opened: RefCell<Vec<Opened>>,
    /// What has gone, and may not have ended yet.
    pub(crate) left: RefCell<Vec<Opened>>,
    /// What the run does, where records go there.
    pub(crate) headline: Box<dyn Fn(&str) -> String + Send>,
}

impl Work {
    /// Has outputs be as `config` says. Not when the run is ending, which is no failure: then it says false.
    pub(super) fn exchange_outputs(&self, config: &Config) -> Result<bool, Stop> {
        let Outlets { workshop, opened, left, headline } = &self.reload.hands.outputs;
        let leaving = self.tuning.leaving_outputs();
        left.borrow_mut().retain(|one| one.names.iter().any(|name| leaving.contains(name)));
        let exchange = workshop.exchange(&opened.borrow(), &left.borrow(), config)?;
        let Some(exchange) = exchange else { return Ok(true) };
        let Exchange { leave, come, opened: now, description, agent_metrics, to_log, warnings } = exchange;
        warnings.iter().for_each(|warning| warn!("{warning}"));
        if to_log {
            // What is on its way to the log when that is an output no longer is written, too: it stays so.
            logging::take_records();
        }
        let names: Vec<_> = leave.iter().flat_map(|one| one.names.iter().cloned()).collect();
        match self.tuning.change_outputs(&names, come, config.pipeline.shutdown_timeout.0) {
            Ok(()) => {}
            Err(ChangeError::Ending) => return Ok(false),
            Err(error) => {
                let why = in_sentence(&error.to_string());
                return Err(Stop::new(Exit::Unavailable, format!("outputs can't be changed: {why}"))
                    .help("ask for it again"));
            }
        }
        opened.replace(now);
        left.borrow_mut().extend(leave);
        self.agent.set_headline(headline(&description));
        if let Some(agent_metrics) = agent_metrics {
            let mut reporter = self.reporter.lock().unwrap_or_else(PoisonError::into_inner);
            // What it has is sent before the next one begins.
            drop(reporter.take());
            if let Some(metrics) = agent_metrics {
                match Reporting::start(metrics, &self.agent) {
                    Ok(reporting) => *reporter = Some(reporting),
                    Err(stop) => error!("The agent's own metrics are sent no more: {stop}"),
                }
            }
        }
        Ok(true)
    }
}

/// Whether a key changes outputs whose records wait on disk: those come and go with a restart, for the folder is the old
/// one's until that has ended.
pub(super) fn changes_what_waits_on_disk(key: &str, running: &ExportConfig, other: &ExportConfig) -> bool {
    let files = |export: &ExportConfig| -> Vec<FileConfig> {
        export.files.iter().filter(|file| file.enabled && file.buffer == BufferKind::Disk).cloned().collect()
    };
    let otlp = |export: &ExportConfig| {
        export.otlp.clone().filter(|otlp: &OtlpConfig| otlp.enabled && otlp.buffer == BufferKind::Disk)
    };
    match key.split('.').nth(1) {
        _ if !key.starts_with("export.") => false,
        Some("files") => files(running) != files(other),
        Some("otlp") => otlp(running) != otlp(other),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn what_waits_on_disk_needs_a_restart_and_others_beside_it_do_not() {
        let export = |text: &str| parse(&format!("export: {text}")).unwrap().export;
        let disk = "{path: /a, buffer: disk}";
        let one = export(&format!("{{files: [{disk}]}}"));
        let two = export(&format!("{{files: [{{path: /b}}, {disk}], otlp: {{}}}}"));
        let none = export("{files: [{path: /a}], otlp: {buffer: disk}}");
        for (key, before, after, expected) in [
            ("export.files", &one, &two, false),
            ("export.files", &one, &none, true),
            ("export.files", &none, &one, true),
            ("export.otlp", &one, &two, false),
            ("export.otlp", &one, &none, true),
            ("export.otlp.buffer", &two, &none, true),
            ("export.otlp.endpoint", &none, &two, true),
            ("export.stdout", &one, &none, false),
            ("flow.files", &one, &none, false),
        ] {
            assert_eq!(changes_what_waits_on_disk(key, before, after), expected, "{key}");
        }
    }
}
