//! What is sent and when: a function of the scenario and its seed, and of nothing else.
//!
//! What becomes of a cart is drawn before it is sent, also if it is then refused: so the requests
//! do not depend on the answers, and two runs with one seed plan the same, which [`Plan::digest`]
//! shows. What cannot be sent after all (the order of a cart that was refused) is passed over and
//! counted.

mod digest;
mod shopping;
mod stock;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{
    catalogue::Catalogue,
    orders::{Fate, OrderNumber},
    ramps::Ramps,
    random::Random,
    replay::Recording,
    scenario::Scenario,
};
use digest::Digest;
use shopping::Shopping;
pub use shopping::{Cart, CartLine};
use stock::Stock;
pub use stock::{Change, Move};

/// One planned call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// What a channel may sell of these SKUs.
    Query {
        /// Number of the channel.
        channel: usize,
        /// Different SKUs.
        skus: Vec<u32>,
    },
    /// A cart is reserved.
    Reserve(Cart),
    /// Its order is placed.
    Confirm(OrderNumber),
    /// It is given back.
    Release(OrderNumber),
    /// The order is shipped.
    Ship(OrderNumber),
    /// All of the order comes back, and is restocked.
    Return(OrderNumber),
    /// Movements in one message, numbered on from the first.
    Move {
        /// Number of the first.
        first: u64,
        /// The movements.
        moves: Vec<Move>,
    },
    /// A freshness probe, by its number.
    Probe(u64),
    /// Recorded movements in one message: so many from the first on.
    Replay {
        /// Place of the first in the recording.
        first: usize,
        /// How many.
        count: usize,
    },
}

/// Kinds of calls that start by themselves; what follows a cart comes out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Query,
    Reserve,
    Move,
    Return,
    Probe,
}

/// Yields each call and when it is due, in order of time.
#[derive(Debug)]
pub struct Plan {
    starts: Vec<Starts>,
    follow: BinaryHeap<Reverse<(Duration, u64, Step)>>,
    /// Counts what follows, so that what is due at one time keeps its order.
    followed: u64,
    shopping: Shopping,
    stock: Stock,
    /// Orders that were planned to be shipped, and not to be returned so far.
    shipped: VecDeque<(Duration, OrderNumber)>,
    keep_shipped: bool,
    probes: u64,
    replay: Option<ReplayCursor>,
    digest: Digest,
}

#[derive(Debug)]
struct Starts {
    kind: Start,
    due: Ramps,
    next: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Confirm(OrderNumber),
    Release(OrderNumber),
    Ship(OrderNumber),
}

#[derive(Debug)]
struct ReplayCursor {
    recording: Arc<Recording>,
    next: usize,
    batch: usize,
    speed: f64,
    end: Duration,
}

impl Plan {
    /// The plan of a scenario.
    pub fn new(
        scenario: &Scenario,
        catalogue: &Catalogue,
        recording: Option<Arc<Recording>>,
        seed: u64,
    ) -> Self {
        let batch = f64::from(scenario.movements.batch);
        let starts = [
            (Start::Query, scenario.rates(|phase| phase.queries)),
            (Start::Reserve, scenario.rates(|phase| phase.reserves)),
            (
                Start::Move,
                scenario.rates(|phase| phase.movements.times(1.0 / batch)),
            ),
            (Start::Return, scenario.rates(|phase| phase.returns)),
            (Start::Probe, scenario.rates(|phase| phase.probes)),
        ]
        .into_iter()
        .enumerate()
        .map(|(n, (kind, rates))| {
            let mut due = Ramps::new(&rates, Random::new(seed, n as u128 + 0x0D0E));
            let next = due.next();
            Starts { kind, due, next }
        })
        .collect();
        let replay = scenario.replay.as_ref().zip(recording);
        Self {
            starts,
            follow: BinaryHeap::new(),
            followed: 0,
            shopping: Shopping::new(scenario, seed),
            stock: Stock::new(scenario, catalogue, seed),
            shipped: VecDeque::new(),
            keep_shipped: scenario
                .phases
                .iter()
                .any(|phase| phase.returns.from + phase.returns.to > 0.0),
            probes: 0,
            replay: replay.map(|(replay, recording)| ReplayCursor {
                recording,
                next: 0,
                batch: scenario.movements.batch as usize,
                speed: replay.speed,
                end: Duration::from_secs(scenario.seconds()),
            }),
            digest: Digest::default(),
        }
    }

