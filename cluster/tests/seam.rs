//! The crate over a network of our own, on a wound clock: what real sockets do too rarely to test.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use scatterhoard_cluster::{
    Advert, BoxStream, CallError, Caller, Datagrams, Gossip, GossipConfig, Identity, Lane, Limits,
    Listener, Network, Peers, ReplyTo, Service, Target, View,
};
use scatterhoard_ring::{ClusterId, Endpoints, Epoch, NodeId, Standing};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

type Accepted = io::Result<(BoxStream, SocketAddr)>;
type Datagram = (Vec<u8>, SocketAddr);

/// A network in memory. Connecting to where nobody listens hangs, as it does behind a cut.
#[derive(Clone, Default)]
struct Memory {
    listeners: Arc<Mutex<BTreeMap<SocketAddr, mpsc::UnboundedSender<Accepted>>>>,
    sockets: Arc<Mutex<BTreeMap<SocketAddr, mpsc::UnboundedSender<Datagram>>>>,
}

struct MemoryListener(SocketAddr, mpsc::UnboundedReceiver<Accepted>);

struct MemorySocket {
    addr: SocketAddr,
    network: Memory,
    arrived: tokio::sync::Mutex<mpsc::UnboundedReceiver<Datagram>>,
}

impl Network for Memory {
    fn bind_tcp(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        let (sender, accepted) = mpsc::unbounded_channel();
        self.listeners.lock().insert(addr, sender);
        async move { Ok(Box::new(MemoryListener(addr, accepted)) as Box<dyn Listener>) }.boxed()
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>> {
        async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let listener = self.listeners.lock().get(&addr).cloned();
            match listener {
                Some(listener) => listener.send(Ok((Box::new(far), addr))).unwrap(),
                None => std::future::pending().await,
            }
            Ok(Box::new(near) as BoxStream)
        }
        .boxed()
    }

    fn bind_udp(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        let (sender, arrived) = mpsc::unbounded_channel();
        self.sockets.lock().insert(addr, sender);
        let (network, arrived) = (self.clone(), tokio::sync::Mutex::new(arrived));
        let socket = MemorySocket { addr, network, arrived };
        async move { Ok(Box::new(socket) as Box<dyn Datagrams>) }.boxed()
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        async move { host.parse().map(|addr| vec![addr]).map_err(io::Error::other) }.boxed()
    }
}

impl Listener for MemoryListener {
    fn accept(&mut self) -> BoxFuture<'_, Accepted> {
        async { self.1.recv().await.expect("the network outlives its listeners") }.boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0)
    }
}

impl Datagrams for MemorySocket {
    fn send_to<'a>(
        &'a self,
        payload: &'a [u8],
        to: SocketAddr,
    ) -> BoxFuture<'a, io::Result<usize>> {
        if let Some(socket) = self.network.sockets.lock().get(&to) {
            let _ = socket.send((payload.to_vec(), self.addr));
        }
        async { Ok(payload.len()) }.boxed()
    }

    fn recv_from<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        async {
            let next = self.arrived.lock().await.recv().await;
            let (payload, from) = next.expect("the network outlives its sockets");
            buffer[..payload.len()].copy_from_slice(&payload);
            Ok((payload.len(), from))
        }
        .boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

struct Echo;

