//! What is on record of a run, and whether it could have been: what callers were told, what the
//! log holds, and what every instance showed in the end.
//!
//! **Why no search for a linearization.** A checker of linearizability (Wing and Gong's, as in
//! `stateright`'s `LinearizabilityTester` or `todc-utils`) is given calls and answers and looks
//! for some order that explains them. A cart touches several SKUs, so that the history does not
//! fall into independent parts, and the search over thousands of calls of dozens of callers has no
//! end. It is also the weaker question: some order has to exist. Here the order is known. The log
//! is a witness, and it is checked as one: it has to fit real time (what was answered before
//! something else was asked lies before it), and one thing done after another in its order, by
//! a model of its own, has to give every answer to the letter, grants and refusals alike.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use sellable::proto::v1::{self as pb, command::Command as Asked, movement::Kind};

use crate::stock::{
    Cells, Decision, Outcome, RULES, Recording, Stock, document, id_of, micros, oversold, refused,
    timestamp,
};

/// A command was sent, and perhaps answered. Moments are numbers of one clock that counts.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) command: Arc<pb::Command>,
    pub(crate) instance: usize,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// `None`: none came, or the caller did not wait for it.
    pub(crate) answer: Option<Answer>,
    /// Asked once more when all had been answered.
    pub(crate) again: bool,
}

/// What a caller was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Position, the log's time there, and whether it was known before; a refusal of the command
    /// itself does not tell these.
    pub(crate) decided: Option<(u64, i64, bool)>,
    pub(crate) outcome: Outcome,
}

/// Movements were posted, and perhaps answered.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) movements: Arc<[pb::Movement]>,
    pub(crate) instance: usize,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) answer: Option<pb::PostResponse>,
}

/// A reservation was looked at.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) instance: usize,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) found: pb::Reservation,
}

/// All that callers did and were told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) posts: Vec<Post>,
    pub(crate) looks: Vec<Look>,
    /// Cells that were seen oversold while the run went on: by how many units, and a sentence.
    pub(crate) glimpses: Vec<(i64, String)>,
}

/// What one instance showed when all was quiet.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    pub(crate) position: u64,
    pub(crate) time_us: i64,
    pub(crate) cells: Cells,
    pub(crate) digest: String,
    pub(crate) exceptions: Vec<String>,
}

/// Everything on record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    pub(crate) told: Told,
    pub(crate) log: Vec<Recording>,
    pub(crate) shelves: Vec<Shelf>,
}

/// Sums over a run.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) commands: usize,
    pub(crate) attempts: usize,
    pub(crate) unanswered: usize,
    pub(crate) duplicates: usize,
    pub(crate) granted: usize,
    pub(crate) short: usize,
    pub(crate) refused: usize,
    pub(crate) expired: usize,
    pub(crate) units_granted: i64,
    pub(crate) units_released: i64,
    pub(crate) units_expired: i64,
    pub(crate) units_shipped: i64,
    pub(crate) units_oversold: i64,
    pub(crate) looks: usize,
    pub(crate) records: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "commands={} attempts={} retries={} unanswered={} answered_as_duplicate={} granted={} \
             short={} refused={} expired={} units_granted={} units_released={} units_expired={} \
             units_shipped={} looks={} records={} units_oversold={}",
            self.commands,
            self.attempts,
            self.attempts - self.commands,
            self.unanswered,
            self.duplicates,
            self.granted,
            self.short,
            self.refused,
            self.expired,
            self.units_granted,
            self.units_released,
            self.units_expired,
            self.units_shipped,
            self.looks,
            self.records,
            self.units_oversold,
        )
    }
}

/// Everything on record that could not have been, in a sentence each; and the sums.
pub(crate) fn examine(evidence: &Evidence) -> (Vec<String>, Figures) {
    let glimpses = evidence.told.glimpses.iter();
    let mut findings: Vec<String> = glimpses.clone().map(|(_, told)| told.clone()).collect();
    let mut figures = Figures::default();
    let glimpsed = glimpses.map(|(units, _)| *units);
    let shelved = evidence.shelves.iter().map(|shelf| oversold(&shelf.cells));
    figures.units_oversold = glimpsed.chain(shelved).max().unwrap_or(0);
    let stock = replay(evidence, &mut findings, &mut figures);
    answers(evidence, &stock, &mut findings, &mut figures);
    posts(evidence, &stock, &mut findings, &mut figures);
    whole_carts(evidence, &mut findings);
    real_time(evidence, &stock, &mut findings);
    accounts(evidence, &mut findings);
    agreement(evidence, &mut findings);
    (findings, figures)
}

