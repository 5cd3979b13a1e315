//! From log entries to what the books need: decoded, checked and reduced to keys, off the
//! writers' threads.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use hashbrown::HashMap;

use super::parked::Parked;
use crate::{
    domain::{
        balances::Loc,
        exceptions::ParkedKind,
        keys::{Keyer, MovementKey},
        movement::{Kind, Movement, TimeUs},
        posting::{Effect, Fact, Posting},
    },
    limits::{ID_BYTES_MAX, LINE_BYTES_MAX, STEP_MOVEMENTS_MAX, STEP_MOVEMENTS_OF_SHARD},
    log::{Entry, Lane, LogError, MediaType, Position},
    proto::v1::{self as pb, command::Command},
    shard::{Locations, Sources, worker::NamesAt},
    wire::{
        Found, Malformed, Unreadable, borrowed,
        media::{Scratch, decode_payload, of_source},
        movement::disposition,
        record::{Body, CommandView, read_record},
    },
};

/// Facts of one or several entries, in log order.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The entries they came in.
    pub(crate) entries: Vec<Head>,
    pub(crate) items: Vec<Item>,
    /// Names of SKUs, where items point to.
    pub(crate) names: String,
}

/// An entry and its share of the items.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) position: Position,
    pub(crate) time_us: TimeUs,
    /// The instance that wrote it, and its token; `None`: a producer.
    pub(crate) origin: Option<(u64, u64)>,
    pub(crate) items: Range<usize>,
    /// What of it cannot be applied.
    pub(crate) malformed: Vec<Parked>,
    lane: Lane,
    payload: Bytes,
}

/// One movement, reduced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    pub(crate) key: MovementKey,
    pub(crate) content: u64,
    /// Stale if ids that arrived after this have been forgotten.
    pub(crate) known_after_us: TimeUs,
    pub(crate) posting: Posting,
    pub(crate) names: NamesAt,
    /// Number of its source, among the sources.
    pub(crate) source: u32,
    /// Number of its kind.
    pub(crate) kind: u8,
    /// Where its source acts.
    pub(crate) acts_at: Option<Loc>,
    /// An inspection that says nothing about what becomes of the units.
    pub(crate) lacks_disposition: bool,
    /// Place within its entry.
    pub(crate) index: u32,
    raw: (u32, u32),
}

/// What is to be done next, in log order.
#[derive(Debug)]
pub(crate) enum Decoded {
    Facts(Facts),
    Rules(At, pb::RulesPut),
    Authority(At, pb::AuthorityPut),
    Commands(At, Vec<Asked>),
    Resolve(At, Box<Resolve>),
    Comparison(At, Box<pb::Comparison>),
    /// How far a webhook has got.
    Delivery(At, pb::DeliveryProgress),
    /// Published numbers are to be delivered once more.
    Republish(At, pb::Republish),
}

/// Where in the log a record is, and who wrote it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) position: Position,
    pub(crate) time_us: TimeUs,
    /// The instance, and its token.
    pub(crate) origin: (u64, u64),
}

/// A command.
#[derive(Debug)]
pub(crate) enum Asked {
    /// To reserve: its request as it lies in the log, which is plain.
    Reserve {
        request: Bytes,
        lines: usize,
    },
    Other(pb::Command),
}

impl Asked {
    /// How many lines it brings; 1 if they are those of a reservation that was made before.
    pub(crate) fn lines(&self) -> usize {
        match self {
            Self::Reserve { lines, .. } => *lines,
            Self::Other(command) => match &command.command {
                Some(Command::Reserve(reserve)) => reserve.lines.len(),
                _ => 1,
            },
        }
    }
}

/// What a person decided about an exception.
#[derive(Debug)]
pub(crate) struct Resolve {
    pub(crate) resolve: pb::ResolveException,
    /// The movement that is released, or why it cannot be read.
    pub(crate) movement: Result<(Item, String), String>,
}

