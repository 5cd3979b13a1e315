//! How parts of the state are written into a checkpoint and read back: plain bytes, little-endian,
//! without padding. Whoever stores them adds lengths and checksums, see `crate::checkpoint`.
//!
//! Each part of the state has a pair of functions, one that puts it into an [`Output`] and one that
//! takes it from an [`Input`], next to the type they are about. Bytes that pass their checksum were
//! written by this code, so [`Broken`] tells of a bug or of another format, never of a bad disk.

/// Bytes that are being written.
#[derive(Debug, Default, Clone)]
pub struct Output {
    bytes: Vec<u8>,
}

/// Bytes that are being read.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    rest: &'a [u8],
}

/// What was read cannot have been written by this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub &'static str);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Broken {}

macro_rules! integers {
    ($($name:ident: $type:ty),+) => {
        impl Output {
            $(
                #[doc = concat!("Puts a `", stringify!($type), "`.")]
                #[inline]
                pub fn $name(&mut self, value: $type) {
                    self.bytes.extend_from_slice(&value.to_le_bytes());
                }
            )+
        }

        impl Input<'_> {
            $(
                #[doc = concat!("Takes a `", stringify!($type), "`.")]
                ///
                /// # Errors
                /// If the bytes end before.
                #[inline]
                pub fn $name(&mut self) -> Result<$type, Broken> {
                    let (bytes, rest) = self.rest.split_first_chunk().ok_or(TOO_SHORT)?;
                    self.rest = rest;
                    Ok(<$type>::from_le_bytes(*bytes))
                }
            )+
        }
    };
}

integers!(u8: u8, u16: u16, u32: u32, u64: u64, i32: i32, i64: i64, u128: u128);

const TOO_SHORT: Broken = Broken("it ends too early");

impl Output {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a number of things, which follow.
    ///
    /// # Panics
    /// If there are 2^32 or more.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("fewer than 2^32 of anything in one place"));
    }

    /// Puts `true` or `false`.
    pub fn flag(&mut self, flag: bool) {
        self.u8(u8::from(flag));
    }

    /// Puts bytes without their length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Puts bytes with their length.
    ///
    /// # Panics
    /// If there are 4 GiB or more.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Puts a text with its length.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Puts what may be missing.
    pub fn option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            put(self, value);
        }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True if nothing was put.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes the bytes out, and leaves it empty with room for as many: more will follow, and need not
    /// be moved while it grows.
    pub fn take_part(&mut self) -> Vec<u8> {
        let room = Vec::with_capacity(self.bytes.len() + self.bytes.len() / 8);
        std::mem::replace(&mut self.bytes, room)
    }

    /// Takes the bytes out and leaves it empty.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

impl<'a> Input<'a> {
    /// Reads these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// True once everything was taken.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes a number of things, which follow. Not to be trusted with memory: each of them takes a
    /// byte at least, so there cannot be more than bytes are left.
    ///
    /// # Errors
    /// If the bytes end before, or are fewer than that.
    pub fn count(&mut self) -> Result<usize, Broken> {
        let count = self.u32()? as usize;
        if count > self.rest.len() {
            return Err(TOO_SHORT);
        }
        Ok(count)
    }

    /// Takes `true` or `false`.
    ///
    /// # Errors
    /// If it is neither.
    pub fn flag(&mut self) -> Result<bool, Broken> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Broken("it has a flag that is neither set nor not")),
        }
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// If there are fewer.
    #[inline]
    pub fn exactly(&mut self, len: usize) -> Result<&'a [u8], Broken> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(TOO_SHORT)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Takes bytes with their length.
    ///
    /// # Errors
    /// If the bytes end before.
    pub fn bytes(&mut self) -> Result<&'a [u8], Broken> {
        let len = self.count()?;
        self.exactly(len)
    }

    /// Takes a text with its length.
    ///
    /// # Errors
    /// If the bytes end before, or are no text.
    pub fn text(&mut self) -> Result<&'a str, Broken> {
        text_of(self.bytes()?)
    }

    /// Takes what may be missing.
    ///
    /// # Errors
    /// As `take`.
    pub fn option<T>(
        &mut self,
        take: impl FnOnce(&mut Self) -> Result<T, Broken>,
    ) -> Result<Option<T>, Broken> {
        Ok(match self.flag()? {
            true => Some(take(self)?),
            false => None,
        })
    }
}

/// Bytes as text.
///
/// # Errors
/// If they are none.
#[inline]
pub fn text_of(bytes: &[u8]) -> Result<&str, Broken> {
    std::str::from_utf8(bytes).map_err(|_| Broken("it has a text that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_taken_in_the_same_order() {
        let mut output = Output::new();
        output.u8(1);
        output.i64(-2);
        output.text("tee-red-M");
        output.option(None::<u32>, Output::u32);
        output.option(Some(7), Output::u32);
        output.flag(true);
        output.u128(u128::MAX - 1);
        let bytes = output.into_bytes();
        let mut input = Input::new(&bytes);
        assert_eq!(input.u8(), Ok(1));
        assert_eq!(input.i64(), Ok(-2));
        assert_eq!(input.text(), Ok("tee-red-M"));
        assert_eq!(input.option(Input::u32), Ok(None));
        assert_eq!(input.option(Input::u32), Ok(Some(7)));
        assert_eq!(input.flag(), Ok(true));
        assert_eq!(input.u128(), Ok(u128::MAX - 1));
        assert!(input.is_empty());
        assert_eq!(input.u8(), Err(TOO_SHORT));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(Input::new(&[2]).flag().is_err());
        assert!(Input::new(&[2, 0, 0, 0, 0xff, 0xff]).text().is_err());
        // A length that nothing follows must not cost memory.
        assert!(Input::new(&[0xff; 4]).bytes().is_err());
    }
}
