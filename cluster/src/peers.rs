//! Peers: one handle for talking to other nodes and for hearing them. Connects when there is something
//! to send, knows who is connected, and ends everything when told to.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scatterhoard_ring::{ClusterId, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::connection::{Pulse, Sizes, drive};
use crate::handshake::{self, Greeting, HandshakeError};
use crate::inbound::{Inbound, Serving};
use crate::shared::Shared;
use crate::{BoxStream, CallError, Caller, Lane, Listener, Network, Secret, Service, Target};

/// Who this node is to its peers.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its cluster. Zero: not yet known; such a node may talk to any cluster.
    pub cluster: ClusterId,
    /// This life of this node. Never zero.
    pub node: NodeId,
    /// The cluster's secret, if it has one.
    pub secret: Option<Secret>,
    /// Version of the program, for the texts of refusals. Cut to 64 bytes.
    pub build: String,
}

/// What connections may use. Everything a peer can make this process hold has its limit here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest body of a message, either way. A peer with a smaller limit sets it for both.
    pub message_bytes_max: usize,
    /// Bytes that may wait to be sent to one peer on the control lane; beyond it calls fail at once.
    pub control_queue_bytes_max: usize,
    /// The same on the bulk lane.
    pub bulk_queue_bytes_max: usize,
    /// Requests of one connection that may be unanswered here. Beyond it the connection is not read.
    pub requests_count_max: usize,
    /// Connections that others may have open to this node. Beyond it new ones are closed.
    pub connections_count_max: usize,
    /// Connections that have not yet proven who they are. Beyond it new ones are closed.
    pub strangers_count_max: usize,
    /// How long opening a connection may take, without the handshake.
    pub connect_timeout: Duration,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Silence of a peer after which it is asked for a sign of life.
    pub ping_after: Duration,
    /// Silence of a peer after which its connection is closed. More than `ping_after`.
    pub silence_max: Duration,
    /// Pause after a failed attempt to connect; doubled with each further one.
    pub backoff_min: Duration,
    /// The longest such pause.
    pub backoff_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A 64 MiB value, its key, and what is put around them.
            message_bytes_max: 80 << 20,
            control_queue_bytes_max: 64 << 20,
            bulk_queue_bytes_max: 128 << 20,
            requests_count_max: 4096,
            connections_count_max: 1024,
            strangers_count_max: 64,
            connect_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(5),
            ping_after: Duration::from_secs(1),
            silence_max: Duration::from_secs(3),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
        }
    }
}

/// Pause after a failed accept; doubled with each further one, up to a second.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(50);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How this node talks to others. Cheap to clone.
///
/// Each node opens its own connections to whom it calls, two per peer, and answers on those that peers
/// opened to it.
#[derive(Clone)]
pub struct Peers(Arc<Shared>);

impl Peers {
    /// Talks over `net` as `identity` until `shutdown`. Must be called inside the runtime that is to run
    /// the connections, whoever calls over them.
    ///
    /// # Panics
    /// Outside a runtime; without a node id; with limits that contradict each other.
    #[must_use]
    pub fn new(
        net: Arc<dyn Network>,
        identity: Identity,
        limits: Limits,
        shutdown: CancellationToken,
    ) -> Self {
        let shared = Arc::new(Shared::new(net, identity, limits, shutdown));
        shared.spawn(Arc::clone(&shared).beat());
        Self(shared)
    }

    /// Tells which cluster this node founded or joined. Connections to other clusters are closed.
    pub fn set_cluster(&self, cluster: ClusterId) {
        self.0.set_cluster(cluster);
    }

    /// Tells the timers that safety rests on, in words that all nodes use alike; at most 64 bytes count.
    /// From then on peers that use other words are refused.
    pub fn set_timers(&self, timers: &str) {
        self.0.set_timers(timers);
    }

    /// Sends at once, and answers when the reply comes.
    ///
    /// The message is queued during this call, not when the future is first polled: the order of calls
    /// is the order on the lane (see [`Service::handle`] for large messages). Connects if need be; a call
    /// waits for that, but fails at once if an attempt failed just now. Dropping the future forgets the
    /// call; a message that has not left by then never will.
    pub fn call(
        &self,
        to: Target,
        lane: Lane,
        kind: u8,
        body: Bytes,
        deadline: Instant,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + 'static + use<> {
        let ticket = self.0.link(to, lane).and_then(|link| link.call(&self.0, kind, body));
        async move { ticket?.reply(deadline).await }
    }

    /// Sends one way, in order with calls on the same lane. Lost without notice if there is no
    /// connection to be had, or no room left to queue it.
    pub fn send(&self, to: Target, lane: Lane, kind: u8, body: Bytes) {
        let sent = self.0.link(to, lane).and_then(|link| link.send(&self.0, kind, body));
        if let Err(error) = sent {
            debug!(node = %to.node, addr = %to.addr, kind, %error, "one-way message dropped");
        }
    }

