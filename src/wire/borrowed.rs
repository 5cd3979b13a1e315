//! Movements straight from the bytes of a protobuf message, without allocation.
//!
//! Takes exactly what prost takes, and reads the same from it: unknown fields are skipped, of a
//! repeated scalar the last counts, repeated embedded messages are merged, and of the kinds of a
//! movement the last counts. Tests hold both against each other.
//!
//! One difference is meant: where a text is not UTF-8, prost refuses the whole message. Here that
//! one movement is invalid, and its neighbours are not lost.

use crate::domain::movement::{Invalid, Kind, Movement};

use super::movement::{
    condition, condition_or_good, given, issue_reason, missing_kind, missing_time, time_us,
};
use super::reader::{Broken, DELIMITED, DEPTH, Reader, VARINT, key};
use super::utf8::from_utf8;
use super::{Found, Malformed};

/// What a `MovementBatch` says beside its movements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Version of the contract that the producer wrote.
    pub version: u32,
    /// How many movements it has.
    pub movements: usize,
}

/// Decodes a `MovementBatch` and visits its movements in order.
///
/// # Errors
/// If any byte of it is malformed. That may be noticed only after movements have been visited:
/// **they do not count**, so a visitor must only collect, and its collection be dropped.
pub fn for_each_movement<'a>(
    bytes: &'a [u8],
    visit: impl FnMut(Found<'a>),
) -> Result<Batch, Malformed> {
    read_batch(bytes, DEPTH, usize::MAX, visit)
}

/// Decodes one encoded `Movement`, which is number `index` of its message.
///
/// # Errors
/// If its bytes are malformed, so that not even an invalid movement can be told.
pub fn read_movement(index: usize, bytes: &[u8]) -> Result<Found<'_>, Malformed> {
    Ok(read_found(index, Reader::new(bytes), DEPTH)?)
}

/// Like [`for_each_movement`], for a batch that may nest `depth` deep and stops being read after
/// `movements_max`: a caller that refuses more than that need not see the others.
#[inline]
pub(super) fn read_batch<'a>(
    bytes: &'a [u8],
    depth: u32,
    movements_max: usize,
    mut visit: impl FnMut(Found<'a>),
) -> Result<Batch, Malformed> {
    const VERSION: u32 = key(1, VARINT);
    const MOVEMENTS: u32 = key(2, DELIMITED);

    let mut batch = Batch {
        version: 0,
        movements: 0,
    };
    let mut reader = Reader::new(bytes);
    while !reader.is_done() {
        match reader.key()? {
            MOVEMENTS => {
                let nested = reader.nested()?;
                if batch.movements >= movements_max {
                    return Err(Malformed::new(format!(
                        "has more than {movements_max} movements"
                    )));
                }
                visit(read_found(batch.movements, nested, depth - 1)?);
                batch.movements += 1;
            }
            VERSION => batch.version = reader.varint()? as u32,
            key if matches!(key >> 3, 1 | 2) => return Err(reader.wrong_wire_type().into()),
            key => reader.skip(key, depth)?,
        }
    }
    Ok(batch)
}

