//! Formats of movements, and conversion between the public contract ([`crate::proto::v1`]) and
//! the domain ([`crate::domain`]). No I/O; plain functions.
//!
//! | format | read by | written by |
//! |---|---|---|
//! | protobuf, decoded by prost | [`movement::from_proto`] | [`movement::to_proto`] |
//! | protobuf, straight from the bytes | [`borrowed::for_each_movement`], [`record::read_record`] | [`record::encode_record`] |
//! | CloudEvents 1.0 in JSON | [`json::cloud_event`] | [`text::to_cloud_event`] |
//! | one JSON object a line | [`json::line`] | [`text::to_json_line`] |
//! | CSV | [`csv::Columns`] | [`text::to_csv_row`] |
//! | a message of any producer | [`media::decode_payload`] | |
//! | lines of a snapshot, CSV or NDJSON | [`snapshot::Columns`], [`snapshot::json_line`] | |
//! | queries of availability | [`query::Query`] | [`query::put_item`] |
//! | commands, in a record | [`record::read_record`] | [`record::encode_commands`] |
//! | reservations | [`reserve::Reserve`] | [`reserve::put_allocation`] |
//!
//! Two families of failure, never mixed. [`Invalid`] is about one movement: it is parked or
//! refused, and its neighbours go on. [`Unreadable`] is about the whole message.
//!
//! None of this checks the limits of a movement: that is [`Movement::check`], which callers run,
//! since only they know the time to check against.

pub mod borrowed;
pub mod command;
pub mod csv;
mod draft;
mod encoded;
pub mod json;
pub mod media;
pub mod movement;
mod plain;
pub mod query;
mod reader;
pub mod record;
pub mod reserve;
pub mod snapshot;
pub mod text;
mod time;
mod utf8;

pub use encoded::Encoded;
pub use time::parse as parse_time;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::domain::movement::{Invalid, Movement};

/// One movement of a message, as the decoders hand it to their visitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'a> {
    /// Its place in the message, from 0.
    pub index: usize,
    /// Its bytes as they came: an encoded `Movement`, or the text of a JSON element.
    pub raw: &'a [u8],
    /// Its id; for an invalid movement as far as it could be read, else empty.
    pub id: &'a str,
    /// Its source; for an invalid movement as far as it could be read, else empty.
    pub source: &'a str,
    /// The movement, or why it is none. Its limits are not checked yet.
    pub movement: Result<Movement<'a>, Invalid>,
}

/// Why a whole message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Its bytes are not what they should be. The message is kept as it is.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// An instance of a later version wrote it. To go on would be to decide otherwise than the
    /// instances that understand it, so the reader halts.
    #[error("was written in format version {0}, and this version knows 1")]
    FutureVersion(u32),
}

/// What is wrong with the bytes of a message, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The byte at which it was noticed, from 0; `None` if it is about the message as such.
    pub offset: Option<usize>,
    /// What is wrong.
    pub reason: Cow<'static, str>,
}

impl Malformed {
    /// A finding about the message as such.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            offset: None,
            reason: reason.into(),
        }
    }

    /// A finding at a byte.
    pub fn at(offset: usize, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            offset: Some(offset),
            reason: reason.into(),
        }
    }
}

/// A stranger's text, fit for a message: in quotes, without control characters, not endless.
fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 64;
    match text.char_indices().nth(CHARS_MAX) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "the message {} (at byte {offset})", self.reason),
            None => write!(f, "the message {}", self.reason),
        }
    }
}

impl std::error::Error for Malformed {}
