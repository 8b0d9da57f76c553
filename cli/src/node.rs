//! Runs a node until it is told to go.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use scatterhoard_node::{Config, Environment, Node, StartError};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::args::{Log, NodeArgs};
use crate::descriptors;
use crate::say;
use crate::settings::Settings;

/// Runs a node; returns when it has gone.
pub(crate) fn run(args: NodeArgs) -> anyhow::Result<ExitCode> {
    let Settings { config, threads, log } = Settings::of(args)?;
    start_log(&log);
    let config = descriptors::fit(config)?;
    runtime(threads).context("cannot start the runtime")?.block_on(serve(config))
}

/// One thread does without stealing and wake-ups across threads: 20 to 30 % less CPU per command, and
/// batches twice as large.
fn runtime(threads: usize) -> std::io::Result<Runtime> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build()
}

fn start_log(log: &Log) {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(log.directives()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::new().context("cannot listen for signals")?;
    let patience = config.leave_timeout;
    let loopback = config.peer.ip().is_loopback();
    let node = Node::listen(config, Environment::system()).await?;
    let entered = tokio::select! {
        biased;
        signal = stop.asked() => {
            info!(signal, "stopped before it was a member");
            node.shutdown().await;
            return Ok(ExitCode::SUCCESS);
        }
        entered = node.enter() => entered,
    };
    match entered {
        Ok(()) => {}
        Err(StartError::Stopped) => return Ok(ExitCode::SUCCESS),
        Err(error) => {
            node.shutdown().await;
            return Err(error.into());
        }
    }
    say(&greeting(&node, loopback));
    tokio::select! {
        biased;
        signal = stop.asked() => leave(&node, signal, patience, &mut stop).await,
        () = node.asked_to_leave() => leave(&node, "hoard leave", patience, &mut stop).await,
        () = node.stopped() => {
            warn!("this node is no longer a member: start it again to join anew");
            node.shutdown().await;
            anyhow::bail!("dismissed from the cluster");
        }
    }
}

/// Hands over and goes; at once if asked again.
async fn leave(
    node: &Node,
    asked_by: &'static str,
    patience: Duration,
    stop: &mut Stop,
) -> anyhow::Result<ExitCode> {
    info!(asked_by, ?patience, "leaving; another signal ends this at once");
    let gone = async {
        node.leave(patience).await;
        node.shutdown().await;
    };
    tokio::select! {
        biased;
        signal = stop.asked() => {
            warn!(signal, "ended before everything was handed over");
            // What is under way would take its time; the second signal says that nobody has it.
            std::process::exit(1);
        }
        () = gone => Ok(ExitCode::SUCCESS),
    }
}

/// The signals that ask a node to go.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one, and names it.
    async fn asked(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Where the node listens, and how to add another one.
fn greeting(node: &Node, loopback: bool) -> String {
    let at = node.addresses().endpoints();
    format!(
        "hoard {} is up, node {}\n\
         \x20 redis, cluster  {}\n\
         \x20 redis, any key  {}\n\
         \x20 http            http://{}\n\
         \x20 peers           {}\n\
         join another node with\n\
         \x20 {}\n",
        env!("CARGO_PKG_VERSION"),
        node.id(),
        at.listen,
        at.any_key,
        at.http,
        at.peer,
        join_line(at.listen, at.peer, loopback),
    )
}

/// The command that joins another node: on this machine if others cannot reach this one.
fn join_line(listen: SocketAddr, peer: SocketAddr, loopback: bool) -> String {
    let port = listen.port();
    if loopback {
        // The next port but for the last, whose neighbours would not have room for a peer port.
        let other = port.checked_add(1).unwrap_or(port - 1);
        format!("hoard node --listen {}:{other} --join {peer}", listen.ip())
    } else {
        format!("hoard node --listen IP:{port} --join {peer}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_join_line_works_where_the_node_can_be_reached() {
        let addr = |text: &str| text.parse().unwrap();
        assert_eq!(
            join_line(addr("127.0.0.1:6379"), addr("127.0.0.1:16379"), true),
            "hoard node --listen 127.0.0.1:6380 --join 127.0.0.1:16379"
        );
        assert_eq!(
            join_line(addr("10.0.0.5:6379"), addr("10.0.0.5:16379"), false),
            "hoard node --listen IP:6379 --join 10.0.0.5:16379"
        );
    }
}