/// Decodes entries. Makes the log's time monotonic, so it must see them in order.
pub(crate) struct Decoder {
    interner: Interner,
    now_us: TimeUs,
    scratch: Scratch,
    facts: Facts,
    /// With so many, facts are a step.
    step_movements: usize,
}

/// Gives names numbers and keys.
struct Interner {
    locations: Arc<Locations>,
    sources: Arc<Sources>,
    /// Numbers of locations that were met; spares the shared table.
    known: HashMap<Box<str>, Loc>,
    /// The source met last, and its number: there are few, and they come in runs.
    last_source: (String, u32),
    keyer: Keyer,
}

impl Interner {
    /// Reduces a movement that was checked.
    #[inline]
    fn item(
        &mut self,
        movement: &Movement<'_>,
        names: &mut String,
        index: u32,
        raw: (u32, u32),
    ) -> Item {
        let Self {
            locations,
            sources,
            known,
            last_source,
            keyer,
        } = self;
        let mut number = |name: &str| match known.get(name) {
            Some(loc) => *loc,
            None => {
                let loc = locations.number(name);
                known.insert(name.into(), loc);
                loc
            }
        };
        let acts_at = movement.kind.acts_at().map(&mut number);
        if last_source.0 != movement.source {
            *last_source = (
                movement.source.to_owned(),
                sources.number(movement.source).0,
            );
        }
        let key = keyer.movement(movement.source, movement.id);
        let fact = Fact::of(movement, key, last_source.1);
        let posting = Posting::of(movement, keyer, fact, number);
        Item {
            key,
            content: keyer.content(movement),
            known_after_us: known_after_us(&posting),
            names: put_names(movement, &posting, names),
            posting,
            source: last_source.1,
            kind: movement.kind.number(),
            acts_at,
            lacks_disposition: matches!(
                movement.kind,
                Kind::ReturnInspected {
                    disposition: None,
                    ..
                }
            ),
            index,
            raw,
        }
    }
}

/// The movement is stale if ids that arrived after this have been forgotten: of a count, all that
/// occurred since has to be known.
fn known_after_us(posting: &Posting) -> TimeUs {
    match posting.effect {
        Effect::Count { as_of_us, .. } => as_of_us,
        _ => posting.fact.occurred_us,
    }
}

/// Puts the names of a movement behind the others.
#[inline]
fn put_names(movement: &Movement<'_>, posting: &Posting, names: &mut String) -> NamesAt {
    let at = names.len() as u32;
    let mut lens = [movement.sku.len() as u8, 0, 0, 0, 0];
    names.push_str(movement.sku);
    if let (Effect::Line { .. }, Some((document, line))) =
        (posting.effect, movement.kind.document())
    {
        names.push_str(document);
        names.push_str(line);
        (lens[1], lens[2]) = (document.len() as u8, line.len() as u8);
        if let Kind::ReturnAuthorized {
            order: Some((order, line)),
            ..
        } = movement.kind
        {
            names.push_str(order);
            names.push_str(line);
            (lens[3], lens[4]) = (order.len() as u8, line.len() as u8);
        }
    }
    if let Effect::Count { .. } = posting.effect {
        names.push_str(movement.id);
        names.push_str(movement.source);
        (lens[1], lens[2]) = (movement.id.len() as u8, movement.source.len() as u8);
    }
    NamesAt { at, lens }
}

