//! The client library of Scatterhoard.
//!
//! [`Cluster`] sends each command to the node that leads its key, follows the cluster while it changes, and says of
//! every write whether it was done, was not done, or is in doubt. It speaks to any Redis or Valkey server or cluster,
//! too.
//!
//! ```no_run
//! # async fn example() -> Result<(), scatterhoard_client::Error> {
//! let cluster = scatterhoard_client::Cluster::connect(["127.0.0.1:7001"]).await?;
//! cluster.set("greeting", "hello").await?;
//! assert_eq!(cluster.get("greeting").await?.as_deref(), Some(&b"hello"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! Needs a tokio runtime. The oldest Rust that it is built with is the `rust-version` of its manifest; a newer one is
//! asked for only with a new minor version. Public types follow semantic versioning; none of a dependency is among
//! them but [`bytes::Bytes`].

pub mod bloom;
pub mod cache;
mod clock;
mod cluster;
pub mod codec;
mod command;
mod config;
mod connector;
mod error;
pub mod ids;
pub mod level;
mod link;
mod listen;
pub mod lock;
#[cfg(feature = "peer")]
pub mod peer;
pub mod register;
pub mod stats;
mod topology;
mod value;

pub use cache::{Cache, Cached};
pub use clock::Clock;
pub use cluster::Cluster;
pub use command::{Command, Effect, SetOptions};
pub use config::Config;
pub use connector::{Connector, Stream, Tcp};
pub use error::Error;
pub use value::Value;
