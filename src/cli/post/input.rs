//! Reads movements from a file, with the line and the bytes of each.

use std::io::{BufRead, Read};

use csv::{ByteRecord, StringRecord};

use crate::{
    cli::exit::Failure,
    domain::movement::{Invalid, TimeUs},
    kept::{Kept, blank_before},
    limits,
    proto::v1 as pb,
    wire,
};

/// Longest line of NDJSON, in bytes; a movement needs far less.
const LINE_BYTES_MAX: usize = 1 << 20;

/// No valid movement has more, encoded: the sum of all its fields' limits is far below.
const MOVEMENT_BYTES_MAX: usize = 4 << 10;

/// Form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line: the flat form, or a CloudEvent
    Ndjson,
    /// A header row, then a movement a row
    Csv,
}

impl Format {
    /// By the end of the file's name.
    pub fn of_name(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "ndjson" | "jsonl" | "json" => Some(Self::Ndjson),
            _ => None,
        }
    }
}

/// A movement, where it stands and what it looks like there.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Line on which it starts, from 1.
    pub line: u64,
    /// Its bytes, with the line's end.
    pub raw: Vec<u8>,
    /// The movement.
    pub movement: pb::Movement,
}

/// Something that is no movement.
#[derive(Debug, Clone, PartialEq)]
pub struct Reject {
    /// Line on which it starts, from 1.
    pub line: u64,
    /// Its bytes, with the line's end.
    pub raw: Vec<u8>,
    /// What is wrong with it.
    pub invalid: Invalid,
}

/// What is posted together.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// At most [`limits::BATCH_MOVEMENTS_MAX`].
    pub items: Vec<Item>,
    /// Found among them.
    pub rejects: Vec<Reject>,
    /// Progress once it is done: bytes read so far, or movements.
    pub progress: u64,
}

/// Yields the batches of a file.
pub struct Batches {
    rows: Box<dyn Rows + Send>,
    source: Option<String>,
    ended: bool,
}

/// A row as it stands in the file.
struct Row {
    line: u64,
    raw: Vec<u8>,
    movement: Result<pb::Movement, Invalid>,
}

trait Rows {
    fn next(&mut self, source: Option<&str>) -> Result<Option<Row>, Failure>;
    fn bytes_read(&self) -> u64;
    fn header(&self) -> &[u8];
}

impl Batches {
    /// Over an open file. `source` counts for movements that name none.
    ///
    /// # Errors
    /// If the file cannot be read, or a CSV file has no usable header.
    pub fn new(
        file: impl BufRead + Send + 'static,
        format: Format,
        source: Option<String>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            rows: match format {
                Format::Ndjson => Box::new(Lines {
                    file,
                    line: 0,
                    bytes_read: 0,
                }),
                Format::Csv => Box::new(CsvRows::new(file)?),
            },
            source,
            ended: false,
        })
    }

    /// What a file of rejects has to start with.
    pub fn header(&self) -> Vec<u8> {
        self.rows.header().to_vec()
    }

    fn read(&mut self) -> Result<Batch, Failure> {
        let mut batch = Batch::default();
        while batch.items.len() + batch.rejects.len() < limits::BATCH_MOVEMENTS_MAX {
            let Some(row) = self.rows.next(self.source.as_deref())? else {
                self.ended = true;
                break;
            };
            let Row {
                line,
                raw,
                movement,
            } = row;
            match movement.and_then(not_endless) {
                Ok(movement) => batch.items.push(Item {
                    line,
                    raw,
                    movement,
                }),
                Err(invalid) => batch.rejects.push(Reject { line, raw, invalid }),
            }
        }
        batch.progress = self.rows.bytes_read();
        Ok(batch)
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let batch = self.read();
        self.ended |= batch.is_err();
        match batch {
            Ok(batch) if batch.items.is_empty() && batch.rejects.is_empty() => None,
            batch => Some(batch),
        }
    }
}

/// Refuses here what would make a batch too large for the server, and its neighbours with it. The
/// other limits are the server's.
fn not_endless(movement: pb::Movement) -> Result<pb::Movement, Invalid> {
    if prost::Message::encoded_len(&movement) <= MOVEMENT_BYTES_MAX {
        return Ok(movement);
    }
    wire::movement::from_proto(&movement)?.check(TimeUs::MAX)?;
    Ok(movement)
}

fn cannot_read(error: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("cannot read the file: {error}"))
}

struct Lines<R> {
    file: R,
    line: u64,
    bytes_read: u64,
}

