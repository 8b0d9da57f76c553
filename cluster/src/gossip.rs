//! Gossip: says who seems to be there and what they say about themselves. A thin shell around chitchat,
//! whose types end here. It observes and decides nothing; what it says may be late and may be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState,
    spawn_chitchat,
};
use parking_lot::Mutex;
use scatterhoard_ring::{ClusterId, NodeId};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info};

use crate::advert::Key;
use crate::carrier::{Carrier, Known};
use crate::judge::Judge;
use crate::secret::Seal;
use crate::{Advert, Network, Secret, Seen, View};

/// Silence, in mean intervals between heartbeats, after which chitchat takes a node for dead.
const PHI: f64 = 8.0;

/// Heartbeats that its mean is made of.
const HEARTBEATS_COUNT: usize = 100;

/// How long a dead node is remembered, so that stale news of it does not revive it.
const DEAD_GRACE: Duration = Duration::from_secs(10 * 60);

/// How long a deleted text is remembered. We delete none.
const DELETED_GRACE: Duration = Duration::from_secs(20 * 60);

/// Under this key a node says that it leaves.
const LEFT: &str = "left";

/// How long ending may take.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// How a node takes part in gossip.
#[derive(Clone, Debug)]
pub struct GossipConfig {
    /// Its cluster. Datagrams of other clusters are dropped unread.
    pub cluster: ClusterId,
    /// This life of this node.
    pub node: NodeId,
    /// When this life began: milliseconds since 1970.
    pub incarnation_ms: u64,
    /// Where others reach it. Port 0 stands for the port that `listen` got.
    pub advertise: SocketAddr,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Gossip addresses of others, to begin with. Its own may be among them.
    pub seeds: Vec<SocketAddr>,
    /// How often it gossips; a death is seen within 15 intervals. Everyone's should be the same: 200 ms.
    pub interval: Duration,
    /// The cluster's secret, if it has one.
    pub secret: Option<Secret>,
}

impl GossipConfig {
    /// How often nodes gossip, unless there is a reason. Costs 0.2 % of a core.
    pub const INTERVAL: Duration = Duration::from_millis(200);
}

/// Gossip under way. Dropped, it ends without a goodbye.
pub struct Gossip {
    handle: ChitchatHandle,
    published: Arc<Published>,
    views: watch::Receiver<Arc<View>>,
    watching: JoinHandle<()>,
    local_addr: SocketAddr,
    interval: Duration,
    _ended: DropGuard,
}

/// What this node says of itself, and the sign that it, or what others say, has changed.
struct Published {
    /// Not yet given to chitchat.
    advert: Mutex<Option<Advert>>,
    changed: Notify,
}

impl Gossip {
    /// Starts to gossip, saying `advert`.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(
        net: Arc<dyn Network>,
        config: GossipConfig,
        advert: Advert,
    ) -> io::Result<Self> {
        let datagrams = net.bind_udp(config.listen).await?;
        let local_addr = datagrams.local_addr()?;
        let mut advertise = config.advertise;
        if advertise.port() == 0 {
            advertise.set_port(local_addr.port());
        }
        let name = format!("{:016x}", config.node.number());
        let id = ChitchatId::new(name, config.incarnation_ms, advertise);
        let texts =
            Key::ALL.into_iter().map(|key| (key.name().to_owned(), advert.text(key))).collect();
        let seal = Seal::new(config.secret.as_ref(), config.cluster);
        let known = Known::default();
        let carrier = Carrier::new(datagrams, seal, id.clone(), Arc::clone(&known));
        let handle = spawn_chitchat(chitchat_config(&config, id, local_addr), texts, &carrier)
            .await
            .map_err(io::Error::other)?;
        let _ = known.set(handle.chitchat());

        let published = Arc::new(Published { advert: Mutex::new(None), changed: Notify::new() });
        let ended = CancellationToken::new();
        let (views_sender, views) = watch::channel(Arc::new(View::default()));
        let mut watcher = Watcher {
            chitchat: handle.chitchat(),
            published: Arc::clone(&published),
            judge: Judge::new(config.interval),
            seen: BTreeMap::new(),
            views: views_sender,
        };
        let changed = Arc::clone(&published);
        let subscription = watcher
            .chitchat
            .lock()
            .await
            .subscribe_event("", move |_| changed.changed.notify_one());
        subscription.forever();
        watcher.look().await;
        let watching = tokio::spawn(watcher.watch(config.interval, ended.clone()));
        let interval = config.interval;
        let _ended = ended.drop_guard();
        Ok(Self { handle, published, views, watching, local_addr, interval, _ended })
    }

    /// Says something new about this node. Others hear the last thing said, at most one per interval.
    pub fn publish(&self, advert: &Advert) {
        *self.published.advert.lock() = Some(advert.clone());
        self.published.changed.notify_one();
    }

    /// Who seems to be there, whenever that changes.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Tells the others that this node leaves, and ends.
    pub async fn stop(self) {
        let Self { handle, watching, _ended, interval, .. } = self;
        {
            let chitchat = handle.chitchat();
            let mut chitchat = chitchat.lock().await;
            chitchat.self_node_state().set(LEFT, "yes");
            let own = chitchat.self_chitchat_id().gossip_advertise_addr;
            let peers = chitchat.live_nodes().map(|id| id.gossip_advertise_addr);
            for peer in peers.filter(|peer| *peer != own) {
                if let Err(error) = handle.gossip(peer) {
                    debug!(%peer, %error, "no goodbye");
                }
            }
        }
        // Long enough for their questions and our answers.
        sleep(interval).await;
        drop(_ended);
        let _ = watching.await;
        if timeout(END_TIMEOUT, handle.shutdown()).await.is_err() {
            info!("gossip did not end in time");
        }
    }
}

