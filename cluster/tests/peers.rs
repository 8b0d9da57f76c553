//! Peers over real sockets: what arrives, in which order, and what is said when it does not.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use scatterhoard_cluster::{
    CallError, Caller, Identity, Lane, Limits, Network, Peers, ReplyTo, Secret, Service, SystemNet,
    Target,
};
use scatterhoard_ring::{ClusterId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Kinds of the test service.
const ECHO: u8 = 1;
const HOLD: u8 = 2;
const DROP: u8 = 3;
const REFUSE: u8 = 4;
const NOTE: u8 = 5;

/// Answers by kind, and remembers what it was asked.
#[derive(Default)]
struct Desk {
    asked: Mutex<Vec<(u8, usize, u8)>>,
    held: Mutex<Vec<ReplyTo>>,
    callers: Mutex<Vec<Caller>>,
    closed: Mutex<Vec<u64>>,
    changed: Notify,
}

impl Service for Desk {
    fn handle(&self, caller: Caller, kind: u8, body: Bytes, reply: ReplyTo) {
        self.asked.lock().push((kind, body.len(), body.first().copied().unwrap_or_default()));
        self.callers.lock().push(caller);
        match kind {
            ECHO => reply.send(body),
            HOLD => self.held.lock().push(reply),
            DROP => drop(reply),
            REFUSE => reply.refuse("not here"),
            _ => {}
        }
        self.changed.notify_one();
    }

    fn closed(&self, connection: u64) {
        self.closed.lock().push(connection);
        self.changed.notify_one();
    }
}

impl Desk {
    async fn until(&self, what: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !what(self) {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("it happens in time");
    }
}

struct Node {
    id: NodeId,
    addr: SocketAddr,
    peers: Peers,
    desk: Arc<Desk>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

fn identity(number: u64) -> Identity {
    Identity {
        cluster: ClusterId::new(1),
        node: NodeId::new(number),
        secret: None,
        build: "0.1.0".to_owned(),
    }
}

async fn start(identity: Identity, limits: Limits, addr: SocketAddr) -> Node {
    let shutdown = CancellationToken::new();
    let id = identity.node;
    let peers = Peers::new(Arc::new(SystemNet), identity, limits, shutdown.clone());
    let listener = SystemNet.bind_tcp(addr).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let desk = Arc::new(Desk::default());
    let serving = tokio::spawn({
        let (peers, desk) = (peers.clone(), Arc::clone(&desk));
        async move { peers.serve(listener, desk).await }
    });
    Node { id, addr, peers, desk, shutdown, serving }
}

async fn node(number: u64) -> Node {
    start(identity(number), Limits::default(), SocketAddr::from(([127, 0, 0, 1], 0))).await
}

impl Node {
    fn target(&self) -> Target {
        Target { node: self.id, addr: self.addr }
    }

    async fn call(&self, to: Target, kind: u8, body: Bytes) -> Result<Bytes, CallError> {
        self.peers.call(to, Lane::Control, kind, body, Instant::now() + PATIENCE).await
    }

    async fn echo(&self, to: Target) -> Result<Bytes, CallError> {
        self.call(to, ECHO, Bytes::from_static(b"hello")).await
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap();
        self.peers.ended().await;
    }
}

fn body(first: u8, bytes: usize) -> Bytes {
    let mut body = vec![7; bytes];
    body[0] = first;
    body.into()
}

#[tokio::test]
async fn a_call_is_answered_and_both_ends_know_each_other() {
    let (a, b) = (node(1).await, node(2).await);
    assert!(!a.peers.connected(b.id));
    assert_eq!(a.echo(b.target()).await.unwrap(), "hello");
    assert!(a.peers.connected(b.id) && b.peers.connected(a.id));
    let caller = b.desk.callers.lock()[0];
    assert_eq!((caller.node, caller.lane), (a.id, Lane::Control));

    // Whoever is there may be asked too.
    let anyone = Target { node: NodeId::new(0), addr: b.addr };
    assert_eq!(a.echo(anyone).await.unwrap(), "hello");
    assert_eq!(a.call(b.target(), DROP, Bytes::new()).await, Err(CallError::Lost));
    let refused = Err(CallError::Refused("not here".to_owned()));
    assert_eq!(a.call(b.target(), REFUSE, Bytes::new()).await, refused);

    a.peers.forget(b.id);
    b.desk.until(|desk| desk.closed.lock().contains(&caller.connection)).await;
    assert_eq!(a.echo(b.target()).await.unwrap(), "hello", "it may connect again");
    a.end().await;
    b.end().await;
}

#[tokio::test]
async fn messages_arrive_in_the_order_of_calls() {
    let (a, b) = (node(1).await, node(2).await);
    let deadline = Instant::now() + PATIENCE;
    // None of these futures is polled before all are made; the first finds no connection yet.
    let calls: Vec<_> = (0..200_u8)
        .map(|n| {
            if n % 5 == 0 {
                a.peers.send(b.target(), Lane::Control, NOTE, body(n, 20_000));
            }
            a.peers.call(
                b.target(),
                Lane::Control,
                ECHO,
                body(n, 1 + usize::from(n) * 100),
                deadline,
            )
        })
        .collect();
    for (call, n) in calls.into_iter().zip(0..200_u8).rev() {
        assert_eq!(call.await.unwrap()[0], n);
    }
    let asked = b.desk.asked.lock();
    let of = |kind| asked.iter().filter(|asked| asked.0 == kind).map(|asked| asked.2).collect();
    let (echoes, notes): (Vec<u8>, Vec<u8>) = (of(ECHO), of(NOTE));
    assert_eq!(echoes, (0..200).collect::<Vec<_>>());
    assert_eq!(notes, (0..200).step_by(5).collect::<Vec<_>>());
    let positions = asked.iter().map(|asked| asked.2).collect::<Vec<_>>();
    assert!(positions.is_sorted(), "one-way messages keep their place among calls");
}

#[tokio::test]
async fn a_large_message_delays_no_small_one_on_either_lane() {
    let (a, b) = (node(1).await, node(2).await);
    let deadline = Instant::now() + PATIENCE;
    let call = |lane, kind, body| a.peers.call(b.target(), lane, kind, body, deadline);
    call(Lane::Bulk, ECHO, body(0, 1)).await.unwrap();
    call(Lane::Control, ECHO, body(0, 1)).await.unwrap();
    b.desk.asked.lock().clear();
    let large = 24 << 20;
    let calls = [
        call(Lane::Bulk, HOLD, body(1, large)),
        call(Lane::Bulk, HOLD, body(2, large / 2)),
        call(Lane::Bulk, ECHO, body(3, 10)),
        call(Lane::Control, ECHO, body(4, 10)),
    ];
    b.desk.until(|desk| desk.asked.lock().len() == 4).await;
    let order: Vec<u8> = b.desk.asked.lock().iter().map(|asked| asked.2).collect();
    let place = |first| order.iter().position(|of| *of == first).unwrap();
    assert!(place(3) < place(2), "a small one goes between the pieces: {order:?}");
    assert!(place(4) < place(2), "the other lane does not wait: {order:?}");
    assert!(place(2) < place(1), "large ones take turns: {order:?}");
    for reply in b.desk.held.lock().drain(..) {
        reply.send(body(9, large));
    }
    for (call, bytes) in calls.into_iter().zip([large, large, 10, 10]) {
        assert_eq!(call.await.unwrap().len(), bytes);
    }
}

#[tokio::test]
async fn a_deadline_tells_whether_the_request_may_have_arrived() {
    let (a, b) = (node(1).await, node(2).await);
    a.echo(b.target()).await.unwrap();
    let soon = Instant::now() + Duration::from_millis(300);
    let held = a.peers.call(b.target(), Lane::Control, HOLD, body(1, 1), soon);
    assert_eq!(held.await, Err(CallError::Deadline { sent: true }));
    // A late reply is nobody's.
    b.desk.held.lock().drain(..).for_each(|reply| reply.send(Bytes::new()));
    assert_eq!(a.echo(b.target()).await.unwrap(), "hello");

    // Someone who takes the connection and says nothing.
    let mut mute = SystemNet.bind_tcp(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let to = Target { node: NodeId::new(9), addr: mute.local_addr().unwrap() };
    let soon = Instant::now() + Duration::from_millis(50);
    let call = a.peers.call(to, Lane::Control, ECHO, body(1, 1), soon);
    let (stream, call) = tokio::join!(mute.accept(), call);
    assert_eq!(call, Err(CallError::Deadline { sent: false }));
    drop(stream);
}

#[tokio::test]
async fn a_peer_that_comes_back_is_found_again() {
    let (a, b) = (node(1).await, node(2).await);
    a.echo(b.target()).await.unwrap();
    let held = a.call(b.target(), HOLD, body(1, 1));
    let (addr, target, desk) = (b.addr, b.target(), Arc::clone(&b.desk));
    let ending = async {
        desk.until(|desk| !desk.held.lock().is_empty()).await;
        b.end().await;
    };
    let (lost, ()) = tokio::join!(held, ending);
    assert_eq!(lost, Err(CallError::Lost));
    desk.held.lock().clear();
    assert!(!a.peers.connected(target.node));
    let unsent = a.echo(target).await.unwrap_err();
    assert!(matches!(unsent, CallError::Unsent(_)), "{unsent}");
    let at_once = a.echo(target).await.unwrap_err();
    assert!(matches!(at_once, CallError::Unsent(_)), "{at_once}");

    let b = start(identity(2), Limits::default(), addr).await;
    let again = async {
        while a.echo(b.target()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("it is found again");
}

#[tokio::test]
async fn strangers_are_refused_in_words_and_nothing_else_suffers() {
    let (a, b) = (node(1).await, node(2).await);
    let check = async |stranger: Identity, to: Target, words: &str| {
        let limits = Limits::default();
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let stranger = start(stranger, limits, addr).await;
        match stranger.echo(to).await {
            Err(CallError::Refused(reason)) => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other:?}, not {words}"),
        }
        assert!(!stranger.peers.connected(b.id));
    };
    let secret = |content: &str| Secret::parse(content.as_bytes()).ok();
    let other = Identity { cluster: ClusterId::new(2), ..identity(3) };
    check(other, b.target(), "does not talk to").await;
    check(identity(3), Target { node: NodeId::new(8), ..b.target() }, "not 0000000000000008").await;
    check(Identity { secret: secret("x"), ..identity(3) }, b.target(), "has a secret").await;

    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let keeper = Identity { secret: secret("x"), ..identity(4) };
    let keeper = start(keeper, Limits::default(), addr).await;
    let wrong = Identity { secret: secret("y"), ..identity(3) };
    check(wrong, keeper.target(), "the secrets of the two nodes differ").await;
    let right =
        start(Identity { secret: secret("x"), ..identity(3) }, Limits::default(), addr).await;
    assert_eq!(right.echo(keeper.target()).await.unwrap(), "hello");
    assert_eq!(a.echo(b.target()).await.unwrap(), "hello");
}

#[tokio::test]
async fn who_learns_its_cluster_leaves_the_others() {
    let (a, b) = (node(1).await, node(2).await);
    let newcomer = Identity { cluster: ClusterId::new(0), ..identity(3) };
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let newcomer = start(newcomer, Limits::default(), addr).await;
    assert_eq!(newcomer.echo(b.target()).await.unwrap(), "hello");
    newcomer.peers.set_cluster(ClusterId::new(1));
    assert_eq!(newcomer.echo(b.target()).await.unwrap(), "hello");
    newcomer.peers.set_cluster(ClusterId::new(2));
    assert!(!newcomer.peers.connected(b.id));

    a.peers.set_timers("heartbeat 100, election 300-450");
    b.peers.set_timers("heartbeat 250, election 750-1100");
    let refused = a.echo(b.target()).await.unwrap_err();
    assert!(refused.to_string().contains("timers differ"), "{refused}");
}

#[tokio::test]
async fn garbage_and_half_frames_harm_nobody() {
    let limits = Limits { strangers_count_max: 4, ..Limits::default() };
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let (a, b) = (node(1).await, start(identity(2), limits, addr).await);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"Hrdp", b"Hrdp\x00\x01\xff\xff", b"\0"] {
        let mut stream = SystemNet.connect(b.addr).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut told = Vec::new();
        // It may be told why, or find the connection reset: it does end.
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut told)).await;
        assert!(ended.is_ok(), "{garbage:?}");
        assert_eq!(a.echo(b.target()).await.unwrap(), "hello");
    }
    // Who connects and says nothing uses up the places for strangers, but no place of a peer's.
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(SystemNet.connect(b.addr).await.unwrap());
    }
    assert_eq!(a.echo(b.target()).await.unwrap(), "hello");
}

#[tokio::test]
async fn too_much_is_refused_before_it_is_sent() {
    let limits = Limits {
        message_bytes_max: 1 << 20,
        control_queue_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let (a, b) = (start(identity(1), limits, addr).await, node(2).await);
    let error = a.call(b.target(), ECHO, body(1, (1 << 20) + 1)).await.unwrap_err();
    assert!(matches!(error, CallError::Unsent(_)), "{error}");
    let deadline = Instant::now() + PATIENCE;
    let first = a.peers.call(b.target(), Lane::Control, ECHO, body(1, 900_000), deadline);
    let second = a.peers.call(b.target(), Lane::Control, ECHO, body(2, 900_000), deadline).await;
    assert!(matches!(second, Err(CallError::Unsent(_))), "{second:?}");
    assert_eq!(first.await.unwrap().len(), 900_000);
    // The other end takes less than we would send: it says so in its handshake.
    let error = b.call(a.target(), ECHO, body(1, 2 << 20)).await.unwrap_err();
    assert!(matches!(error, CallError::Refused(_)), "{error}");
    assert_eq!(b.echo(a.target()).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_connection_with_too_many_requests_waits_until_some_are_answered() {
    let limits = Limits { requests_count_max: 8, ..Limits::default() };
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let (a, b) = (node(1).await, start(identity(2), limits, addr).await);
    let deadline = Instant::now() + PATIENCE;
    let call = |n: u8| a.peers.call(b.target(), Lane::Control, HOLD, body(n, 1), deadline);
    let calls: Vec<_> = (0..50).map(call).collect();
    let calls = tokio::spawn(futures_util::future::join_all(calls));
    let mut answered = 0;
    while answered < 50 {
        b.desk.until(|desk| !desk.held.lock().is_empty()).await;
        let held: Vec<_> = b.desk.held.lock().drain(..).collect();
        assert!(held.len() <= 8, "{} at once", held.len());
        answered += held.len();
        held.into_iter().for_each(|reply| reply.send(Bytes::new()));
    }
    assert!(calls.await.unwrap().iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_given_up() {
    let limits = Limits {
        ping_after: Duration::from_millis(40),
        silence_max: Duration::from_millis(200),
        ..Limits::default()
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let (a, b) = (start(identity(1), limits, addr).await, node(2).await);
    // Between them stands someone who passes on bytes until told to stop, as a cut network does.
    let mut listener = SystemNet.bind_tcp(addr).await.unwrap();
    let to = Target { node: b.id, addr: listener.local_addr().unwrap() };
    let cut = CancellationToken::new();
    let passing = tokio::spawn({
        let (cut, b) = (cut.clone(), b.addr);
        async move {
            let mut near = listener.accept().await.unwrap().0;
            let mut far = SystemNet.connect(b).await.unwrap();
            let both = tokio::io::copy_bidirectional(&mut near, &mut far);
            let _ = tokio::time::timeout(PATIENCE, cut.run_until_cancelled(both)).await;
            std::future::pending::<()>().await;
        }
    });
    assert_eq!(a.echo(to).await.unwrap(), "hello");
    // Idle for many pings' time: the pongs keep it open.
    let idle =
        a.peers.call(to, Lane::Control, HOLD, body(1, 1), Instant::now() + 5 * limits.silence_max);
    assert_eq!(idle.await, Err(CallError::Deadline { sent: true }));
    assert!(a.peers.connected(b.id));
    cut.cancel();
    assert_eq!(a.call(to, ECHO, body(1, 1)).await, Err(CallError::Lost));
    assert!(!a.peers.connected(b.id));
    passing.abort();
}
