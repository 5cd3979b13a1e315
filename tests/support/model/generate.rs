//! Histories: realistic ones, that mostly add up, and nasty ones.

use proptest::{prelude::*, sample::subsequence};
use sellable::domain::movement::{Condition, Disposition, TimeUs};

use super::fact::{Fact, Line, OCCURRED_US, What};

/// In another order by name than any order in which they are likely to arrive.
pub(crate) const LOCATIONS: [&str; 5] = ["m-store", "a-store", "z-dc", "k-3pl", "B-dc"];
pub(crate) const SKUS: [&str; 3] = ["4006381333931", "tee-red-M", "tee-red-L"];
const CONDITIONS: [Condition; 4] = [
    Condition::Good,
    Condition::Quarantined,
    Condition::Damaged,
    Condition::ReturnPending,
];
const DISPOSITIONS: [Disposition; 6] = [
    Disposition::Restock,
    Disposition::Refurbish,
    Disposition::Quarantine,
    Disposition::VendorReturn,
    Disposition::Liquidate,
    Disposition::Scrap,
];

/// Expiries, etas and the times of the log are multiples of this, so that they meet.
pub(crate) const STEP_US: TimeUs = 10_000_000;
/// The log's time goes on by at most so many steps.
pub(crate) const STEPS_MAX: i64 = 8;

/// A time of the log.
pub(crate) fn at_step(step: i64) -> TimeUs {
    OCCURRED_US + step * STEP_US
}

/// A history.
#[derive(Debug, Clone)]
pub(crate) struct History {
    /// Each of them once.
    pub(crate) facts: Vec<Fact>,
    /// Other contents for ids of facts, by their place: of each id, what arrives first counts.
    pub(crate) conflicts: Vec<(usize, i64)>,
    /// The log's time at the end.
    pub(crate) end_us: TimeUs,
    /// What permutations, duplicates, batches and times are drawn from.
    pub(crate) seed: u64,
}

