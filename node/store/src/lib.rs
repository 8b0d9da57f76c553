//! What a partition's log adds up to: one table per slot, the steps that change it, expiry, memory
//! accounting. Pure: no clock, no randomness, no I/O.
//!
//! [`Store`] is the state; [`Entry`] is what changes it; everything else is asked of a `Store`.
//! Invariant: two stores that were given the same entries agree on every value at every time, however
//! differently they were swept, and whichever of them began from a snapshot of the other.

mod access;
mod ahead;
mod bin;
mod block;
mod entry;
mod evict;
mod extra;
mod fields;
mod filter;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod load;
mod lookup;
mod number;
mod op;
mod read;
mod scan;
mod side;
mod slot_table;
mod snapshot;
mod store;
mod sweep;
mod time;
mod write;

pub use entry::{
    CorruptEntry, ENTRY_HEADER_BYTES, Entry, Logged, Steps, encode_flush, encode_header,
    encode_invalidate_prefix, encode_invalidate_tag, encode_step,
};
pub use evict::{Policy, UnknownPolicy, Victim};
pub use extra::Tag;
pub use lookup::Lookup;
pub use op::{
    Content, DeadlineForm, Expiry, FilterField, FilterForm, FilterLayout, OpError, Read, Reply,
    SetAnswer, Step, TAGS_COUNT_MAX, Terms, Token, Wants, When, WhenExpire, Write,
};
pub use scan::{Cursor, Page};
pub use slot_table::Tally;
pub use snapshot::CorruptSnapshot;
pub use store::{Store, version};
pub use sweep::Swept;
pub use time::UnixMillis;
