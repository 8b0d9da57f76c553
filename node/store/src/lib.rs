//! What a partition's log adds up to: one table per slot, the steps that change it, expiry, memory
//! accounting. Pure: no clock, no randomness, no I/O.

mod op;
mod time;

pub use op::{
    DeadlineForm, Expiry, OpError, Read, Reply, SetAnswer, Step, When, WhenExpire, Write,
};
pub use time::UnixMillis;
