//! Does to a cluster what the plan says, sees to it that what ended is started again, and mends everything
//! at the end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use scatterhoard_ring::Slot;

use super::progress::{Glance, Progress};
use super::{Order, WHOLE_PATIENCE, WRITE_PATIENCE, milliseconds};
use crate::arena::{Arena, Ended};
use crate::campaign::{self, Leadership};
use crate::client::{Client, key_in};
use crate::course::{Lane, Underway};
use crate::fault::{Course, Deed, Kind};
use crate::net::switch::Tally;
use crate::watch::Watch;
use crate::workload::Workload;

/// How often there is a look at everything.
const TICK: Duration = Duration::from_millis(10);

/// How long a node may take to go. Longer than its own `--leave-timeout`.
const GONE_PATIENCE: Duration = Duration::from_secs(40);

/// How far a clock may be from where it was set, in seconds.
const CLOCK_OFF_S_MAX: i64 = 5;

/// Large values that a node without memory is given: how many, and how large.
const BALLAST_COUNT: u16 = 8;
const BALLAST_BYTES: usize = 4 << 20;

/// What was done, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) faults: Vec<campaign::Fault>,
    pub(super) happened: BTreeMap<Kind, u64>,
    pub(super) complaints: Vec<String>,
    pub(super) leaderships: Vec<Leadership>,
    pub(super) tally: Tally,
    /// What nodes counted.
    pub(super) counted: Vec<(String, u64)>,
    /// Operations that were asked for in pipelines.
    pub(super) pipelined: u64,
    /// Nodes that ended for want of memory.
    pub(super) starved: u64,
    /// Nodes that ended because the others had given them up.
    pub(super) given_up: u64,
    /// When everything was mended for good.
    pub(super) mended_ms: u64,
    /// Until when all partitions were written to.
    pub(super) probed_ms: u64,
    /// When all was over.
    pub(super) ended_ms: u64,
}

pub(super) struct Torment<'a, 'b> {
    order: &'a Order,
    arena: &'a mut Arena<'b>,
    watch: &'a Watch<'b>,
    workload: &'a Workload,
    listens: Vec<SocketAddr>,
    lanes: [Lane; 2],
    /// Since when nothing around the nodes is under way.
    calm_since: Instant,
    /// What the network had done, and whether everything went, when a fault began.
    before: BTreeMap<Kind, Tally>,
    failed: Vec<Kind>,
    clocks_seen: u64,
    /// The cluster did not get whole: no use in going on.
    stuck: bool,
    done: Done,
}

/// Whether a deed is over.
enum Step {
    Over,
    Waits,
}

impl<'a, 'b> Torment<'a, 'b> {
    pub(super) fn new(
        order: &'a Order,
        kinds: &[Kind],
        arena: &'a mut Arena<'b>,
        watch: &'a Watch<'b>,
        workload: &'a Workload,
        listens: Vec<SocketAddr>,
    ) -> Self {
        let now = Instant::now();
        let lane = |course| Lane::new(order.seed, course, kinds, order.nodes_count, now);
        Self {
            order,
            arena,
            watch,
            workload,
            listens,
            lanes: [lane(Course::Nodes), lane(Course::Around)],
            calm_since: now,
            before: BTreeMap::new(),
            failed: Vec::new(),
            clocks_seen: 0,
            stuck: false,
            done: Done::default(),
        }
    }

    pub(super) fn run(mut self) -> Done {
        let mut progress = Progress::new();
        let until = Instant::now() + self.order.length;
        loop {
            let now = Instant::now();
            self.see_who_ended();
            let closing = now >= until || self.stuck;
            for lane in 0..self.lanes.len() {
                self.advance(lane, now, closing);
            }
            if closing && self.lanes.iter().all(|lane| lane.underway.is_none()) {
                break;
            }
            progress.show(|| self.glance());
            thread::sleep(TICK);
        }
        self.mend();
        self.demand_life(&mut progress);
        progress.end();
        self.done.probed_ms = self.now_ms();
        self.done.tally = self.arena.tally();
        self.done.faults.sort_by_key(|fault| fault.from);
        self.done
    }

    /// Goes on with a course as far as it goes without waiting.
    fn advance(&mut self, lane: usize, now: Instant, closing: bool) {
        let hold = self.lanes[lane].course == Course::Around && self.lanes[0].awaits_whole();
        if !closing && !hold {
            self.lanes[lane].draw(now);
        }
        while let Some(underway) = &self.lanes[lane].underway {
            let Some(deed) = underway.left.front().cloned() else {
                self.finish(lane, now);
                break;
            };
            let (since, began, kind) = (underway.since, underway.began_ms, underway.fault.kind);
            if closing && began.is_none() {
                // It has not begun: as if it had never been drawn.
                self.lanes[lane].finish(now);
                break;
            }
            match self.wait_for(&deed, since, closing) {
                Some(Step::Waits) => break,
                Some(Step::Over) => {}
                None => {
                    if began.is_none() {
                        self.before.insert(kind, self.arena.tally());
                    }
                    if let Err(error) = self.perform(&deed) {
                        self.failed.push(kind);
                        self.complain(format!("{kind}: {error:#}"));
                    }
                }
            }
            let now_ms = self.now_ms();
            if self.stuck && deed == Deed::AwaitWhole {
                // What would come next may only be done to a whole cluster.
                self.failed.push(kind);
                self.finish(lane, now);
                break;
            }
            if let Some(underway) = &mut self.lanes[lane].underway {
                underway.left.pop_front();
                underway.since = Instant::now();
                if deed != Deed::AwaitWhole {
                    underway.began_ms.get_or_insert(now_ms);
                }
            }
        }
        if self.lanes[1].underway.is_some() {
            self.calm_since = Instant::now();
        }
    }

