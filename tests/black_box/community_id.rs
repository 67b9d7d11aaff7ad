//! Community IDs equal the published ones.

use mermin_tests::need;
use mermin_tests::need::captures;
use mermin_tests::program::Program;
use std::collections::BTreeSet;

#[test]
fn equal_the_published_baseline() {
    need!(captures());
    let folder = captures().unwrap().join("wireshark");
    let expected = std::fs::read_to_string(folder.join("communityid.txt")).unwrap();
    let expected: BTreeSet<&str> = expected.lines().filter(|line| !line.is_empty()).collect();
    let outcome = Program::replay(&[&folder.join("communityid.pcap.gz")]).run().kept(0);
    let records = outcome.records();
    let got: BTreeSet<&str> = records.iter().map(|record| record.text("flow.community_id")).collect();
    assert!(expected.len() > 10, "the baseline is there");
    let (missing, extra): (Vec<_>, Vec<_>) =
        (expected.difference(&got).collect(), got.difference(&expected).collect());
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, not published {extra:?}");
}