fn chitchat_config(config: &GossipConfig, id: ChitchatId, listen: SocketAddr) -> ChitchatConfig {
    ChitchatConfig {
        chitchat_id: id,
        cluster_id: config.cluster.to_string(),
        gossip_interval: config.interval,
        listen_addr: listen,
        seed_nodes: config.seeds.iter().map(SocketAddr::to_string).collect(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: PHI,
            sampling_window_size: HEARTBEATS_COUNT,
            max_interval: 10 * config.interval,
            initial_interval: 2 * config.interval,
            dead_node_grace_period: DEAD_GRACE,
        },
        marked_for_deletion_grace_period: DELETED_GRACE,
        catchup_callback: None,
        extra_liveness_predicate: None,
    }
}

/// Turns what chitchat knows into views.
struct Watcher {
    chitchat: Arc<tokio::sync::Mutex<Chitchat>>,
    published: Arc<Published>,
    judge: Judge<ChitchatId>,
    /// The last advert of each life that could be read, and when it changed.
    seen: BTreeMap<ChitchatId, (Advert, Instant)>,
    views: watch::Sender<Arc<View>>,
}

impl Watcher {
    async fn watch(mut self, every: Duration, ended: CancellationToken) {
        let mut looks = interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let published = Arc::clone(&self.published);
        let mut said = Instant::now();
        loop {
            let due = tokio::select! {
                biased;
                () = ended.cancelled() => return,
                _ = looks.tick() => true,
                () = published.changed.notified() => false,
            };
            let now = Instant::now();
            if due {
                self.judge.look(now);
            }
            if (due || now.duration_since(said) >= every) && self.say().await {
                said = now;
            }
            self.look().await;
        }
    }

    /// Gives chitchat what this node has newly said of itself, if anything. Texts that did not change
    /// cost nothing.
    async fn say(&self) -> bool {
        let advert = self.published.advert.lock().take();
        let Some(advert) = advert else { return false };
        let mut chitchat = self.chitchat.lock().await;
        let state = chitchat.self_node_state();
        for key in Key::ALL {
            state.set(key.name(), advert.text(key));
        }
        true
    }

