//! Log events: their fields against the attribute table.

use super::*;
use crate::attributes::ATTRIBUTES;
use crate::sample;
use serde_json::Value;
use std::io::Write;
use std::sync::Mutex;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn events() -> Vec<Value> {
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    let mut receipt = Receipt::default();
    tracing::subscriber::with_default(subscriber, || {
        LogEvents::new("log".to_owned(), sample::points()).export(&sample::all(), &mut receipt).unwrap();
    });
    let mut all = Amount::default();
    sample::all().iter().for_each(|record| all += Amount::of(record));
    assert_eq!(receipt.delivered, all);
    let text = sink.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The fields of an event are the attributes of the JSON line, with the same values; lists are joined.
#[test]
fn fields_are_the_records_attributes() {
    let events = events();
    assert_eq!(events.len(), sample::all().len());
    let mut json = crate::JsonLines::new(sample::points());
    for (event, record) in events.iter().zip(sample::all()) {
        assert_eq!((&event["level"], &event["target"]), (&Value::from("INFO"), &Value::from("mermin::flow")));
        let mut line = Vec::new();
        crate::Format::push(&mut json, &record, &mut line);
        let line: Value = serde_json::from_slice(&line).unwrap();
        for attribute in ATTRIBUTES {
            let expected = line.get(attribute.name).map(|value| match value {
                Value::Array(items) => {
                    let hop = |hop: &Value| {
                        let texts = ["interface", "hook"].map(|key| hop[key].as_str());
                        let packets = hop["packets"].to_string();
                        texts.into_iter().flatten().chain([&*packets]).collect::<Vec<_>>().join(" ")
                    };
                    let item = |item: &Value| item.as_str().map_or_else(|| hop(item), str::to_owned);
                    Value::from(items.iter().map(item).collect::<Vec<_>>().join(","))
                }
                other => other.clone(),
            });
            assert_eq!(event["fields"].get(attribute.name), expected.as_ref(), "{}", attribute.name);
        }
    }
    let labels = "k8s.namespace.label.team=a,k8s.pod.annotation.note=b,k8s.pod.label.app=c";
    assert_eq!(events[4]["fields"]["source.k8s.labels"], labels);
    assert_eq!(events[1]["fields"]["message"], "flow end: tcp 10.1.2.3:43210 → 203.0.113.80:443");
    assert_eq!(events[2]["fields"]["message"], "flow update: ipv6-icmp 2001:db8::1:0:0:1 → ::ffff:192.0.2.1");
}
