//! A campaign from its beginning to its verdict.

mod progress;
mod torment;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use scatterhoard_check::history::{Operation, Outcome, summarize};
use scatterhoard_ring::SlotRange;

use crate::arena::{Arena, Plot};
use crate::campaign::{Campaign, Door, Planned};
use crate::fault::Kind;
use crate::finish::Finish;
use crate::machine;
use crate::target::{Site, Target};
use crate::watch::{self, Watch};
use crate::workload::{Mix, Pulse, Workload};
use crate::{report, throughput, verdict};
use torment::{Done, Torment};

/// How long a cluster may take until it is whole, with nothing in its way. Far more than it needs: only one
/// that never gets there fails.
const WHOLE_PATIENCE: Duration = Duration::from_secs(90);

/// How long a partition of a whole cluster may take until it takes a write.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// Clients that follow redirections, and that leave it to nodes.
const FOLLOWERS_COUNT: u32 = 6;
const LEAVERS_COUNT: u32 = 2;

/// After how long clients turn to other keys.
const CHAPTER: Duration = Duration::from_secs(5);

/// Pause of a client between two operations, at most, in a short campaign; and how many operations clients
/// make together, about, in a long one: what is judged in a minute.
const PAUSE_MS_MAX: u64 = 12;
const OPERATIONS_MAX: u64 = 400_000;

/// How long a step in the picture of throughput is, in milliseconds: at least this, and so that there are at
/// most so many.
const STEP_MS_MIN: u64 = 500;
const STEPS_MAX: u64 = 1200;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Order {
    /// The seed that all chance comes from.
    pub seed: u64,
    /// How long faults happen.
    pub length: Duration,
    /// Which faults happen.
    pub kinds: Vec<Kind>,
    /// Whether somebody named them: then one that cannot be done is a complaint.
    pub named: bool,
    /// Nodes that the cluster begins with.
    pub nodes_count: usize,
    /// Where everything is written.
    pub dir: PathBuf,
    /// The command that does it again.
    pub replay: String,
}

/// A campaign, and what clients saw in it.
#[derive(Debug)]
pub struct Proof {
    /// What was done and found.
    pub campaign: Campaign,
    /// What was asked and answered, in nanoseconds.
    pub history: Vec<Operation>,
}

/// Torments a cluster and judges it. `clients` is where packets from and to clients go, or says why nodes
/// have no networks of their own.
///
/// # Errors
/// The cluster could not be made. What goes wrong later is in the verdict.
pub fn run(
    target: &dyn Target,
    order: &Order,
    clients: Result<File, String>,
) -> anyhow::Result<Proof> {
    let no_network = clients.as_ref().err().cloned();
    if let Some(why) = &no_network {
        progress::say(&format!("{why}; what needs that is left out"));
    }
    let faketime = machine::faketime();
    let unable = |kind: Kind| {
        target.unable(kind).or_else(|| match kind {
            Kind::Clock if faketime.is_none() => {
                Some("libfaketime is not installed (Debian: libfaketime)".to_owned())
            }
            _ if kind.needs_network() => no_network.clone(),
            _ => None,
        })
    };
    let able: Vec<Kind> =
        order.kinds.iter().copied().filter(|&kind| unable(kind).is_none()).collect();
    let mut arena = Arena::new(Plot {
        target,
        nodes_count: order.nodes_count,
        dir: order.dir.join("nodes"),
        clients: clients.ok(),
        faketime: faketime.clone().filter(|_| able.contains(&Kind::Clock)),
        seed: order.seed,
    })?;
    arena.form()?;
    let began = machine::now();
    let (done, history, partitions) = torment(target, order, &able, &mut arena)?;
    progress::say("judging what clients saw");
    let planned = |&kind: &Kind| Planned {
        kind: kind.name().to_owned(),
        happened: done.happened.get(&kind).copied().unwrap_or(0),
        unable: unable(kind),
    };
    let planned: Vec<Planned> = order.kinds.iter().map(planned).collect();
    let complaints = complaints(target, order, &arena, &done, &planned);
    let doors = doors(target, &arena, &history);
    let step = STEP_MS_MIN.max(done.ended_ms / STEPS_MAX);
    let campaign = Campaign {
        target: target.title(),
        seed: order.seed,
        replay: order.replay.clone(),
        began,
        machine: machine::describe(no_network.is_none()),
        faults_ended: done.mended_ms,
        ended: done.ended_ms,
        nodes: arena.names(),
        verdict: verdict::judge(&history, &planned, &doors, complaints),
        planned,
        doors,
        throughput: throughput::steps(&history, step, done.ended_ms),
        step,
        outages: throughput::outages(&history, &partitions, done.probed_ms),
        came: came(target, &arena, &history, &done),
        counted: counted(&history, &done),
        leaderships: done.leaderships,
        faults: done.faults,
    };
    Ok(Proof { campaign, history })
}

