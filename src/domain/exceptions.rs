//! Exceptions: business facts that need a person.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    hash::{BuildHasherDefault, Hasher},
    ops::Bound,
    sync::Arc,
};

use smallvec::SmallVec;

use super::{
    keys::LineKind,
    movement::TimeUs,
    saved::{Broken, Input, Output},
};

/// Why a movement is parked: it is in the log, but not in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ParkedKind {
    /// Cannot be decoded, or breaks a documented limit.
    Malformed = 1,
    /// An id that is known, with other content.
    ConflictingDuplicate = 2,
    /// Occurred before the time up to which ids have been forgotten.
    Stale = 3,
    /// The source may not post such a movement, or not for that location.
    UnauthorizedSource = 4,
    /// An inspection without a disposition, or with an unknown one.
    UnknownDisposition = 5,
}

impl ParkedKind {
    /// All kinds.
    pub const ALL: [ParkedKind; 5] = [
        ParkedKind::Malformed,
        ParkedKind::ConflictingDuplicate,
        ParkedKind::Stale,
        ParkedKind::UnauthorizedSource,
        ParkedKind::UnknownDisposition,
    ];

    /// The name of the kind.
    pub const fn name(self) -> &'static str {
        match self {
            ParkedKind::Malformed => "malformed",
            ParkedKind::ConflictingDuplicate => "conflicting_duplicate",
            ParkedKind::Stale => "stale",
            ParkedKind::UnauthorizedSource => "unauthorized_source",
            ParkedKind::UnknownDisposition => "unknown_disposition",
        }
    }

    /// Why a movement is parked as this, and what to do.
    pub const fn advice(self) -> &'static str {
        match self {
            ParkedKind::Malformed => "it cannot be read",
            ParkedKind::ConflictingDuplicate => {
                "its id is known with other content, and the first to arrive counts; release this \
                 one too if both are right, else discard it"
            }
            ParkedKind::Stale => {
                "it occurred before the time up to which ids have been forgotten, so it cannot be \
                 proved new; release it if it is, else discard it"
            }
            ParkedKind::UnauthorizedSource => {
                "the source authority does not let its source post it, or not for that location; \
                 release it if it is right, or correct the authority and send it again"
            }
            ParkedKind::UnknownDisposition => {
                "it has no disposition, or one that is not known; release it with one, or send it \
                 again with one"
            }
        }
    }
}

/// What became of a movement in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// In the books.
    Applied,
    /// Not in the books; a person decides.
    Parked(ParkedKind),
}

/// Kinds of exceptions that are functions of the state: they open when facts do not fit each
/// other, whatever the order they came in, and close when the missing fact arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum StateKind {
    /// More is reserved of a cell than is good.
    Oversold = 16,
    /// A physical balance of a cell is below 0.
    NegativeBalance = 17,
    /// More was shipped of an order line than was reserved and not released.
    ShippedBeyondReserved = 18,
    /// More was received of a transfer line than was shipped and not written off.
    TransferReceivedBeyondShipped = 19,
    /// More was received of an inbound line than was expected and not cancelled.
    ReceivedBeyondExpected = 20,
    /// More was received of a return line than was authorized and not cancelled.
    ReturnReceivedBeyondAuthorized = 21,
    /// More was inspected of a return line at a location than was received there.
    InspectedBeyondReceived = 22,
    /// More was refunded of a return line than was received.
    RefundedBeyondReceived = 23,
    /// Returns name an order line with more units than it shipped.
    ReturnedBeyondShipped = 24,
    /// Supply is outstanding after its eta.
    OverdueSupply = 25,
    /// A snapshot states something else than the books held at its time.
    Variance = 26,
}

impl StateKind {
    /// All kinds.
    pub const ALL: [StateKind; 11] = [
        StateKind::Oversold,
        StateKind::NegativeBalance,
        StateKind::ShippedBeyondReserved,
        StateKind::TransferReceivedBeyondShipped,
        StateKind::ReceivedBeyondExpected,
        StateKind::ReturnReceivedBeyondAuthorized,
        StateKind::InspectedBeyondReceived,
        StateKind::RefundedBeyondReceived,
        StateKind::ReturnedBeyondShipped,
        StateKind::OverdueSupply,
        StateKind::Variance,
    ];

