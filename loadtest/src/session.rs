//! A server, a catalogue on it, and runs over that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use crate::{
    Failure,
    account::Account,
    catalogue::Catalogue,
    drive::{Driver, Link, Marks, Nats, Patience, Watchers, World, setup},
    findings::Findings,
    measure::Recorder,
    orders::Orders,
    pacer::{self, Sent, Stop},
    plan::Plan,
    processors::{Busy, Meter},
    proto::StatusResponse,
    replay::Recording,
    scenario::{Scenario, Via},
    server::Address,
    verify,
};

/// Steps of the history that are kept for the check of overselling, 16 bytes each.
const HISTORY_MAX: usize = 10_000_000;
/// Carts that are followed up are held for this much longer than the run takes.
const HOLD_BEYOND: Duration = Duration::from_secs(3_600);
/// Time between the setup and the first call.
const LEAD: Duration = Duration::from_millis(100);

/// How a server is reached.
#[derive(Debug, Clone)]
pub struct Access {
    /// Where it answers.
    pub address: Address,
    /// Connections, taken in turn.
    pub connections: usize,
    /// Most calls in flight.
    pub in_flight: usize,
    /// How patient callers are.
    pub patience: Patience,
    /// Where NATS answers, if movements are to travel so.
    pub nats: Option<String>,
    /// Load is welcome on other machines.
    pub allow_remote: bool,
    /// Replace the rules of the server.
    pub put_rules: bool,
    /// Process id of the server, if it was started for this.
    pub server_pid: Option<u32>,
}

/// A catalogue that is ready on a server.
#[derive(Debug)]
pub struct Session {
    access: Access,
    links: Vec<Link>,
    nats: Option<Nats>,
    catalogue: Arc<Catalogue>,
    account: Arc<Account>,
    watchers: Arc<Watchers>,
    seed: u64,
    /// How the server stood at the start.
    pub status: StatusResponse,
}

/// A run that is over.
#[derive(Debug)]
pub struct Ran {
    /// What all calls shared.
    pub world: Arc<World>,
    /// What was sent.
    pub sent: Sent,
    /// Digest of what was planned.
    pub digest: String,
    /// Processors that were busy meanwhile.
    pub busy: Busy,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// If nobody answers, or the scenario asks for what there is not.
    pub async fn open(
        access: Access,
        scenario: &Scenario,
        prefix: &str,
        seed: u64,
    ) -> Result<Self, Failure> {
        let nats = match (scenario.movements.via, &access.nats) {
            (Via::Grpc, _) => None,
            (Via::Nats, Some(url)) => Some(Nats::connect(url, access.allow_remote).await?),
            (Via::Nats, None) => {
                return Err(Failure::usage(
                    "movements.via is \"nats\", and no NATS server is named",
                )
                .hint("name the one that the server follows with --nats nats://127.0.0.1:4222"));
            }
        };
        let channels = access.address.connect(access.connections).await?;
        let timeout = access.patience.timeout;
        let links = channels
            .into_iter()
            .map(|channel| Link::new(channel, timeout));
        let links: Vec<Link> = links.collect();
        let status = setup::ready(&links[0]).await?;
        if nats.is_some() && status.log_engine != "jetstream" {
            return Err(Failure::usage(format!(
                "movements.via is \"nats\", and the server's log is {}",
                status.log_engine
            ))
            .hint("start it with `sellable serve --nats`, or set movements.via = \"grpc\""));
        }
        let catalogue = Arc::new(Catalogue::new(&scenario.catalogue, prefix, seed));
        let account = Arc::new(Account::new(catalogue.cells(), HISTORY_MAX));
        Ok(Self {
            access,
            links,
            nats,
            catalogue,
            account,
            watchers: Arc::default(),
            seed,
            status,
        })
    }

    /// Movements that the setup posts.
    pub fn opening_movements(&self) -> u64 {
        self.catalogue.cells() as u64 + u64::from(crate::catalogue::PROBE_SKUS)
    }

