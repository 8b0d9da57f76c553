//! Gossip among as many nodes as a large cluster has, over a network in memory and a wound clock.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use scatterhoard_cluster::{
    Advert, BoxStream, Datagrams, Gossip, GossipConfig, Leadership, Listener, Network, Secret, View,
};
use scatterhoard_ring::{
    ClusterId, Endpoints, Epoch, Generation, GroupId, NodeId, PartitionId, Standing,
};
use tokio::sync::mpsc;

/// More would take a test too long: 300 see each other after 4.5 s of their own time, which costs 50 s.
const CROWD_COUNT: u16 = 100;

/// In the time of the nodes; ten times what they need.
const PATIENCE: Duration = Duration::from_secs(30);

const PEER: u16 = 17_001;

/// Datagrams that may wait for one node, as a kernel's buffer is bounded.
const WAITING_COUNT_MAX: usize = 64;

type Datagram = (SocketAddr, Vec<u8>);

/// A network that loses nothing until somebody is too slow.
#[derive(Default)]
struct Wire {
    inboxes: Mutex<BTreeMap<SocketAddr, mpsc::Sender<Datagram>>>,
    /// The largest datagram so far.
    bytes_max: AtomicUsize,
}

struct Port {
    at: SocketAddr,
    wire: Arc<Wire>,
    inbox: tokio::sync::Mutex<mpsc::Receiver<Datagram>>,
}

struct WireNet(Arc<Wire>);

impl Network for WireNet {
    fn bind_udp(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        let (sender, inbox) = mpsc::channel(WAITING_COUNT_MAX);
        self.0.inboxes.lock().insert(at, sender);
        let port = Port { at, wire: Arc::clone(&self.0), inbox: tokio::sync::Mutex::new(inbox) };
        async move { Ok(Box::new(port) as Box<dyn Datagrams>) }.boxed()
    }

    fn bind_tcp(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async { Err(io::ErrorKind::Unsupported.into()) }.boxed()
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>> {
        async { Err(io::ErrorKind::Unsupported.into()) }.boxed()
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        async move { host.parse().map(|addr| vec![addr]).map_err(io::Error::other) }.boxed()
    }
}

impl Datagrams for Port {
    fn send_to<'a>(
        &'a self,
        payload: &'a [u8],
        to: SocketAddr,
    ) -> BoxFuture<'a, io::Result<usize>> {
        if let Some(inbox) = self.wire.inboxes.lock().get(&to) {
            let _lost_if_full = inbox.try_send((self.at, payload.to_vec()));
        }
        self.wire.bytes_max.fetch_max(payload.len(), Ordering::Relaxed);
        async move { Ok(payload.len()) }.boxed()
    }

    fn recv_from<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        async move {
            let received = self.inbox.lock().await.recv().await;
            let (from, payload) = received.ok_or(io::ErrorKind::BrokenPipe)?;
            buffer[..payload.len()].copy_from_slice(&payload);
            Ok((payload.len(), from))
        }
        .boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.at)
    }
}

fn address(number: u16, port: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([10, 20, high, low], port))
}

/// Well mixed, so that nothing packs better than it would in earnest.
fn mixed(number: u16, salt: u64) -> u64 {
    let mixed = (u64::from(number) + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

fn advert(number: u16) -> Advert {
    let leads = |place: u16| Leadership {
        group: GroupId::Partition(PartitionId::new(number.wrapping_mul(3) % 1000 + place)),
        generation: Generation::new(1),
        term: mixed(number, 7) % 1000,
    };
    Advert {
        name: format!("cache-{:016x}-{:016x}.example", mixed(number, 1), mixed(number, 2)),
        zone: format!("region-{}-{:08x}", number % 3, mixed(number, 3) as u32),
        version: "0.1.0".to_owned(),
        endpoints: Endpoints {
            peer: address(number, PEER),
            listen: address(number, 7001),
            any_key: address(number, 8001),
            http: address(number, 9001),
        },
        epoch: Epoch { generation: Generation::new(1), index: 123_456 },
        leaderships: (0..4).map(leads).collect(),
        budget_bytes: mixed(number, 4) >> 24,
        standing: Standing::Active,
    }
}

async fn start(wire: &Arc<Wire>, number: u16, seeds: &[SocketAddr]) -> Gossip {
    let at = address(number, PEER);
    let config = GossipConfig {
        cluster: ClusterId::new(1),
        node: NodeId::new(mixed(number, 5)),
        incarnation_ms: 1_700_000_000_000 + u64::from(number),
        advertise: at,
        listen: at,
        seeds: seeds.to_vec(),
        interval: GossipConfig::INTERVAL,
        secret: Secret::parse(b"test").ok(),
    };
    Gossip::start(Arc::new(WireNet(Arc::clone(wire))), config, advert(number)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn in_a_crowd_everyone_sees_everyone_and_a_newcomer_too() {
    let wire = Arc::new(Wire::default());
    let seeds = [address(1, PEER)];
    let mut crowd = Vec::new();
    for number in 1..=CROWD_COUNT {
        crowd.push(start(&wire, number, &seeds).await);
    }
    all_see(&crowd, CROWD_COUNT).await;
    let newcomer = CROWD_COUNT + 1;
    crowd.push(start(&wire, newcomer, &seeds).await);
    all_see(&crowd, newcomer).await;
    let bytes_max = wire.bytes_max.load(Ordering::Relaxed);
    assert!(bytes_max < 32 * 1024, "{bytes_max} bytes: a far larger crowd would not fit");
}

/// Waits until every node sees all numbers up to this one, with what they say of themselves.
async fn all_see(crowd: &[Gossip], last: u16) {
    for gossip in crowd {
        let whole = |view: &Arc<View>| {
            let seen: BTreeSet<_> = view.alive.values().map(|seen| &seen.advert.name).collect();
            view.alive.len() == usize::from(last) && seen.len() == view.alive.len()
        };
        let mut views = gossip.views();
        let seen = tokio::time::timeout(PATIENCE, views.wait_for(whole)).await;
        let view = Arc::clone(&seen.expect("everyone is seen in time").unwrap());
        for number in 1..=last {
            let seen = &view.alive[&NodeId::new(mixed(number, 5))];
            assert_eq!(seen.advert, advert(number));
        }
    }
}
