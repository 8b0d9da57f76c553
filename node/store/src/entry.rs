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

use crate::{Expiry, SetAnswer, Step, UnixMillis, When, WhenExpire, Write};

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

fn encode_write(out: &mut Vec<u8>, write: &Write<'_>) {
    match write {
        Write::Set { key, value, expiry, when, answer } => {
            out.push(when_code(*when) | answer_code(*answer) << 4);
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

fn when_code(when: When) -> u8 {
    match when {
        When::Always => 0,
        When::Absent => 1,
        When::Present => 2,
    }
}

fn answer_code(answer: SetAnswer) -> u8 {
    match answer {
        SetAnswer::Done => 0,
        SetAnswer::Before => 1,
        SetAnswer::Count => 2,
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

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// LEB128: seven bits a byte, the lowest first.
pub(crate) fn put_count(out: &mut Vec<u8>, mut count: usize) {
    while count >= 0x80 {
        out.push(count as u8 | 0x80);
        count >>= 7;
    }
    out.push(count as u8);
}

fn decode_framed<'a>(fields: &mut Fields<'a>) -> Result<Logged<'a>, CorruptEntry> {
    let length = fields.fixed().map(u32::from_le_bytes)?;
    let mut body = Fields(fields.take(length as usize)?);
    let kind = body.byte()?;
    let first = body.fixed().map(u16::from_le_bytes)?;
    let slot = Slot::new(first).ok_or(CorruptEntry("slot out of range"))?;
    let logged = if kind == KIND_FLUSH {
        let last = body.fixed().map(u16::from_le_bytes)?;
        let slots = SlotRange::new(first, last.saturating_add(1))
            .ok_or(CorruptEntry("not a range of slots"))?;
        Logged::Flush { slots }
    } else {
        Logged::Write(Step { slot, write: decode_write(kind, &mut body)? })
    };
    if body.0.is_empty() { Ok(logged) } else { Err(CorruptEntry("more than the step needs")) }
}

fn decode_write<'a>(kind: u8, fields: &mut Fields<'a>) -> Result<Write<'a>, CorruptEntry> {
    Ok(match kind {
        1 => {
            let code = fields.byte()?;
            let (when, answer) = (decode_when(code & 0x0f)?, decode_answer(code >> 4)?);
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
        _ => return Err(CorruptEntry("unknown kind of step")),
    })
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

fn decode_when(code: u8) -> Result<When, CorruptEntry> {
    match code {
        0 => Ok(When::Always),
        1 => Ok(When::Absent),
        2 => Ok(When::Present),
        _ => Err(CorruptEntry("unknown condition")),
    }
}

fn decode_answer(code: u8) -> Result<SetAnswer, CorruptEntry> {
    match code {
        0 => Ok(SetAnswer::Done),
        1 => Ok(SetAnswer::Before),
        2 => Ok(SetAnswer::Count),
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

/// What is left to read.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], CorruptEntry> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(CorruptEntry("cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], CorruptEntry> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(CorruptEntry("cut short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, CorruptEntry> {
        self.fixed::<1>().map(|[byte]| byte)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, CorruptEntry> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CorruptEntry("neither yes nor no")),
        }
    }

    pub(crate) fn count(&mut self) -> Result<usize, CorruptEntry> {
        let mut count = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            count |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(count);
            }
        }
        Err(CorruptEntry("a count of more than five bytes"))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], CorruptEntry> {
        let count = self.count()?;
        self.take(count)
    }

    fn list<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, CorruptEntry>,
    ) -> Result<Vec<T>, CorruptEntry> {
        let count = self.count()?;
        // Every item takes a byte at least, so a corrupt count cannot ask for more than came.
        if count > self.0.len() {
            return Err(CorruptEntry("more items than bytes"));
        }
        (0..count).map(|_| one(self)).collect()
    }
}
