//! The table of all metrics. Their names are relied on by dashboards and alert rules: add freely, rename never.
//!
//! `docs/reference/metrics.md` is generated from it.

use mermin_flow::{Amount, Metric, MetricKind, Tally};

/// When a metric is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// With `pipeline.enable_metrics: true`.
    Detailed,
    /// Only in a live run.
    Live,
    /// For outputs whose records wait on disk.
    OnDisk,
    /// Where what is in memory is written down.
    WithJournal,
    /// For outputs that send to a receiver.
    WithReceiver,
    /// Where Kubernetes is asked.
    WithKubernetes,
    /// Where the kernel's connection tracking is asked.
    WithConntrack,
}

/// Metrics that belong together.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) introduction: &'static str,
    pub(super) metrics: Vec<(When, &'static Metric)>,
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal $unit:literal $labels:tt $help:literal;)+) => {
        $(pub(super) static $id: Metric = Metric {
            name: concat!("mermin_", $name),
            kind: MetricKind::$kind,
            unit: $unit,
            help: $help,
            labels: &$labels,
        };)+
    };
}

/// A term of the ledger in the four units of a tally, in their order.
macro_rules! tallies {
    ($($id:ident: $kind:ident $stem:literal $labels:tt $help:literal;)+) => {
        $(pub(super) static $id: [Metric; 4] = tallies!(@units $kind $stem $labels $help
            "packets" "{packet}" "packets", "bytes" "By" "frame bytes",
            "buffers" "{buffer}" "buffers", "buffer_bytes" "By" "bytes of buffers");)+
    };
    (@units $kind:ident $stem:literal $labels:tt $help:literal $($suffix:literal $unit:literal $what:literal),+) => {
        [$(Metric {
            name: concat!("mermin_", $stem, "_", $suffix),
            kind: MetricKind::$kind,
            unit: $unit,
            help: concat!($help, ", in ", $what),
            labels: &$labels,
        }),+]
    };
}

/// A term of an output's book in its three units, in their order.
macro_rules! amounts {
    ($($id:ident: $kind:ident $stem:literal $labels:tt $help:literal;)+) => {
        $(pub(super) static $id: [Metric; 3] = amounts!(@units $kind $stem $labels $help
            "records" "{record}", "packets" "{packet}", "bytes" "By");)+
    };
    (@units $kind:ident $stem:literal $labels:tt $help:literal $($suffix:literal $unit:literal),+) => {
        [$(Metric {
            name: concat!("mermin_output_", $stem, "_", $suffix),
            kind: MetricKind::$kind,
            unit: $unit,
            help: concat!($help, ", in ", $suffix),
            labels: &$labels,
        }),+]
    };
}

tallies! {
    SEEN: Counter "seen" [] "All that reached an observation point";
    VERDICT: Counter "verdict" ["verdict", "reason"] "What became of it";
    IN_FLIGHT: Gauge "in_flight" ["place"] "Seen and without verdict yet";
    RESIDENT: Gauge "resident" ["place"] "Metered and not yet released to the outputs";
    RELEASED: Counter "released" [] "Metered and released to the outputs, once whatever their number";
}

amounts! {
    HANDED: Counter "handed" ["output"] "Given to the output";
    RECOVERED: Counter "recovered" ["output"] "Left on disk for the output by an earlier run";
    SETTLED: Counter "settled" ["output", "outcome", "reason"] "What became of it";
    WAITING: Gauge "waiting" ["output", "place"] "Given to the output and not settled yet";
}

