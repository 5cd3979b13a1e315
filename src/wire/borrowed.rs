//! Movements straight from the bytes of a protobuf message, without allocation.
//!
//! Takes exactly what prost takes, and reads the same from it: unknown fields are skipped, of a
//! repeated scalar the last counts, repeated embedded messages are merged, and of the kinds of a
//! movement the last counts. Tests hold both against each other.
//!
//! One difference is meant: where a text is not UTF-8, prost refuses the whole message. Here that
//! one movement is invalid, and its neighbours are not lost.

use crate::domain::movement::{Invalid, Kind, Movement, TimeUs};

use super::movement::{
    both, condition, condition_or_good, disposition, given, issue_reason, missing_kind,
    missing_time, time_us,
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

/// Inlined always, and so are the steps below: left to the compiler, what they return is copied from
/// step to step, which takes a third longer (`benches/decode.rs`).
#[inline(always)]
fn read_found(index: usize, reader: Reader<'_>, depth: u32) -> Result<Found<'_>, Broken> {
    let raw = reader.rest();
    let mut fields = Fields::default();
    read_fields(reader, depth, &mut fields)?;
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
    /// What the kind says, as far as it was read.
    said: Said<'a>,
    /// The first text that is not UTF-8, even if a later one overwrote it.
    not_utf8: Option<&'static str>,
}

/// How many fields a kind has at most; they are numbered from 1.
const KIND_FIELDS_MAX: usize = 6;

/// The fields of a kind.
#[derive(Default)]
struct Said<'a> {
    /// Field n, if it is a text, is at n - 1.
    texts: [&'a str; KIND_FIELDS_MAX],
    /// Field n, if it is a number, is at n - 1, as its varint came.
    numbers: [u64; KIND_FIELDS_MAX],
    /// Bit n is set if field n is a number and is there.
    given: u32,
    /// The field that is a time: no kind has two.
    has_time: bool,
    seconds: i64,
    nanos: i32,
}

/// Which of a kind's fields are what.
struct Shape {
    of: Of,
    paths: [&'static str; KIND_FIELDS_MAX],
    /// Bit n is set if field n is a text.
    texts: u32,
    /// Bit n is set if field n is an enum or another integer.
    numbers: u32,
    /// Bit n is set if field n is a time.
    time: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Received,
    Issued,
    Reclassified,
    Adjusted,
    Counted,
    Reserved,
    Released,
    Reassigned,
    Picked,
    Packed,
    Shipped,
    InboundExpected,
    InboundCancelled,
    TransferShipped,
    TransferReceived,
    TransferClosed,
    ReturnAuthorized,
    ReturnCancelled,
    ReturnReceived,
    ReturnInspected,
    ReturnRefunded,
}

/// The type of a kind's field.
#[derive(Clone, Copy)]
enum Is {
    Text,
    Number,
    Time,
}

/// The shape of a kind with these fields, numbered from 1.
const fn shape(of: Of, fields: &[(Is, &'static str)]) -> Shape {
    let mut shape = Shape {
        of,
        paths: [""; KIND_FIELDS_MAX],
        texts: 0,
        numbers: 0,
        time: 0,
    };
    let mut slot = 0;
    while slot < fields.len() {
        let (is, path) = fields[slot];
        shape.paths[slot] = path;
        slot += 1;
        match is {
            Is::Text => shape.texts |= 1 << slot,
            Is::Number => shape.numbers |= 1 << slot,
            Is::Time => shape.time |= 1 << slot,
        }
    }
    shape
}

#[rustfmt::skip]
static SHAPES: [Shape; 21] = {
    use Is::{Number, Text, Time};
    [
        shape(Of::Received, &[(Text, "received.location"), (Number, "received.condition"), (Text, "received.inbound"), (Text, "received.line")]),
        shape(Of::Issued, &[(Text, "issued.location"), (Number, "issued.condition"), (Number, "issued.reason")]),
        shape(Of::Reclassified, &[(Text, "reclassified.location"), (Number, "reclassified.from"), (Number, "reclassified.to")]),
        shape(Of::Adjusted, &[(Text, "adjusted.location"), (Number, "adjusted.condition"), (Text, "adjusted.reason")]),
        shape(Of::Counted, &[(Text, "counted.location"), (Time, "counted.as_of"), (Number, "counted.good"), (Number, "counted.quarantined"), (Number, "counted.damaged"), (Number, "counted.return_pending")]),
        shape(Of::Reserved, &[(Text, "reserved.order"), (Text, "reserved.line"), (Text, "reserved.location"), (Text, "reserved.channel"), (Time, "reserved.expires_at")]),
        shape(Of::Released, &[(Text, "released.order"), (Text, "released.line"), (Text, "released.location")]),
        shape(Of::Reassigned, &[(Text, "reassigned.order"), (Text, "reassigned.line"), (Text, "reassigned.from"), (Text, "reassigned.to")]),
        shape(Of::Picked, &[(Text, "picked.order"), (Text, "picked.line"), (Text, "picked.location")]),
        shape(Of::Packed, &[(Text, "packed.order"), (Text, "packed.line"), (Text, "packed.location")]),
        shape(Of::Shipped, &[(Text, "shipped.order"), (Text, "shipped.line"), (Text, "shipped.location")]),
        shape(Of::InboundExpected, &[(Text, "inbound_expected.inbound"), (Text, "inbound_expected.line"), (Text, "inbound_expected.location"), (Time, "inbound_expected.eta")]),
        shape(Of::InboundCancelled, &[(Text, "inbound_cancelled.inbound"), (Text, "inbound_cancelled.line")]),
        shape(Of::TransferShipped, &[(Text, "transfer_shipped.transfer"), (Text, "transfer_shipped.line"), (Text, "transfer_shipped.from"), (Text, "transfer_shipped.to"), (Time, "transfer_shipped.eta")]),
        shape(Of::TransferReceived, &[(Text, "transfer_received.transfer"), (Text, "transfer_received.line"), (Text, "transfer_received.location"), (Number, "transfer_received.condition")]),
        shape(Of::TransferClosed, &[(Text, "transfer_closed.transfer"), (Text, "transfer_closed.line")]),
        shape(Of::ReturnAuthorized, &[(Text, "return_authorized.return"), (Text, "return_authorized.line"), (Text, "return_authorized.location"), (Text, "return_authorized.order"), (Text, "return_authorized.order_line")]),
        shape(Of::ReturnCancelled, &[(Text, "return_cancelled.return"), (Text, "return_cancelled.line")]),
        shape(Of::ReturnReceived, &[(Text, "return_received.return"), (Text, "return_received.line"), (Text, "return_received.location")]),
        shape(Of::ReturnInspected, &[(Text, "return_inspected.return"), (Text, "return_inspected.line"), (Text, "return_inspected.location"), (Number, "return_inspected.disposition")]),
        shape(Of::ReturnRefunded, &[(Text, "return_refunded.return"), (Text, "return_refunded.line"), (Number, "return_refunded.amount"), (Text, "return_refunded.currency")]),
    ]
};

#[inline(always)]
fn shape_of(field: u32) -> Option<&'static Shape> {
    match field {
        20..=24 => Some(&SHAPES[field as usize - 20]),
        30..=35 => Some(&SHAPES[field as usize - 25]),
        40..=44 => Some(&SHAPES[field as usize - 29]),
        50..=54 => Some(&SHAPES[field as usize - 34]),
        _ => None,
    }
}

#[inline(always)]
fn read_fields<'a>(
    mut reader: Reader<'a>,
    depth: u32,
    fields: &mut Fields<'a>,
) -> Result<(), Broken> {
    const ID: u32 = key(1, DELIMITED);
    const SOURCE: u32 = key(2, DELIMITED);
    const OCCURRED_AT: u32 = key(3, DELIMITED);
    const SKU: u32 = key(4, DELIMITED);
    const QUANTITY: u32 = key(5, VARINT);
    const CORRELATION_ID: u32 = key(6, DELIMITED);
    const REFERENCE: u32 = key(7, DELIMITED);
    const ACTOR: u32 = key(8, DELIMITED);

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
                        fields.said = Said::default();
                    }
                    fields.shape = Some(shape);
                    let nested = reader.nested()?;
                    read_kind(nested, depth - 1, shape, &mut fields.said, bad)?;
                }
                None if key >> 3 > 8 => reader.skip(key, depth)?,
                _ => return Err(reader.wrong_wire_type()),
            },
        }
    }
    Ok(())
}

