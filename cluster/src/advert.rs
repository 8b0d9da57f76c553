//! What a node says about itself in gossip, and how it is written: a few short texts, one for each thing
//! that changes on its own. What cannot be read is no advert; it is never a reason to stop.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::str::{FromStr, Split};

use scatterhoard_ring::{Endpoints, Epoch, Generation, GroupId, NodeId, PartitionId, Standing};
use tokio::time::Instant;

/// Names, zones and versions are no longer than the table allows them to be.
const LABEL_BYTES_MAX: usize = 64;

/// How the council is written where a partition's number would stand: not as a digit.
const COUNCIL: &str = "-";

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// What people call it. At most 64 bytes.
    pub name: String,
    /// What fails together with it. At most 64 bytes.
    pub zone: String,
    /// Version of the program that it runs. At most 64 bytes.
    pub version: String,
    /// Where it is reached.
    pub endpoints: Endpoints,
    /// The table it has.
    pub epoch: Epoch,
    /// What it leads, as hints.
    pub leaderships: Vec<Leadership>,
    /// Bytes that it grants each replica it hosts.
    pub budget_bytes: u64,
    /// Whether it stays.
    pub standing: Standing,
}

/// A hint that a node leads a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leadership {
    /// Which group.
    pub group: GroupId,
    /// Which founding of it.
    pub generation: Generation,
    /// In which term.
    pub term: u64,
}

/// Who seems to be there. An observation, never a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Everyone who seems alive, this node included.
    pub alive: BTreeMap<NodeId, Seen>,
}

/// What is seen of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it last said about itself.
    pub advert: Advert,
    /// When this life of it began: milliseconds since 1970 by its own clock.
    pub incarnation_ms: u64,
    /// When the advert was last seen to change, or the node to appear.
    pub changed: Instant,
}

/// One text of an advert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// Name, zone, version: what people gave it.
    Labels,
    Endpoints,
    Epoch,
    Leaderships,
    Budget,
    Standing,
}

impl Key {
    pub(crate) const ALL: [Self; 6] = [
        Self::Labels,
        Self::Endpoints,
        Self::Epoch,
        Self::Leaderships,
        Self::Budget,
        Self::Standing,
    ];

    /// What it is called in gossip. Part of the wire format.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Endpoints => "ends",
            Self::Epoch => "epoch",
            Self::Leaderships => "leads",
            Self::Budget => "budget",
            Self::Standing => "standing",
        }
    }
}

impl Advert {
    /// The text under this key.
    pub(crate) fn text(&self, key: Key) -> String {
        match key {
            Key::Labels => {
                format!("{}\n{}\n{}", label(&self.name), label(&self.zone), label(&self.version))
            }
            Key::Endpoints => {
                let Endpoints { peer, listen, any_key, http } = self.endpoints;
                format!("{peer} {listen} {any_key} {http}")
            }
            Key::Epoch => format!("{}.{}", self.epoch.generation.number(), self.epoch.index),
            Key::Leaderships => self.leaderships_text(),
            Key::Budget => self.budget_bytes.to_string(),
            Key::Standing => match self.standing {
                Standing::Active => "active".to_owned(),
                Standing::Leaving => "leaving".to_owned(),
            },
        }
    }

    /// The advert whose texts these are, if it is whole and each can be read.
    pub(crate) fn parse<'a>(text: impl Fn(Key) -> Option<&'a str>) -> Option<Self> {
        let mut labels = text(Key::Labels)?.split('\n');
        let mut next_label =
            || labels.next().filter(|label| label.len() <= LABEL_BYTES_MAX).map(str::to_owned);
        let (name, zone, version) = (next_label()?, next_label()?, next_label()?);
        let mut ends = text(Key::Endpoints)?.split(' ');
        let endpoints = Endpoints {
            peer: next::<SocketAddr>(&mut ends)?,
            listen: next(&mut ends)?,
            any_key: next(&mut ends)?,
            http: next(&mut ends)?,
        };
        let (generation, index) = text(Key::Epoch)?.split_once('.')?;
        let generation = Generation::new(generation.parse().ok()?);
        let standing = match text(Key::Standing)? {
            "active" => Standing::Active,
            "leaving" => Standing::Leaving,
            _ => return None,
        };
        Some(Self {
            name,
            zone,
            version,
            endpoints,
            epoch: Epoch { generation, index: index.parse().ok()? },
            leaderships: parse_leaderships(text(Key::Leaderships)?)?,
            budget_bytes: text(Key::Budget)?.parse().ok()?,
            standing,
        })
    }

    /// `group:generation:term`, in hexadecimal, with spaces between; the council is [`COUNCIL`].
    fn leaderships_text(&self) -> String {
        let mut out = String::new();
        for Leadership { group, generation, term } in &self.leaderships {
            let separator = if out.is_empty() { "" } else { " " };
            let generation = generation.number();
            let written = match group {
                GroupId::Council => write!(out, "{separator}{COUNCIL}:{generation:x}:{term:x}"),
                GroupId::Partition(partition) => {
                    write!(out, "{separator}{:x}:{generation:x}:{term:x}", partition.number())
                }
            };
            written.expect("writing to a string cannot fail");
        }
        out
    }
}

