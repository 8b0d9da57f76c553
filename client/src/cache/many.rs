//! Loads of several keys with one loader.
//!
//! Each id has a flight of its own, which others may join, or which may be there already. The flights that begin
//! here make their first round together: one look at all of them, one load of those that are missing.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};

use super::Key;
use super::error::{LoadError, Reason};
use super::event::Kind;
use super::flight::{Flights, Loaded, Pilot, Rider, answer_all};
use super::levels::{Right, Seen};
use super::options::Load;

/// What a loader of several keys brings: for each that the source has, a value or an error.
pub(crate) type Batch<K, V> = HashMap<K, Result<V, Reason>>;

pub(crate) type BatchLoader<K, V> =
    Arc<dyn Fn(Vec<K>) -> BoxFuture<'static, Result<Batch<K, V>, Reason>> + Send + Sync>;

/// A flight that is about to load, with those on board.
struct Missing<K: Key, V: Send + Sync + 'static> {
    pilot: Pilot<K, V>,
    riders: Vec<Rider<V>>,
    right: Option<Right<K>>,
}

/// The first round of several flights; then each goes on by itself.
pub(crate) async fn fly_together<K: Key, V: Send + Sync + 'static>(
    flights: Arc<Flights<K, V>>,
    pilots: Vec<Pilot<K, V>>,
    loader: BatchLoader<K, V>,
    load: Arc<Load>,
) {
    let keys: Vec<_> = pilots.iter().map(|pilot| pilot.key().clone()).collect();
    let boarded: Vec<_> = pilots.iter().map(Pilot::board).collect();
    let looks = flights.levels.look_many(&keys).await;
    let (mut missing, mut cut_off) = (Vec::new(), Vec::new());
    for ((pilot, riders), look) in pilots.into_iter().zip(boarded).zip(looks) {
        match look {
            Ok(Seen::Load(right)) => missing.push(Missing { pilot, riders, right: Some(right) }),
            Ok(seen) => drop(tokio::spawn(pilot.fly_on(riders, seen))),
            Err(error) => {
                tracing::debug!(%error, "the cluster level could not be asked");
                cut_off.push(Missing { pilot, riders, right: None });
            }
        }
    }
    if cut_off.is_empty() {
        load_together(&flights, missing, loader, load).await;
        return;
    }
    match flights.permit().await {
        Ok(_permit) => {
            missing.append(&mut cut_off);
            let told = load_together(&flights, missing, loader, load).await;
            flights.judge(told);
        }
        Err(error) => {
            for flight in cut_off {
                answer_all(flight.riders, &Err(error.clone()));
                tokio::spawn(flight.pilot.fly());
            }
            load_together(&flights, missing, loader, load).await;
        }
    }
}

/// One load for all of them. Answers with whether the source failed; `None` if it was not asked.
async fn load_together<K: Key, V: Send + Sync + 'static>(
    flights: &Arc<Flights<K, V>>,
    mut missing: Vec<Missing<K, V>>,
    loader: BatchLoader<K, V>,
    load: Arc<Load>,
) -> Option<Result<(), ()>> {
    let mut wanted = Vec::with_capacity(missing.len());
    for flight in &mut missing {
        flight.riders.extend(flight.pilot.board());
        flight.riders.retain(Rider::waits);
    }
    for flight in missing {
        if flight.riders.is_empty() {
            if let Some(right) = flight.right {
                flights.levels.release(flight.pilot.key(), right).await;
            }
            // Somebody may have come in the meantime.
            tokio::spawn(flight.pilot.fly());
        } else {
            wanted.push(flight);
        }
    }
    if wanted.is_empty() {
        return None;
    }
    let ids: Vec<_> = wanted.iter().map(|flight| flight.pilot.key().clone()).collect();
    let loaded = flights.run(move || loader(ids), &load).await;
    let told = loaded.as_ref().map(drop).map_err(drop);
    let mut loaded = loaded.map_err(|error| (error, ()));
    let ends = wanted.into_iter().map(|flight| {
        let outcome = match &mut loaded {
            Ok(batch) => batch.remove(flight.pilot.key()).transpose().map_err(LoadError::source),
            Err((error, ())) => Err(error.clone()),
        };
        let loaded = Loaded { outcome, load: Arc::clone(&load), kind: Kind::SetByMany };
        // A task for each: a codec that panics at one of the values is not to be heard of by the others.
        tokio::spawn(async move {
            flight.pilot.finish(flight.riders, flight.right, loaded).await;
            flight.pilot.fly().await;
        })
    });
    join_all(ends).await;
    Some(told)
}