    /// Carts that are planned in all.
    pub fn orders(scenario: &Scenario) -> usize {
        let rates = scenario.rates(|phase| phase.reserves);
        Ramps::new(&rates, Random::new(0, 0)).calls() as usize
    }

    /// Digest of all calls so far: what is sent, and when.
    pub fn digest(&self) -> String {
        self.digest.to_hex()
    }

    fn draw(&mut self, kind: Start, due: Duration) -> Option<Op> {
        match kind {
            Start::Query => Some(self.shopping.query()),
            Start::Reserve => {
                let cart = self.shopping.cart();
                self.follow_up(&cart, due);
                Some(Op::Reserve(cart))
            }
            Start::Move => Some(self.stock.draw()),
            Start::Return => {
                let (shipped, order) = *self.shipped.front()?;
                if shipped > due {
                    return None;
                }
                self.shipped.pop_front();
                Some(Op::Return(order))
            }
            Start::Probe => {
                self.probes += 1;
                Some(Op::Probe(self.probes - 1))
            }
        }
    }

    /// What becomes of a cart, each step some time after the one before.
    fn follow_up(&mut self, cart: &Cart, due: Duration) {
        let thought = due + self.shopping.think();
        let packed = thought + self.shopping.pack();
        match cart.fate {
            Fate::Released => self.follow(thought, Step::Release(cart.order)),
            Fate::Ordered => self.follow(thought, Step::Confirm(cart.order)),
            Fate::Shipped => {
                self.follow(thought, Step::Confirm(cart.order));
                self.follow(packed, Step::Ship(cart.order));
            }
            Fate::Left => {}
        }
    }

    fn follow(&mut self, due: Duration, step: Step) {
        self.followed += 1;
        self.follow.push(Reverse((due, self.followed, step)));
    }

    fn next_follow(&mut self) -> Option<(Duration, Op)> {
        let Reverse((due, _, step)) = self.follow.pop()?;
        let op = match step {
            Step::Confirm(order) => Op::Confirm(order),
            Step::Release(order) => Op::Release(order),
            Step::Ship(order) => {
                if self.keep_shipped {
                    self.shipped.push_back((due, order));
                }
                Op::Ship(order)
            }
        };
        Some((due, op))
    }

    fn next_due(&self) -> Next {
        let starts = self.starts.iter().enumerate();
        let start = starts
            .filter_map(|(n, start)| Some((start.next?, Which::Start(n))))
            .min_by_key(|(due, _)| *due);
        let follow = self.follow.peek().map(|Reverse((due, ..))| *due);
        let replay = self.replay.as_ref().and_then(ReplayCursor::due);
        [
            follow.map(|due| (due, Which::Follow)),
            start,
            replay.map(|due| (due, Which::Replay)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(due, _)| *due)
    }
}

type Next = Option<(Duration, Which)>;

#[derive(Debug, Clone, Copy)]
enum Which {
    Start(usize),
    Follow,
    Replay,
}

impl ReplayCursor {
    fn due(&self) -> Option<Duration> {
        let offset = self.recording.offset(self.next)?;
        let due = offset.div_f64(self.speed);
        (due < self.end).then_some(due)
    }

    fn take(&mut self) -> Option<(Duration, Op)> {
        let due = self.due()?;
        let first = self.next;
        // What has not come to be due when the first one is cannot travel with it.
        let rest = (first..first + self.batch).take_while(|n| {
            let offset = self.recording.offset(*n);
            offset.is_some_and(|offset| offset.div_f64(self.speed) <= due)
        });
        let count = rest.count();
        self.next += count;
        Some((due, Op::Replay { first, count }))
    }
}

impl Iterator for Plan {
    type Item = (Duration, Op);

    fn next(&mut self) -> Option<(Duration, Op)> {
        loop {
            let planned = match self.next_due()? {
                (_, Which::Follow) => self.next_follow(),
                (_, Which::Replay) => self.replay.as_mut().and_then(ReplayCursor::take),
                (due, Which::Start(n)) => {
                    let start = &mut self.starts[n];
                    start.next = start.due.next();
                    let kind = start.kind;
                    self.draw(kind, due).map(|op| (due, op))
                }
            };
            // A return before anything was shipped is none.
            let Some((due, op)) = planned else { continue };
            self.digest.add(due, &op);
            return Some((due, op));
        }
    }
}

#[cfg(test)]
mod tests;
