//! From the outputs that there are and another configuration to which of them go, and which others come.

use super::{Workshop, agent_metrics, describe, specs, stop};
use crate::config::Config;
use crate::exit::{Exit, Stop};
use mermin_export::otlp::AgentMetrics;
use mermin_export::{
    BufferKind, Materials, Open, OutputKind, OutputSpec, ReceiverConfig, Target, build_all, check_all,
    resolved,
};
use mermin_pipeline::{DiskBuffer, NewOutput};
use std::sync::Arc;
use std::time::Instant;

/// An output that is open: what it was made from, and into what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Opened {
    spec: OutputSpec,
    /// Of one that has a receiver.
    receiver: Option<ReceiverConfig>,
    /// One to an OpenTelemetry collector may be several.
    pub(crate) names: Vec<String>,
}

/// One that was removed and may not have ended yet.
pub(crate) struct Departing {
    pub(crate) opened: Opened,
    /// It is given up then.
    pub(crate) until: Instant,
}

/// What is to be done for outputs to be as another configuration has them. Those that come are open.
pub(crate) struct Exchange {
    pub(crate) leave: Vec<Opened>,
    pub(crate) come: Vec<NewOutput>,
    /// What there is afterwards.
    pub(crate) opened: Vec<Opened>,
    pub(crate) description: String,
    /// What sends the agent's own metrics from then on, if that changes.
    pub(crate) agent_metrics: Option<Option<AgentMetrics>>,
    pub(crate) to_log: bool,
    pub(crate) warnings: Vec<String>,
}

impl Opened {
    pub(super) fn of(spec: OutputSpec, materials: &Materials) -> Self {
        let receiver = materials.receiver(&spec);
        Self { spec, receiver, names: Vec::new() }
    }

    /// Whether it is what `other` asks for. Whether a file is appended to counts when it is opened.
    fn serves(&self, other: &Self) -> bool {
        let target = |spec: &OutputSpec| match spec.target.clone() {
            Target::File { path, buffer, .. } => Target::File { path, buffer, append: true },
            other => other,
        };
        self.spec.kind == other.spec.kind
            && target(&self.spec) == target(&other.spec)
            && self.receiver == other.receiver
    }

    fn waits_on_disk(&self) -> bool {
        let of_receiver = self.receiver.as_ref().is_some_and(|config| config.buffer() == BufferKind::Disk);
        of_receiver || matches!(self.spec.target, Target::File { buffer: BufferKind::Disk, .. })
    }

    /// Whether records of both wait in one folder on disk.
    fn shares_folder_with(&self, other: &Self) -> bool {
        self.waits_on_disk() && other.waits_on_disk() && self.spec.name() == other.spec.name()
    }

    /// Whether both write to one place.
    fn shares_place_with(&self, spec: &OutputSpec) -> bool {
        match (&self.spec.target, &spec.target) {
            (Target::File { path, .. }, Target::File { path: other, .. }) => {
                resolved(path) == resolved(other)
            }
            (Target::Stdout, Target::Stdout) => true,
            _ => false,
        }
    }
}

impl Workshop {
    /// How outputs, of which these are open, come to be as `config` has them; nothing where they are. New ones are opened, with
    /// files emptied that are to be: all, or an error. One that takes another's place in a file goes on behind what that has
    /// written; also that of one that is `leaving` since an earlier exchange. A disk buffer has one owner: who wants that of one
    /// that is leaving is refused.
    pub(crate) fn exchange(
        &self,
        opened: &[Opened],
        leaving: &[Departing],
        config: &Config,
    ) -> Result<Option<Exchange>, Stop> {
        let (specs, materials) = (specs(&self.results, config)?, self.materials(config));
        let wanted: Vec<_> = specs.iter().map(|spec| Opened::of(spec.clone(), &materials)).collect();
        let (mut stay, leave): (Vec<_>, Vec<_>) =
            opened.iter().cloned().partition(|one| wanted.iter().any(|wanted| one.serves(wanted)));
        let mut new: Vec<_> =
            wanted.into_iter().filter(|wanted| !stay.iter().any(|one| one.serves(wanted))).collect();
        if leave.is_empty() && new.is_empty() {
            return Ok(None);
        }
        check_all(&specs, &materials, |_| {}).map_err(|error| stop(&error))?;
        let sends = |all: &[Opened]| {
            all.iter().find(|one| matches!(one.receiver, Some(ReceiverConfig::Otlp(_)))).cloned()
        };
        let (sent, mut come, mut warnings) = (sends(opened), Vec::new(), Vec::new());
        new.iter().try_for_each(|new| self.spare_statistics(&new.spec))?;
        new.iter().try_for_each(|new| is_free(new, leaving))?;
        // Their folders may be in use, or be of no use: before a file is made or emptied.
        new.sort_by_key(|new| !new.waits_on_disk());
        for mut new in new {
            let ahead = leave.iter().chain(leaving.iter().map(|one| &one.opened));
            let ahead = ahead.filter(|one| one.shares_place_with(&new.spec));
            let after: Vec<_> = ahead.flat_map(|one| one.names.iter().cloned()).collect();
            let mut spec = new.spec.clone();
            if let Target::File { append, .. } = &mut spec.target {
                *append |= !after.is_empty();
            }
            let warn = |warning| warnings.push(warning);
            let built = build_all(&[spec], &materials, warn).map_err(|error| stop(&error))?;
            for Open { exporter, buffer, .. } in built {
                let buffer = buffer.map(|spool| DiskBuffer { spool, points: Arc::clone(&self.points) });
                new.names.push(exporter.name().to_owned());
                come.push(NewOutput { exporter, after: after.clone(), buffer });
            }
            stay.push(new);
        }
        let sends = sends(&stay);
        let changed = sends.as_ref().map(|one| (&one.spec, &one.receiver))
            != sent.as_ref().map(|one| (&one.spec, &one.receiver));
        let agent_metrics =
            changed.then(|| agent_metrics(&specs, &materials).map_err(|error| stop(&error))).transpose()?;
        Ok(Some(Exchange {
            leave,
            come,
            opened: stay,
            description: describe(&specs, &materials).map_err(|error| stop(&error))?,
            agent_metrics,
            to_log: specs.iter().any(|spec| spec.kind == OutputKind::Log),
            warnings,
        }))
    }