    /// How it is with a deed that is waited for; `None` if it is to be done.
    fn wait_for(&mut self, deed: &Deed, since: Instant, closing: bool) -> Option<Step> {
        let over = match *deed {
            Deed::Wait(ms) => closing || since.elapsed() >= Duration::from_millis(ms),
            Deed::AwaitWhole => {
                let lacks = self.watch.lacks(&self.arena.running(), since);
                if !lacks.is_empty() && since.max(self.calm_since).elapsed() > WHOLE_PATIENCE {
                    self.complain(format!("the cluster did not get whole: {}", lacks.join("; ")));
                    self.stuck = true;
                    return Some(Step::Over);
                }
                lacks.is_empty()
            }
            Deed::AwaitGone(node) => {
                let runs = self.arena.running().contains(&node);
                if runs && since.elapsed() > GONE_PATIENCE {
                    self.complain(format!("n{node} did not go when it was asked to"));
                    self.arena.kill(node);
                    return Some(Step::Over);
                }
                !runs
            }
            Deed::Start(_)
            | Deed::Kill(_)
            | Deed::Stop(_)
            | Deed::Continue(_)
            | Deed::Dismiss(_)
            | Deed::Unplug(_)
            | Deed::Reboot(_)
            | Deed::Weather(_)
            | Deed::Clear
            | Deed::Clock(..)
            | Deed::Starve(_)
            | Deed::Feed(_)
            | Deed::Fence(_)
            | Deed::Unfence(_) => return None,
        };
        Some(if over { Step::Over } else { Step::Waits })
    }

    fn perform(&mut self, deed: &Deed) -> anyhow::Result<()> {
        let arena = &mut *self.arena;
        match deed {
            Deed::Start(node) => arena.start(*node),
            Deed::Kill(node) => {
                arena.kill(*node);
                Ok(())
            }
            Deed::Stop(node) => arena.hold(*node, true),
            Deed::Continue(node) => arena.hold(*node, false),
            Deed::Dismiss(node) => arena.dismiss(*node),
            Deed::Unplug(node) => arena.unplug(*node),
            Deed::Reboot(node) => arena.reboot(*node),
            Deed::Weather(sky) => arena.set_weather(sky),
            Deed::Clear => {
                arena.clear();
                Ok(())
            }
            Deed::Clock(node, 0) => {
                self.look_at_the_clock(*node);
                self.arena.set_clock(*node, 0)
            }
            Deed::Clock(node, wrong_by_s) => arena.set_clock(*node, *wrong_by_s),
            Deed::Starve(node) => {
                arena.starve(*node)?;
                self.load_with_ballast();
                Ok(())
            }
            Deed::Feed(node) => arena.feed(*node),
            Deed::Fence(node) => arena.fence(*node),
            Deed::Unfence(node) => arena.unfence(*node),
            // These are waited for.
            Deed::AwaitWhole | Deed::Wait(_) | Deed::AwaitGone(_) => Ok(()),
        }
    }

    /// Notes a fault that is over, and whether there are signs that it has happened.
    fn finish(&mut self, lane: usize, now: Instant) {
        let Some(Underway { fault, began_ms, .. }) = self.lanes[lane].finish(now) else { return };
        let kind = fault.kind;
        let before = self.before.remove(&kind).unwrap_or_default();
        let failed = self.failed.contains(&kind);
        self.failed.retain(|&failed| failed != kind);
        // Waited for in vain, and never begun.
        let Some(from) = began_ms else { return };
        let after = self.arena.tally();
        let happened = !failed
            && match kind {
                Kind::Cut | Kind::Island | Kind::OneWay | Kind::Loss => {
                    after.dropped > before.dropped
                }
                Kind::Delay | Kind::Bandwidth => after.late > before.late,
                Kind::Reorder => after.doubled > before.doubled,
                Kind::Clock => std::mem::take(&mut self.clocks_seen) > 0,
                Kind::Kill
                | Kind::Crash
                | Kind::Pause
                | Kind::Memory
                | Kind::Descriptors
                | Kind::Leave
                | Kind::RestartAll
                | Kind::Join => true,
            };
        *self.done.happened.entry(kind).or_default() += u64::from(happened);
        self.done.faults.push(campaign::Fault {
            kind: kind.name().to_owned(),
            from,
            until: Some(self.now_ms()),
            nodes: fault.nodes,
            detail: fault.detail,
        });
    }

