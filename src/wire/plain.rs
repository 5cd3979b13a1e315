//! Messages that are read where their bytes lie, and written item by item: each string that is
//! allocated and freed for a call costs as much as looking up, or deciding, what it asks.
//!
//! Only a plain message is read so: known fields alone, each at most once but for those that repeat,
//! and texts that are UTF-8. That is what clients send. Any other is prost's to read, or to refuse.

use bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::{
    reader::{Broken, Reader},
    record::framed_bytes,
    utf8::from_utf8,
};

/// A field was met before, is unknown, or is not what it should be.
pub(super) struct NotPlain;

/// Fields of a message that were met already.
#[derive(Default)]
pub(super) struct Met(u32);

impl Met {
    pub(super) fn once(&mut self, key: u32) -> Result<(), NotPlain> {
        let bit = 1u32.checked_shl(key >> 3).unwrap_or(0);
        if bit == 0 || self.0 & bit != 0 {
            return Err(NotPlain);
        }
        self.0 |= bit;
        Ok(())
    }
}

impl From<Broken> for NotPlain {
    fn from(_: Broken) -> Self {
        Self
    }
}

#[inline]
pub(super) fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, NotPlain> {
    from_utf8(reader.delimited()?).ok_or(NotPlain)
}

// All fields here have numbers below 16, and so keys of one byte.

#[inline]
pub(super) fn text_len(text: &str) -> usize {
    if text.is_empty() {
        0
    } else {
        framed_bytes(text.len())
    }
}

#[inline]
pub(super) fn int64_len(value: i64) -> usize {
    if value == 0 {
        0
    } else {
        1 + encoded_len_varint(value as u64)
    }
}

#[inline]
pub(super) fn put_text(field: u32, text: &str, to: &mut Vec<u8>) {
    if !text.is_empty() {
        encode_key(field, WireType::LengthDelimited, to);
        encode_varint(text.len() as u64, to);
        to.put_slice(text.as_bytes());
    }
}

#[inline]
pub(super) fn put_int64(field: u32, value: i64, to: &mut Vec<u8>) {
    if value != 0 {
        encode_key(field, WireType::Varint, to);
        encode_varint(value as u64, to);
    }
}

#[cfg(test)]
pub(super) mod spoiled {
    //! Bytes that may be no plain message any more, or none.

    use proptest::{collection::vec, prelude::*, sample::Index};

    /// Those of a message; perhaps twice, with a tail, and with other bytes at some places.
    pub(in super::super) fn spoiled(
        message: impl Strategy<Value = Vec<u8>>,
    ) -> impl Strategy<Value = Vec<u8>> {
        let changes = vec((any::<Index>(), any::<u8>()), 0..3);
        let tail = vec(any::<u8>(), 0..4);
        let all = (message, changes, any::<bool>(), tail);
        all.prop_map(|(mut bytes, changes, twice, tail)| {
            if twice {
                bytes.extend(bytes.clone());
            }
            bytes.extend(tail);
            if !bytes.is_empty() {
                for (at, byte) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            bytes
        })
    }
}
