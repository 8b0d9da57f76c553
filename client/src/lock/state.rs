//! What the key of a lock holds: who has it, and who waits for it in which order.

use std::time::Duration;

use bytes::Bytes;

use crate::{Error, Value};

/// How many may stand in line. 64 × 16 bytes are read by all who wait; who comes beyond them waits outside.
pub(super) const QUEUE_COUNT_MAX: usize = 64;

/// How much longer than the longest lease the key lives. It only ends leases that nobody watches, and a new leader's
/// clock may be ahead of the former's by half a second.
const SPARE: Duration = Duration::from_secs(1);

/// Somebody who has the lock or waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Random, and another for each attempt at a lock.
    pub(super) id: u64,
    /// Grows with each sign of life.
    pub(super) beat: u32,
    /// For how long such a sign is good.
    pub(super) lease_ms: u32,
}

/// The state of a lock.
///
/// As bytes: the format (1), 1 or 0 for a holder or none, then the holder, if any, and those in line, the first first:
/// each its id as u64, beat and lease in ms as u32, little-endian. At most 1042 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) holder: Option<Member>,
    pub(super) queue: Vec<Member>,
}

impl Member {
    const BYTES: usize = 16;

    pub(super) fn lease(self) -> Duration {
        Duration::from_millis(self.lease_ms.into())
    }

    fn encode(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.beat.to_le_bytes());
        bytes.extend(self.lease_ms.to_le_bytes());
    }

    fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let [id @ .., b0, b1, b2, b3, l0, l1, l2, l3] = *bytes;
        let (beat, lease_ms) = ([b0, b1, b2, b3], [l0, l1, l2, l3]);
        Self {
            id: u64::from_le_bytes(id),
            beat: u32::from_le_bytes(beat),
            lease_ms: u32::from_le_bytes(lease_ms),
        }
    }
}

impl State {
    const FORMAT: u8 = 1;

    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = vec![Self::FORMAT, u8::from(self.holder.is_some())];
        self.members().for_each(|member| member.encode(&mut bytes));
        bytes.into()
    }

    /// # Errors
    /// The key has something that is no lock.
    pub(super) fn decode(bytes: &Bytes) -> Result<Self, Error> {
        let wrong = || Value::Bytes(bytes.clone()).unexpected("a lock");
        let [Self::FORMAT, has_holder @ 0..=1, members @ ..] = &**bytes else {
            return Err(wrong());
        };
        let (members, []) = members.as_chunks() else { return Err(wrong()) };
        let mut members = members.iter().map(Member::decode);
        let holder = if *has_holder == 1 { Some(members.next().ok_or_else(wrong)?) } else { None };
        Ok(Self { holder, queue: members.collect() })
    }

    /// All who are there.
    pub(super) fn members(&self) -> impl Iterator<Item = Member> {
        self.holder.iter().chain(&self.queue).copied()
    }

    /// Without this one.
    pub(super) fn without(&self, id: u64) -> Self {
        Self {
            holder: self.holder.filter(|holder| holder.id != id),
            queue: self.queue.iter().copied().filter(|member| member.id != id).collect(),
        }
    }

    /// How long the key has to live: longer than any lease that was told by it. Next to nothing if nobody is there.
    pub(super) fn lives(&self) -> Duration {
        let longest = self.members().map(Member::lease).max();
        longest.map_or(Duration::from_millis(1), |longest| longest + SPARE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member() -> impl Strategy<Value = Member> {
        any::<(u64, u32, u32)>().prop_map(|(id, beat, lease_ms)| Member { id, beat, lease_ms })
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            holder in prop::option::of(member()),
            queue in prop::collection::vec(member(), 0..=QUEUE_COUNT_MAX),
        ) {
            let state = State { holder, queue };
            let bytes = state.encode();
            prop_assert!(bytes.len() <= 1042);
            prop_assert_eq!(State::decode(&bytes), Ok(state));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _any = State::decode(&bytes.into());
        }
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        for bytes in [&b""[..], b"1", b"\x01", b"\x02\x00", b"\x01\x02", b"\x01\x01", b"\x01\x00x"]
        {
            let decoded = State::decode(&Bytes::from_static(bytes));
            assert!(matches!(decoded, Err(Error::BadReply(_))), "{bytes:?}");
        }
    }

    #[test]
    fn the_bytes_are_what_they_were() {
        let [holder, waiter] = [1, 2].map(|id| Member { id, beat: 3, lease_ms: 1000 });
        let state = State { holder: Some(holder), queue: vec![waiter] };
        let golden = b"\x01\x01\x01\0\0\0\0\0\0\0\x03\0\0\0\xe8\x03\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\xe8\x03\0\0";
        assert_eq!(&state.encode()[..], golden);
    }
}