    /// Whether the run goes by this key: `-o` takes its say from each that says where records go, but names no settings of a
    /// receiver.
    pub(crate) fn heeds(&self, key: &str) -> bool {
        let by_option = &self.results.outputs;
        let of_kind = |kind: OutputKind| {
            move |text: &String| OutputSpec::parse(text).is_ok_and(|spec| spec.kind == kind)
        };
        let receivers = OutputKind::ALL.into_iter().filter(|kind| kind.has_receiver());
        let outlet = key.strip_prefix("export.").and_then(|key| key.split('.').next());
        match outlet {
            _ if by_option.is_empty() => true,
            Some("stdout" | "files" | "log") => false,
            Some(outlet) => match receivers.into_iter().find(|kind| kind.name() == outlet) {
                Some(kind) => by_option.iter().any(of_kind(kind)),
                None => true,
            },
            None => true,
        }
    }

    /// Records don't go to the file of the final statistics.
    fn spare_statistics(&self, spec: &OutputSpec) -> Result<(), Stop> {
        let Target::File { path, .. } = &spec.target else { return Ok(()) };
        let Some(stats) = self.results.stats.as_ref().filter(|stats| resolved(stats) == resolved(path))
        else {
            return Ok(());
        };
        Err(Stop::new(Exit::Usage, "records and statistics would be written to one file")
            .at(format!("--stats {}", stats.display()))
            .help("give the records a file of their own"))
    }
}

/// Whether nobody who is leaving has the folder that records of `new` are to wait in.
fn is_free(new: &Opened, leaving: &[Departing]) -> Result<(), Stop> {
    let Some(owner) = leaving.iter().find(|owner| owner.opened.shares_folder_with(new)) else {
        return Ok(());
    };
    let (names, left) =
        (owner.opened.names.join(", "), owner.until.saturating_duration_since(Instant::now()));
    let what = format!(
        "output {names}, which was removed, still has its disk buffer, for {} s at most",
        left.as_secs() + 1
    );
    Err(Stop::new(Exit::Unavailable, what).help("ask for it again then"))
}

#[cfg(test)]
mod tests {
    use super::super::Outputs;
    use super::super::tests::workshop;
    use super::*;
    use std::path::Path;
    use std::time::Duration;

    /// Names of outputs that go, and of those that come, with those that they wait for.
    type Told = (Vec<String>, Vec<(String, Vec<String>)>);

    fn told(exchange: &Exchange) -> Told {
        let come = exchange.come.iter().map(|one| (one.exporter.name().to_owned(), one.after.clone()));
        (exchange.leave.iter().flat_map(|one| one.names.clone()).collect(), come.collect())
    }

    fn departing(leave: &[Opened]) -> Vec<Departing> {
        leave.iter().cloned().map(|opened| Departing { opened, until: Instant::now() }).collect()
    }

    #[test]
    fn o_takes_the_say_from_what_it_replaces_and_from_nothing_else() {
        for (outputs, expected) in [
            (&[][..], [true; 5]),
            (&["none"], [false, false, false, false, true]),
            (&["text", "otlp"], [false, false, true, false, true]),
            (&["kafka:b:1"], [false, false, false, true, true]),
        ] {
            let workshop = workshop(outputs);
            let keys = [
                "export.files",
                "export.log.enabled",
                "export.otlp.endpoint",
                "export.kafka.topic",
                "export.queue_capacity",
            ];
            assert_eq!(keys.map(|key| workshop.heeds(key)), expected, "{outputs:?}");
        }
    }

