//! The demonstration's retailer: fifty stores, two distribution centers, and some days of trade.
//!
//! Simulated in the order in which things happen, delivered in the order in which reports of them
//! arrive: mostly within seconds, some hours late, some twice. Takes neither a clock nor any other
//! randomness than its seed, so equal plans yield equal movements.

use std::{cmp::Reverse, collections::BinaryHeap};

use prost_types::Timestamp;

use super::{
    catalog::{self, CENTERS, LOCATIONS, STORES},
    model::{At, Cell, Event, Line, Plan},
    random::{Random, Zipf},
};
use crate::{
    domain::movement::TimeUs,
    proto::v1::{self as pb, movement::Kind},
};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Days of trade.
const DAYS: i64 = 5;
/// Time in which the first stock comes in, before the trade.
const STOCKING: i64 = 12 * HOUR;
/// How the trade of a day spreads over its hours.
const HOURS: [u64; 24] = [
    13, 12, 10, 8, 6, 4, 2, 1, 1, 1, 1, 1, 2, 4, 6, 8, 10, 12, 13, 13, 12, 12, 13, 14,
];
/// Channels, each as often as it orders.
const CHANNELS: [&str; 20] = [
    "web",
    "web",
    "web",
    "web",
    "web",
    "web",
    "web",
    "web",
    "web",
    "web",
    "web",
    "app",
    "app",
    "app",
    "app",
    "app",
    "app",
    "marketplace",
    "marketplace",
    "marketplace",
];

/// Yields the movements in the order in which they arrive.
#[derive(Debug)]
pub struct Generator {
    plan: Plan,
    random: Random,
    zipf: Zipf,
    /// By location, then article.
    cells: Vec<Cell>,
    /// Cells still to be stocked, from the last.
    stocked: usize,
    traded: u64,
    sales: u64,
    numbers: u64,
    orders: u64,
    follow_ups: BinaryHeap<Reverse<At<Event>>>,
    under_way: BinaryHeap<Reverse<At<pb::Movement>>>,
    names: Vec<String>,
    oversold: Vec<(usize, usize)>,
}

impl Generator {
    /// Lays out the assortments; the movements come as they are asked for.
    pub fn new(plan: Plan) -> Self {
        let mut generator = Self {
            plan,
            random: Random::new(plan.seed),
            zipf: Zipf::new(plan.skus),
            cells: vec![Cell::default(); LOCATIONS * plan.skus],
            stocked: 0,
            traded: 0,
            sales: 0,
            numbers: 0,
            orders: 0,
            follow_ups: BinaryHeap::new(),
            under_way: BinaryHeap::new(),
            names: (0..LOCATIONS).map(catalog::location).collect(),
            oversold: Vec::new(),
        };
        generator.lay_out();
        for n in 0..plan.oversold {
            let before_us = generator.random.between(1, 90) as i64 * MINUTE;
            generator.plan_at(plan.now_us - before_us, Event::Oversell(n));
        }
        generator
    }

    /// Articles (by index) and locations that are oversold, all of them on purpose; complete once
    /// all movements are out. A delivery or a cancelled order may have cured one.
    pub fn oversold(&self) -> Vec<(usize, String)> {
        self.oversold
            .iter()
            .filter(|(sku, store)| {
                let cell = self.cells[store * self.plan.skus + sku];
                cell.good < cell.reserved
            })
            .map(|(sku, store)| (*sku, self.names[*store].clone()))
            .collect()
    }

    /// The first center has every article, the second three of four, and a store the more likely
    /// the better an article sells.
    fn lay_out(&mut self) {
        let skus = self.plan.skus as u64;
        for location in 0..LOCATIONS {
            let size = self.random.between(skus / 50, skus * 3 / 10);
            for sku in 0..self.plan.skus {
                let carried = match location {
                    0 => true,
                    1 => self.random.chance(750),
                    _ => {
                        let likely = 2 * size * (skus - sku as u64) / skus;
                        self.random.below(skus) < likely
                    }
                };
                self.cells[location * self.plan.skus + sku].carried = carried;
            }
        }
    }

    fn start_us(&self) -> TimeUs {
        self.plan.now_us - DAYS * DAY
    }

    fn cell(&mut self, sku: usize, location: usize) -> &mut Cell {
        &mut self.cells[location * self.plan.skus + sku]
    }