/// Goes through the log, one record after another, and compares all that was seen at a position
/// with the model at that position.
fn replay(evidence: &Evidence, findings: &mut Vec<String>, figures: &mut Figures) -> Stock {
    let mut looks: BTreeMap<u64, Vec<&Look>> = BTreeMap::new();
    for look in &evidence.told.looks {
        looks.entry(look.found.position).or_default().push(look);
    }
    let mut stock = Stock::new();
    for entry in &evidence.log {
        if entry.position != stock.position + 1 {
            findings.push(format!("the log has a gap before {}", entry.position));
        }
        stock.go_on(entry, findings);
        let position = stock.position;
        let units = oversold(&stock.cells);
        if units > 0 {
            findings.push(format!(
                "by the log, {units} units are oversold at {position}"
            ));
        }
        figures.units_oversold = figures.units_oversold.max(units);
        for look in looks.remove(&position).unwrap_or_default() {
            let mut found = look.found.clone();
            if found.state() == pb::ReservationState::Refused {
                found.expires_at = None;
            }
            let wanted = stock.reservation(&found.id);
            if wanted.as_ref() != Some(&found) {
                findings.push(format!(
                    "instance {} showed {found:?}; by the log it was {wanted:?}",
                    look.instance
                ));
            }
        }
        for shelf in &evidence.shelves {
            if shelf.position == position && shelf.cells != stock.cells {
                let (shown, wanted) = (&shelf.cells, &stock.cells);
                findings.push(format!(
                    "at {position} the books hold {shown:?}; by the log it is {wanted:?}"
                ));
            }
        }
    }
    let shelves = evidence.shelves.iter().map(|shelf| shelf.position);
    for position in looks.into_keys().chain(shelves) {
        if (1..=stock.position).contains(&position) {
            continue;
        }
        findings.push(format!(
            "position {position} was told, and the log has no such"
        ));
    }
    figures.units_expired = stock.expired_units;
    figures.records = evidence.log.len();
    stock
}

/// Every answer is the first decision, whoever was asked and however often.
fn answers(evidence: &Evidence, stock: &Stock, findings: &mut Vec<String>, figures: &mut Figures) {
    let mut commands = BTreeSet::new();
    let mut first_answers: HashMap<&str, usize> = HashMap::new();
    for attempt in &evidence.told.attempts {
        let id = id_of(&attempt.command);
        commands.insert(id);
        figures.attempts += 1;
        let Some(answer) = &attempt.answer else {
            figures.unanswered += 1;
            continue;
        };
        let Some(decision) = stock.decided.get(id) else {
            findings.push(format!("{id} was answered, and the log does not have it"));
            continue;
        };
        let was = format!("{id}, told by instance {}: {answer:?}", attempt.instance);
        if decision.command != *attempt.command {
            // The id was taken.
            if answer.outcome != refused("AlreadyExists sellable.v1.command", id) {
                findings.push(format!("{was}; its id had been used for something else"));
            }
            continue;
        }
        if answer.outcome != decision.outcome {
            findings.push(format!("{was}; by the log it is {decision:?}"));
        }
        let tells = !matches!(decision.outcome, Outcome::Refused(_));
        match answer.decided {
            Some((position, time_us, duplicate)) => {
                if (position, time_us) != (decision.position, decision.time_us) {
                    findings.push(format!(
                        "{was}; it was decided at {} ({} µs)",
                        decision.position, decision.time_us
                    ));
                }
                figures.duplicates += usize::from(duplicate);
                if attempt.again && !duplicate {
                    findings.push(format!("{was}; it had been decided before"));
                }
                *first_answers.entry(id).or_default() += usize::from(!duplicate);
            }
            None if tells => findings.push(format!("{was}; it does not say where")),
            None => figures.duplicates += usize::from(attempt.again),
        }
    }
    for (id, count) in first_answers.iter().filter(|(_, count)| **count > 1) {
        findings.push(format!("{id} was decided {count} times"));
    }
    let answered: BTreeSet<&str> = evidence
        .told
        .attempts
        .iter()
        .filter(|attempt| attempt.answer.is_some())
        .map(|attempt| id_of(&attempt.command))
        .collect();
    for id in commands.difference(&answered) {
        findings.push(format!("{id} was never answered"));
    }
    figures.commands = commands.len();
    for decision in stock.decided.values() {
        match &decision.outcome {
            Outcome::Granted { allocations, .. } => {
                figures.granted += 1;
                figures.units_granted += units(allocations);
            }
            Outcome::Short(_) => figures.short += 1,
            Outcome::Released(released) => figures.units_released += units(released),
            Outcome::Refused(_) => figures.refused += 1,
            Outcome::Confirmed | Outcome::Extended(_) => {}
        }
        let id = id_of(&decision.command);
        let state = stock.reservation(id).map(|found| found.state());
        figures.expired += usize::from(state == Some(pb::ReservationState::Expired));
    }
}