const _: () = assert!(ID_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(LINE_BYTES_MAX <= u8::MAX as usize);

impl Decoder {
    /// One that goes on after entries of which the last had this time of the log; 0: there were
    /// none. What it decodes is for so many shards.
    pub(crate) fn going_on_at(
        now_us: TimeUs,
        locations: Arc<Locations>,
        sources: Arc<Sources>,
        shards: usize,
    ) -> Self {
        Self {
            interner: Interner {
                locations,
                sources,
                known: HashMap::new(),
                last_source: (String::new(), u32::MAX),
                keyer: Keyer::new(),
            },
            now_us,
            scratch: Scratch::default(),
            facts: Facts::default(),
            step_movements: STEP_MOVEMENTS_MAX.min(STEP_MOVEMENTS_OF_SHARD * shards),
        }
    }

    /// Decodes the next entry and adds what there is to be done to `steps`. Facts of neighbouring
    /// entries make one step, so those of the last ones are kept until [`Decoder::rest`] asks for
    /// them.
    ///
    /// # Errors
    /// If an instance of a later version wrote it: to go on would be to decide otherwise than it
    /// does.
    pub(crate) fn decode(
        &mut self,
        entry: Entry,
        steps: &mut Vec<Decoded>,
    ) -> Result<(), LogError> {
        self.now_us = self.now_us.max(entry.time_us);
        let mut facts = std::mem::take(&mut self.facts);
        match entry.lane {
            Lane::Record => self.record(entry, &mut facts, steps)?,
            Lane::Producer { .. } => self.message(entry, &mut facts)?,
        }
        self.facts = facts;
        if self.facts.items.len() >= self.step_movements {
            steps.extend(self.rest());
        }
        Ok(())
    }

    /// The facts that were kept, if there are any.
    pub(crate) fn rest(&mut self) -> Option<Decoded> {
        if self.facts.entries.is_empty() {
            return None;
        }
        // Where entries fill a step, they do so again; one large batch says nothing of the next.
        let full = self.step_movements..=2 * self.step_movements;
        let next = if full.contains(&self.facts.items.len()) {
            Facts {
                entries: Vec::with_capacity(self.facts.entries.len()),
                items: Vec::with_capacity(self.facts.items.len()),
                names: String::with_capacity(self.facts.names.len()),
            }
        } else {
            Facts::default()
        };
        Some(Decoded::Facts(std::mem::replace(&mut self.facts, next)))
    }

    fn record(
        &mut self,
        entry: Entry,
        facts: &mut Facts,
        steps: &mut Vec<Decoded>,
    ) -> Result<(), LogError> {
        let payload = entry.payload.clone();
        let record = match read_record(&payload) {
            Ok(record) => record,
            Err(error) => return self.unreadable(entry, None, error, facts),
        };
        let origin = (record.instance, record.token);
        let at = At {
            position: entry.position,
            time_us: self.now_us,
            origin,
        };
        let step = match record.body {
            Body::Tick => return self.facts(entry, Some(origin), facts, |_, _| Ok(())),
            Body::Movements(movements) => {
                return self.facts(entry, Some(origin), facts, |_, visit| {
                    movements.for_each(visit).map(drop)
                });
            }
            Body::Rules(put) => Decoded::Rules(at, put),
            Body::Authority(put) => Decoded::Authority(at, put),
            Body::Commands(commands) => {
                let asked = |command| match command {
                    CommandView::Reserve(request, lines) => Asked::Reserve {
                        request: payload.slice_ref(request),
                        lines,
                    },
                    CommandView::Other(command) => Asked::Other(command),
                };
                Decoded::Commands(at, commands.into_iter().map(asked).collect())
            }
            Body::Comparison(comparison) => Decoded::Comparison(at, comparison),
            Body::Delivery(progress) => Decoded::Delivery(at, progress),
            Body::Republish(republish) => Decoded::Republish(at, republish),
            Body::Resolve(resolve) => {
                let movement = self.released(&resolve);
                Decoded::Resolve(at, Box::new(Resolve { resolve, movement }))
            }
        };
        if !facts.entries.is_empty() {
            steps.push(Decoded::Facts(std::mem::take(facts)));
        }
        steps.push(step);
        Ok(())
    }

    /// Reads the movement that is to be released again, with the disposition that it is given.
    fn released(&mut self, resolve: &pb::ResolveException) -> Result<(Item, String), String> {
        if resolve.resolution() != pb::Resolution::Release {
            return Err(String::new());
        }
        let payload = Bytes::copy_from_slice(&resolve.original);
        let mut found = None;
        let mut scratch = std::mem::take(&mut self.scratch);
        let given = disposition(resolve.disposition);
        let mut take = |read: Found<'_>| {
            let movement = read.movement.and_then(|mut movement| {
                if let Kind::ReturnInspected { disposition, .. } = &mut movement.kind
                    && disposition.is_none()
                {
                    *disposition = given;
                }
                movement.check(self.now_us)?;
                Ok(movement)
            });
            let item = movement.map_err(|invalid| invalid.to_string());
            found.get_or_insert(item.map(|movement| {
                let mut names = String::new();
                let item = self.interner.item(&movement, &mut names, 0, (0, 0));
                (item, names)
            }));
        };
        let read = if resolve.content_type == JSON {
            let lane = Lane::Producer {
                source: resolve.source.as_str().into(),
                media_type: MediaType::Json,
            };
            decode_payload(&lane, &payload, &mut scratch, &mut take)
                .map(drop)
                .map_err(|error| error.to_string())
        } else {
            borrowed::read_movement(0, &payload)
                // A person's decision does not let one source speak for another.
                .map(|mut read| {
                    of_source(&mut read, &resolve.source);
                    take(read);
                })
                .map_err(|error| error.to_string())
        };
        self.scratch = scratch;
        read?;
        found.unwrap_or_else(|| Err("there is no movement in it".into()))
    }

    fn message(&mut self, entry: Entry, facts: &mut Facts) -> Result<(), LogError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let taken = self.facts(entry, None, facts, |entry, visit| {
            decode_payload(&entry.lane, &entry.payload, &mut scratch, visit).map(drop)
        });
        self.scratch = scratch;
        taken
    }

    /// Takes the facts of one entry, which `read` hands to its visitor.
    fn facts(
        &mut self,
        entry: Entry,
        origin: Option<(u64, u64)>,
        facts: &mut Facts,
        read: impl FnOnce(&Entry, &mut dyn FnMut(Found<'_>)) -> Result<(), Unreadable>,
    ) -> Result<(), LogError> {
        let Self {
            interner, now_us, ..
        } = self;
        let (items_before, names_before) = (facts.items.len(), facts.names.len());
        let mut malformed = Vec::new();
        let result = read(&entry, &mut |found: Found<'_>| {
            // Not moved: it is large.
            let checked = match &found.movement {
                Ok(movement) => movement.check(*now_us).map(|()| movement),
                Err(invalid) => Err(invalid.clone()),
            };
            let movement = match checked {
                Ok(movement) => movement,
                Err(invalid) => {
                    malformed.push(Parked {
                        kind: ParkedKind::Malformed,
                        position: entry.position,
                        index: found.index as u32,
                        first_seen_us: *now_us,
                        source: found.source.to_owned(),
                        id: found.id.to_owned(),
                        reason: format!("{invalid}{SEND_AGAIN}"),
                        original: entry.payload.slice_ref_or_copy(found.raw),
                        media_type: media_type(&entry.lane, found.raw).to_owned(),
                        occurrences: 1,
                        acknowledged: None,
                    });
                    return;
                }
            };
            let raw = range_in(&entry.payload, found.raw);
            let item = interner.item(movement, &mut facts.names, found.index as u32, raw);
            facts.items.push(item);
        });
        if let Err(error) = result {
            facts.items.truncate(items_before);
            facts.names.truncate(names_before);
            return self.unreadable(entry, origin, error, facts);
        }
        facts.entries.push(Head {
            position: entry.position,
            time_us: self.now_us,
            origin,
            items: items_before..facts.items.len(),
            malformed,
            lane: entry.lane,
            payload: entry.payload,
        });
        Ok(())
    }

    fn unreadable(
        &self,
        entry: Entry,
        origin: Option<(u64, u64)>,
        error: Unreadable,
        facts: &mut Facts,
    ) -> Result<(), LogError> {
        let malformed = match error {
            Unreadable::Malformed(malformed) => malformed,
            Unreadable::FutureVersion(_) => {
                return Err(LogError::Setup(format!(
                    "the record at position {} {error}; run this instance with the version that \
                     wrote it, or a later one",
                    entry.position
                )));
            }
        };
        let whole = self.whole_message(&entry, &malformed);
        facts.entries.push(Head {
            position: entry.position,
            time_us: self.now_us,
            origin,
            items: facts.items.len()..facts.items.len(),
            malformed: vec![whole],
            lane: entry.lane,
            payload: entry.payload,
        });
        Ok(())
    }

    fn whole_message(&self, entry: &Entry, malformed: &Malformed) -> Parked {
        let source = match &entry.lane {
            Lane::Record => String::new(),
            Lane::Producer { source, .. } => source.to_string(),
        };
        Parked {
            kind: ParkedKind::Malformed,
            position: entry.position,
            index: 0,
            first_seen_us: self.now_us,
            source,
            id: String::new(),
            reason: format!("{malformed}{SEND_AGAIN}"),
            original: entry.payload.clone(),
            media_type: media_type(&entry.lane, &entry.payload).to_owned(),
            occurrences: 1,
            acknowledged: None,
        }
    }
}