    fn free(&self, sku: usize, location: usize) -> u32 {
        let cell = self.cells[location * self.plan.skus + sku];
        if cell.carried { cell.free() } else { 0 }
    }

    fn plan_at(&mut self, time_us: TimeUs, event: Event) {
        self.numbers += 1;
        self.follow_ups.push(Reverse(At {
            time_us,
            number: self.numbers,
            what: event,
        }));
    }

    fn plan_in(&mut self, time_us: TimeUs, low_us: i64, high_us: i64, event: Event) {
        let delay_us = self.random.between(low_us as u64, high_us as u64) as i64;
        self.plan_at(time_us + delay_us, event);
    }

    /// When the n-th event of the trade happens.
    fn trade_time(&self, n: u64) -> TimeUs {
        let per_day = self.plan.events.div_ceil(DAYS as u64);
        let day = (n / per_day) as i64;
        let all: u64 = HOURS.iter().sum();
        let mut at = (n % per_day) * all * 3_600 / per_day;
        for (hour, weight) in HOURS.iter().enumerate() {
            let width = weight * 3_600;
            if at < width {
                let second = (at / weight) as i64;
                return self.start_us() + day * DAY + hour as i64 * HOUR + second * SECOND;
            }
            at -= width;
        }
        self.start_us() + (day + 1) * DAY
    }

    /// Lets the next thing happen. False if nothing is left to happen.
    fn step(&mut self) -> bool {
        if self.stocked < self.cells.len() {
            self.stock();
            return true;
        }
        let trade_us = (self.traded < self.plan.events).then(|| self.trade_time(self.traded));
        let follow_up_us = self.follow_ups.peek().map(|Reverse(at)| at.time_us);
        match (trade_us, follow_up_us) {
            (Some(trade_us), follow_up_us) if follow_up_us.is_none_or(|us| trade_us <= us) => {
                self.traded += 1;
                self.trade(trade_us);
                true
            }
            (_, Some(time_us)) if time_us <= self.plan.now_us => {
                if let Some(Reverse(at)) = self.follow_ups.pop() {
                    self.follow_up(at.time_us, at.what);
                }
                true
            }
            // What is left lies in the future: open orders.
            _ => false,
        }
    }

    /// The time that the next step can report nothing before.
    fn reached_us(&self) -> TimeUs {
        if self.stocked < self.cells.len() {
            return self.stock_time(self.stocked);
        }
        let trade_us = (self.traded < self.plan.events).then(|| self.trade_time(self.traded));
        let follow_up_us = self.follow_ups.peek().map(|Reverse(at)| at.time_us);
        trade_us
            .into_iter()
            .chain(follow_up_us)
            .min()
            .unwrap_or(TimeUs::MAX)
    }

    fn stock_time(&self, n: usize) -> TimeUs {
        self.start_us() - STOCKING + STOCKING / self.cells.len() as i64 * n as i64
    }

    fn stock(&mut self) {
        let n = self.stocked;
        self.stocked += 1;
        if !self.cells[n].carried {
            return;
        }
        let (location, sku) = (n / self.plan.skus, n % self.plan.skus);
        let rank = sku as u64;
        let quantity = if location < CENTERS {
            10 + self.random.below(40) + 60_000 / (rank + 40)
        } else {
            3 + self.random.below(10) + 600 / (rank + 15)
        } as u32;
        self.cells[n].good = quantity;
        let mut movement = self.movement("wms", self.stock_time(n), sku, quantity);
        movement.id = format!("initial-{}-{}", self.names[location], movement.sku);
        movement.reference = "initial stock".to_owned();
        movement.kind = Some(self.received(location));
        self.report(movement);
    }

    fn trade(&mut self, time_us: TimeUs) {
        match self.random.below(205) {
            0..=166 => self.sale(time_us),
            167..=199 => self.order(time_us),
            200..=201 => self.damage(time_us),
            202..=203 => self.adjust(time_us),
            _ => self.internal(time_us),
        }
    }

    /// An article that a store has at least `quantity` free units of, as demand would have it.
    fn in_some_store(&mut self, quantity: u32) -> Option<(usize, usize)> {
        let location = CENTERS + self.random.index(STORES);
        (0..40).find_map(|_| {
            let sku = self.zipf.sample(&mut self.random);
            (self.free(sku, location) >= quantity).then_some((sku, location))
        })
    }

