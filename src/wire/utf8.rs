//! Text from bytes.

/// Like [`std::str::from_utf8`], but quicker for what ids, SKUs and locations nearly always are:
/// short, and ASCII. It takes a third off the time to decode a movement (`benches/decode.rs`).
#[inline(always)]
pub(super) fn from_utf8(bytes: &[u8]) -> Option<&str> {
    if is_ascii(bytes) {
        // SAFETY: ASCII is UTF-8, and `is_ascii` has looked at every byte.
        return Some(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    std::str::from_utf8(bytes).ok()
}

/// Eight bytes at once, or four. The last step overlaps the one before it, so no byte is left.
#[inline(always)]
fn is_ascii(bytes: &[u8]) -> bool {
    let seen = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            let mut seen = u64::from_ne_bytes(*first) | u64::from_ne_bytes(*last);
            let mut rest = &bytes[8..];
            while let Some((chunk, after)) = rest.split_first_chunk::<8>() {
                seen |= u64::from_ne_bytes(*chunk);
                rest = after;
            }
            seen
        }
        _ => match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            (Some(first), Some(last)) => {
                u64::from(u32::from_ne_bytes(*first) | u32::from_ne_bytes(*last))
            }
            _ => u64::from(bytes.iter().fold(0, |seen, byte| seen | byte)),
        },
    };
    seen & 0x8080_8080_8080_8080 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_every_byte_at_every_length() {
        for len in 0..70 {
            let mut bytes = vec![b'a'; len];
            assert_eq!(from_utf8(&bytes), std::str::from_utf8(&bytes).ok());
            assert!(is_ascii(&bytes));
            for at in 0..len {
                for byte in [0x80, 0xff, 0xc3, 0x7f, 0] {
                    bytes[at] = byte;
                    assert_eq!(is_ascii(&bytes), byte < 0x80, "{len} {at}");
                    assert_eq!(from_utf8(&bytes), std::str::from_utf8(&bytes).ok());
                }
                bytes[at] = b'a';
            }
        }
        assert_eq!(from_utf8("aü€😀".as_bytes()), Some("aü€😀"));
    }
}
