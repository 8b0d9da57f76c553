//! What a campaign comes to in a few numbers, and in one sentence.

use std::collections::{BTreeMap, BTreeSet};

use super::words::{count, counted, duration};
use crate::campaign::{Campaign, Outage, Planned};

/// What a campaign comes to, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// A promise was broken: writes were lost, or the history cannot have been.
    Broken,
    /// No operation was recorded, which proves nothing.
    Nothing,
    /// A fault that was planned never happened.
    Untested,
    /// Something else is wrong.
    Wrong,
    /// Part of the history was too hard to judge.
    Undecided,
    /// All was kept.
    Kept,
}

/// What is derived from a campaign.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) ruling: Ruling,
    /// Operations answered as done, as not done, and in doubt.
    pub(super) done: u64,
    pub(super) refused: u64,
    pub(super) in_doubt: u64,
    /// The longest of the steps' 99th percentiles, in microseconds.
    pub(super) p99_us_max: u64,
    pub(super) longest: Option<Outage>,
    /// How long partitions were out, all added, in milliseconds.
    pub(super) out: u64,
    /// Every partition that is known of, with what became of it.
    pub(super) partitions: BTreeMap<u16, Partition>,
    /// Kinds that were planned, not left out, and never happened.
    pub(super) untested: Vec<String>,
}

/// What became of one partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Partition {
    pub(super) outages: u64,
    pub(super) longest: Option<Outage>,
    /// In milliseconds.
    pub(super) out: u64,
    /// How often another node, or the same one in another term, was seen to lead it.
    pub(super) changes: u64,
}

/// How long it was out, in milliseconds.
pub(super) const fn length(outage: &Outage) -> u64 {
    outage.until.saturating_sub(outage.from)
}

/// Whether it was planned, could have been done, and never was.
pub(super) const fn is_untested(planned: &Planned) -> bool {
    planned.happened == 0 && planned.unable.is_none()
}

impl Facts {
    pub(super) fn of(campaign: &Campaign) -> Self {
        let partitions = partitions(campaign);
        let sum = |number: fn(&crate::campaign::Step) -> u64| {
            campaign.throughput.iter().map(number).fold(0, u64::saturating_add)
        };
        let untested: Vec<_> = campaign
            .planned
            .iter()
            .filter(|kind| is_untested(kind))
            .map(|kind| kind.kind.clone())
            .collect();
        Self {
            ruling: ruling(campaign, untested.len()),
            done: sum(|step| step.done),
            refused: sum(|step| step.refused),
            in_doubt: sum(|step| step.in_doubt),
            p99_us_max: campaign.throughput.iter().map(|step| step.p99_us).max().unwrap_or(0),
            longest: longest(
                partitions.values().filter_map(|partition| partition.longest.as_ref()),
            ),
            out: partitions.values().map(|partition| partition.out).fold(0, u64::saturating_add),
            partitions,
            untested,
        }
    }

    /// The longest unavailability of any partition, in milliseconds.
    pub(super) fn longest_ms(&self) -> u64 {
        self.longest.as_ref().map_or(0, length)
    }
}

fn ruling(campaign: &Campaign, untested: usize) -> Ruling {
    let verdict = &campaign.verdict;
    if !verdict.lost_writes.is_empty() || verdict.violation.is_some() {
        Ruling::Broken
    } else if verdict.operations == 0 {
        Ruling::Nothing
    } else if untested > 0 && verdict.complaints.len() <= untested {
        // Complaints are about that; this says better what is the matter.
        Ruling::Untested
    } else if !verdict.complaints.is_empty() {
        Ruling::Wrong
    } else if !verdict.too_hard.is_empty() {
        Ruling::Undecided
    } else {
        Ruling::Kept
    }
}

