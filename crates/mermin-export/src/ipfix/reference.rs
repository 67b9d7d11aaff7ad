//! The page `docs/reference/ipfix.md`, rendered from the table of fields.

use super::elements::{FIELDS, Field, LEDGER, Registry, Units};
use super::options::Options;
use super::session::TEMPLATES_MAX;
use crate::attributes::{ATTRIBUTES, Kind};
use std::fmt::Write as _;

const INTRODUCTION: &str = "\
# IPFIX and NetFlow version 9

<!-- Generated from crates/mermin-export/src/ipfix by `UPDATE=1 cargo test -p mermin-export`. -->

`-o ipfix`, `-o ipfix:collector.example:4739`, or the section `export.ipfix` of the configuration. With `-o ipfix` the
settings of `export.ipfix` count, only the address is replaced where one is given.

A flow record is a data record. It has a field for what is known of the flow and none for what isn't; every combination that
occurs gets a template when it first does (ids from 300). A collector that decodes templates needs nothing else.

## What a collector gets

| | |
|---|---|
| both directions | In one data record, the way back in the reverse elements of RFC 5103 (enterprise 29305). Without a packet on the way back there are none. `source…` is the flow's initiator: `biflowDirection` 1 |
| `directions: each` | A data record for each direction that has packets, for collectors that don't know reverse elements. The source is the sender: `biflowDirection` is 1 from the initiator, 2 from the other end, which has no `icmpTypeCode…`, interface and `flowDirection`: these are the first packet's. A record that reports no packet (a flow's start, the end of one that was quiet) is one data record |
| counts | The deltas are what came since the flow's previous record: their sums over all data records are what there was. In four octets where all counts of a record fit (RFC 7011 section 6.2), else in eight |
| times | Milliseconds, then the same in nanoseconds (RFC 7011 section 6.1.10): some collectors know only the one. Read the nanoseconds where both are known. From 2036-02-07T06:28:16Z on, where the seconds of nanosecond times begin again, there are milliseconds alone |
| elements of Mermin's own | Under `enterprise_number`. The default, 32473, is the number for documentation (RFC 5612): with two programs that use it, set one that is yours. What each element is comes with the templates, as RFC 5610's type information |
| texts | UTF-8. A name is cut after 255 bytes, as is each name and value of labels, in which control characters are escaped; labels and hops as a whole at 65 535 |
| numbers of messages | Data records (of options, too) before the message, in its session; without a gap, also where a message had to be made again |
| observation domain | `observation_domain`, 0 by default. Give agents behind one address different ones |
| ids of templates | Over UDP an id keeps its meaning over sessions, until all have had one: many collectors tell exporters apart by address and domain alone |

A session begins when the output first sends something, after a failure, and when its settings change; one that would need
more than";

const AFTER_MAX: &str = "templates ends, and another one begins. A session begins with its templates.

## Delivery

- **UDP**: a record is delivered when the network has taken it. Nobody acknowledges it: what is lost on the way or in the
  collector's receive buffer is a gap in the numbers, which the collector can see. Where nobody listens on the port (ICMP says
  so), records wait, first in the output, then in its queue or on disk, and it is looked with one message of templates whether somebody
  does again. What goes to another host is held for a second, up to 3 MiB of it: when a refusal comes back in that time, it is not
  delivered and goes again. Messages are not fragmented: the kernel tells the path's MTU, and is asked again when a message comes back as too
  large; what went in the second before goes again, and may come twice. At most `message_rate` messages are sent a second, sixteen at once. A receive buffer of Linux' default, 212 992 bytes,
  has room for some 45 ms of 2 000: a collector on a host that is busy loses some with it (7 and 80 of 10 000 were seen) and should
  have a larger one. Templates are sent again every `template_refresh`: a collector that was restarted decodes nothing until then, unless
  it was away for long enough that the agent has noticed.
