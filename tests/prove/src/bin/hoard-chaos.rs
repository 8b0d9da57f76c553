//! Chaos on a cluster of a binary that is not this one: what `scripts/chaos` runs.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use clap::Parser;
use scatterhoard_prove::args::{Asked, ProveArgs, one_line};

/// Torments a cluster of real processes on this machine, and judges what clients saw.
#[derive(Parser)]
#[command(name = "scripts/chaos", max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    prove: ProveArgs,

    /// The binary that nodes run
    #[arg(long, value_name = "PATH", env = "HOARD_BIN")]
    hoard: PathBuf,
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
    run(&cli).unwrap_or_else(|error| {
        eprintln!("scripts/chaos: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let program = std::fs::canonicalize(&cli.hoard)
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