/// A fact without an id.
pub(crate) type Event = (&'static str, i64, What);

pub(crate) fn location() -> impl Strategy<Value = String> {
    prop::sample::select(&LOCATIONS[..]).prop_map(str::to_owned)
}

/// Orders, deliveries, transfers and returns all have the same numbers.
fn line() -> impl Strategy<Value = Line> {
    (0..2, 0..2).prop_map(|(document, line)| (format!("doc-{document}"), format!("{line}")))
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![3 => Just(Condition::Good), 2 => prop::sample::select(&CONDITIONS[..])]
}

fn disposition() -> impl Strategy<Value = Disposition> {
    prop::sample::select(&DISPOSITIONS[..])
}

/// Small ones, that meet; and some so large that a few of them need more than 32 bits.
pub(crate) fn quantity() -> impl Strategy<Value = i64> {
    prop_oneof![40 => 1..30i64, 1 => 900_000_000..=1_000_000_000i64]
}

/// An expiry or an eta: before, within, or long after the history; or none.
pub(crate) fn moment() -> impl Strategy<Value = Option<TimeUs>> {
    prop_oneof![
        2 => Just(None),
        5 => (-2..STEPS_MAX + 2).prop_map(|step| Some(at_step(step))),
        1 => (0..3i64).prop_map(|us| Some(at_step(3) + us - 1)),
    ]
}

/// A count of some conditions, told a while later.
pub(crate) fn counted() -> impl Strategy<Value = What> {
    let units = prop::option::weighted(0.4, prop_oneof![2 => Just(0), 8 => 0..40i64]);
    let some = prop::array::uniform4(units)
        .prop_filter("something", |units| units.iter().any(Option::is_some));
    let before = prop_oneof![1 => Just(0), 1 => (0..8i64).prop_map(|seconds| seconds * 1_000_000)];
    (location(), before, some)
        .prop_map(|(at, before_us, units)| What::Counted(at, before_us, units))
}

/// Anything that can happen.
fn what() -> impl Strategy<Value = What> {
    let at = location;
    let two = || (at(), at()).prop_filter("it moves", |(from, to)| from != to);
    let conditions = (condition(), condition()).prop_filter("it changes", |(from, to)| from != to);
    let stock = prop_oneof![
        8 => (at(), condition()).prop_map(|(at, to)| What::Received(at, to)),
        2 => (at(), condition()).prop_map(|(at, from)| What::Issued(at, from)),
        2 => (at(), conditions).prop_map(|(at, (from, to))| What::Reclassified(at, from, to)),
        2 => (at(), condition()).prop_map(|(at, to)| What::Adjusted(at, to)),
        3 => counted(),
    ];
    let order = prop_oneof![
        6 => (line(), at(), moment()).prop_map(|(line, at, us)| What::Reserved(line, at, us)),
        3 => (line(), prop::option::of(at())).prop_map(|(line, at)| What::Released(line, at)),
        3 => (line(), two()).prop_map(|(line, (from, to))| What::Reassigned(line, from, to)),
        1 => (line(), at()).prop_map(|(line, at)| What::Picked(line, at)),
        1 => (line(), at()).prop_map(|(line, at)| What::Packed(line, at)),
        4 => (line(), at()).prop_map(|(line, at)| What::Shipped(line, at)),
    ];
    let supply = prop_oneof![
        4 => (line(), at(), moment()).prop_map(|(line, at, us)| What::Expected(line, at, us)),
        4 => (line(), at(), condition()).prop_map(|(line, at, to)| What::ReceivedOf(line, at, to)),
        2 => line().prop_map(What::SupplyCancelled),
        4 => (line(), two(), moment())
            .prop_map(|(line, (from, to), us)| What::Dispatched(line, from, to, us)),
        4 => (line(), at(), condition()).prop_map(|(line, at, to)| What::Arrived(line, at, to)),
        2 => line().prop_map(What::Lost),
    ];
    let returns = prop_oneof![
        4 => (line(), at(), prop::option::of(line()))
            .prop_map(|(line, at, order)| What::Authorized(line, at, order)),
        2 => line().prop_map(What::ReturnCancelled),
        4 => (line(), at()).prop_map(|(line, at)| What::Returned(line, at)),
        6 => (line(), at(), prop::option::weighted(0.95, disposition()))
            .prop_map(|(line, at, disposition)| What::Inspected(line, at, disposition)),
        2 => line().prop_map(What::Refunded),
    ];
    prop_oneof![2 => stock, 3 => order, 3 => supply, 4 => returns]
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    let sku = prop::sample::select(&SKUS[..]);
    (sku, quantity(), any::<bool>(), what()).prop_map(|(sku, quantity, minus, what)| {
        let signed = matches!(what, What::Adjusted(..)) && minus;
        let quantity = if what.is_count() { 0 } else { quantity };
        (sku, if signed { -quantity } else { quantity }, what)
    })
}

/// What one story is made of.
#[derive(Debug, Clone)]
struct Plot {
    line: Line,
    /// The order line of a return, if it is not the one of the same number.
    order: Option<Line>,
    sku: &'static str,
    from: String,
    to: String,
    quantity: i64,
    /// How much of it comes first; the rest comes later.
    part: i64,
    us: Option<TimeUs>,
    dispositions: (Disposition, Disposition),
    condition: Condition,
    twist: Twist,
}

/// What is unusual about a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Twist {
    Nothing,
    /// The rest does not come.
    Half,
    /// More comes than was said.
    TooMuch,
    /// What opens the line is missing.
    NoBeginning,
    /// All of it is withdrawn after all.
    LateCancel,
    /// The rest comes elsewhere.
    Elsewhere,
}

