//! What an id costs, with the look at the clock.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use scatterhoard_client::Error;
use scatterhoard_client::ids::{FirstUse, IdError, Ids, IdsConfig, SystemWall, Wall};
use scatterhoard_client::register::{Register, Swap, Version};

/// A millisecond has 4096 ids, and they are made faster than that: what is measured are runs of so many.
const RUN_COUNT: u64 = 2000;

#[derive(Default)]
struct Local(Mutex<BTreeMap<Vec<u8>, Bytes>>);

impl Register for Local {
    fn read<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>, Error>> {
        async move { Ok(self.0.lock().get(key).cloned()) }.boxed()
    }

    fn swap<'a>(
        &'a self,
        key: &'a [u8],
        swap: Swap<'a>,
    ) -> BoxFuture<'a, Result<Option<Version>, Error>> {
        async move {
            let mut keys = self.0.lock();
            if keys.get(key).map(|value| &**value) != swap.expected {
                return Ok(None);
            }
            keys.insert(key.to_vec(), Bytes::copy_from_slice(swap.new));
            Ok(Some(Version(1)))
        }
        .boxed()
    }
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn ids(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut config = IdsConfig::new("bench");
    config.first_use = FirstUse::AtOnce;
    let leased = Ids::lease_from(Arc::new(Local::default()), SystemWall, config);
    let ids = runtime.block_on(leased).expect("a number");
    let mut in_runs = |name: &str, make: &dyn Fn() -> Result<(), IdError>| {
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let (mut taken, mut left) = (Duration::ZERO, count);
                while left > 0 {
                    let run = left.min(RUN_COUNT);
                    let before = SystemWall.unix_millis();
                    while SystemWall.unix_millis() <= before + 1 {
                        std::hint::spin_loop();
                    }
                    let began = std::time::Instant::now();
                    for _ in 0..run {
                        make().expect("an id");
                    }
                    taken += began.elapsed();
                    left -= run;
                }
                taken
            });
        });
    };
    in_runs("ids/wall clock alone", &|| {
        black_box(SystemWall.unix_millis());
        Ok(())
    });
    in_runs("ids/try_next", &|| black_box(ids.try_next()).map(|_id| ()));
    in_runs("ids/next", &|| {
        let id = ids.next().now_or_never().expect("the millisecond is not used up");
        black_box(id).map(|_id| ())
    });
    runtime.block_on(ids.close());
}

criterion_group!(benches, ids);
criterion_main!(benches);