/// What was found wrong beside the history: along the way, in logs, and what was asked for in vain.
fn complaints(
    target: &dyn Target,
    order: &Order,
    arena: &Arena<'_>,
    done: &Done,
    planned: &[Planned],
) -> Vec<String> {
    let mut complaints = done.complaints.clone();
    for (node, log) in arena.logs() {
        complaints.extend(target.alarms(&log).iter().map(|line| format!("n{node} logged: {line}")));
    }
    if order.named {
        complaints.extend(planned.iter().filter_map(|it| {
            let why = it.unable.as_ref()?;
            Some(format!("{} was asked for and cannot be done: {why}", it.kind))
        }));
    }
    complaints
}

/// What was asked where. What is written and read beside what clients ask for is left out: it would hide a
/// door that does not work.
fn doors(target: &dyn Target, arena: &Arena<'_>, history: &[Operation]) -> Vec<Door> {
    let door = |name, clients| verdict::door(name, &clients, history);
    let all = FOLLOWERS_COUNT + LEAVERS_COUNT;
    match arena.founders().iter().any(|site| target.any_key(site).is_some()) {
        true => vec![
            door("cluster ports", 0..FOLLOWERS_COUNT),
            door("any-key ports", FOLLOWERS_COUNT..all),
        ],
        false => vec![door("cluster ports", 0..all)],
    }
}

type Partitions = Vec<(u16, SlotRange)>;

/// Clients ask, faults happen, everything is mended, and all is read.
fn torment<'t>(
    target: &'t dyn Target,
    order: &Order,
    kinds: &[Kind],
    arena: &mut Arena<'t>,
) -> anyhow::Result<(Done, Vec<Operation>, Partitions)> {
    let watch = Watch::new(target, arena.sites());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = Finish::of(&over);
        for site in arena.sites() {
            let (watch, over) = (&watch, &over);
            scope.spawn(move || watch.keep(site.number, over));
        }
        progress::say(&format!("{}: waiting for {} nodes", target.title(), order.nodes_count));
        let since = Instant::now();
        loop {
            let lacks = watch.lacks(&arena.running(), since);
            if lacks.is_empty() {
                break;
            }
            if let Some((node, ended)) = arena.ended().first() {
                bail!("n{node} ended at once: {ended:?}");
            }
            if since.elapsed() > WHOLE_PATIENCE {
                bail!("the cluster did not get whole: {}", lacks.join("; "));
            }
            thread::sleep(Duration::from_millis(20));
        }
        let partitions = target.partitions(arena.founders()).map_err(anyhow::Error::msg)?;
        let workload = Workload::new(order.seed)
            .of(mix(order.length))
            .with_pulse(Pulse::of(partitions.iter().map(|&(_, slots)| slots)));
        watch.begin(workload.begun());
        let done = ask_and_torment(target, order, kinds, arena, &watch, &workload, &partitions);
        drop(watching);
        Ok((done, workload.recorder().history(), partitions))
    })
}

