//! A cursor over a flat layout: every step is bounded, none panics.

use super::CommandError;

/// A cursor over a command's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far: where the next one lies.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// The bytes from `start` up to the cursor.
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    #[inline]
    pub(crate) fn take(
        &mut self,
        length: usize,
        what: &'static str,
    ) -> Result<&'a [u8], CommandError> {
        let rest = &self.bytes[self.at..];
        if rest.len() < length {
            return Err(CommandError::Short { what, at: self.at, missing: length - rest.len() });
        }
        self.at += length;
        Ok(&rest[..length])
    }

    #[inline]
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CommandError> {
        Ok(self.take(N, what)?.try_into().expect("as many bytes as were taken"))
    }

    #[inline]
    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, CommandError> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    #[inline]
    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, CommandError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    #[inline]
    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, CommandError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    #[inline]
    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, CommandError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    #[inline]
    pub(crate) fn u128(&mut self, what: &'static str) -> Result<u128, CommandError> {
        Ok(u128::from_le_bytes(self.array(what)?))
    }

    /// Reads a byte of flags, of which only `known` may be set.
    #[inline]
    pub(crate) fn flags(&mut self, known: u8) -> Result<u8, CommandError> {
        let at = self.at;
        let flags = self.u8("the flags")?;
        if flags & !known != 0 {
            return Err(CommandError::UnknownFlags { flags: flags & !known, at });
        }
        Ok(flags)
    }

    /// Reads reserved bytes, which must be zero.
    pub(crate) fn zeros(&mut self, length: usize) -> Result<(), CommandError> {
        let at = self.at;
        if self.take(length, "reserved bytes")?.iter().any(|&byte| byte != 0) {
            return Err(CommandError::Malformed { what: "non-zero reserved bytes", at });
        }
        Ok(())
    }

    /// Checks that nothing is left.
    #[inline]
    pub(crate) fn finish(&self) -> Result<(), CommandError> {
        if self.at != self.bytes.len() {
            return Err(CommandError::Malformed { what: "bytes behind its end", at: self.at });
        }
        Ok(())
    }
}
