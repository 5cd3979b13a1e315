//! The records that instances write into the log.

use std::borrow::Cow;

use bytes::Bytes;
use prost::Message;

use crate::proto::v1 as pb;

use super::borrowed::{Batch, read_batch};
use super::reader::{Broken, DELIMITED, DEPTH, FIXED64, Reader, VARINT, key};
use super::reserve::plain_reserve;
use super::{Found, Malformed, Unreadable};

/// The version of the record's format that this version writes, and the latest it reads.
pub const RECORD_VERSION: u32 = 1;

/// The most that a record has beside its framed movements or commands, see [`framed_bytes`].
pub const RECORD_HEADER_BYTES_MAX: usize = 2 + 9 + 11 + 1 + 10;

/// What a `Record` says. Its movements are not decoded yet.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordView<'a> {
    /// Version of the format: 1.
    pub version: u32,
    /// The instance that wrote it.
    pub instance: u64,
    /// Unique within `instance`.
    pub token: u64,
    /// What it says.
    pub body: Body<'a>,
}

/// The body of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Body<'a> {
    /// Facts.
    Movements(Movements<'a>),
    /// New channel rules.
    Rules(pb::RulesPut),
    /// Time passed.
    Tick,
    /// Commands, to be decided in this order.
    Commands(Vec<CommandView<'a>>),
    /// A new document of source authority.
    Authority(pb::AuthorityPut),
    /// What a person decided about an exception.
    Resolve(pb::ResolveException),
    /// What came of comparing a snapshot, or a part of that.
    Comparison(Box<pb::Comparison>),
    /// How far a webhook has got.
    Delivery(pb::DeliveryProgress),
    /// Published numbers to be delivered once more.
    Republish(pb::Republish),
}

/// A command of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum CommandView<'a> {
    /// To reserve: a request that [`super::reserve::Reserve::read_plain`] reads, and how many lines
    /// it has.
    Reserve(&'a [u8], usize),
    /// Any other, or one that only prost could read.
    Other(pb::Command),
}

/// The movements of a record, still encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movements<'a> {
    /// An encoded `MovementBatch`. Borrowed, but for records that no instance writes.
    pub batch: Cow<'a, [u8]>,
    /// Where it lies in the record.
    pub offset: usize,
}

impl Movements<'_> {
    /// Decodes and visits the movements, like [`super::borrowed::for_each_movement`].
    ///
    /// # Errors
    /// If any byte is malformed, or the batch is of a later version of the contract. What was
    /// visited before does not count then.
    pub fn for_each<'s>(&'s self, visit: impl FnMut(Found<'s>)) -> Result<usize, Unreadable> {
        read_record_batch(&self.batch, self.offset, visit)
    }
}

/// Decodes the batch of a record, which lies at `offset` in it.
pub(super) fn read_record_batch<'a>(
    batch: &'a [u8],
    offset: usize,
    visit: impl FnMut(Found<'a>),
) -> Result<usize, Unreadable> {
    let read = read_batch(batch, DEPTH - 1, usize::MAX, visit).map_err(|error| Malformed {
        offset: error.offset.map(|at| at + offset),
        ..error
    })?;
    match read {
        Batch { version: 0..=1, .. } => Ok(read.movements),
        Batch { version, .. } => Err(Unreadable::FutureVersion(version)),
    }
}

/// Reads a `Record`, all but its movements.
///
/// # Errors
/// [`Unreadable::FutureVersion`] if a later version wrote it, whatever else it holds; else
/// [`Unreadable::Malformed`] if it is none.
pub fn read_record(bytes: &[u8]) -> Result<RecordView<'_>, Unreadable> {
    let mut fields = Fields::default();
    let read = fields.read(bytes);
    if fields.version > RECORD_VERSION {
        return Err(Unreadable::FutureVersion(fields.version));
    }
    read.map_err(Malformed::from)?;
    if fields.version == 0 {
        return Err(Malformed::new("is a record without a version").into());
    }
    let body = match (fields.other_bodies, fields.commands.and_then(commands)) {
        (0, _) => fields.movements.map(Body::Movements),
        (1, Some(commands)) if fields.movements.is_none() => Some(Body::Commands(commands)),
        _ => other_body(bytes)?,
    };
    Ok(RecordView {
        version: fields.version,
        instance: fields.instance,
        token: fields.token,
        body: body.ok_or_else(|| Malformed::new("is a record without a body"))?,
    })
}

