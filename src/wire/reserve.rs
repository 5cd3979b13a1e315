//! `Reservations.Reserve`, as its server and the log have it: a request that is read where its bytes
//! lie, and an answer that is written item by item (see [`super::plain`]).

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use smallvec::SmallVec;

use super::{
    plain::{Met, NotPlain, int64_len, put_int64, put_text, text, text_len},
    reader::{DELIMITED, Reader, VARINT, key},
    record::framed_bytes,
};
use crate::proto::v1 as pb;

/// A `sellable.v1.ReserveRequest`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reserve<'a> {
    /// Identity of the reservation.
    pub id: &'a str,
    /// The channel that sells.
    pub channel: &'a str,
    /// What is wanted.
    pub lines: SmallVec<[ReserveLine<'a>; 1]>,
    /// After this time it expires.
    pub time_to_live: Option<prost_types::Duration>,
    /// A line may be taken from several locations.
    pub allow_split: bool,
    /// Who asked.
    pub actor: &'a str,
}

/// A line of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReserveLine<'a> {
    /// Its number; empty: its place, from 1.
    pub line: &'a str,
    /// Stock keeping unit.
    pub sku: &'a str,
    /// Units.
    pub quantity: i64,
    /// Only from here; empty: from anywhere.
    pub location: &'a str,
}

impl<'a> Reserve<'a> {
    /// Reads a plain one; `None` if it is not plain.
    pub fn read_plain(bytes: &'a [u8]) -> Option<Self> {
        Self::read(Reader::new(bytes)).ok()
    }

    fn read(mut reader: Reader<'a>) -> Result<Self, NotPlain> {
        const ID: u32 = key(1, DELIMITED);
        const CHANNEL: u32 = key(2, DELIMITED);
        const LINES: u32 = key(3, DELIMITED);
        const TIME_TO_LIVE: u32 = key(4, DELIMITED);
        const ALLOW_SPLIT: u32 = key(5, VARINT);
        const ACTOR: u32 = key(6, DELIMITED);

        let mut reserve = Self::default();
        let mut met = Met::default();
        while !reader.is_done() {
            let key = reader.key()?;
            if key == LINES {
                reserve.lines.push(read_line(reader.nested()?)?);
                continue;
            }
            met.once(key)?;
            match key {
                ID => reserve.id = text(&mut reader)?,
                CHANNEL => reserve.channel = text(&mut reader)?,
                TIME_TO_LIVE => reserve.time_to_live = Some(read_duration(reader.nested()?)?),
                ALLOW_SPLIT => reserve.allow_split = reader.varint()? != 0,
                ACTOR => reserve.actor = text(&mut reader)?,
                _ => return Err(NotPlain),
            }
        }
        Ok(reserve)
    }

    /// Appends it as the `sellable.v1.Command` that prost would write: the same for all bytes that
    /// say the same.
    pub fn put_command(&self, to: &mut Vec<u8>) {
        encode_key(1, WireType::LengthDelimited, to);
        encode_varint(self.encoded_len() as u64, to);
        put_text(1, self.id, to);
        put_text(2, self.channel, to);
        for line in &self.lines {
            encode_key(3, WireType::LengthDelimited, to);
            encode_varint(line.encoded_len() as u64, to);
            put_text(1, line.line, to);
            put_text(2, line.sku, to);
            put_int64(3, line.quantity, to);
            put_text(4, line.location, to);
        }
        if let Some(time) = &self.time_to_live {
            prost::encoding::message::encode(4, time, to);
        }
        if self.allow_split {
            encode_key(5, WireType::Varint, to);
            to.push(1);
        }
        put_text(6, self.actor, to);
    }

    fn encoded_len(&self) -> usize {
        let lines = self.lines.iter().map(ReserveLine::encoded_len);
        let lines: usize = lines.map(framed_bytes).sum();
        let time = self.time_to_live.as_ref();
        text_len(self.id)
            + text_len(self.channel)
            + lines
            + time.map_or(0, |time| framed_bytes(time.encoded_len()))
            + 2 * usize::from(self.allow_split)
            + text_len(self.actor)
    }
}

