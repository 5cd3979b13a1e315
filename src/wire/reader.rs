//! The wire format of protobuf, read from a slice.
//!
//! Not prost's own primitives: they are documented as internal to prost, say no offset, and keep
//! their depth of nesting where no other crate can count it, so that groups could not be refused
//! where prost refuses them.

use super::Malformed;

/// How deep prost lets messages and groups nest, counted down from the outermost message.
pub(super) const DEPTH: u32 = 100;

/// Wire types, the low three bits of a key.
pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const DELIMITED: u32 = 2;
const GROUP_START: u32 = 3;
const GROUP_END: u32 = 4;
const FIXED32: u32 = 5;

/// The key of a field: its number and its wire type.
pub(super) const fn key(field: u32, wire_type: u32) -> u32 {
    (field << 3) | wire_type
}

/// What broke, small enough to be returned from every step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken {
    offset: usize,
    reason: &'static str,
}

impl From<Broken> for Malformed {
    fn from(broken: Broken) -> Self {
        Malformed::at(broken.offset, broken.reason)
    }
}

/// Reads a message. The reader of a nested message holds its parent's bytes up to the nested
/// one's end, so that offsets stay those of the whole.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Where it reads next, in the whole.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    /// What is not read yet.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    #[cold]
    pub(super) fn broken(&self, reason: &'static str) -> Broken {
        Broken {
            offset: self.at,
            reason,
        }
    }

    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, Broken> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0;
        for (index, byte) in self.rest().iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                // The tenth byte has room for one bit.
                if index == 9 && *byte > 1 {
                    return Err(self.broken("has a number of more than 64 bits"));
                }
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(self.broken(if self.rest().len() < 10 {
            "ends within a number"
        } else {
            "has a number of more than 64 bits"
        }))
    }

    #[inline(always)]
    pub(super) fn key(&mut self) -> Result<u32, Broken> {
        let start = self.at;
        let raw = self.varint()?;
        match u32::try_from(raw) {
            Ok(key) if key >> 3 != 0 && key & 7 <= FIXED32 => Ok(key),
            _ => {
                self.at = start;
                Err(self.broken("has a key that is no field number and wire type"))
            }
        }
    }

    /// A length, and that many bytes.
    #[inline(always)]
    pub(super) fn delimited(&mut self) -> Result<&'a [u8], Broken> {
        let end = self.end_of_delimited()?;
        let start = std::mem::replace(&mut self.at, end);
        Ok(&self.bytes[start..end])
    }

    /// A length, and a message of that many bytes.
    #[inline(always)]
    pub(super) fn nested(&mut self) -> Result<Reader<'a>, Broken> {
        let end = self.end_of_delimited()?;
        let at = std::mem::replace(&mut self.at, end);
        Ok(Reader {
            bytes: &self.bytes[..end],
            at,
        })
    }

    #[inline(always)]
    fn end_of_delimited(&mut self) -> Result<usize, Broken> {
        let len = self.varint()?;
        if len > (self.bytes.len() - self.at) as u64 {
            return Err(self.broken("has a length that reaches past the end"));
        }
        Ok(self.at + len as usize)
    }

    pub(super) fn fixed64(&mut self) -> Result<u64, Broken> {
        match self.rest().first_chunk::<8>() {
            Some(bytes) => {
                self.at += 8;
                Ok(u64::from_le_bytes(*bytes))
            }
            None => Err(self.broken("ends within a number")),
        }
    }

    /// Skips a field whose number is unknown, within a message that may nest `depth` deep.
    #[cold]
    pub(super) fn skip(&mut self, key: u32, depth: u32) -> Result<(), Broken> {
        if depth == 0 {
            return Err(self.broken("is nested too deep"));
        }
        match key & 7 {
            VARINT => self.varint().map(drop),
            FIXED64 => self.advance(8),
            DELIMITED => self.delimited().map(drop),
            GROUP_START => loop {
                let inner = self.key()?;
                if inner & 7 != GROUP_END {
                    self.skip(inner, depth - 1)?;
                } else if inner >> 3 == key >> 3 {
                    return Ok(());
                } else {
                    return Err(self.broken("ends a group that it did not start"));
                }
            },
            GROUP_END => Err(self.broken("ends a group that it did not start")),
            _ => self.advance(4),
        }
    }

    fn advance(&mut self, bytes: usize) -> Result<(), Broken> {
        if self.rest().len() < bytes {
            return Err(self.broken("ends within a number"));
        }
        self.at += bytes;
        Ok(())
    }

    #[cold]
    pub(super) fn wrong_wire_type(&self) -> Broken {
        self.broken("has a field with another wire type than the contract's")
    }
}