#[inline(always)]
fn read_kind<'a>(
    mut reader: Reader<'a>,
    depth: u32,
    shape: &'static Shape,
    said: &mut Said<'a>,
    bad: &mut Option<&'static str>,
) -> Result<(), Broken> {
    while !reader.is_done() {
        let key = reader.key()?;
        let field = key >> 3;
        let known = shape.texts | shape.numbers | shape.time;
        if field > KIND_FIELDS_MAX as u32 || known & (1 << field) == 0 {
            reader.skip(key, depth)?;
            continue;
        }
        let slot = field as usize - 1;
        match key & 7 {
            DELIMITED if shape.texts & (1 << field) != 0 => {
                read_text(&mut reader, shape.paths[slot], &mut said.texts[slot], bad)?;
            }
            VARINT if shape.numbers & (1 << field) != 0 => {
                said.numbers[slot] = reader.varint()?;
                said.given |= 1 << field;
            }
            DELIMITED if shape.time & (1 << field) != 0 => {
                said.read_time(reader.nested()?, depth - 1)?;
            }
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
    #[inline(always)]
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
            occurred_us: time_us("occurred_at", self.seconds, self.nanos)?,
            sku: self.sku,
            quantity: self.quantity,
            correlation_id: self.correlation_id,
            reference: self.reference,
            actor: self.actor,
            kind: self.said.kind(self.shape.ok_or_else(missing_kind)?)?,
        })
    }
}

