//! The process: sessions, commands, partitions, routing, membership.