fn units(allocations: &[pb::Allocation]) -> i64 {
    allocations.iter().map(|part| part.quantity).sum()
}

/// Every movement that was answered is in the log, and counted once.
fn posts(evidence: &Evidence, stock: &Stock, findings: &mut Vec<String>, figures: &mut Figures) {
    let mut applied = BTreeSet::new();
    for post in &evidence.told.posts {
        let Some(answer) = &post.answer else { continue };
        for (movement, outcome) in post.movements.iter().zip(&answer.outcomes) {
            let id = &movement.id;
            let first = stock.moved.get(id);
            let fits = match outcome.duplicate {
                false => applied.insert(id) && first == Some(&answer.position),
                true => first.is_some_and(|first| *first <= answer.position),
            };
            if !fits || outcome.outcome() != pb::Outcome::Applied {
                findings.push(format!(
                    "{id} was answered with {outcome:?} at {}; the log has it at {first:?}",
                    answer.position
                ));
            }
            if let (Some(Kind::Shipped(_)), false) = (&movement.kind, outcome.duplicate) {
                figures.units_shipped += movement.quantity;
            }
        }
    }
    figures.looks = evidence.told.looks.len();
}

/// No cart is ever held in part: of what was granted every line was reserved in full, of what was
/// refused none.
fn whole_carts(evidence: &Evidence, findings: &mut Vec<String>) {
    let mut carts: HashMap<&str, &pb::ReserveRequest> = HashMap::new();
    for attempt in &evidence.told.attempts {
        if let Some(Asked::Reserve(reserve)) = &attempt.command.command {
            // Of an id that was sent with other content later, the first is meant.
            carts.entry(&reserve.id).or_insert(reserve);
        }
    }
    for Look { found, .. } in &evidence.told.looks {
        let Some(cart) = carts.get(found.id.as_str()) else {
            findings.push(format!("nobody asked for {found:?}"));
            continue;
        };
        let granted = found.state() != pb::ReservationState::Refused;
        let whole = cart.lines.len() == found.lines.len()
            && cart.lines.iter().zip(&found.lines).all(|(asked, line)| {
                let reserved = if granted { asked.quantity } else { 0 };
                asked.sku == line.sku
                    && line.reserved == reserved
                    && line.released + line.shipped <= line.reserved
                    && units(&line.claims) <= reserved - line.released - line.shipped
            });
        if !whole || granted != found.short_lines.is_empty() {
            findings.push(format!("a cart is held in part: {found:?}"));
        }
    }
}

enum Event<'e> {
    /// First sent; it was decided there.
    Sent(&'e str, u64),
    /// An answer came that tells of this position.
    Seen(u64),
    /// An instance had applied this position.
    Applied(usize, u64),
    /// An instance was asked to look, and looked there.
    Looked(usize, u64),
}