metrics! {
    LEDGER_CONSISTENT: Gauge "ledger_consistent" "1" []
        "1 when the ledger's figures are one cut through the pipeline, 0 when a stage did not answer in time";
    LEDGER_INEXACT: Gauge "ledger_inexact" "{count}" []
        "Counts of the ledger that can't be known, such as the bytes of what the kernel dropped at a socket";

    OUTPUT_INEXACT: Gauge "output_inexact" "{count}" ["output"]
        "Counts of the output's book that are bounds, because the receiver did not say which records it rejected";
    OUTPUT_HEALTHY: Gauge "output_healthy" "1" ["output"]
        "0 when the last attempt to deliver failed for good, the output is let be or nobody reads it any more, else 1";
    OUTPUT_BREAKER: Gauge "output_breaker" "1" ["output", "state"]
        "1 for the state of the output's breaker (`closed`: it gets its records), 0 for the others";
    OUTPUT_BREAKER_OPENED: Counter "output_breaker_opened" "{time}" ["output"]
        "Times that the output came to be let be";
    OUTPUT_BUFFER_BYTES: Gauge "output_buffer_bytes" "By" ["output"] "Size of the output's files in its disk buffer";
    OUTPUT_BUFFER_CAPACITY: Gauge "output_buffer_capacity_bytes" "By" ["output"] "The bound on that";
    OUTPUT_BUFFER_WRITABLE: Gauge "output_buffer_writable" "1" ["output"]
        "0 while records can't be written to the output's disk buffer, because it is full or the disk fails, else 1";
    OUTPUT_REQUESTS: Counter "output_requests" "{request}" ["output"] "Requests sent, repeated ones too";
    OUTPUT_RETRIES: Counter "output_retries" "{request}" ["output"] "Requests that repeated another";
    OUTPUT_FAILURES: Counter "output_failures" "{request}" ["output"] "Requests that got no answer or a bad one";
    OUTPUT_CONNECTIONS: Counter "output_connections" "{connection}" ["output"] "Connections made";
    OUTPUT_SENT: Counter "output_sent_bytes" "By" ["output"] "Bytes of request bodies, as sent";
    OUTPUT_IN_FLIGHT: Gauge "output_requests_in_flight" "{request}" ["output"] "Requests without an answer yet";
    OUTPUT_DURATION: Histogram "output_request_duration_seconds" "s" ["output"]
        "Time from a request to its answer, good or bad; without an answer there is none";
    OUTPUT_STATE: Gauge "output_state" "1" ["output", "state"] "1 for the output's present state, 0 for the others";

    FLOWS_ACTIVE: Gauge "flows_active" "{flow}" [] "Flows in the tables";
    FLOW_TABLE_CAPACITY: Gauge "flow_table_capacity_flows" "{flow}" [] "Flows that the tables hold at most, as far as the budget of memory lets them";
    FLOWS_CREATED: Counter "flows_created" "{flow}" [] "Flows created";
    FLOWS_RELEASED: Counter "flows_released" "{flow}" [] "Flows ended";
    FLOWS_EVICTED: Counter "flows_evicted" "{flow}" [] "Flows that ended early for another, the table being full";
    PACKETS_PROCESSED: Counter "packets_processed" "{packet}" [] "Packets given a verdict other than lost";
    ANOMALIES: Counter "anomalies" "{packet}" ["kind"] "Oddities of packets that were metered all the same";

    STAGE_DROPS: Counter "stage_drops" "{packet}" ["stage"] "Packets that a stage dropped";
    STAGE_MERGES: Counter "stage_merges" "{packet}" ["stage"] "Observations or records that a stage merged for want of room";
    STAGE_PANICS: Counter "stage_panics" "{panic}" ["stage"] "Panics that a stage's threads have contained: bugs";
    STAGE_PACKETS: Counter "stage_packets" "{packet}" ["stage"] "Packets that a stage has handled";
    STAGE_RECORDS: Counter "stage_records" "{record}" ["stage"] "Records that a stage has handled";
    STAGE_BATCHES: Counter "stage_batches" "{batch}" ["stage"]
        "Calls of the source by the reader, messages handled by the flow workers";
    CHANNEL_DEPTH: Gauge "channel_depth" "{item}" ["channel", "output"] "Observations or records in a channel";
    CHANNEL_CAPACITY: Gauge "channel_capacity" "{item}" ["channel", "output"] "Observations or records that fit";
    CHANNEL_HIGH_WATER: Gauge "channel_high_water" "{item}" ["channel", "output"]
        "The most observations or records that were in the channel at once";
    CHANNEL_WAITS: Counter "channel_waits" "{wait}" ["channel", "output"] "Times that a stage waited for room";
    CHANNEL_WAIT: Histogram "channel_wait_seconds" "s" ["channel", "output"]
        "Time that batches were in the channel";
    READER_GAP: Gauge "reader_longest_gap_seconds" "s" [] "Longest time between two looks at the source";
    ENRICHMENT_HELD: Gauge "enrichment_held_records" "{record}" [] "Records that wait for a later answer about their ends, or for room in an output";
    ENRICHMENT_EARLY: Counter "enrichment_early_records" "{record}" []
        "Records handed on before everything could be known about their ends";

    INTERFACES_ATTACHED: Gauge "interfaces_attached" "{interface}" [] "Interfaces that packets are taken from";
    INTERFACE_EVENTS: Counter "interface_events" "{event}" ["event"] "What has happened to interfaces";

    KUBERNETES_STATE: Gauge "kubernetes_state" "1" ["state"] "1 for the present state of the watches, 0 for the others";
    KUBERNETES_WATCH_STATE: Gauge "kubernetes_watch_state" "1" ["kind", "state"]
        "1 for the present state of a kind's watch, 0 for the others";
    KUBERNETES_OBJECTS: Gauge "kubernetes_objects" "{object}" ["kind"] "Objects that exist, as far as is known";
    KUBERNETES_AGE: Gauge "kubernetes_known_age_seconds" "s" ["kind"]
        "How long ago everything about the kind was known; where it never was, since the start";
    KUBERNETES_EVENTS: Counter "kubernetes_events" "{event}" ["kind"] "Objects received: listed, made, changed or deleted";
    KUBERNETES_RECEIVED: Counter "kubernetes_received_bytes" "By" ["kind"] "Bytes received from the API server";
    KUBERNETES_LISTS: Counter "kubernetes_lists" "{list}" ["kind"]
        "Lists begun: one at the start, and one each time a watch could not go on where it was";
    KUBERNETES_ERRORS: Counter "kubernetes_errors" "{error}" ["kind"] "Requests and watches that failed";
    KUBERNETES_UNREADABLE: Counter "kubernetes_unreadable_objects" "{object}" ["kind"]
        "Objects that could not be read, and so are missing";

    CONNTRACK_CONNECTIONS: Gauge "conntrack_connections" "{connection}" []
        "Translated connections that are remembered, those that ended in the last minutes, too";
    CONNTRACK_EVENTS: Counter "conntrack_events" "{event}" []
        "Messages of the kernel that a connection began or ended, translated or not";
    CONNTRACK_LOOKS: Counter "conntrack_looks" "{look}" [] "Times that the kernel was asked for all connections";
    CONNTRACK_OVERRUNS: Counter "conntrack_overruns" "{overrun}" []
        "Times that messages of the kernel were lost, because more came than were read; a look at all follows";
    CONNTRACK_REFUSED: Counter "conntrack_refused" "{connection}" []
        "Translated connections that found no room, so that their records lack the other tuple";
    CONNTRACK_FORGOTTEN: Counter "conntrack_forgotten" "{connection}" []
        "Ended connections that went to make room before all of their records had surely come";
    CONNTRACK_TRANSLATED: Counter "conntrack_translated" "{record}" [] "Records that got their other tuple";
    CONNTRACK_AMBIGUOUS: Counter "conntrack_ambiguous" "{record}" []
        "Records without it, because connections with different ones had theirs in their time";

    JOURNAL_CUTS: Counter "journal_cuts" "{cut}" []
        "Cuts: moments up to which what is in memory was written down, or could not be; those of a killed run, gone on with, too";
    JOURNAL_BYTES: Gauge "journal_bytes" "By" [] "Size of the journal's file of cuts";
    JOURNAL_WRITABLE: Gauge "journal_writable" "1" []
        "0 while the journal can't be written, so that what is in memory is lost if the process is killed, else 1";

    BUDGET_CORES: Gauge "budget_cores" "{core}" [] "Cores that the agent may take; 0: all that there are";
    BUDGET_MEMORY: Gauge "budget_memory_bytes" "By" [] "Memory that the agent may take; 0: all that there is";
    SHEDDING_STEP: Gauge "shedding_step" "{step}" ["budget"]
        "Steps taken at the moment to keep within the budget; 0: nothing is done without";
    SHEDDING_CHANGES: Counter "shedding_changes" "{step}" ["budget"] "Steps taken or taken back so far";
    CONFIG_RELOADS: Counter "config_reloads" "{reload}" ["result"] "Times that the configuration was read again";
    CONFIG_VALID: Gauge "config_last_reload_successful" "1" []
        "0 when the configuration was refused when it was last read again, so that nothing was changed; else 1";
    CONFIG_TIME: Gauge "config_last_success_timestamp_seconds" "s" []
        "When the configuration was last read and found right, seconds since 1970";
    CONFIG_AT_RESTART: Gauge "config_keys_at_restart" "{key}" []
        "Keys that differed when the configuration was last read, and of which a change counts from the next start on";

    BUILD: Gauge "build_info" "1" ["version"] "1; the label says which program this is";
    READY: Gauge "ready" "1" [] "1 when /readyz says so";
    SCRAPE_DURATION: Gauge "scrape_duration_seconds" "s" [] "Time that it took to gather these figures";
}

