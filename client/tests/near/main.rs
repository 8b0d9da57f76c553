//! Copies in this process: the levels that keep them, and the reader that judges them.

mod judge;
mod levels;
mod reader;
