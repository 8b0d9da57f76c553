//! How nodes ask each other about partitions. Numbers are big-endian.
//!
//! ```text
//! question: version, partition: u16, kind, …     answer: version, kind, …
//!   0 count                                        0 count: u64
//!   1 page: cursor u64, count u32, pattern         1 page: next u64, keys, each with its length u32
//!   2 random: roll u64                             2 random: nothing, or a key after a 1
//!   3 flush                                        3 flushed
//!                                                  4 not done   5 too few replicas   6 in doubt
//!   7 tags, each with its length u32               7 invalidated: how many keys u64
//!   8 prefix                                       7 the same
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use scatterhoard_ring::PartitionId;
use scatterhoard_store::Cursor;

use super::{Answer, Missing, Outdated, Question};

const VERSION: u8 = 1;

const COUNT: u8 = 0;
const PAGE: u8 = 1;
const RANDOM: u8 = 2;
const FLUSH: u8 = 3;
const NOT_DONE: u8 = 4;
const TOO_FEW_REPLICAS: u8 = 5;
const IN_DOUBT: u8 = 6;
const INVALIDATE_TAGS: u8 = 7;
const INVALIDATE_PREFIX: u8 = 8;

pub(super) fn encode_question(partition: PartitionId, question: &Question) -> Bytes {
    let mut out = BytesMut::with_capacity(32);
    out.put_u8(VERSION);
    out.put_u16(partition.number());
    match question {
        Question::Count => out.put_u8(COUNT),
        Question::Page { cursor, count, pattern } => {
            out.put_u8(PAGE);
            out.put_u64(cursor.number());
            out.put_u32(*count);
            out.put_slice(pattern);
        }
        Question::Random { roll } => {
            out.put_u8(RANDOM);
            out.put_u64(*roll);
        }
        Question::Flush => out.put_u8(FLUSH),
        Question::Invalidate(Outdated::Tags(tags)) => {
            out.put_u8(INVALIDATE_TAGS);
            tags.iter().for_each(|tag| put_with_length(&mut out, tag));
        }
        Question::Invalidate(Outdated::Prefix(prefix)) => {
            out.put_u8(INVALIDATE_PREFIX);
            out.put_slice(prefix);
        }
    }
    out.freeze()
}

/// `None`: not a question that we know.
pub(super) fn decode_question(mut body: Bytes) -> Option<(PartitionId, Question)> {
    if body.try_get_u8().ok()? != VERSION {
        return None;
    }
    let partition = PartitionId::new(body.try_get_u16().ok()?);
    let question = match body.try_get_u8().ok()? {
        COUNT => Question::Count,
        PAGE => {
            let cursor = Cursor::new(body.try_get_u64().ok()?);
            let count = body.try_get_u32().ok()?;
            return Some((partition, Question::Page { cursor, count, pattern: body }));
        }
        RANDOM => Question::Random { roll: body.try_get_u64().ok()? },
        FLUSH => Question::Flush,
        INVALIDATE_TAGS => {
            let tags = take_keys(&mut body)?.into_iter().map(Bytes::from).collect();
            Question::Invalidate(Outdated::Tags(tags))
        }
        INVALIDATE_PREFIX => {
            let question = Question::Invalidate(Outdated::Prefix(body));
            return Some((partition, question));
        }
        _ => return None,
    };
    body.is_empty().then_some((partition, question))
}

pub(super) fn encode_answer(answer: &Result<Answer, Missing>) -> Bytes {
    let mut out = BytesMut::with_capacity(32);
    out.put_u8(VERSION);
    match answer {
        Ok(Answer::Count(count)) => {
            out.put_u8(COUNT);
            out.put_u64(*count);
        }
        Ok(Answer::Page { next, keys }) => {
            out.put_u8(PAGE);
            out.put_u64(next.number());
            keys.iter().for_each(|key| put_with_length(&mut out, key));
        }
        Ok(Answer::Random(key)) => {
            out.put_u8(RANDOM);
            if let Some(key) = key {
                out.put_u8(1);
                out.put_slice(key);
            }
        }
        Ok(Answer::Flushed) => out.put_u8(FLUSH),
        Ok(Answer::Invalidated(count)) => {
            out.put_u8(INVALIDATE_TAGS);
            out.put_u64(*count);
        }
        Err(Missing::NotDone | Missing::Elsewhere) => out.put_u8(NOT_DONE),
        Err(Missing::TooFewReplicas) => out.put_u8(TOO_FEW_REPLICAS),
        Err(Missing::InDoubt) => out.put_u8(IN_DOUBT),
    }
    out.freeze()
}