/// What was answered before something else was sent lies before it in the log; and what an
/// instance has answered it also shows.
fn real_time(evidence: &Evidence, stock: &Stock, findings: &mut Vec<String>) {
    let mut first_sent: HashMap<&str, (u64, u64)> = HashMap::new();
    let mut events = Vec::new();
    let mut sent = |id, moment: u64, position: u64| {
        let first = first_sent.entry(id).or_insert((moment, position));
        first.0 = first.0.min(moment);
    };
    for attempt in &evidence.told.attempts {
        let id = id_of(&attempt.command);
        let Some(decision) = stock.decided.get(id) else {
            continue;
        };
        if decision.command != *attempt.command {
            continue;
        }
        sent(id, attempt.sent, decision.position);
        if let Some(answer) = &attempt.answer {
            let position = answer.decided.map_or(decision.position, |(at, ..)| at);
            events.push((attempt.answered, Event::Seen(position)));
            events.push((attempt.answered, Event::Applied(attempt.instance, position)));
        }
    }
    for post in &evidence.told.posts {
        for movement in post.movements.iter() {
            if let Some(position) = stock.moved.get(&movement.id) {
                sent(&movement.id, post.sent, *position);
            }
        }
        if let Some(answer) = &post.answer {
            events.push((post.answered, Event::Seen(answer.position)));
            events.push((
                post.answered,
                Event::Applied(post.instance, answer.position),
            ));
        }
    }
    for look in &evidence.told.looks {
        let position = look.found.position;
        events.push((look.sent, Event::Looked(look.instance, position)));
        events.push((look.answered, Event::Seen(position)));
        events.push((look.answered, Event::Applied(look.instance, position)));
    }
    let firsts = first_sent.into_iter();
    events.extend(firsts.map(|(id, (moment, position))| (moment, Event::Sent(id, position))));
    events.sort_by_key(|(moment, _)| *moment);
    let mut seen = 0;
    let mut applied: HashMap<usize, u64> = HashMap::new();
    for (_, event) in events {
        match event {
            Event::Seen(position) => seen = seen.max(position),
            Event::Sent(id, position) if position <= seen => findings.push(format!(
                "{id} was decided at {position}, and sent when {seen} had been told already"
            )),
            Event::Applied(instance, position) => {
                let known = applied.entry(instance).or_default();
                *known = (*known).max(position);
            }
            Event::Looked(instance, position)
                if applied
                    .get(&instance)
                    .is_some_and(|known| *known > position) =>
            {
                findings.push(format!(
                    "instance {instance} looked at {position}, behind what it had told"
                ));
            }
            Event::Sent(..) | Event::Looked(..) => {}
        }
    }
}

