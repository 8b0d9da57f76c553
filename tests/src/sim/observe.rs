//! What nodes say about themselves and the cluster, over their admin interface.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use turmoil::net::TcpStream;

use super::node::HTTP;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// One node's word on the cluster.
#[derive(Clone, Debug)]
pub(super) struct Status(Value);

/// One node's word on one partition.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) leader: Option<String>,
    pub(super) term: Option<u64>,
    pub(super) voters: BTreeSet<String>,
    pub(super) learners: BTreeSet<String>,
    pub(super) keys: Option<u64>,
    pub(super) generation: u64,
}

/// Asks a node; `None` if it does not answer, or is no member.
pub(super) async fn ask(node: IpAddr) -> Option<Status> {
    let page =
        timeout(PATIENCE, get(SocketAddr::new(node, HTTP), "/api/status")).await.ok()?.ok()?;
    let body = page.split_once("\r\n\r\n")?.1;
    let value: Value = serde_json::from_str(body).ok()?;
    (!value["cluster"].is_null()).then_some(Status(value))
}

/// What a node tells Prometheus; `None` if it does not answer.
pub(super) async fn metrics(node: IpAddr) -> Option<String> {
    timeout(PATIENCE, get(SocketAddr::new(node, HTTP), "/metrics")).await.ok()?.ok()
}

/// Asks a node to see to it that a member leaves. Whether it will is seen when that has gone.
pub(super) async fn drain(node: IpAddr, name: &str) -> bool {
    let path = format!("/api/drain?node={name}");
    let asked = timeout(PATIENCE, ask_for(SocketAddr::new(node, HTTP), "POST", &path)).await;
    matches!(asked, Ok(Ok(page)) if page.starts_with("HTTP/1.1 202"))
}

async fn get(addr: SocketAddr, path: &str) -> std::io::Result<String> {
    ask_for(addr, "GET", path).await
}

async fn ask_for(addr: SocketAddr, method: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page).await?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

impl Status {
    pub(super) fn name(&self) -> &str {
        self.0["name"].as_str().unwrap_or_default()
    }

    pub(super) fn node(&self) -> &str {
        self.0["node"].as_str().unwrap_or_default()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.0["ready"] == Value::Bool(true)
    }

    pub(super) fn cluster(&self) -> &str {
        self.0["cluster"].as_str().unwrap_or_default()
    }

    /// The name of the council's leader, as far as it is known there.
    pub(super) fn council_leader(&self) -> Option<&str> {
        self.0["council"]["leader"].as_str()
    }

    /// The groups of which the node keeps a replica whose core died, and why it is not replaced.
    pub(super) fn dead(&self) -> Vec<(String, Option<String>)> {
        let dead = self.0["dead"].as_array().into_iter().flatten();
        let told = |dead: &Value| {
            let reason = dead["not_replaced_because"].as_str().map(str::to_owned);
            Some((dead["group"].as_str()?.to_owned(), reason))
        };
        dead.filter_map(told).collect()
    }

    /// How many Raft cores have died on the node in this life.
    pub(super) fn deaths_count(&self) -> u64 {
        self.0["died"].as_u64().unwrap_or(0)
    }

    /// The names of who should be in the council.
    pub(super) fn councillors(&self) -> BTreeSet<String> {
        names(&self.0["council"]["voters"])
    }

    /// The epoch of its newest table.
    pub(super) fn epoch(&self) -> &str {
        self.0["epoch"].as_str().unwrap_or_default()
    }

    /// Which founding of the council the newest table is of.
    pub(super) fn council_generation(&self) -> u64 {
        self.epoch().split('.').next().and_then(|generation| generation.parse().ok()).unwrap_or(0)
    }

    /// The members' node ids.
    pub(super) fn members(&self) -> BTreeSet<String> {
        let members = self.0["members"].as_array().into_iter().flatten();
        members.filter_map(|member| member["node"].as_str().map(str::to_owned)).collect()
    }

    /// Every partition, with the first and the last of its slots.
    pub(super) fn partitions(&self) -> Vec<((u64, u64), Seen)> {
        let partitions = self.0["partitions"].as_array().into_iter().flatten();
        let of = |partition: &Value| {
            let slots = &partition["slots"];
            let seen = Seen {
                leader: partition["leader"].as_str().map(str::to_owned),
                term: partition["term"].as_u64(),
                voters: names(&partition["voters"]),
                learners: names(&partition["learners"]),
                keys: partition["keys"].as_u64(),
                generation: partition["generation"].as_u64().unwrap_or(0),
            };
            ((slots[0].as_u64().unwrap_or(0), slots[1].as_u64().unwrap_or(0)), seen)
        };
        partitions.map(of).collect()
    }

    /// The partition of a slot.
    pub(super) fn at(&self, slot: u64) -> Option<Seen> {
        let mut partitions = self.partitions().into_iter();
        partitions.find(|((first, last), _)| (*first..=*last).contains(&slot)).map(|(_, seen)| seen)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

fn names(value: &Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
