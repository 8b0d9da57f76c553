//! Committed entries never change, and are in the order of their leaders.
//!
//! State Machine Safety and Log Matching: Ongaro and Ousterhout, "In Search of an Understandable Consensus
//! Algorithm", 2014, figure 3 and 5.3. What a replica applies is committed; so no two replicas may apply
//! different entries at one index of the same founding, none may apply one twice or leave one out, and the
//! leaders that wrote them may only follow each other in the order in which they were elected.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use scatterhoard_replication::probe::{Entry, Event, Founded, Payload};
use scatterhoard_ring::ReplicaId;

use super::{Invariant, LeaderId, Whose, name};

/// What was applied at each index, and up to where by each replica.
#[derive(Default)]
pub(super) struct Committed {
    logs: HashMap<Founded, BTreeMap<u64, (LeaderId, u64)>>,
    places: HashMap<(Founded, ReplicaId, Whose), u64>,
}

impl Invariant for Committed {
    fn saw(&mut self, whose: Whose, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Applied { of, replica, entry, payload } => {
                self.applied(*of, entry, payload)?;
                let before = self.places.insert((*of, *replica, whose), entry.index);
                match before {
                    Some(before) if entry.index != before + 1 => Err(format!(
                        "{}: replica {replica} applied {} after {before}",
                        name(*of),
                        entry.index
                    )),
                    // Only a founder begins with the first entry; all others begin with a snapshot.
                    None if entry.index > 0 => Err(format!(
                        "{}: replica {replica} began with {} and nothing before that",
                        name(*of),
                        entry.index
                    )),
                    Some(_) | None => Ok(()),
                }
            }
            Event::Installed { of, replica, entry } => {
                match self.places.insert((*of, *replica, whose), entry.index) {
                    Some(before) if before > entry.index => Err(format!(
                        "{}: replica {replica} went back from {before} to {}",
                        name(*of),
                        entry.index
                    )),
                    Some(_) | None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

impl Committed {
    fn applied(&mut self, of: Founded, entry: &Entry, payload: &Payload<'_>) -> Result<(), String> {
        let digest = digest(payload);
        let leader = LeaderId { term: entry.term, replica: entry.leader };
        let log = self.logs.entry(of).or_default();
        match log.get(&entry.index) {
            Some(&known) if known == (leader, digest) => return Ok(()),
            Some(&(other, _)) => {
                return Err(format!(
                    "{}: two entries are committed at index {}, by {other:?} and by {leader:?}",
                    name(of),
                    entry.index
                ));
            }
            None => {}
        }
        let before = log.range(..entry.index).next_back().map(|(_, (leader, _))| *leader);
        let after = log.range(entry.index..).next().map(|(_, (leader, _))| *leader);
        log.insert(entry.index, (leader, digest));
        if before.is_some_and(|before| before > leader) || after.is_some_and(|it| it < leader) {
            return Err(format!(
                "{}: the entry of {leader:?} at index {} stands between {before:?} and {after:?}",
                name(of),
                entry.index
            ));
        }
        Ok(())
    }
}

fn digest(payload: &Payload<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match payload {
        Payload::Blank => 0_u8.hash(&mut hasher),
        Payload::Normal(bytes) => (1_u8, bytes).hash(&mut hasher),
        Payload::Membership { voters, learners } => (2_u8, voters, learners).hash(&mut hasher),
    }
    hasher.finish()
}
