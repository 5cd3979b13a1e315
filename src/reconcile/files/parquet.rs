//! Snapshots in Parquet: its columns are read in batches, side by side.

use std::{
    fs::File,
    io::BufReader,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use parquet::{
    basic::{Compression, ConvertedType, LogicalType, Type as Physical},
    column::reader::{ColumnReaderImpl, get_typed_column_reader},
    data_type::{ByteArrayType, DataType, Int32Type, Int64Type},
    errors::{ParquetError, Result as Parsed},
    file::{
        metadata::ParquetMetaData,
        reader::{ChunkReader, FileReader, Length, RowGroupReader},
        serialized_reader::SerializedFileReader,
    },
    schema::types::{ColumnDescriptor, SchemaDescriptor},
};

use super::{FileError, Row, Rows, numbered};
use crate::{
    domain::movement::Invalid,
    proto::v1 as pb,
    wire::snapshot::{COLUMNS, check, places, too_many},
};

/// Rows of each column that are decoded at once.
const BATCH_ROWS: usize = 4_096;

/// The rows of a file.
pub(super) struct ParquetRows {
    file: SerializedFileReader<Source>,
    cells: Cells,
    /// Row groups that were begun.
    groups: usize,
    /// Rows of the last of them that are not decoded yet.
    left: usize,
    /// Rows that are decoded and not yet handed out.
    decoded: usize,
    /// Rows handed out.
    row: u64,
    rows: u64,
    bytes: u64,
}

impl ParquetRows {
    /// Reads what the file says about itself, which is at its end.
    pub(super) fn new(file: File) -> Result<Self, FileError> {
        let bytes = file.metadata().map_err(FileError::cannot_read)?.len();
        guarded(|| {
            let source = Source { file, bytes };
            let file = SerializedFileReader::new(source).map_err(|error| {
                let reason = reason(&error);
                FileError(format!(
                    "the file is no whole one of Parquet: {reason}; it may have been cut off, or is still \
                     being written"
                ))
            })?;
            let metadata = file.metadata();
            let cells = Cells::of(metadata.file_metadata().schema_descr())?;
            can_be_decompressed(metadata)?;
            let rows = metadata.row_groups().iter().map(|group| group.num_rows());
            let (rows, said) = (
                rows.fold(0, i64::saturating_add),
                metadata.file_metadata().num_rows(),
            );
            let rows = u64::try_from(rows).ok().filter(|_| rows == said);
            let rows = rows.ok_or_else(|| {
                FileError(format!(
                    "the file is damaged: its row groups do not have the {said} rows it says it has"
                ))
            })?;
            Ok(Self {
                file,
                cells,
                groups: 0,
                left: 0,
                decoded: 0,
                row: 0,
                rows,
                bytes,
            })
        })
    }

    /// Decodes the next rows; whether there are any.
    fn decode(&mut self) -> Result<bool, FileError> {
        let (first, groups) = (self.row + 1, self.file.num_row_groups());
        while self.left == 0 {
            for part in self.cells.parts() {
                // More values than rows: which of them belong to a row cannot be told.
                let more = part.decode(1).map_err(|error| at(part, first, &error))?;
                if more > 0 {
                    return Err(damaged(part, format!("goes on after row {}", first - 1)));
                }
            }
            if self.groups == groups {
                return Ok(false);
            }
            let group = self.file.get_row_group(self.groups);
            let group = group.map_err(FileError::cannot_read)?;
            let rows = group.metadata().num_rows();
            self.left = usize::try_from(rows).map_err(|_| {
                FileError(format!(
                    "the file is damaged: a row group says it has {rows} rows"
                ))
            })?;
            for part in self.cells.parts() {
                part.begin(&*group)
                    .map_err(|error| at(part, first, &error))?;
            }
            self.groups += 1;
        }
        let wanted = self.left.min(BATCH_ROWS);
        for part in self.cells.parts() {
            let found = part
                .decode(wanted)
                .map_err(|error| at(part, first, &error))?;
            if found != wanted {
                let last = self.row + found as u64;
                return Err(damaged(part, format!("ends with row {last}")));
            }
        }
        self.left -= wanted;
        self.decoded = wanted;
        Ok(true)
    }
}

impl Rows for ParquetRows {
    fn next_row(&mut self) -> Result<Option<Row>, FileError> {
        if self.decoded == 0 && !guarded(|| self.decode())? {
            return Ok(None);
        }
        self.decoded -= 1;
        self.row += 1;
        Ok(Some(numbered(self.row, self.cells.next_line())))
    }

    /// Columns are read in turn, so the share of the rows tells more than what was read.
    fn bytes_read(&self) -> u64 {
        let share = u128::from(self.bytes) * u128::from(self.row);
        let read = share.checked_div(self.rows.into());
        read.and_then(|read| u64::try_from(read).ok())
            .unwrap_or(self.bytes)
    }
}

/// The library panics about some damaged files. Whoever waits for rows must not take that for the
/// end of the file: all that follows would be missing from the snapshot.
fn guarded<T>(read: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let reason = "the file is damaged, or of a kind of Parquet that is not known here";
        Err(FileError(reason.to_owned()))
    })
}