/// Balances by what callers were told alone, without the log: what was received less what was
/// shipped, and what was granted less what was released, shipped, or has expired.
fn accounts(evidence: &Evidence, findings: &mut Vec<String>) {
    let mut good = Cells::new();
    let mut claims: BTreeMap<(&str, &str, &str, &str), i64> = BTreeMap::new();
    let mut until: HashMap<&str, Option<i64>> = HashMap::new();
    let mut counted = BTreeSet::new();
    let attempts = evidence.told.attempts.iter();
    // In order of the decisions, so that what ends an expiry counts after what sets one.
    let mut told: Vec<(u64, &pb::Command, &Outcome)> = attempts
        .filter_map(|attempt| {
            let answer = attempt.answer.as_ref()?;
            let (position, ..) = answer.decided?;
            Some((position, &*attempt.command, &answer.outcome))
        })
        .collect();
    told.sort_by_key(|(position, ..)| *position);
    for (_, command, outcome) in told {
        if !counted.insert(id_of(command)) {
            continue;
        }
        match (command.command.as_ref(), outcome) {
            (
                Some(Asked::Reserve(reserve)),
                Outcome::Granted {
                    allocations,
                    expires_us,
                },
            ) => {
                until.entry(&reserve.id).or_insert(*expires_us);
                for part in allocations {
                    let key = (&*reserve.id, &*part.line, &*part.sku, &*part.location);
                    *claims.entry(key).or_default() += part.quantity;
                }
            }
            (Some(Asked::Confirm(confirm)), Outcome::Confirmed) => {
                until.insert(&confirm.reservation, None);
            }
            (Some(Asked::Extend(extend)), Outcome::Extended(until_us)) => {
                // Commands of one record were told the same position.
                if let Some(Some(so_far)) = until.get_mut(&*extend.reservation) {
                    *so_far = (*so_far).max(*until_us);
                }
            }
            (Some(Asked::Release(release)), Outcome::Released(released)) => {
                for part in released {
                    let id = &*release.reservation;
                    let key = (id, &*part.line, &*part.sku, &*part.location);
                    *claims.entry(key).or_default() -= part.quantity;
                }
            }
            _ => {}
        }
    }
    let movements = evidence
        .told
        .posts
        .iter()
        .filter(|post| post.answer.is_some());
    for movement in movements.flat_map(|post| post.movements.iter()) {
        if !counted.insert(&movement.id) {
            continue;
        }
        let (sku, units) = (&*movement.sku, movement.quantity);
        let mut claimed = |order: &str, line: &str, location: &str| {
            // Without a location: the line lies at one alone.
            let mut claims = claims.iter_mut();
            let claim = claims.find(|((id, name, _, at), claim)| {
                (*id, *name) == (order, line)
                    && (*at == location || location.is_empty() && **claim > 0)
            });
            match claim {
                Some((_, claim)) => *claim -= units,
                None => findings.push(format!("{movement:?} is about nothing that was granted")),
            }
        };
        match movement.kind.as_ref() {
            Some(Kind::Received(received)) => {
                let cell = (sku.to_owned(), received.location.clone());
                good.entry(cell).or_default().good += units;
            }
            Some(Kind::Shipped(shipped)) => {
                let cell = (sku.to_owned(), shipped.location.clone());
                good.entry(cell).or_default().good -= units;
                claimed(&shipped.order, &shipped.line, &shipped.location);
            }
            Some(Kind::Released(released)) => {
                claimed(&released.order, &released.line, &released.location);
            }
            _ => {}
        }
    }
    for ((id, line, _, location), units) in &claims {
        if *units < 0 {
            findings.push(format!(
                "{id}: more was given back of line {line} at {location} than was granted"
            ));
        }
    }
    for shelf in &evidence.shelves {
        let mut cells = good.clone();
        for ((id, _, sku, location), units) in &claims {
            let lasts = until.get(id).copied().flatten();
            if lasts.is_none_or(|until_us| until_us > shelf.time_us) {
                let cell = ((*sku).to_owned(), (*location).to_owned());
                cells.entry(cell).or_default().reserved += units;
            }
        }
        if cells != shelf.cells {
            findings.push(format!(
                "by what callers were told, the shelves hold {cells:?}; the books say {:?}",
                shelf.cells
            ));
        }
        if oversold(&cells) > 0 {
            findings.push(format!("callers were promised too much: {cells:?}"));
        }
    }
}

/// All instances hold the same, and nothing that needs a person.
fn agreement(evidence: &Evidence, findings: &mut Vec<String>) {
    let Some((first, others)) = evidence.shelves.split_first() else {
        findings.push("no instance showed anything".into());
        return;
    };
    for shelf in others {
        if (shelf.position, &shelf.digest) != (first.position, &first.digest) {
            findings.push(format!(
                "digests differ: {} at {}, {} at {}",
                first.digest, first.position, shelf.digest, shelf.position
            ));
        }
    }
    for shelf in &evidence.shelves {
        findings.extend(shelf.exceptions.iter().cloned());
        if oversold(&shelf.cells) > 0 {
            findings.push(format!("oversold: {:?}", shelf.cells));
        }
    }
}

