//! Sends what is planned, keeps the books, and measures.

mod ask;
mod lane;
mod nats;
pub mod setup;
mod steps;
pub mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use prost_types::Timestamp;
use tokio::sync::OwnedSemaphorePermit;
use tonic::transport::Channel;

use crate::{
    account::Account,
    catalogue::Catalogue,
    findings::Findings,
    measure::{Kind, Recorder},
    orders::Orders,
    pacer::{Due, Load},
    plan::{Op, Plan},
    proto::{
        availability_client::AvailabilityClient, feeds_client::FeedsClient,
        movements_client::MovementsClient, operations_client::OperationsClient,
        reservations_client::ReservationsClient, rules_client::RulesClient,
    },
    replay::Recording,
    scenario::ReserveVia,
};
pub use lane::Lane;
pub use nats::Nats;
pub use watch::Watchers;

/// Largest answer that is taken: 1,000 SKUs by location.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// One connection.
#[derive(Debug, Clone)]
pub struct Link {
    channel: Channel,
    /// Movements on a stream of their own.
    pub moving: Lane<MovementsClient<Channel>>,
    /// Carts on a stream of their own.
    pub reserving: Lane<ReservationsClient<Channel>>,
}

impl Link {
    /// Over this connection, for callers who wait so long.
    pub fn new(channel: Channel, timeout: Duration) -> Self {
        Self {
            moving: Lane::open(MovementsClient::new(channel.clone()), timeout),
            reserving: Lane::open(ReservationsClient::new(channel.clone()), timeout),
            channel,
        }
    }

    /// Queries.
    pub fn availability(&self) -> AvailabilityClient<Channel> {
        AvailabilityClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// What channels may sell, pushed.
    pub fn feeds(&self) -> FeedsClient<Channel> {
        FeedsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Movements, one batch a call.
    pub fn movements(&self) -> MovementsClient<Channel> {
        MovementsClient::new(self.channel.clone())
    }

    /// Carts and orders.
    pub fn reservations(&self) -> ReservationsClient<Channel> {
        ReservationsClient::new(self.channel.clone())
    }

    /// Rules.
    pub fn rules(&self) -> RulesClient<Channel> {
        RulesClient::new(self.channel.clone())
    }

    /// How the server stands.
    pub fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone())
    }
}

/// How patient callers are.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long one call may take.
    pub timeout: Duration,
    /// How long a write without an answer is asked about again.
    pub settle: Duration,
}

/// Everything that the calls of a run share.
#[derive(Debug)]
pub struct World {
    /// Names and stock.
    pub catalogue: Arc<Catalogue>,
    /// The generator's own books.
    pub account: Arc<Account>,
    /// Carts.
    pub orders: Orders,
    /// Counts and latencies.
    pub recorder: Recorder,
    /// What was checked.
    pub findings: Findings,
    /// Connections, taken in turn.
    pub links: Vec<Link>,
    /// How movements travel, if not over gRPC.
    pub nats: Option<Nats>,
    /// Who is told of every change.
    pub watchers: Arc<Watchers>,
    /// How patient callers are.
    pub patience: Patience,
    /// Begins the ids of this run's part; empty, or the step of a series on one catalogue.
    pub part: String,
    /// When the run starts, for latencies.
    pub start: Instant,
    /// When the run starts, for movements.
    pub started_at: SystemTime,
    /// How carts are reserved.
    pub reserve_via: ReserveVia,
    /// How long a cart is held that is not left alone.
    pub hold: Duration,
    /// How long a cart is held that is left alone.
    pub leave: Duration,
    /// What is replayed.
    pub recording: Option<Arc<Recording>>,
    /// Movements that were acknowledged, by number.
    pub moved: Marks,
    /// Recorded movements that were acknowledged, by place.
    pub replayed: Marks,
    /// Greatest position of the log that an answer told.
    pub position: AtomicU64,
    /// Calls that have ended, for who watches.
    pub ended: AtomicU64,
}

impl World {
    /// An id of this run, the same whenever it is asked for.
    pub fn id(&self, kind: &str, n: u64) -> String {
        self.catalogue.id(&format!("{}{kind}", self.part), n)
    }

    /// Time of something that is due then.
    pub fn time_of(&self, due: Duration) -> Timestamp {
        Timestamp::from(self.started_at + due)
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn saw(&self, position: u64) {
        self.position.fetch_max(position, Ordering::Relaxed);
    }

    fn link(&self, n: u64) -> &Link {
        // The remainder is below the number of links, so it fits.
        &self.links[(n % self.links.len() as u64) as usize]
    }
}

/// One bit for each of many, set once.
#[derive(Debug, Default)]
pub struct Marks(Vec<AtomicU64>);

impl Marks {
    /// None of so many is set.
    pub fn new(count: usize) -> Self {
        Self((0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Sets some in a row.
    pub fn set(&self, first: u64, count: usize) {
        for n in first..first + count as u64 {
            self.0[(n / 64) as usize].fetch_or(1 << (n % 64), Ordering::Relaxed);
        }
    }

    /// True if it is set.
    pub fn is_set(&self, n: u64) -> bool {
        let word = self.0.get((n / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (n % 64)) != 0)
    }

    /// How many are set.
    pub fn count(&self) -> u64 {
        let words = self.0.iter();
        words
            .map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()))
            .sum()
    }
}

/// A plan that is carried out.
#[derive(Debug)]
pub struct Driver {
    /// What is still to come.
    pub plan: Plan,
    /// What all calls share.
    pub world: Arc<World>,
}

impl Load for Driver {
    type Call = Op;

    fn next(&mut self) -> Option<(Duration, Op)> {
        self.plan.next()
    }

    fn send(&mut self, n: u64, due: Due, op: Op, permit: OwnedSemaphorePermit) {
        let world = self.world.clone();
        tokio::spawn(async move {
            world.carry_out(n, due.at, op).await;
            world.ended.fetch_add(1, Ordering::Relaxed);
            // Last, since the run is over when all permits are back.
            drop(permit);
        });
    }

    fn dropped(&mut self, due: Duration, op: Op) {
        self.world.recorder.dropped(kind(&op), due);
        // Whoever waits for its answer is told that there is none.
        if let Op::Reserve(cart) = op {
            self.world.never_asked(&cart);
        }
    }
}

fn kind(op: &Op) -> Kind {
    match op {
        Op::Query { .. } => Kind::Query,
        Op::Reserve(_) => Kind::Reserve,
        Op::Confirm(_) => Kind::Confirm,
        Op::Release(_) => Kind::Release,
        Op::Ship(_) => Kind::Ship,
        Op::Return(_) => Kind::Return,
        Op::Move { .. } | Op::Replay { .. } => Kind::Movements,
        Op::Probe(_) => Kind::Freshness,
    }
}
