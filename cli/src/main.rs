//! The binary `hoard`.

fn main() {}
