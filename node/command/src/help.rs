//! `… HELP`: what may follow a command, from the table.

use std::fmt;

use scatterhoard_resp::Encoder;

use crate::{
    CommandSpec,
    lookup::{find, last_word},
};

/// A command that has subcommands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelpTopic {
    /// `CLIENT`
    Client,
    /// `CLUSTER`
    Cluster,
    /// `COMMAND`
    Command,
    /// `CONFIG`
    Config,
    /// `DEBUG`
    Debug,
    /// `LATENCY`
    Latency,
    /// `MEMORY`
    Memory,
    /// `OBJECT`
    Object,
    /// `SLOWLOG`
    SlowLog,
}

impl HelpTopic {
    const ALL: [Self; 9] = [
        Self::Client,
        Self::Cluster,
        Self::Command,
        Self::Config,
        Self::Debug,
        Self::Latency,
        Self::Memory,
        Self::Object,
        Self::SlowLog,
    ];

    /// What the command is called, in upper case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "CLIENT",
            Self::Cluster => "CLUSTER",
            Self::Command => "COMMAND",
            Self::Config => "CONFIG",
            Self::Debug => "DEBUG",
            Self::Latency => "LATENCY",
            Self::Memory => "MEMORY",
            Self::Object => "OBJECT",
            Self::SlowLog => "SLOWLOG",
        }
    }

    pub(crate) fn of(command: &CommandSpec) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name().eq_ignore_ascii_case(command.name))
    }
}

impl fmt::Display for HelpTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Answers `… HELP`: an array of lines, each a simple string, laid out as in Redis.
pub fn write_help(out: &mut Encoder<'_>, topic: HelpTopic) {
    let command = find(topic.name().as_bytes()).expect("every topic is a command");
    out.array(1 + 2 * command.subcommands.len());
    out.simple(&format!("{topic} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for spec in command.subcommands {
        let name = last_word(spec).to_ascii_uppercase();
        out.simple(format!("{name} {}", spec.syntax).trim_end());
        out.simple(&format!("    {}.", spec.summary));
    }
}
