//! The bytes of a log entry.
//!
//! ```text
//! entry   version u8 = 1, stamp u64, step*
//! step    length u32 of what follows, kind u8, slot u16, fields of the kind
//! ```
//! Numbers are little-endian; lengths and counts inside a step are LEB128, keys and values are a length
//! and bytes. A session writes steps straight from a client's arguments, and whoever proposes puts a
//! header before the steps of many sessions. An entry without steps only moves the stamp.

use scatterhoard_ring::{Slot, SlotRange};

use crate::fields::{Fields, put_bytes, put_count};
use crate::{
    Content, Expiry, FilterForm, FilterLayout, SetAnswer, Step, TAGS_COUNT_MAX, Terms, Token,
    UnixMillis, Wants, When, WhenExpire, Write,
};

/// How long the header of an entry is.
pub const ENTRY_HEADER_BYTES: usize = 9;

const VERSION: u8 = 1;
const LENGTH_BYTES: usize = 4;

/// These bytes are not an entry. No client can cause it: the log or its writer is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt log entry: {0}")]
pub struct CorruptEntry(pub &'static str);

/// Begins an entry: appends its header to `out`.
pub fn encode_header(out: &mut Vec<u8>, stamp: UnixMillis) {
    out.push(VERSION);
    out.extend_from_slice(&stamp.millis().to_le_bytes());
}

/// Appends one step to `out`, which may stand before or behind other steps.
pub fn encode_step(out: &mut Vec<u8>, step: &Step<'_>) {
    encode_framed(out, kind_of(&step.write), step.slot, |out| encode_write(out, &step.write));
}

/// Appends the steps that empty every slot of the range, to `out`: one step to each slot, written
/// short. They answer `Ok` once.
pub fn encode_flush(out: &mut Vec<u8>, slots: SlotRange) {
    encode_framed(out, KIND_FLUSH, slots.first(), |out| {
        out.extend_from_slice(&slots.last().number().to_le_bytes());
    });
}

/// Appends the steps that make stale, in every slot of the range, each value that carries the tag, to `out`:
/// one step to each slot, written short. They answer `Ok` once.
pub fn encode_invalidate_tag(out: &mut Vec<u8>, slots: SlotRange, tag: &[u8]) {
    encode_framed(out, KIND_INVALIDATE_TAG, slots.first(), |out| {
        out.extend_from_slice(&slots.last().number().to_le_bytes());
        put_bytes(out, tag);
    });
}

/// Appends the steps that remove, in every slot of the range, each key that begins with the prefix, to `out`:
/// one step to each slot, written short. They answer once, with the number of keys.
///
/// Each step looks at every key of its slot. Who has many slots logs them in parts, so that no entry holds up
/// the log for long.
pub fn encode_invalidate_prefix(out: &mut Vec<u8>, slots: SlotRange, prefix: &[u8]) {
    encode_framed(out, KIND_INVALIDATE_PREFIX, slots.first(), |out| {
        out.extend_from_slice(&slots.last().number().to_le_bytes());
        put_bytes(out, prefix);
    });
}

/// A log entry: a stamp and steps.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    stamp: UnixMillis,
    steps: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads the header. The steps are read as they are asked for.
    ///
    /// # Errors
    /// The header is cut short, or of another version.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CorruptEntry> {
        let mut fields = Fields(bytes);
        if fields.byte()? != VERSION {
            return Err(CorruptEntry("unknown version"));
        }
        let stamp = UnixMillis::new(fields.fixed().map(u64::from_le_bytes)?);
        Ok(Self { stamp, steps: fields.0 })
    }

    /// The time at which the entry happens.
    #[must_use]
    pub fn stamp(&self) -> UnixMillis {
        self.stamp
    }

    /// The steps in their order, up to the first that is corrupt.
    #[must_use]
    pub fn steps(&self) -> Steps<'a> {
        Steps(self.steps)
    }
}

