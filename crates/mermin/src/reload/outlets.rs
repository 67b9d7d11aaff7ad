//! Outputs that come and go when the configuration is read again.

use super::Work;
use crate::config::{Config, in_sentence};
use crate::exit::{Exit, Stop};
use crate::logging;
use crate::metrics::Reporting;
use crate::outputs::{Departing, Exchange, Opened, Workshop};
use mermin_export::ipfix::IpfixConfig;
use mermin_export::otlp::OtlpConfig;
use mermin_export::{BufferKind, ExportConfig};
use mermin_pipeline::ChangeError;
use std::cell::RefCell;
use std::sync::PoisonError;
use std::time::Instant;
use tracing::{error, warn};

/// The outputs of a live run, and what others are made with.
pub(crate) struct Outlets {
    pub(crate) workshop: Workshop,
    /// What there is at present.
    pub(crate) opened: RefCell<Vec<Opened>>,
    /// What has gone, and may not have ended yet.
    pub(crate) left: RefCell<Vec<Departing>>,
    /// What the run does, where records go there.
    pub(crate) headline: Box<dyn Fn(&str) -> String + Send>,
}

impl Work {
    /// Has outputs be as `config` says. Not when the run is ending, which is no failure: then it says false.
    pub(super) fn exchange_outputs(&self, config: &Config) -> Result<bool, Stop> {
        let Outlets { workshop, opened, left, headline } = &self.reload.hands.outputs;
        let leaving = self.tuning.leaving_outputs();
        left.borrow_mut().retain(|one| one.opened.names.iter().any(|name| leaving.contains(name)));
        let exchange = workshop.exchange(&opened.borrow(), &left.borrow(), config)?;
        let Some(exchange) = exchange else { return Ok(true) };
        let Exchange { leave, come, opened: now, description, agent_metrics, to_log, warnings } = exchange;
        warnings.iter().for_each(|warning| warn!("{warning}"));
        if to_log {
            // What is on its way to the log when that is an output no longer is written, too: it stays so.
            logging::take_records();
        }
        let names: Vec<_> = leave.iter().flat_map(|one| one.names.iter().cloned()).collect();
        let patience = config.pipeline.shutdown_timeout.0;
        match self.tuning.change_outputs(&names, come, patience) {
            Ok(()) => {}
            Err(ChangeError::Ending) => return Ok(false),
            Err(error) => {
                let why = in_sentence(&error.to_string());
                return Err(Stop::new(Exit::Unavailable, format!("outputs can't be changed: {why}"))
                    .help("ask for it again"));
            }
        }
        opened.replace(now);
        let until = Instant::now() + patience;
        left.borrow_mut().extend(leave.into_iter().map(|opened| Departing { opened, until }));
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

/// Whether a change of this key has to wait for a restart because of records on disk. A receiver whose records wait there
/// before and after has one folder, which is the old output's until that has ended. And the folder is found by
/// `export.disk_buffer`, which counts from a start on: what is to come to another one does not come to the one of now.
pub(super) fn takes_a_restart(key: &str, running: &ExportConfig, other: &ExportConfig) -> bool {
    let elsewhere = running.disk_buffer != other.disk_buffer;
    let files = |export: &ExportConfig| {
        let files = export.files.iter().filter(|file| file.enabled && file.buffer == BufferKind::Disk);
        files.cloned().collect::<Vec<_>>()
    };
    let otlp = |export: &ExportConfig| {
        export.otlp.clone().filter(|otlp: &OtlpConfig| otlp.enabled && otlp.buffer == BufferKind::Disk)
    };
    let ipfix = |export: &ExportConfig| {
        export.ipfix.clone().filter(|ipfix: &IpfixConfig| ipfix.enabled && ipfix.buffer == BufferKind::Disk)
    };
    let kafka = |export: &ExportConfig| {
        export.kafka.clone().filter(|kafka| kafka.enabled && kafka.buffer == BufferKind::Disk)
    };
    match key.split('.').nth(1) {
        _ if !key.starts_with("export.") => false,
        Some("files") => elsewhere && files(other).iter().any(|file| !files(running).contains(file)),
        Some("otlp") => moves(otlp(running).as_ref(), otlp(other).as_ref(), elsewhere),
        Some("kafka") => moves(kafka(running).as_ref(), kafka(other).as_ref(), elsewhere),
        Some("ipfix") => moves(ipfix(running).as_ref(), ipfix(other).as_ref(), elsewhere),
        _ => false,
    }
}

/// Whether the one folder of a receiver gets another owner, or a new one is to be `elsewhere`.
fn moves<C: PartialEq>(before: Option<&C>, after: Option<&C>, elsewhere: bool) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => before != after,
        (None, Some(_)) => elsewhere,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn a_restart_is_for_what_changes_in_a_folder_and_for_what_comes_to_another() {
        let export = |text: &str| parse(&format!("export: {text}")).unwrap().export;
        let disk = "{path: /a, buffer: disk}";
        let nothing = export("{}");
        let file = export(&format!("{{files: [{disk}]}}"));
        let more =
            export(&format!("{{files: [{{path: /b}}, {disk}, {{path: /c, buffer: disk}}], otlp: {{}}}}"));
        let collector = export("{otlp: {buffer: disk}}");
        let another = export("{otlp: {buffer: disk, endpoint: 'http://c:1'}}");
        let elsewhere = |text: &str| export(&format!("{{disk_buffer: {{folder: /d}}, {text}}}"));
        let (file_there, less_there) =
            (elsewhere(&format!("files: [{disk}, {{path: /b}}]")), elsewhere("files: [{path: /b}]"));
        let collector_there = elsewhere("otlp: {buffer: disk}");
        let topic = export("{kafka: {buffer: disk}}");
        let another_topic = export("{kafka: {buffer: disk, topic: another}}");
        let topic_there = elsewhere("kafka: {buffer: disk}");
        for (key, before, after, expected) in [
            ("export.files", &nothing, &file, false),
            ("export.files", &file, &nothing, false),
            ("export.files", &file, &more, false),
            ("export.files", &more, &file, false),
            ("export.files", &nothing, &file_there, true),
            ("export.files", &file, &file_there, false),
            ("export.files", &file, &less_there, false),
            ("export.otlp", &nothing, &collector, false),
            ("export.otlp", &collector, &nothing, false),
            ("export.otlp.buffer", &more, &collector, false),
            ("export.otlp.buffer", &collector, &more, false),
            ("export.otlp.endpoint", &collector, &another, true),
            ("export.otlp", &nothing, &collector_there, true),
            ("export.ipfix", &nothing, &export("{ipfix: {buffer: disk}}"), false),
            (
                "export.ipfix.transport",
                &export("{ipfix: {buffer: disk}}"),
                &export("{ipfix: {buffer: disk, transport: tcp}}"),
                true,
            ),
            ("export.kafka", &nothing, &topic, false),
            ("export.kafka.topic", &topic, &another_topic, true),
            ("export.kafka", &nothing, &topic_there, true),
            ("export.stdout", &collector, &another, false),
            ("flow.files", &nothing, &file_there, false),
        ] {
            assert_eq!(takes_a_restart(key, before, after), expected, "{key} {before:?} {after:?}");
        }
    }
}
