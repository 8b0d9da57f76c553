//! How long writes wait after the node that led them was killed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scatterhoard_ring::{Slot, SlotRange};

use scatterhoard_prove::finish::Finish;

use super::Cluster;
use super::client::{Attempt, Client, key_in};
use super::resp::{Connection, Value};

/// Slots that are looked at, evenly spread: several in each partition, however the slots are cut.
const SAMPLES_COUNT: u16 = 48;

/// How long a probe waits for its reply before it asks another node, as an application might.
const PROBE_PATIENCE: Duration = Duration::from_millis(500);

/// Pause between two probes of a slot: the resolution of what is measured.
const PROBE_PAUSE: Duration = Duration::from_millis(2);

/// How long an outage may last before something is thought to be broken.
const OUTAGE_MAX: Duration = Duration::from_secs(60);

/// A slot whose leader was killed.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// The slot.
    pub slot: Slot,
    /// From the kill to the first acknowledged write.
    pub lasted: Duration,
}

/// Kills a node and waits until the slots that it led accept writes again. The node stays down.
///
/// # Panics
/// If it leads nothing, or a slot does not come back within a minute.
pub fn kill_and_measure(cluster: &mut Cluster, node: usize) -> Vec<Outage> {
    let asked = cluster.ports((node + 1) % cluster.len()).listen();
    let led = slots_led_by(asked, cluster.ports(node).listen());
    assert!(!led.is_empty(), "node {node} leads nothing");
    let mut probes: Vec<_> = led.iter().map(|&slot| Probe::of(slot, cluster.listens())).collect();
    let killed = Instant::now();
    cluster.kill(node);
    thread::scope(|scope| {
        let probes: Vec<_> =
            probes.iter_mut().map(|probe| scope.spawn(move || probe.measure(killed))).collect();
        probes.into_iter().map(|probe| probe.join().expect("it comes back")).collect()
    })
}

/// Which of the sampled slots a node leads, as another one says.
///
/// # Panics
/// If that one does not answer as it should.
#[must_use]
pub fn slots_led_by(asked: SocketAddr, leader: SocketAddr) -> Vec<Slot> {
    let mut connection = Connection::open(asked, PROBE_PATIENCE).expect("the node listens");
    let reply = connection.call(&[b"CLUSTER", b"SLOTS"]).expect("the node answers");
    let Value::Array(Some(rows)) = reply else { panic!("not an array: {reply:?}") };
    let led: Vec<_> = rows.iter().map(row).filter(|&(_, led_by)| led_by == leader).collect();
    (0..SAMPLES_COUNT)
        .filter_map(|sample| Slot::new(sample * (Slot::COUNT / SAMPLES_COUNT)))
        .filter(|&slot| led.iter().any(|(range, _)| range.contains(slot)))
        .collect()
}

/// Clients that read and write random keys as fast as they are answered.
#[derive(Debug, Default)]
pub struct Load {
    over: AtomicBool,
    done: AtomicU64,
}

impl Load {
    /// Is one client until the end.
    pub fn be(&self, number: u32, seeds: Vec<SocketAddr>) {
        let mut rng = StdRng::seed_from_u64(number.into());
        let mut client =
            Client::new(seeds).beginning_with(number as usize).patient_for(PROBE_PATIENCE);
        let value = [b'x'; 100];
        while !self.over.load(Ordering::Relaxed) {
            let key = format!("load:{}", rng.random_range(0..100_000));
            let asked = if rng.random_bool(0.5) {
                client.ask(&[b"SET", key.as_bytes(), &value])
            } else {
                client.ask(&[b"GET", key.as_bytes()])
            };
            if let Attempt::Answered(_) = asked {
                self.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Lets all clients come to an end once what is returned is dropped.
    #[must_use]
    pub fn finish_on_drop(&self) -> Finish<'_> {
        Finish::of(&self.over)
    }

    /// How many commands were answered so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

/// A client that has just written to a slot, and knows who leads it.
struct Probe {
    slot: Slot,
    key: String,
    client: Client,
}

impl Probe {
    fn of(slot: Slot, seeds: Vec<SocketAddr>) -> Self {
        let mut client = Client::new(seeds).patient_for(PROBE_PATIENCE);
        let key = key_in(slot, "outage:");
        assert_eq!(client.insist(&[b"SET", key.as_bytes(), b"before"]), Value::ok());
        Self { slot, key, client }
    }

    fn measure(&mut self, killed: Instant) -> Outage {
        loop {
            let attempt = self.client.ask(&[b"SET", self.key.as_bytes(), b"after"]);
            let lasted = killed.elapsed();
            match attempt {
                Attempt::Answered(reply) => {
                    assert_eq!(reply, Value::ok());
                    return Outage { slot: self.slot, lasted };
                }
                Attempt::Refused(_) | Attempt::Unknown(_) => {}
            }
            assert!(lasted < OUTAGE_MAX, "slot {} accepts no writes: {attempt:?}", self.slot);
            thread::sleep(PROBE_PAUSE);
        }
    }
}

/// The slots of a row of `CLUSTER SLOTS`, and the address of their leader.
fn row(row: &Value) -> (SlotRange, SocketAddr) {
    let read = || {
        let Value::Array(Some(row)) = row else { return None };
        let [Value::Integer(first), Value::Integer(last), Value::Array(Some(leader)), ..] =
            &row[..]
        else {
            return None;
        };
        let [Value::Bulk(Some(host)), Value::Integer(port), ..] = &leader[..] else { return None };
        let slots = SlotRange::new(u16::try_from(*first).ok()?, u16::try_from(last + 1).ok()?)?;
        let host: std::net::IpAddr = std::str::from_utf8(host).ok()?.parse().ok()?;
        Some((slots, SocketAddr::new(host, u16::try_from(*port).ok()?)))
    };
    read().unwrap_or_else(|| panic!("not a row of CLUSTER SLOTS: {row:?}"))
}
