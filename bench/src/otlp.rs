//! Records encoded and sent to a receiver that throws them away, on a core of its own: what the OTLP output costs.

use crate::core::{busy, pin_to};
use crate::record::record;
use anyhow::{Context, Result, bail};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use mermin_export::otlp::{Environment, OtlpConfig, OtlpPlan};
use mermin_flow::{FlowRecord, Hook, ObservationPoint, ObservationPoints, Receipt};
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
    /// The signal.
    #[arg(long, default_value = "traces", value_parser = ["traces", "logs", "metrics"])]
    signal: String,
    /// Only this protocol.
    #[arg(long, value_parser = ["grpc", "http"])]
    protocol: Option<String>,
    /// Only this compression.
    #[arg(long, value_parser = ["none", "gzip", "zstd"])]
    compression: Option<String>,
}

/// A run of one way.
struct Cost {
    /// CPU time of the thread that encodes and sends.
    busy: f64,
    /// Wall time: that thread has a core of its own, the receiver the other one.
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
        println!("| records | way | records per CPU-second (min–max) | records/s | bytes per record |");
        println!("|---|---|---|---|---|");
        let is_asked = |asked: &Option<String>, one| asked.as_deref().is_none_or(|asked| asked == one);
        let ways: Vec<_> = WAYS
            .into_iter()
            .filter(|way| is_asked(&self.protocol, way.0) && is_asked(&self.compression, way.1))
            .collect();
        for (kind, stock) in &kinds {
            let mut costs: Vec<_> = ways.iter().map(|_| Vec::new()).collect();
            for _ in 0..self.runs {
                for (costs, way) in costs.iter_mut().zip(&ways) {
                    costs.push(self.one(address, *way, stock)?);
                }
            }
            for (costs, (protocol, compression)) in costs.iter_mut().zip(&ways) {
                costs.sort_by(|a: &Cost, b| a.busy.total_cmp(&b.busy));
                let rate = |seconds: f64| self.records as f64 / seconds / 1e6;
                let middle = &costs[costs.len() / 2];
                println!(
                    "| {kind} | {protocol}, {compression} | {:.2} M ({:.2}–{:.2}) | {:.2} M | {:.0} |",
                    rate(middle.busy),
                    rate(costs[costs.len() - 1].busy),
                    rate(costs[0].busy),
                    rate(middle.seconds),
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
        let (began, began_busy) = (Instant::now(), busy());
        let mut sent = 0;
        while sent < self.records {
            for batch in stock.chunks(BATCH) {
                output.export(batch, &mut receipt).map_err(|failure| failure.error)?;
                sent += batch.len() as u64;
            }
        }
        output.flush(&mut receipt).map_err(|failure| failure.error)?;
        let share = self.records as f64 / sent as f64;
        let busy = (busy() - began_busy).as_secs_f64() * share;
        let seconds = began.elapsed().as_secs_f64() * share;
        if receipt.delivered.records != sent || !receipt.dropped.is_empty() {
            bail!("{} of {sent} records were delivered", receipt.delivered.records);
        }
        let bytes = output.delivery().map_or(0, |delivery| delivery.bytes.load(Ordering::Relaxed));
        Ok(Cost { busy, seconds, bytes: bytes * self.records / sent })
    }
}

fn stock(kubernetes: bool) -> Vec<FlowRecord> {
    (0..STOCK).map(|n| record(n, kubernetes)).collect()
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
