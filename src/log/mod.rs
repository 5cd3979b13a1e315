//! The log: one totally ordered, durable sequence of records. It is the ground state; everything
//! else can be rebuilt from it.
//!
//! One contract, several engines; `conformance` runs against each of them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::domain::movement::TimeUs;

/// Place of an entry in the log. The first is 1; 0 is before all.
pub type Position = u64;

/// One entry, as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place: the one before plus 1.
    pub position: Position,
    /// When the log took it. May step back; the reader of the log makes it monotonic.
    pub time_us: TimeUs,
    /// Who wrote it.
    pub lane: Lane,
    /// Its bytes, unchanged.
    pub payload: Bytes,
}

/// Who wrote an entry, and in what form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lane {
    /// An instance: the payload is a `sellable.v1.Record`.
    Record,
    /// A producer that publishes to the log itself (only JetStream: `movements.<source>`).
    Producer {
        /// The subject's token after `movements.`.
        source: Arc<str>,
        /// What the producer says the payload is.
        media_type: MediaType,
    },
}

/// Media type of a producer's payload, from its `Content-Type` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaType {
    /// No header: told apart by the first byte.
    Unstated,
    /// `application/protobuf` (or `application/x-protobuf`): a `sellable.v1.MovementBatch`.
    Protobuf,
    /// `application/cloudevents+json`, `application/cloudevents-batch+json`, `application/json`.
    Json,
    /// Anything else; cannot be read.
    Other(Box<str>),
}

/// Which log this is. Two logs with equal identity hold the same entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `embedded`, `jetstream` or `memory`.
    pub engine: &'static str,
    /// Where it lies: directory, or server and stream.
    pub name: String,
    /// When it was created.
    pub created_us: TimeUs,
}

/// First and last position held; `last == first - 1` if empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// First position still held.
    pub first: Position,
    /// Last position.
    pub last: Position,
}

/// Why an append did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Not stored, and will not be.
    #[error("the record has {bytes} bytes, and the log takes at most {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A write or a sync failed. The log takes no more writes until the process is restarted;
    /// whether this record was stored is known only then.
    #[error("the log takes no more writes: {0}")]
    Poisoned(String),
    /// Whether it was stored is unknown.
    #[error("the log did not confirm the record: {0}")]
    Unconfirmed(String),
}

/// Why the log cannot be opened or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The operator has to correct something; the message says what.
    #[error("{0}")]
    Setup(String),
    /// For now; trying again may help.
    #[error("the log cannot be reached: {0}")]
    Unavailable(String),
    /// Entries that were asked for have been trimmed.
    #[error("position {wanted} is asked for, but the log starts at {first}")]
    Trimmed {
        /// The position asked for.
        wanted: Position,
        /// The first position held.
        first: Position,
    },
    /// The log no longer holds what this instance has already applied: it was deleted and made
    /// anew, truncated, or restored from an older backup. To go on would be to guess.
    #[error("this is not the log that was applied: {0}")]
    Diverged(String),
    /// Stored bytes are damaged.
    #[error("the log is damaged: {0}")]
    Corrupt(String),
}

/// A log.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Which log this is.
    fn identity(&self) -> Identity;

    /// Appends one `sellable.v1.Record`. May be called concurrently; calls that are under way
    /// together get their positions in any order and share one sync.
    ///
    /// Resolved means durable, by the engine's documented policy, and readable.
    async fn append(&self, record: Bytes) -> Result<Position, AppendError>;

    /// First and last position held.
    async fn bounds(&self) -> Result<Bounds, LogError>;

    /// Reads from `from` (at least 1) on, and follows the tail for ever.
    async fn reader(&self, from: Position) -> Result<Box<dyn Reader>, LogError>;

    /// Forgets all entries below `below`. May keep more than asked.
    async fn trim(&self, below: Position) -> Result<(), LogError>;

    /// Why no writes are taken; `None` if they are.
    fn not_writable(&self) -> Option<String>;
}

/// A reader of a log.
#[async_trait]
pub trait Reader: Send {
    /// Waits for the next entries: at least one, at most `entries_max`, with consecutive
    /// positions and no gap to what was read before. Cancel-safe.
    ///
    /// Handles by itself what passes by itself (a lost connection); an error is final.
    async fn next(&mut self, entries_max: usize) -> Result<Vec<Entry>, LogError>;
}
