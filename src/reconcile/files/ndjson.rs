//! Snapshots in NDJSON.

use std::io::{BufRead, Read};

use super::{FileError, Row, Rows, numbered};
use crate::wire::snapshot::json_line;

/// Longest line, in bytes; a cell needs far less.
const LINE_BYTES_MAX: usize = 1 << 20;

pub(super) struct Lines<R> {
    file: R,
    line: u64,
    bytes_read: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(file: R) -> Self {
        Self {
            file,
            line: 0,
            bytes_read: 0,
            buffer: Vec::new(),
        }
    }
}

impl<R: BufRead + Send> Rows for Lines<R> {
    fn next_row(&mut self) -> Result<Option<Row>, FileError> {
        loop {
            self.buffer.clear();
            let read = (&mut self.file)
                .take(LINE_BYTES_MAX as u64 + 1)
                .read_until(b'\n', &mut self.buffer)
                .map_err(FileError::cannot_read)?;
            self.line += 1;
            self.bytes_read += read as u64;
            if read == 0 {
                return Ok(None);
            }
            if read > LINE_BYTES_MAX {
                return Err(FileError(format!(
                    "line {} has more than {LINE_BYTES_MAX} bytes; NDJSON has one cell on each \
                     line, not an array",
                    self.line
                )));
            }
            let text = self
                .buffer
                .strip_prefix(b"\xef\xbb\xbf")
                .unwrap_or(&self.buffer)
                .trim_ascii();
            if !text.is_empty() {
                return Ok(Some(numbered(self.line, json_line(text))));
            }
        }
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read
    }
}
