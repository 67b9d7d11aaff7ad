//! Records encoded and sent to a receiver that throws them away, on a core of its own: what the OTLP output costs.

use anyhow::{Context, Result, bail};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use mermin_export::otlp::{Environment, OtlpConfig, OtlpPlan};
use mermin_flow::{
    CommunityId, Counts, Direction, End, Enrichment, FlowDirection, FlowEndReason, FlowEvent, FlowId,
    FlowRecord, Hook, Identity, Initiator, KubernetesAttribute, KubernetesEnd, KubernetesObject,
    ObservationPoint, ObservationPoints, Receipt, Resolution, Tally, TcpState,
};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

/// Records that are made beforehand and sent again and again.
const STOCK: u64 = 4_096;

/// What an output gets at a time.
const BATCH: usize = 256;

/// Sends records to a discarding receiver by every way, by turns, and prints a table.
#[derive(clap::Args)]
pub(crate) struct Otlp {
    /// Records of each run.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Runs of each way.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// The signal: traces, logs or metrics.
    #[arg(long, default_value = "traces")]
    signal: String,
}

/// A run of one way.
struct Cost {
    /// Of the thread that encodes and sends, which has a core of its own.
    seconds: f64,
    bytes: u64,
}

const WAYS: [(&str, &str); 6] = [
    ("grpc", "none"),
    ("grpc", "gzip"),
    ("grpc", "zstd"),
    ("http", "none"),
    ("http", "gzip"),
    ("http", "zstd"),
];

impl Otlp {
    pub(crate) fn run(self) -> Result<()> {
        let address = receiver()?;
        pin_to(0);
        let kinds = [("of a host", stock(false)), ("with Kubernetes", stock(true))];
        println!("| records | way | records/s (min–max) | bytes per record |\n|---|---|---|---|");
        for (kind, stock) in &kinds {
            let mut costs: [Vec<Cost>; WAYS.len()] = [const { Vec::new() }; WAYS.len()];
            for _ in 0..self.runs {
                for (costs, way) in costs.iter_mut().zip(WAYS) {
                    costs.push(self.one(address, way, stock)?);
                }
            }
            for (costs, (protocol, compression)) in costs.iter_mut().zip(WAYS) {
                costs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
                let rate = |cost: &Cost| self.records as f64 / cost.seconds / 1e6;
                let middle = &costs[costs.len() / 2];
                println!(
                    "| {kind} | {protocol}, {compression} | {:.2} M ({:.2}–{:.2}) | {:.0} |",
                    rate(middle),
                    rate(&costs[costs.len() - 1]),
                    rate(&costs[0]),
                    middle.bytes as f64 / self.records as f64
                );
            }
        }
        Ok(())
    }

    fn one(
        &self,
        address: SocketAddr,
        (protocol, compression): (&str, &str),
        stock: &[FlowRecord],
    ) -> Result<Cost> {
        let config = format!(
            r#"{{"endpoint": "http://{address}", "protocol": "{protocol}", "compression": "{compression}",
                "signals": ["{}"]}}"#,
            self.signal
        );
        let config: OtlpConfig = serde_json::from_str(&config)?;
        let points = Arc::new(ObservationPoints::default());
        points.number(ObservationPoint {
            interface: Some("eth0".into()),
            index: Some(2),
            hook: Some(Hook::Egress),
        });
        let mut outputs = OtlpPlan::new(&config, &Environment::default())?.open(&points)?;
        let output = outputs.first_mut().context("one signal, one output")?;
        let mut receipt = Receipt::default();
        let began = Instant::now();
        let mut sent = 0;
        while sent < self.records {
            for batch in stock.chunks(BATCH) {
                output.export(batch, &mut receipt).map_err(|failure| failure.error)?;
                sent += batch.len() as u64;
            }
        }
        output.flush(&mut receipt).map_err(|failure| failure.error)?;
        let seconds = began.elapsed().as_secs_f64() * self.records as f64 / sent as f64;
        if receipt.delivered.records != sent || !receipt.dropped.is_empty() {
            bail!("{} of {sent} records were delivered", receipt.delivered.records);
        }
        let bytes = output.delivery().map_or(0, |delivery| delivery.bytes.load(Ordering::Relaxed));
        Ok(Cost { seconds, bytes: bytes * self.records / sent })
    }
}

/// Keeps this thread on one core, where there are two.
fn pin_to(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    if sched_setaffinity(None, &set).is_err() {
        eprintln!("core {core} can't be had: figures are of whatever core the kernel chooses");
    }
}

