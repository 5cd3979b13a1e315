//! What each planned call asks, what its answer has to be, and what it means for the books.

use std::time::Duration;

use tonic::{Code, Response};

use super::{
    World,
    ask::{Call, Settled},
    kind,
};
use crate::{
    catalogue::{centre, movement, received},
    findings::Check,
    measure::Kind,
    orders::{Decision, Fate, Held, OrderNumber},
    plan::{Cart, Change, Move, Op},
    proto::{
        ConfirmRequest, Disposition, GetRequest, GetResponse, IssueReason, Issued, Movement,
        Outcome, PostRequest, ReleaseRequest, ReserveLine, ReserveRequest, ReserveResponse,
        ReturnAuthorized, ReturnInspected, ReturnReceived, Shipped, movement::Kind as Moved,
    },
    scenario::ReserveVia,
};

impl World {
    /// Carries out the n-th call, to its end.
    pub(super) async fn carry_out(&self, n: u64, due: Duration, op: Op) {
        let kind = kind(&op);
        match op {
            Op::Query { channel, skus } => self.query(n, due, channel, &skus).await,
            Op::Reserve(cart) => self.reserve(n, due, &cart).await,
            Op::Confirm(order) | Op::Release(order) => self.settle(n, due, kind, order).await,
            Op::Ship(order) => self.ship(n, due, order).await,
            Op::Return(order) => self.take_back(n, due, order).await,
            Op::Move { first, moves } => self.report(n, due, first, &moves).await,
            Op::Probe(number) => self.probe(n, due, number).await,
            Op::Replay { first, count } => self.replay(n, due, first, count).await,
        }
    }

    async fn query(&self, n: u64, due: Duration, channel: usize, skus: &[u32]) {
        let request = GetRequest {
            channel: self.catalogue.channels()[channel].clone(),
            skus: skus.iter().map(|sku| self.catalogue.sku(*sku)).collect(),
            ..GetRequest::default()
        };
        let asked = request.skus.clone();
        let mut call = Call::begin(self, Kind::Query, due);
        let mut client = self.link(n).availability();
        let answer = call.look(client.get(request)).await;
        if let Some(answer) = answer.map(Response::into_inner) {
            call.end();
            let right = answers(&asked, &answer);
            let example = || format!("{} SKUs asked, answered {:?}", asked.len(), answer.items);
            self.findings.that(Check::Answers, right, example);
        }
    }

    /// The request of a cart: the same whenever it is asked for.
    pub fn reserve_request(&self, cart: &Cart) -> ReserveRequest {
        let hold = match cart.fate {
            Fate::Left => self.leave,
            Fate::Released | Fate::Ordered | Fate::Shipped => self.hold,
        };
        let lines = cart.lines.iter().map(|line| ReserveLine {
            sku: self.catalogue.sku(line.sku),
            quantity: i64::from(line.units),
            ..ReserveLine::default()
        });
        ReserveRequest {
            id: self.id("order", u64::from(cart.order)),
            channel: self.catalogue.channels()[cart.channel].clone(),
            lines: lines.collect(),
            time_to_live: hold.try_into().ok(),
            ..ReserveRequest::default()
        }
    }

    async fn reserve(&self, n: u64, due: Duration, cart: &Cart) {
        let request = self.reserve_request(cart);
        let mut call = Call::begin(self, Kind::Reserve, due);
        let asked = call.ask(|| {
            let (link, request) = (self.link(n), request.clone());
            async move {
                match self.reserve_via {
                    ReserveVia::Calls => {
                        let answer = link.reservations().reserve(request).await;
                        answer.map(Response::into_inner)
                    }
                    ReserveVia::Stream => link.reserving.ask(request).await,
                }
            }
        });
        let Some(answer) = asked.await.answer() else {
            return self.never_asked(cart);
        };
        let at = call.end();
        self.saw(answer.position);
        let held = self.held(cart, &answer).unwrap_or_else(|wrong| {
            let id = &request.id;
            let example = || format!("{id}: {wrong}: {answer:?}");
            self.findings.wrong(Check::Reservations, example);
            Vec::new()
        });
        for held in &held {
            let cell = self.catalogue.cell(held.sku, held.slot);
            match cart.fate {
                Fate::Left => self.account.hold_for_a_while(cell, held.units),
                _ => self
                    .account
                    .move_reserved(cell, held.units, answer.position),
            }
        }
        // Each number is planned once.
        let decision = Decision {
            held,
            answered: true,
            fate: cart.fate,
            at,
        };
        let _ = self.orders.get(cart.order).decided.set(decision);
    }