fn ask_and_torment<'t>(
    target: &'t dyn Target,
    order: &Order,
    kinds: &[Kind],
    arena: &mut Arena<'t>,
    watch: &Watch<'t>,
    workload: &Workload,
    partitions: &Partitions,
) -> Done {
    let sites = arena.founders().to_vec();
    let listens: Vec<_> = sites.iter().map(|site: &Site| site.ports.listen()).collect();
    let any_keys: Vec<_> = sites.iter().filter_map(|site| target.any_key(site)).collect();
    let mut done = thread::scope(|scope| {
        for number in 0..FOLLOWERS_COUNT + LEAVERS_COUNT {
            let leaves = number >= FOLLOWERS_COUNT && !any_keys.is_empty();
            let seeds = if leaves { any_keys.clone() } else { listens.clone() };
            let tracks = !leaves && number % 2 == 1;
            scope.spawn(move || workload.be(number, seeds, tracks));
        }
        for (&(_, slots), number) in partitions.iter().zip(FOLLOWERS_COUNT + LEAVERS_COUNT..) {
            let seeds = listens.clone();
            let slot = slots.iter().next().expect("a range has slots");
            scope.spawn(move || workload.probe(number, slot, seeds));
        }
        let _finish = workload.finish_on_drop();
        Torment::new(order, kinds, arena, watch, workload, listens.clone()).run()
    });
    progress::say("reading everything that was written");
    for key in workload.read_all(&listens) {
        done.complaints.push(format!("{key} cannot be read"));
    }
    done.complaints.extend(workload.oddities());
    done.ended_ms = milliseconds(workload.begun().elapsed());
    done.pipelined = workload.pipelined();
    done.counted = watch.counted();
    done.leaderships = watch.leaderships();
    done
}

/// What clients do in a campaign of this length.
fn mix(length: Duration) -> Mix {
    let clients = u64::from(FOLLOWERS_COUNT + LEAVERS_COUNT);
    let pause_ms = clients * milliseconds(length) / OPERATIONS_MAX;
    Mix {
        pause_ms_max: PAUSE_MS_MAX.max(2 * pause_ms),
        chapter: Some(CHAPTER),
        leases: true,
        pipelines: true,
    }
}

/// What came of the faults: as the watch saw it, as clients were told, as nodes count it, and as their logs
/// tell it.
fn came(
    target: &dyn Target,
    arena: &Arena<'_>,
    history: &[Operation],
    done: &Done,
) -> Vec<(String, u64)> {
    let in_doubt = |it: &&Operation| it.outcome == Outcome::Unknown && !it.action.is_read();
    let mut came = named([
        ("changes of leaders", watch::changes(&done.leaderships)),
        ("writes in doubt to clients", history.iter().filter(in_doubt).count() as u64),
        ("nodes that ended for want of memory", done.starved),
        ("nodes that ended because they had been given up", done.given_up),
    ]);
    add(&mut came, done.counted.clone());
    for log in arena.logs().values() {
        add(&mut came, target.counts(log));
    }
    came
}

fn counted(history: &[Operation], done: &Done) -> Vec<(String, u64)> {
    let summary = summarize(history);
    named([
        ("operations asked for in pipelines", done.pipelined),
        ("operations done", summary.done as u64),
        ("operations answered as not done", summary.refused as u64),
        ("operations in doubt", summary.unknown as u64),
        ("packets handed on", done.tally.passed + done.tally.doubled),
        ("packets dropped", done.tally.dropped),
        ("packets late", done.tally.late),
        ("packets that came twice", done.tally.doubled),
    ])
}

fn named<const N: usize>(counts: [(&str, u64); N]) -> Vec<(String, u64)> {
    counts.map(|(name, count)| (name.to_owned(), count)).to_vec()
}

/// Adds counts under the names that are there, and those that are not at the end.
fn add(counted: &mut Vec<(String, u64)>, more: Vec<(String, u64)>) {
    for (name, count) in more {
        match counted.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += count,
            None => counted.push((name, count)),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("no campaign is that long")
}

/// Writes what there is to see, and says where: `report.html`, `campaign.json` and `history.txt`. What the nodes wrote is
/// kept only if something is wrong.
///
/// # Errors
/// Something could not be written.
pub fn write(order: &Order, proof: &Proof) -> anyhow::Result<()> {
    let dir = &order.dir;
    let file = |name: &str| {
        let path = dir.join(name);
        File::create(&path).with_context(|| format!("writing {}", path.display()))
    };
    serde_json::to_writer_pretty(file("campaign.json")?, &proof.campaign)?;
    file("report.html")?.write_all(report::html(&proof.campaign).as_bytes())?;
    let history = std::io::BufWriter::new(file("history.txt")?);
    scatterhoard_check::history::write_lines(&proof.history, history)?;
    if proof.campaign.verdict.is_good() {
        std::fs::remove_dir_all(dir.join("nodes"))?;
    }
    Ok(())
}