/// What an entry does in one step.
#[derive(Clone, Debug, PartialEq)]
pub enum Logged<'a> {
    /// A change to one slot.
    Write(Step<'a>),
    /// Empties every slot of the range, each by its own account.
    Flush {
        /// The slots to empty.
        slots: SlotRange,
    },
    /// Makes each value that carries the tag stale, in every slot of the range by its own account.
    InvalidateTag {
        /// The slots.
        slots: SlotRange,
        /// The tag.
        tag: &'a [u8],
    },
    /// Removes the keys that begin so, and voids the leases on such, in every slot of the range by its own
    /// account.
    InvalidatePrefix {
        /// The slots.
        slots: SlotRange,
        /// What the keys begin with.
        prefix: &'a [u8],
    },
}

/// Reads the steps of an entry one by one. Ends behind the first error.
#[derive(Clone, Debug)]
pub struct Steps<'a>(&'a [u8]);

impl<'a> Iterator for Steps<'a> {
    type Item = Result<Logged<'a>, CorruptEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let mut fields = Fields(self.0);
        let step = decode_framed(&mut fields);
        self.0 = if step.is_ok() { fields.0 } else { &[] };
        Some(step)
    }
}

const KIND_FLUSH: u8 = 16;
const KIND_INVALIDATE_TAG: u8 = 17;
const KIND_INVALIDATE_PREFIX: u8 = 18;

fn kind_of(write: &Write<'_>) -> u8 {
    match write {
        Write::Set { .. } => 1,
        Write::SetMany { .. } => 2,
        Write::SetManyIfAbsent { .. } => 3,
        Write::GetExpire { .. } => 4,
        Write::GetDelete { .. } => 5,
        Write::Add { .. } => 6,
        Write::AddFloat { .. } => 7,
        Write::Append { .. } => 8,
        Write::SetRange { .. } => 9,
        Write::Delete { .. } => 10,
        Write::Expire { .. } => 11,
        Write::Persist { .. } => 12,
        Write::Rename { .. } => 13,
        Write::Copy { .. } => 14,
        Write::Evict { .. } => 15,
        Write::SetWith { .. } => 19,
        Write::Lease { .. } => 20,
        Write::Fill { .. } => 21,
        Write::Release { .. } => 22,
        Write::ReserveFilter { .. } => 23,
        Write::AddToFilter { .. } => 24,
    }
}

