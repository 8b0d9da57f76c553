//! The log of one replica, in memory: what was appended and not yet purged, and the vote.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::poll_fn;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::task::{Poll, Waker};

use openraft::entry::EntryPayload;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use parking_lot::Mutex;

use crate::raft::{LogEntry, LogId, Types, Vote};

/// Bytes of entries that one message to a follower may carry, unless one entry alone is larger.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What an entry costs beside its payload. Measured on the allocation, rounded up.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// A handle to the log; cheap to clone. openraft writes and reads through clones of it.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    entries: VecDeque<LogEntry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    bytes: usize,
    /// Who waits for the log to grow.
    waiting: Vec<Waker>,
}

/// How much a log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogSize {
    /// Index of the first entry that is kept; meaningless for an empty log.
    pub(crate) first: u64,
    /// Entries kept.
    pub(crate) entries_count: usize,
    /// Bytes kept.
    pub(crate) bytes: usize,
}

impl Log {
    pub(crate) fn size(&self) -> LogSize {
        let inner = self.0.lock();
        LogSize { first: inner.first(), entries_count: inner.entries.len(), bytes: inner.bytes }
    }

    /// The end of the log, purged or not.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.0.lock().last()
    }

    /// Every entry that is kept, in order.
    pub(crate) fn entries(&self) -> Vec<LogEntry> {
        self.0.lock().entries.iter().cloned().collect()
    }

    /// The last index that must go so that at most `bytes` remain, if any must.
    pub(crate) fn excess_over(&self, bytes: usize) -> Option<u64> {
        let inner = self.0.lock();
        let mut excess = inner.bytes.checked_sub(bytes).filter(|&excess| excess > 0)?;
        for entry in &inner.entries {
            excess = excess.saturating_sub(cost(entry));
            if excess == 0 {
                return Some(entry.log_id.index);
            }
        }
        inner.entries.back().map(|entry| entry.log_id.index)
    }

    /// Waits until there is an entry with a larger index.
    pub(crate) async fn grown_beyond(&self, index: u64) {
        poll_fn(|cx| {
            let mut inner = self.0.lock();
            if inner.entries.back().is_some_and(|entry| entry.log_id.index > index) {
                return Poll::Ready(());
            }
            // One place for each task that waits: whoever gave up waiting may come back before the log
            // grows.
            if !inner.waiting.iter().any(|waiting| waiting.will_wake(cx.waker())) {
                inner.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Inner {
    fn first(&self) -> u64 {
        self.entries.front().map_or(0, |entry| entry.log_id.index)
    }

    fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    fn offset(&self, index: u64) -> usize {
        usize::try_from(index.saturating_sub(self.first())).unwrap_or(usize::MAX)
    }

    fn range(&self, start: u64, end: u64, bytes_max: usize) -> Vec<LogEntry> {
        let mut bytes = 0;
        let count = self.offset(end).min(self.entries.len()).saturating_sub(self.offset(start));
        let mut found = Vec::with_capacity(count.min(64));
        for entry in self.entries.iter().skip(self.offset(start)).take(count) {
            bytes += cost(entry);
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        found
    }
}

fn cost(entry: &LogEntry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(payload) => payload.0.len(),
        EntryPayload::Membership(membership) => 64 * membership.nodes().count(),
    };
    payload + ENTRY_OVERHEAD_BYTES
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<LogEntry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        Ok(self.0.lock().range(start, end, usize::MAX))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<LogEntry>, io::Error> {
        Ok(self.0.lock().range(start, end, MESSAGE_BYTES_MAX))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.lock().vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let inner = self.0.lock();
        Ok(LogState { last_purged_log_id: inner.purged, last_log_id: inner.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.0.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let waiting = {
            let mut inner = self.0.lock();
            for entry in entries {
                if let Some(last) = inner.entries.back() {
                    assert!(
                        last.log_id.index + 1 == entry.log_id.index,
                        "the log has no gaps and no overlaps"
                    );
                }
                inner.bytes += cost(&entry);
                inner.entries.push_back(entry);
            }
            std::mem::take(&mut inner.waiting)
        };
        callback.io_completed(Ok(()));
        waiting.into_iter().for_each(Waker::wake);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let mut inner = self.0.lock();
        while let Some(entry) = inner.entries.back() {
            if last.is_some_and(|last| entry.log_id.index <= last.index) {
                break;
            }
            inner.bytes -= cost(entry);
            inner.entries.pop_back();
        }
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let mut inner = self.0.lock();
        while let Some(entry) = inner.entries.front() {
            if entry.log_id.index > upto.index {
                break;
            }
            inner.bytes -= cost(entry);
            inner.entries.pop_front();
        }
        assert!(inner.purged <= Some(upto), "purging never goes back");
        inner.purged = Some(upto);
        Ok(())
    }
}
