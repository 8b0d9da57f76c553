//! The contest: who competes in what, in turns, and what each turn is measured by.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::contestant::{Arena, Contestant, Kind};
use crate::outcome::Outcome;
use crate::process::{self, Pin};
use crate::report::{Measured, MemoryRow, Report, Row, Section};

/// Turns each contestant has in each case. Odd, so that the median is one of them.
const TURNS: usize = 3;

/// What a store does after the last write (purging logs, giving memory back) is over by then.
const SETTLE: Duration = Duration::from_secs(2);

/// The sizes of values that memory is measured with.
const VALUE_BYTES_IN_MEMORY: [usize; 2] = [32, 100];

/// A part of the contest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// One node against one `redis-server`.
    Unreplicated,
    /// Three nodes against three of each peer.
    Replicated,
    /// Bytes per entry, one node against one `redis-server`.
    Memory,
}

/// How much load, and who takes part.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where contestants live.
    pub arena: Arena,
    /// The `hoard-load` binary.
    pub generator: PathBuf,
    /// Whether ours takes part; without it the peers are measured alone.
    pub with_ours: bool,
    /// Whether etcd takes part.
    pub with_etcd: bool,
    /// Different keys.
    pub keys: u64,
    /// How long each turn lasts.
    pub turn: Duration,
}

/// One case: what is asked for, by how many at once.
#[derive(Clone, Copy, Debug)]
struct Case {
    command: &'static str,
    connections: usize,
    pipeline: usize,
}

const UNREPLICATED: [Case; 6] = [
    Case { command: "get", connections: 50, pipeline: 1 },
    Case { command: "get", connections: 50, pipeline: 16 },
    Case { command: "get", connections: 50, pipeline: 64 },
    Case { command: "set", connections: 50, pipeline: 1 },
    Case { command: "set", connections: 50, pipeline: 16 },
    Case { command: "set", connections: 50, pipeline: 64 },
];

const REPLICATED: [Case; 4] = [
    Case { command: "set", connections: 1, pipeline: 1 },
    Case { command: "set", connections: 16, pipeline: 1 },
    Case { command: "set", connections: 64, pipeline: 1 },
    Case { command: "set", connections: 256, pipeline: 1 },
];

/// Runs these parts and adds what they measure to the report, case by case.
///
/// # Errors
/// If a contestant does not start, ends, or refuses a request. The report keeps what was measured before.
pub fn run(setup: &Setup, parts: &[Part], report: &mut Report) -> anyhow::Result<()> {
    for part in parts {
        match part {
            Part::Unreplicated => unreplicated(setup, report)?,
            Part::Replicated => replicated(setup, report)?,
            Part::Memory => memory(setup, report)?,
        }
    }
    Ok(())
}

fn unreplicated(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let pins = Pins::new();
    let mut field = Vec::new();
    if setup.with_ours {
        field.push(Contestant::scatterhoard_alone(&setup.arena, pins.server)?);
    }
    field.push(Contestant::redis_alone(&setup.arena, pins.server)?);
    for contestant in &field {
        progress(&format!("filling {}", contestant.kind().name()));
        load(setup, contestant, &fill(setup, 100), "set", pins.generator)?;
    }
    report.sections.push(Section::new(
        "Unreplicated",
        format!("One node against redis-server. 50 connections; {}.", pins.told()),
    ));
    compete(setup, &field, &UNREPLICATED, pins.generator, report)
}

fn replicated(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let mut field = Vec::new();
    if setup.with_ours {
        field.push(Contestant::scatterhoard_cluster(&setup.arena)?);
    }
    field.push(Contestant::redis_replicated(&setup.arena)?);
    if setup.with_etcd {
        field.push(Contestant::etcd_cluster(&setup.arena)?);
    }
    report.sections.push(Section::new(
        "Replicated",
        "Writes acknowledged by two of three nodes, one in flight per client: Scatterhoard's SET, \
         Redis's SET + WAIT 1, etcd's put (to the leader). All processes share all CPUs."
            .into(),
    ));
    compete(setup, &field, &REPLICATED, Pin::Anywhere, report)
}

/// Everyone has a turn, then everyone again: what disturbs the machine meanwhile disturbs all.
fn compete(
    setup: &Setup,
    field: &[Contestant],
    cases: &[Case],
    pin: Pin,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut step, steps) = (0, cases.len() * TURNS * field.len());
    for case in cases {
        let mut turns: Vec<Vec<Measured>> = vec![Vec::new(); field.len()];
        for turn in 1..=TURNS {
            for (contestant, turns) in field.iter().zip(&mut turns) {
                let name = contestant.kind().name();
                step += 1;
                progress(&format!("{step}/{steps} {}: {name}, turn {turn}", case.title()));
                turns.push(measure(setup, contestant, case, pin)?);
            }
        }
        let section = report.sections.last_mut().context("a contest has a section")?;
        for (contestant, turns) in field.iter().zip(turns) {
            section.rows.push(Row::new(case.title(), contestant.kind(), turns));
        }
    }
    Ok(())
}

