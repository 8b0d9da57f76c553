//! The command line of a campaign, and what it comes to.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::fault::Kind;
use crate::net::machine;
use crate::run::{self, Order, Proof};
use crate::target::Target;
use crate::target::hoard::Hoard;

/// The longest campaign, in minutes: a week.
const MINUTES_MAX: f64 = 10_080.0;

/// Lost writes that a screen shows; the report has all.
const LOST_SHOWN_MAX: usize = 10;

/// What to do to a cluster, and for how long.
#[derive(Args, Clone, Debug)]
pub struct ProveArgs {
    /// How long faults happen, in minutes. All kinds come to pass in two; less suits a choice of them
    #[arg(long, value_name = "M", default_value = "2", value_parser = length)]
    pub minutes: Duration,

    /// Where all chance comes from: which faults, on whom, and what clients ask for
    /// [default: another one each time]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,

    /// Only these faults: kill, crash, pause, cut, island, one-way, loss, delay, reorder, bandwidth, clock,
    /// memory, descriptors, leave, restart-all, join [default: all that this machine can do]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub faults: Vec<Kind>,

    /// Nodes that the cluster begins with, 3 to 9
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u8).range(3..=9))]
    pub nodes: u8,

    /// Where the report, the history and, if something is wrong, what the nodes logged are written
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Let all nodes share this machine's network, without the faults that take networks of their own
    #[arg(long)]
    pub loopback: bool,
}

/// Who asks for a campaign.
#[derive(Clone, Debug)]
pub struct Asked {
    /// How the command begins that does it again: `hoard prove`.
    pub command: String,
    /// The program that nodes run.
    pub program: PathBuf,
    /// Its version.
    pub version: String,
    /// Where to write if the command line does not say; the seed is appended.
    pub out: String,
}

impl ProveArgs {
    /// Does it, says what came of it, and gives 0 if nothing was found wrong, else 1.
    ///
    /// May begin this process again, with the same arguments, in a network of its own: so it comes first in
    /// a program.
    ///
    /// # Errors
    /// The cluster could not be made, or something could not be written.
    pub fn run(&self, asked: &Asked) -> anyhow::Result<ExitCode> {
        let nodes_count = self.nodes.into();
        let (program, version) = (asked.program.clone(), asked.version.clone());
        self.run_on(&Hoard { program, version, nodes_count }, nodes_count, asked)
    }

    /// The same, with `nodes_count` nodes of whatever it is.
    ///
    /// # Errors
    /// The cluster could not be made, or something could not be written.
    pub fn run_on(
        &self,
        target: &dyn Target,
        nodes_count: usize,
        asked: &Asked,
    ) -> anyhow::Result<ExitCode> {
        let clients = if self.loopback {
            Err("nodes share this machine's network, as asked".to_owned())
        } else {
            machine::isolate()
        };
        let order = Order { nodes_count, ..self.order(asked) };
        std::fs::create_dir_all(&order.dir)?;
        let proof = run::run(target, &order, clients)?;
        run::write(&order, &proof)?;
        print!("{}", summary(&order, &proof));
        let good = proof.campaign.verdict.is_good();
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn order(&self, asked: &Asked) -> Order {
        let seed = self.seed.unwrap_or_else(fresh_seed);
        let named = !self.faults.is_empty();
        let kinds = if named { self.faults.clone() } else { Kind::ALL.to_vec() };
        let out = || PathBuf::from(format!("{}{seed}", asked.out));
        Order {
            seed,
            length: self.minutes,
            kinds,
            named,
            nodes_count: self.nodes.into(),
            dir: self.out.clone().unwrap_or_else(out),
            replay: self.replay(&asked.command, seed),
        }
    }

    fn replay(&self, command: &str, seed: u64) -> String {
        let minutes = self.minutes.as_secs_f64() / 60.0;
        let mut words = format!("{command} --seed {seed} --minutes {minutes}");
        if !self.faults.is_empty() {
            let names: Vec<&str> = self.faults.iter().map(|kind| kind.name()).collect();
            words += &format!(" --faults {}", names.join(","));
        }
        if self.nodes != 3 {
            words += &format!(" --nodes {}", self.nodes);
        }
        if self.loopback {
            words += " --loopback";
        }
        words
    }
}

/// What came of it, on a screen.
fn summary(order: &Order, proof: &Proof) -> String {
    let (campaign, verdict) = (&proof.campaign, &proof.campaign.verdict);
    let mut text = String::new();
    let mut line = |line: String| {
        text += &line;
        text.push('\n');
    };
    let planned = campaign.planned.iter();
    let happened: Vec<String> = planned
        .clone()
        .filter(|it| it.unable.is_none())
        .map(|it| format!("{} {}", it.kind, it.happened))
        .collect();
    line(format!("faults: {}", happened.join(", ")));
    let unable: Vec<&str> =
        planned.filter(|it| it.unable.is_some()).map(|it| it.kind.as_str()).collect();
    if !unable.is_empty() {
        line(format!("left out, because this machine cannot do them: {}", unable.join(", ")));
    }
    for door in &campaign.doors {
        line(format!("{}: {} of {} operations done", door.name, door.done, door.asked));
    }
    line("what came of it:".to_owned());
    for (name, count) in &campaign.came {
        line(format!("  {name}: {count}"));
    }
    for (name, count) in &campaign.counted {
        line(format!("{name}: {count}"));
    }
    let longest = campaign.outages.iter().max_by_key(|outage| outage.until - outage.from);
    line(longest.map_or("no partition was without writes for long".to_owned(), |outage| {
        let (from, length) = (seconds(outage.from), seconds(outage.until - outage.from));
        format!("longest outage: partition {}, {length} s from {from} s on", outage.partition)
    }));
    line(format!("{} operations on {} objects", verdict.operations, verdict.objects));
    line(format!("lost writes: {}", verdict.lost_writes.len()));
    for lost in verdict.lost_writes.iter().take(LOST_SHOWN_MAX) {
        line(format!("  {lost}"));
    }
    if verdict.lost_writes.len() > LOST_SHOWN_MAX {
        line("  and more, see the report".to_owned());
    }
    line(match &verdict.violation {
        Some(violation) => violation.clone(),
        None if verdict.too_hard.is_empty() => "linearizable".to_owned(),
        None => format!("too hard to judge: {}", verdict.too_hard.join("; ")),
    });
    for complaint in &verdict.complaints {
        line(format!("complaint: {complaint}"));
    }
    line(format!("report: {}", order.dir.join("report.html").display()));
    line(format!("replay: {}", order.replay));
    line(if verdict.is_good() { "PROVEN: nothing was found wrong" } else { "FAILED" }.to_owned());
    text
}

fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1000, ms % 1000 / 100)
}