#[derive(Default)]
struct Fields<'a> {
    version: u32,
    instance: u64,
    token: u64,
    movements: Option<Movements<'a>>,
    /// The last batch of commands.
    commands: Option<&'a [u8]>,
    other_bodies: u32,
}

impl<'a> Fields<'a> {
    fn read(&mut self, bytes: &'a [u8]) -> Result<(), Broken> {
        const VERSION: u32 = key(1, VARINT);
        const INSTANCE: u32 = key(2, FIXED64);
        const TOKEN: u32 = key(3, VARINT);
        const MOVEMENTS: u32 = key(10, DELIMITED);
        const RULES: u32 = key(11, DELIMITED);
        const TICK: u32 = key(12, DELIMITED);
        const COMMANDS: u32 = key(13, DELIMITED);
        const AUTHORITY: u32 = key(14, DELIMITED);
        const RESOLVE: u32 = key(15, DELIMITED);
        const COMPARISON: u32 = key(16, DELIMITED);
        const DELIVERY: u32 = key(17, DELIMITED);
        const REPUBLISH: u32 = key(18, DELIMITED);

        let mut reader = Reader::new(bytes);
        while !reader.is_done() {
            match reader.key()? {
                VERSION => self.version = reader.varint()? as u32,
                INSTANCE => self.instance = reader.fixed64()?,
                TOKEN => self.token = reader.varint()?,
                MOVEMENTS => {
                    let nested = reader.nested()?;
                    match &mut self.movements {
                        // Encoded messages one after the other are one message, merged.
                        Some(before) => before.batch.to_mut().extend_from_slice(nested.rest()),
                        None => {
                            self.movements = Some(Movements {
                                batch: Cow::Borrowed(nested.rest()),
                                offset: nested.offset(),
                            });
                        }
                    }
                }
                COMMANDS => {
                    self.other_bodies += 1;
                    self.commands = Some(reader.delimited()?);
                }
                RULES | TICK | AUTHORITY | RESOLVE | COMPARISON | DELIVERY | REPUBLISH => {
                    self.other_bodies += 1;
                    reader.delimited()?;
                }
                key if matches!(key >> 3, 1..=3 | 10..=18) => {
                    return Err(reader.wrong_wire_type());
                }
                key => reader.skip(key, DEPTH)?,
            }
        }
        Ok(())
    }
}

/// The commands of a batch; `None` if it has anything else, or a command that cannot be read.
fn commands(batch: &[u8]) -> Option<Vec<CommandView<'_>>> {
    const COMMAND: u32 = key(1, DELIMITED);
    let mut commands = Vec::new();
    let mut reader = Reader::new(batch);
    while !reader.is_done() {
        if reader.key().ok()? != COMMAND {
            return None;
        }
        let bytes = reader.delimited().ok()?;
        commands.push(match plain_reserve(bytes) {
            Some((request, lines)) => CommandView::Reserve(request, lines),
            None => {
                let command = pb::Command::decode(bytes).ok()?;
                // Of fields that are unknown, prost takes fewer within a record than alone.
                if command.encoded_len() != bytes.len() {
                    return None;
                }
                CommandView::Other(command)
            }
        });
    }
    Some(commands)
}

