//! Writes files of Parquet.

use std::sync::Arc;

use parquet::{
    data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type},
    file::{
        properties::WriterProperties,
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::parser::parse_message_type,
};

/// A column from top to bottom; `None` is null.
#[derive(Debug, Clone)]
pub(crate) enum Cells {
    Bytes(Vec<Option<Vec<u8>>>),
    I32(Vec<Option<i32>>),
    I64(Vec<Option<i64>>),
    F64(Vec<Option<f64>>),
}

impl Cells {
    /// Texts, none of which is null.
    pub(crate) fn texts<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Self {
        let some = |text: T| Some(text.as_ref().to_vec());
        Self::Bytes(texts.into_iter().map(some).collect())
    }

    fn len(&self) -> usize {
        match self {
            Self::Bytes(cells) => cells.len(),
            Self::I32(cells) => cells.len(),
            Self::I64(cells) => cells.len(),
            Self::F64(cells) => cells.len(),
        }
    }
}

/// A file of such a schema, with so many rows in each row group.
pub(crate) fn file(
    fields: &str,
    columns: &[Cells],
    group_rows: usize,
    properties: WriterProperties,
) -> Vec<u8> {
    let schema = parse_message_type(&format!("message stock {{ {fields} }}"));
    let schema = Arc::new(schema.expect("a schema"));
    let rows = columns[0].len();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema.clone(), Arc::new(properties))
        .expect("a writer");
    for start in (0..rows).step_by(group_rows) {
        let range = start..rows.min(start + group_rows);
        let mut group = writer.next_row_group().expect("a row group");
        for (cells, field) in columns.iter().zip(schema.get_fields()) {
            let mut column = group.next_column().expect("a column").expect("one more");
            let optional = field.is_optional();
            match cells {
                Cells::Bytes(cells) => {
                    let cells = cells[range.clone()].iter().cloned();
                    let cells: Vec<_> = cells.map(|cell| cell.map(ByteArray::from)).collect();
                    add::<ByteArrayType>(&mut column, &cells, optional);
                }
                Cells::I32(cells) => {
                    add::<Int32Type>(&mut column, &cells[range.clone()], optional);
                }
                Cells::I64(cells) => {
                    add::<Int64Type>(&mut column, &cells[range.clone()], optional);
                }
                Cells::F64(cells) => {
                    add::<DoubleType>(&mut column, &cells[range.clone()], optional);
                }
            }
            column.close().expect("a column's end");
        }
        group.close().expect("a row group's end");
    }
    writer.into_inner().expect("a file's end")
}

fn add<T: DataType>(
    column: &mut SerializedColumnWriter<'_>,
    cells: &[Option<T::T>],
    optional: bool,
) {
    let values: Vec<T::T> = cells.iter().flatten().cloned().collect();
    let levels: Vec<i16> = cells.iter().map(|cell| cell.is_some().into()).collect();
    let levels = optional.then_some(&levels[..]);
    let written = column.typed::<T>().write_batch(&values, levels, None);
    written.expect("written");
}
