//! Why a command is not served, in the words that Redis clients know.
//!
//! Promise 3 of the design hangs on the first word: clients retry by themselves after MOVED, TRYAGAIN
//! and CLUSTERDOWN, so these are said only of commands that certainly had no effect.

use std::net::SocketAddr;

use scatterhoard_resp::Encoder;
use scatterhoard_ring::Slot;

/// Why a command is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another node leads the slot. No effect.
    Moved { slot: Slot, to: SocketAddr },
    /// Nobody is known to lead the slot, or no quorum confirms it. No effect.
    ClusterDown,
    /// The keys lie in several slots. No effect.
    CrossSlot,
    /// The partition has fewer replicas than the cluster demands. No effect.
    TooFewReplicas,
    /// Memory is used up and nothing may be evicted. No effect.
    OutOfMemory,
    /// The reply would take more memory than a reply may. No effect.
    ReplyTooBig,
    /// The write may have happened, now or later. The one refusal that no client retries by itself.
    InDoubt,
}

/// Writes the refusal.
pub(crate) fn put_refusal(out: &mut Encoder<'_>, refusal: &Refusal) {
    match refusal {
        Refusal::Moved { slot, to } => out.error("MOVED", format_args!("{slot} {to}")),
        Refusal::ClusterDown => out.error("CLUSTERDOWN", "Hash slot not served"),
        Refusal::CrossSlot => {
            out.error("CROSSSLOT", "Keys in request don't hash to the same slot");
        }
        Refusal::TooFewReplicas => {
            out.error("NOREPLICAS", "Not enough good replicas to write.");
        }
        Refusal::OutOfMemory => {
            out.error("OOM", "command not allowed when used memory > 'maxmemory'.");
        }
        Refusal::ReplyTooBig => {
            out.error("ERR", "the reply would be too big, ask for less at once");
        }
        Refusal::InDoubt => {
            out.error(
                "INDOUBT",
                "the outcome is not known: the write may or may not have happened",
            );
        }
    }
}
