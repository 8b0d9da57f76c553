//! Who is there and how to talk to them: gossip, peer connections, the network seam.
//!
//! Gossip observes ([`View`]); it decides nothing. Peer connections carry messages whose meaning other
//! crates know. Both reach the network only through [`Network`], and time only through `tokio::time`.

mod advert;
mod call;
mod carrier;
mod connection;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gossip;
mod handshake;
mod inbound;
mod inspect;
mod judge;
mod link;
mod muffle;
mod net;
mod peers;
mod pending;
mod secret;
mod shared;

pub use advert::{Advert, Leadership, Seen, View};
pub use call::{CallError, Caller, Lane, ReplyTo, Service, Target};
pub use frame::FRAGMENT_BYTES as IN_ORDER_BYTES_MAX;
pub use gossip::{Gossip, GossipConfig};
pub use muffle::Muffle;
pub use net::{BoxStream, Datagrams, Listener, Network, Stream, SystemNet};
pub use peers::{Identity, Limits, Peers};
pub use secret::{Secret, SecretError};