impl Service for Echo {
    fn handle(&self, _caller: Caller, _kind: u8, body: Bytes, reply: ReplyTo) {
        reply.send(body);
    }
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

fn peers(net: &Memory, node: u64) -> Peers {
    let identity = Identity {
        cluster: ClusterId::new(1),
        node: NodeId::new(node),
        secret: None,
        build: String::new(),
    };
    Peers::new(Arc::new(net.clone()), identity, Limits::default(), CancellationToken::new())
}

async fn call(peers: &Peers, port: u16, within: Duration) -> Result<Bytes, CallError> {
    let to = Target { node: NodeId::new(2), addr: addr(port) };
    let body = Bytes::from_static(b"hello");
    peers.call(to, Lane::Control, 1, body, Instant::now() + within).await
}

#[tokio::test(start_paused = true)]
async fn a_listener_outlives_failed_accepts() {
    let net = Memory::default();
    let (a, b) = (peers(&net, 1), peers(&net, 2));
    let listener = net.bind_tcp(addr(1)).await.unwrap();
    let errors = net.listeners.lock()[&addr(1)].clone();
    for _ in 0..10 {
        errors.send(Err(io::Error::other("too many open files"))).unwrap();
    }
    let began = Instant::now();
    tokio::spawn(async move { b.serve(listener, Arc::new(Echo)).await });
    assert_eq!(call(&a, 1, Duration::from_secs(30)).await.unwrap_err().to_string(), {
        "not sent: 10.0.0.1:1: the handshake took too long"
    });
    assert_eq!(
        call(&a, 1, Duration::from_secs(30)).await.unwrap_err().to_string(),
        { "not sent: 10.0.0.1:1: the handshake took too long" },
        "and fails at once just after that"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(call(&a, 1, Duration::from_secs(30)).await.unwrap(), "hello");
    // Ten pauses, from 50 ms up to a second: it did not spin.
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn connecting_that_hangs_is_given_up() {
    let net = Memory::default();
    let a = peers(&net, 1);
    let began = Instant::now();
    let first = call(&a, 1, Duration::from_millis(500)).await;
    assert_eq!(first, Err(CallError::Deadline { sent: false }));
    assert_eq!(began.elapsed().as_millis(), 500);
    let second = call(&a, 1, Duration::from_secs(30)).await.unwrap_err();
    assert_eq!(second.to_string(), "not sent: 10.0.0.1:1: connecting took too long");
    // Each further failure doubles the time in which calls fail at once.
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let failed = Instant::now();
        while call(&a, 1, Duration::from_millis(1)).await
            != Err(CallError::Deadline { sent: false })
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        pauses.push(failed.elapsed().as_millis());
        let _ = call(&a, 1, Duration::from_secs(30)).await;
    }
    for (pause, expected) in pauses.iter().zip([50, 100, 200, 400, 800, 1000]) {
        assert!((expected - 10..expected + 10).contains(pause), "{pauses:?}");
    }
}

async fn gossip(net: &Memory, node: u16) -> Gossip {
    let config = GossipConfig {
        cluster: ClusterId::new(1),
        node: NodeId::new(u64::from(node)),
        incarnation_ms: 1,
        advertise: addr(node),
        listen: addr(node),
        seeds: vec![addr(1)],
        interval: GossipConfig::INTERVAL,
        secret: None,
    };
    let ends = Endpoints { peer: addr(1), listen: addr(2), any_key: addr(3), http: addr(4) };
    let advert = Advert {
        name: format!("n{node}"),
        zone: String::new(),
        version: String::new(),
        endpoints: ends,
        epoch: Epoch::default(),
        leaderships: Vec::new(),
        budget_bytes: 0,
        standing: Standing::Active,
    };
    Gossip::start(Arc::new(net.clone()), config, advert).await.unwrap()
}

async fn until_alive(views: &mut watch::Receiver<Arc<View>>, count: usize) {
    let seen = views.wait_for(|view| view.alive.len() == count);
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("it is seen").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_death_is_seen_within_three_seconds_and_a_pause_is_none() {
    let net = Memory::default();
    let nodes = [gossip(&net, 1).await, gossip(&net, 2).await, gossip(&net, 3).await];
    let mut views = nodes[0].views();
    until_alive(&mut views, 3).await;
    // Long enough for the detector to know how often heartbeats come.
    tokio::time::sleep(Duration::from_secs(30)).await;

    for pause in [1, 5, 60] {
        views.mark_unchanged();
        tokio::time::advance(Duration::from_secs(pause)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!views.has_changed().unwrap(), "a pause of {pause} s: {:?}", views.borrow());
    }

    let [first, _second, third] = nodes;
    net.sockets.lock().remove(&addr(3));
    drop(third);
    let died = Instant::now();
    until_alive(&mut views, 2).await;
    let seen_after = died.elapsed();
    assert!(seen_after >= Duration::from_secs(2), "{seen_after:?}");
    assert!(seen_after <= Duration::from_millis(3200), "{seen_after:?}");
    drop(first);
}