fn parse_leaderships(text: &str) -> Option<Vec<Leadership>> {
    text.split(' ').filter(|part| !part.is_empty()).map(parse_leadership).collect()
}

fn parse_leadership(text: &str) -> Option<Leadership> {
    let mut parts = text.split(':');
    let group = match parts.next()? {
        COUNCIL => GroupId::Council,
        number => GroupId::Partition(PartitionId::new(u16::from_str_radix(number, 16).ok()?)),
    };
    let generation = Generation::new(u32::from_str_radix(parts.next()?, 16).ok()?);
    let term = u64::from_str_radix(parts.next()?, 16).ok()?;
    Some(Leadership { group, generation, term })
}

/// A label as it is gossiped: on one line, and no longer than a label may be.
fn label(text: &str) -> String {
    let mut label = text.replace('\n', " ");
    label.truncate(label.floor_char_boundary(LABEL_BYTES_MAX));
    label
}

fn next<T: FromStr>(parts: &mut Split<'_, char>) -> Option<T> {
    parts.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advert() -> Advert {
        let addr = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let endpoints =
            Endpoints { peer: addr(1), listen: addr(2), any_key: addr(3), http: addr(4) };
        let lead = |group, term| Leadership { group, generation: Generation::new(1), term };
        Advert {
            name: "n1".to_owned(),
            zone: String::new(),
            version: "0.1.0".to_owned(),
            endpoints,
            epoch: Epoch { generation: Generation::new(2), index: 77 },
            leaderships: vec![
                lead(GroupId::Council, 3),
                lead(GroupId::Partition(PartitionId::new(12)), 4),
                lead(GroupId::Partition(PartitionId::new(31)), u64::MAX),
            ],
            budget_bytes: 1 << 40,
            standing: Standing::Active,
        }
    }

    fn read(texts: &BTreeMap<Key, String>) -> Option<Advert> {
        Advert::parse(|key| texts.get(&key).map(String::as_str))
    }

    fn write(advert: &Advert) -> BTreeMap<Key, String> {
        Key::ALL.into_iter().map(|key| (key, advert.text(key))).collect()
    }

    #[test]
    fn an_advert_is_read_as_it_was_written() {
        let mut advert = advert();
        let texts = write(&advert);
        assert_eq!(texts[&Key::Labels], "n1\n\n0.1.0");
        assert_eq!(texts[&Key::Epoch], "2.77");
        assert_eq!(texts[&Key::Leaderships], "-:1:3 c:1:4 1f:1:ffffffffffffffff");
        assert_eq!(read(&texts), Some(advert.clone()));

        advert.leaderships.clear();
        advert.standing = Standing::Leaving;
        assert_eq!(read(&write(&advert)), Some(advert));
    }

    #[test]
    fn what_cannot_be_read_is_no_advert() {
        for key in Key::ALL {
            let mut texts = write(&advert());
            texts.insert(key, "\u{1F980}".to_owned());
            assert_eq!(read(&texts), None, "{key:?}");
            texts.remove(&key);
            assert_eq!(read(&texts), None, "{key:?}");
        }
    }

    #[test]
    fn a_label_that_is_too_long_is_cut_between_characters() {
        let mut advert = advert();
        advert.name = "ö".repeat(40);
        advert.zone = "a\nb".to_owned();
        let read = read(&write(&advert)).unwrap();
        assert_eq!((read.name.as_str(), read.zone.as_str()), ("ö".repeat(32).as_str(), "a b"));
    }
}
