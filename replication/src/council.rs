//! The council's machine: its log adds up to the table.

use std::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;
use scatterhoard_ring::{Change, Refusal, Table};

use crate::machine::{Corrupt, Machine, Staging};
use crate::probe::{self, Event};
use crate::raft::Answer;
use crate::tables::Tables;

/// What the council answered to a change: the table after it, or why it is as it was.
pub type Decision = Result<Arc<Table>, Refusal>;

/// The table as one member of the council knows it. What it applies, its node adopts.
pub struct Council {
    state: Mutex<State>,
    tables: Tables,
}

#[derive(Clone, Default)]
struct State {
    /// Unknown until founded with one, or until a snapshot brought one.
    table: Option<Arc<Table>>,
    /// The last entry that the table has seen, refused or not.
    seen: u64,
}

impl Council {
    /// A council that waits for a snapshot.
    #[must_use]
    pub fn empty(tables: Tables) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), tables })
    }

    /// A council that starts from a founding table, which its node adopts once the replica is open.
    #[must_use]
    pub fn founded(table: Arc<Table>, tables: Tables) -> Arc<Self> {
        let state = State { table: Some(table), seen: 0 };
        Arc::new(Self { state: Mutex::new(state), tables })
    }
}

impl Machine for Council {
    fn apply(&self, index: u64, payload: &[u8], _asked: bool) -> Result<Answer, Corrupt> {
        let change = Change::decode(payload).map_err(|_| Corrupt("change of the table"))?;
        let mut state = self.state.lock();
        if index <= state.seen {
            return Ok(Answer::NONE);
        }
        state.seen = index;
        let Some(table) = &state.table else {
            return Err(Corrupt("council: a change before any table"));
        };
        let mut next = Table::clone(table);
        let decision: Decision = next.step(index, &change).map(|()| Arc::new(next));
        if let Ok(table) = &decision {
            state.table = Some(Arc::clone(table));
            probe::saw(|| Event::Decided { table });
            self.tables.adopt(Arc::clone(table));
        }
        Ok(Answer::new(decision))
    }

    fn piece(&self, _position: u64, out: &mut Vec<u8>) -> Option<u64> {
        let state = self.state.lock();
        out.extend_from_slice(&state.seen.to_be_bytes());
        if let Some(table) = &state.table {
            out.extend_from_slice(&table.encode());
        }
        None
    }

    fn stage(&self) -> Box<dyn Staging> {
        Box::new(State::default())
    }

    fn install(&self, staged: Box<dyn Any>) {
        let staged: State = *staged.downcast().expect("a council stages a council's state");
        if let Some(table) = &staged.table {
            probe::saw(|| Event::Decided { table });
            self.tables.adopt(Arc::clone(table));
        }
        *self.state.lock() = staged;
    }
}

impl Staging for State {
    fn absorb(&mut self, piece: &[u8]) -> Result<(), Corrupt> {
        let (seen, table) = piece.split_first_chunk::<8>().ok_or(Corrupt("council's snapshot"))?;
        self.seen = u64::from_be_bytes(*seen);
        let table = Table::decode(table).map_err(|_| Corrupt("table in the council's snapshot"))?;
        self.table = Some(Arc::new(table));
        Ok(())
    }

    fn finish(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
