//! Networks for nodes that must not notice that they share a machine.
//!
//! Each node lives in a network namespace of its own, whose only device ends in this process, where the
//! [`switch`] hands packets on. Everything is gone with this process, however it ends: devices are files
//! of ours, and namespaces live as long as the processes in them, which the kernel ends with us.

pub mod link;
pub mod machine;
pub mod switch;
mod tun;