    /// The name of the kind.
    pub const fn name(self) -> &'static str {
        match self {
            StateKind::Oversold => "oversold",
            StateKind::NegativeBalance => "negative_balance",
            StateKind::ShippedBeyondReserved => "shipped_beyond_reserved",
            StateKind::TransferReceivedBeyondShipped => "transfer_received_beyond_shipped",
            StateKind::ReceivedBeyondExpected => "received_beyond_expected",
            StateKind::ReturnReceivedBeyondAuthorized => "return_received_beyond_authorized",
            StateKind::InspectedBeyondReceived => "inspected_beyond_received",
            StateKind::RefundedBeyondReceived => "refunded_beyond_received",
            StateKind::ReturnedBeyondShipped => "returned_beyond_shipped",
            StateKind::OverdueSupply => "overdue_supply",
            StateKind::Variance => "variance",
        }
    }
}

/// Identity of an exception, the same on every instance: a hash of its kind and subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExceptionId(pub u128);

impl std::fmt::Display for ExceptionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What an exception is about: a cell and perhaps its condition, or a line of a document and
/// perhaps a location. Empty where it does not apply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Subject {
    /// The SKU.
    pub sku: Box<str>,
    /// The location.
    pub location: Box<str>,
    /// Order, inbound delivery, transfer or return; of a negative balance, the condition; of a
    /// variance, the snapshot.
    pub document: Box<str>,
    /// Its line; of a variance, the condition.
    pub line: Box<str>,
    /// Of overdue supply, the kind of the document: a delivery and a transfer may have one number.
    pub supply: Option<LineKind>,
}

impl Subject {
    /// The same, borrowed.
    pub fn about(&self) -> About<'_> {
        About {
            sku: &self.sku,
            location: &self.location,
            document: &self.document,
            line: &self.line,
            supply: self.supply,
        }
    }
}

/// A [`Subject`] that belongs to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct About<'a> {
    /// As [`Subject::sku`].
    pub sku: &'a str,
    /// As [`Subject::location`].
    pub location: &'a str,
    /// As [`Subject::document`].
    pub document: &'a str,
    /// As [`Subject::line`].
    pub line: &'a str,
    /// As [`Subject::supply`].
    pub supply: Option<LineKind>,
}

impl About<'_> {
    /// Identity of the exception of this kind about this.
    pub fn id(&self, kind: StateKind) -> ExceptionId {
        let mut bytes: SmallVec<[u8; 128]> = SmallVec::new();
        for text in [
            kind.name(),
            self.sku,
            self.location,
            self.document,
            self.line,
        ] {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
        bytes.extend(self.supply.map(|kind| kind as u8));
        ExceptionId(xxhash_rust::xxh3::xxh3_128(&bytes))
    }

    /// For who keeps it.
    pub fn to_subject(self) -> Subject {
        Subject {
            sku: self.sku.into(),
            location: self.location.into(),
            document: self.document.into(),
            line: self.line.into(),
            supply: self.supply,
        }
    }
}

/// An open exception that is a function of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its kind.
    pub kind: StateKind,
    /// What it is about.
    pub subject: Subject,
    /// By how many units facts do not fit; at least 1. Of a variance, what the snapshot states less
    /// what the books held, and not 0.
    pub units: i64,
    /// When it opened, by the log's time.
    pub first_seen_us: TimeUs,
    /// Who has seen it.
    pub acknowledged: Option<Acknowledged>,
}