fn plot() -> impl Strategy<Value = Plot> {
    let twist = prop_oneof![
        5 => Just(Twist::Nothing),
        2 => Just(Twist::Half),
        1 => Just(Twist::TooMuch),
        1 => Just(Twist::NoBeginning),
        1 => Just(Twist::LateCancel),
        1 => Just(Twist::Elsewhere),
    ];
    let two = (location(), location()).prop_filter("it moves", |(from, to)| from != to);
    let sku = prop::sample::select(&SKUS[..]);
    let order = prop::option::weighted(0.3, line());
    let dispositions = (disposition(), disposition());
    let about = (line(), order, sku, two, quantity(), 0..=100i64);
    (about, moment(), dispositions, condition(), twist).prop_map(
        |(
            (line, order, sku, (from, to), quantity, percent),
            us,
            dispositions,
            condition,
            twist,
        )| {
            Plot {
                line,
                order,
                sku,
                from,
                to,
                quantity,
                part: quantity * percent / 100,
                us,
                dispositions,
                condition,
                twist,
            }
        },
    )
}

impl Plot {
    /// How much comes later.
    fn rest(&self) -> i64 {
        match self.twist {
            Twist::TooMuch => self.quantity - self.part + 1,
            Twist::Half => 0,
            _ => self.quantity - self.part,
        }
    }

    fn end(&self) -> &String {
        if self.twist == Twist::Elsewhere {
            &self.to
        } else {
            &self.from
        }
    }

    /// Of what happens, what has units.
    fn events(&self, all: Vec<(i64, What)>) -> Vec<Event> {
        let skipped = usize::from(self.twist == Twist::NoBeginning);
        let mut all: Vec<_> = all.into_iter().skip(skipped).collect();
        all.retain(|(units, _)| *units > 0);
        let event = |(units, what): (i64, What)| (self.sku, units.min(1_000_000_000), what);
        all.into_iter().map(event).collect()
    }

    /// A customer's order, reserved, perhaps moved, shipped in two parts or released.
    fn order(&self) -> Vec<Event> {
        let (line, at) = (&self.line, &self.from);
        let moved = if self.twist == Twist::Elsewhere {
            self.part
        } else {
            0
        };
        let released = if self.twist == Twist::LateCancel {
            self.quantity
        } else {
            0
        };
        let what = vec![
            (
                self.quantity,
                What::Reserved(line.clone(), at.clone(), self.us),
            ),
            (self.quantity, What::Received(at.clone(), Condition::Good)),
            (
                moved,
                What::Reassigned(line.clone(), at.clone(), self.to.clone()),
            ),
            (self.part, What::Picked(line.clone(), at.clone())),
            (self.part, What::Shipped(line.clone(), self.end().clone())),
            (self.rest(), What::Shipped(line.clone(), at.clone())),
            (released, What::Released(line.clone(), None)),
        ];
        self.events(what)
    }

    /// A delivery that was announced, comes in two parts, or is cancelled.
    fn inbound(&self) -> Vec<Event> {
        let (line, at) = (&self.line, &self.from);
        let cancelled = if self.twist == Twist::LateCancel {
            self.quantity
        } else {
            0
        };
        let what = vec![
            (
                self.quantity,
                What::Expected(line.clone(), at.clone(), self.us),
            ),
            (
                self.part,
                What::ReceivedOf(line.clone(), at.clone(), Condition::Good),
            ),
            (
                self.rest(),
                What::ReceivedOf(line.clone(), self.end().clone(), self.condition),
            ),
            (cancelled, What::SupplyCancelled(line.clone())),
        ];
        self.events(what)
    }

    /// A transfer that arrives in two parts, of which some may be lost.
    fn transfer(&self) -> Vec<Event> {
        let (line, from, to) = (&self.line, &self.from, &self.to);
        let end = if self.twist == Twist::Elsewhere {
            from
        } else {
            to
        };
        let lost = if self.twist == Twist::LateCancel {
            self.quantity
        } else {
            0
        };
        let shrunk = if self.twist == Twist::Half {
            self.quantity - self.part
        } else {
            0
        };
        let what = vec![
            (
                self.quantity,
                What::Dispatched(line.clone(), from.clone(), to.clone(), self.us),
            ),
            (self.quantity, What::Received(from.clone(), Condition::Good)),
            (
                self.part,
                What::Arrived(line.clone(), to.clone(), Condition::Good),
            ),
            (
                self.rest(),
                What::Arrived(line.clone(), end.clone(), self.condition),
            ),
            (lost.max(shrunk), What::Lost(line.clone())),
        ];
        self.events(what)
    }