fn encode_framed(out: &mut Vec<u8>, kind: u8, slot: Slot, fields: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.push(kind);
    out.extend_from_slice(&slot.number().to_le_bytes());
    fields(out);
    let length = out.len() - start - LENGTH_BYTES;
    let length = u32::try_from(length).expect("a request is bounded far below 4 GiB");
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

#[expect(clippy::too_many_lines, reason = "one short arm for each kind")]
fn encode_write(out: &mut Vec<u8>, write: &Write<'_>) {
    match write {
        Write::Set { key, value, expiry, when, answer } => {
            out.push(when_code(*when) | answer_code(*answer) << 4);
            put_expected(out, *when);
            encode_expiry(out, *expiry);
            put_bytes(out, key);
            put_bytes(out, value);
        }
        Write::SetMany { pairs } | Write::SetManyIfAbsent { pairs } => {
            put_count(out, pairs.len());
            for (key, value) in pairs {
                put_bytes(out, key);
                put_bytes(out, value);
            }
        }
        Write::GetExpire { key, expiry } => {
            encode_expiry(out, *expiry);
            put_bytes(out, key);
        }
        Write::GetDelete { key } | Write::Persist { key } => put_bytes(out, key),
        Write::Add { key, delta } => {
            out.extend_from_slice(&delta.to_le_bytes());
            put_bytes(out, key);
        }
        Write::AddFloat { key, delta } => {
            out.extend_from_slice(&delta.to_bits().to_le_bytes());
            put_bytes(out, key);
        }
        Write::Append { key, value } => {
            put_bytes(out, key);
            put_bytes(out, value);
        }
        Write::SetRange { key, offset, value } => {
            out.extend_from_slice(&offset.to_le_bytes());
            put_bytes(out, key);
            put_bytes(out, value);
        }
        Write::Delete { keys } | Write::Evict { keys } => {
            put_count(out, keys.len());
            for key in keys {
                put_bytes(out, key);
            }
        }
        Write::Expire { key, expiry, when } => {
            out.push(when_expire_code(*when));
            encode_expiry(out, *expiry);
            put_bytes(out, key);
        }
        Write::Rename { from, to, only_if_absent: flag }
        | Write::Copy { from, to, replace: flag } => {
            out.push(u8::from(*flag));
            put_bytes(out, from);
            put_bytes(out, to);
        }
        Write::SetWith { key, content, terms, when, answer } => {
            out.push(when_code(*when) | answer_code(*answer) << 4);
            put_expected(out, *when);
            put_bytes(out, key);
            encode_content(out, *content);
            encode_terms(out, terms);
        }
        Write::Lease { key, token, millis, wants } => {
            out.push(wants_code(*wants));
            out.extend_from_slice(&token.0.to_le_bytes());
            out.extend_from_slice(&millis.to_le_bytes());
            put_bytes(out, key);
        }
        Write::Fill { key, token, content, terms } => {
            out.extend_from_slice(&token.0.to_le_bytes());
            put_bytes(out, key);
            encode_content(out, *content);
            encode_terms(out, terms);
        }
        Write::Release { key, token } => {
            out.extend_from_slice(&token.0.to_le_bytes());
            put_bytes(out, key);
        }
        Write::ReserveFilter { key, layout } => {
            out.extend_from_slice(&layout.capacity.to_le_bytes());
            out.push(layout.error_bits);
            out.extend_from_slice(&layout.expansion.to_le_bytes());
            put_bytes(out, key);
        }
        Write::AddToFilter { key, items, form } => {
            out.push(match form {
                FilterForm::One => 0,
                FilterForm::Many => 1,
            });
            put_bytes(out, key);
            put_count(out, items.len());
            items.iter().for_each(|item| put_bytes(out, item));
        }
    }
}

fn encode_content(out: &mut Vec<u8>, content: Content<'_>) {
    match content {
        Content::Negative => out.push(0),
        Content::Value(value) => {
            out.push(1);
            put_bytes(out, value);
        }
    }
}

fn encode_terms(out: &mut Vec<u8>, terms: &Terms<'_>) {
    encode_expiry(out, terms.expiry);
    out.push(u8::from(terms.soft_millis.is_some()));
    if let Some(millis) = terms.soft_millis {
        out.extend_from_slice(&millis.to_le_bytes());
    }
    put_count(out, terms.tags.len());
    terms.tags.iter().for_each(|tag| put_bytes(out, tag));
}

fn wants_code(wants: Wants) -> u8 {
    match wants {
        Wants::Look => 0,
        Wants::Lease => 1,
        Wants::LeaseOrStale => 2,
        Wants::Wait => 3,
    }
}

fn encode_expiry(out: &mut Vec<u8>, expiry: Expiry) {
    let (code, millis) = match expiry {
        Expiry::Clear => (0, None),
        Expiry::Keep => (1, None),
        Expiry::At(time) => (2, Some(time.millis())),
        Expiry::After(millis) => (3, Some(millis)),
    };
    out.push(code);
    if let Some(millis) = millis {
        out.extend_from_slice(&millis.to_le_bytes());
    }
}

fn when_code(when: When<'_>) -> u8 {
    match when {
        When::Always => 0,
        When::Absent => 1,
        When::Present => 2,
        When::Equal(_) => 3,
    }
}

fn put_expected(out: &mut Vec<u8>, when: When<'_>) {
    match when {
        When::Equal(value) => put_bytes(out, value),
        When::Always | When::Absent | When::Present => {}
    }
}

fn answer_code(answer: SetAnswer) -> u8 {
    match answer {
        SetAnswer::Done => 0,
        SetAnswer::Before => 1,
        SetAnswer::Count => 2,
        SetAnswer::Version => 3,
    }
}

fn when_expire_code(when: WhenExpire) -> u8 {
    match when {
        WhenExpire::Always => 0,
        WhenExpire::Absent => 1,
        WhenExpire::Present => 2,
        WhenExpire::Later => 3,
        WhenExpire::Earlier => 4,
        WhenExpire::PresentEarlier => 5,
    }
}

fn decode_framed<'a>(fields: &mut Fields<'a>) -> Result<Logged<'a>, CorruptEntry> {
    let length = fields.fixed().map(u32::from_le_bytes)?;
    let mut body = Fields(fields.take(length as usize)?);
    let kind = body.byte()?;
    let first = body.fixed().map(u16::from_le_bytes)?;
    let slot = Slot::new(first).ok_or(CorruptEntry("slot out of range"))?;
    let mut slots = || {
        let last = body.fixed().map(u16::from_le_bytes)?;
        SlotRange::new(first, last.saturating_add(1)).ok_or(CorruptEntry("not a range of slots"))
    };
    let logged = match kind {
        KIND_FLUSH => Logged::Flush { slots: slots()? },
        KIND_INVALIDATE_TAG => Logged::InvalidateTag { slots: slots()?, tag: body.bytes()? },
        KIND_INVALIDATE_PREFIX => {
            Logged::InvalidatePrefix { slots: slots()?, prefix: body.bytes()? }
        }
        _ => Logged::Write(Step { slot, write: decode_write(kind, &mut body)? }),
    };
    if body.0.is_empty() { Ok(logged) } else { Err(CorruptEntry("more than the step needs")) }
}

