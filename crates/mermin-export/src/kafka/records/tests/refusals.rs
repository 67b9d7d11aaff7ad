//! What is refused and may pass, clients that can't be made, and messages that a client does not take.

use super::super::super::client::Parcel;
use super::super::super::config::KafkaTls;
use super::super::super::refusal::Obstacle;
use super::*;

const DENIED: Errors = Errors::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;

#[test]
fn a_right_on_the_topic_that_is_missing_is_waited_for() {
    let cluster = cluster();
    cluster.topic_error(TOPIC, DENIED).unwrap();
    let mut output = output(&cluster, |_| {});
    output.patience = Duration::from_secs(60);
    // So many that the client knows before all are handed over.
    let (all, mut receipt) = (records(0..20_000, 100), Receipt::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            output.export(&all, &mut receipt).unwrap();
            output.flush(&mut receipt).unwrap();
        });
        std::thread::sleep(Duration::from_millis(500));
        cluster.topic_error(TOPIC, Errors::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    });
    assert_eq!(receipt, Receipt { delivered: book(&all), ..Receipt::default() });
    assert!(output.delivery.failures.load(Ordering::Relaxed) > 0, "it was denied");
    assert_each_once_in_order(&read(&cluster, all.len()), 0..20_000);
}

#[test]
fn a_right_on_the_topic_that_stays_away_is_told_and_records_are_given_up_for_now() {
    let cluster = cluster();
    cluster.topic_error(TOPIC, DENIED).unwrap();
    let mut output = output(&cluster, |_| {});
    let (all, mut receipt, start) = (records(0..100, 10), Receipt::default(), Instant::now());
    output.export(&all, &mut receipt).unwrap();
    let failure = output.flush(&mut receipt).unwrap_err();
    assert_eq!((failure.reason, receipt.dropped[NO_ACCESS]), (NO_ACCESS, book(&all)));
    assert!(failure.error.to_string().contains("grant Write on the topic"), "{}", failure.error);
    assert!(start.elapsed() >= Duration::from_secs(1), "patience");
    // No storm of clients: 0, 100, 300, 700 and 1 500 ms after the first answer.
    let failures = output.delivery.failures.load(Ordering::Relaxed);
    assert!((3..=12).contains(&failures), "{failures}");
    assert_eq!(receipt.dropped.keys().collect::<Vec<_>>(), [&NO_ACCESS]);
    assert!(output.passing_reasons().contains(&NO_ACCESS), "on disk they are kept");
}

#[test]
fn a_right_that_is_taken_away_and_given_back_costs_no_record() {
    let cluster = cluster();
    let mut output = output(&cluster, |_| {});
    let (all, mut receipt) = (records(0..400, 10), Receipt::default());
    output.export(&all[..200], &mut receipt).unwrap();
    output.flush(&mut receipt).unwrap();
    cluster.request_errors(Api::Produce, &[DENIED]);
    output.export(&all[200..], &mut receipt).unwrap();
    output.flush(&mut receipt).unwrap();
    assert_eq!(receipt, Receipt { delivered: book(&all), ..Receipt::default() });
    let found: BTreeSet<_> = read(&cluster, 400).into_iter().map(|(_, _, sequence)| sequence).collect();
    assert_eq!(found.len(), 400);
}

#[test]
fn a_batch_of_more_than_a_segment_is_sent_in_smaller_ones() {
    let cluster = cluster();
    let mut output = output(&cluster, |_| {});
    cluster.request_errors(Api::Produce, &[Errors::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE]);
    let (all, mut receipt) = (records(0..1_000, 10), Receipt::default());
    output.export(&all, &mut receipt).unwrap();
    output.flush(&mut receipt).unwrap();
    assert_eq!(receipt, Receipt { delivered: book(&all), ..Receipt::default() });
    assert!(output.batch_bytes < 1_000_000);
}

#[test]
fn a_broker_that_is_away_beside_others_that_refuse_hides_nothing() {
    let cluster = cluster();
    let mut output = output(&cluster, |_| {});
    output.patience = Duration::from_millis(50);
    cluster.broker_down(1).unwrap();
    let (all, mut receipt) = (records(0..20, 20), Receipt::default());
    output.export(&all, &mut receipt).unwrap();
    output.ill(&Obstacle::NoAccess("no".to_owned()));
    let condition = output.delivery.condition();
    std::thread::sleep(Duration::from_millis(60));
    output.ill(&Obstacle::Away("refused the connection".to_owned()));
    output.ill(&Obstacle::AllDown("all".to_owned()));
    assert_eq!(output.delivery.condition(), condition);
    // Said once: it may have been the last thing that a broker said before it went away.
    output.judge(&mut receipt).unwrap();
    assert_eq!(receipt, Receipt::default());
    output.ill(&Obstacle::NoAccess("no".to_owned()));
    let failure = output.judge(&mut receipt).unwrap_err();
    assert_eq!((failure.reason, failure.error.to_string().as_str()), (NO_ACCESS, "no"));
    assert_eq!((receipt.dropped[NO_ACCESS], output.window.is_empty()), (book(&all), true));
}

