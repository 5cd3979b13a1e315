//! Checkpoints: the state at a position of the log, as a file.
//!
//! A checkpoint is derived state. It spares an instance the replay of the log up to its position,
//! and lets the log be trimmed; it is never the only place of anything that the log still holds.
//!
//! [`format`] is the file: sections, each with its length and checksums. [`saving`] brings what the
//! shards and the sequencer save into one, on a thread of its own. [`store`] is the directory: which
//! files there are, which one to begin with, which to remove.
//!
//! What a section holds is put into bytes, and read back, by those whose state it is: `domain`,
//! `shard` and `intake`. A new part of the state needs a [`Kind`], its two functions, a place in
//! `Writer::save_slice` (or the sequencer's) and one in `instance::parts`; and, if older versions
//! would read the rest without it and be wrong, the next [`FORMAT`].

mod counting;
pub mod format;
pub mod saving;
mod staged;
pub mod store;

use crate::{
    domain::{
        admission::Horizon,
        digest::Digest,
        movement::TimeUs,
        saved::{Broken, Input, Output},
    },
    log::{Anchor, Identity, Position},
};

/// Version of the file format, as it is written. Since the third, ids of a part may be in several
/// pieces.
pub const FORMAT: u32 = 3;
/// The oldest version that is read, and all since.
pub const FORMAT_OLDEST: u32 = 2;

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Kind {
    /// [`Meta`].
    Meta = 1,
    /// Names of locations, then of sources, in order of number.
    Names = 2,
    /// What the sequencer knows, but for what follows: times, epochs, counts.
    Sequencer = 3,
    /// Remembered ids.
    Ids = 4,
    /// Remembered commands.
    Commands = 5,
    /// Versions of the source authority.
    Authority = 6,
    /// Parked movements.
    Parked = 7,
    /// Versions of the channel rules, and counts of commands.
    Rules = 8,
    /// Reports of snapshots that were compared.
    Reports = 9,
    /// How far webhooks have got, and their dead letters.
    Deliveries = 10,
    /// Blocks of SKUs; of one shard.
    Blocks = 16,
    /// Followed lines; of one shard.
    Lines = 17,
    /// What is to happen at a time; of one shard.
    Timers = 18,
    /// Open exceptions; of one shard.
    Exceptions = 19,
    /// Recent movements; of one shard.
    Recent = 20,
    /// Counts, and what snapshots state; of one shard.
    Counted = 21,
    /// [`Totals`]: the last section.
    Totals = 255,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 17] = [
        Kind::Meta,
        Kind::Names,
        Kind::Sequencer,
        Kind::Ids,
        Kind::Commands,
        Kind::Authority,
        Kind::Parked,
        Kind::Rules,
        Kind::Reports,
        Kind::Deliveries,
        Kind::Blocks,
        Kind::Lines,
        Kind::Timers,
        Kind::Exceptions,
        Kind::Recent,
        Kind::Counted,
        Kind::Totals,
    ];
}

/// What a checkpoint is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The last entry that is in it.
    pub anchor: Anchor,
    /// Engine of the log.
    pub log_engine: String,
    /// Where the log lay.
    pub log_name: String,
    /// When the log was created.
    pub log_created_us: TimeUs,
    /// Tells apart logs created at the same time.
    pub log_id: u64,
    /// The log's time at its position.
    pub time_us: TimeUs,
    /// When it was begun, by the clock of the machine.
    pub taken_us: TimeUs,
    /// Version of the program that took it.
    pub version: String,
    /// What is remembered of ids; decides what is stale.
    pub horizon: Horizon,
    /// How long settled lines are kept, in microseconds.
    pub lines_retain_us: i64,
    /// Shards of the instance that took it.
    pub shards: u32,
}

/// What is in a checkpoint, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Digest of the state, as `Operations.Digest` tells it.
    pub digest: Digest,
    /// SKUs.
    pub skus: u64,
    /// Cells with anything in them.
    pub cells: u64,
    /// Followed lines.
    pub lines: u64,
    /// Sections, without this last one.
    pub sections: u64,
    /// Bytes before this last section.
    pub bytes: u64,
}

impl Meta {
    /// Its position.
    pub fn position(&self) -> Position {
        self.anchor.position
    }

    /// Whether it is of this log.
    pub fn is_of(&self, log: &Identity) -> bool {
        (self.log_engine.as_str(), self.log_created_us, self.log_id)
            == (log.engine, log.created_us, log.id)
    }

    /// Into bytes.
    pub fn save(&self) -> Vec<u8> {
        let mut output = Output::new();
        output.u64(self.anchor.position);
        output.u64(self.anchor.hash);
        output.text(&self.log_engine);
        output.text(&self.log_name);
        output.i64(self.log_created_us);
        output.u64(self.log_id);
        output.i64(self.time_us);
        output.i64(self.taken_us);
        output.text(&self.version);
        output.i64(self.horizon.us);
        output.u64(self.horizon.ids_max);
        output.i64(self.lines_retain_us);
        output.u32(self.shards);
        output.into_bytes()
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they are none.
    pub fn load(bytes: &[u8]) -> Result<Self, Broken> {
        let mut input = Input::new(bytes);
        Ok(Self {
            anchor: Anchor {
                position: input.u64()?,
                hash: input.u64()?,
            },
            log_engine: input.text()?.to_owned(),
            log_name: input.text()?.to_owned(),
            log_created_us: input.i64()?,
            log_id: input.u64()?,
            time_us: input.i64()?,
            taken_us: input.i64()?,
            version: input.text()?.to_owned(),
            horizon: Horizon {
                us: input.i64()?,
                ids_max: input.u64()?,
            },
            lines_retain_us: input.i64()?,
            shards: input.u32()?,
        })
    }
}

impl Totals {
    /// Adds what another part of the same checkpoint holds.
    fn add(&mut self, part: &Self) {
        self.digest += part.digest;
        self.skus += part.skus;
        self.cells += part.cells;
        self.lines += part.lines;
        self.sections += part.sections;
        self.bytes += part.bytes;
    }

    /// Into bytes.
    pub fn save(&self) -> Vec<u8> {
        let mut output = Output::new();
        output.u128(self.digest.0);
        for count in [self.skus, self.cells, self.lines, self.sections, self.bytes] {
            output.u64(count);
        }
        output.into_bytes()
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they are none.
    pub fn load(bytes: &[u8]) -> Result<Self, Broken> {
        let mut input = Input::new(bytes);
        Ok(Self {
            digest: Digest(input.u128()?),
            skus: input.u64()?,
            cells: input.u64()?,
            lines: input.u64()?,
            sections: input.u64()?,
            bytes: input.u64()?,
        })
    }
}
