//! The agent as people read it, made by the agent that is asked.

use crate::agent::{Agent, KubernetesView};
use crate::summary::{books, grouped, time};
use mermin_pipeline::{ChannelPulse, Pulse};
use std::fmt::Write as _;

/// Columns of what stands left of a line, as of the books' names.
const HEAD: usize = 26;
const NUMBER: usize = 16;

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const DIM: &str = "\x1b[2m";

/// The page, with colours where they are wanted.
pub(crate) fn page(agent: &Agent, color: bool) -> String {
    let paint = Paint(color);
    let (statistics, consistent) = agent.statistics();
    let readiness = agent.readiness();
    let mut page = String::new();
    let verdict = if readiness.is_ready() { paint.on(GREEN, "ready") } else { paint.on(RED, "not ready") };
    let _ = writeln!(
        page,
        "mermin {}, {}, process {}, up {}: {verdict}",
        env!("CARGO_PKG_VERSION"),
        agent.command,
        std::process::id(),
        time(agent.uptime_seconds()),
    );
    for check in readiness.0.iter().filter(|check| !check.ok) {
        let _ = writeln!(page, "  {}", paint.on(RED, &format!("{}: {}", check.what, check.how)));
    }
    let _ = writeln!(page, "  {}", agent.headline);
    page.push('\n');
    if let Some(capture) = agent.capture() {
        let names: Vec<_> = capture.interfaces.iter().map(|one| &*one.name).collect();
        let many = if names.is_empty() {
            "none".to_owned()
        } else {
            format!("{}: {}", names.len(), names.join(", "))
        };
        line(&mut page, "interfaces", &many);
        let events = capture.events().into_iter().filter(|(_, count)| *count > 0);
        let events: Vec<_> = events.map(|(event, count)| format!("{} {event}", grouped(count))).collect();
        if !events.is_empty() {
            line(&mut page, "", &events.join(", "));
        }
    }
    let active = format!(
        "{} active of {} at most; {} created, {} ended",
        grouped(statistics.flows_active),
        grouped(agent.table_capacity),
        grouped(statistics.flows_created),
        grouped(statistics.flows_released)
    );
    line(&mut page, "flows", &active);
    kubernetes(&mut page, agent.kubernetes().as_ref(), paint);
    page.push('\n');
    channels(&mut page, &agent.pulse(), paint);
    page.push('\n');
    page.push_str(&books(&statistics));
    if !consistent {
        let why =
            "A stage did not answer in time: the figures were read where they are and need not balance.";
        let _ = writeln!(page, "{}", paint.on(YELLOW, why));
    }
    page
}

#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn on(self, code: &str, text: &str) -> String {
        if self.0 { format!("{code}{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn line(page: &mut String, head: &str, rest: &str) {
    let _ = writeln!(page, "{head:<HEAD$}{rest}");
}

fn row(page: &mut String, name: &str, cells: [String; 3], rest: &str) {
    let [first, second, third] = cells;
    let _ = write!(page, "{name:<HEAD$}{first:>NUMBER$}{second:>NUMBER$}{third:>NUMBER$}");
    let _ = writeln!(page, "{}{rest}", if rest.is_empty() { "" } else { "  " });
}

fn channels(page: &mut String, pulse: &Pulse, paint: Paint) {
    row(page, "waiting", ["now", "most", "room"].map(str::to_owned), "");
    let mut channel = |name: &str, channel: &ChannelPulse, rest: &str| {
        let cells = [channel.depth, channel.high_water, channel.capacity].map(grouped);
        row(page, &format!("  {name}"), cells, rest);
    };
    channel("packet channel", &pulse.packet_channel, "");
    if let Some((enrichment, _)) = &pulse.enrichment {
        channel("enrichment channel", enrichment, "");
    }
    for output in &pulse.outputs {
        let condition = output.delivery.as_ref().map(|delivery| delivery.condition());
        let state = condition.as_ref().map_or("", |(state, _)| state.name());
        let error = output.failing.clone().or(condition.and_then(|(_, error)| error));
        let rest = match (error, output.is_healthy()) {
            (_, false) if output.closed => paint.on(RED, "nobody reads it any more"),
            (Some(error), false) => paint.on(RED, &error),
            (Some(error), true) => paint.on(YELLOW, &format!("{state}: {error}")),
            (None, _) => paint.on(DIM, state),
        };
        channel(
            &format!("output {}", output.name),
            &output.queue,
            if rest.trim().is_empty() { "" } else { &rest },
        );
    }
}

fn kubernetes(page: &mut String, view: Option<&KubernetesView>, paint: Paint) {
    let Some(view) = view else { return line(page, "kubernetes", &paint.on(DIM, KubernetesView::OFF)) };
    let state = paint.on(if view.ready { GREEN } else { YELLOW }, view.state);
    line(page, "kubernetes", &format!("{state}, {}", view.server));
    for kind in view.kinds.iter().filter(|kind| kind.state != KubernetesView::OFF) {
        let objects = format!("{} objects, {}", grouped(kind.objects), kind.state);
        let failure = kind.failure.as_ref().map(|failure| {
            paint.on(YELLOW, &format!(" (known {} ago; {failure})", time(kind.age.as_secs_f64())))
        });
        line(page, &format!("  {}", kind.kind), &format!("{objects}{}", failure.unwrap_or_default()));
    }
}
