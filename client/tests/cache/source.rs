//! A source that counts, takes its time, and knows what was in it when.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use scatterhoard_client::cache::DataSource;
use tokio::time::sleep;

use crate::double::Dice;

/// What is stored: which write of its key it is.
pub(crate) type Version = u64;

pub(crate) struct Source {
    rows: Mutex<HashMap<u64, Vec<Row>>>,
    pub(crate) loads_count: AtomicUsize,
    pub(crate) takes_max: Mutex<Duration>,
    /// Loads and stores that fail, of 100.
    pub(crate) fails_percent: AtomicUsize,
    dice: Arc<Dice>,
}

/// A write: its version is its place. The first says that there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Stored,
    Removed,
}

#[derive(Debug, thiserror::Error)]
#[error("out of order")]
pub(crate) struct OutOfOrder;

impl Source {
    pub(crate) fn new(dice: &Arc<Dice>) -> Arc<Self> {
        Arc::new(Self {
            rows: Mutex::default(),
            loads_count: AtomicUsize::new(0),
            takes_max: Mutex::new(Duration::ZERO),
            fails_percent: AtomicUsize::new(0),
            dice: Arc::clone(dice),
        })
    }

    /// The version of the newest write.
    pub(crate) fn newest(&self, key: u64) -> Version {
        self.rows.lock().get(&key).map_or(0, |rows| rows.len() as Version)
    }

    /// Whether there was nothing since this version or a later one.
    pub(crate) fn had_nothing_since(&self, key: u64, version: Version) -> bool {
        let rows = self.rows.lock();
        let rows = rows.get(&key).map_or(&[][..], Vec::as_slice);
        match version.checked_sub(1) {
            None => true,
            Some(first) => rows[first as usize..].contains(&Row::Removed),
        }
    }

    pub(crate) fn write(&self, key: u64, row: Row) -> Version {
        let mut rows = self.rows.lock();
        let rows = rows.entry(key).or_default();
        rows.push(row);
        rows.len() as Version
    }

    async fn pause(&self) {
        let most = *self.takes_max.lock();
        sleep(self.dice.time(most / 2)).await;
    }

    fn may_fail(&self) -> Result<(), OutOfOrder> {
        let fails = self.dice.percent(self.fails_percent.load(Ordering::Relaxed) as u64);
        if fails { Err(OutOfOrder) } else { Ok(()) }
    }

    pub(crate) async fn read(&self, key: u64) -> Result<Option<Version>, OutOfOrder> {
        self.loads_count.fetch_add(1, Ordering::Relaxed);
        self.pause().await;
        self.may_fail()?;
        let newest = self
            .rows
            .lock()
            .get(&key)
            .and_then(|rows| (*rows.last()? == Row::Stored).then_some(rows.len() as Version));
        self.pause().await;
        Ok(newest)
    }
}

/// The values of a cache over it are versions; what one is asked to store does not matter.
#[derive(Clone)]
pub(crate) struct Table(pub(crate) Arc<Source>);

impl DataSource<u64, Version> for Table {
    type Error = OutOfOrder;

    async fn load(&self, key: &u64) -> Result<Option<Version>, OutOfOrder> {
        self.0.read(*key).await
    }

    async fn store(&self, key: &u64, _: &Version) -> Result<(), OutOfOrder> {
        self.0.pause().await;
        self.0.may_fail()?;
        self.0.write(*key, Row::Stored);
        self.0.pause().await;
        Ok(())
    }

    async fn remove(&self, key: &u64) -> Result<(), OutOfOrder> {
        self.0.pause().await;
        self.0.may_fail()?;
        self.0.write(*key, Row::Removed);
        self.0.pause().await;
        Ok(())
    }
}