fn stock(kubernetes: bool) -> Vec<FlowRecord> {
    (0..STOCK).map(|n| record(n, kubernetes)).collect()
}

fn record(n: u64, kubernetes: bool) -> FlowRecord {
    let counts = Counts { packets: 17 + n, bytes: 12_345 + n * 97, frame_bytes: 12_583 + n * 97 };
    let direction = Direction {
        delta: counts,
        total: counts,
        tcp_flags: Some(0x1b),
        ttl: Some((63, 64)),
        traffic_class: Some(0),
    };
    let end = |address: [u8; 4], port, name: &str| End {
        address: address.into(),
        port: Some(port),
        mac: Some([2, 0, 0, 0, 0, 9]),
        identity: Identity { name: None, kubernetes: kubernetes.then(|| pod(name)) },
    };
    let [.., high, low] = n.to_be_bytes();
    FlowRecord {
        id: FlowId(u128::from(n + 1) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834),
        sequence: 0,
        community_id: CommunityId([low; 20]),
        event: FlowEvent::End,
        end_reason: Some(FlowEndReason::EndOfFlowDetected),
        start_time: 1_767_225_599_987_654_321 + n * 71_234_567,
        end_time: 1_767_225_609_987_654_321 + n * 71_234_567,
        protocol: 6,
        source: end([10, 12, high, low], 40_000, "client"),
        destination: end([203, 0, 113, low], 443, "server"),
        initiator: Initiator::Syn,
        enrichment: Enrichment { direction: kubernetes.then_some(FlowDirection::Outbound), degraded: None },
        icmp: None,
        forward: direction,
        reverse: direction,
        tcp_state: TcpState::TimeWait,
        vlan: None,
        inner_vlan: None,
        point: 0,
        shard: 0,
        tally: Tally { packets: 2 * counts.packets, bytes: 2 * counts.frame_bytes, ..Tally::ZERO },
    }
}

/// A pod of a deployment, with two labels.
fn pod(name: &str) -> KubernetesEnd {
    use KubernetesAttribute::{
        DeploymentName, DeploymentUid, NamespaceName, NodeName, NodeUid, PodName, PodUid, ReplicaSetName,
        ReplicaSetUid,
    };
    let uid = "0c1a5f7e-3b2d-4c6e-9f80-1a2b3c4d5e6f";
    let attributes = [
        (NamespaceName, "shop".to_owned()),
        (PodName, format!("{name}-7d4b9c6f5-x2x4z")),
        (PodUid, uid.to_owned()),
        (NodeName, "node-17".to_owned()),
        (NodeUid, uid.to_owned()),
        (DeploymentName, name.to_owned()),
        (DeploymentUid, uid.to_owned()),
        (ReplicaSetName, format!("{name}-7d4b9c6f5")),
        (ReplicaSetUid, uid.to_owned()),
    ];
    let labels = [("k8s.pod.label.app", name), ("k8s.pod.label.team", "checkout")];
    let object = KubernetesObject {
        attributes: attributes.into_iter().map(|(key, value)| (key, value.into())).collect(),
        labels: labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
    };
    KubernetesEnd {
        resolution: Resolution::Exact,
        object: Some(Arc::new(object)),
        container: Some("app".into()),
        service: None,
    }
}

/// Starts the receiver on the other core: reads requests to their end and takes them.
fn receiver() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        pin_to(1);
        runtime.block_on(serve(listener))
    });
    Ok(address)
}

async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http2().initial_stream_window_size(4 << 20).initial_connection_window_size(16 << 20);
            // Ends with the run that made the connection.
            drop(builder.serve_connection(TokioIo::new(stream), service_fn(discard)).await);
        });
    }
}

async fn discard(request: Request<Incoming>) -> Result<Response<Taken>, hyper::Error> {
    let grpc = request.headers().get("content-type").is_some_and(|kind| kind == "application/grpc");
    let mut body = pin!(request.into_body());
    while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
        frame?;
    }
    let mut response = Response::new(if grpc { Taken::Message } else { Taken::End });
    let kind = if grpc { "application/grpc" } else { "application/x-protobuf" };
    response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    Ok(response)
}

/// The answer to a request that was taken: for gRPC an empty message and its status, for HTTP nothing.
enum Taken {
    Message,
    Status,
    End,
}

impl Body for Taken {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(match *self {
            Self::Message => {
                *self = Self::Status;
                Some(Ok(Frame::data(Bytes::from_static(&[0; 5]))))
            }
            Self::Status => {
                *self = Self::End;
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Some(Ok(Frame::trailers(trailers)))
            }
            Self::End => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::End)
    }
}