fn decode_write<'a>(kind: u8, fields: &mut Fields<'a>) -> Result<Write<'a>, CorruptEntry> {
    Ok(match kind {
        1 => {
            let code = fields.byte()?;
            let (when, answer) = (decode_when(code & 0x0f, fields)?, decode_answer(code >> 4)?);
            let expiry = decode_expiry(fields)?;
            Write::Set { key: fields.bytes()?, value: fields.bytes()?, expiry, when, answer }
        }
        2 => Write::SetMany { pairs: fields.list(|it| Ok((it.bytes()?, it.bytes()?)))? },
        3 => Write::SetManyIfAbsent { pairs: fields.list(|it| Ok((it.bytes()?, it.bytes()?)))? },
        4 => {
            let expiry = decode_expiry(fields)?;
            Write::GetExpire { key: fields.bytes()?, expiry }
        }
        5 => Write::GetDelete { key: fields.bytes()? },
        6 => {
            let delta = fields.fixed().map(i64::from_le_bytes)?;
            Write::Add { key: fields.bytes()?, delta }
        }
        7 => {
            let delta = fields.fixed().map(|bytes| f64::from_bits(u64::from_le_bytes(bytes)))?;
            Write::AddFloat { key: fields.bytes()?, delta }
        }
        8 => Write::Append { key: fields.bytes()?, value: fields.bytes()? },
        9 => {
            let offset = fields.fixed().map(u32::from_le_bytes)?;
            Write::SetRange { key: fields.bytes()?, offset, value: fields.bytes()? }
        }
        10 => Write::Delete { keys: fields.list(Fields::bytes)? },
        11 => {
            let when = decode_when_expire(fields.byte()?)?;
            let expiry = decode_expiry(fields)?;
            Write::Expire { key: fields.bytes()?, expiry, when }
        }
        12 => Write::Persist { key: fields.bytes()? },
        13 => {
            let only_if_absent = fields.flag()?;
            Write::Rename { from: fields.bytes()?, to: fields.bytes()?, only_if_absent }
        }
        14 => {
            let replace = fields.flag()?;
            Write::Copy { from: fields.bytes()?, to: fields.bytes()?, replace }
        }
        15 => Write::Evict { keys: fields.list(Fields::bytes)? },
        19..=24 => return decode_load_or_filter(kind, fields),
        _ => return Err(CorruptEntry("unknown kind of step")),
    })
}

/// The second half of [`decode_write`].
fn decode_load_or_filter<'a>(kind: u8, fields: &mut Fields<'a>) -> Result<Write<'a>, CorruptEntry> {
    Ok(match kind {
        19 => {
            let code = fields.byte()?;
            let (when, answer) = (decode_when(code & 0x0f, fields)?, decode_answer(code >> 4)?);
            let (key, content) = (fields.bytes()?, decode_content(fields)?);
            Write::SetWith { key, content, terms: decode_terms(fields)?, when, answer }
        }
        20 => {
            let wants = decode_wants(fields.byte()?)?;
            let token = decode_token(fields)?;
            let millis = fields.fixed().map(u64::from_le_bytes)?;
            Write::Lease { key: fields.bytes()?, token, millis, wants }
        }
        21 => {
            let token = decode_token(fields)?;
            let (key, content) = (fields.bytes()?, decode_content(fields)?);
            Write::Fill { key, token, content, terms: decode_terms(fields)? }
        }
        22 => {
            let token = decode_token(fields)?;
            Write::Release { key: fields.bytes()?, token }
        }
        23 => {
            let layout = decode_layout(fields)?;
            Write::ReserveFilter { key: fields.bytes()?, layout }
        }
        24 => {
            let form = if fields.flag()? { FilterForm::Many } else { FilterForm::One };
            let key = fields.bytes()?;
            Write::AddToFilter { key, items: fields.list(Fields::bytes)?, form }
        }
        _ => return Err(CorruptEntry("unknown kind of step")),
    })
}

