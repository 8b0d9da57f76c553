//! Load on etcd: puts through its v3 API, one HTTP/2 connection per client.
//!
//! gRPC by hand: one message each way is a length and two protobuf fields, which spares a code generator.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::outcome::{Outcome, Tally};
use crate::process;
use crate::workload::{self, Command, Keys, Load, Until};

/// An answer that takes longer ends the run as failed.
const STALL: Duration = Duration::from_secs(15);

/// Runs a load of puts to its end, all clients against one member.
///
/// # Errors
/// If the command is not a set, the pipeline not 1, or a connection breaks or falls silent. Refusals are
/// no errors here: they are counted in the outcome.
pub fn run(load: &Load, address: SocketAddr) -> anyhow::Result<Outcome> {
    ensure!(load.workload.command == Command::Set, "etcd is only put to");
    ensure!(load.pipeline == 1, "one request in flight per client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, drive(load, address))
}

/// What the clients share.
struct Shared {
    keys: Keys,
    requests_left: u64,
    tally: Tally,
}

async fn drive(load: &Load, address: SocketAddr) -> anyhow::Result<Outcome> {
    let mut senders = Vec::new();
    for _ in 0..load.connections {
        senders.push(timeout(STALL, connect(address)).await.context("connecting")??);
    }
    let requests_left = match load.until {
        Until::Requests(requests) => requests,
        Until::Elapsed(_) => u64::MAX,
    };
    let keys = Keys::of(&load.workload);
    let shared = Rc::new(RefCell::new(Shared { keys, requests_left, tally: Tally::new() }));
    let cpu_before = process::own_cpu()?;
    let started = Instant::now();
    let deadline = match load.until {
        Until::Requests(_) => None,
        Until::Elapsed(time) => Some(started + time),
    };
    let value = Bytes::from(workload::value(&load.workload));
    let client = |sender| {
        let client = Client { sender, address, value: value.clone(), shared: shared.clone() };
        tokio::task::spawn_local(client.put_until(deadline))
    };
    let clients: Vec<_> = senders.into_iter().map(client).collect();
    for client in clients {
        client.await??;
    }
    let ended = Instant::now();
    let cpu = process::own_cpu()?.saturating_sub(cpu_before);
    Ok(shared.borrow().tally.close(ended - started, cpu))
}

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::handshake(stream).await?;
    // Ends when its client drops the sender; a failure shows there as a failed request.
    tokio::task::spawn_local(connection);
    Ok(sender)
}

struct Client {
    sender: SendRequest<Bytes>,
    address: SocketAddr,
    value: Bytes,
    shared: Rc<RefCell<Shared>>,
}

impl Client {
    async fn put_until(mut self, deadline: Option<Instant>) -> anyhow::Result<()> {
        loop {
            let sent = Instant::now();
            let key = {
                let mut shared = self.shared.borrow_mut();
                if shared.requests_left == 0 || deadline.is_some_and(|deadline| sent >= deadline) {
                    return Ok(());
                }
                shared.requests_left -= 1;
                shared.keys.draw().bytes()
            };
            let message = put_request(&key, &self.value);
            let refusal = timeout(STALL, self.put(message)).await.context("no answer")??;
            let mut shared = self.shared.borrow_mut();
            shared.tally.answered(1, sent.elapsed());
            if let Some(status) = refusal {
                shared.tally.refused(&format!("GRPC-{status}"));
            }
        }
    }

    /// Puts, and returns the gRPC status if it is not 0, which is "ok".
    async fn put(&mut self, message: Bytes) -> anyhow::Result<Option<String>> {
        let request = Request::post(format!("http://{}/etcdserverpb.KV/Put", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let sender = &mut self.sender;
        std::future::poll_fn(|context| sender.poll_ready(context)).await?;
        let (response, mut body) = sender.send_request(request, false)?;
        body.send_data(message, true)?;
        let response = response.await?;
        ensure!(response.status() == 200, "HTTP status {}", response.status());
        if let Some(status) = status_of(response.headers()) {
            return Ok(refusal(status));
        }
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data?.len())?;
        }
        let trailers = body.trailers().await?.context("an answer without trailers")?;
        Ok(refusal(status_of(&trailers).context("an answer without a status")?))
    }
}

fn status_of(headers: &HeaderMap) -> Option<&str> {
    headers.get("grpc-status")?.to_str().ok()
}

fn refusal(status: &str) -> Option<String> {
    (status != "0").then(|| status.to_owned())
}

/// A `PutRequest { key = 1, value = 2 }` (etcd `rpc.proto`) in a gRPC frame: not compressed, length.
fn put_request(key: &[u8], value: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(key.len() + value.len() + 16);
    message.put_slice(&[0; 5]);
    put_field(&mut message, 1, key);
    put_field(&mut message, 2, value);
    let length = u32::try_from(message.len() - 5).expect("values are far below 4 GiB");
    message[1..5].copy_from_slice(&length.to_be_bytes());
    message.freeze()
}

/// A length-delimited protobuf field.
fn put_field(message: &mut BytesMut, number: u8, bytes: &[u8]) {
    message.put_u8(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        message.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.put_u8(length as u8);
    message.put_slice(bytes);
}

#[cfg(test)]
mod tests;
