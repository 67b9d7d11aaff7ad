//! How long what has ended is remembered: records of it come later.

use mermin_flow::FlowConfig;
use std::time::Duration;

/// Beyond the longest time that a record needs: events come late, too.
const SPARE: Duration = Duration::from_secs(60);

/// The longest time from a packet to the question about a record that counts it, where records wait for `wait` at most.
pub(crate) fn retention(wait: Duration, flow: &FlowConfig) -> Duration {
    let idle =
        [flow.idle_timeout, flow.udp_timeout, flow.icmp_timeout, flow.tcp_fin_timeout, flow.tcp_rst_timeout];
    let idle = idle.into_iter().map(|timeout| timeout.0).max().unwrap_or_default();
    flow.active_timeout.0 + idle + wait + SPARE
}