macro_rules! process {
    ($($id:ident: $kind:ident $name:literal $unit:literal $help:literal;)+) => {
        $(pub(super) static $id: Metric = Metric {
            name: concat!("process_", $name),
            kind: MetricKind::$kind,
            unit: $unit,
            help: $help,
            labels: &[],
        };)+
    };
}

process! {
    CPU: Counter "cpu_seconds" "s" "Processor time used, user and system";
    RESIDENT_MEMORY: Gauge "resident_memory_bytes" "By" "Memory that is resident";
    VIRTUAL_MEMORY: Gauge "virtual_memory_bytes" "By" "Address space";
    OPEN_FILES: Gauge "open_fds" "{file}" "Open file descriptors";
    MAX_FILES: Gauge "max_fds" "{file}" "File descriptors that may be open at most";
    THREADS: Gauge "threads" "{thread}" "Threads";
    START_TIME: Gauge "start_time_seconds" "s" "When the process started, seconds since 1970";
}

/// All metrics, in the order in which they are told.
pub(super) fn sections() -> Vec<Section> {
    use When::{Always, Detailed, Live, OnDisk, WithConntrack, WithJournal, WithKubernetes, WithReceiver};
    let all = |when: When, metrics: &[&'static Metric]| -> Vec<(When, &'static Metric)> {
        metrics.iter().map(|metric| (when, *metric)).collect()
    };
    let terms = |terms: &[&'static [Metric]]| -> Vec<(When, &'static Metric)> {
        terms.iter().flat_map(|term| term.iter().map(|metric| (Always, metric))).collect()
    };
    let mut ledger = terms(&[&SEEN, &VERDICT, &IN_FLIGHT, &RESIDENT, &RELEASED]);
    ledger.extend(all(Always, &[&LEDGER_CONSISTENT, &LEDGER_INEXACT]));
    let mut outputs = terms(&[&HANDED, &RECOVERED, &SETTLED, &WAITING]);
    outputs.extend(all(Always, &[&OUTPUT_INEXACT, &OUTPUT_HEALTHY, &OUTPUT_BREAKER, &OUTPUT_BREAKER_OPENED]));
    outputs.extend(all(OnDisk, &[&OUTPUT_BUFFER_BYTES, &OUTPUT_BUFFER_CAPACITY, &OUTPUT_BUFFER_WRITABLE]));
    outputs.extend(all(
        WithReceiver,
        &[
            &OUTPUT_REQUESTS,
            &OUTPUT_RETRIES,
            &OUTPUT_FAILURES,
            &OUTPUT_CONNECTIONS,
            &OUTPUT_SENT,
            &OUTPUT_IN_FLIGHT,
            &OUTPUT_DURATION,
            &OUTPUT_STATE,
        ],
    ));
    let flows = [
        &FLOWS_ACTIVE,
        &FLOW_TABLE_CAPACITY,
        &FLOWS_CREATED,
        &FLOWS_RELEASED,
        &FLOWS_EVICTED,
        &PACKETS_PROCESSED,
        &ANOMALIES,
    ];
    let mut stages = all(Always, &[&STAGE_DROPS, &STAGE_MERGES, &STAGE_PANICS]);
    stages.extend(all(
        Detailed,
        &[
            &STAGE_PACKETS,
            &STAGE_RECORDS,
            &STAGE_BATCHES,
            &CHANNEL_DEPTH,
            &CHANNEL_CAPACITY,
            &CHANNEL_HIGH_WATER,
            &CHANNEL_WAITS,
            &CHANNEL_WAIT,
            &READER_GAP,
            &ENRICHMENT_HELD,
            &ENRICHMENT_EARLY,
        ],
    ));
    stages.extend(all(WithJournal, &[&JOURNAL_CUTS, &JOURNAL_BYTES, &JOURNAL_WRITABLE]));
    let mut kubernetes = all(Always, &[&KUBERNETES_STATE]);
    kubernetes.extend(all(
        WithKubernetes,
        &[
            &KUBERNETES_WATCH_STATE,
            &KUBERNETES_OBJECTS,
            &KUBERNETES_AGE,
            &KUBERNETES_EVENTS,
            &KUBERNETES_RECEIVED,
            &KUBERNETES_LISTS,
            &KUBERNETES_ERRORS,
            &KUBERNETES_UNREADABLE,
        ],
    ));
    let conntrack = [
        &CONNTRACK_CONNECTIONS,
        &CONNTRACK_EVENTS,
        &CONNTRACK_LOOKS,
        &CONNTRACK_OVERRUNS,
        &CONNTRACK_REFUSED,
        &CONNTRACK_FORGOTTEN,
        &CONNTRACK_TRANSLATED,
        &CONNTRACK_AMBIGUOUS,
    ];
    let agent = [
        &BUILD,
        &READY,
        &SCRAPE_DURATION,
        &BUDGET_CORES,
        &BUDGET_MEMORY,
        &SHEDDING_STEP,
        &SHEDDING_CHANGES,
        &CPU,
        &RESIDENT_MEMORY,
        &VIRTUAL_MEMORY,
        &OPEN_FILES,
        &MAX_FILES,
        &THREADS,
        &START_TIME,
    ];
    vec![
        Section { title: "The ledger", introduction: LEDGER, metrics: ledger },
        Section { title: "Outputs", introduction: OUTPUTS, metrics: outputs },
        Section { title: "Flows", introduction: "", metrics: all(Always, &flows) },
        Section { title: "Stages and channels", introduction: STAGES, metrics: stages },
        Section {
            title: "Capture",
            introduction: CAPTURE,
            metrics: all(Live, &[&INTERFACES_ATTACHED, &INTERFACE_EVENTS]),
        },
        Section { title: "Kubernetes", introduction: "", metrics: kubernetes },
        Section { title: "Connection tracking", introduction: "", metrics: all(WithConntrack, &conntrack) },
        Section {
            title: "The configuration",
            introduction: CONFIGURATION,
            metrics: all(Live, &[&CONFIG_RELOADS, &CONFIG_VALID, &CONFIG_TIME, &CONFIG_AT_RESTART]),
        },
        Section { title: "The agent", introduction: AGENT, metrics: all(Always, &agent) },
    ]
}