    /// Puts rules and opening stock, and lets watchers in.
    ///
    /// # Errors
    /// If the server refuses either, or they do not fit.
    pub async fn set_up(
        &mut self,
        scenario: &Scenario,
        progress: &setup::Progress,
    ) -> Result<(), Failure> {
        let (links, catalogue) = (&self.links, &self.catalogue);
        setup::rules(&links[0], catalogue, &self.status, self.access.put_rules).await?;
        setup::stock(links, catalogue, &self.account, progress).await?;
        setup::try_once(links, catalogue).await?;
        let per_channel = scenario.watchers.per_channel;
        self.watchers = Arc::new(Watchers::open(links, catalogue, per_channel).await?);
        Ok(())
    }

    /// Runs a scenario over the catalogue. `part` tells the runs of one session apart.
    ///
    /// # Errors
    /// If the run could not be carried out; what calls met is in the result.
    pub async fn run(
        &self,
        scenario: &Scenario,
        part: &str,
        recording: Option<Arc<Recording>>,
        watch: impl FnOnce(&Arc<World>),
        stop: Stop,
    ) -> Result<Ran, Failure> {
        let world = Arc::new(self.world(scenario, part, recording.clone()));
        let plan = self.plan(scenario, recording);
        watch(&world);
        let driver = Driver {
            plan,
            world: world.clone(),
        };
        let end = Duration::from_secs(scenario.seconds()) + follow_up(scenario);
        let in_flight = self.access.in_flight;
        let meter = Meter::start(self.access.server_pid);
        let (sent, driver) = pacer::run(driver, world.start, end, in_flight, stop).await?;
        Ok(Ran {
            world,
            sent,
            digest: driver.plan.digest(),
            busy: meter.read(),
        })
    }

    /// Checks a run through the public interface.
    pub async fn verify(&self, scenario: &Scenario, ran: &Ran) {
        let plan = self.plan(scenario, ran.world.recording.clone());
        verify::verify(&ran.world, plan).await;
    }

    fn plan(&self, scenario: &Scenario, recording: Option<Arc<Recording>>) -> Plan {
        Plan::new(scenario, &self.catalogue, recording, self.seed)
    }

    fn world(&self, scenario: &Scenario, part: &str, recording: Option<Arc<Recording>>) -> World {
        let seconds = scenario.seconds();
        let rates = scenario.rates(|phase| phase.movements);
        let movements = rates
            .iter()
            .map(|(seconds, rate)| f64::from(*seconds) * (rate.from + rate.to) / 2.0);
        // Each phase may round up by one message.
        let rounding = scenario.phases.len() * scenario.movements.batch as usize;
        let movements = movements.sum::<f64>() as usize + rounding;
        World {
            catalogue: self.catalogue.clone(),
            account: self.account.clone(),
            orders: Orders::new(Plan::orders(scenario)),
            recorder: Recorder::new(seconds, scenario.warm_up_seconds()),
            findings: Findings::default(),
            links: self.links.clone(),
            nats: self.nats.clone(),
            watchers: self.watchers.clone(),
            patience: self.access.patience,
            part: part.to_owned(),
            start: Instant::now() + LEAD,
            started_at: SystemTime::now() + LEAD,
            reserve_via: scenario.shopping.reserve_via,
            hold: Duration::from_secs(seconds) + HOLD_BEYOND,
            leave: Duration::from_secs(u64::from(scenario.shopping.abandon_seconds)),
            moved: Marks::new(movements),
            replayed: Marks::new(recording.as_ref().map_or(0, |all| all.movements().len())),
            recording,
            position: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        }
    }
}

/// How long after the last cart its last step may be due.
pub fn follow_up(scenario: &Scenario) -> Duration {
    let shopping = &scenario.shopping;
    Duration::from_millis(u64::from(shopping.think_ms.to) + u64::from(shopping.pack_ms.to))
}

impl Ran {
    /// Units that were granted to carts, in all.
    pub fn granted_units(&self) -> u64 {
        self.world.account.granted_units()
    }

    /// Of these, units that were released, or that expired.
    pub fn returned_units(&self) -> u64 {
        self.world.account.returned_units()
    }

    /// Carts that were answered, and of these, carts that were granted.
    pub fn carts(&self) -> (u64, u64) {
        let answered = self.world.orders.decided();
        let answered = answered.filter(|(_, decision)| decision.answered);
        answered.fold((0, 0), |(all, granted), (_, decision)| {
            (all + 1, granted + u64::from(!decision.held.is_empty()))
        })
    }

    /// Greatest position of the log that an answer told.
    pub fn position(&self) -> u64 {
        self.world.position.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
