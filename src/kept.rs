//! Keeps what has been read of a file.

use std::io::{self, Read};

/// Keeps what has been read, so that a row can be given back as it came: quoting and all.
pub(crate) struct Kept<R> {
    file: R,
    bytes: Vec<u8>,
    /// Offset in the file of the first byte kept.
    start: u64,
}

impl<R> Kept<R> {
    pub(crate) fn new(file: R) -> Self {
        Self {
            file,
            bytes: Vec::new(),
            start: 0,
        }
    }

    /// Takes out what was read up to `end`, an offset in the file.
    pub(crate) fn take_to(&mut self, end: u64) -> Vec<u8> {
        let count = usize::try_from(end - self.start).unwrap_or(usize::MAX);
        self.start = end;
        self.bytes.drain(..count.min(self.bytes.len())).collect()
    }
}

impl<R: Read> Read for Kept<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.bytes.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

/// Blank lines before a row of CSV belong to nothing: their bytes, and how many they are. A reader
/// of CSV takes the end of the line before for one of them, if that is of two bytes.
pub(crate) fn blank_before(raw: &[u8]) -> (usize, u64) {
    let is_blank = |byte: &&u8| matches!(byte, b'\r' | b'\n');
    let bytes = raw.iter().take_while(is_blank).count();
    let lines = raw[..bytes].iter().filter(|byte| **byte == b'\n').count();
    (bytes, lines as u64)
}