impl<'a> Said<'a> {
    #[inline(always)]
    fn kind(&self, shape: &'static Shape) -> Result<Kind<'a>, Invalid> {
        let [first, second, third, fourth, fifth, _] = self.texts;
        let [_, path_2, path_3, path_4, path_5, _] = shape.paths;
        let [_, number_2, number_3, number_4, ..] = self.numbers;
        // Enums are open: a value too large for 32 bits is cut, as prost does.
        let [enum_2, enum_3, enum_4] = [number_2 as i32, number_3 as i32, number_4 as i32];
        Ok(match shape.of {
            Of::Received => Kind::Received {
                location: first,
                condition: condition_or_good(path_2, enum_2)?,
                inbound: both(third, fourth),
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
            Of::Counted => Kind::Counted {
                location: first,
                as_of_us: self.time_us(path_2)?,
                units: std::array::from_fn(|condition| self.number(condition + 3)),
            },
            Of::Reserved => Kind::Reserved {
                order: first,
                line: second,
                location: third,
                channel: fourth,
                expires_us: self.time_us(path_5)?,
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
            Of::InboundExpected => Kind::InboundExpected {
                inbound: first,
                line: second,
                location: third,
                eta_us: self.time_us(path_4)?,
            },
            Of::InboundCancelled => Kind::InboundCancelled {
                inbound: first,
                line: second,
            },
            Of::TransferShipped => Kind::TransferShipped {
                transfer: first,
                line: second,
                from: third,
                to: fourth,
                eta_us: self.time_us(path_5)?,
            },
            Of::TransferReceived => Kind::TransferReceived {
                transfer: first,
                line: second,
                location: third,
                condition: condition_or_good(path_4, enum_4)?,
            },
            Of::TransferClosed => Kind::TransferClosed {
                transfer: first,
                line: second,
            },
            Of::ReturnAuthorized => Kind::ReturnAuthorized {
                rma: first,
                line: second,
                location: third,
                order: both(fourth, fifth),
            },
            Of::ReturnCancelled => Kind::ReturnCancelled {
                rma: first,
                line: second,
            },
            Of::ReturnReceived => Kind::ReturnReceived {
                rma: first,
                line: second,
                location: third,
            },
            Of::ReturnInspected => Kind::ReturnInspected {
                rma: first,
                line: second,
                location: third,
                disposition: disposition(enum_4),
            },
            Of::ReturnRefunded => Kind::ReturnRefunded {
                rma: first,
                line: second,
                amount: number_3 as i64,
                currency: fourth,
            },
        })
    }

    /// Few movements have a time of their own: kept out of the way of those that have none.
    #[inline(never)]
    fn read_time(&mut self, reader: Reader<'_>, depth: u32) -> Result<(), Broken> {
        self.has_time = true;
        read_time(reader, depth, &mut self.seconds, &mut self.nanos)
    }

    /// A number that may be absent.
    fn number(&self, field: usize) -> Option<i64> {
        (self.given & 1 << field != 0).then(|| self.numbers[field - 1] as i64)
    }

    #[inline]
    fn time_us(&self, path: &'static str) -> Result<Option<TimeUs>, Invalid> {
        if !self.has_time {
            return Ok(None);
        }
        time_us(path, self.seconds, self.nanos).map(Some)
    }
}
