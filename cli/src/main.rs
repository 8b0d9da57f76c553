//! The binary `hoard`: runs a node, and asks running ones.
//!
//! Exits with 0 when what was asked for was done, with 2 when it makes no sense, with 1 otherwise; the
//! reason is one line on stderr.

mod address;
mod admin;
mod args;
mod descriptors;
#[cfg(test)]
mod fuzz;
mod measure;
mod node;
mod settings;
mod status;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use scatterhoard_prove::args::{Asked, one_line};

use crate::args::{Cli, Command};
use crate::settings::SettingsError;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc is told at start; it looks for this name. A thread of its own gives memory back that was
/// freed, also while the node is idle (Redis has the same, `jemalloc-bg-thread`), and four arenas are
/// enough for the few threads there are.
#[expect(unsafe_code, reason = "jemalloc reads a C string under this name; nothing else has it")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static JEMALLOC_CONF: &[u8; 74] =
    b"background_thread:true,max_background_threads:1,narenas:4,abort_conf:true\0";

/// Exit code for a command line or a configuration that makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hoard: {error:#}");
            let usage = error.downcast_ref().is_some_and(SettingsError::is_usage);
            if usage { USAGE.into() } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Node(args) => node::run(*args),
        Command::Status(args) => status::run(&args),
        Command::Ready(args) => admin::ready(&args),
        Command::Drain(args) => admin::drain(&args),
        Command::Leave(args) => admin::leave(&args),
        Command::Recover(args) => admin::recover(&args),
        Command::Found(args) => admin::found(&args),
        Command::Prove(args) => args.run(&Asked {
            command: "hoard prove".to_owned(),
            program: std::env::current_exe()?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            out: "hoard-proof-".to_owned(),
        }),
        Command::Version => {
            say(&format!("hoard {}\n", env!("CARGO_PKG_VERSION")));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints to stdout, which nobody has to read to its end: a closed pipe is no reason to fail.
fn say(text: &str) {
    let _unread = std::io::stdout().write_all(text.as_bytes());
}

/// Prints help and the version as they are, and an error as one line: what a supervisor logs.
fn explain(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Fails only if nobody reads it.
            let _unread = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _unread = error.print();
            USAGE.into()
        }
        _ => {
            eprintln!("hoard: {}", one_line(error));
            USAGE.into()
        }
    }
}