    fn sale(&mut self, time_us: TimeUs) {
        let quantity = [1, 1, 1, 1, 1, 1, 2, 2, 3][self.random.index(9)];
        if let Some((sku, location)) = self.in_some_store(quantity) {
            self.sell(time_us, sku, location, quantity);
        }
    }

    fn sell(&mut self, time_us: TimeUs, sku: usize, location: usize, quantity: u32) {
        let cell = self.cell(sku, location);
        cell.good -= quantity;
        if cell.good == 2 {
            self.plan_in(
                time_us,
                4 * HOUR,
                20 * HOUR,
                Event::Replenish { sku, location },
            );
        }
        let number = self.number();
        let register = self.random.between(1, 6);
        let mut movement = self.movement("pos", time_us, sku, quantity);
        movement.id = format!("{}-{number}", self.names[location]);
        movement.reference = format!("receipt {number}");
        movement.actor = format!("register-{register}");
        movement.kind = Some(self.issued(location, pb::IssueReason::Sale, pb::Condition::Good));
        // A till that repeats a receipt with another quantity: what `conflicting_duplicate` is for.
        self.sales += 1;
        if self.sales % 60_000 == 500 {
            let mut conflicting = movement.clone();
            conflicting.quantity += 1;
            self.deliver(time_us + DAY, conflicting);
        }
        self.report(movement);
    }

    fn order(&mut self, time_us: TimeUs) {
        let channel = CHANNELS[self.random.index(CHANNELS.len())];
        self.orders += 1;
        let order = self.orders;
        for line in 1..=[1, 1, 1, 2, 2, 3][self.random.index(6)] {
            let sku = self.zipf.sample(&mut self.random);
            let quantity = [1, 1, 1, 1, 2, 2, 3][self.random.index(7)];
            if let Some(location) = self.place(channel, sku, quantity, LOCATIONS) {
                let line = Line {
                    channel,
                    order,
                    line,
                    sku,
                    location,
                    quantity,
                };
                self.reserve(time_us, line);
                match self.random.below(100) {
                    0..=5 => self.plan_in(time_us, 10 * MINUTE, 12 * HOUR, Event::Release(line)),
                    6..=9 => self.plan_in(time_us, 10 * MINUTE, 2 * HOUR, Event::Reassign(line)),
                    _ => self.plan_in(time_us, HOUR, 10 * HOUR, Event::Pick(line)),
                }
            }
        }
    }

    /// Where an order line is delivered from, other than `except`.
    fn place(&mut self, channel: &str, sku: usize, quantity: u32, except: usize) -> Option<usize> {
        if channel != "marketplace" && self.random.chance(300) {
            for _ in 0..8 {
                let location = CENTERS + self.random.index(STORES);
                if location != except && self.free(sku, location) > quantity {
                    return Some(location);
                }
            }
        }
        let first = self.random.index(CENTERS);
        [first, 1 - first]
            .into_iter()
            .find(|location| *location != except && self.free(sku, *location) >= quantity)
    }

    fn reserve(&mut self, time_us: TimeUs, line: Line) {
        self.cell(line.sku, line.location).reserved += line.quantity;
        let kind = Kind::Reserved(pb::Reserved {
            order: order_number(line),
            line: line.line.to_string(),
            location: self.names[line.location].clone(),
            channel: line.channel.to_owned(),
            expires_at: None,
        });
        self.report_line("oms", time_us, line, "reserved", kind);
    }