/// `None`: not an answer to this question.
pub(super) fn decode_answer(
    mut body: Bytes,
    question: &Question,
) -> Option<Result<Answer, Missing>> {
    if body.try_get_u8().ok()? != VERSION {
        return None;
    }
    let kind = body.try_get_u8().ok()?;
    let answer = match (kind, question) {
        (COUNT, Question::Count) => Ok(Answer::Count(body.try_get_u64().ok()?)),
        (PAGE, Question::Page { .. }) => {
            let next = Cursor::new(body.try_get_u64().ok()?);
            Ok(Answer::Page { next, keys: take_keys(&mut body)? })
        }
        (RANDOM, Question::Random { .. }) if body.is_empty() => Ok(Answer::Random(None)),
        (RANDOM, Question::Random { .. }) => {
            body.advance(1);
            Ok(Answer::Random(Some(std::mem::take(&mut body).to_vec())))
        }
        (FLUSH, Question::Flush) => Ok(Answer::Flushed),
        (INVALIDATE_TAGS, Question::Invalidate(_)) => {
            Ok(Answer::Invalidated(body.try_get_u64().ok()?))
        }
        (NOT_DONE, _) => Err(Missing::NotDone),
        (TOO_FEW_REPLICAS, _) => Err(Missing::TooFewReplicas),
        (IN_DOUBT, _) => Err(Missing::InDoubt),
        (
            _,
            Question::Count
            | Question::Page { .. }
            | Question::Random { .. }
            | Question::Flush
            | Question::Invalidate(_),
        ) => {
            return None;
        }
    };
    body.is_empty().then_some(answer)
}

fn put_with_length(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).expect("a word is smaller than 4 GiB"));
    out.put_slice(bytes);
}

fn take_keys(body: &mut Bytes) -> Option<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    while body.has_remaining() {
        let length = body.try_get_u32().ok()? as usize;
        if length > body.len() {
            return None;
        }
        keys.push(body.split_to(length).to_vec());
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn questions() -> [Question; 6] {
        let cursor = Cursor::new(0x0123_4567_89ab_cdef);
        [
            Question::Count,
            Question::Page { cursor, count: 100, pattern: Bytes::from_static(b"user:*") },
            Question::Random { roll: 42 },
            Question::Flush,
            Question::Invalidate(Outdated::Tags(vec![Bytes::from_static(b"t"), Bytes::new()])),
            Question::Invalidate(Outdated::Prefix(Bytes::from_static(b"user:"))),
        ]
    }

    #[test]
    fn questions_arrive_as_they_were_asked() {
        for question in questions() {
            let body = encode_question(PartitionId::new(513), &question);
            assert_eq!(decode_question(body), Some((PartitionId::new(513), question)));
        }
    }

    #[test]
    fn answers_arrive_as_they_were_given() {
        let [count, page, random, flush, tags, prefix] = questions();
        let keys = vec![b"a".to_vec(), Vec::new(), vec![0; 300]];
        let given = [
            (&count, Ok(Answer::Count(7))),
            (&page, Ok(Answer::Page { next: Cursor::START, keys })),
            (&random, Ok(Answer::Random(None))),
            (&random, Ok(Answer::Random(Some(Vec::new())))),
            (&random, Ok(Answer::Random(Some(b"key".to_vec())))),
            (&flush, Ok(Answer::Flushed)),
            (&tags, Ok(Answer::Invalidated(0))),
            (&prefix, Ok(Answer::Invalidated(300))),
            (&count, Err(Missing::NotDone)),
            (&flush, Err(Missing::TooFewReplicas)),
            (&flush, Err(Missing::InDoubt)),
        ];
        for (question, answer) in given {
            let body = encode_answer(&answer);
            assert_eq!(decode_answer(body.clone(), question), Some(answer));
        }
        let count_answer = encode_answer(&Ok(Answer::Count(7)));
        assert_eq!(decode_answer(count_answer, &flush), None, "an answer to something else");
    }

    #[test]
    fn the_bytes_of_a_question_stay_what_they_are() {
        let [_, page, ..] = questions();
        let body = encode_question(PartitionId::new(513), &page);
        let golden = b"\x01\x02\x01\x01\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\x64user:*";
        assert_eq!(body.escape_ascii().to_string(), golden.escape_ascii().to_string());
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..64), version in any::<bool>()) {
            let mut body = bytes;
            if version && let Some(first) = body.first_mut() {
                *first = VERSION;
            }
            let body = Bytes::from(body);
            let _any = decode_question(body.clone());
            for question in questions() {
                let _any = decode_answer(body.clone(), &question);
            }
        }
    }
}