- **TCP**: a record is delivered when the collector's host has acknowledged its last octet, which the kernel tells
  (`sock_diag`; where it doesn't, the log says so and a record is delivered when the kernel has it). That the collector has read
  it nobody says. Nothing counts before the connection has lasted for a second: a proxy that accepts, and closes because nobody is
  behind it, has done so by then. What was not acknowledged when a connection ends is sent again over the next one; what was acknowledged by a
  collector that has crashed since is lost. What was received and not acknowledged comes twice: it has the same `flow.id` and
  `flow.sequence`.
- **TLS** (`transport: tcp` and a section `tls`, port 4740): as TCP. With TLS 1.3 an agent may write before the collector has judged its certificate:
  what is acknowledged counts when the collector has sent a session ticket, or after five seconds without a word from it. Certificates are read again for each connection.

A record that is larger than a message is dropped (`too_large`). At the end of a run records that are not delivered within
`pipeline.shutdown_timeout` are dropped (`shutdown_timeout`), or stay on disk with `buffer: disk`.

## Collectors

```
nfcapd -l /var/cache/nfdump -p 4739 -B 4194304
goflow2 -listen 'netflow://:4739?count=1&workers=1' -format json
mermin run -o ipfix:127.0.0.1:4739
```

nfdump knows reverse elements; it has no nanoseconds and ignores elements of enterprises. goflow2 doesn't know reverse elements: set
`directions: each`. Of several workers it loses records whose templates another one has; one worker is right. Of NetFlow version 9 it
knows the times since the system started alone.

## Elements of IANA's registry

With a reverse element (RFC 5103) where marked.

| number | name | type | reverse | attribute |
|---|---|---|---|---|
";

const OWN: &str = "
`ipClassOfService` has `flow.dscp` in its upper six bits and `flow.ecn` in the lower two. `tcpControlBits` takes one octet.
`flowDirection` is the hook where the first packet was seen: 0 ingress, 1 egress. `vlanId` and the times since the system started are
NetFlow version 9's.

## Elements of Mermin's own

Numbers never change their meaning. Values of closed sets are numbered.

| number | name | type | units | |
|---|---|---|---|---|
";

const OPTIONS: &str = "
Labels and annotations are lines `key=value`, without the end's name: `k8s.pod.label.app=cart`. Hops are JSON as in
[records](records.md#hops). `network.transport` follows from `protocolIdentifier`, `network.io.direction` from `flow.direction`.

## Options

| template | about | says | when |
|---|---|---|---|
";

const AFTER_OPTIONS: &str = "
The first two are this output's: what it has sent since it was opened (data records of flows, not of options), and what it
has given up itself: what found no room in its queue or its disk buffer (`queue_full`, `buffer_full`) stands in its book alone. The ledger is the agent's, all interfaces and outputs together, as of at most two seconds before: `ignored…` is
`unmetered`, `filtered`, `sampled_out` and `lost` together, in frame bytes. A replay that is shorter than a moment has none.

A data record of sampled packets names the draws by `flow.sampling.rate.min` and `.max`: these are the ids of selectors, one
packet in so many. Its deltas are what was metered, not multiplied; estimates stand beside them.

## NetFlow version 9

`version: netflow9` is for collectors that know nothing newer (RFC 3954): UDP, a data record for each direction, elements of IANA's
registry with a fixed length. Times stand in milliseconds since 1970 (152, 153), and, as old collectors read them, in milliseconds since
the system started (21, 22); those not of flows that began before it did, or that end in the future. There are no names, no Kubernetes, no Community ID, no estimates.
Its one options template tells what was sent, with the system as its scope. Numbers count messages.
";

/// The page.
#[must_use]
pub fn ipfix_reference() -> String {
    let mut page = format!("{INTRODUCTION} {TEMPLATES_MAX}\n{AFTER_MAX}");
    for field in FIELDS.iter().filter(|field| field.registry == Registry::Iana) {
        let reverse = FIELDS
            .iter()
            .find(|other| other.registry == Registry::Reverse && other.number == field.number)
            .map_or("", |_| "yes");
        let (number, name, kind) = (field.number, field.name, field.kind.name());
        add(&mut page, format_args!("| {number} | `{name}` | {kind} | {reverse} | {} |", attributes(field)));
    }
    page.push_str(OWN);
    for field in FIELDS.iter().filter(|field| field.registry == Registry::Own).chain(LEDGER) {
        let units = match field.units {
            Units::None => "",
            Units::Octets => "octets",
            Units::Packets => "packets",
            Units::Seconds => "seconds",
            Units::Nanoseconds => "nanoseconds",
        };
        let (number, name, kind) = (field.number, field.name, field.kind.name());
        add(&mut page, format_args!("| {number} | `{name}` | {kind} | {units} | {} |", values(field)));
    }
    page.push_str(OPTIONS);
    for options in Options::ALL {
        let (scope, says, when) = match options {
            Options::Types => (
                "`privateEnterpriseNumber`, `informationElementId`",
                "`informationElementDataType`, `…Semantics`, `…Units`, `…RangeBegin`, `…RangeEnd`, `…Name` (RFC 5610)",
                "with the templates",
            ),
            Options::Sent => (
                "`observationDomainId`",
                "`exportedMessageTotalCount`, `exportedFlowRecordTotalCount`, `exportedOctetTotalCount` (RFC 7011 section 4.1)",
                "every `statistics_interval`, and at the end",
            ),
            Options::NotSent => (
                "`exportingProcessId`",
                "`notSentFlowTotalCount`, `notSentPacketTotalCount`, `notSentOctetTotalCount` (section 4.3)",
                "with them",
            ),
            Options::Ledger => (
                "`meteringProcessId`",
                "`ignoredPacketTotalCount`, `ignoredOctetTotalCount` (section 4.2), `ledger.…`",
                "with them",
            ),
            Options::Selector => (
                "`selectorId`",
                "`selectorAlgorithm` (4, uniform probabilistic), `samplingProbability` (RFC 5477)",
                "when packets were sampled so, and with the templates",
            ),
        };
        add(&mut page, format_args!("| {} | {scope} | {says} | {when} |", options.id()));
    }
    page + AFTER_OPTIONS
}

fn add(page: &mut String, row: std::fmt::Arguments<'_>) {
    writeln!(page, "{row}").expect("a String takes everything");
}

fn attributes(field: &Field) -> String {
    let names = field.attributes.iter().map(|name| format!("`{name}`"));
    names.collect::<Vec<_>>().join(", ")
}

/// What the numbers of a closed set stand for.
fn values(field: &Field) -> String {
    let Some(name) = field.attributes.first().filter(|_| field.greatest > 0) else { return String::new() };
    let attribute = ATTRIBUTES.iter().find(|attribute| attribute.name == *name);
    let Some(Kind::Text(values)) = attribute.map(|attribute| attribute.kind) else { return String::new() };
    let numbered = values.iter().enumerate().map(|(place, value)| format!("{} {value}", place + 1));
    numbered.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_committed_page_is_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/ipfix.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, ipfix_reference()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == ipfix_reference(),
            "docs/reference/ipfix.md is stale: UPDATE=1 cargo test -p mermin-export"
        );
    }

    #[test]
    fn a_closed_set_has_as_many_numbers_as_values() {
        for field in FIELDS.iter().filter(|field| field.greatest > 0) {
            assert_eq!(values(field).split(", ").count(), usize::from(field.greatest), "{}", field.name);
        }
    }
}