impl ReserveLine<'_> {
    fn encoded_len(&self) -> usize {
        text_len(self.line)
            + text_len(self.sku)
            + int64_len(self.quantity)
            + text_len(self.location)
    }
}

fn read_line(mut reader: Reader<'_>) -> Result<ReserveLine<'_>, NotPlain> {
    const LINE: u32 = key(1, DELIMITED);
    const SKU: u32 = key(2, DELIMITED);
    const QUANTITY: u32 = key(3, VARINT);
    const LOCATION: u32 = key(4, DELIMITED);

    let mut line = ReserveLine::default();
    let mut met = Met::default();
    while !reader.is_done() {
        let key = reader.key()?;
        met.once(key)?;
        match key {
            LINE => line.line = text(&mut reader)?,
            SKU => line.sku = text(&mut reader)?,
            QUANTITY => line.quantity = reader.varint()? as i64,
            LOCATION => line.location = text(&mut reader)?,
            _ => return Err(NotPlain),
        }
    }
    Ok(line)
}

fn read_duration(mut reader: Reader<'_>) -> Result<prost_types::Duration, NotPlain> {
    const SECONDS: u32 = key(1, VARINT);
    const NANOS: u32 = key(2, VARINT);

    let mut duration = prost_types::Duration::default();
    let mut met = Met::default();
    while !reader.is_done() {
        let key = reader.key()?;
        met.once(key)?;
        match key {
            SECONDS => duration.seconds = reader.varint()? as i64,
            NANOS => duration.nanos = reader.varint()? as i32,
            _ => return Err(NotPlain),
        }
    }
    Ok(duration)
}

impl<'a> From<&'a pb::ReserveRequest> for Reserve<'a> {
    fn from(request: &'a pb::ReserveRequest) -> Self {
        let line = |line: &'a pb::ReserveLine| ReserveLine {
            line: &line.line,
            sku: &line.sku,
            quantity: line.quantity,
            location: &line.location,
        };
        Self {
            id: &request.id,
            channel: &request.channel,
            lines: request.lines.iter().map(line).collect(),
            time_to_live: request.time_to_live,
            allow_split: request.allow_split,
            actor: &request.actor,
        }
    }
}

/// The request of an encoded `sellable.v1.Command` that is to reserve and nothing else, if it is
/// plain, and how many lines it has.
pub(super) fn plain_reserve(command: &[u8]) -> Option<(&[u8], usize)> {
    const RESERVE: u32 = key(1, DELIMITED);
    let mut reader = Reader::new(command);
    if reader.key().ok()? != RESERVE {
        return None;
    }
    let request = reader.delimited().ok()?;
    let reserve = Reserve::read_plain(request).filter(|_| reader.is_done())?;
    Some((request, reserve.lines.len()))
}

/// Encodes the `sellable.v1.Command` of an encoded `ReserveRequest`.
pub fn command_of(request: &[u8]) -> Vec<u8> {
    first_field(request)
}

/// Encodes the `sellable.v1.ReserveStreamResponse` of an encoded `ReserveResponse`.
pub fn answer_of(response: &[u8]) -> Vec<u8> {
    first_field(response)
}

/// Encodes a message that has this one as its field 1.
fn first_field(message: &[u8]) -> Vec<u8> {
    let mut outer = Vec::with_capacity(framed_bytes(message.len()));
    encode_key(1, WireType::LengthDelimited, &mut outer);
    encode_varint(message.len() as u64, &mut outer);
    outer.extend_from_slice(message);
    outer
}

/// Appends a field that is a `sellable.v1.Allocation`.
pub fn put_allocation(
    field: u32,
    [line, sku, location]: [&str; 3],
    quantity: i64,
    to: &mut Vec<u8>,
) {
    encode_key(field, WireType::LengthDelimited, to);
    let texts: usize = [line, sku, location].into_iter().map(text_len).sum();
    encode_varint((texts + int64_len(quantity)) as u64, to);
    put_text(1, line, to);
    put_text(2, sku, to);
    put_text(3, location, to);
    put_int64(4, quantity, to);
}

#[cfg(test)]
mod tests {
    use pb::command::Command;
    use proptest::prelude::*;

