//! A message that is encoded already.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType},
};

/// The bytes of a message, for servers that have made them: once for many receivers, or without a
/// message that owns all its parts; or that read them where they lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded(pub Bytes);

impl Message for Encoded {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    /// Takes all bytes as they are; those of several messages, one behind the other, are those of
    /// one that is merged.
    fn merge(&mut self, mut buf: impl Buf) -> Result<(), DecodeError> {
        let bytes = buf.copy_to_bytes(buf.remaining());
        self.0 = match self.0.is_empty() {
            true => bytes,
            false => [&self.0[..], &bytes].concat().into(),
        };
        Ok(())
    }

    /// A field alone has no bytes here that could be kept; servers always take the whole.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buf, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}
