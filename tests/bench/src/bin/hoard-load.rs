//! Puts load on one server or cluster and prints what came of it as JSON.
//!
//! Exits with 0 if every request was answered without an error, with 1 otherwise.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Parser};
use scatterhoard_bench::outcome::Outcome;
use scatterhoard_bench::topology::Topology;
use scatterhoard_bench::workload::{Command, KEYS_MAX, Load, Order, Until, Workload};
use scatterhoard_bench::{etcd, resp};

/// Puts load on one server or cluster and prints what came of it as JSON.
#[derive(Parser)]
#[command(version)]
enum Mode {
    /// Over the Redis protocol.
    Resp {
        /// The server; with --cluster, nodes to ask for the slots.
        #[arg(long, required = true)]
        address: Vec<SocketAddr>,
        /// Sends each key to its slot's node and follows MOVED.
        #[arg(long)]
        cluster: bool,
        /// What each request does.
        #[arg(long, value_enum, default_value = "set")]
        command: Command,
        /// Requests a client sends at once; the next ones follow when all are answered.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        pipeline: u32,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Puts through etcd's v3 API, one HTTP/2 connection per client.
    Etcd {
        /// The member.
        #[arg(long)]
        address: SocketAddr,
        #[command(flatten)]
        load: LoadArgs,
    },
}

#[derive(Args)]
struct LoadArgs {
    /// Clients side by side.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Ends after so many requests.
    #[arg(long, conflicts_with = "seconds")]
    requests: Option<u64>,
    /// Ends after so long [default: 5].
    #[arg(long)]
    seconds: Option<f64>,
    /// Different keys, of 16 bytes each.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    keys: u64,
    /// In which order keys come.
    #[arg(long, value_enum, default_value = "random")]
    order: Order,
    /// Length of each value.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=67_108_864))]
    value_bytes: u32,
    /// Where random keys and the bytes of values start.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl LoadArgs {
    fn load(&self, command: Command, pipeline: u32) -> anyhow::Result<Load> {
        let until = match self.requests {
            Some(requests) => Until::Requests(requests),
            None => Until::Elapsed(Duration::try_from_secs_f64(self.seconds.unwrap_or(5.0))?),
        };
        let workload = Workload {
            command,
            keys: self.keys,
            order: self.order,
            value_bytes: usize::try_from(self.value_bytes)?,
            seed: self.seed,
        };
        let (connections, pipeline) =
            (usize::try_from(self.connections)?, usize::try_from(pipeline)?);
        Ok(Load { workload, connections, pipeline, until })
    }
}

fn main() -> ExitCode {
    match run(&Mode::parse()) {
        Ok(outcome) if outcome.errors.is_empty() => ExitCode::SUCCESS,
        Ok(outcome) => {
            eprintln!("refused: {:?}", outcome.errors);
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mode: &Mode) -> anyhow::Result<Outcome> {
    let outcome = match mode {
        Mode::Resp { address, cluster, command, pipeline, load } => {
            ensure!(*cluster || address.len() == 1, "several addresses need --cluster");
            let topology =
                if *cluster { Topology::discover(address)? } else { Topology::single(address[0]) };
            resp::run(&load.load(*command, *pipeline)?, topology)?
        }
        Mode::Etcd { address, load } => etcd::run(&load.load(Command::Set, 1)?, *address)?,
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(outcome)
}