#[inline]
fn read_found(index: usize, reader: Reader<'_>, depth: u32) -> Result<Found<'_>, Broken> {
    let raw = reader.rest();
    let fields = read_fields(reader, depth)?;
    Ok(Found {
        index,
        raw,
        id: fields.id,
        source: fields.source,
        movement: fields.movement(),
    })
}

/// The fields of a movement as they were read so far. Starts as protobuf's defaults.
#[derive(Default)]
struct Fields<'a> {
    id: &'a str,
    source: &'a str,
    has_time: bool,
    seconds: i64,
    nanos: i32,
    sku: &'a str,
    quantity: i64,
    correlation_id: &'a str,
    reference: &'a str,
    actor: &'a str,
    /// `None` before a kind was read.
    shape: Option<&'static Shape>,
    /// Fields 1 to 4 of the kind, as far as they are texts.
    texts: [&'a str; 4],
    /// Fields 1 to 4 of the kind, as far as they are enums.
    enums: [i32; 4],
    /// The first text that is not UTF-8, even if a later one overwrote it.
    not_utf8: Option<&'static str>,
}

/// Which of a kind's fields 1 to 4 are what. All kinds have no more than these two types.
struct Shape {
    of: Of,
    paths: [&'static str; 4],
    /// Bit n is set if field n is a text.
    texts: u32,
    /// Bit n is set if field n is an enum.
    enums: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Received,
    Issued,
    Reclassified,
    Adjusted,
    Reserved,
    Released,
    Reassigned,
    Picked,
    Packed,
    Shipped,
}

const fn shape(of: Of, texts: u32, enums: u32, paths: [&'static str; 4]) -> Shape {
    Shape {
        of,
        paths,
        texts,
        enums,
    }
}

#[rustfmt::skip]
static SHAPES: [Shape; 10] = [
    shape(Of::Received, 0b00010, 0b00100, ["received.location", "received.condition", "", ""]),
    shape(Of::Issued, 0b00010, 0b01100, ["issued.location", "issued.condition", "issued.reason", ""]),
    shape(Of::Reclassified, 0b00010, 0b01100, ["reclassified.location", "reclassified.from", "reclassified.to", ""]),
    shape(Of::Adjusted, 0b01010, 0b00100, ["adjusted.location", "adjusted.condition", "adjusted.reason", ""]),
    shape(Of::Reserved, 0b11110, 0, ["reserved.order", "reserved.line", "reserved.location", "reserved.channel"]),
    shape(Of::Released, 0b01110, 0, ["released.order", "released.line", "released.location", ""]),
    shape(Of::Reassigned, 0b11110, 0, ["reassigned.order", "reassigned.line", "reassigned.from", "reassigned.to"]),
    shape(Of::Picked, 0b01110, 0, ["picked.order", "picked.line", "picked.location", ""]),
    shape(Of::Packed, 0b01110, 0, ["packed.order", "packed.line", "packed.location", ""]),
    shape(Of::Shipped, 0b01110, 0, ["shipped.order", "shipped.line", "shipped.location", ""]),
];

#[inline(always)]
fn shape_of(field: u32) -> Option<&'static Shape> {
    match field {
        20..=23 => Some(&SHAPES[field as usize - 20]),
        30..=35 => Some(&SHAPES[field as usize - 26]),
        _ => None,
    }
}

#[inline]
fn read_fields(mut reader: Reader<'_>, depth: u32) -> Result<Fields<'_>, Broken> {
    const ID: u32 = key(1, DELIMITED);
    const SOURCE: u32 = key(2, DELIMITED);
    const OCCURRED_AT: u32 = key(3, DELIMITED);
    const SKU: u32 = key(4, DELIMITED);
    const QUANTITY: u32 = key(5, VARINT);
    const CORRELATION_ID: u32 = key(6, DELIMITED);
    const REFERENCE: u32 = key(7, DELIMITED);
    const ACTOR: u32 = key(8, DELIMITED);

    let mut fields = Fields::default();
    let bad = &mut fields.not_utf8;
    while !reader.is_done() {
        match reader.key()? {
            ID => read_text(&mut reader, "id", &mut fields.id, bad)?,
            SOURCE => read_text(&mut reader, "source", &mut fields.source, bad)?,
            OCCURRED_AT => {
                fields.has_time = true;
                let time = reader.nested()?;
                read_time(time, depth - 1, &mut fields.seconds, &mut fields.nanos)?;
            }
            SKU => read_text(&mut reader, "sku", &mut fields.sku, bad)?,
            QUANTITY => fields.quantity = reader.varint()? as i64,
            CORRELATION_ID => {
                read_text(
                    &mut reader,
                    "correlation_id",
                    &mut fields.correlation_id,
                    bad,
                )?;
            }
            REFERENCE => read_text(&mut reader, "reference", &mut fields.reference, bad)?,
            ACTOR => read_text(&mut reader, "actor", &mut fields.actor, bad)?,
            key => match shape_of(key >> 3) {
                Some(shape) if key & 7 == DELIMITED => {
                    let same = fields.shape.is_some_and(|before| before.of == shape.of);
                    if fields.shape.is_some() && !same {
                        fields.texts = Default::default();
                        fields.enums = Default::default();
                    }
                    fields.shape = Some(shape);
                    let nested = reader.nested()?;
                    let (texts, enums) = (&mut fields.texts, &mut fields.enums);
                    read_kind(nested, depth - 1, shape, texts, enums, bad)?;
                }
                None if key >> 3 > 8 => reader.skip(key, depth)?,
                _ => return Err(reader.wrong_wire_type()),
            },
        }
    }
    Ok(fields)
}

#[inline]
fn read_kind<'a>(
    mut reader: Reader<'a>,
    depth: u32,
    shape: &'static Shape,
    texts: &mut [&'a str; 4],
    enums: &mut [i32; 4],
    bad: &mut Option<&'static str>,
) -> Result<(), Broken> {
    while !reader.is_done() {
        let key = reader.key()?;
        let field = key >> 3;
        if field > 4 || (shape.texts | shape.enums) & (1 << field) == 0 {
            reader.skip(key, depth)?;
            continue;
        }
        let slot = field as usize - 1;
        let is_text = shape.texts & (1 << field) != 0;
        match key & 7 {
            DELIMITED if is_text => {
                read_text(&mut reader, shape.paths[slot], &mut texts[slot], bad)?;
            }
            // Enums are open: a value too large for 32 bits is cut, as prost does.
            VARINT if !is_text => enums[slot] = reader.varint()? as i32,
            _ => return Err(reader.wrong_wire_type()),
        }
    }
    Ok(())
}

#[inline]
fn read_time(
    mut reader: Reader<'_>,
    depth: u32,
    seconds: &mut i64,
    nanos: &mut i32,
) -> Result<(), Broken> {
    const SECONDS: u32 = key(1, VARINT);
    const NANOS: u32 = key(2, VARINT);
    while !reader.is_done() {
        match reader.key()? {
            SECONDS => *seconds = reader.varint()? as i64,
            NANOS => *nanos = reader.varint()? as i32,
            key if matches!(key >> 3, 1 | 2) => return Err(reader.wrong_wire_type()),
            key => reader.skip(key, depth)?,
        }
    }
    Ok(())
}

#[inline(always)]
fn read_text<'a>(
    reader: &mut Reader<'a>,
    path: &'static str,
    text: &mut &'a str,
    bad: &mut Option<&'static str>,
) -> Result<(), Broken> {
    match from_utf8(reader.delimited()?) {
        Some(value) => *text = value,
        None => {
            *text = "";
            bad.get_or_insert(path);
        }
    }
    Ok(())
}

impl<'a> Fields<'a> {
    #[inline]
    fn movement(&self) -> Result<Movement<'a>, Invalid> {
        if let Some(path) = self.not_utf8 {
            return Err(Invalid::new(path, "is not UTF-8; encode texts so"));
        }
        if !self.has_time {
            return Err(missing_time());
        }
        Ok(Movement {
            id: self.id,
            source: self.source,
            occurred_us: time_us(self.seconds, self.nanos)?,
            sku: self.sku,
            quantity: self.quantity,
            correlation_id: self.correlation_id,
            reference: self.reference,
            actor: self.actor,
            kind: self.kind(self.shape.ok_or_else(missing_kind)?)?,
        })
    }

    #[inline]
    fn kind(&self, shape: &'static Shape) -> Result<Kind<'a>, Invalid> {
        let [first, second, third, fourth] = self.texts;
        let [_, enum_2, enum_3, _] = self.enums;
        let [_, path_2, path_3, _] = shape.paths;
        Ok(match shape.of {
            Of::Received => Kind::Received {
                location: first,
                condition: condition_or_good(path_2, enum_2)?,
            },
            Of::Issued => Kind::Issued {
                location: first,
                condition: condition_or_good(path_2, enum_2)?,
                reason: issue_reason(path_3, enum_3)?,
            },
            Of::Reclassified => Kind::Reclassified {
                location: first,
                from: condition(path_2, enum_2)?,
                to: condition(path_3, enum_3)?,
            },
            Of::Adjusted => Kind::Adjusted {
                location: first,
                condition: condition_or_good(path_2, enum_2)?,
                reason: third,
            },
            Of::Reserved => Kind::Reserved {
                order: first,
                line: second,
                location: third,
                channel: fourth,
            },
            Of::Released => Kind::Released {
                order: first,
                line: second,
                location: given(third),
            },
            Of::Reassigned => Kind::Reassigned {
                order: first,
                line: second,
                from: third,
                to: fourth,
            },
            Of::Picked => Kind::Picked {
                order: first,
                line: second,
                location: third,
            },
            Of::Packed => Kind::Packed {
                order: first,
                line: second,
                location: third,
            },
            Of::Shipped => Kind::Shipped {
                order: first,
                line: second,
                location: third,
            },
        })
    }
}
