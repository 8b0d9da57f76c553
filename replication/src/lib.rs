//! One log, R copies: Raft groups, their storage, snapshots, leases, and the council.