/// Why, without the words that say only that it is about Parquet.
fn reason(error: &ParquetError) -> String {
    match error {
        ParquetError::General(reason) | ParquetError::NYI(reason) | ParquetError::EOF(reason) => {
            reason.trim_end_matches('.').to_owned()
        }
        ParquetError::External(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn at(part: &dyn Part, row: u64, error: &ParquetError) -> FileError {
    let (name, reason) = (part.name(), reason(error));
    FileError(format!(
        "cannot read column `{name}` from row {row} on: {reason}"
    ))
}

fn damaged(part: &dyn Part, what: impl std::fmt::Display) -> FileError {
    let name = part.name();
    FileError(format!(
        "the file is damaged: column `{name}` {what}, unlike its row group"
    ))
}

/// A file that is read here and there.
struct Source {
    file: File,
    bytes: u64,
}

impl Source {
    fn has(&self, start: u64, length: u64) -> Parsed<()> {
        match start.checked_add(length) {
            Some(end) if end <= self.bytes => Ok(()),
            _ => Err(ParquetError::EOF(format!(
                "{length} bytes are said to be at {start}, and the file has {}",
                self.bytes
            ))),
        }
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Source {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> Parsed<Self::T> {
        self.has(start, 0)?;
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Parsed<Bytes> {
        // Before memory is taken for them.
        self.has(start, length as u64)?;
        self.file.get_bytes(start, length)
    }
}

/// The columns of a snapshot that a file has.
struct Cells {
    sku: Column<ByteArrayType>,
    location: Column<ByteArrayType>,
    /// In the order of the conditions.
    units: [Option<Units>; 4],
}

impl Cells {
    fn of(schema: &SchemaDescriptor) -> Result<Self, FileError> {
        let fields = schema.root_schema().get_fields();
        let names = fields.iter().map(|field| field.name());
        let places =
            places("schema", names).map_err(|invalid| FileError(format!("the {invalid}")))?;
        // A column that is there has one leaf; a group may have more, or none.
        let leaf = |column: usize| -> Result<Option<(usize, &ColumnDescriptor)>, FileError> {
            let Some(place) = places[column] else {
                return Ok(None);
            };
            let mut leaves = 0..schema.num_columns();
            let leaf = leaves.find(|leaf| schema.get_column_root_idx(*leaf) == place);
            let leaf = leaf.map(|leaf| (leaf, schema.columns()[leaf].as_ref()));
            match leaf {
                Some((_, column))
                    if fields[place].is_primitive() && column.max_rep_level() == 0 =>
                {
                    Ok(leaf)
                }
                _ => Err(FileError(format!(
                    "column `{}` is a group or a list; one value for each row",
                    COLUMNS[column]
                ))),
            }
        };
        let text = |column: usize| -> Result<Column<ByteArrayType>, FileError> {
            let (leaf, about) = leaf(column)?.expect("the schema was looked at");
            match is_text(about) {
                true => Ok(Column::new(COLUMNS[column], leaf, about)),
                false => Err(wrong_type(column, about, "a text (BYTE_ARRAY of STRING)")),
            }
        };
        let units = |column: usize| -> Result<Option<Units>, FileError> {
            let Some((leaf, about)) = leaf(column)? else {
                return Ok(None);
            };
            let units = Units::of(COLUMNS[column], leaf, about);
            let wanted = "a whole number of units (INT32 or INT64)";
            let units = units.ok_or_else(|| wrong_type(column, about, wanted));
            units.map(Some)
        };
        Ok(Self {
            sku: text(0)?,
            location: text(1)?,
            units: [units(2)?, units(3)?, units(4)?, units(5)?],
        })
    }

    fn parts(&mut self) -> impl Iterator<Item = &mut dyn Part> {
        let texts: [&mut dyn Part; 2] = [&mut self.sku, &mut self.location];
        let units = self.units.iter_mut().flatten();
        texts.into_iter().chain(units.map(Units::part))
    }

    /// The next line; every column moves on, whatever is wrong with another.
    fn next_line(&mut self) -> Result<pb::SnapshotLine, Invalid> {
        let (sku, location) = (self.sku.next_text(), self.location.next_text());
        let [good, quarantined, damaged, return_pending] = self
            .units
            .each_mut()
            .map(|units| units.as_mut().map_or(Ok(None), Units::next));
        let line = pb::SnapshotLine {
            sku: sku?,
            location: location?,
            good: good?,
            quarantined: quarantined?,
            damaged: damaged?,
            return_pending: return_pending?,
            line: 0,
        };
        check(&line)?;
        Ok(line)
    }
}

/// Before half of the file is compared in vain.
fn can_be_decompressed(metadata: &ParquetMetaData) -> Result<(), FileError> {
    let chunks = metadata.row_groups().iter().flat_map(|own| own.columns());
    for chunk in chunks {
        let name = match chunk.compression() {
            Compression::BROTLI(_) => "BROTLI",
            Compression::LZO => "LZO",
            _ => continue,
        };
        return Err(FileError(format!(
            "column `{}` is compressed with {name}; use ZSTD, SNAPPY, GZIP, LZ4_RAW or none",
            chunk.column_descr().name()
        )));
    }
    Ok(())
}

fn wrong_type(column: usize, about: &ColumnDescriptor, wanted: &str) -> FileError {
    let physical = about.physical_type();
    let meant = match (about.logical_type_ref(), about.converted_type()) {
        (Some(LogicalType::Timestamp(_)), _) => " (TIMESTAMP)".to_owned(),
        (Some(LogicalType::Time(_)), _) => " (TIME)".to_owned(),
        (_, ConvertedType::NONE) => String::new(),
        (_, ConvertedType::DECIMAL) => format!(" (DECIMAL of scale {})", about.type_scale()),
        (_, converted) => format!(" ({converted})"),
    };
    let name = COLUMNS[column];
    FileError(format!("column `{name}` is {physical}{meant}; {wanted}"))
}

/// Older writers do not say that bytes are a text; whether they are is looked at anyway.
fn is_text(about: &ColumnDescriptor) -> bool {
    let meant = match about.logical_type_ref() {
        None => matches!(
            about.converted_type(),
            ConvertedType::NONE | ConvertedType::UTF8 | ConvertedType::ENUM
        ),
        Some(logical) => matches!(
            logical,
            LogicalType::String | LogicalType::Enum | LogicalType::Unknown
        ),
    };
    meant && about.physical_type() == Physical::BYTE_ARRAY
}

/// A column of units.
enum Units {
    I32(Column<Int32Type>),
    U32(Column<Int32Type>),
    I64(Column<Int64Type>),
    U64(Column<Int64Type>),
}

impl Units {
    /// `None`: it is not of whole numbers.
    fn of(name: &'static str, leaf: usize, about: &ColumnDescriptor) -> Option<Self> {
        use ConvertedType as Converted;
        let signed = match (about.logical_type_ref(), about.converted_type()) {
            (Some(LogicalType::Integer(integer)), _) => integer.is_signed,
            // Databases have whole numbers as decimals without places, too.
            (Some(LogicalType::Decimal(decimal)), _) if decimal.scale == 0 => true,
            // A column without any value.
            (Some(LogicalType::Unknown), _) => true,
            (Some(_), _) => return None,
            (None, Converted::DECIMAL) if about.type_scale() <= 0 => true,
            (
                None,
                Converted::NONE
                | Converted::INT_8
                | Converted::INT_16
                | Converted::INT_32
                | Converted::INT_64,
            ) => true,
            (
                None,
                Converted::UINT_8 | Converted::UINT_16 | Converted::UINT_32 | Converted::UINT_64,
            ) => false,
            (None, _) => return None,
        };
        Some(match (about.physical_type(), signed) {
            (Physical::INT32, true) => Self::I32(Column::new(name, leaf, about)),
            (Physical::INT32, false) => Self::U32(Column::new(name, leaf, about)),
            (Physical::INT64, true) => Self::I64(Column::new(name, leaf, about)),
            (Physical::INT64, false) => Self::U64(Column::new(name, leaf, about)),
            _ => return None,
        })
    }

    fn part(&mut self) -> &mut dyn Part {
        match self {
            Self::I32(column) | Self::U32(column) => column,
            Self::I64(column) | Self::U64(column) => column,
        }
    }

    fn next(&mut self) -> Result<Option<i64>, Invalid> {
        Ok(match self {
            Self::I32(column) => column.next().copied().map(i64::from),
            Self::U32(column) => {
                let units = column.next().copied();
                units.map(|units| units.cast_unsigned().into())
            }
            Self::I64(column) => column.next().copied(),
            Self::U64(column) => match column.next().copied().map(i64::cast_unsigned) {
                None => None,
                Some(units) => {
                    let fits = i64::try_from(units);
                    Some(fits.map_err(|_| too_many(column.name, units))?)
                }
            },
        })
    }
}

/// What all columns have in common while they are read.
trait Part {
    fn name(&self) -> &'static str;

    /// Begins with a row group.
    fn begin(&mut self, group: &dyn RowGroupReader) -> Parsed<()>;

    /// Decodes so many rows, instead of those before; how many there are.
    fn decode(&mut self, rows: usize) -> Parsed<usize>;
}

/// A column, and its rows that are decoded. Its buffers are used again and again.
struct Column<T: DataType> {
    name: &'static str,
    leaf: usize,
    /// The level of a row that has a value; 0: all have one.
    stated: i16,
    reader: Option<ColumnReaderImpl<T>>,
    /// Of each row, unless all have a value.
    levels: Vec<i16>,
    /// Only of rows that have one.
    values: Vec<T::T>,
    next_row: usize,
    next_value: usize,
}

impl<T: DataType> Column<T> {
    fn new(name: &'static str, leaf: usize, about: &ColumnDescriptor) -> Self {
        Self {
            name,
            leaf,
            stated: about.max_def_level(),
            reader: None,
            levels: Vec::new(),
            values: Vec::new(),
            next_row: 0,
            next_value: 0,
        }
    }

    /// The next row's value, if it is not null.
    fn next(&mut self) -> Option<&T::T> {
        let row = self.next_row;
        self.next_row += 1;
        if self.stated > 0 && self.levels[row] != self.stated {
            return None;
        }
        self.next_value += 1;
        Some(&self.values[self.next_value - 1])
    }
}

impl Column<ByteArrayType> {
    fn next_text(&mut self) -> Result<String, Invalid> {
        let name = self.name;
        let Some(bytes) = self.next() else {
            return Err(Invalid::new(name, "is missing"));
        };
        let text = std::str::from_utf8(bytes.data());
        text.map(str::to_owned)
            .map_err(|_| Invalid::new(name, "is not UTF-8; encode texts so"))
    }
}

impl<T: DataType> Part for Column<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn begin(&mut self, group: &dyn RowGroupReader) -> Parsed<()> {
        let reader = group.get_column_reader(self.leaf)?;
        self.reader = Some(get_typed_column_reader(reader));
        Ok(())
    }

    fn decode(&mut self, rows: usize) -> Parsed<usize> {
        self.levels.clear();
        self.values.clear();
        (self.next_row, self.next_value) = (0, 0);
        let Some(reader) = &mut self.reader else {
            return Ok(0);
        };
        let levels = (self.stated > 0).then_some(&mut self.levels);
        let (rows, ..) = reader.read_records(rows, levels, None, &mut self.values)?;
        Ok(rows)
    }
}