    fn follow_up(&mut self, time_us: TimeUs, event: Event) {
        match event {
            Event::Pick(line) => {
                self.cell(line.sku, line.location).picked += line.quantity;
                let kind = Kind::Picked(pb::Picked {
                    order: order_number(line),
                    line: line.line.to_string(),
                    location: self.names[line.location].clone(),
                });
                self.report_line("wms", time_us, line, "picked", kind);
                self.plan_in(time_us, 5 * MINUTE, HOUR, Event::Pack(line));
            }
            Event::Pack(line) => {
                let kind = Kind::Packed(pb::Packed {
                    order: order_number(line),
                    line: line.line.to_string(),
                    location: self.names[line.location].clone(),
                });
                self.report_line("wms", time_us, line, "packed", kind);
                self.plan_in(time_us, 30 * MINUTE, 5 * HOUR, Event::Ship(line));
            }
            Event::Ship(line) => {
                let cell = self.cell(line.sku, line.location);
                cell.good -= line.quantity;
                cell.reserved -= line.quantity;
                cell.picked -= line.quantity;
                let kind = Kind::Shipped(pb::Shipped {
                    order: order_number(line),
                    line: line.line.to_string(),
                    location: self.names[line.location].clone(),
                });
                self.report_line("wms", time_us, line, "shipped", kind);
            }
            Event::Release(line) => {
                self.cell(line.sku, line.location).reserved -= line.quantity;
                let kind = Kind::Released(pb::Released {
                    order: order_number(line),
                    line: line.line.to_string(),
                    location: self.names[line.location].clone(),
                });
                self.report_line("oms", time_us, line, "released", kind);
            }
            Event::Reassign(line) => self.reassign(time_us, line),
            Event::Replenish { sku, location } => self.replenish(time_us, sku, location),
            Event::Scrap { sku, location } => {
                let number = self.number();
                let mut movement = self.movement("wms", time_us, sku, 1);
                movement.id = format!("scrap-{number}");
                movement.kind =
                    Some(self.issued(location, pb::IssueReason::Scrap, pb::Condition::Damaged));
                self.report(movement);
            }
            Event::Oversell(n) => self.oversell(time_us, n),
        }
    }

    fn reassign(&mut self, time_us: TimeUs, line: Line) {
        let Some(to) = self.place(line.channel, line.sku, line.quantity, line.location) else {
            return self.follow_up(time_us, Event::Release(line));
        };
        self.cell(line.sku, line.location).reserved -= line.quantity;
        self.cell(line.sku, to).reserved += line.quantity;
        let kind = Kind::Reassigned(pb::Reassigned {
            order: order_number(line),
            line: line.line.to_string(),
            from: self.names[line.location].clone(),
            to: self.names[to].clone(),
        });
        self.report_line("oms", time_us, line, "reassigned", kind);
        let line = Line {
            location: to,
            ..line
        };
        self.plan_in(time_us, HOUR, 10 * HOUR, Event::Pick(line));
    }

    fn replenish(&mut self, time_us: TimeUs, sku: usize, location: usize) {
        let quantity = self.random.between(6, 18) as u32;
        self.cell(sku, location).good += quantity;
        let number = self.number();
        let mut movement = self.movement("wms", time_us, sku, quantity);
        movement.id = format!("delivery-{number}");
        movement.reference = format!("delivery note {number}");
        movement.kind = Some(self.received(location));
        self.report(movement);
    }

    fn damage(&mut self, time_us: TimeUs) {
        let Some((sku, location)) = self.in_some_store(1) else {
            return;
        };
        self.cell(sku, location).good -= 1;
        let number = self.number();
        let mut movement = self.movement("wms", time_us, sku, 1);
        movement.id = format!("damage-{number}");
        movement.kind = Some(Kind::Reclassified(pb::Reclassified {
            location: self.names[location].clone(),
            from: pb::Condition::Good.into(),
            to: pb::Condition::Damaged.into(),
        }));
        self.report(movement);
        if self.random.chance(300) {
            self.plan_in(time_us, 2 * HOUR, 2 * DAY, Event::Scrap { sku, location });
        }
    }

    fn adjust(&mut self, time_us: TimeUs) {
        let Some((sku, location)) = self.in_some_store(3) else {
            return;
        };
        let units = [-2, -1, -1, -1, 1, 1, 2][self.random.index(7)];
        let cell = self.cell(sku, location);
        cell.good = cell.good.saturating_add_signed(units);
        let number = self.number();
        let mut movement = self.movement("wms", time_us, sku, 0);
        movement.quantity = i64::from(units);
        movement.id = format!("adjustment-{number}");
        movement.kind = Some(Kind::Adjusted(pb::Adjusted {
            location: self.names[location].clone(),
            condition: pb::Condition::Good.into(),
            reason: "shelf check".to_owned(),
        }));
        self.report(movement);
    }

