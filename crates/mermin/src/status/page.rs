//! The agent as people read it, made by the agent that is asked.

use crate::agent::{Agent, KubernetesView};
use crate::reload::Verdict;
use crate::summary::{books, grouped, time};
use mermin_flow::ByteSize;
use mermin_pipeline::{BudgetPulse, BudgetsPulse, ChannelPulse, Pulse};
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
    let _ = writeln!(page, "  {}", agent.headline());
    if let Some((told, age)) = agent.reloads.as_ref().and_then(|reloads| reloads.last().zip(reloads.age())) {
        let sentence = format!("{} ago: {}", time(age.as_secs_f64()), told.sentence());
        let bad = told.verdict == Verdict::Refused;
        let _ = writeln!(page, "  {}", if bad { paint.on(YELLOW, &sentence) } else { sentence });
    }
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
    let pulse = agent.pulse();
    let active = format!(
        "{} active of {} at most; {} created, {} ended",
        grouped(statistics.flows_active),
        grouped(pulse.budgets.left_of(agent.present.means().table_capacity)),
        grouped(statistics.flows_created),
        grouped(statistics.flows_released)
    );
    line(&mut page, "flows", &active);
    budgets(&mut page, &pulse.budgets, paint);
    kubernetes(&mut page, agent.kubernetes().as_ref(), paint);
    page.push('\n');
    channels(&mut page, &pulse, paint);
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

/// The numbers of a name that is too long to stand before them come below it.
fn below<'a>(page: &mut String, name: &'a str) -> &'a str {
    if name.chars().count() < HEAD {
        return name;
    }
    let _ = writeln!(page, "{name}");
    ""
}

fn row(page: &mut String, name: &str, cells: [String; 3], rest: &str) {
    let [first, second, third] = cells;
    let name = below(page, name);
    let _ = write!(page, "{name:<HEAD$}{first:>NUMBER$}{second:>NUMBER$}{third:>NUMBER$}");
    let _ = writeln!(page, "{}{rest}", if rest.is_empty() { "" } else { "  " });
}

/// What the agent takes, where that is limited.
fn budgets(page: &mut String, budgets: &BudgetsPulse, paint: Paint) {
    let mut one = |name: &str, of: &BudgetPulse, show: fn(f64) -> String| {
        let Some((budget, taken)) = of.budget.zip(of.taken) else { return };
        let without: Vec<_> = of.without.iter().map(|what| paint.on(YELLOW, &format!("; {what}"))).collect();
        line(page, name, &format!("{} of {}{}", show(taken), show(budget), without.concat()));
    };
    one("processor", &budgets.cpu, |cores| format!("{cores:.2} cores"));
    one("memory", &budgets.memory, |bytes| format!("{:.0} MiB", bytes / f64::from(1 << 20)));
}

fn channels(page: &mut String, pulse: &Pulse, paint: Paint) {
    row(page, "waiting", ["now", "most", "room"].map(str::to_owned), "");
    let mut channel = |name: &str, channel: &ChannelPulse, rest: &str| {
        let cells = [channel.depth, channel.high_water, channel.capacity].map(grouped);
        row(page, &format!("  {name}"), cells, rest);
    };
    channel("packet channel", &pulse.packet_channel, "");
    if let Some(waiting) = pulse.coalescing.as_ref().filter(|waiting| waiting.room.high_water > 0) {
        let merges = format!("in the reader; {} merged", grouped(waiting.merges));
        channel("coalescing", &waiting.room, &merges);
    }
    if let Some((enrichment, _)) = &pulse.enrichment {
        channel("enrichment channel", enrichment, "");
    }
    for output in &pulse.outputs {
        let condition = output.delivery.as_ref().map(|delivery| delivery.condition());
        let state = condition.as_ref().map_or("", |(state, _)| state.name());
        let error = output.failing.clone().or(condition.and_then(|(_, error)| error));
        let rest = match (error, output.is_healthy()) {
            (_, false) if output.closed => paint.on(RED, "nobody reads it any more"),
            (error, false) if output.let_be.is_some() => {
                let why = output.let_be.clone().or(error).unwrap_or_default();
                paint.on(RED, &format!("let be for now: {why}"))
            }
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
    let buffers = pulse.outputs.iter().filter_map(|output| Some((&output.name, output.buffer.as_ref()?)));
    for (name, buffer) in buffers {
        let [bytes, capacity] = [buffer.bytes, buffer.capacity].map(|bytes| ByteSize((bytes >> 10) << 10));
        let trouble = buffer.trouble.as_ref().map(|trouble| paint.on(YELLOW, &format!("  {trouble}")));
        let rest = format!("{bytes} of {capacity}{}", trouble.unwrap_or_default());
        let name = format!("  on disk, {name}");
        let name = below(page, &name);
        line(page, name, &rest);
    }
    if let Some(journal) = &pulse.journal {
        let trouble = journal.trouble.as_ref().map(|trouble| paint.on(YELLOW, &format!("  {trouble}")));
        let bytes = ByteSize((journal.bytes >> 10) << 10);
        line(page, "journal", &format!("{bytes}{}", trouble.unwrap_or_default()));
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
