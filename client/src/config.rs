//! What a client may be told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{Connector, Tcp};

/// How a [`crate::Cluster`] behaves. Every field may be set; [`Config::new`] has what suits most.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Addresses, `host:port`, of any nodes: one that answers is enough, the others are found.
    pub addresses: Vec<String>,
    /// Who asks; `None` is the server's default user.
    pub user: Option<String>,
    /// What proves it.
    pub password: Option<String>,
    /// How long one request may take, with everything that it needs. Longer than a node waits for a majority (2 s),
    /// or writes that were done come out as in doubt. 5 s.
    pub patience: Duration,
    /// How long a reply to a read is waited for before it is asked for anew, perhaps elsewhere. 1.5 s.
    pub read_patience: Duration,
    /// How long a connection may take to come about. 1 s.
    pub connect_patience: Duration,
    /// How old the map of slots may get without a reason to fetch it anew. 30 s.
    pub map_max_age: Duration,
    /// How connections come about.
    pub connector: Arc<dyn Connector>,
}

impl Config {
    /// Settings for a cluster that has nodes at these addresses.
    pub fn new(addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            addresses: addresses.into_iter().map(Into::into).collect(),
            user: None,
            password: None,
            patience: Duration::from_secs(5),
            read_patience: Duration::from_millis(1500),
            connect_patience: Duration::from_secs(1),
            map_max_age: Duration::from_secs(30),
            connector: Arc::new(Tcp),
        }
    }
}

impl fmt::Debug for Config {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { addresses, user, patience, .. } = self;
        f.debug_struct("Config")
            .field("addresses", addresses)
            .field("user", user)
            .field("patience", patience)
            .finish_non_exhaustive()
    }
}
