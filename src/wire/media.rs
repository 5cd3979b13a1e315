//! The messages of producers, in any of their formats.

use crate::domain::movement::Invalid;
use crate::limits::{BATCH_MOVEMENTS_MAX, MESSAGE_BYTES_MAX};
use crate::log::{Lane, MediaType};

use super::borrowed::{Batch, read_batch};
use super::json::{self, Parsed};
use super::reader::DEPTH;
use super::record::{Body, read_record, read_record_batch};
use super::{Found, Malformed, Unreadable, quoted};

/// Keeps what [`decode_payload`] cannot borrow from the payload itself. Reuse it.
#[derive(Debug, Default)]
pub struct Scratch {
    parsed: Vec<Parsed>,
    batch: Vec<u8>,
}

/// Decodes the payload of an entry of the log and visits its movements in order; returns how
/// many. Records of anything else, such as rules, commands or a tick, have none; see
/// [`read_record`] for those.
///
/// What a producer published holds no other source than its subject names: an empty source is
/// that one, a different one makes the movement invalid.
///
/// # Errors
/// If the whole message cannot be read. That may be noticed only after movements have been
/// visited: **they do not count**, so a visitor must only collect, and its collection be dropped.
pub fn decode_payload<'a>(
    lane: &'a Lane,
    payload: &'a [u8],
    scratch: &'a mut Scratch,
    mut visit: impl FnMut(Found<'a>),
) -> Result<usize, Unreadable> {
    let (source, media_type) = match lane {
        Lane::Record => return decode_record(payload, scratch, visit),
        Lane::Producer { source, media_type } => (&**source, media_type),
    };
    check_size(payload)?;
    let visit = |mut found| {
        of_source(&mut found, source);
        visit(found);
    };
    let movements = match media_type {
        MediaType::Protobuf => protobuf(payload, visit)?,
        MediaType::Json => json(payload, source, scratch, visit)?,
        MediaType::Unstated if matches!(payload.first(), Some(b'{' | b'[')) => {
            json(payload, source, scratch, visit)?
        }
        MediaType::Unstated => protobuf(payload, visit)?,
        MediaType::Other(name) => {
            return Err(Malformed::new(format!(
                "has the media type {}; application/protobuf, \
                 application/cloudevents+json or application/cloudevents-batch+json",
                quoted(name)
            ))
            .into());
        }
    };
    if movements == 0 {
        return Err(Malformed::new("has no movements").into());
    }
    Ok(movements)
}

fn check_size(payload: &[u8]) -> Result<(), Malformed> {
    if payload.is_empty() {
        return Err(Malformed::new("is empty"));
    }
    if payload.len() > MESSAGE_BYTES_MAX {
        return Err(Malformed::new(format!(
            "has {} bytes; at most {MESSAGE_BYTES_MAX}",
            payload.len()
        )));
    }
    Ok(())
}

fn protobuf<'a>(payload: &'a [u8], visit: impl FnMut(Found<'a>)) -> Result<usize, Malformed> {
    match read_batch(payload, DEPTH, BATCH_MOVEMENTS_MAX, visit)? {
        Batch {
            version: 0..=1,
            movements,
        } => Ok(movements),
        Batch { version, .. } => Err(Malformed::new(format!(
            "is of version {version} of the contract, which is newer than this version knows (1)"
        ))),
    }
}

fn json<'a>(
    payload: &'a [u8],
    source: &str,
    scratch: &'a mut Scratch,
    mut visit: impl FnMut(Found<'a>),
) -> Result<usize, Malformed> {
    let elements = json::elements(payload)?;
    if elements.len() > BATCH_MOVEMENTS_MAX {
        return Err(Malformed::new(format!(
            "has more than {BATCH_MOVEMENTS_MAX} movements"
        )));
    }
    scratch.parsed.clear();
    scratch.parsed.extend(
        elements
            .iter()
            .map(|text| json::cloud_event(text, Some(source))),
    );
    let parsed: &'a [Parsed] = &scratch.parsed;
    for (index, (text, parsed)) in elements.into_iter().zip(parsed).enumerate() {
        visit(Found {
            index,
            raw: text.as_bytes(),
            id: &parsed.id,
            source: &parsed.source,
            movement: match &parsed.movement {
                Ok(movement) => super::movement::from_proto(movement),
                Err(invalid) => Err(invalid.clone()),
            },
        });
    }
    Ok(parsed.len())
}

fn decode_record<'a>(
    payload: &'a [u8],
    scratch: &'a mut Scratch,
    visit: impl FnMut(Found<'a>),
) -> Result<usize, Unreadable> {
    use std::borrow::Cow;

    match read_record(payload)?.body {
        Body::Movements(movements) => {
            let batch = match movements.batch {
                Cow::Borrowed(batch) => batch,
                Cow::Owned(batch) => {
                    scratch.batch = batch;
                    &scratch.batch
                }
            };
            read_record_batch(batch, movements.offset, visit)
        }
        Body::Rules(_)
        | Body::Tick
        | Body::Commands(_)
        | Body::Authority(_)
        | Body::Resolve(_)
        | Body::Comparison(_)
        | Body::Delivery(_)
        | Body::Republish(_) => Ok(0),
    }
}

/// Binds a movement to the source that the subject names, which the broker has checked.
#[inline]
pub(crate) fn of_source<'a>(found: &mut Found<'a>, source: &'a str) {
    if !found.source.is_empty() && found.source != source {
        found.movement = Err(Invalid::new(
            "source",
            format!(
                "is {}, but it was published on `movements.{source}`; leave it empty, or publish on its own subject",
                quoted(found.source)
            ),
        ));
    }
    found.source = source;
    if let Ok(movement) = &mut found.movement {
        movement.source = source;
    }
}
