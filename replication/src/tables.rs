//! The newest table this node knows, wherever it came from.

use std::sync::Arc;

use scatterhoard_ring::Table;
use tokio::sync::watch;

use crate::probe::{self, Event};

/// Holds the newest table. Its epoch never goes back. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tables(Arc<watch::Sender<Option<Arc<Table>>>>);

impl Tables {
    /// Takes a table if it is newer than the one held, of the same cluster.
    pub fn adopt(&self, table: Arc<Table>) -> bool {
        self.0.send_if_modified(|held| {
            let newer = held
                .as_ref()
                .is_none_or(|held| held.cluster == table.cluster && held.epoch < table.epoch);
            if newer {
                probe::saw(|| Event::Table { table: &table });
                *held = Some(table);
            }
            newer
        })
    }

    /// The newest table, if there is one yet.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<Table>> {
        self.0.borrow().clone()
    }

    /// Every newer table from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Table>>> {
        self.0.subscribe()
    }
}