/// An output whose client can't go on, and the records that it holds.
fn broken(cluster: &Cluster) -> Records {
    let error = Errors::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    cluster.request_errors(Api::InitProducerId, &[error; 200]);
    let output = output(cluster, |_| {});
    let until = Instant::now() + Duration::from_secs(20);
    while output.client.fatal_error().is_none() {
        assert!(Instant::now() < until, "it goes on");
        output.client.poll(STEP);
    }
    output
}

#[test]
fn where_no_client_can_be_made_the_end_is_waited_for_and_no_longer() {
    let cluster = cluster();
    let mut output = broken(&cluster);
    // A file that is gone.
    output.config.tls = Some(KafkaTls { ca: Some("/nowhere/ca.pem".into()), ..KafkaTls::default() });
    let interrupter = output.interrupter().unwrap();
    let (all, mut receipt, start) = (records(0..500, 10), Receipt::default(), Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(700));
            interrupter.store(true, Ordering::Release);
        });
        output.export(&all, &mut receipt).unwrap();
        output.flush(&mut receipt).unwrap();
    });
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(10), "{took:?}");
    assert_eq!((&receipt.dropped[TOO_LATE], receipt.dropped.len()), (&book(&all), 1));
    assert_eq!((receipt.delivered, output.settled_in_order()), (Amount::default(), Some(500)));
    assert!(output.window.is_empty() && output.again.is_empty());
}

#[test]
fn a_message_that_a_broken_client_does_not_take_is_kept_for_the_next_one() {
    let cluster = cluster();
    let mut output = broken(&cluster);
    let (all, mut receipt) = (records(0..3, 3), Receipt::default());
    for record in &all {
        output.encoder.value(record);
        let value = output.encoder.written().to_vec();
        let time = message_time(record.end_shown());
        let number = output.window.push(Amount::of(record), time);
        output.again.push(Parcel { number, key: record.community_id.text().to_vec(), value });
    }
    output.resend(&mut receipt).unwrap();
    assert_eq!((output.again.len(), &receipt), (3, &Receipt::default()));
    cluster.clear_request_errors(Api::InitProducerId);
    output.flush(&mut receipt).unwrap();
    assert_eq!(receipt, Receipt { delivered: book(&all), ..Receipt::default() });
    assert_each_once_in_order(&read(&cluster, 3), 0..3);
}

#[test]
fn behind_a_partition_that_takes_nothing_records_wait_at_the_windows_bound() {
    let cluster = cluster();
    cluster.partition_leader(TOPIC, 0, None).unwrap();
    let mut output = output(&cluster, |_| {});
    output.window = Window::new(300);
    let interrupter = output.interrupter().unwrap();
    let (all, mut receipt, start) = (records(0..1_000, 100), Receipt::default(), Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(1_500));
            interrupter.store(true, Ordering::Release);
        });
        output.export(&all, &mut receipt).unwrap();
    });
    assert!(start.elapsed() >= Duration::from_millis(1_500), "it waits");
    let (delivered, dropped) = (receipt.delivered, receipt.dropped[TOO_LATE]);
    assert!((1..300).contains(&delivered.records), "other partitions': {delivered:?}");
    assert_eq!(delivered.records + dropped.records, 1_000);
    assert_eq!(output.settled_in_order(), Some(1_000));
}

#[test]
fn of_a_batch_with_a_time_that_is_refused_one_record_is_dropped() {
    let cluster = cluster();
    let mut output = output(&cluster, |config| config.batch.delay = mermin_flow::Interval::milliseconds(200));
    cluster.request_errors(Api::Produce, &[Errors::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP]);
    // Of one flow, so of one batch.
    let (mut all, mut receipt) = (records(0..200, 1), Receipt::default());
    all[70].end_time = u64::MAX;
    let bad = Amount::of(&all[70]);
    output.export(&all, &mut receipt).unwrap();
    assert_eq!(output.flush(&mut receipt).unwrap_err().reason, REFUSED);
    all.remove(70);
    assert_eq!((receipt.delivered, receipt.dropped[REFUSED]), (book(&all), bad));
    assert_eq!(receipt.dropped.len(), 1);
    let found: BTreeSet<_> = read(&cluster, 199).into_iter().map(|(_, _, sequence)| sequence).collect();
    assert!(found.into_iter().eq((0..200).filter(|sequence| *sequence != 70)));
}