/// A short history that could have been, made by the model itself: two callers, three carts.
pub(crate) fn made_up() -> Evidence {
    let movement = |id: &str, sku: &str, quantity, location: &str| pb::Movement {
        id: id.into(),
        sku: sku.into(),
        quantity,
        kind: Some(Kind::Received(pb::Received {
            location: location.into(),
            ..pb::Received::default()
        })),
        ..pb::Movement::default()
    };
    let reserve = |id: &str, lines: &[(&str, i64)]| {
        let line = |(sku, quantity): &(&str, i64)| pb::ReserveLine {
            sku: (*sku).into(),
            quantity: *quantity,
            ..pb::ReserveLine::default()
        };
        Asked::Reserve(pb::ReserveRequest {
            id: id.into(),
            channel: "web".into(),
            lines: lines.iter().map(line).collect(),
            ..pb::ReserveRequest::default()
        })
    };
    let release = Asked::Release(pb::ReleaseRequest {
        id: "r3".into(),
        reservation: "r1".into(),
        lines: vec![],
    });
    let records = [
        pb::record::Body::Rules(pb::RulesPut {
            toml: document(&RULES[0]),
            ..pb::RulesPut::default()
        }),
        pb::record::Body::Movements(pb::MovementBatch {
            version: 1,
            movements: vec![
                movement("m1", "mug", 5, "dc"),
                movement("m2", "rug", 2, "store-1"),
            ],
        }),
        commands(vec![
            reserve("r1", &[("mug", 4), ("rug", 1)]),
            reserve("r2", &[("rug", 1), ("mug", 2)]),
        ]),
        commands(vec![release]),
        commands(vec![reserve("r4", &[("mug", 5), ("rug", 2)])]),
    ];
    let mut evidence = Evidence::default();
    let mut stock = Stock::new();
    let mut moment = 0;
    for (position, body) in (1..).zip(records) {
        let entry = Recording {
            position,
            time_us: position as i64 * 1_000_000,
            record: pb::Record {
                version: 1,
                instance: 1,
                token: position,
                body: Some(body),
            },
        };
        stock.go_on(&entry, &mut Vec::new());
        let (sent, answered) = (moment + 1, moment + 2);
        moment += 2;
        match &entry.record.body {
            Some(pb::record::Body::Movements(batch)) => evidence.told.posts.push(Post {
                movements: batch.movements.clone().into(),
                instance: 0,
                sent,
                answered,
                answer: Some(pb::PostResponse {
                    outcomes: vec![
                        pb::MovementOutcome {
                            outcome: pb::Outcome::Applied.into(),
                            ..pb::MovementOutcome::default()
                        };
                        batch.movements.len()
                    ],
                    position,
                    log_time: Some(timestamp(entry.time_us)),
                }),
            }),
            Some(pb::record::Body::Commands(batch)) => {
                for command in &batch.commands {
                    let decision = &stock.decided[id_of(command)];
                    let attempt = |duplicate| Attempt {
                        command: Arc::new(command.clone()),
                        instance: usize::from(duplicate),
                        sent,
                        answered,
                        answer: Some(answer(decision, duplicate)),
                        again: duplicate,
                    };
                    evidence
                        .told
                        .attempts
                        .extend([attempt(false), attempt(true)]);
                    evidence
                        .told
                        .looks
                        .extend(stock.reservation(id_of(command)).map(|found| Look {
                            instance: 0,
                            sent: answered,
                            answered: moment + 1,
                            found,
                        }));
                }
                moment += 1;
            }
            _ => {}
        }
        evidence.log.push(entry);
    }
    let shelf = Shelf {
        position: stock.position,
        time_us: stock.now_us,
        cells: stock.cells,
        digest: "the same".into(),
        exceptions: vec![],
    };
    evidence.shelves = vec![shelf.clone(), shelf];
    evidence
}

fn commands(asked: Vec<Asked>) -> pb::record::Body {
    let command = |asked| pb::Command {
        command: Some(asked),
    };
    pb::record::Body::Commands(pb::CommandBatch {
        commands: asked.into_iter().map(command).collect(),
    })
}

fn answer(decision: &Decision, duplicate: bool) -> Answer {
    let tells = !matches!(decision.outcome, Outcome::Refused(_));
    Answer {
        decided: tells.then_some((decision.position, decision.time_us, duplicate)),
        outcome: decision.outcome.clone(),
    }
}

/// A time that always is there, in microseconds.
pub(crate) fn time_us(time: Option<&prost_types::Timestamp>) -> i64 {
    micros(time.expect("it has a time"))
}