impl<R: BufRead> Rows for Lines<R> {
    fn next(&mut self, source: Option<&str>) -> Result<Option<Row>, Failure> {
        loop {
            let mut raw = Vec::new();
            let read = (&mut self.file)
                .take(LINE_BYTES_MAX as u64 + 1)
                .read_until(b'\n', &mut raw)
                .map_err(cannot_read)?;
            self.line += 1;
            self.bytes_read += read as u64;
            if read == 0 {
                return Ok(None);
            }
            if read > LINE_BYTES_MAX {
                return Err(Failure::usage(format!(
                    "line {} has more than {LINE_BYTES_MAX} bytes",
                    self.line
                ))
                .hint("NDJSON has one movement on each line, not an array; say --format csv if it is CSV"));
            }
            let text = raw
                .strip_prefix(b"\xef\xbb\xbf")
                .unwrap_or(&raw)
                .trim_ascii();
            if text.is_empty() {
                continue;
            }
            let movement = wire::json::line(text, source).movement;
            return Ok(Some(Row {
                line: self.line,
                raw,
                movement,
            }));
        }
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    fn header(&self) -> &[u8] {
        &[]
    }
}

struct CsvRows<R> {
    reader: csv::Reader<Kept<R>>,
    columns: wire::csv::Columns,
    header: Vec<u8>,
}

impl<R: Read> CsvRows<R> {
    fn new(file: R) -> Result<Self, Failure> {
        let kept = Kept::new(file);
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(kept);
        let mut names = StringRecord::new();
        let found = reader.read_record(&mut names).map_err(cannot_read)?;
        if !found {
            return Err(Failure::usage(
                "the file is empty; CSV starts with a header row",
            ));
        }
        let columns = wire::csv::Columns::from_header(&names)
            .map_err(|invalid| Failure::usage(format!("the {invalid}")))?;
        let end = reader.position().byte();
        let header = reader.get_mut().take_to(end);
        Ok(Self {
            reader,
            columns,
            header,
        })
    }
}

impl<R: Read> Rows for CsvRows<R> {
    fn next(&mut self, source: Option<&str>) -> Result<Option<Row>, Failure> {
        let mut record = ByteRecord::new();
        if !self
            .reader
            .read_byte_record(&mut record)
            .map_err(cannot_read)?
        {
            return Ok(None);
        }
        let end = self.reader.position().byte();
        let raw = self.reader.get_mut().take_to(end);
        let (blank, blank_lines) = blank_before(&raw);
        let line = record.position().map_or(0, csv::Position::line) + blank_lines;
        Ok(Some(Row {
            line,
            raw: raw[blank..].to_vec(),
            movement: self.columns.read(&record, source),
        }))
    }

    fn bytes_read(&self) -> u64 {
        self.reader.position().byte()
    }

    fn header(&self) -> &[u8] {
        &self.header
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    type Ids = Vec<(u64, String)>;
    type Wrong = Vec<(u64, String, String)>;

    fn read(text: &str, format: Format) -> (Ids, Wrong) {
        let batches = Batches::new(Cursor::new(text.to_owned()), format, Some("pos".to_owned()))
            .unwrap_or_else(|failure| panic!("{}", failure.to_text()));
        let (mut items, mut rejects) = (Vec::new(), Vec::new());
        for batch in batches {
            let batch = batch.unwrap_or_else(|failure| panic!("{}", failure.to_text()));
            for item in batch.items {
                assert_eq!(item.movement.source, "pos");
                items.push((item.line, item.movement.id));
            }
            for reject in batch.rejects {
                let raw = String::from_utf8(reject.raw).expect("text");
                rejects.push((reject.line, raw, reject.invalid.field));
            }
        }
        (items, rejects)
    }

    fn good(id: &str) -> String {
        format!(
            r#"{{"type":"received","id":"{id}","occurred_at":"2026-01-02T03:04:05Z","sku":"A","quantity":3,"location":"dc"}}"#
        )
    }

    #[test]
    fn lines_keep_their_numbers_and_bad_ones_their_bytes() {
        let text = format!(
            "\u{feff}{}\n\n  \n{{\"type\": 3\n{}\r\n{}",
            good("1"),
            good("2"),
            good("3")
        );
        let (items, rejects) = read(&text, Format::Ndjson);
        assert_eq!(
            items,
            [
                (1, "1".to_owned()),
                (5, "2".to_owned()),
                (6, "3".to_owned())
            ]
        );
        assert_eq!(rejects.len(), 1);
        assert_eq!((rejects[0].0, rejects[0].1.as_str()), (4, "{\"type\": 3\n"));
    }

    #[test]
    fn rows_of_csv_come_back_as_they_were() {
        let header = "id,type,occurred_at,sku,quantity,location,reference\n";
        let row = "1,received,2026-01-02T03:04:05Z,A,3,dc,\"a \"\"note\"\"\non two lines\"\n";
        let bad = "2,received,2026-01-02T03:04:05Z,\"A\",many,dc,\n";
        let short = "3,received\n";
        let last = "4,received,2026-01-02T03:04:05Z,A,3,dc,";
        let text = format!("{header}{row}\n{bad}{short}{last}");
        let (items, rejects) = read(&text, Format::Csv);
        assert_eq!(items, [(2, "1".to_owned()), (7, "4".to_owned())]);
        assert_eq!(
            rejects,
            [
                (5, bad.to_owned(), "quantity".to_owned()),
                (6, short.to_owned(), "row".to_owned())
            ]
        );
    }

    #[test]
    fn batches_are_bounded_and_say_how_far_they_are() {
        let text: String = (0..2_500).map(|n| good(&n.to_string()) + "\n").collect();
        let total = text.len() as u64;
        let batches: Vec<Batch> = Batches::new(Cursor::new(text), Format::Ndjson, None)
            .expect("opens")
            .map(|batch| batch.expect("reads"))
            .collect();
        let sizes: Vec<usize> = batches
            .iter()
            .map(|b| b.items.len() + b.rejects.len())
            .collect();
        assert_eq!(sizes, [1_000, 1_000, 500]);
        assert_eq!(batches[2].progress, total);
    }

    #[test]
    fn a_header_that_cannot_be_used_is_bad_input() {
        for text in ["", "id,sku\n"] {
            assert!(Batches::new(Cursor::new(text), Format::Csv, None).is_err());
        }
    }

    #[test]
    fn formats_go_by_the_name() {
        assert_eq!(Format::of_name("a.b.CSV"), Some(Format::Csv));
        assert_eq!(Format::of_name("movements.jsonl"), Some(Format::Ndjson));
        assert_eq!(Format::of_name("movements"), None);
    }
}