fn memory(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let pins = Pins::new();
    let kinds: &[Kind] =
        if setup.with_ours { &[Kind::Scatterhoard, Kind::Redis] } else { &[Kind::Redis] };
    let (mut step, steps) = (0, VALUE_BYTES_IN_MEMORY.len() * TURNS * kinds.len());
    for value_bytes in VALUE_BYTES_IN_MEMORY {
        let mut turns: Vec<Vec<f64>> = vec![Vec::new(); kinds.len()];
        for turn in 1..=TURNS {
            for (kind, turns) in kinds.iter().zip(&mut turns) {
                let name = kind.name();
                step += 1;
                progress(&format!("{step}/{steps} memory, {value_bytes} B: {name}, turn {turn}"));
                turns.push(bytes_per_entry(setup, *kind, value_bytes, &pins)?);
            }
        }
        for (kind, turns) in kinds.iter().zip(turns) {
            report.memory.push(MemoryRow::new(value_bytes, setup.keys, *kind, turns));
        }
    }
    Ok(())
}

fn bytes_per_entry(
    setup: &Setup,
    kind: Kind,
    value_bytes: usize,
    pins: &Pins,
) -> anyhow::Result<f64> {
    let contestant = match kind {
        Kind::Scatterhoard => Contestant::scatterhoard_alone(&setup.arena, pins.server)?,
        Kind::Redis | Kind::Etcd => Contestant::redis_alone(&setup.arena, pins.server)?,
    };
    let before = contestant.rss_bytes()?;
    load(setup, &contestant, &fill(setup, value_bytes), "set", pins.generator)?;
    thread::sleep(SETTLE);
    let grown = contestant.rss_bytes()?.saturating_sub(before);
    Ok(grown as f64 / setup.keys as f64)
}

fn measure(
    setup: &Setup,
    contestant: &Contestant,
    case: &Case,
    pin: Pin,
) -> anyhow::Result<Measured> {
    let words = format!(
        "--connections {} --seconds {} --keys {} --value-bytes 100",
        case.connections,
        setup.turn.as_secs_f64(),
        setup.keys,
    );
    let mut words: Vec<_> = words.split(' ').map(str::to_owned).collect();
    if case.pipeline > 1 {
        words.extend(["--pipeline".into(), case.pipeline.to_string()]);
    }
    let before = contestant.cpu()?;
    let outcome = load(setup, contestant, &words, case.command, pin)?;
    let cpu = contestant.cpu()?.saturating_sub(before);
    ensure!(outcome.requests > 0, "nothing was answered");
    Ok(Measured::of(&outcome, cpu))
}

/// Runs the generator once.
fn load(
    setup: &Setup,
    contestant: &Contestant,
    load_words: &[String],
    command: &str,
    pin: Pin,
) -> anyhow::Result<Outcome> {
    let mut words = vec![setup.generator.display().to_string()];
    words.extend(contestant.load_words(command));
    words.extend_from_slice(load_words);
    let output = process::command(&words, pin).stderr(Stdio::inherit()).output()?;
    let name = contestant.kind().name();
    ensure!(output.status.success(), "the load on {name} failed: {}", words.join(" "));
    serde_json::from_slice(&output.stdout).context("what the generator printed")
}

/// The words that write every key once. Few connections, so that their buffers do not count as memory
/// of entries.
fn fill(setup: &Setup, value_bytes: usize) -> Vec<String> {
    let keys = setup.keys;
    let words = format!(
        "--connections 8 --pipeline 64 --order sequential --requests {keys} --keys {keys} --value-bytes {value_bytes}"
    );
    words.split(' ').map(str::to_owned).collect()
}

/// Overwrites the last step on a terminal, and is a line of its own in a log.
fn progress(step: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[Kbench: {step}");
    } else {
        eprintln!("bench: {step}");
    }
}

impl Case {
    fn title(&self) -> String {
        let command = self.command.to_ascii_uppercase();
        match (self.connections, self.pipeline) {
            (50, pipeline) => format!("{command}, pipeline {pipeline}"),
            (1, _) => format!("{command}, 1 client"),
            (clients, _) => format!("{command}, {clients} clients"),
        }
    }
}

/// Server and generator each have a CPU where there are two, so that neither is measured with the other.
struct Pins {
    server: Pin,
    generator: Pin,
}

impl Pins {
    fn new() -> Self {
        if thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) {
            Self { server: Pin::Cpu(0), generator: Pin::Cpu(1) }
        } else {
            Self { server: Pin::Anywhere, generator: Pin::Anywhere }
        }
    }

    fn told(&self) -> &'static str {
        match self.server {
            Pin::Cpu(_) => "the server on CPU 0, the load generator on CPU 1",
            Pin::Anywhere => "server and load generator share the only CPU",
        }
    }
}

/// What a program says it is, for the report.
#[must_use]
pub fn version_of(program: &str) -> Option<String> {
    let output = Process::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}