impl Head {
    /// Parks one of its items, which was read well, for a reason that the log's order gave.
    pub(crate) fn park(&self, item: &Item, kind: ParkedKind) -> Parked {
        let (from, to) = (item.raw.0 as usize, item.raw.1 as usize);
        let original = self.payload.slice(from..to);
        let (source, id) = self.identity_of(&original);
        Parked {
            kind,
            position: self.position,
            index: item.index,
            first_seen_us: self.time_us,
            source,
            id,
            reason: kind.advice().to_owned(),
            media_type: media_type(&self.lane, &original).to_owned(),
            original,
            occurrences: 1,
            acknowledged: None,
        }
    }

    /// Source and id, read again: few are parked, so they are not kept for all.
    fn identity_of(&self, raw: &[u8]) -> (String, String) {
        let mut identity = None;
        let mut note = |found: Found<'_>| {
            identity.get_or_insert((found.source.to_owned(), found.id.to_owned()));
        };
        let json = media_type(&self.lane, raw) == JSON;
        match &self.lane {
            Lane::Producer { .. } if json => {
                // Nothing to do if it cannot be read: then there is no identity.
                let _ = decode_payload(&self.lane, raw, &mut Scratch::default(), note);
            }
            lane => {
                if let Ok(found) = borrowed::read_movement(0, raw) {
                    note(found);
                }
                if let (Lane::Producer { source, .. }, Some(found)) = (lane, &mut identity) {
                    found.0 = source.to_string();
                }
            }
        }
        identity.unwrap_or_default()
    }
}