fn length(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes <= MINUTES_MAX => {
            Ok(Duration::from_secs_f64(minutes * 60.0))
        }
        Ok(_) | Err(_) => Err(format!("expected minutes, more than 0 and up to {MINUTES_MAX}")),
    }
}

/// What clap has to say, without the usage, which `--help` shows.
#[must_use]
pub fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let said: Vec<&str> = lines
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .collect();
    let said = said.join(" ").replace(" tip:", ";");
    format!("{} (try --help)", said.strip_prefix("error: ").unwrap_or(&said))
}

/// A number that is another one each time, and short enough to be told.
#[must_use]
pub fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() % 1_000_000
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        prove: ProveArgs,
    }

    fn parsed(line: &str) -> Result<ProveArgs, String> {
        let words = std::iter::once("prove").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.prove).map_err(|error| one_line(&error))
    }

    #[test]
    fn a_replay_is_read_as_the_same_campaign() {
        for line in [
            "--seed 7 --minutes 2",
            "--seed 8 --minutes 0.5 --faults kill,one-way --nodes 5 --loopback",
        ] {
            let args = parsed(line).unwrap();
            assert_eq!(args.replay("x", args.seed.unwrap()), format!("x {line}"));
        }
    }

    #[test]
    fn without_names_all_faults_are_meant_and_none_was_named() {
        let asked = Asked {
            command: "x".to_owned(),
            program: PathBuf::from("hoard"),
            version: "0".to_owned(),
            out: "proof-".to_owned(),
        };
        let order = parsed("--seed 7").unwrap().order(&asked);
        assert_eq!((order.kinds.as_slice(), order.named), (Kind::ALL.as_slice(), false));
        assert_eq!((order.length, order.dir), (Duration::from_secs(120), "proof-7".into()));
        let order = parsed("--seed 7 --faults cut,kill").unwrap().order(&asked);
        assert_eq!((order.kinds, order.named), (vec![Kind::Cut, Kind::Kill], true));
    }

    #[test]
    fn a_mistake_is_one_line() {
        let names = Kind::ALL.map(Kind::name).join(", ");
        assert_eq!(
            parsed("--faults kil").unwrap_err(),
            format!(
                "invalid value 'kil' for '--faults <LIST>': there is no fault `kil`; there are {names} (try --help)"
            )
        );
        assert!(parsed("--minutes 0").is_err_and(|said| said.contains("more than 0")));
        assert!(parsed("--nodes 2").is_err());
    }
}
