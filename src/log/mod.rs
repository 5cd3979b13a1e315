//! The log: one totally ordered, durable sequence of records. It is the ground state; everything
//! else can be rebuilt from it.
//!
//! One contract, several engines; `conformance` runs against each of them.

pub mod conformance;
pub mod embedded;
pub mod jetstream;
pub mod memory;

use std::{
    path::Path,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

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

impl Entry {
    /// Hash of what the log must not change: position, time and payload. An instance keeps that of
    /// the last entry it applied, see [`Anchor`].
    pub fn hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        hasher.update(&self.position.to_le_bytes());
        hasher.update(&self.time_us.to_le_bytes());
        hasher.update(&self.payload);
        hasher.digest()
    }

    /// What to remember of this entry, if it is the last one applied.
    pub fn anchor(&self) -> Anchor {
        Anchor {
            position: self.position,
            hash: self.hash(),
        }
    }
}

/// What an instance remembers of the last entry it applied, to find out whether the log still
/// holds it: a log that was truncated and grew anew has the position, but another entry there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The entry's position.
    pub position: Position,
    /// Its [`Entry::hash`].
    pub hash: u64,
}

/// Which log this is. Two logs that are the [same](Identity::is_same) hold the same entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `embedded`, `jetstream` or `memory`.
    pub engine: &'static str,
    /// Where it lies: directory, or server and stream.
    pub name: String,
    /// When it was created.
    pub created_us: TimeUs,
    /// Tells apart logs created at the same time: random, or the hash of the stream's name.
    pub id: u64,
}

impl Identity {
    /// What tells it apart from every other log, in a few letters, for who keeps a position of it.
    pub fn token(&self) -> String {
        format!("{}-{:x}-{:x}", self.engine, self.created_us, self.id)
    }

    /// Whether `other` is this log, even if it is now reached by another name: a directory may be
    /// moved, and a cluster has many servers.
    pub fn is_same(&self, other: &Identity) -> bool {
        (self.engine, self.created_us, self.id) == (other.engine, other.created_us, other.id)
    }
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
    /// Not stored, and will not be: the log is full, or takes no such record. Trying again may help
    /// once the operator has made room.
    #[error("the log refused the record: {0}")]
    Refused(String),
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

/// Is told why an append did not succeed.
pub type OnFailure = Box<dyn FnOnce(AppendError) + Send>;

/// Who follows a log, and may do so on the thread that writes it.
pub trait Attend: Send + Sync {
    /// Calls `publish`, which makes a few entries readable, and takes them at once, unless there is
    /// more to look at.
    fn attend(&self, publish: &mut dyn FnMut());
}

/// A log.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Which log this is.
    fn identity(&self) -> Identity;

    /// Appends one `sellable.v1.Record`. May be called concurrently; calls that are under way
    /// together get their positions in any order and share one sync.
    ///
    /// Resolved means durable, by the engine's documented policy, and readable. Dropping the
    /// future does not take the record back: whether it is stored is then unknown.
    async fn append(&self, record: Bytes) -> Result<Position, AppendError>;

    /// The same, for who learns by reading the record that it was appended, and so has to be told
    /// only if it was not. May resolve before either is known; dropped before, it tells nothing.
    async fn send(&self, record: Bytes, failed: OnFailure) {
        if let Err(error) = self.append(record).await {
            failed(error);
        }
    }

    /// Names who may follow on the thread that writes; replaces who was named before. An engine
    /// without such a thread has no use for it.
    fn attended_by(&self, _follower: Weak<dyn Attend>) {}

    /// Appends a record that any of several instances may append: the log takes the first of a
    /// name, and answers the others with its position, for a minute at least. A log of one
    /// instance need not tell them apart.
    ///
    /// # Errors
    /// As [`Log::append`].
    async fn append_once(&self, record: Bytes, _name: &str) -> Result<Position, AppendError> {
        self.append(record).await
    }

    /// First and last position held.
    async fn bounds(&self) -> Result<Bounds, LogError>;

    /// Reads from `from` (at least 1) on, and follows the tail for ever. What is read is as durable
    /// as what was acknowledged: who has an entry need not wait for its acknowledgement.
    ///
    /// Asking for more than `last + 1` is [`LogError::Diverged`]: who asks has applied what this log
    /// does not hold.
    async fn reader(&self, from: Position) -> Result<Box<dyn Reader>, LogError>;

    /// Checks, before [`Log::reader`] goes on after it, that this log still holds the entry that
    /// was last applied. An entry that has just been trimmed cannot be compared, and is believed.
    async fn check(&self, anchor: Anchor) -> Result<(), LogError> {
        let bounds = self.bounds().await?;
        let Anchor { position, hash } = anchor;
        if bounds.last < position {
            return Err(LogError::Diverged(format!(
                "position {position} was applied, but the log ends at {}; its tail was lost",
                bounds.last
            )));
        }
        if bounds.first == position + 1 {
            return Ok(());
        }
        let entries = self.reader(position).await?.next(1).await?;
        if entries.iter().any(|entry| entry.hash() != hash) {
            return Err(LogError::Diverged(format!(
                "position {position} holds another entry than the one that was applied"
            )));
        }
        Ok(())
    }

    /// Forgets all entries below `below`. May keep more than asked; never forgets the place
    /// where the log ends.
    async fn trim(&self, below: Position) -> Result<(), LogError>;

    /// Why no writes are taken; `None` if they are.
    fn not_writable(&self) -> Option<String>;

    /// Where instances leave their newest checkpoint for each other; `None`: this engine has no
    /// such place.
    fn depot(&self) -> Option<Box<dyn Depot>> {
        None
    }
}

/// A place beside the log for the newest checkpoint. What is in it is no part of the log, and is
/// checked by who fetches it.
#[async_trait]
pub trait Depot: Send + Sync {
    /// Position of what was left there last; `None`: nothing was.
    async fn newest(&self) -> Result<Option<Position>, LogError>;

    /// Brings it into this file, synced.
    async fn fetch(&self, to: &Path) -> Result<(), LogError>;

    /// Leaves this file, in the place of what is there.
    async fn leave(&self, position: Position, from: &Path) -> Result<(), LogError>;
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

/// Whether a log that holds `first` to `last` can be read from `from` on.
fn check_from(from: Position, first: Position, last: Position) -> Result<(), LogError> {
    if from < first {
        return Err(LogError::Trimmed {
            wanted: from,
            first,
        });
    }
    if from > last + 1 {
        return Err(LogError::Diverged(format!(
            "position {from} is asked for, but the log ends at {last}; its tail was lost"
        )));
    }
    Ok(())
}
