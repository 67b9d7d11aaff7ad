//! What is in the topic at the end, read by others: messages by kcat, their fields by the numbers of the committed `flow.proto`,
//! batches and bytes in the broker's own files.

use super::agent::Simulated;
use anyhow::{Context, Result, bail, ensure};
use mermin_flow::Amount;
use mermin_tests::servers::kafka::Message;
use prost::bytes::Buf as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// Numbers of the fields that tell whether all is there.
struct Numbers {
    id: u32,
    key: u32,
    packets: [u32; 2],
    bytes: [u32; 2],
}

impl Numbers {
    fn of_the_schema() -> Result<Self> {
        let text =
            std::fs::read_to_string(mermin_tests::need::root().join("schemas/mermin/flow/v1/flow.proto"))?;
        let number = |name: &str| {
            let line = text.lines().find(|line| line.contains(&format!("[json_name = \"{name}\"]")));
            let number = line.and_then(|line| line.split_once(" = ")?.1.split(' ').next()?.parse().ok());
            number.with_context(|| format!("flow.proto has no {name}"))
        };
        Ok(Self {
            id: number("flow.id")?,
            key: number("flow.community_id")?,
            packets: [number("flow.packets.delta")?, number("flow.reverse.packets.delta")?],
            bytes: [number("flow.frame_bytes.delta")?, number("flow.reverse.frame_bytes.delta")?],
        })
    }
}

/// What a message says.
struct Said<'a> {
    id: &'a [u8],
    key: &'a [u8],
    amount: Amount,
}

fn said<'a>(mut value: &'a [u8], numbers: &Numbers) -> Result<Said<'a>> {
    let mut said = Said { id: &[], key: &[], amount: Amount { records: 1, ..Amount::default() } };
    while value.has_remaining() {
        let (number, wire) = decode_key(&mut value)?;
        match wire {
            WireType::Varint if numbers.packets.contains(&number) => {
                said.amount.packets += decode_varint(&mut value)?;
            }
            WireType::Varint if numbers.bytes.contains(&number) => {
                said.amount.bytes += decode_varint(&mut value)?;
            }
            WireType::LengthDelimited if [numbers.id, numbers.key].contains(&number) => {
                let length = usize::try_from(decode_varint(&mut value)?)?;
                let (text, rest) = value.split_at_checked(length).context("a text that is cut off")?;
                value = rest;
                *(if number == numbers.id { &mut said.id } else { &mut said.key }) = text;
            }
            _ => skip_field(wire, number, &mut value, DecodeContext::default())?,
        }
    }
    Ok(said)
}

/// Holds what is in the topic against the agents' books: each record once and whole, under its node's
/// name, each conversation in one partition, each agent's records in order.
///
/// # Errors
/// What is not so.
pub(super) fn compare(messages: &[Message], agents: &[Simulated], partitions: u16) -> Result<()> {
    let numbers = Numbers::of_the_schema()?;
    let mut books: HashMap<&str, Amount> = HashMap::new();
    let mut places: HashMap<&[u8], u32> = HashMap::new();
    let (mut ids, mut used, mut latest) = (HashSet::new(), HashSet::new(), HashMap::new());
    let nodes: HashMap<&str, &str> = agents.iter().map(|agent| (&*agent.id, &*agent.node)).collect();
    for message in messages {
        let value = message.payload.as_deref().context("a message without a value")?;
        let said = said(value, &numbers)?;
        let agent = message.header("agent.id").context("a message without its agent")?;
        *books.entry(agent).or_default() += said.amount;
        let node = message.header("node");
        ensure!(node == nodes.get(agent).copied(), "agent {agent} is on node {node:?}");
        // Each agent's records have later and later times.
        let before = latest.insert((agent, message.partition), message.timestamp);
        ensure!(
            before.is_none_or(|before| before <= message.timestamp),
            "records of {agent} are out of order"
        );
        used.insert(message.partition);
        ensure!(ids.insert(said.id), "flow {} is there twice", String::from_utf8_lossy(said.id));
        ensure!(message.key.as_deref() == Some(said.key), "a message has another key than its record");
        let place = *places.entry(said.key).or_insert(message.partition);
        ensure!(
            place == message.partition,
            "a conversation is in partitions {place} and {}",
            message.partition
        );
    }
    ensure!(used.len() == usize::from(partitions), "only {} partitions have messages", used.len());
    for agent in agents {
        let found = books.remove(agent.id.as_str()).unwrap_or_default();
        ensure!(found == agent.wanted, "of {} there is {found:?}, not {:?}", agent.node, agent.wanted);
    }
    if let Some((agent, amount)) = books.into_iter().next() {
        bail!("of an agent {agent} that is none there is {amount:?}");
    }
    Ok(())
}

/// What a topic takes on disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OnDisk {
    pub(super) bytes: u64,
    pub(super) batches: u64,
}

/// Goes from batch to batch through segments: an offset of 8 bytes, then the length of what follows in 4
/// (<https://kafka.apache.org/documentation/#recordbatch>).
///
/// # Errors
/// A file can't be read.
pub(super) fn on_disk(segments: &[PathBuf]) -> Result<OnDisk> {
    let mut found = OnDisk::default();
    for segment in segments {
        let mut file = BufReader::new(File::open(segment)?);
        let mut head = [0; 12];
        while file.read_exact(&mut head).is_ok() {
            let length = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
            found.batches += 1;
            found.bytes += 12 + u64::from(length);
            file.seek(SeekFrom::Current(i64::from(length)))?;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_counted_by_their_lengths() {
        let folder = tempfile::tempdir().unwrap();
        let segment = folder.path().join("0.log");
        let batch = |length: u8| {
            [&[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, length][..], &vec![7; usize::from(length)]].concat()
        };
        std::fs::write(&segment, [batch(50), batch(3)].concat()).unwrap();
        let found = on_disk(&[segment]).unwrap();
        assert_eq!((found.batches, found.bytes), (2, 12 + 50 + 12 + 3));
    }

    #[test]
    fn fields_are_found_by_the_schema() {
        let numbers = Numbers::of_the_schema().unwrap();
        let mut value = Vec::new();
        prost::encoding::string::encode(numbers.id, &"f".to_owned(), &mut value);
        prost::encoding::uint64::encode(numbers.packets[0], &3, &mut value);
        prost::encoding::uint64::encode(numbers.packets[1], &4, &mut value);
        prost::encoding::uint64::encode(numbers.bytes[1], &500, &mut value);
        prost::encoding::string::encode(9_999, &"unknown".to_owned(), &mut value);
        prost::encoding::string::encode(numbers.key, &"k".to_owned(), &mut value);
        let said = said(&value, &numbers).unwrap();
        assert_eq!((said.id, said.key), (&b"f"[..], &b"k"[..]));
        assert_eq!(said.amount, Amount { records: 1, packets: 7, bytes: 500 });
    }
}
