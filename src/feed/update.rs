//! What is delivered: some numbers of one channel, and which positions they bring a receiver to.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message;

use crate::{
    domain::movement::TimeUs,
    log::Position,
    proto::v1 as pb,
    wire::{Encoded, movement::timestamp},
};

/// One SKU's published number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    /// The SKU.
    pub sku: Arc<str>,
    /// Units that the channel may sell.
    pub units: i64,
    /// The number published before, as far as it is known.
    pub before: Option<i64>,
    /// When the oldest change that is in it was appended to the log.
    pub logged_us: TimeUs,
    /// When that occurred.
    pub occurred_us: TimeUs,
}

/// What an update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateKind {
    /// A part of the current state; `position` is 0 but for the last part.
    State,
    /// What changed.
    Changes,
    /// Nothing; the position went on.
    Heartbeat,
}

/// Numbers of one channel. The meaning of its positions is that of `AvailabilityUpdate` in
/// `proto/sellable/v1/feeds.proto`.
#[derive(Debug)]
pub struct Update {
    /// What it is.
    pub kind: UpdateKind,
    /// The channel.
    pub channel: Arc<str>,
    /// Which log the positions are of.
    pub log: Arc<str>,
    /// Who had everything up to here …
    pub after: Position,
    /// … has everything up to here now.
    pub position: Position,
    /// None of the numbers is of a later position.
    pub as_of: Position,
    /// Each SKU at most once.
    pub numbers: Vec<Number>,
    encoded: OnceLock<Bytes>,
}

impl Update {
    /// One that says this.
    pub fn new(
        kind: UpdateKind,
        (channel, log): (&Arc<str>, &Arc<str>),
        [after, position, as_of]: [Position; 3],
        numbers: Vec<Number>,
    ) -> Self {
        Self {
            kind,
            channel: Arc::clone(channel),
            log: Arc::clone(log),
            after,
            position,
            as_of,
            numbers,
            encoded: OnceLock::new(),
        }
    }

    /// When the oldest of its changes occurred, and when it was logged; `None` for what is no change.
    pub fn oldest_us(&self) -> Option<(TimeUs, TimeUs)> {
        if self.kind != UpdateKind::Changes {
            return None;
        }
        let oldest = self.numbers.iter().min_by_key(|number| number.logged_us)?;
        Some((oldest.occurred_us, oldest.logged_us))
    }

    /// The message.
    pub fn to_proto(&self) -> pb::AvailabilityUpdate {
        use pb::availability_update::Kind;
        let kind = match self.kind {
            UpdateKind::State => Kind::State,
            UpdateKind::Changes => Kind::Changes,
            UpdateKind::Heartbeat => Kind::Heartbeat,
        };
        let oldest = self.oldest_us();
        let numbers = self.numbers.iter().map(|number| pb::PublishedNumber {
            sku: number.sku.as_ref().into(),
            units: number.units,
        });
        pb::AvailabilityUpdate {
            kind: kind.into(),
            channel: self.channel.as_ref().into(),
            after_position: self.after,
            position: self.position,
            as_of_position: self.as_of,
            numbers: numbers.collect(),
            oldest_occurred_at: oldest.map(|(us, _)| timestamp(us)),
            oldest_logged_at: oldest.map(|(_, us)| timestamp(us)),
            log: self.log.as_ref().into(),
        }
    }

    /// The message in bytes: encoded once, however many receive it.
    pub fn encoded(&self) -> Encoded {
        let encode = || self.to_proto().encode_to_vec().into();
        Encoded(self.encoded.get_or_init(encode).clone())
    }
}
