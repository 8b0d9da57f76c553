//! The Redis commands: their table, their grammar, and how multi-key commands split.
//!
//! From a request's words to what is meant by them, and from a store's answer back to the wire. Knows
//! the commands of Redis 7.0 that a cache needs, their texts and their metadata. Knows nothing of
//! sockets, sessions or values: no I/O, no clock, no randomness. Same words and same `now`, same answer.
//!
//! ```text
//! request ── resolve ──▶ CommandSpec ── parse ──▶ Command ── split ──▶ parts, one per slot
//!                                                                        │ stores answer
//! RESP ◀── encode_reply ── Reply ◀── merge ─────────────────────────────┘
//! ```

mod arguments;
mod client;
mod cluster;
mod command;
mod describe;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod glob;
mod grammar;
mod help;
mod keys;
mod load;
mod lookup;
mod number;
mod reply;
mod server;
mod session;
mod split;
mod table;

pub use client::{
    ClientAttribute, ClientCommand, ClientFilter, ClientKind, ClientMatch, PauseScope, ReplyMode,
    Tracking,
};
pub use cluster::{ClusterCommand, FailoverMode};
pub use command::{Command, Flush, Invalidate, Scan, ScanKind, Span};
pub use describe::write_query;
pub use error::CommandError;
pub use glob::Glob;
pub use grammar::parse;
pub use help::{HelpTopic, write_help};
pub use keys::{CrossSlot, Keys, keys_of_read, keys_of_write, slot_of_read, slot_of_write};
pub use load::Load;
pub use lookup::resolve;
pub use reply::{encode_error, encode_reply};
pub use server::{
    CommandFilter, CommandQuery, ConfigCommand, LatencyCommand, MemoryCommand, ServerCommand,
    SlowLogCommand,
};
pub use session::{Credentials, Hello, SessionCommand};
pub use split::{Merge, Split, split_read, split_write};
pub use table::{Category, CommandSpec, Deprecated, Flag, Flags, Group, KeySpec, commands};
