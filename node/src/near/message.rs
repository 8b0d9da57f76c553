//! How nodes ask each other for values to keep copies of, and for what has changed of those. Numbers are
//! big-endian.
//!
//! ```text
//! load:   version, largest value u32, keys, each with its length u32
//! loaded: version, for each key
//!           0                         not answered here
//!           1                         nothing is there
//!           2                         something that no copies are kept of
//!           3 lives-for u64, value    with its length u32; milliseconds, or 2^64 - 1: it does not expire
//! news:   version, hold u16, partitions, each: id u16, stream (0, or 1 and u64), taken u64
//! told:   version, in the order asked
//!           id u16, 0                 refused
//!           id u16, 1 stream u64, number u64, generation u32, term u64, position u64, then
//!             0 keys u32, each u64, slots u16, each u16
//!             1                       everything changed
//! ```

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use scatterhoard_near::{Bulletin, KeyHash, News, Position, Stamp, StreamId};
use scatterhoard_ring::{Generation, PartitionId, Slot};

const VERSION: u8 = 1;

const NOT_HERE: u8 = 0;
const ABSENT: u8 = 1;
const UNFIT: u8 = 2;
const VALUE: u8 = 3;

const REFUSED: u8 = 0;
const BULLETIN: u8 = 1;

const CHANGED: u8 = 0;
const EVERYTHING: u8 = 1;

/// Keys of one message.
pub(super) const KEYS_COUNT_MAX: usize = 16_384;

/// Stands for an entry that does not expire.
const FOR_EVER: u64 = u64::MAX;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Values beyond so many bytes are not wanted.
    pub(super) value_bytes_max: u32,
    pub(super) keys: Vec<Bytes>,
}

/// What a key held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Loaded {
    /// It is not told here, or not now.
    NotHere,
    Absent,
    /// Not a string, or a larger one than is wanted.
    Unfit,
    Value {
        /// Remaining time; `None`: it does not expire.
        lives_for: Option<Duration>,
        value: Bytes,
    },
}

/// What a reader asks of a node that leads what it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inquiry {
    /// How long the answer may wait for something to tell, in milliseconds.
    pub(super) hold_ms: u16,
    pub(super) partitions: Vec<About>,
}

/// What it asks about one partition: everything after what it has taken of a stream, or a new stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About {
    pub(super) partition: PartitionId,
    pub(super) stream: Option<StreamId>,
    pub(super) taken: u64,
}

/// What is told of one partition; nothing: whoever asked has to be reset.
pub(super) type Told = (PartitionId, Option<Bulletin<KeyHash>>);

pub(super) fn encode_load(value_bytes_max: u32, keys: &[Bytes]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + keys.iter().map(|key| 4 + key.len()).sum::<usize>());
    out.put_u8(VERSION);
    out.put_u32(value_bytes_max);
    keys.iter().for_each(|key| put_with_length(&mut out, key));
    out.freeze()
}

/// `None`: not a question that we know.
pub(super) fn decode_load(mut body: Bytes) -> Option<Load> {
    take_version(&mut body)?;
    let value_bytes_max = body.try_get_u32().ok()?;
    let mut keys = Vec::new();
    while body.has_remaining() {
        if keys.len() == KEYS_COUNT_MAX {
            return None;
        }
        keys.push(take_with_length(&mut body)?);
    }
    Some(Load { value_bytes_max, keys })
}

pub(super) fn encode_loaded(loaded: &[Loaded]) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_u8(VERSION);
    for loaded in loaded {
        match loaded {
            Loaded::NotHere => out.put_u8(NOT_HERE),
            Loaded::Absent => out.put_u8(ABSENT),
            Loaded::Unfit => out.put_u8(UNFIT),
            Loaded::Value { lives_for, value } => {
                out.put_u8(VALUE);
                let millis = |rest: Duration| u64::try_from(rest.as_millis()).unwrap_or(FOR_EVER);
                out.put_u64(lives_for.map_or(FOR_EVER, millis));
                put_with_length(&mut out, value);
            }
        }
    }
    out.freeze()
}

