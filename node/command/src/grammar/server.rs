//! Commands about a node.

use std::collections::BTreeSet;

use super::{Parsed, Request, is};
use crate::{
    Command, CommandError, CommandFilter, CommandQuery, ConfigCommand, Glob, HelpTopic,
    LatencyCommand, MemoryCommand, ServerCommand, SlowLogCommand,
    error::{ECHO_CHARS_MAX, printable},
    number,
};

const fn server(command: ServerCommand<'_>) -> Parsed<'_> {
    Ok(Command::Server(command))
}

pub(crate) fn info(request: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Info { sections: request.words_from(1) })
}

pub(crate) fn time(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Time)
}

/// What is no number, or negative, is 0, as for `strtod` in Redis.
pub(crate) fn debug_sleep(request: Request<'_>) -> Parsed<'_> {
    let seconds = number::float(request.word(2)).unwrap_or(0.0);
    // A cast saturates, and the result is below 2^63 as documented.
    let duration_ms = ((seconds * 1_000.0).round() as u64).min(i64::MAX as u64);
    server(ServerCommand::DebugSleep { duration_ms })
}

pub(crate) fn debug_help(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Help(HelpTopic::Debug))
}

pub(crate) fn config_get(request: Request<'_>) -> Parsed<'_> {
    let patterns = request.words_from(2).into_iter().map(Glob::new).collect();
    server(ServerCommand::Config(ConfigCommand::Get { patterns }))
}

pub(crate) fn config_set(request: Request<'_>) -> Parsed<'_> {
    if !request.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    let settings = request.pairs_from(2);
    let mut names = BTreeSet::new();
    let twice = settings.iter().find(|(name, _)| !names.insert(name.to_ascii_lowercase()));
    if let Some((name, _)) = twice {
        return Err(CommandError::ConfigTwice(printable(name, ECHO_CHARS_MAX)));
    }
    server(ServerCommand::Config(ConfigCommand::Set { settings }))
}

pub(crate) fn config_resetstat(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Config(ConfigCommand::ResetStat))
}

pub(crate) fn config_rewrite(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Config(ConfigCommand::Rewrite))
}

pub(crate) fn config_help(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Help(HelpTopic::Config))
}

pub(crate) fn command(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Command(CommandQuery::All))
}

pub(crate) fn command_count(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Command(CommandQuery::Count))
}

pub(crate) fn command_info(request: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Command(CommandQuery::Info { names: request.words_from(2) }))
}

pub(crate) fn command_docs(request: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Command(CommandQuery::Docs { names: request.words_from(2) }))
}

pub(crate) fn command_getkeys(request: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Command(CommandQuery::GetKeys { words: request.words_from(2) }))
}

pub(crate) fn command_list(request: Request<'_>) -> Parsed<'_> {
    let mut options = request.options_from(2);
    let filter = match options.next() {
        None => CommandFilter::All,
        Some(word) if is(word, "FILTERBY") && request.len() == 5 => {
            let (by, value) = (options.value()?, options.value()?);
            if is(by, "MODULE") {
                CommandFilter::Module
            } else if is(by, "ACLCAT") {
                CommandFilter::Category(value)
            } else if is(by, "PATTERN") {
                CommandFilter::Pattern(Glob::new(value))
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Some(_) => return Err(CommandError::Syntax),
    };
    server(ServerCommand::Command(CommandQuery::List(filter)))
}

pub(crate) fn command_help(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Help(HelpTopic::Command))
}

pub(crate) fn latency_latest(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Latency(LatencyCommand::Latest))
}

pub(crate) fn latency_history(request: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Latency(LatencyCommand::History { event: request.word(2) }))
}

pub(crate) fn latency_graph(request: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Latency(LatencyCommand::Graph { event: request.word(2) }))
}

pub(crate) fn latency_reset(request: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Latency(LatencyCommand::Reset { events: request.words_from(2) }))
}

pub(crate) fn latency_doctor(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Latency(LatencyCommand::Doctor))
}

pub(crate) fn latency_histogram(request: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Latency(LatencyCommand::Histogram { commands: request.words_from(2) }))
}

pub(crate) fn latency_help(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Help(HelpTopic::Latency))
}

/// Redis tells ten if the client does not say how many.
const SLOW_LOG_COUNT_DEFAULT: u64 = 10;

pub(crate) fn slowlog_get(request: Request<'_>) -> Parsed<'_> {
    if request.len() > 3 {
        let name = printable(request.word(1), ECHO_CHARS_MAX);
        return Err(CommandError::SubcommandArity { name, topic: HelpTopic::SlowLog });
    }
    let count = match request.options_from(2).next() {
        None => Some(SLOW_LOG_COUNT_DEFAULT),
        Some(word) => match number::integer(word) {
            Some(-1) => None,
            Some(count) => Some(u64::try_from(count).map_err(|_| CommandError::SlowLogCount)?),
            None => return Err(CommandError::SlowLogCount),
        },
    };
    server(ServerCommand::SlowLog(SlowLogCommand::Get { count }))
}

pub(crate) fn slowlog_len(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::SlowLog(SlowLogCommand::Len))
}

pub(crate) fn slowlog_reset(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::SlowLog(SlowLogCommand::Reset))
}

pub(crate) fn slowlog_help(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Help(HelpTopic::SlowLog))
}

pub(crate) fn memory_doctor(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Memory(MemoryCommand::Doctor))
}

pub(crate) fn memory_stats(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Memory(MemoryCommand::Stats))
}

pub(crate) fn memory_purge(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Memory(MemoryCommand::Purge))
}

pub(crate) fn memory_malloc_stats(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Memory(MemoryCommand::MallocStats))
}

pub(crate) fn memory_help(_: Request<'_>) -> Parsed<'_> {
    server(ServerCommand::Help(HelpTopic::Memory))
}

/// A command that means nothing without a second word. [`resolve`](crate::resolve) refuses it already.
pub(crate) fn container(request: Request<'_>) -> Parsed<'_> {
    Err(CommandError::WrongArity(request.spec.name))
}
