//! Files of snapshots: lines with their numbers, whatever the format.

mod csv;
mod ndjson;
mod parquet;

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
};

use crate::{domain::movement::Invalid, limits::SNAPSHOT_COPY_BYTES_MAX, proto::v1 as pb};

/// Form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A header row (sku, location, good, quarantined, damaged, return_pending), then a cell a row
    Csv,
    /// One JSON object a line, with the same names
    Ndjson,
    /// Columns of the same names: sku and location are texts, the others INT32 or INT64
    Parquet,
}

impl Format {
    /// By the end of the file's name.
    pub fn of_name(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "ndjson" | "jsonl" | "json" => Some(Self::Ndjson),
            "parquet" | "pq" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Why a file cannot be read any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FileError(pub String);

impl FileError {
    fn cannot_read(error: impl std::fmt::Display) -> Self {
        Self(format!("cannot read the file: {error}"))
    }

    /// More than may be copied.
    pub(super) fn too_large(bytes_max: u64) -> Self {
        Self(format!(
            "the file has more than {bytes_max} bytes, so it is not copied to be read; name it to \
             `sellable reconcile`, which reads it where it is"
        ))
    }
}

/// A line, or why it is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its number in the file, from 1; in Parquet, that of the row.
    pub line: u64,
    /// What it states, with its number.
    pub read: Result<pb::SnapshotLine, Invalid>,
}

/// The lines of a file, one after the other. It ends with its first error.
pub trait Rows: Send {
    /// The next line; `None`: there are no more.
    ///
    /// # Errors
    /// If the file cannot be read any further.
    fn next_row(&mut self) -> Result<Option<Row>, FileError>;

    /// Bytes read so far, more or less.
    fn bytes_read(&self) -> u64;
}

/// Opens a file of a disk.
///
/// # Errors
/// If it cannot be read, or has no usable header or schema.
pub fn open_file(file: File, format: Format) -> Result<Box<dyn Rows>, FileError> {
    let metadata = file.metadata().map_err(FileError::cannot_read)?;
    match format {
        Format::Parquet if metadata.is_file() => Ok(Box::new(parquet::ParquetRows::new(file)?)),
        _ => open(file, format),
    }
}

/// Opens what can be read only once, from its beginning. Parquet begins at its end, so it is copied
/// first.
///
/// # Errors
/// If it cannot be read, or has no usable header or schema.
pub fn open(file: impl Read + Send + 'static, format: Format) -> Result<Box<dyn Rows>, FileError> {
    let file = BufReader::with_capacity(1 << 16, file);
    Ok(match format {
        Format::Csv => Box::new(csv::CsvRows::new(file)?),
        Format::Ndjson => Box::new(ndjson::Lines::new(file)),
        Format::Parquet => {
            let copy = copied(file, SNAPSHOT_COPY_BYTES_MAX)?;
            Box::new(parquet::ParquetRows::new(copy)?)
        }
    })
}

/// Copies into a file that is gone once it is closed.
fn copied(file: impl Read, bytes_max: u64) -> Result<File, FileError> {
    let copy = || -> io::Result<(File, u64)> {
        let mut copy = tempfile::tempfile()?;
        let bytes = io::copy(&mut file.take(bytes_max + 1), &mut copy)?;
        copy.rewind()?;
        Ok((copy, bytes))
    };
    let (copy, bytes) =
        copy().map_err(|error| FileError(format!("cannot copy the file: {error}")))?;
    if bytes > bytes_max {
        return Err(FileError::too_large(bytes_max));
    }
    Ok(copy)
}

/// Adds its number to a line.
fn numbered(line: u64, read: Result<pb::SnapshotLine, Invalid>) -> Row {
    let with_number = |read| pb::SnapshotLine { line, ..read };
    Row {
        line,
        read: read.map(with_number),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn read(text: &str, format: Format) -> Vec<(u64, Result<i64, String>)> {
        let mut rows = open(Cursor::new(text.to_owned()), format).expect("opens");
        let mut found = Vec::new();
        while let Some(row) = rows.next_row().expect("reads") {
            let read = row.read.map(|line| {
                assert_eq!(line.line, row.line);
                line.good.expect("good is stated")
            });
            found.push((row.line, read.map_err(|invalid| invalid.field)));
        }
        assert_eq!(rows.bytes_read(), text.len() as u64);
        found
    }

    #[test]
    fn lines_keep_their_numbers_and_bad_ones_do_not_hold_up_the_others() {
        let csv = "\u{feff}sku,location,good\nA,dc,1\n\n\"B\nb\",dc,2\nC,dc\nD,dc,x\r\nE,dc,5";
        assert_eq!(
            read(csv, Format::Csv),
            [
                (2, Ok(1)),
                (4, Err("sku".to_owned())),
                (6, Err("row".to_owned())),
                (7, Err("good".to_owned())),
                (8, Ok(5)),
            ]
        );
        let ndjson = "\u{feff}{\"sku\":\"A\",\"location\":\"dc\",\"good\":1}\n\n{\r\n \
                      {\"sku\":\"A\",\"location\":\"dc\",\"good\":2}";
        assert_eq!(
            read(ndjson, Format::Ndjson),
            [(1, Ok(1)), (3, Err("json".to_owned())), (4, Ok(2))]
        );
    }

    #[test]
    fn a_file_that_is_none_says_so() {
        for text in ["", "sku,good\nA,1\n"] {
            let opened = open(Cursor::new(text), Format::Csv);
            let error = opened.err().expect("no snapshot").to_string();
            assert!(error.contains("header"), "{error}");
        }
        let endless = "[".repeat(2 << 20);
        let mut rows = open(Cursor::new(endless), Format::Ndjson).expect("opens");
        let error = rows.next_row().expect_err("endless").to_string();
        assert!(error.contains("line 1 has more than"), "{error}");
        assert_eq!(Format::of_name("stock.2024.CSV"), Some(Format::Csv));
        assert_eq!(Format::of_name("stock.parquet"), Some(Format::Parquet));
        assert_eq!(Format::of_name("stock"), None);
    }

    #[test]
    fn what_is_copied_is_limited() {
        let mut read = String::new();
        let mut copy = copied(&b"12345"[..], 5).expect("fits");
        copy.read_to_string(&mut read).expect("reads");
        assert_eq!(read, "12345");
        let error = copied(&b"123456"[..], 5).expect_err("too large");
        assert!(error.0.contains("more than 5 bytes"), "{error}");
    }
}
