//! Some processes, one store, one source: what most stories begin with.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use scatterhoard_client::Cache;
use scatterhoard_client::cache::{Builder, Load, LoadError, Sourced};

use crate::double::{Dice, Link, Store};
use crate::near::Map;
use crate::source::{Row, Source, Table, Version};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Has a source whose loads take 20 ms, in which key 1 has its first version.
pub(crate) struct World {
    pub(crate) store: Arc<Store>,
    pub(crate) source: Arc<Source>,
}

/// A cache of one process.
pub(crate) struct Process {
    pub(crate) link: Arc<Link>,
    pub(crate) cache: Sourced<u64, Version, Table>,
}

impl World {
    pub(crate) fn new() -> Self {
        let dice = Dice::new(1);
        let (store, source) = (Store::new(&dice), Source::new(&dice));
        *source.takes_max.lock() = 20 * MS;
        source.write(1, Row::Stored);
        Self { store, source }
    }

    /// With a cluster level and no near level.
    pub(crate) fn process(&self) -> Process {
        self.process_with(|cache| cache)
    }

    /// With both.
    pub(crate) fn process_near(&self) -> Process {
        self.process_with(|cache| cache.near(Map::new()))
    }

    pub(crate) fn process_with(
        &self,
        build: impl FnOnce(Builder<u64, Version>) -> Builder<u64, Version>,
    ) -> Process {
        let link = self.store.link();
        link.set_delay(2 * MS);
        let cache = Cache::builder("version").seed(1).cluster(Arc::clone(&link) as _);
        let cache = build(cache).build().expect("settings that hold");
        Process { link, cache: cache.over(Table(Arc::clone(&self.source))) }
    }

    /// With a near level only.
    pub(crate) fn alone(&self) -> Sourced<u64, Version, Table> {
        self.alone_with(|cache| cache)
    }

    pub(crate) fn alone_with(
        &self,
        build: impl FnOnce(Builder<u64, Version>) -> Builder<u64, Version>,
    ) -> Sourced<u64, Version, Table> {
        let cache = build(Cache::builder("version").seed(1).near(Map::new()));
        cache.build().expect("settings that hold").over(Table(Arc::clone(&self.source)))
    }

    pub(crate) fn loads_count(&self) -> usize {
        self.source.loads_count.load(Ordering::Relaxed)
    }

    pub(crate) fn requests_count(&self) -> usize {
        self.store.requests_count.load(Ordering::Relaxed)
    }
}

/// What a load brings.
pub(crate) async fn load(
    cache: &Sourced<u64, Version, Table>,
    key: u64,
) -> Result<Option<Version>, LoadError> {
    Ok(cache.load(&key).await?.as_deref().copied())
}

/// What there is, by a loader that takes so long and brings this.
pub(crate) async fn load_by(
    cache: &Cache<u64, Version>,
    takes: Duration,
    brings: Result<Option<Version>, &'static str>,
) -> Result<Option<Version>, LoadError> {
    let loader = move || async move {
        tokio::time::sleep(takes).await;
        brings
    };
    Ok(cache.get_or_load(&1, Load::new(), loader).await?.as_deref().copied())
}