/// `None`: not an answer to a question about so many keys.
pub(super) fn decode_loaded(mut body: Bytes, count: usize) -> Option<Vec<Loaded>> {
    take_version(&mut body)?;
    let mut loaded = Vec::with_capacity(count);
    for _ in 0..count {
        loaded.push(match body.try_get_u8().ok()? {
            NOT_HERE => Loaded::NotHere,
            ABSENT => Loaded::Absent,
            UNFIT => Loaded::Unfit,
            VALUE => {
                let millis = body.try_get_u64().ok()?;
                let lives_for = (millis != FOR_EVER).then(|| Duration::from_millis(millis));
                Loaded::Value { lives_for, value: take_with_length(&mut body)? }
            }
            _ => return None,
        });
    }
    body.is_empty().then_some(loaded)
}

pub(super) fn encode_inquiry(inquiry: &Inquiry) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + inquiry.partitions.len() * 19);
    out.put_u8(VERSION);
    out.put_u16(inquiry.hold_ms);
    for About { partition, stream, taken } in &inquiry.partitions {
        out.put_u16(partition.number());
        out.put_u8(stream.is_some().into());
        if let Some(stream) = stream {
            out.put_u64(stream.number());
        }
        out.put_u64(*taken);
    }
    out.freeze()
}

/// `None`: not a question that we know.
pub(super) fn decode_inquiry(mut body: Bytes) -> Option<Inquiry> {
    take_version(&mut body)?;
    let hold_ms = body.try_get_u16().ok()?;
    let mut partitions = Vec::new();
    while body.has_remaining() {
        let partition = PartitionId::new(body.try_get_u16().ok()?);
        let stream = match body.try_get_u8().ok()? {
            0 => None,
            1 => Some(StreamId::new(body.try_get_u64().ok()?)),
            _ => return None,
        };
        partitions.push(About { partition, stream, taken: body.try_get_u64().ok()? });
    }
    Some(Inquiry { hold_ms, partitions })
}

pub(super) fn encode_told(told: &[Told]) -> Bytes {
    let mut out = BytesMut::with_capacity(64 * (1 + told.len()));
    out.put_u8(VERSION);
    for (partition, bulletin) in told {
        out.put_u16(partition.number());
        let Some(bulletin) = bulletin else {
            out.put_u8(REFUSED);
            continue;
        };
        out.put_u8(BULLETIN);
        out.put_u64(bulletin.stream.number());
        out.put_u64(bulletin.number);
        out.put_u32(bulletin.stamp.generation.number());
        out.put_u64(bulletin.stamp.term);
        out.put_u64(bulletin.position.index());
        match &bulletin.news {
            News::Changed { keys, slots } => {
                out.put_u8(CHANGED);
                out.put_u32(u32::try_from(keys.len()).expect("what waits for a reader is bounded"));
                keys.iter().for_each(|key| out.put_u64(key.bits()));
                out.put_u16(u16::try_from(slots.len()).expect("there are 16,384 slots"));
                slots.iter().for_each(|slot| out.put_u16(slot.number()));
            }
            News::Everything => out.put_u8(EVERYTHING),
        }
    }
    out.freeze()
}

/// `None`: not an answer that we know.
pub(super) fn decode_told(mut body: Bytes) -> Option<Vec<Told>> {
    take_version(&mut body)?;
    let mut told = Vec::new();
    while body.has_remaining() {
        let partition = PartitionId::new(body.try_get_u16().ok()?);
        let bulletin = match body.try_get_u8().ok()? {
            REFUSED => None,
            BULLETIN => Some(take_bulletin(&mut body)?),
            _ => return None,
        };
        told.push((partition, bulletin));
    }
    Some(told)
}

fn take_bulletin(body: &mut Bytes) -> Option<Bulletin<KeyHash>> {
    let stream = StreamId::new(body.try_get_u64().ok()?);
    let number = body.try_get_u64().ok()?;
    let generation = Generation::new(body.try_get_u32().ok()?);
    let stamp = Stamp { generation, term: body.try_get_u64().ok()? };
    let position = Position::new(body.try_get_u64().ok()?);
    let news = match body.try_get_u8().ok()? {
        CHANGED => {
            let keys_count = body.try_get_u32().ok()? as usize;
            if keys_count > body.remaining() / size_of::<u64>() {
                return None;
            }
            let keys = (0..keys_count).map(|_| Some(KeyHash::new(body.try_get_u64().ok()?)));
            let keys = keys.collect::<Option<_>>()?;
            let slots_count = body.try_get_u16().ok()?;
            let slots = (0..slots_count).map(|_| Slot::new(body.try_get_u16().ok()?));
            News::Changed { keys, slots: slots.collect::<Option<_>>()? }
        }
        EVERYTHING => News::Everything,
        _ => return None,
    };
    Some(Bulletin { stream, number, stamp, position, news })
}