    /// A return that comes in two parts, is inspected, and refunded.
    fn returns(&self) -> Vec<Event> {
        let (line, at, end) = (&self.line, &self.from, self.end());
        let order = Some(self.order.clone().unwrap_or(line.clone()));
        let cancelled = if self.twist == Twist::LateCancel {
            self.quantity
        } else {
            0
        };
        let (first, second) = self.dispositions;
        let inspected =
            |at: &String, disposition| What::Inspected(line.clone(), at.clone(), Some(disposition));
        let what = vec![
            (
                self.quantity,
                What::Authorized(line.clone(), at.clone(), order),
            ),
            (self.part, What::Returned(line.clone(), at.clone())),
            (self.rest(), What::Returned(line.clone(), end.clone())),
            (self.part, inspected(at, first)),
            (self.rest() / 2, inspected(end, second)),
            (
                self.rest() - self.rest() / 2,
                inspected(end, Disposition::Restock),
            ),
            (self.part + self.rest(), What::Refunded(line.clone())),
            (cancelled, What::ReturnCancelled(line.clone())),
        ];
        self.events(what)
    }
}

fn story() -> impl Strategy<Value = Vec<Event>> {
    (plot(), 0..4).prop_map(|(plot, kind)| match kind {
        0 => plot.order(),
        1 => plot.inbound(),
        2 => plot.transfer(),
        _ => plot.returns(),
    })
}

fn stories() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(story(), 1..9).prop_map(|stories| stories.concat())
}

/// Stories of which some facts got lost.
fn parts_of_stories() -> impl Strategy<Value = Vec<Event>> {
    stories().prop_flat_map(|events| {
        let len = events.len();
        subsequence(events, len / 2..=len)
    })
}

/// Facts with an id each, that occurred some seconds before the last ones. Stories are told in
/// order, and occurred in any: a source's clock may be wrong.
fn numbered((events, seconds): (Vec<Event>, Vec<i64>)) -> Vec<Fact> {
    let number = |(n, (sku, quantity, what)): (usize, Event)| Fact {
        id: format!("m{n}"),
        sku: sku.to_owned(),
        quantity,
        occurred_us: OCCURRED_US - seconds[n % seconds.len()] * 1_000_000,
        what,
    };
    events.into_iter().enumerate().map(number).collect()
}

/// Facts, each with an id of its own.
pub(crate) fn facts() -> impl Strategy<Value = Vec<Fact>> {
    let nasty = prop::collection::vec(event(), 1..60);
    let mixed = (parts_of_stories(), prop::collection::vec(event(), 0..12));
    let events = prop_oneof![
        3 => nasty,
        3 => stories(),
        2 => mixed.prop_map(|(stories, events)| [stories, events].concat()),
    ];
    let sku = || prop::sample::select(&SKUS[..]);
    let counts = prop::collection::vec((sku(), Just(0), counted()), 0..6);
    let events = (events, prop_oneof![Just(Vec::new()), counts])
        .prop_map(|(events, counts)| [events, counts].concat());
    // Some at the same moment.
    (events, prop::collection::vec(0..10i64, 20..60)).prop_map(numbered)
}

/// Histories. One in five has conflicting duplicates.
pub(crate) fn history() -> impl Strategy<Value = History> {
    let conflict = (any::<prop::sample::Index>(), 1..30i64);
    let conflicts = prop_oneof![
        4 => Just(Vec::new()),
        1 => prop::collection::vec(conflict, 1..4),
    ];
    (facts(), conflicts, 0..=STEPS_MAX, any::<u64>()).prop_map(|(facts, conflicts, end, seed)| {
        History {
            conflicts: conflicts
                .into_iter()
                .filter(|_| !facts.is_empty())
                .map(|(place, more)| (place.index(facts.len()), more))
                .collect(),
            facts,
            end_us: at_step(end),
            seed,
        }
    })
}
