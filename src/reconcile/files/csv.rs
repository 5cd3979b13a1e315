//! Snapshots in CSV.

use std::io::Read;

use csv::{ByteRecord, Reader, StringRecord};

use super::{FileError, Row, Rows, numbered};
use crate::{
    kept::{Kept, blank_before},
    wire::snapshot::Columns,
};

pub(super) struct CsvRows<R> {
    reader: Reader<Kept<R>>,
    columns: Columns,
    record: ByteRecord,
}

impl<R: Read> CsvRows<R> {
    pub(super) fn new(file: R) -> Result<Self, FileError> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(Kept::new(file));
        let mut header = StringRecord::new();
        let found = reader
            .read_record(&mut header)
            .map_err(FileError::cannot_read)?;
        if !found {
            let empty = "the file is empty; CSV starts with a header row";
            return Err(FileError(empty.to_owned()));
        }
        let end = reader.position().byte();
        reader.get_mut().take_to(end);
        let columns = Columns::from_header(&header);
        Ok(Self {
            reader,
            columns: columns.map_err(|invalid| FileError(format!("the {invalid}")))?,
            record: ByteRecord::new(),
        })
    }
}

impl<R: Read + Send> Rows for CsvRows<R> {
    fn next_row(&mut self) -> Result<Option<Row>, FileError> {
        let more = self
            .reader
            .read_byte_record(&mut self.record)
            .map_err(FileError::cannot_read)?;
        if !more {
            return Ok(None);
        }
        let end = self.reader.position().byte();
        let (_, blank) = blank_before(&self.reader.get_mut().take_to(end));
        let line = self.record.position().map_or(0, csv::Position::line) + blank;
        Ok(Some(numbered(line, self.columns.read(&self.record))))
    }

    fn bytes_read(&self) -> u64 {
        self.reader.position().byte()
    }
}