impl Open {
    /// What does not fit, in a sentence, and what closes it.
    pub fn reason(&self) -> String {
        let Self { subject, units, .. } = self;
        let Subject {
            sku,
            location,
            document,
            line,
            supply,
        } = subject;
        match self.kind {
            StateKind::Oversold => format!(
                "{units} more units of {sku} are reserved at {location} than are good there; \
                 receive or find stock, or reassign or release orders"
            ),
            StateKind::NegativeBalance => format!(
                "more units of {sku} left {document} at {location} than came in, by {units}; a \
                 receipt is missing, or something was issued twice"
            ),
            StateKind::ShippedBeyondReserved => format!(
                "{units} units of {sku} were shipped for order {document}, line {line}, beyond \
                 what was reserved and not released"
            ),
            StateKind::TransferReceivedBeyondShipped => format!(
                "{units} units of {sku} arrived of transfer {document}, line {line}, beyond what \
                 was shipped and not written off; it may have been counted twice"
            ),
            StateKind::ReceivedBeyondExpected => format!(
                "{units} units of {sku} arrived of inbound delivery {document}, line {line}, \
                 beyond what was expected and not cancelled"
            ),
            StateKind::ReturnReceivedBeyondAuthorized => format!(
                "{units} units of {sku} came back of return {document}, line {line}, beyond what \
                 was authorized and not cancelled; it may have been received twice"
            ),
            StateKind::InspectedBeyondReceived => format!(
                "{units} units of {sku} were inspected at {location} for return {document}, line \
                 {line}, beyond what was received there"
            ),
            StateKind::RefundedBeyondReceived => format!(
                "{units} units of {sku} were refunded for return {document}, line {line}, beyond \
                 what was received"
            ),
            StateKind::ReturnedBeyondShipped => format!(
                "returns name order {document}, line {line}, with {units} more units of {sku} \
                 than were shipped; an RMA may have been issued twice"
            ),
            StateKind::OverdueSupply => {
                let (supply, end) = match supply {
                    Some(LineKind::Transfer) => ("transfer", "close"),
                    _ => ("inbound delivery", "cancel"),
                };
                format!(
                    "{units} units of {sku} of {supply} {document}, line {line}, are overdue; \
                     receive or {end} them, or state a later eta"
                )
            }
            StateKind::Variance => {
                let more = if *units > 0 { "more" } else { "fewer" };
                format!(
                    "snapshot {document} states {} {more} units of {sku} {line} at {location} \
                     than the books held at its time; a movement is missing or wrong, or approve \
                     the correction",
                    units.unsigned_abs()
                )
            }
        }
    }
}

impl Open {
    /// Puts it into a checkpoint.
    pub fn save(&self, output: &mut Output) {
        output.u8(self.kind as u8);
        for text in [
            &self.subject.sku,
            &self.subject.location,
            &self.subject.document,
            &self.subject.line,
        ] {
            output.text(text);
        }
        output.option(self.subject.supply, |output, kind| output.u8(kind as u8));
        output.i64(self.units);
        output.i64(self.first_seen_us);
        output.option(self.acknowledged.as_ref(), |output, seen| seen.save(output));
    }

    /// Takes it from a checkpoint.
    ///
    /// # Errors
    /// If it is none.
    pub fn load(input: &mut Input<'_>) -> Result<Self, Broken> {
        let kind = input.u8()?;
        let kind = StateKind::ALL.into_iter().find(|own| *own as u8 == kind);
        let mut text = || input.text().map(Box::from);
        let subject = Subject {
            sku: text()?,
            location: text()?,
            document: text()?,
            line: text()?,
            supply: None,
        };
        let supply = input.option(Input::u8)?.map(|number| {
            let mut kinds = LineKind::ALL.into_iter();
            let kind = kinds.find(|kind| *kind as u8 == number);
            kind.ok_or(Broken("it has an unknown kind of document"))
        });
        Ok(Self {
            kind: kind.ok_or(Broken("it has an unknown kind of exception"))?,
            subject: Subject {
                supply: supply.transpose()?,
                ..subject
            },
            units: input.i64()?,
            first_seen_us: input.i64()?,
            acknowledged: input.option(Acknowledged::load)?,
        })
    }
}

impl Acknowledged {
    /// Puts it into a checkpoint.
    pub fn save(&self, output: &mut Output) {
        output.text(&self.actor);
        output.i64(self.at_us);
        output.text(&self.note);
    }