fn take_version(body: &mut Bytes) -> Option<()> {
    (body.try_get_u8().ok()? == VERSION).then_some(())
}

fn put_with_length(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).expect("a value is smaller than 4 GiB"));
    out.put_slice(bytes);
}

fn take_with_length(body: &mut Bytes) -> Option<Bytes> {
    let length = body.try_get_u32().ok()? as usize;
    (length <= body.len()).then(|| body.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load() -> Load {
        let keys = vec![Bytes::from_static(b"a"), Bytes::new(), Bytes::from(vec![7; 300])];
        Load { value_bytes_max: 1 << 20, keys }
    }

    fn loaded() -> Vec<Loaded> {
        let value = Bytes::from_static(b"v");
        let lives_for = Some(Duration::from_millis(1500));
        vec![
            Loaded::NotHere,
            Loaded::Absent,
            Loaded::Unfit,
            Loaded::Value { lives_for, value: value.clone() },
            Loaded::Value { lives_for: None, value },
        ]
    }

    fn inquiry() -> Inquiry {
        let about = |partition, stream: Option<u64>| About {
            partition: PartitionId::new(partition),
            stream: stream.map(StreamId::new),
            taken: 9,
        };
        Inquiry { hold_ms: 50, partitions: vec![about(0, None), about(513, Some(1 << 40))] }
    }

    fn told() -> Vec<Told> {
        let bulletin = |news| Bulletin {
            stream: StreamId::new(0x0102_0304_0506_0708),
            number: 3,
            stamp: Stamp { generation: Generation::new(2), term: 5 },
            position: Position::new(77),
            news,
        };
        let slots = vec![Slot::new(16_383).expect("the last one")];
        let keys = vec![KeyHash::new(1), KeyHash::new(u64::MAX)];
        vec![
            (PartitionId::new(1), None),
            (PartitionId::new(2), Some(bulletin(News::Changed { keys, slots }))),
            (PartitionId::new(3), Some(bulletin(News::Everything))),
        ]
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let Load { value_bytes_max, keys } = load();
        assert_eq!(decode_load(encode_load(value_bytes_max, &keys)), Some(load()));
        assert_eq!(decode_loaded(encode_loaded(&loaded()), loaded().len()), Some(loaded()));
        assert_eq!(decode_loaded(encode_loaded(&loaded()), 1), None, "there is more");
        assert_eq!(decode_inquiry(encode_inquiry(&inquiry())), Some(inquiry()));
        assert_eq!(decode_told(encode_told(&told())), Some(told()));
    }

    #[test]
    fn the_bytes_stay_what_they_are() {
        #[track_caller]
        fn check(body: &Bytes, golden: &str) {
            assert_eq!(body.escape_ascii().to_string(), golden);
        }
        let keys = [Bytes::from_static(b"key")];
        check(&encode_load(1 << 20, &keys), r"\x01\x00\x10\x00\x00\x00\x00\x00\x03key");
        check(
            &encode_loaded(&loaded()[..4]),
            r"\x01\x00\x01\x02\x03\x00\x00\x00\x00\x00\x00\x05\xdc\x00\x00\x00\x01v",
        );
        check(
            &encode_inquiry(&inquiry()),
            concat!(
                r"\x01\x002\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\t",
                r"\x02\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\t",
            )
            .replace(r"\t", "\\t")
            .as_str(),
        );
        check(
            &encode_told(&told()[..2]),
            concat!(
                r"\x01\x00\x01\x00\x00\x02\x01\x01\x02\x03\x04\x05\x06\x07\x08",
                r"\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x05",
                r"\x00\x00\x00\x00\x00\x00\x00M\x00\x00\x00\x00\x02",
                r"\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\x00\x01?\xff",
            ),
        );
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..96),
            version in any::<bool>(),
            count in 0usize..8,
        ) {
            let mut body = bytes;
            if version && let Some(first) = body.first_mut() {
                *first = VERSION;
            }
            let body = Bytes::from(body);
            let _any = decode_load(body.clone());
            let _any = decode_loaded(body.clone(), count);
            let _any = decode_inquiry(body.clone());
            let _any = decode_told(body);
        }
    }
}
