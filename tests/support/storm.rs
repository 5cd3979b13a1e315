//! Callers that want the same few units, give up, ask again, and ask twice at once; a warehouse
//! that ships what was confirmed; and everything on record.
//!
//! What a caller chooses follows from the seed and its number alone, and on what it is answered.

use std::{
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use sellable::proto::v1::{self as pb, command::Command as Asked, movement::Kind};
use tokio::{sync::mpsc, time::sleep};
use tonic::{Code, Status, transport::Endpoint};
use tonic_types::StatusExt;

use crate::{
    evidence::{Answer, Attempt, Look, Post, Told, time_us},
    server::{Client, Server, movement, received},
    stock::{LOCATIONS, Outcome, RULES, SKUS, document},
};

/// Longest time that a caller waits for one answer; then it asks again.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// A reservation that is the warehouse's now, and the position of its confirmation.
type HandedOver = (String, u64);

/// What all callers have in common.
pub(crate) struct Storm {
    seed: u64,
    instances: Vec<Client>,
    moment: AtomicU64,
    pub(crate) answered: AtomicUsize,
    pub(crate) glimpses: AtomicUsize,
    told: Mutex<Told>,
    /// No more carts are begun.
    pub(crate) enough: AtomicBool,
}

impl Storm {
    pub(crate) fn new(seed: u64, servers: &[Server]) -> Arc<Self> {
        let client = |server: &Server| Client {
            channel: Endpoint::from_shared(server.url())
                .expect("an address")
                .connect_lazy(),
        };
        Arc::new(Self {
            seed,
            instances: servers.iter().map(client).collect(),
            moment: AtomicU64::new(1),
            answered: AtomicUsize::new(0),
            glimpses: AtomicUsize::new(0),
            told: Mutex::default(),
            enough: AtomicBool::new(false),
        })
    }

    /// Random numbers of one caller.
    pub(crate) fn random(&self, caller: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ caller.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// All that is on record so far.
    pub(crate) fn told(&self) -> Told {
        self.told.lock().expect("nobody panicked").clone()
    }

    fn write(&self, write: impl FnOnce(&mut Told)) {
        write(&mut self.told.lock().expect("nobody panicked"));
    }

    /// What is sent after a moment has a later one than what was received before it.
    fn moment(&self) -> u64 {
        self.moment.fetch_add(1, SeqCst)
    }

    /// Sends a command to one instance. `None`: what became of it is unknown.
    pub(crate) async fn ask(
        &self,
        instance: usize,
        command: &Arc<pb::Command>,
        patience: Duration,
        again: bool,
    ) -> Option<Answer> {
        let sent = self.moment();
        let call = call(&self.instances[instance], command);
        let answer = match tokio::time::timeout(patience, call).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(status)) if is_unknown(&status) => None,
            Ok(Err(status)) => Some(Answer {
                decided: None,
                outcome: Outcome::Refused(why(&status)),
            }),
            Err(_) => None,
        };
        let attempt = Attempt {
            command: Arc::clone(command),
            instance,
            sent,
            answered: self.moment(),
            answer: answer.clone(),
            again,
        };
        self.answered
            .fetch_add(usize::from(answer.is_some()), SeqCst);
        self.write(|told| told.attempts.push(attempt));
        answer
    }

    /// Sends a command to one instance until it is answered.
    pub(crate) async fn insist(&self, instance: usize, command: &Arc<pb::Command>, again: bool) {
        let mut tries = 0;
        while self
            .ask(instance, command, ANSWER_MAX, again)
            .await
            .is_none()
        {
            tries += 1;
            back_off(tries).await;
        }
    }

    /// Posts movements until they are answered, each time wherever, and now and then once more.
    pub(crate) async fn post(&self, movements: Vec<pb::Movement>, random: &mut StdRng) {
        let movements: Arc<[pb::Movement]> = movements.into();
        let (mut answers, mut tries) = (0, 0);
        let wanted = if random.random_ratio(1, 10) { 2 } else { 1 };
        while answers < wanted {
            let instance = random.random_range(0..self.instances.len());
            let request = pb::PostRequest {
                movements: movements.to_vec(),
            };
            let sent = self.moment();
            let mut to = self.instances[instance].movements();
            let answer = tokio::time::timeout(patience(random), to.post(request)).await;
            let answer = match answer {
                Ok(Ok(answer)) => Some(answer.into_inner()),
                Ok(Err(status)) if is_unknown(&status) => None,
                Ok(Err(status)) => panic!("the warehouse is refused: {status}"),
                Err(_) => None,
            };
            answers += usize::from(answer.is_some());
            let post = Post {
                movements: Arc::clone(&movements),
                instance,
                sent,
                answered: self.moment(),
                answer,
            };
            self.write(|told| told.posts.push(post));
            tries += 1;
            if answers == 0 {
                back_off(tries).await;
            }
        }
    }

    /// Looks at a reservation, at one instance; `None`: that is away.
    pub(crate) async fn look(
        &self,
        instance: usize,
        id: &str,
        min_position: u64,
    ) -> Option<pb::Reservation> {
        let sent = self.moment();
        let request = pb::GetReservationRequest {
            id: id.into(),
            min_position,
        };
        let mut from = self.instances[instance].reservations();
        let answer = tokio::time::timeout(ANSWER_MAX, from.get(request)).await;
        let found = match answer {
            Ok(Ok(answer)) => answer.into_inner(),
            // Another instance may not be as far.
            Ok(Err(status)) if is_unknown(&status) || status.code() == Code::NotFound => {
                return None;
            }
            Ok(Err(status)) => panic!("no look at {id}: {status}"),
            Err(_) => return None,
        };
        let look = Look {
            instance,
            sent,
            answered: self.moment(),
            found: found.clone(),
        };
        self.write(|told| told.looks.push(look));
        Some(found)
    }

    /// Looks at shelves while everything goes on, until it is enough.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut random = self.random(u64::MAX);
        while !self.enough.load(SeqCst) {
            let instance = random.random_range(0..self.instances.len());
            let request = pb::ExplainRequest {
                channel: RULES[0].choose(&mut random).expect("channels").name.into(),
                sku: (*SKUS.choose(&mut random).expect("SKUs")).into(),
                min_position: 0,
            };
            let mut from = self.instances[instance].availability();
            let Ok(Ok(shown)) = tokio::time::timeout(ANSWER_MAX, from.explain(request)).await
            else {
                sleep(Duration::from_millis(5)).await;
                continue;
            };
            let shown = shown.into_inner();
            self.glimpses.fetch_add(1, SeqCst);
            let wrong = shown.locations.iter().map(|term| {
                let balances = term.balances.as_ref().expect("it has balances");
                (-balances.free).max(-balances.reserved)
            });
            if let Some(units) = wrong.max().filter(|units| *units > 0) {
                let told = format!("wrong for a moment: {shown:?}");
                self.write(|all| all.glimpses.push((units, told)));
            }
            sleep(Duration::from_millis(random.random_range(0..10))).await;
        }
    }

    /// Sees that what was handed over is shipped, or released, and that as much comes in again.
    pub(crate) async fn warehouse(
        self: Arc<Self>,
        mut handed_over: mpsc::UnboundedReceiver<HandedOver>,
    ) {
        let mut random = self.random(u64::MAX - 1);
        let mut other_rules = 0;
        while let Some((id, position)) = handed_over.recv().await {
            let found = loop {
                let instance = random.random_range(0..self.instances.len());
                if let Some(found) = self.look(instance, &id, position).await {
                    break found;
                }
                sleep(Duration::from_millis(5)).await;
            };
            let mut movements = shipments(&found, &mut random);
            // For what is held without end by those who walked away.
            let (sku, units) = (SKUS.choose(&mut random), random.random_range(1..=6));
            let at = LOCATIONS.choose(&mut random).expect("locations");
            let number = format!("{id}/delivery");
            movements.push(received(&number, sku.expect("SKUs"), units, at));
            self.post(movements, &mut random).await;
            if random.random_ratio(1, 25) {
                other_rules += 1;
                let put = pb::PutRulesRequest {
                    toml: document(&RULES[other_rules % 2]),
                    ..pb::PutRulesRequest::default()
                };
                // Whether it took effect is the log's to tell.
                let instance = random.random_range(0..self.instances.len());
                let mut to = self.instances[instance].rules();
                let _unknown = tokio::time::timeout(ANSWER_MAX, to.put(put)).await;
            }
        }
    }

    pub(crate) fn instances(&self) -> usize {
        self.instances.len()
    }
}