const LEDGER: &str = "\
Two of the [ledger's](statistics.md) three books. All figures of one answer are one cut through the running pipeline: \
they speak of the same packets. Where a stage did not answer in time they are read where they are, and \
`mermin_ledger_consistent` is 0; no count ever falls. `verdict` is `metered`, `secondary`, `unmetered`, `filtered`, \
`sampled_out` or `lost`; `unmetered` and `lost` have a `reason`, and that of `filtered` is the rule (`capture.filters`). These are 0 in every consistent answer, for each agent:

```promql
mermin_seen_buffers_total
  - sum without (verdict, reason) (mermin_verdict_buffers_total)
  - sum without (place) (mermin_in_flight_buffers)

sum without (verdict, reason) (mermin_verdict_packets_total{verdict=\"metered\"})
  - mermin_released_packets_total
  - sum without (place) (mermin_resident_packets)
```

What was lost: `rate(mermin_verdict_packets_total{verdict=\"lost\"}[5m])`.";

const OUTPUTS: &str = "\
A book for each output; `output` is its name as in the statistics. `outcome` is `delivered`, `dropped` (with a \
`reason`) or `merged` (records that were merged into others, with their packets and bytes in those: 0 there); `place` is `queue` or `spool`. 0 in every answer, for each output:

```promql
mermin_output_handed_packets_total
  + mermin_output_recovered_packets_total
  - sum without (outcome, reason) (mermin_output_settled_packets_total)
  - sum without (place) (mermin_output_waiting_packets)
```";