fn decode_token(fields: &mut Fields<'_>) -> Result<Token, CorruptEntry> {
    fields.fixed().map(|bytes| Token(u64::from_le_bytes(bytes)))
}

fn decode_content<'a>(fields: &mut Fields<'a>) -> Result<Content<'a>, CorruptEntry> {
    Ok(if fields.flag()? { Content::Value(fields.bytes()?) } else { Content::Negative })
}

fn decode_terms<'a>(fields: &mut Fields<'a>) -> Result<Terms<'a>, CorruptEntry> {
    let expiry = decode_expiry(fields)?;
    let soft_millis =
        if fields.flag()? { Some(fields.fixed().map(u64::from_le_bytes)?) } else { None };
    let tags = fields.list(Fields::bytes)?;
    if tags.len() > TAGS_COUNT_MAX {
        return Err(CorruptEntry("too many tags"));
    }
    Ok(Terms { expiry, soft_millis, tags })
}

fn decode_wants(code: u8) -> Result<Wants, CorruptEntry> {
    match code {
        0 => Ok(Wants::Look),
        1 => Ok(Wants::Lease),
        2 => Ok(Wants::LeaseOrStale),
        3 => Ok(Wants::Wait),
        _ => Err(CorruptEntry("unknown kind of lookup")),
    }
}

fn decode_layout(fields: &mut Fields<'_>) -> Result<FilterLayout, CorruptEntry> {
    let capacity = fields.fixed().map(u32::from_le_bytes)?;
    let error_bits = fields.byte()?;
    let expansion = fields.fixed().map(u16::from_le_bytes)?;
    let is_sound = (1..=FilterLayout::CAPACITY_MAX).contains(&capacity)
        && (1..=FilterLayout::ERROR_BITS_MAX).contains(&error_bits);
    if !is_sound {
        return Err(CorruptEntry("a filter that cannot be"));
    }
    Ok(FilterLayout { capacity, error_bits, expansion })
}

fn decode_expiry(fields: &mut Fields<'_>) -> Result<Expiry, CorruptEntry> {
    match fields.byte()? {
        0 => Ok(Expiry::Clear),
        1 => Ok(Expiry::Keep),
        2 => Ok(Expiry::At(UnixMillis::new(fields.fixed().map(u64::from_le_bytes)?))),
        3 => Ok(Expiry::After(fields.fixed().map(u64::from_le_bytes)?)),
        _ => Err(CorruptEntry("unknown kind of expiry")),
    }
}

fn decode_when<'a>(code: u8, fields: &mut Fields<'a>) -> Result<When<'a>, CorruptEntry> {
    match code {
        0 => Ok(When::Always),
        1 => Ok(When::Absent),
        2 => Ok(When::Present),
        3 => Ok(When::Equal(fields.bytes()?)),
        _ => Err(CorruptEntry("unknown condition")),
    }
}

fn decode_answer(code: u8) -> Result<SetAnswer, CorruptEntry> {
    match code {
        0 => Ok(SetAnswer::Done),
        1 => Ok(SetAnswer::Before),
        2 => Ok(SetAnswer::Count),
        3 => Ok(SetAnswer::Version),
        _ => Err(CorruptEntry("unknown answer")),
    }
}

fn decode_when_expire(code: u8) -> Result<WhenExpire, CorruptEntry> {
    match code {
        0 => Ok(WhenExpire::Always),
        1 => Ok(WhenExpire::Absent),
        2 => Ok(WhenExpire::Present),
        3 => Ok(WhenExpire::Later),
        4 => Ok(WhenExpire::Earlier),
        5 => Ok(WhenExpire::PresentEarlier),
        _ => Err(CorruptEntry("unknown condition of an expiry")),
    }
}
