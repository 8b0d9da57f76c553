//! What a call costs: round-trip time, and CPU time of both ends together, over loopback.
//!
//! `cargo run --release -p scatterhoard-cluster --example call_cost [-- THREADS]`

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use scatterhoard_cluster::{
    Caller, Identity, Lane, Limits, Network, Peers, ReplyTo, Service, SystemNet, Target,
};
use scatterhoard_ring::{ClusterId, NodeId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

struct Echo;

impl Service for Echo {
    fn handle(&self, _caller: Caller, _kind: u8, _body: Bytes, reply: ReplyTo) {
        reply.send(Bytes::from_static(b"0123456789abcdef"));
    }
}

fn main() {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut builder = if threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.worker_threads(threads).enable_all().build();
    runtime.expect("a runtime can be had").block_on(measure());
}

async fn measure() {
    let shutdown = CancellationToken::new();
    let peers = |node| {
        let identity = Identity {
            cluster: ClusterId::new(1),
            node: NodeId::new(node),
            secret: None,
            build: String::new(),
        };
        Peers::new(Arc::new(SystemNet), identity, Limits::default(), shutdown.clone())
    };
    let (caller, called) = (peers(1), peers(2));
    let listener = SystemNet.bind_tcp(SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let listener = listener.expect("loopback can be bound");
    let addr = listener.local_addr().expect("a bound listener has an address");
    let serving = tokio::spawn(async move { called.serve(listener, Arc::new(Echo)).await });
    let to = Target { node: NodeId::new(2), addr };
    println!(
        "{:>9} {:>9} {:>9} {:>11} {:>11}",
        "in flight", "body", "calls/s", "µs per call", "CPU µs/call"
    );
    for (in_flight, bytes, calls) in [
        (1, 200, 50_000),
        (8, 200, 200_000),
        (64, 200, 500_000),
        (1, 16 << 10, 20_000),
        (8, 64 << 10, 20_000),
        (4, 4 << 20, 200),
    ] {
        round(&caller, to, in_flight, bytes, calls).await;
    }
    shutdown.cancel();
    serving.await.expect("serving does not panic");
}

async fn round(peers: &Peers, to: Target, in_flight: usize, bytes: usize, calls: u32) {
    let body = Bytes::from(vec![7; bytes]);
    let lane = if bytes > 64 << 10 { Lane::Bulk } else { Lane::Control };
    let call = || {
        let deadline = Instant::now() + Duration::from_secs(10);
        peers.call(to, lane, 1, body.clone(), deadline)
    };
    call().await.expect("the first call connects");
    let (began, cpu) = (Instant::now(), cpu_time());
    let mut under_way: FuturesOrdered<_> = (0..in_flight).map(|_| call()).collect();
    for n in 0..calls {
        under_way.next().await.expect("calls are under way").expect("loopback answers");
        if n as usize + in_flight < calls as usize {
            under_way.push_back(call());
        }
    }
    let (took, cpu) = (began.elapsed(), cpu_time() - cpu);
    let per_call = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(calls);
    let rate = f64::from(calls) / took.as_secs_f64();
    let latency = per_call(took) * in_flight as f64;
    println!("{in_flight:>9} {bytes:>9} {rate:>9.0} {latency:>11.1} {:>11.2}", per_call(cpu));
}

/// CPU time of this process, user and system: fields 14 and 15 of `/proc/self/stat`, in 1/100 s.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}
