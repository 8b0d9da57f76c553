//! What entries and snapshots are made of: counts as LEB128, bytes behind their count.

use crate::CorruptEntry;

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

    pub(crate) fn list<T>(
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