/// What helps against everything malformed: none of it counts, so it cannot count twice.
const SEND_AGAIN: &str = "; correct it and send it again";

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";

fn media_type<'l>(lane: &'l Lane, raw: &[u8]) -> &'l str {
    match lane {
        Lane::Record => PROTOBUF,
        Lane::Producer { media_type, .. } => match media_type {
            MediaType::Protobuf => PROTOBUF,
            MediaType::Json => JSON,
            MediaType::Unstated if matches!(raw.first(), Some(b'{' | b'[')) => JSON,
            MediaType::Unstated => PROTOBUF,
            MediaType::Other(name) => name,
        },
    }
}

/// Where `part` lies in `payload`; all of it, if it lies elsewhere.
fn range_in(payload: &Bytes, part: &[u8]) -> (u32, u32) {
    let offset = (part.as_ptr() as usize).wrapping_sub(payload.as_ptr() as usize);
    match offset.checked_add(part.len()) {
        Some(end) if offset <= payload.len() && end <= payload.len() => (offset as u32, end as u32),
        _ => (0, payload.len() as u32),
    }
}

trait SliceRef {
    fn slice_ref_or_copy(&self, part: &[u8]) -> Bytes;
}

impl SliceRef for Bytes {
    fn slice_ref_or_copy(&self, part: &[u8]) -> Bytes {
        match range_in(self, part) {
            (from, to) if (to - from) as usize == part.len() => {
                self.slice(from as usize..to as usize)
            }
            _ => Bytes::copy_from_slice(part),
        }
    }
}