fn partitions(campaign: &Campaign) -> BTreeMap<u16, Partition> {
    let mut partitions: BTreeMap<u16, Partition> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for led in &campaign.leaderships {
        let partition = partitions.entry(led.partition).or_default();
        if seen.insert((led.partition, led.node, led.term)) {
            partition.changes += 1;
        }
    }
    for outage in &campaign.outages {
        let partition = partitions.entry(outage.partition).or_default();
        partition.outages += 1;
        partition.out = partition.out.saturating_add(length(outage));
        partition.longest = longest(partition.longest.iter().chain([outage]));
    }
    for partition in partitions.values_mut() {
        // The first leader that was seen is no change.
        partition.changes = partition.changes.saturating_sub(1);
    }
    partitions
}

/// The longest, and of several the first.
fn longest<'a>(outages: impl Iterator<Item = &'a Outage>) -> Option<Outage> {
    outages
        .fold(None, |best: Option<&Outage>, outage| match best {
            Some(best) if length(best) >= length(outage) => Some(best),
            Some(_) | None => Some(outage),
        })
        .cloned()
}

/// In a few words.
pub(super) fn headline(campaign: &Campaign, facts: &Facts) -> String {
    let verdict = &campaign.verdict;
    match facts.ruling {
        Ruling::Broken if verdict.lost_writes.is_empty() => {
            "What clients saw cannot have been.".to_owned()
        }
        Ruling::Broken => {
            let lost = verdict.lost_writes.len() as u64;
            let were = if lost == 1 { "was" } else { "were" };
            format!("{} {were} lost.", counted(lost, "acknowledged write", "acknowledged writes"))
        }
        Ruling::Untested => "Not all was tested.".to_owned(),
        Ruling::Wrong => "Nothing was lost, but something is wrong.".to_owned(),
        Ruling::Undecided => "Nothing is known to be lost, but not all was judged.".to_owned(),
        Ruling::Nothing => "Nothing was proved.".to_owned(),
        Ruling::Kept => "Nothing was lost.".to_owned(),
    }
}

/// In one sentence, or two.
pub(super) fn sentence(campaign: &Campaign, facts: &Facts) -> String {
    let verdict = &campaign.verdict;
    let faults = counted(campaign.faults.len() as u64, "fault", "faults");
    let operations = counted(verdict.operations, "operation", "operations");
    let setting = match campaign.ended {
        0 => campaign.target.clone(),
        ms => format!("{} under {faults} in {}", campaign.target, duration(ms)),
    };
    let longest = match facts.longest_ms() {
        0 => "no partition was ever without writes".to_owned(),
        ms => format!("no partition was without writes for longer than {}", duration(ms)),
    };
    let lost = verdict.lost_writes.len() as u64;
    let possible = if verdict.violation.is_some() { "not linearizable" } else { "linearizable" };
    match facts.ruling {
        Ruling::Nothing => format!("{setting}: no operation was recorded, so nothing can be said."),
        Ruling::Kept => format!(
            "{setting}: every acknowledged write among {operations} was kept, the history is linearizable, \
             and {longest}."
        ),
        Ruling::Broken => format!(
            "{setting}: of {operations}, {} lost after they were acknowledged; what clients saw is \
             {possible}; {longest}.",
            if lost == 1 {
                "1 write was".to_owned()
            } else {
                format!("{} writes were", count(lost))
            },
        ),
        Ruling::Untested => format!(
            "{setting}: no write of {operations} was lost, and {longest}, but these faults were planned and never \
             happened: {}.",
            facts.untested.join(", ")
        ),
        Ruling::Wrong => format!(
            "{setting}: no write of {operations} was lost, and {longest}, but there {}.",
            match verdict.complaints.len() as u64 {
                1 => "is 1 complaint".to_owned(),
                more => format!("are {} complaints", count(more)),
            }
        ),
        Ruling::Undecided => format!(
            "{setting}: no write of {operations} is known to be lost, but the history of {} was too hard to \
             judge.",
            counted(verdict.too_hard.len() as u64, "object", "objects")
        ),
    }
}