    /// Nothing is held, and nobody waits for it any more.
    pub(super) fn never_asked(&self, cart: &Cart) {
        let nothing = Decision {
            held: Vec::new(),
            answered: false,
            fate: cart.fate,
            at: Duration::ZERO,
        };
        let _ = self.orders.get(cart.order).decided.set(nothing);
    }

    /// What a cart holds, if the answer is one that there may be.
    fn held(&self, cart: &Cart, answer: &ReserveResponse) -> Result<Vec<Held>, &'static str> {
        if !answer.granted {
            let short = |line: &crate::proto::ShortLine| line.available < line.requested;
            if answer.short_lines.is_empty() || !answer.short_lines.iter().all(short) {
                return Err("refused, and no line was short");
            }
            self.findings.right(Check::Reservations, 1);
            return Ok(Vec::new());
        }
        let mut held = Vec::with_capacity(answer.allocations.len());
        for (n, line) in cart.lines.iter().enumerate() {
            let (number, sku) = ((n + 1).to_string(), self.catalogue.sku(line.sku));
            let mut left = i64::from(line.units);
            for given in answer.allocations.iter().filter(|a| a.line == number) {
                if given.sku != sku || given.quantity < 1 {
                    return Err("granted, with another SKU or no units");
                }
                let slot = self
                    .catalogue
                    .slot(line.sku, &given.location)
                    .ok_or("granted, from a location that never had it")?;
                left -= given.quantity;
                held.push(Held {
                    line: number.clone(),
                    sku: line.sku,
                    slot,
                    units: given.quantity,
                });
            }
            if left != 0 {
                return Err("granted, with other units than were asked for");
            }
        }
        if held.len() != answer.allocations.len() {
            return Err("granted, with lines that nobody asked for");
        }
        self.findings.right(Check::Reservations, 1);
        Ok(held)
    }

    /// Confirms an order, or gives a cart back.
    async fn settle(&self, n: u64, due: Duration, kind: Kind, number: OrderNumber) {
        let order = self.orders.get(number);
        let decision = order.decided.wait().await;
        if decision.held.is_empty() {
            self.recorder.passed_over(kind, due);
            let _ = order.settled.set(None);
            return;
        }
        // Nobody pays, or gives back, what he was not granted yet.
        let mut call = Call::begin(self, kind, due.max(decision.at));
        let reservation = self.id("order", u64::from(number));
        let id = self.id(kind.name(), u64::from(number));
        let settled = if kind == Kind::Confirm {
            let request = ConfirmRequest { id, reservation };
            call.ask(|| {
                let (mut client, request) = (self.link(n).reservations(), request.clone());
                async move {
                    let answer = client.confirm(request).await?;
                    Ok(answer.into_inner().position)
                }
            })
            .await
        } else {
            let request = ReleaseRequest {
                id,
                reservation,
                ..ReleaseRequest::default()
            };
            call.ask(|| {
                let (mut client, request) = (self.link(n).reservations(), request.clone());
                async move {
                    let answer = client.release(request).await?;
                    Ok(answer.into_inner().position)
                }
            })
            .await
        };
        if let Settled::Refused(status) = &settled
            && matches!(status.code(), Code::NotFound | Code::FailedPrecondition)
        {
            let example = || format!("{} of order {number}: {}", kind.name(), status.message());
            self.findings.wrong(Check::Reservations, example);
        }
        let Some(position) = settled.answer() else {
            let _ = order.settled.set(None);
            return;
        };
        let at = call.end();
        self.saw(position);
        if kind == Kind::Release {
            for held in &decision.held {
                let cell = self.catalogue.cell(held.sku, held.slot);
                self.account.move_reserved(cell, -held.units, position);
            }
        }
        let _ = order.settled.set(Some(at));
    }

    async fn ship(&self, n: u64, due: Duration, number: OrderNumber) {
        let order = self.orders.get(number);
        let decision = order.decided.wait().await;
        let settled = match decision.held.is_empty() {
            true => None,
            false => *order.settled.wait().await,
        };
        let Some(settled) = settled else {
            self.recorder.passed_over(Kind::Ship, due);
            let _ = order.shipped.set(None);
            return;
        };
        let movements = self.of_each_held(&decision.held, |held, location| {
            let shipped = Shipped {
                order: self.id("order", u64::from(number)),
                line: held.line.clone(),
                location,
            };
            vec![("ship", Moved::Shipped(shipped))]
        });
        let movements = self.numbered(number, due, movements);
        let mut call = Call::begin(self, Kind::Ship, due.max(settled));
        let shipped = self.post(n, &mut call, movements).await.map(|_| {
            for held in &decision.held {
                let cell = self.catalogue.cell(held.sku, held.slot);
                self.account.ship(cell, held.units);
            }
            call.end()
        });
        let _ = order.shipped.set(shipped);
    }

    /// A whole order comes back: announced, received, inspected and put on the shelf again.
    async fn take_back(&self, n: u64, due: Duration, number: OrderNumber) {
        let order = self.orders.get(number);
        let decision = order.decided.wait().await;
        let shipped = match decision.held.is_empty() {
            true => None,
            false => *order.shipped.wait().await,
        };
        let Some(shipped) = shipped else {
            self.recorder.passed_over(Kind::Return, due);
            return;
        };
        let movements = self.of_each_held(&decision.held, |held, location| {
            let (r#return, line) = (self.id("return", u64::from(number)), held.line.clone());
            let authorized = ReturnAuthorized {
                r#return: r#return.clone(),
                line: line.clone(),
                location: location.clone(),
                order: self.id("order", u64::from(number)),
                order_line: line.clone(),
            };
            let received = ReturnReceived {
                r#return: r#return.clone(),
                line: line.clone(),
                location: location.clone(),
            };
            let inspected = ReturnInspected {
                r#return,
                line,
                location,
                disposition: Disposition::Restock.into(),
            };
            vec![
                ("rma", Moved::ReturnAuthorized(authorized)),
                ("back", Moved::ReturnReceived(received)),
                ("look", Moved::ReturnInspected(inspected)),
            ]
        });
        let movements = self.numbered(number, due, movements);
        let mut call = Call::begin(self, Kind::Return, due.max(shipped));
        if let Some(position) = self.post(n, &mut call, movements).await {
            call.end();
            for held in &decision.held {
                let cell = self.catalogue.cell(held.sku, held.slot);
                self.account.move_good(cell, held.units, position);
            }
        }
    }

    /// What happened to each of the units held, with a word that tells the movements apart.
    fn of_each_held(
        &self,
        held: &[Held],
        happened: impl Fn(&Held, String) -> Vec<(&'static str, Moved)>,
    ) -> Vec<(&'static str, u32, i64, Moved)> {
        let each = held.iter().flat_map(|held| {
            let location = self.catalogue.location(held.sku, held.slot);
            let moved = happened(held, location).into_iter();
            moved.map(|(word, moved)| (word, held.sku, held.units, moved))
        });
        each.collect()
    }

    fn numbered(
        &self,
        order: OrderNumber,
        due: Duration,
        movements: Vec<(&'static str, u32, i64, Moved)>,
    ) -> Vec<Movement> {
        let numbered = (0..).zip(movements);
        numbered
            .map(|(n, (word, sku, units, moved)): (u32, _)| {
                let id = format!("{}-{n}", self.id(word, u64::from(order)));
                Movement {
                    occurred_at: Some(self.time_of(due)),
                    ..movement(id, self.catalogue.sku(sku), units, moved)
                }
            })
            .collect()
    }

    /// Planned movements as they are sent: the same whenever they are asked for.
    pub fn movements(&self, first: u64, due: Duration, moves: &[Move]) -> Vec<Movement> {
        let numbered = (first..).zip(moves);
        numbered
            .map(|(n, moved)| {
                let location = self.catalogue.location(moved.sku, moved.slot);
                let (id, sku) = (self.id("move", n), self.catalogue.sku(moved.sku));
                let units = i64::from(moved.units);
                let built = match moved.change {
                    Change::Received => received(id, sku, units, location),
                    Change::Sold => {
                        let sold = Issued {
                            location,
                            reason: IssueReason::Sale.into(),
                            ..Issued::default()
                        };
                        movement(id, sku, units, Moved::Issued(sold))
                    }
                };
                Movement {
                    occurred_at: Some(self.time_of(due)),
                    ..built
                }
            })
            .collect()
    }

    async fn report(&self, n: u64, due: Duration, first: u64, moves: &[Move]) {
        let movements = self.movements(first, due, moves);
        let mut call = Call::begin(self, Kind::Movements, due);
        let Some(position) = self.post(n, &mut call, movements).await else {
            return;
        };
        call.end();
        self.moved.set(first, moves.len());
        for moved in moves {
            let cell = self.catalogue.cell(moved.sku, moved.slot);
            let units = match moved.change {
                Change::Received => i64::from(moved.units),
                Change::Sold => -i64::from(moved.units),
            };
            if moved.slot < self.catalogue.centres() {
                self.account.move_good(cell, units, position);
            } else {
                // What was sold over the counter may be reported before what was received: such a
                // balance is checked at the end only.
                self.account.move_shelf(cell, units);
            }
        }
    }

    async fn replay(&self, n: u64, due: Duration, first: usize, count: usize) {
        let Some(recording) = &self.recording else {
            return;
        };
        let movements = recording.movements()[first..first + count].to_vec();
        let mut call = Call::begin(self, Kind::Movements, due);
        if self.post(n, &mut call, movements).await.is_some() {
            call.end();
            self.replayed.set(first as u64, count);
        }
    }

    /// A movement, and a query that has to show it.
    async fn probe(&self, n: u64, due: Duration, number: u64) {
        let sku = self.catalogue.probe_sku(number);
        let id = self.id("probe", number);
        let movement = Movement {
            occurred_at: Some(self.time_of(due)),
            ..received(id, sku.clone(), 1, centre(0))
        };
        let mut call = Call::begin(self, Kind::Freshness, due);
        let Some(position) = self.post(n, &mut call, vec![movement]).await else {
            return;
        };
        let expected = self.account.count_probe(number);
        let request = GetRequest {
            channel: self.catalogue.channels()[0].clone(),
            skus: vec![sku.clone()],
            include_locations: true,
            min_position: position,
        };
        let mut client = self.link(n + 1).availability();
        let Some(answer) = call.look(client.get(request)).await else {
            return;
        };
        call.end();
        self.pushed(due, position).await;
        let shown = shown_good(&answer.into_inner(), &centre(0));
        let example = || format!("{sku}: {expected} units are acknowledged, {shown} shown");
        self.findings
            .that(Check::ReadYourWrites, shown >= expected, example);
    }

    /// When a watcher was told of a position.
    async fn pushed(&self, due: Duration, position: u64) {
        if self.watchers.is_empty() {
            return;
        }
        self.recorder.planned(Kind::Pushed, due);
        match self.watchers.told(position, self.patience.timeout).await {
            Some(told) => {
                let told = told.saturating_duration_since(self.start);
                self.recorder.answered(Kind::Pushed, due, told);
            }
            None => {
                let message = format!("no watcher was told of position {position} in time");
                self.recorder
                    .failed(Kind::Pushed, due, "NOT_TOLD", &message);
            }
        }
    }

    /// Posts movements; gives their position once all are applied.
    async fn post(&self, n: u64, call: &mut Call<'_>, movements: Vec<Movement>) -> Option<u64> {
        if let Some(nats) = &self.nats {
            let published = call.ask(|| nats.publish(movements.clone())).await;
            let position = published.answer()?;
            self.saw(position);
            return Some(position);
        }
        let lane = &self.link(n).moving;
        let request = || PostRequest {
            movements: movements.clone(),
        };
        let posted = call.ask(|| lane.ask(request())).await.answer()?;
        self.saw(posted.position);
        let applied =
            |outcome: &crate::proto::MovementOutcome| outcome.outcome() == Outcome::Applied;
        if posted.outcomes.len() == movements.len() && posted.outcomes.iter().all(applied) {
            return Some(posted.position);
        }
        let bad = posted.outcomes.iter().find(|outcome| !applied(outcome));
        let example = || format!("{} movements posted, {bad:?}", movements.len());
        self.findings.wrong(Check::MovementsIn, example);
        call.fail("NOT_APPLIED", &format!("{bad:?}"));
        None
    }
}

fn answers(asked: &[String], answer: &GetResponse) -> bool {
    let items = answer.items.iter();
    answer.items.len() == asked.len()
        && items
            .zip(asked)
            .all(|(item, sku)| item.sku == *sku && item.ats >= 0)
}

fn shown_good(answer: &GetResponse, location: &str) -> i64 {
    let locations = answer.items.iter().flat_map(|item| &item.locations);
    let at = locations.filter(|at| at.location == location);
    at.filter_map(|at| at.balances.as_ref())
        .map(|b| b.good)
        .sum()
}