const STAGES: &str = "\
`stage` is `packet_reader`, `packet_channel`, `coalescing` (what waits in the reader while the packet channel is full, merged \
by flow; live, with `pipeline.enable_backpressure`), `flow_workers`, `enrichment_channel` or `enrichment_workers`; of panics also `outputs` (all, those that were removed as \
well) and `tasks` (statistics, scaling, budgets); `channel` is \
`packet_channel` or `coalescing` (they count observations), `enrichment_channel` or, with the label `output`, `output_queue` \
(they count records). What enrichment is concerned with is absent where nothing is added to records.";

const CAPTURE: &str = "\
`event` is `attached`, `detached`, `failed` (an interface refused), `without_number` (one too many, see the \
[limits](../limits.md)), `resynced` (the kernel dropped messages about links, and all were listed anew), `moved` (programs \
of others came on tcx, and Mermin's went there too) or `restored` (somebody else had taken Mermin's programs off, and they \
were put on again: what crossed meanwhile was not seen).";

const CONFIGURATION: &str = "\
What came of reading the configuration again (SIGHUP, `mermin reload`). `result` is `applied`, `unchanged`, `at_restart` \
(all that differs counts from the next start on) or `refused`. [What a reload changes](reload.md) says which is which.";

const AGENT: &str = "\
Those of the process have the names that Prometheus' own libraries give them. `budget` is `cpu` or `memory` \
([resources](configuration.md#resources)).";

/// The units of a tally, in the order of the metrics.
pub(super) const TALLY_UNITS: [fn(&Tally) -> u64; 4] =
    [|tally| tally.packets, |tally| tally.bytes, |tally| tally.buffers, |tally| tally.buffer_bytes];

/// The units of an amount, in the order of the metrics.
pub(super) const AMOUNT_UNITS: [fn(&Amount) -> u64; 3] =
    [|amount| amount.records, |amount| amount.packets, |amount| amount.bytes];

/// Oddities of packets. Those of interfaces are events of theirs.
pub(super) const ANOMALY_KINDS: [&str; 5] = [
    "epochs_out_of_balance",
    "ethertypes_other",
    "ip_length_over_frame",
    "kernel_hash_failures",
    "unresolved_fragments",
];