    fn internal(&mut self, time_us: TimeUs) {
        let Some((sku, location)) = self.in_some_store(2) else {
            return;
        };
        self.cell(sku, location).good -= 1;
        let number = self.number();
        let mut movement = self.movement("pos", time_us, sku, 1);
        movement.id = format!("display-{number}");
        movement.reference = "shop window".to_owned();
        movement.kind = Some(self.issued(location, pb::IssueReason::Internal, pb::Condition::Good));
        self.report(movement);
    }

    /// All that a store has is promised online, and then one unit goes over the counter.
    fn oversell(&mut self, time_us: TimeUs, n: usize) {
        let store = CENTERS + n % STORES;
        let Some(sku) = (0..self.plan.skus).find(|sku| (1..=6).contains(&self.free(*sku, store)))
        else {
            return;
        };
        self.orders += 1;
        let line = Line {
            channel: "web",
            order: self.orders,
            line: 1,
            sku,
            location: store,
            quantity: self.free(sku, store),
        };
        self.reserve(time_us, line);
        self.sell(time_us + MINUTE / 2, sku, store, 1);
        // Nobody else may sell or promise it, or it would be oversold by more than is meant.
        self.cell(sku, store).carried = false;
        self.oversold.push((sku, store));
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn received(&self, location: usize) -> Kind {
        Kind::Received(pb::Received {
            location: self.names[location].clone(),
            condition: pb::Condition::Good.into(),
            ..pb::Received::default()
        })
    }

    fn issued(&self, location: usize, reason: pb::IssueReason, from: pb::Condition) -> Kind {
        Kind::Issued(pb::Issued {
            location: self.names[location].clone(),
            condition: from.into(),
            reason: reason.into(),
        })
    }

    fn movement(
        &mut self,
        source: &str,
        time_us: TimeUs,
        sku: usize,
        quantity: u32,
    ) -> pb::Movement {
        let time_us = time_us.min(self.plan.now_us) + self.random.below(999_999) as i64 - SECOND;
        pb::Movement {
            source: source.to_owned(),
            occurred_at: Some(Timestamp {
                seconds: time_us.div_euclid(SECOND),
                nanos: (time_us.rem_euclid(SECOND) * 1_000) as i32,
            }),
            sku: catalog::sku(sku),
            quantity: i64::from(quantity),
            ..pb::Movement::default()
        }
    }

    fn report_line(&mut self, source: &str, time_us: TimeUs, line: Line, step: &str, kind: Kind) {
        let mut movement = self.movement(source, time_us, line.sku, line.quantity);
        let order = order_number(line);
        movement.id = format!("{order}/{}/{step}", line.line);
        movement.correlation_id = order;
        movement.kind = Some(kind);
        self.report(movement);
    }

    /// Sends a movement on its way: soon, late, or twice.
    fn report(&mut self, movement: pb::Movement) {
        let occurred_us = movement
            .occurred_at
            .map_or(0, |at| at.seconds * SECOND + i64::from(at.nanos) / 1_000);
        let delay_us = match self.random.below(1_000) {
            0..=1 => self.random.below(24 * HOUR as u64),
            2..=21 => self.random.below(6 * HOUR as u64),
            _ => self.random.below(4 * SECOND as u64),
        } as i64;
        if self.random.chance(10) {
            let again_us = self.random.below(2 * HOUR as u64) as i64;
            self.deliver(occurred_us + delay_us + again_us, movement.clone());
        }
        self.deliver(occurred_us + delay_us, movement);
    }

    fn deliver(&mut self, time_us: TimeUs, movement: pb::Movement) {
        self.numbers += 1;
        self.under_way.push(Reverse(At {
            time_us,
            number: self.numbers,
            what: movement,
        }));
    }
}

impl Iterator for Generator {
    type Item = pb::Movement;

    fn next(&mut self) -> Option<pb::Movement> {
        loop {
            let arrives_us = self.under_way.peek().map(|Reverse(at)| at.time_us);
            // One second, since a movement is stamped up to that much before its event.
            if arrives_us.is_some_and(|us| us < self.reached_us().saturating_sub(SECOND))
                || !self.step()
            {
                return self.under_way.pop().map(|Reverse(at)| at.what);
            }
        }
    }
}

fn order_number(line: Line) -> String {
    format!("{}-{:06}", line.channel.to_ascii_uppercase(), line.order)
}
