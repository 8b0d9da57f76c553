//! How large replies may be. A request of a few bytes can ask for the same large value a thousand times,
//! so what is asked for is measured before it is copied.

use scatterhoard_store::Reply;

use super::stage::Door;
use crate::core::Core;

/// Bytes of the replies that one stage, or one command over several slots, may hold in memory. What
/// [`ReplyLimits`](scatterhoard_resp::ReplyLimits) lets a client library take; a few clients at once are
/// served out of what a node has beside its keys.
const REPLY_BYTES_MAX: usize = 256 << 20;

/// Bytes of answers after which a peer gets what there is; the rest of what it sent was not done.
pub(crate) const ANSWERS_BYTES_MAX: usize = 4 << 20;

/// How much larger than a value one reply to a peer may be. Before it may come [`ANSWERS_BYTES_MAX`] of
/// answers, and beside it a stage's worth; together they fit into a message, which takes 16 MiB more
/// than a value.
const PEER_REPLY_EXTRA_BYTES: usize = 8 << 20;

/// The most that a value's header and line end, or a number, take on the wire.
const HEADER_BYTES_MAX: usize = 32;

/// Bytes of the replies that a stage at this door may hold.
pub(super) fn reply_bytes_max(core: &Core, door: Door) -> usize {
    match door {
        Door::Cluster | Door::AnyKey => REPLY_BYTES_MAX,
        Door::Peer => (core.value_bytes_max() + PEER_REPLY_EXTRA_BYTES).min(REPLY_BYTES_MAX),
    }
}

/// At most so many bytes on the wire.
pub(super) fn reply_bytes(reply: &Reply<'_>) -> usize {
    match reply {
        Reply::Ok | Reply::Nil | Reply::Int(_) | Reply::Status(_) | Reply::Bool(_) => {
            HEADER_BYTES_MAX
        }
        Reply::Bulk(value) => HEADER_BYTES_MAX + value.len(),
        Reply::Map(fields) => {
            let bytes = fields.iter().map(|(name, value)| name.len() + reply_bytes(value));
            HEADER_BYTES_MAX * (1 + fields.len()) + bytes.fold(0, usize::saturating_add)
        }
        Reply::Array(items) | Reply::Tuple(items) => {
            HEADER_BYTES_MAX + items.iter().map(reply_bytes).fold(0, usize::saturating_add)
        }
        Reply::Error(error) => HEADER_BYTES_MAX + error.to_string().len(),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use scatterhoard_command::encode_reply;
    use scatterhoard_resp::{Encoder, Protocol};
    use scatterhoard_store::OpError;

    use super::*;

    #[track_caller]
    fn check(reply: &Reply<'_>, length: usize) {
        let mut out = Vec::new();
        encode_reply(&mut Encoder::new(&mut out, Protocol::Resp2), reply);
        assert_eq!(out.len(), length);
        assert!(length <= reply_bytes(reply), "{} of {length}", reply_bytes(reply));
        assert!(reply_bytes(reply) < length + 32 * 5, "{} of {length}", reply_bytes(reply));
    }

    #[test]
    fn a_reply_is_never_longer_than_it_was_measured() {
        let value = vec![b'v'; 1000];
        let value = || Reply::Bulk(Cow::Borrowed(&value[..]));
        check(&Reply::Ok, 5);
        check(&Reply::Int(i64::MIN), 23);
        check(&value(), 1009);
        check(&Reply::Array(vec![value(), Reply::Nil, value()]), 4 + 1009 + 5 + 1009);
        check(&Reply::Error(OpError::AnswerLost), 68);
    }

    #[test]
    fn one_value_asked_for_a_thousand_times_is_a_thousand_values_long() {
        let value = vec![b'v'; 8 << 20];
        let many = Reply::Array(vec![Reply::Bulk(Cow::Borrowed(&value[..])); 1000]);
        assert!(reply_bytes(&many) > 1000 * value.len());
        assert!(reply_bytes(&many) > REPLY_BYTES_MAX);
    }
}
