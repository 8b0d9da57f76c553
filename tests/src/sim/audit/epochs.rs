//! A table's epoch never goes back in one process, and at one epoch there is one table.
//!
//! The council's log decides on tables, so this is State Machine Safety (Raft, figure 3) seen from those who
//! only read what it adds up to. Across generations of the council the epoch begins with the generation.

use std::collections::HashMap;

use scatterhoard_replication::probe::Event;
use scatterhoard_ring::{ClusterId, Epoch, Table};

use super::{Invariant, Whose};

/// The newest table of each process, and what each table says.
#[derive(Default)]
pub(super) struct Epochs {
    newest: HashMap<Whose, Epoch>,
    tables: HashMap<(ClusterId, Epoch), Table>,
}

impl Invariant for Epochs {
    fn saw(&mut self, whose: Whose, event: &Event<'_>) -> Result<(), String> {
        let table = match event {
            Event::Decided { table } => table,
            Event::Table { table } => {
                let before = self.newest.insert(whose, table.epoch);
                if before.is_some_and(|before| before >= table.epoch) {
                    return Err(format!("table {} came after {before:?}", table.epoch));
                }
                table
            }
            _ => return Ok(()),
        };
        let known =
            self.tables.entry((table.cluster, table.epoch)).or_insert_with(|| (*table).clone());
        if known != *table {
            return Err(format!("there are two tables of epoch {}", table.epoch));
        }
        Ok(())
    }
}
