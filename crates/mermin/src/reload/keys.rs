//! What becomes of each key of the configuration when it is read again: the one table, which the program goes by and the
//! reference page is made of.

/// When a changed key counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// At once.
    Live,
    /// From the next start on.
    Restart,
}

use When::{Live, Restart};

/// What is to be said of outputs.
const OUTPUTS: &str = "records that come from then on; what an output that goes or changes has by then is delivered within `pipeline.shutdown_timeout`; else it stays in its disk buffer, or is dropped (`shutdown_timeout`) where it has none. Where `-o` says where records go, only `otlp`, `kafka` and `ipfix` count, each with `-o` of its name alone; the others are named as without effect";

/// Keys, or sections with all that is in them; when a change counts; what is to be said of it.
pub(super) const KEYS: &[(&str, When, &str)] = &[
    ("config_version", Live, "there is only one"),
    ("log_level", Live, ""),
    ("pipeline.packet_channel_capacity", Restart, ""),
    ("pipeline.coalescing_capacity", Live, "as `flow.table_capacity` where memory has a budget"),
    ("pipeline.enrichment_channel_capacity", Restart, ""),
    (
        "pipeline.flow_workers",
        Live,
        "up to as many as there could be at the start: with `{min: 1, max: 8}` or `auto` any number up to that. More after a restart",
    ),
    ("pipeline.replay_metering", Live, "a live run doesn't go by it"),
    ("pipeline.enrichment_workers", Live, "as `pipeline.flow_workers`"),
    ("pipeline.stats_interval", Live, "the turn under way lasts as long as the new one"),
    ("pipeline.enable_metrics", Restart, ""),
    ("pipeline.enable_backpressure", Restart, ""),
    ("pipeline.priority", Live, "records that come from then on; those that wait keep their place"),
    (
        "pipeline.breaker",
        Live,
        "of an output that is let be, a pause gets no longer than the new `pause_max`; with `enabled: false` it is tried at once",
    ),
    ("pipeline.journal", Restart, ""),
    ("pipeline.shutdown_timeout", Live, ""),
    ("capture.source", Restart, ""),
    ("capture.mode", Restart, ""),
    ("capture.kernel_table", Restart, ""),
    ("capture.kernel_slots", Restart, ""),
    ("capture.kernel_hash_flows", Restart, ""),
    ("capture.drain_interval_min", Restart, ""),
    ("capture.drain_interval_max", Restart, ""),
    (
        "capture.interfaces",
        Live,
        "Mermin goes off interfaces that are no longer wanted and on those that are; flows of the former end by their timeouts",
    ),
    ("capture.filters", Restart, ""),
    ("capture.attach", Restart, ""),
    ("capture.on_exit", Restart, ""),
    ("capture.orphan_timeout", Restart, ""),
    ("capture.ring_bytes", Restart, ""),
    (
        "flow.table_capacity",
        Live,
        "of a table that has become too small, flows end (`lack of resources`) as others come. Where memory has a budget (`resources.memory`, or a control group's), no larger than at the start: it was made to fit",
    ),
    (
        "flow.active_timeout",
        Live,
        "flows under way, too: the interval that a flow is in keeps its begin, and is over when the new time has passed",
    ),
    (
        "flow.idle_timeout",
        Live,
        "flows under way, too: a shorter one ends them a moment later, a longer one keeps them",
    ),
    ("flow.udp_timeout", Live, "as `idle_timeout`"),
    ("flow.icmp_timeout", Live, "as `idle_timeout`"),
    ("flow.tcp_fin_timeout", Live, "as `idle_timeout`"),
    ("flow.tcp_rst_timeout", Live, "as `idle_timeout`"),
    ("flow.community_id_seed", Restart, "a flow has one id for its life"),
    ("flow.start_records", Live, "of flows that begin from then on"),
    ("enrich.enabled", Restart, ""),
    (
        "enrich.names",
        Live,
        "records that are enriched from then on; where enrichment had nothing to do at the start, after a restart",
    ),
    ("enrich.kubernetes", Restart, ""),
    ("enrich.conntrack", Restart, ""),
    (
        "export.queue_capacity",
        Live,
        "as `flow.table_capacity` where memory has a budget. Of a queue that has become too small nothing is dropped at once: it comes down to the new bound as records are taken from it, or merged and dropped when others come",
    ),
    ("export.disk_buffer", Restart, ""),
    ("export.stdout", Live, OUTPUTS),
    (
        "export.files",
        Live,
        "as `stdout`; `append` counts when a file is opened, and what takes another output's place in a file goes on behind it. One with `buffer: disk` delivers what it finds there; while its folder is that of one that was removed and has not ended, the reload is refused. Where one is to come and `export.disk_buffer` has changed, too, the list waits for a restart",
    ),
    ("export.log", Live, "as `stdout`"),
    (
        "export.otlp",
        Live,
        "as `stdout`: a change of any key is another receiver to all signals, and sums of `metrics` begin anew. With `buffer: disk` before and after, a restart; else as `files`",
    ),
    ("export.ipfix", Live, "as `otlp`; over UDP, too, another session begins, with templates first"),
    ("export.kafka", Live, "as `otlp`: a change of any key is another client"),
    ("resources", Restart, ""),
    ("server", Restart, "token and certificates are read again by themselves when their files change"),
];

/// When a change of this key, or section, counts.
pub(super) fn when(key: &str) -> Option<When> {
    let is_in = |section: &str| {
        key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    KEYS.iter().find(|(section, ..)| is_in(section)).map(|(_, when, _)| *when)
}

/// The reference page in Markdown.
#[must_use]
pub fn reload_page() -> String {
    let mut page = String::from(
        "# What a reload changes\n\n\
         Generated from the program; `UPDATE=1 cargo test -p mermin` rewrites it. How to reload, and what happens then: \
         [operations](../guide/operations.md#changing-the-configuration).\n\n\
         | key | a change counts | |\n|---|---|---|\n",
    );
    for (key, when, remark) in KEYS {
        let when = match when {
            Live => "at once",
            Restart => "after a restart",
        };
        page.push_str(&format!("| `{key}` | {when} | {remark} |\n"));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    #[test]
    fn every_key_of_the_configuration_is_in_the_table_and_no_other() {
        let keys = keys();
        for key in &keys {
            assert!(when(key).is_some(), "what becomes of {key} when the configuration is read again?");
        }
        for (index, (entry, ..)) in KEYS.iter().enumerate() {
            let first = |key: &&String| {
                KEYS.iter()
                    .position(|(section, ..)| *key == section || key.starts_with(&format!("{section}.")))
            };
            assert!(keys.iter().any(|key| first(&key) == Some(index)), "{entry} is no key");
        }
    }

    #[test]
    fn the_reference_page_is_fresh() {
        let path = format!("{}/../../docs/reference/reload.md", env!("CARGO_MANIFEST_DIR"));
        let page = reload_page();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == page, "docs/reference/reload.md is stale: UPDATE=1 cargo test -p mermin");
    }
}
