//! Flows of captures, and what becomes of them so that each agent has flows of its own.
//!
//! What a record holds decides what it costs, so they are real ones: metered by the agent's own pipeline. What names them is
//! made: addresses, so that no two pairs of agents share a conversation; times, so that the fleet lives in one hour; pods, as
//! captures know none.

use crate::random::Random;
use crate::record::pod;
use anyhow::{Context, Result, bail};
use mermin_capture::file::ReplaySource;
use mermin_flow::{
    Amount, CommunityId, End, Exporter, Failure, FlowConfig, FlowEvent, FlowId, FlowKey, FlowRecord,
    KubernetesEnd, ObservationPoints, Receipt,
};
use mermin_pipeline::{Budget, Hold, PipelineConfig, Stages, start};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Workloads of the fleet.
const WORKLOADS: u64 = 64;
/// Records of one agent are spread over so much time.
const SPAN: u64 = 300_000_000_000;
/// Longer flows are shortened.
const DURATION_MAX: u64 = 30_000_000_000;
/// By how much the second agent of a pair sees a packet later.
const APART: u64 = 200_000;
/// A protocol number.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What agents' records are made of.
pub(super) struct Flows {
    stock: Vec<FlowRecord>,
    pods: Vec<KubernetesEnd>,
    /// When the fleet's first record ends, ns since 1970.
    begin: u64,
}

impl Flows {
    /// Of all captures below a folder: TCP and UDP, of those with one record.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn of(folder: &Path, begin: u64) -> Result<Self> {
        let mut stock = Vec::new();
        for path in captures(folder)? {
            stock.extend(metered(&path)?.into_iter().filter(|record| {
                let has_ports = record.source.port.is_some() && record.destination.port.is_some();
                let is_whole = record.event == FlowEvent::End && record.sequence == 0;
                has_ports && is_whole && matches!(record.protocol, TCP | UDP)
            }));
        }
        if stock.is_empty() {
            bail!("no flows in the captures below {}", folder.display());
        }
        let pods = (0..WORKLOADS).map(|n| pod(&format!("service-{n}"))).collect();
        Ok(Self { stock, pods, begin })
    }

    pub(super) fn len(&self) -> usize {
        self.stock.len()
    }

    /// The record that `agent` has as number `n` of `of`. Agents are in pairs: both see the same conversation, one hop apart.
    pub(super) fn record(&self, agent: u64, n: u64, of: u64) -> FlowRecord {
        let (pair, hop) = (agent / 2, agent % 2);
        // What both have in common, then what each has alone.
        let mut shared = Random::new(pair << 40 | n);
        let mut own = Random::new(agent << 40 | n | 1 << 63);
        let at = (pair.wrapping_mul(7_919) + n) % self.stock.len() as u64;
        let mut record = self.stock[usize::try_from(at).unwrap_or_default()].clone();
        record.id = FlowId(u128::from(own.next()) << 64 | u128::from(own.next()));
        let duration = record.end_time.saturating_sub(record.start_time).min(DURATION_MAX);
        record.end_time = self.begin + SPAN / of * n + hop * APART;
        record.start_time = record.end_time - duration;
        record.counts_from = record.start_time;
        record.clock_ahead = [0; 2];
        let mask = [shared.next(), shared.next()];
        for end in [&mut record.source, &mut record.destination] {
            end.address = moved(end.address, mask);
            let pod = usize::try_from(shared.below(WORKLOADS)).unwrap_or_default();
            end.identity.kubernetes = Some(self.pods[pod].clone());
        }
        let tuple = |end: &End| (end.address, end.port.unwrap_or_default());
        let key = FlowKey::between(record.protocol, [tuple(&record.source), tuple(&record.destination)]);
        record.community_id = CommunityId::of(&key, 0);
        for direction in [&mut record.forward, &mut record.reverse] {
            // Packets lose one on the way to the other host: there first, back the other way round.
            direction.ttl = direction.ttl.map(|_| (64, 64));
        }
        let behind = if hop == 0 { &mut record.reverse } else { &mut record.forward };
        behind.ttl = behind.ttl.map(|_| (63, 63));
        record
    }
}

/// Another address of the same version; what differed before differs after.
fn moved(address: IpAddr, mask: [u64; 2]) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() ^ mask[0] as u32).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() ^ u128::from(mask[0]) << 64 ^ u128::from(mask[1])).into()),
    }
}

/// All captures below a folder, in order.
fn captures(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut folders, mut found) = (vec![folder.to_path_buf()], Vec::new());
    while let Some(folder) = folders.pop() {
        let entries = folder.read_dir().with_context(|| format!("can't read {}", folder.display()))?;
        for path in entries.map(|entry| entry.map(|entry| entry.path())) {
            let path = path?;
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|end| ["pcap", "pcapng", "cap"].iter().any(|one| end == *one))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What the pipeline makes of a capture; what is damaged in it is left out.
fn metered(path: &Path) -> Result<Vec<FlowRecord>> {
    let records = Arc::default();
    let stages = Stages {
        source: ReplaySource::open(&[path.to_path_buf()], Arc::<ObservationPoints>::default())?,
        enricher: None,
        exporters: vec![Box::new(Kept(Arc::clone(&records)))],
        buffers: HashMap::new(),
        output_queue_capacity: 8_192,
        agent_id: String::new(),
        journal: None,
        budget: Budget::default(),
        hold: Hold::default(),
    };
    let outcome = start(&PipelineConfig::default(), &FlowConfig::default(), stages)?.wait(|| false);
    if !outcome.panicked.is_empty() {
        bail!("{}: {:?} panicked", path.display(), outcome.panicked);
    }
    Ok(std::mem::take(&mut *records.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// An output that keeps records.
struct Kept(Arc<Mutex<Vec<FlowRecord>>>);

impl Exporter for Kept {
    fn name(&self) -> &'static str {
        "kept"
    }

    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
        records.iter().for_each(|record| receipt.delivered += Amount::of(record));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(records);
        Ok(())
    }

    fn flush(&mut self, _: &mut Receipt) -> Result<(), Failure> {
        Ok(())
    }
}
