//! Chaos on a cluster of a binary that is not this one: what `scripts/chaos` runs.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use scatterhoard_prove::args::{Asked, ProveArgs, fresh_seed, one_line};
use scatterhoard_prove::campaign::Campaign;
use scatterhoard_prove::report;
use scatterhoard_prove::target::redis_cluster::{self, RedisCluster};

/// Torments a cluster of real processes on this machine, and judges what clients saw.
#[derive(Parser)]
#[command(name = "scripts/chaos", max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    prove: ProveArgs,

    /// What is tormented. Redis Cluster is three masters with a replica each, whatever `--nodes` says
    #[arg(long, value_name = "WHAT", default_value = "hoard")]
    target: Kind,

    /// Do the same to each, one after the other, and write their reports and one of both side by side. Only
    /// what is found wrong with hoard counts as a failure
    #[arg(long, conflicts_with = "target")]
    compare: bool,

    /// The binary that nodes run
    #[arg(long, value_name = "PATH", env = "HOARD_BIN")]
    hoard: PathBuf,

    /// What nodes of Redis Cluster run: Redis 7 or later
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    redis_server: PathBuf,
}

/// What can be tormented.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Hoard,
    RedisCluster,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Hoard => "hoard",
            Self::RedisCluster => "redis-cluster",
        }
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            eprintln!("scripts/chaos: {}", one_line(&error));
            return ExitCode::from(2);
        }
        // Help is no mistake.
        Err(error) => error.exit(),
    };
    let done = match (cli.compare, cli.target) {
        (true, _) => compare(&cli),
        (false, Kind::Hoard) => torment_hoard(&cli),
        (false, Kind::RedisCluster) => torment_redis_cluster(&cli),
    };
    done.unwrap_or_else(|error| {
        eprintln!("scripts/chaos: {error:#}");
        ExitCode::FAILURE
    })
}

fn torment_hoard(cli: &Cli) -> anyhow::Result<ExitCode> {
    let program = fs::canonicalize(&cli.hoard)
        .with_context(|| format!("there is no {}", cli.hoard.display()))?;
    let told = Command::new(&program).arg("version").output();
    let told = told.with_context(|| format!("{} cannot be run", program.display()))?;
    let version = String::from_utf8_lossy(&told.stdout);
    let version = version.trim().strip_prefix("hoard ");
    ensure!(version.is_some(), "{} is not hoard", program.display());
    cli.prove.run(&Asked {
        command: "scripts/chaos".to_owned(),
        program,
        version: version.unwrap_or_default().to_owned(),
        out: "target/chaos/".to_owned(),
    })
}

fn torment_redis_cluster(cli: &Cli) -> anyhow::Result<ExitCode> {
    let target = RedisCluster::of(cli.redis_server.clone())?;
    let asked = Asked {
        command: "scripts/chaos --target redis-cluster".to_owned(),
        program: cli.redis_server.clone(),
        version: String::new(),
        out: "target/chaos/redis-cluster-".to_owned(),
    };
    cli.prove.run_on(&target, redis_cluster::NODES_COUNT, &asked)
}

/// Each in a process of its own: a campaign takes the process's network.
fn compare(cli: &Cli) -> anyhow::Result<ExitCode> {
    let seed = cli.prove.seed.unwrap_or_else(fresh_seed);
    let out = || PathBuf::from(format!("target/chaos/compared-{seed}"));
    let out = cli.prove.out.clone().unwrap_or_else(out);
    let mut campaigns = Vec::new();
    for kind in [Kind::Hoard, Kind::RedisCluster] {
        let dir = out.join(kind.name());
        let status = Command::new(std::env::current_exe()?)
            .args(["--target", kind.name(), "--seed", &seed.to_string(), "--hoard"])
            .arg(&cli.hoard)
            .arg("--redis-server")
            .arg(&cli.redis_server)
            .args(order(&cli.prove))
            .arg("--out")
            .arg(&dir)
            .status()?;
        let campaign = read(&dir.join("campaign.json"));
        campaigns
            .push(campaign.with_context(|| format!("{} was not judged: {status}", kind.name()))?);
    }
    let (page, table) = (out.join("compared.html"), out.join("compared.md"));
    fs::write(&page, report::compare(&campaigns))?;
    let markdown = report::markdown(&campaigns);
    fs::write(&table, &markdown)?;
    println!("\n{markdown}\nside by side: {} and {}", page.display(), table.display());
    let good = campaigns.first().is_some_and(|ours| ours.verdict.is_good());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is the same for each.
fn order(prove: &ProveArgs) -> Vec<OsString> {
    let minutes = prove.minutes.as_secs_f64() / 60.0;
    let mut words = vec!["--minutes".to_owned(), minutes.to_string()];
    words.extend(["--nodes".to_owned(), prove.nodes.to_string()]);
    if !prove.faults.is_empty() {
        let names: Vec<&str> = prove.faults.iter().map(|kind| kind.name()).collect();
        words.extend(["--faults".to_owned(), names.join(",")]);
    }
    if prove.loopback {
        words.push("--loopback".to_owned());
    }
    words.into_iter().map(OsString::from).collect()
}

fn read(path: &Path) -> anyhow::Result<Campaign> {
    let file = File::open(path).with_context(|| format!("there is no {}", path.display()))?;
    Ok(serde_json::from_reader(BufReader::new(file))?)
}