/// What the warehouse reports about a confirmed reservation, which is its alone.
fn shipments(found: &pb::Reservation, random: &mut StdRng) -> Vec<pb::Movement> {
    let mut movements = Vec::new();
    let id = |movements: &Vec<_>| format!("{}/moved-{}", found.id, movements.len());
    for line in &found.lines {
        for claim in &line.claims {
            let shipped = match random.random_range(0..10) {
                0 => 0,
                1 | 2 => random.random_range(0..=claim.quantity),
                _ => claim.quantity,
            };
            let left = claim.quantity - shipped;
            if shipped > 0 {
                let kind = Kind::Shipped(pb::Shipped {
                    order: found.id.clone(),
                    line: line.line.clone(),
                    location: claim.location.clone(),
                });
                movements.push(movement(&id(&movements), &line.sku, shipped, kind));
                let at = LOCATIONS.choose(random).expect("locations");
                movements.push(received(&id(&movements), &line.sku, shipped, at));
            }
            if left > 0 {
                // Without a location only if there is but one, so that it is clear which is meant.
                let anywhere = line.claims.len() == 1 && random.random();
                let kind = Kind::Released(pb::Released {
                    order: found.id.clone(),
                    line: line.line.clone(),
                    location: if anywhere {
                        String::new()
                    } else {
                        claim.location.clone()
                    },
                });
                movements.push(movement(&id(&movements), &line.sku, left, kind));
            }
        }
    }
    movements
}

