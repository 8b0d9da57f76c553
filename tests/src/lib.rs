//! Whole clusters: simulated, in process, and as real processes; histories and checkers.
