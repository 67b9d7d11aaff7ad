//! Many agents over one topic of a real broker, and the stream job behind it: `cargo xtask bench fleet`, in small.

use mermin_tests::need;
use mermin_tests::program::plain;
use mermin_tests::servers::flink;
use mermin_tests::servers::kafka::Kafka;

/// The program compares by itself: what is in the topic with the agents' books, and the job's results with both.
#[test]
fn what_two_hundred_agents_send_comes_out_exact_at_every_number_of_partitions() {
    need!(need::captures(), Kafka::installed(), flink::installed());
    let mut fleet = plain(env!("CARGO_BIN_EXE_mermin-bench"));
    fleet.args(["fleet", "--agents", "200", "--partitions", "1,2,4", "--records", "20000"]);
    let output = fleet.args(["--each", "50", "--runs", "1", "--job"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let end = "In all 3 runs each record was in the topic once, and the sums of each agent equal its book, and so do the stream job's results.";
    assert!(said.trim_end().ends_with(end), "{said}");
}
