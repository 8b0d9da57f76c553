//! Scatterhoard side by side with its peers: starts all, measures in turns, writes a report.
//!
//! `scripts/bench` is how people call it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use scatterhoard_bench::contest::{self, Part, Setup};
use scatterhoard_bench::contestant::Arena;
use scatterhoard_bench::report::{Machine, Report};

/// Scatterhoard side by side with its peers.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The binary of ours. Without it, the peers are measured alone.
    #[arg(long)]
    hoard: Option<PathBuf>,
    /// The script that starts and ends a cluster of ours.
    #[arg(long, default_value = "scripts/cluster")]
    cluster_script: PathBuf,
    /// A folder for data and logs, best on tmpfs.
    #[arg(long)]
    work: PathBuf,
    /// Where the report goes: .md and .json are added.
    #[arg(long)]
    out: PathBuf,
    /// The date in the report.
    #[arg(long)]
    date: String,
    /// The state of the sources, for the report.
    #[arg(long, default_value = "unknown")]
    revision: String,
    /// One part only.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Ten times less load.
    #[arg(long)]
    quick: bool,
    /// The first port on loopback.
    #[arg(long, default_value_t = 21_000, value_parser = clap::value_parser!(u16).range(1024..=22_000))]
    port: u16,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let programs =
        [args.hoard.as_ref().and_then(|hoard| hoard.to_str()), Some("redis-server"), Some("etcd")];
    let versions = programs.into_iter().flatten().filter_map(contest::version_of).collect();
    let mut report = Report {
        date: args.date,
        revision: args.revision,
        machine: Machine::here(),
        versions,
        quick: args.quick,
        sections: Vec::new(),
        memory: Vec::new(),
    };
    let less = if args.quick { 10 } else { 1 };
    let setup = Setup {
        generator: std::env::current_exe()?.with_file_name("hoard-load"),
        with_ours: args.hoard.is_some(),
        with_etcd: contest::version_of("etcd").is_some(),
        keys: 1_000_000 / less,
        turn: Duration::from_secs(4) / u32::try_from(less)?,
        arena: Arena {
            work: args.work,
            port: args.port,
            hoard: args.hoard.unwrap_or_default(),
            cluster_script: args.cluster_script,
        },
    };
    let parts = args.only.map_or_else(|| Part::value_variants().to_vec(), |part| vec![part]);
    let ended = contest::run(&setup, &parts, &mut report);
    // Off the line that the progress is on.
    eprintln!();
    // What was measured before a failure is worth keeping, too.
    report.write(&args.out).with_context(|| format!("writing {}", args.out.display()))?;
    println!("{}", report.markdown());
    eprintln!("bench: written to {}", args.out.with_extension("md").display());
    ended
}
