//! Commands about a node.

use crate::{ClusterCommand, Glob, HelpTopic};

/// About the node or the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerCommand<'a> {
    /// `INFO [section…]`
    Info {
        /// As sent, in any case of letters. Empty: the default ones.
        sections: Vec<&'a [u8]>,
    },
    /// `CONFIG …`
    Config(ConfigCommand<'a>),
    /// `COMMAND …`. [`write_query`](crate::write_query) answers it.
    Command(CommandQuery<'a>),
    /// `CLUSTER …`
    Cluster(ClusterCommand<'a>),
    /// `DEBUG SLEEP seconds`: `+OK`, so much later.
    DebugSleep {
        /// Milliseconds, rounded: `[0, 2^63)`. The caller bounds it.
        duration_ms: u64,
    },
    /// `LATENCY …`
    Latency(LatencyCommand<'a>),
    /// `SLOWLOG …`
    SlowLog(SlowLogCommand),
    /// `MEMORY …`, but for `MEMORY USAGE`, which is a read.
    Memory(MemoryCommand),
    /// `TIME`: seconds since the Unix epoch, and microseconds, as bulk strings.
    Time,
    /// `… HELP`. [`write_help`](crate::write_help) answers it.
    Help(HelpTopic),
}

/// About settings.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigCommand<'a> {
    /// `CONFIG GET pattern…`: a map of the settings that match any.
    Get {
        /// At least one.
        patterns: Vec<Glob<'a>>,
    },
    /// `CONFIG SET name value…`: all or none.
    Set {
        /// At least one; names as sent, in any case of letters. No name stands twice.
        settings: Vec<(&'a [u8], &'a [u8])>,
    },
    /// `CONFIG RESETSTAT`
    ResetStat,
    /// `CONFIG REWRITE`
    Rewrite,
}

/// About the commands themselves.
#[derive(Clone, Debug, PartialEq)]
pub enum CommandQuery<'a> {
    /// `COMMAND`: every entry.
    All,
    /// `COMMAND COUNT`
    Count,
    /// `COMMAND INFO [name…]`: entries, nil for a name that is unknown. None named: every entry.
    Info {
        /// As sent.
        names: Vec<&'a [u8]>,
    },
    /// `COMMAND DOCS [name…]`: a map; unknown names are left out. None named: all.
    Docs {
        /// As sent.
        names: Vec<&'a [u8]>,
    },
    /// `COMMAND GETKEYS command…`: the keys in it.
    GetKeys {
        /// A whole command: at least one word.
        words: Vec<&'a [u8]>,
    },
    /// `COMMAND LIST [FILTERBY …]`: names, subcommands too.
    List(CommandFilter<'a>),
}

/// Which commands `COMMAND LIST` names.
#[derive(Clone, Debug, PartialEq)]
pub enum CommandFilter<'a> {
    /// All.
    All,
    /// `MODULE name`: those of a module. There are no modules.
    Module,
    /// `ACLCAT category`: those in a category.
    Category(&'a [u8]),
    /// `PATTERN pattern`: those whose name matches.
    Pattern(Glob<'a>),
}

/// About delays that were noticed.
#[derive(Clone, Debug, PartialEq)]
pub enum LatencyCommand<'a> {
    /// `LATENCY LATEST`
    Latest,
    /// `LATENCY HISTORY event`
    History {
        /// As sent.
        event: &'a [u8],
    },
    /// `LATENCY GRAPH event`
    Graph {
        /// As sent.
        event: &'a [u8],
    },
    /// `LATENCY RESET [event…]`: how many were reset. None named: all.
    Reset {
        /// As sent.
        events: Vec<&'a [u8]>,
    },
    /// `LATENCY DOCTOR`
    Doctor,
    /// `LATENCY HISTOGRAM [command…]`: None named: all.
    Histogram {
        /// Names of commands, as sent.
        commands: Vec<&'a [u8]>,
    },
}

/// About commands that took long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowLogCommand {
    /// `SLOWLOG GET [count]`
    Get {
        /// At most so many, the newest. `None`: all.
        count: Option<u64>,
    },
    /// `SLOWLOG LEN`
    Len,
    /// `SLOWLOG RESET`
    Reset,
}

/// About the memory of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryCommand {
    /// `MEMORY DOCTOR`
    Doctor,
    /// `MEMORY STATS`
    Stats,
    /// `MEMORY PURGE`
    Purge,
    /// `MEMORY MALLOC-STATS`
    MallocStats,
}
