//! Bloom filters in a cluster of ours: what they said may be repeated for as long as a copy of their key might be
//! served.
//!
//! It needs nothing but the key: a question is a read of it, so its leader notes who asks; an addition that changed
//! any bit, a deletion or an eviction is a change of it, which is told before whoever did it has an answer.
//! A filter's time to live is not looked at: that it is over adds nothing to it, and the next addition is told.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{HoardLevel, Mark, Moment};
use crate::bloom::{Answers, FilterLevel, adding, asking, flags, reserving};
use crate::cluster::Answer;
use crate::level::ClusterLevel;
use crate::{Clock, Error};

impl FilterLevel for HoardLevel {
    fn ask<'a>(
        &'a self,
        filter: &'a [u8],
        items: &'a [Bytes],
    ) -> BoxFuture<'a, Result<Answers, Error>> {
        async move {
            let nodes = &self.nodes;
            // Before it is sent.
            let begun = nodes.watch.begin(filter, Clock::new().now());
            let by = nodes.cluster.deadline();
            let mut answers = nodes.cluster.answers(vec![asking(filter, items)], by).await;
            let Answer { value, line } = answers.pop().expect("each command has an answer")?;
            let may_exist = flags(value)?;
            let mark = begun.and_then(|begun| nodes.watch.keep(&begun, line, None));
            Ok(Answers { may_exist, mark })
        }
        .boxed()
    }

    fn add<'a>(
        &'a self,
        filter: &'a [u8],
        items: &'a [Bytes],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        async move {
            let _changing = self.nodes.watch.changing(filter);
            flags(self.nodes.cluster.run(adding(filter, items)).await?)
        }
        .boxed()
    }

    fn reserve<'a>(
        &'a self,
        filter: &'a [u8],
        capacity: u32,
        error_rate: f64,
    ) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let _changing = self.nodes.watch.changing(filter);
            self.nodes.cluster.run(reserving(filter, capacity, error_rate)).await.map(drop)
        }
        .boxed()
    }

    fn may_serve(&self, mark: &Mark, now: Moment) -> bool {
        ClusterLevel::may_serve(self, mark, now)
    }
}