/// Whatever is no movements and no commands is rarer: prost reads it. That also settles which body
/// counts, should a record have several.
fn other_body<'a>(bytes: &[u8]) -> Result<Option<Body<'a>>, Malformed> {
    use pb::record::Body as Pb;
    let record = pb::Record::decode(bytes)
        .map_err(|error| Malformed::new(format!("is no record: {error}")))?;
    Ok(record.body.map(|body| match body {
        Pb::Movements(batch) => Body::Movements(Movements {
            batch: Cow::Owned(batch.encode_to_vec()),
            offset: 0,
        }),
        Pb::Rules(rules) => Body::Rules(rules),
        Pb::Tick(pb::Tick {}) => Body::Tick,
        Pb::Commands(batch) => {
            let commands = batch.commands.into_iter();
            Body::Commands(commands.map(CommandView::Other).collect())
        }
        Pb::Authority(authority) => Body::Authority(authority),
        Pb::Resolve(resolve) => Body::Resolve(resolve),
        Pb::Comparison(comparison) => Body::Comparison(Box::new(comparison)),
        Pb::Delivery(progress) => Body::Delivery(progress),
        Pb::Republish(republish) => Body::Republish(republish),
    }))
}

/// How many bytes of a record an encoded movement or command of `bytes` takes.
pub const fn framed_bytes(bytes: usize) -> usize {
    1 + prost::encoding::encoded_len_varint(bytes as u64) + bytes
}

/// Writes a `Record` of movements that are encoded already, by whichever callers: each item is
/// an encoded `Movement`.
pub fn encode_record<'a>(
    instance: u64,
    token: u64,
    movements: impl IntoIterator<Item = &'a [u8]>,
) -> Bytes {
    const BODY: u32 = key(10, DELIMITED);
    const MOVEMENT: u32 = key(2, DELIMITED);
    encode_items(instance, token, [BODY, MOVEMENT], movements.into_iter())
}

/// Writes a `Record` of commands that are encoded already, by whichever callers: each item is an
/// encoded `Command`. They are decided in this order.
pub fn encode_commands<'a>(
    instance: u64,
    token: u64,
    commands: impl IntoIterator<Item = &'a [u8]>,
) -> Bytes {
    const BODY: u32 = key(13, DELIMITED);
    const COMMAND: u32 = key(1, DELIMITED);
    encode_items(instance, token, [BODY, COMMAND], commands.into_iter())
}

/// Writes a `Record` whose body repeats one field. The keys are those of the body and of an item.
fn encode_items<'a>(
    instance: u64,
    token: u64,
    [body, item]: [u32; 2],
    items: impl Iterator<Item = &'a [u8]>,
) -> Bytes {
    let mut record = Vec::with_capacity(RECORD_HEADER_BYTES_MAX + items.size_hint().0 * 192);
    // The header says how long the items are, so it is known last: leave room before them.
    record.resize(RECORD_HEADER_BYTES_MAX, 0);
    for bytes in items {
        put_varint(u64::from(item), &mut record);
        put_varint(bytes.len() as u64, &mut record);
        record.extend_from_slice(bytes);
    }
    let body_bytes = record.len() - RECORD_HEADER_BYTES_MAX;

    let mut header = Vec::with_capacity(RECORD_HEADER_BYTES_MAX);
    put_varint(u64::from(key(1, VARINT)), &mut header);
    put_varint(u64::from(RECORD_VERSION), &mut header);
    put_varint(u64::from(key(2, FIXED64)), &mut header);
    header.extend_from_slice(&instance.to_le_bytes());
    put_varint(u64::from(key(3, VARINT)), &mut header);
    put_varint(token, &mut header);
    put_varint(u64::from(body), &mut header);
    put_varint(body_bytes as u64, &mut header);

    let start = RECORD_HEADER_BYTES_MAX - header.len();
    record[start..RECORD_HEADER_BYTES_MAX].copy_from_slice(&header);
    Bytes::from(record).slice(start..)
}

fn put_varint(value: u64, to: &mut Vec<u8>) {
    prost::encoding::encode_varint(value, to);
}