    use super::{super::plain::spoiled::spoiled, *};

    fn line() -> impl Strategy<Value = pb::ReserveLine> {
        let texts = (".{0,3}", "\\PC{0,20}", any::<i64>(), "\\PC{0,150}");
        texts.prop_map(|(line, sku, quantity, location)| pb::ReserveLine {
            line,
            sku,
            quantity,
            location,
        })
    }

    fn request() -> impl Strategy<Value = pb::ReserveRequest> {
        let duration = (any::<i64>(), any::<i32>());
        let duration =
            duration.prop_map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
        (
            (".{0,20}", ".{0,20}", ".{0,20}"),
            prop::collection::vec(line(), 0..20),
            prop::option::of(duration),
            any::<bool>(),
        )
            .prop_map(|((id, channel, actor), lines, time_to_live, allow_split)| {
                pb::ReserveRequest {
                    id,
                    channel,
                    lines,
                    time_to_live,
                    allow_split,
                    actor,
                }
            })
    }

    fn command(request: &pb::ReserveRequest) -> Vec<u8> {
        let command = pb::Command {
            command: Some(Command::Reserve(request.clone())),
        };
        command.encode_to_vec()
    }

    proptest! {
        #[test]
        fn what_prost_writes_is_plain_and_is_read_and_written_as_prost_does(request in request()) {
            let bytes = request.encode_to_vec();
            let read = Reserve::read_plain(&bytes).expect("it is plain");
            prop_assert_eq!(&read, &Reserve::from(&request));
            let mut written = Vec::new();
            read.put_command(&mut written);
            prop_assert_eq!(&written, &command(&request));
            prop_assert_eq!(&command_of(&bytes), &written);
            let lines = request.lines.len();
            prop_assert_eq!(plain_reserve(&written), Some((&*bytes, lines)));
        }

        #[test]
        fn what_is_read_from_any_bytes_is_what_prost_reads(
            bytes in spoiled(request().prop_map(|request| request.encode_to_vec())),
        ) {
            let prosts = pb::ReserveRequest::decode(&*bytes);
            let read = Reserve::read_plain(&bytes);
            if let Some(read) = &read {
                let prosts = prosts.as_ref().expect("prost takes it, too");
                prop_assert_eq!(read, &Reserve::from(prosts));
            }
        }

        #[test]
        fn an_allocation_is_written_as_prost_writes_it(
            texts in ("\\PC{0,9}", "\\PC{0,200}", "\\PC{0,9}"),
            quantity in any::<i64>(),
        ) {
            let (line, sku, location) = texts;
            let mut written = Vec::new();
            put_allocation(2, [&line, &sku, &location], quantity, &mut written);
            let response = pb::ReserveResponse {
                allocations: vec![pb::Allocation { line, sku, location, quantity }],
                ..pb::ReserveResponse::default()
            };
            prop_assert_eq!(&written, &response.encode_to_vec());
            let answer = pb::ReserveStreamResponse {
                answer: Some(pb::reserve_stream_response::Answer::Response(response)),
            };
            prop_assert_eq!(answer_of(&written), answer.encode_to_vec());
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_prost() {
        let request = pb::ReserveRequest {
            id: "cart-1".into(),
            ..pb::ReserveRequest::default()
        };
        let bytes = request.encode_to_vec();
        let with = |tail: &[u8]| [&bytes[..], tail].concat();
        for odd in [
            // The id once more; a field that nobody knows; an id that is a number; cut short.
            with(&[0x0a, 1, b'x']),
            with(&[0xfa, 0x3e, 1, 0]),
            with(&[0x08, 1]),
            with(&[0x12, 9, b'w']),
            // A channel that is not UTF-8.
            with(&[0x12, 1, 0xff]),
        ] {
            assert_eq!(Reserve::read_plain(&odd), None, "{odd:?}");
        }
        assert!(Reserve::read_plain(&bytes).is_some());
        let confirm = pb::Command {
            command: Some(Command::Confirm(pb::ConfirmRequest::default())),
        };
        assert_eq!(plain_reserve(&confirm.encode_to_vec()), None);
        assert_eq!(plain_reserve(&[]), None);
    }
}
