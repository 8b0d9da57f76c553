//! What `HOARD.GET` finds under a key, and what it answers.

use std::borrow::Cow;

use crate::block::{Block, Shape};
use crate::{OpError, Reply, Token, UnixMillis, Wants};

/// What is under a key, and whether someone loads it. Times are in milliseconds from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// A value that need not be loaded.
    Value {
        /// The value.
        value: &'a [u8],
        /// How long it need not be; `None`: as long as it lives.
        fresh_ms: Option<u64>,
        /// How long it lives; `None`: for ever.
        lives_ms: Option<u64>,
    },
    /// The source said that there is nothing.
    Negative {
        /// How long that counts; `None`: for ever.
        lives_ms: Option<u64>,
    },
    /// A value past its soft deadline.
    Stale {
        /// The value.
        value: &'a [u8],
        /// How long it lives; `None`: for ever.
        lives_ms: Option<u64>,
        /// How long the lease lasts of whoever loads it; `None`: nobody does.
        loading_ms: Option<u64>,
    },
    /// Nothing, and someone loads it.
    Loading {
        /// How long the lease of whoever does still lasts.
        left_ms: u64,
    },
    /// Nothing, and nobody loads it.
    Missing,
    /// A value that is not a string.
    WrongType,
}

impl<'a> Lookup<'a> {
    /// `block` is what is there, if it is neither expired nor stale by its tags; `lease_until` belongs to a
    /// live lease.
    pub(crate) fn of(
        block: Option<&'a Block>,
        lease_until: Option<UnixMillis>,
        now: UnixMillis,
    ) -> Self {
        let left = |until: UnixMillis| until.millis().saturating_sub(now.millis());
        let loading_ms = lease_until.map(left);
        let Some(block) = block else {
            return loading_ms.map_or(Self::Missing, |left_ms| Self::Loading { left_ms });
        };
        let lives_ms = block.deadline().map(left);
        let value = block.value();
        match (block.shape(), block.extra().soft()) {
            (Shape::Filter, _) => Self::WrongType,
            (Shape::Negative, _) => Self::Negative { lives_ms },
            (Shape::Whole | Shape::Grown, Some(soft)) if soft <= now => {
                Self::Stale { value, lives_ms, loading_ms }
            }
            (Shape::Whole | Shape::Grown, soft) => {
                let soft_ms = soft.map(left);
                // A soft deadline behind the hard one says nothing.
                let fresh_ms = soft_ms.filter(|soft| lives_ms.is_none_or(|lives| *soft < lives));
                Self::Value { value, fresh_ms: fresh_ms.or(lives_ms), lives_ms }
            }
        }
    }

    /// The answer, or `None` if the caller is to be given a lease ([`crate::Write::Lease`]); who only looks
    /// always gets one.
    #[must_use]
    pub fn answer(self, wants: Wants) -> Option<Reply<'a>> {
        let only_looks = matches!(wants, Wants::Look | Wants::Wait);
        let takes_stale = wants != Wants::Lease;
        if let (Wants::Wait, Some(left_ms)) = (wants, self.loading_ms()) {
            return Some(wait(left_ms));
        }
        match self {
            Self::Value { value, fresh_ms, lives_ms } => {
                Some(tuple([word("value"), bulk(value), millis(fresh_ms), millis(lives_ms)]))
            }
            Self::Negative { lives_ms } => Some(tuple([word("negative"), millis(lives_ms)])),
            Self::Stale { value, lives_ms, loading_ms }
                if only_looks || takes_stale && loading_ms.is_some() =>
            {
                Some(tuple([word("stale"), bulk(value), Reply::Nil, millis(lives_ms)]))
            }
            Self::Stale { loading_ms, .. } => loading_ms.map(wait),
            Self::Loading { left_ms } => Some(wait(left_ms)),
            Self::Missing => only_looks.then(|| tuple([word("miss")])),
            Self::WrongType => Some(Reply::Error(OpError::WrongType)),
        }
    }

    /// The answer to who is given a lease.
    pub(crate) fn granted(self, wants: Wants, token: Token, lease_ms: u64) -> Reply<'a> {
        let token = Reply::Bulk(Cow::Owned(token.0.to_string().into_bytes()));
        match (self, wants) {
            (Self::Stale { value, lives_ms, .. }, Wants::LeaseOrStale) => {
                tuple([word("stale"), bulk(value), token, millis(lives_ms)])
            }
            _ => tuple([word("load"), token, millis(Some(lease_ms))]),
        }
    }

    /// How long someone's lease on the key lasts, in milliseconds. `None`: nobody loads it.
    #[must_use]
    pub fn loading_ms(self) -> Option<u64> {
        match self {
            Self::Stale { loading_ms, .. } => loading_ms,
            Self::Loading { left_ms } => Some(left_ms),
            Self::Value { .. } | Self::Negative { .. } | Self::Missing | Self::WrongType => None,
        }
    }
}

fn wait(left_ms: u64) -> Reply<'static> {
    tuple([word("wait"), millis(Some(left_ms))])
}

fn tuple<const N: usize>(parts: [Reply<'_>; N]) -> Reply<'_> {
    Reply::Tuple(parts.into())
}

fn word(word: &'static str) -> Reply<'static> {
    Reply::Bulk(Cow::Borrowed(word.as_bytes()))
}

fn bulk(value: &[u8]) -> Reply<'_> {
    Reply::Bulk(Cow::Borrowed(value))
}

/// -1 stands for ever, as in `PTTL`.
fn millis(millis: Option<u64>) -> Reply<'static> {
    Reply::Int(millis.map_or(-1, |millis| i64::try_from(millis).unwrap_or(i64::MAX)))
}
