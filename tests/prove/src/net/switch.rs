//! A network in this process: takes the packets of all ends, and hands each on, late, twice or not at all.
//!
//! It does what `tc netem`, firewalls and slow cables do, for each direction of each pair of ends, on
//! kernels that have none of these, and it counts what it did.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::link::{Link, Weather};

/// The largest packet that is read. Devices have an MTU of 1500.
const PACKET_BYTES_MAX: usize = 2048;

/// The first address of the network. The end with number 0 are the clients.
const NETWORK: [u8; 3] = [10, 77, 0];
const FIRST: u8 = 10;

/// The address of an end.
pub fn address(end: usize) -> Ipv4Addr {
    let last = u8::try_from(end).ok().and_then(|end| end.checked_add(FIRST));
    let last = last.expect("a network has fewer than two hundred ends");
    Ipv4Addr::new(NETWORK[0], NETWORK[1], NETWORK[2], last)
}

/// What was done to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Handed on.
    pub passed: u64,
    /// Not handed on.
    pub dropped: u64,
    /// Handed on late.
    pub late: u64,
    /// Handed on twice.
    pub doubled: u64,
}

/// The network. Its threads end with the devices of its ends.
pub struct Switch {
    ends_count: usize,
    begun: Instant,
    state: Mutex<State>,
    waiting: Condvar,
}

struct State {
    /// Where packets to each end are written.
    ends: Vec<Option<Arc<File>>>,
    /// By source and target.
    links: Vec<Link>,
    weather: Vec<Weather>,
    unplugged: BTreeSet<usize>,
    late: BinaryHeap<Reverse<Late>>,
    /// Tells late packets of one moment apart, in the order they came.
    count: u64,
    tally: Tally,
    rng: StdRng,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    arrives_us: u64,
    count: u64,
    target: usize,
    packet: Vec<u8>,
}

impl Switch {
    /// A network for so many ends, none of which is there yet.
    pub fn new(ends_count: usize, seed: u64) -> Arc<Self> {
        let switch = Arc::new(Self {
            ends_count,
            begun: Instant::now(),
            state: Mutex::new(State {
                ends: vec![None; ends_count],
                links: vec![Link::default(); ends_count * ends_count],
                weather: vec![Weather::default(); ends_count * ends_count],
                unplugged: BTreeSet::new(),
                late: BinaryHeap::new(),
                count: 0,
                tally: Tally::default(),
                rng: StdRng::seed_from_u64(seed),
            }),
            waiting: Condvar::new(),
        });
        let deliverer = Arc::downgrade(&switch);
        thread::spawn(move || {
            while let Some(switch) = deliverer.upgrade() {
                switch.deliver_late();
            }
        });
        switch
    }

    /// Gives an end a device, in place of the one that it had.
    pub fn attach(self: &Arc<Self>, end: usize, device: File) {
        let device = Arc::new(device);
        self.state.lock().ends[end] = Some(Arc::clone(&device));
        let switch = Arc::clone(self);
        thread::spawn(move || switch.carry(end, &device));
    }

    /// Takes an end's device away: it is gone, unless its namespace still holds it.
    pub fn detach(&self, end: usize) {
        self.state.lock().ends[end] = None;
    }

    /// Nothing comes from or gets to this end any more, whatever the weather.
    pub fn unplug(&self, end: usize) {
        self.state.lock().unplugged.insert(end);
    }

    /// The opposite. What was under way then is lost.
    pub fn plug(&self, end: usize) {
        let mut state = self.state.lock();
        state.late.retain(|Reverse(late)| late.target != end);
        state.unplugged.remove(&end);
    }

    /// Sets the weather from each end to each other.
    pub fn set_weather(&self, weather: impl Fn(usize, usize) -> Weather) {
        let mut state = self.state.lock();
        for source in 0..self.ends_count {
            for target in 0..self.ends_count {
                state.weather[source * self.ends_count + target] = weather(source, target);
            }
        }
    }

    /// What was done so far.
    pub fn tally(&self) -> Tally {
        self.state.lock().tally
    }

    /// Hands on what an end sends, until its device is gone.
    fn carry(&self, source: usize, device: &Arc<File>) {
        let mut packet = [0; PACKET_BYTES_MAX];
        while let Ok(length) = (&**device).read(&mut packet) {
            if length == 0 {
                return;
            }
            self.send(source, &packet[..length]);
        }
    }

    fn send(&self, source: usize, packet: &[u8]) {
        let Some(target) = target_of(packet).filter(|&target| target < self.ends_count) else {
            return;
        };
        let now_us = self.now_us();
        let mut state = self.state.lock();
        let state = &mut *state;
        let link = source * self.ends_count + target;
        let unplugged = state.unplugged.contains(&source) || state.unplugged.contains(&target);
        let arrivals = if unplugged {
            [None, None]
        } else {
            let weather = state.weather[link];
            state.links[link].send(&weather, now_us, packet.len(), &mut state.rng)
        };
        match arrivals {
            [None, _] => state.tally.dropped += 1,
            [Some(_), None] => state.tally.passed += 1,
            [Some(_), Some(_)] => state.tally.doubled += 1,
        }
        for arrives_us in arrivals.into_iter().flatten() {
            if arrives_us <= now_us {
                if let Some(device) = &state.ends[target] {
                    hand_over(device, packet);
                }
                continue;
            }
            state.tally.late += 1;
            state.count += 1;
            let (count, packet) = (state.count, packet.to_vec());
            state.late.push(Reverse(Late { arrives_us, count, target, packet }));
            self.waiting.notify_one();
        }
    }

    /// Hands over what is due, and waits for a while for what is due next.
    fn deliver_late(&self) {
        const NAP: Duration = Duration::from_millis(100);
        let mut state = self.state.lock();
        let now_us = self.now_us();
        while state.late.peek().is_some_and(|Reverse(late)| late.arrives_us <= now_us) {
            let Some(Reverse(late)) = state.late.pop() else { break };
            if state.unplugged.contains(&late.target) {
                state.tally.dropped += 1;
            } else if let Some(device) = &state.ends[late.target] {
                hand_over(device, &late.packet);
            }
        }
        let next = state.late.peek().map(|Reverse(late)| late.arrives_us.saturating_sub(now_us));
        let nap = next.map_or(NAP, |us| Duration::from_micros(us).min(NAP));
        self.waiting.wait_for(&mut state, nap);
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).expect("no campaign is that long")
    }
}

/// A device that is gone, or whose queue is full, loses the packet, as networks do.
fn hand_over(device: &File, packet: &[u8]) {
    let _lost = (&*device).write(packet);
}

/// The end that a packet goes to. RFC 791, "Internet Header Format".
fn target_of(packet: &[u8]) -> Option<usize> {
    let header = packet.get(..20)?;
    if header[0] >> 4 != 4 || header[16..19] != NETWORK {
        return None;
    }
    header[19].checked_sub(FIRST).map(usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_names_the_end_it_goes_to() {
        let mut packet = [0; 40];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&address(3).octets());
        assert_eq!(target_of(&packet), Some(3));
        packet[16] = 11;
        assert_eq!(target_of(&packet), None, "another network");
        packet[16] = 10;
        packet[0] = 0x65;
        assert_eq!(target_of(&packet), None, "another protocol");
        assert_eq!(target_of(&packet[..19]), None);
    }
}
