//! What really happened in a simulation: a fault that was planned and never came about was not tested.

use std::collections::BTreeMap;
use std::fmt;

use scatterhoard_replication::probe::Event;
use scatterhoard_ring::GroupId;

/// How often what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Counts once more.
    pub fn add(&mut self, what: &str) {
        match self.0.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                self.0.insert(what.to_owned(), 1);
            }
        }
    }

    /// Counts so many more.
    pub(in crate::sim) fn add_many(&mut self, what: &str, count: u64) {
        *self.0.entry(what.to_owned()).or_default() += count;
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what.clone()).or_default() += count;
        }
    }

    /// How often something happened.
    #[must_use]
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Everything that happened, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(what, count)| (what.as_str(), *count))
    }

    /// Reads back what [`fmt::Display`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words = text.split(", ").filter(|word| !word.is_empty());
        let counted = words.map(|word| {
            let (count, what) = word.split_once(' ')?;
            Some((what.to_owned(), count.parse().ok()?))
        });
        counted.collect::<Option<_>>().map(Self)
    }

    pub(super) fn saw(&mut self, event: &Event<'_>) {
        match event {
            Event::Leads { of, .. } => self.add(match of.group {
                GroupId::Council => "leaders of the council",
                GroupId::Partition(_) => "leaders of partitions",
            }),
            Event::Founding { of } if of.generation.number() > 1 => self.add(match of.group {
                GroupId::Council => "generations of the council founded",
                GroupId::Partition(_) => "generations of partitions founded",
            }),
            Event::Installed { .. } => self.add("snapshots installed"),
            Event::Purged { .. } => self.add("logs purged"),
            Event::LeaseLost { .. } => self.add("leases lost during a read"),
            Event::Answered { by_lease: true, .. } => self.add("reads by lease"),
            Event::Answered { by_lease: false, .. } => self.add("reads by read index"),
            Event::InDoubt { .. } => self.add("writes in doubt"),
            Event::Acknowledged { .. } => self.add("entries acknowledged"),
            Event::HandsOver { .. } => self.add("leaderships handed over"),
            Event::Died { .. } => self.add("Raft cores that died"),
            Event::Evicted { .. } => self.add("keys evicted"),
            Event::Dropped { .. } => self.add("replicas dropped"),
            Event::Decided { .. }
            | Event::Opened { .. }
            | Event::Holds { .. }
            | Event::Applied { .. }
            | Event::Table { .. }
            | Event::Founding { .. } => {}
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (what, count) in self.iter() {
            write!(f, "{separator}{count} {what}")?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_can_be_read_back() {
        let mut counts = Counts::default();
        counts.add("writes in doubt");
        counts.add("crash");
        counts.add("crash");
        assert_eq!(counts.to_string(), "2 crash, 1 writes in doubt");
        assert_eq!(Counts::parse(&counts.to_string()), Some(counts));
    }
}