    /// Takes connections from `listener` and gives what they bring to `service`, until shutdown.
    pub async fn serve(&self, mut listener: Box<dyn Listener>, service: Arc<dyn Service>) {
        let shared = &self.0;
        let strangers = Arc::new(Semaphore::new(shared.limits.strangers_count_max));
        let guests = Arc::new(Semaphore::new(shared.limits.connections_count_max));
        let mut pause = ACCEPT_PAUSE_MIN;
        loop {
            let accepted = tokio::select! {
                biased;
                () = shared.shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, addr)) => {
                    pause = ACCEPT_PAUSE_MIN;
                    let stranger = Arc::clone(&strangers).try_acquire_owned();
                    let guest = Arc::clone(&guests).try_acquire_owned();
                    let (Ok(stranger), Ok(guest)) = (stranger, guest) else {
                        self.warn(addr, "too many connections");
                        continue;
                    };
                    let service = Arc::clone(&service);
                    shared.spawn(self.clone().host(stream, addr, service, (stranger, guest)));
                }
                Err(error) => {
                    if let Some(held_back) = shared.muffle.admits() {
                        warn!(%error, held_back, "accepting a peer failed");
                    }
                    tokio::select! {
                        biased;
                        () = shared.shutdown.cancelled() => return,
                        () = tokio::time::sleep(pause) => pause = (2 * pause).min(ACCEPT_PAUSE_MAX),
                    }
                }
            }
        }
    }

    /// Whether there is a live, authenticated connection from or to this node: one that was not silent
    /// for [`Limits::silence_max`].
    #[must_use]
    pub fn connected(&self, node: NodeId) -> bool {
        self.0.is_connected(node)
    }

    /// Since when connections to this address have been refused, and none accepted: whoever was bound to
    /// it had closed its port by then. `None` if it was not tried, or did not answer at all.
    #[must_use]
    pub fn refused_since(&self, addr: SocketAddr) -> Option<Instant> {
        self.0.refused_since(addr)
    }

    /// Closes the connections from and to a node that is no longer a member; calls to it under way fail.
    /// It may connect again: whether it is heard is for the service to say.
    pub fn forget(&self, node: NodeId) {
        self.0.forget(node);
    }

    /// Waits, after shutdown, until every task of every connection has ended.
    pub async fn ended(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// One connection that a peer opened, from its handshake to its end.
    async fn host(
        self,
        stream: BoxStream,
        addr: SocketAddr,
        service: Arc<dyn Service>,
        (stranger, _guest): (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) {
        let greeted = tokio::select! {
            biased;
            () = self.0.shutdown.cancelled() => return,
            greeted = self.greet(stream, addr) => greeted,
        };
        drop(stranger);
        let Some((stream, theirs, lane)) = greeted else { return };
        let limits = &self.0.limits;
        let theirs_max = usize::try_from(theirs.message_bytes_max).unwrap_or(usize::MAX);
        let sizes = Sizes {
            taken_bytes_max: limits.message_bytes_max,
            sent_bytes_max: limits.message_bytes_max.min(theirs_max),
        };
        let pulse = Arc::new(Pulse::new(self.0.shutdown.child_token()));
        let connection = self.0.connected(theirs.node, theirs.cluster, Arc::clone(&pulse));
        debug!(node = %theirs.node, %addr, ?lane, connection, "peer connected to us");
        let caller = Caller { node: theirs.node, addr, lane, connection };
        let serving = Serving::new(caller, Inbound::new(limits, sizes.sent_bytes_max), service);
        let ended = drive(stream, &serving, &pulse, sizes).await;
        self.0.disconnected(connection);
        self.0.ended(theirs.node, addr, lane, &ended);
        serving.ended();
    }

    async fn greet(
        &self,
        mut stream: BoxStream,
        addr: SocketAddr,
    ) -> Option<(BoxStream, Greeting, Lane)> {
        let ours = self.0.greeting();
        let answer = handshake::answer(&mut stream, &ours, self.0.secret.as_ref());
        match timeout(self.0.limits.handshake_timeout, answer).await {
            Ok(Ok((theirs, lane))) => return Some((stream, theirs, lane)),
            Ok(Err(HandshakeError::Refused(reason) | HandshakeError::Refusing(reason))) => {
                self.warn(addr, &reason);
            }
            Ok(Err(HandshakeError::Io(error))) => debug!(%addr, %error, "handshake broken off"),
            Err(_) => self.warn(addr, "the handshake took too long"),
        }
        None
    }

    fn warn(&self, addr: SocketAddr, reason: &str) {
        if let Some(held_back) = self.0.muffle.admits() {
            warn!(%addr, reason, held_back, "stranger refused");
        }
    }
}