    /// Takes it from a checkpoint.
    ///
    /// # Errors
    /// If it is none.
    pub fn load(input: &mut Input<'_>) -> Result<Self, Broken> {
        Ok(Self {
            actor: input.text()?.to_owned(),
            at_us: input.i64()?,
            note: input.text()?.to_owned(),
        })
    }
}

/// A person has seen an exception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Who.
    pub actor: String,
    /// When, by the log's time.
    pub at_us: TimeUs,
    /// What they noted.
    pub note: String,
}

/// What a ledger finds out about an exception when it applies something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is open, with this many units.
    Open(Open),
    /// It was open, and has other units now.
    Changed(ExceptionId, i64),
    /// It is not open.
    Closed(ExceptionId),
}

/// Open exceptions of a ledger. Where much is out of order, or short, nearly every movement changes
/// the units of one, which is one step; the order by age is touched only when one opens or closes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenExceptions {
    /// Each is shared with a checkpoint that is being saved.
    by_id: HashMap<ExceptionId, Arc<Open>, BuildHasherDefault<IdHasher>>,
    /// Oldest first.
    by_age: BTreeSet<(TimeUs, ExceptionId)>,
    counts: BTreeMap<StateKind, u64>,
}

/// Ids are hashes already.
#[derive(Debug, Clone, Copy, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("ids are numbers");
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }
}

impl OpenExceptions {
    /// Takes what a ledger found out.
    pub fn take(&mut self, finding: Finding) {
        match finding {
            Finding::Open(open) => match self.by_id.entry(open.subject.about().id(open.kind)) {
                Entry::Occupied(known) => Arc::make_mut(known.into_mut()).units = open.units,
                Entry::Vacant(place) => {
                    *self.counts.entry(open.kind).or_default() += 1;
                    self.by_age.insert((open.first_seen_us, *place.key()));
                    place.insert(Arc::new(open));
                }
            },
            Finding::Changed(id, units) => {
                // It is there: whoever finds a change has found it open before.
                if let Some(open) = self.by_id.get_mut(&id) {
                    Arc::make_mut(open).units = units;
                }
            }
            Finding::Closed(id) => {
                let Some(closed) = self.by_id.remove(&id) else {
                    return;
                };
                self.by_age.remove(&(closed.first_seen_us, id));
                if let Some(count) = self.counts.get_mut(&closed.kind) {
                    *count -= 1;
                }
            }
        }
    }

    /// Notes that a person has seen one. False if it is not open.
    pub fn acknowledge(&mut self, id: ExceptionId, acknowledged: Acknowledged) -> bool {
        let open = self.by_id.get_mut(&id);
        open.is_some_and(|open| {
            Arc::make_mut(open).acknowledged = Some(acknowledged);
            true
        })
    }

    /// All of them as they are now, to be saved, in no order.
    pub fn all(&self) -> Vec<Arc<Open>> {
        self.by_id.values().cloned().collect()
    }

    /// Whether it is open.
    pub fn contains(&self, id: ExceptionId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Those that come after `after`, oldest first.
    pub fn after(
        &self,
        after: Option<(TimeUs, ExceptionId)>,
    ) -> impl Iterator<Item = (&(TimeUs, ExceptionId), &Open)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.by_age.range((from, Bound::Unbounded));
        found.map(|place| (place, self.open(place)))
    }

    fn open(&self, (_, id): &(TimeUs, ExceptionId)) -> &Open {
        &self.by_id[id]
    }

    /// How many there are, by kind.
    pub fn counts(&self) -> &BTreeMap<StateKind, u64> {
        &self.counts
    }

    /// When the oldest of each kind was first seen.
    pub fn oldest(&self) -> BTreeMap<StateKind, TimeUs> {
        let kinds = self.counts.values().filter(|count| **count > 0).count();
        let mut oldest = BTreeMap::new();
        for place in &self.by_age {
            if oldest.len() == kinds {
                break;
            }
            oldest.entry(self.open(place).kind).or_insert(place.0);
        }
        oldest
    }
}