/// One caller: fills carts, and does with them what people do.
pub(crate) struct Shopper {
    number: u64,
    storm: Arc<Storm>,
    random: StdRng,
    handed_over: mpsc::UnboundedSender<HandedOver>,
    commands: u64,
}

impl Shopper {
    pub(crate) fn new(
        number: u64,
        storm: &Arc<Storm>,
        handed_over: &mpsc::UnboundedSender<HandedOver>,
    ) -> Self {
        Self {
            number,
            random: storm.random(number),
            storm: Arc::clone(storm),
            handed_over: handed_over.clone(),
            commands: 0,
        }
    }

    /// One cart after another, until it is enough.
    pub(crate) async fn shop(mut self) {
        while !self.storm.enough.load(SeqCst) {
            self.cart().await;
            let pause = self.random.random_range(0..20);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn cart(&mut self) {
        self.commands += 1;
        let id = format!("cart-{}-{}", self.number, self.commands);
        let reserve = self.filled(&id);
        let wanted = command(Asked::Reserve(reserve.clone()));
        if self.random.random_ratio(1, 40) {
            // Before it is reserved, it is not known.
            self.confirm(&id).await;
        }
        let Some(answer) = self.answer_of(&wanted).await else {
            return;
        };
        if self.random.random_ratio(1, 20) {
            let mut other = reserve.clone();
            other.lines[0].quantity += 1;
            self.answer_of(&command(Asked::Reserve(other))).await;
        }
        self.glance(&id).await;
        let Outcome::Granted { allocations, .. } = answer.outcome else {
            if self.random.random_ratio(1, 10) {
                self.confirm(&id).await;
                self.release(&id, vec![]).await;
            }
            return;
        };
        let brief = reserve
            .time_to_live
            .is_some_and(|time| time.seconds < LONG_S);
        let first = &allocations[0];
        match self.random.random_range(0..12) {
            // Left standing, until its time is over.
            0..=2 if brief => return,
            3 if brief => {
                sleep(Duration::from_millis(1_500)).await;
            }
            0..=3 => {
                self.release(&id, vec![]).await;
                self.release(&id, vec![]).await;
                return;
            }
            4 | 5 => {
                let part = self.random.random_range(0..=first.quantity);
                self.release(&id, vec![(first.line.clone(), part)]).await;
            }
            6 => {
                self.extend(&id).await;
            }
            7 => {
                self.release(&id, vec![(first.line.clone(), 1_000)]).await;
                self.release(&id, vec![("no-such-line".into(), 1)]).await;
            }
            8 | 9 => {
                let over = self.all_at_once(&id, &first.line).await;
                if over {
                    return;
                }
            }
            _ => {}
        }
        self.glance(&id).await;
        match self.confirm(&id).await {
            Some((Outcome::Confirmed, position)) => {
                if self.random.random_ratio(1, 10) {
                    self.extend(&id).await;
                }
                // Nobody listens any more if the warehouse failed, and that is told elsewhere.
                let _ = self.handed_over.send((id, position));
            }
            _ => {
                self.release(&id, vec![]).await;
            }
        }
    }

    /// A full cart: mostly of what all want.
    fn filled(&mut self, id: &str) -> pb::ReserveRequest {
        let random = &mut self.random;
        let named = random.random_ratio(1, 3);
        let lines = (0..random.random_range(1..=5)).map(|number| {
            let sku = match random.random_range(0..100) {
                0 => "unicorn",
                1..40 => SKUS[0],
                _ => SKUS.choose(random).expect("SKUs"),
            };
            let location = match random.random_range(0..100) {
                0 => "moon",
                1..25 => LOCATIONS.choose(random).expect("locations"),
                _ => "",
            };
            pb::ReserveLine {
                line: if named {
                    format!("line-{number}")
                } else {
                    String::new()
                },
                sku: sku.into(),
                quantity: random.random_range(1..=3),
                location: location.into(),
            }
        });
        pb::ReserveRequest {
            id: id.into(),
            lines: lines.collect(),
            channel: RULES[0][[0, 0, 1, 2][random.random_range(0..4)]]
                .name
                .into(),
            time_to_live: match random.random_range(0..3) {
                0 => None,
                1 => seconds(LONG_S),
                _ => seconds(random.random_range(1..=2)),
            },
            allow_split: random.random(),
            actor: format!("shopper {}", self.number),
        }
    }

    /// Confirms, releases and extends at the same time; the log says which came first. Whether
    /// that was the end of it.
    async fn all_at_once(&mut self, id: &str, line: &str) -> bool {
        self.commands += 1;
        let number = self.commands;
        let confirm = command(Asked::Confirm(pb::ConfirmRequest {
            id: format!("{id}/confirm-{number}"),
            reservation: id.into(),
        }));
        let extend = command(Asked::Extend(pb::ExtendRequest {
            id: format!("{id}/extend-{number}"),
            reservation: id.into(),
            time_to_live: seconds(2),
        }));
        let lines = match self.random.random() {
            true => vec![],
            false => vec![pb::ReleaseLine {
                line: line.into(),
                quantity: 0,
            }],
        };
        let release = |place: u32| {
            command(Asked::Release(pb::ReleaseRequest {
                id: format!("{id}/release-{number}-{place}"),
                reservation: id.into(),
                lines: lines.clone(),
            }))
        };
        let (release, once_more) = (release(1), release(2));
        let at: Vec<usize> = (0..4).map(|_| self.somewhere()).collect();
        let storm = &self.storm;
        tokio::join!(
            storm.insist(at[0], &confirm, false),
            storm.insist(at[1], &release, false),
            storm.insist(at[2], &extend, false),
            storm.insist(at[3], &once_more, false),
        );
        lines.is_empty()
    }

    async fn confirm(&mut self, id: &str) -> Option<(Outcome, u64)> {
        self.commands += 1;
        let confirm = command(Asked::Confirm(pb::ConfirmRequest {
            id: format!("{id}/confirm-{}", self.commands),
            reservation: id.into(),
        }));
        let answer = self.answer_of(&confirm).await?;
        let position = answer.decided.map_or(0, |(position, ..)| position);
        Some((answer.outcome, position))
    }

    async fn extend(&mut self, id: &str) {
        self.commands += 1;
        let extend = command(Asked::Extend(pb::ExtendRequest {
            id: format!("{id}/extend-{}", self.commands),
            reservation: id.into(),
            time_to_live: seconds(self.random.random_range(1..=3)),
        }));
        self.answer_of(&extend).await;
    }

    async fn release(&mut self, id: &str, lines: Vec<(String, i64)>) {
        self.commands += 1;
        let line = |(line, quantity)| pb::ReleaseLine { line, quantity };
        let release = command(Asked::Release(pb::ReleaseRequest {
            id: format!("{id}/release-{}", self.commands),
            reservation: id.into(),
            lines: lines.into_iter().map(line).collect(),
        }));
        self.answer_of(&release).await;
    }

    async fn glance(&mut self, id: &str) {
        if self.random.random_ratio(1, 4) {
            let instance = self.somewhere();
            self.storm.look(instance, id, 0).await;
        }
    }

    fn somewhere(&mut self) -> usize {
        self.random.random_range(0..self.storm.instances())
    }

    /// Asks until it is answered: with little patience or more, here or there, now and then at two
    /// places at once, and sometimes again although it was answered. A few customers walk away
    /// without an answer.
    async fn answer_of(&mut self, command: &Arc<pb::Command>) -> Option<Answer> {
        let mut tries = 0;
        let answer = loop {
            let patience = patience(&mut self.random);
            let (one, other) = (self.somewhere(), self.somewhere());
            let answer = if self.random.random_ratio(1, 10) {
                let (one, other) = tokio::join!(
                    self.storm.ask(one, command, patience, false),
                    self.storm.ask(other, command, patience, false),
                );
                one.or(other)
            } else {
                self.storm.ask(one, command, patience, false).await
            };
            if answer.is_some() {
                break answer;
            }
            // Only from a cart that nothing was told of. Later on somebody has to know how it
            // stands: the warehouse ships only what nobody else can still release.
            let walks = matches!(command.command, Some(Asked::Reserve(_)));
            if walks && self.random.random_ratio(1, 10) {
                return None;
            }
            tries += 1;
            back_off(tries).await;
        };
        if self.random.random_ratio(1, 12) {
            let other = self.somewhere();
            self.storm.ask(other, command, ANSWER_MAX, false).await;
        }
        answer
    }
}

/// A time to live that does not end within a cart's life.
const LONG_S: i64 = 600;

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn command(asked: Asked) -> Arc<pb::Command> {
    Arc::new(pb::Command {
        command: Some(asked),
    })
}

/// How long a caller waits: sometimes less than an answer takes.
fn patience(random: &mut StdRng) -> Duration {
    if random.random_ratio(1, 6) {
        Duration::from_micros(random.random_range(0..15_000))
    } else {
        ANSWER_MAX
    }
}

/// Waits longer each time, as callers have to: each try is one more record of the log, and what
/// starts has to read them all.
async fn back_off(tries: u32) {
    sleep(Duration::from_millis(5 << tries.min(6))).await;
}

/// Whether a status leaves open what became of the command.
fn is_unknown(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::Cancelled | Code::DeadlineExceeded => {
            true
        }
        // A connection that broke has a cause on this side. The program itself uses neither, but
        // for its own bugs, and these are answers that the examination does not let pass.
        Code::Unknown | Code::Internal => status.source().is_some(),
        _ => false,
    }
}

/// A refusal as its details tell it.
fn why(status: &Status) -> String {
    let code = status.code();
    if let Some(failure) = status.get_details_precondition_failure() {
        let violation = failure.violations.first().expect("it has one");
        return format!("{code:?} {} {}", violation.r#type, violation.subject);
    }
    match status.get_details_resource_info() {
        Some(resource) => format!(
            "{code:?} {} {}",
            resource.resource_type, resource.resource_name
        ),
        None => format!("{code:?} {}", status.message()),
    }
}

async fn call(to: &Client, command: &pb::Command) -> Result<Answer, Status> {
    let mut to = to.reservations();
    let decided = |position, time: Option<_>, duplicate| {
        let time: Option<prost_types::Timestamp> = time;
        Some((position, time_us(time.as_ref()), duplicate))
    };
    Ok(match command.command.clone().expect("it asks") {
        Asked::Reserve(reserve) => {
            let told = to.reserve(reserve).await?.into_inner();
            let outcome = match told.granted {
                true => Outcome::Granted {
                    allocations: told.allocations,
                    expires_us: told.expires_at.map(|time| time_us(Some(&time))),
                },
                false => Outcome::Short(told.short_lines),
            };
            Answer {
                decided: decided(told.position, told.log_time, told.duplicate),
                outcome,
            }
        }
        Asked::Confirm(confirm) => {
            let told = to.confirm(confirm).await?.into_inner();
            Answer {
                decided: decided(told.position, told.log_time, told.duplicate),
                outcome: Outcome::Confirmed,
            }
        }
        Asked::Release(release) => {
            let told = to.release(release).await?.into_inner();
            Answer {
                decided: decided(told.position, told.log_time, told.duplicate),
                outcome: Outcome::Released(told.released),
            }
        }
        Asked::Extend(extend) => {
            let told = to.extend(extend).await?.into_inner();
            Answer {
                decided: decided(told.position, told.log_time, told.duplicate),
                outcome: Outcome::Extended(time_us(told.expires_at.as_ref())),
            }
        }
    })
}