    async fn look(&mut self) {
        let now = Instant::now();
        let chitchat = Arc::clone(&self.chitchat);
        let chitchat = chitchat.lock().await;
        let detected: BTreeSet<&ChitchatId> = chitchat.live_nodes().collect();
        let mut view = View::default();
        for (id, state) in chitchat.node_states() {
            let heartbeat: u64 = state.heartbeat().into();
            let alive = id == chitchat.self_chitchat_id()
                || self.judge.alive(id, heartbeat, detected.contains(id));
            let left = state.get(LEFT).is_some();
            let Some(node) = node_of(id) else { continue };
            if let Some((advert, changed)) = self.advert(id, state, now)
                && alive
                && !left
            {
                // Of several lives under one id the last one counts; they come in their order.
                let incarnation_ms = id.generation_id;
                view.alive.insert(node, Seen { advert, incarnation_ms, changed });
            }
        }
        let known = chitchat.node_states();
        self.judge.retain(|id| known.contains_key(id));
        self.seen.retain(|id, _| known.contains_key(id));
        self.views.send_if_modified(|last| {
            let news = **last != view;
            if news {
                *last = Arc::new(view);
            }
            news
        });
    }

    /// What a node says of itself now, or the last time that it could be read.
    fn advert(
        &mut self,
        id: &ChitchatId,
        state: &NodeState,
        now: Instant,
    ) -> Option<(Advert, Instant)> {
        if let Some(advert) = Advert::parse(|key| state.get(key.name())) {
            let changed = match self.seen.get(id) {
                Some((last, changed)) if *last == advert => *changed,
                _ => now,
            };
            self.seen.insert(id.clone(), (advert, changed));
        }
        self.seen.get(id).cloned()
    }
}

fn node_of(id: &ChitchatId) -> Option<NodeId> {
    let number = u64::from_str_radix(&id.node_id, 16).ok()?;
    (number != 0).then(|| NodeId::new(number))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::SystemNet;
    use crate::inspect::LIVES_COUNT_MAX;
    use scatterhoard_ring::{Endpoints, Epoch, Generation, Standing};

    const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// Hexadecimal digits that pack as badly as anything that people name nodes.
    fn noise(seed: u64) -> String {
        let number = |place: u64| (seed + place).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (seed << 32);
        (1..=4).map(|place| format!("{:016x}", number(place))).collect()
    }

    /// With labels as long as they may be.
    fn advert(seed: u64) -> Advert {
        Advert {
            name: noise(seed),
            zone: noise(seed + 10_000),
            version: noise(seed + 20_000),
            endpoints: Endpoints { peer: LOCAL, listen: LOCAL, any_key: LOCAL, http: LOCAL },
            epoch: Epoch { generation: Generation::new(1), index: seed },
            leaderships: Vec::new(),
            budget_bytes: seed,
            standing: Standing::Active,
        }
    }

    async fn start(node: u64, seeds: Vec<SocketAddr>) -> Gossip {
        let config = GossipConfig {
            cluster: ClusterId::new(1),
            node: NodeId::new(node),
            incarnation_ms: 1,
            advertise: LOCAL,
            listen: LOCAL,
            seeds,
            // Quicker than in earnest, so that the test is quick.
            interval: Duration::from_millis(40),
            secret: None,
        };
        Gossip::start(Arc::new(SystemNet), config, advert(node)).await.unwrap()
    }

    #[tokio::test]
    async fn news_that_no_datagram_holds_come_in_several() {
        let old = start(1, Vec::new()).await;
        // As many as are remembered, once the newcomer is there.
        let last = LIVES_COUNT_MAX as u64 - 1;
        {
            let chitchat = old.handle.chitchat();
            let mut chitchat = chitchat.lock().await;
            for node in 2..=last {
                let id = ChitchatId::new(format!("{node:016x}"), 1, LOCAL);
                let texts = Key::ALL.into_iter().zip(1..).map(|(key, version)| {
                    let value = advert(node).text(key);
                    let status = chitchat::DeletionStatus::Set;
                    (key.name().to_owned(), chitchat::VersionedValue { value, version, status })
                });
                chitchat.reset_node_state_if_update(&id, texts, Key::ALL.len() as u64, 0);
            }
        }
        let new = start(last + 1, vec![old.local_addr()]).await;
        let chitchat = new.handle.chitchat();
        let whole = async {
            loop {
                let known = chitchat.lock().await;
                let adverts = known.node_states().values().filter_map(|state| {
                    Advert::parse(|key| state.get(key.name())).map(|advert| advert.budget_bytes)
                });
                if adverts.collect::<BTreeSet<_>>().len() == LIVES_COUNT_MAX {
                    return;
                }
                drop(known);
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(60), whole).await.expect("everyone is heard of");
        old.stop().await;
        new.stop().await;
    }
}