    /// Starts again what ended, as whoever runs a cluster would.
    fn see_who_ended(&mut self) {
        for (node, ended) in self.arena.ended() {
            match ended {
                Ended::Dismissed => continue,
                // The fault itself starts it again.
                Ended::Starved => {
                    self.done.starved += 1;
                    continue;
                }
                Ended::Rightly => self.done.given_up += 1,
                Ended::Wrongly(how) => self.complain(format!("n{node} ended by itself, {how}")),
            }
            if let Err(error) = self.arena.start(node) {
                self.complain(format!("n{node} does not start again: {error:#}"));
            }
        }
    }

    /// Mends whatever a fault that broke off may have left.
    fn mend(&mut self) {
        self.arena.clear();
        let first = 1..=self.arena.founders().len();
        for node in first {
            let mended = self
                .arena
                .set_clock(node, 0)
                .and_then(|()| self.arena.feed(node))
                .and_then(|()| self.arena.unfence(node))
                .and_then(|()| self.arena.start(node));
            if let Err(error) = mended {
                self.complain(format!("n{node} could not be mended: {error:#}"));
            }
        }
        self.done.mended_ms = self.now_ms();
    }

    /// Waits until the cluster is whole and every partition has taken a write.
    fn demand_life(&mut self, progress: &mut Progress) {
        let since = Instant::now();
        loop {
            self.see_who_ended();
            let lacks = self.watch.lacks(&self.arena.running(), since);
            if lacks.is_empty() {
                break;
            }
            if since.elapsed() > WHOLE_PATIENCE {
                let lacks = lacks.join("; ");
                self.complain(format!("with everything mended, the cluster is not whole: {lacks}"));
                break;
            }
            progress.show(|| self.glance());
            thread::sleep(TICK);
        }
        let Some(pulse) = self.workload.pulse() else { return };
        let whole_ns = self.workload.begun().elapsed().as_nanos();
        let whole = Instant::now();
        while !pulse.all_since(u64::try_from(whole_ns).unwrap_or(u64::MAX)) {
            self.see_who_ended();
            if whole.elapsed() > WRITE_PATIENCE {
                self.complain(
                    "with everything mended, not every partition takes writes".to_owned(),
                );
                return;
            }
            thread::sleep(TICK);
        }
    }

    /// Whether the node's clock is really as wrong as it was set: what was preloaded might not have worked.
    fn look_at_the_clock(&mut self, node: usize) {
        let Some(underway) = &self.lanes[1].underway else { return };
        let set = underway.fault.script.iter().find_map(|deed| match deed {
            Deed::Clock(_, wrong_by_s) => Some(*wrong_by_s),
            _ => None,
        });
        // The fault has lasted for longer than that, and the clock needed a second to jump.
        let since = Instant::now().checked_sub(Duration::from_secs(1));
        let is = since.and_then(|since| self.watch.clock_wrong_by_s(node, since));
        if let (Some(set), Some(is)) = (set, is)
            && (is - set).abs() <= CLOCK_OFF_S_MAX
        {
            self.clocks_seen += 1;
        }
    }

    /// Lets nodes store so much that one which gets no more memory has to ask for some. The values go away
    /// by themselves.
    fn load_with_ballast(&self) {
        let seeds = self.listens.clone();
        thread::spawn(move || {
            let mut client = Client::new(seeds);
            let value = vec![b'b'; BALLAST_BYTES];
            for number in 0..BALLAST_COUNT {
                let slot = Slot::new(number * (Slot::COUNT / BALLAST_COUNT));
                let key = key_in(slot.expect("less than there are"), "ballast:");
                // Whatever comes of it.
                let _asked = client.ask(&[b"SET", key.as_bytes(), &value, b"PX", b"5000"]);
            }
        });
    }

    fn glance(&self) -> Glance {
        let elapsed = self.workload.begun().elapsed();
        let now_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let silence = self.workload.pulse().map_or(0, |pulse| pulse.longest_silence_ns(now_ns));
        let underway = self.lanes.iter().filter_map(|lane| lane.underway.as_ref());
        let faults = underway.map(|underway| match underway.began_ms {
            Some(_) => underway.fault.detail.clone(),
            None => format!("({} waits until the cluster is whole)", underway.fault.kind),
        });
        Glance {
            elapsed,
            length: self.order.length,
            done: self.workload.done(),
            silence: Duration::from_nanos(silence),
            faults: faults.collect(),
        }
    }

    fn complain(&mut self, complaint: String) {
        self.done
            .complaints
            .push(format!("at {:.1} s: {complaint}", self.now_ms() as f64 / 1000.0));
    }

    fn now_ms(&self) -> u64 {
        milliseconds(self.workload.begun().elapsed())
    }
}