    #[test]
    fn a_disk_buffer_has_one_owner_and_who_comes_is_refused_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let export = |rest: &str| {
            let text = format!("export: {{disk_buffer: {{folder: {}}}, {rest}}}", at("buffer"));
            crate::config::parse(&text).unwrap()
        };
        let disk = format!("{{path: {}, buffer: disk}}", at("a"));
        let both = export(&format!("files: [{{path: {}}}, {disk}]", at("new")));
        let workshop = workshop(&[]);
        let first = workshop.exchange(&[], &[], &export(&format!("files: [{disk}]"))).unwrap().unwrap();
        assert!(first.come[0].buffer.is_some());
        // Whoever it is: the folder is locked.
        let refused = |leaving: &[Departing]| {
            let stop = workshop.exchange(&[], leaving, &both).err().unwrap();
            assert!(stop.exit() == Exit::Unavailable && !Path::new(&at("new")).exists(), "{stop}");
            stop.to_string()
        };
        assert!(refused(&[]).contains("is in use by another"));
        let until = Instant::now() + Duration::from_secs(20);
        let leaving = [Departing { opened: first.opened[0].clone(), until }];
        let why = refused(&leaving);
        assert!(why.contains(&format!("output json:{}, which was removed, still has", at("a"))), "{why}");
        assert!(why.contains("for 20 s at most"), "{why}");
        drop(first);
        // With a buffer in memory it needs no folder, and waits for the file.
        let memory = export(&format!("files: [{{path: {}}}]", at("a")));
        let exchange = workshop.exchange(&[], &leaving, &memory).unwrap().unwrap();
        assert_eq!(told(&exchange).1[0].1, [format!("json:{}", at("a"))]);
        let comes = workshop.exchange(&[], &[], &both).unwrap().unwrap();
        assert_eq!(comes.come.iter().filter(|one| one.buffer.is_some()).count(), 1);
        assert!(workshop.exchange(&comes.opened, &[], &both).unwrap().is_none(), "it stays");
    }

    #[test]
    fn another_configuration_has_outputs_come_and_go_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = |export: &str| crate::config::parse(&format!("export: {export}")).unwrap();
        let (a, b) = (path("a"), path("b"));
        let workshop = workshop(&[]);
        let first = config(&format!("{{files: [{{path: {a}}}, {{path: {b}}}], otlp: {{}}}}"));
        let opened = Outputs::build(&workshop, &first).unwrap().opened;
        assert!(workshop.exchange(&opened, &[], &first).unwrap().is_none());
        // Appended to or not counts when it is opened.
        let same = config(&format!("{{files: [{{path: {b}}}, {{path: {a}, append: false}}], otlp: {{}}}}"));
        assert!(workshop.exchange(&opened, &[], &same).unwrap().is_none());

        // Another form in a file: what comes waits for what goes, and doesn't empty it.
        std::fs::write(&a, "from before\n").unwrap();
        let text = config(&format!("{{files: [{{path: {a}, format: text, append: false}}], otlp: {{}}}}"));
        let exchange = workshop.exchange(&opened, &[], &text).unwrap().unwrap();
        let (json_a, json_b, text_a) = (format!("json:{a}"), format!("json:{b}"), format!("text:{a}"));
        assert_eq!(
            told(&exchange),
            (vec![json_a.clone(), json_b.clone()], vec![(text_a, vec![json_a.clone()])])
        );
        assert!(exchange.agent_metrics.is_none() && !exchange.to_log);
        assert_eq!(std::fs::read_to_string(&a).unwrap(), "from before\n");
        assert!(
            workshop.exchange(&exchange.opened, &[], &text).unwrap().is_none(),
            "that is what there is then"
        );
        // The first again, while what went is still at it.
        let back = workshop.exchange(&exchange.opened, &departing(&exchange.leave), &first).unwrap().unwrap();
        let (text_a, json_a) = (format!("text:{a}"), format!("json:{a}"));
        let ahead = vec![text_a.clone(), json_a.clone()];
        assert_eq!(told(&back), (vec![text_a], vec![(json_a, ahead), (json_b.clone(), vec![json_b])]));

        // Another receiver: its outputs are new ones, and wait for nothing.
        let elsewhere = format!(
            "{{files: [{{path: {a}}}, {{path: {b}}}], log: {{}}, otlp: {{endpoint: \"http://c:1\", signals: [logs]}}}}"
        );
        let exchange = workshop.exchange(&opened, &[], &config(&elsewhere)).unwrap().unwrap();
        let alone = |name: &str| (name.to_owned(), Vec::new());
        assert_eq!(told(&exchange), (vec!["otlp:traces".to_owned()], vec![alone("log"), alone("otlp:logs")]));
        assert!(exchange.agent_metrics.is_some() && exchange.to_log);
        assert!(
            exchange.description.contains("log events, otlp logs to http://c:1"),
            "{}",
            exchange.description
        );
    }

    #[test]
    fn outputs_that_cannot_be_leave_all_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("new");
        let workshop = workshop(&[]);
        let opened =
            Outputs::build(&workshop, &crate::config::parse("export: {log: {}}").unwrap()).unwrap().opened;
        for (second, exit) in [("/nonexistent/folder/a", Exit::Io), ("stats.json", Exit::Usage)] {
            let config = format!("export: {{files: [{{path: {second}}}, {{path: {}}}]}}", new.display());
            let refused = workshop.exchange(&opened, &[], &crate::config::parse(&config).unwrap()).err();
            assert_eq!(refused.map(|stop| stop.exit()), Some(exit));
            assert!(!new.exists());
        }
    }
}
