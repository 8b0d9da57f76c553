//! The Redis commands: their table, their grammar, and how multi-key commands split.
