//! No oversell, proven by force: many callers race for few units through real processes, which are
//! killed (SIGKILL) at random moments, and so is the NATS server; callers give up, ask again
//! elsewhere, and ask twice at once. In the end every answer that anyone got, and every balance of
//! every instance, has to be what one thing after another in the log's order gives.
//!
//! `SELLABLE_TEST_SEED=…` makes all choices again as they were, as far as chance in the operating
//! system lets it; `SELLABLE_TORTURE_KILLS=…` says how often something is killed (12, or as many as
//! there is time for).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use rand::{Rng, rngs::StdRng};
use sellable::{
    log::{
        Log,
        conformance::read_to,
        embedded::{self, EmbeddedLog},
        jetstream::{self, JetStreamLog},
    },
    proto::v1::{self as pb, command::Command as Asked},
};

use crate::{
    evidence::{self, Evidence, Shelf, examine, made_up, time_us},
    nats::NatsServer,
    server::{Client, PATIENCE, Server, Setup, patiently, received},
    stock::{Cell, Cells, LOCATIONS, Outcome, RULES, Recording, SKUS, document, id_of},
    storm::{Shopper, Storm},
};

/// How often something is killed, if the environment does not say.
const KILLS: u64 = 12;
/// Callers at once.
const SHOPPERS: u64 = 28;
/// Units of each SKU at each location to begin with: far fewer than are wanted at once.
const UNITS: i64 = 9;

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

fn seed() -> u64 {
    let seed = from_environment("SELLABLE_TEST_SEED").unwrap_or_else(|| rand::rng().random());
    println!("SELLABLE_TEST_SEED={seed}");
    seed
}

/// The processes, and how often they were killed.
struct Processes {
    servers: Vec<Server>,
    nats: Option<NatsServer>,
    instance_kills: usize,
    nats_kills: usize,
}

impl Processes {
    /// One instance for each number of shards. Without a NATS server it is one, with its log on
    /// its own disk, synced before each answer.
    fn start(shards: &[usize], nats: Option<NatsServer>) -> Self {
        let setup = |shards: &usize| {
            let setup = Setup::new().rules(&document(&RULES[0])).shards(*shards);
            match &nats {
                Some(nats) => setup.nats(&nats.url()),
                None => setup.set("journal.sync", "always"),
            }
        };
        Self {
            servers: shards.iter().map(|shards| setup(shards).start()).collect(),
            nats,
            instance_kills: 0,
            nats_kills: 0,
        }
    }

    /// Kills something, or two at once, and starts it again after a while.
    async fn kill(&mut self, random: &mut StdRng, nats: bool) {
        let first = random.random_range(0..self.servers.len());
        let mut victims = BTreeSet::from([first]);
        if random.random_ratio(1, 4) {
            victims.insert(random.random_range(0..self.servers.len()));
        }
        // With the NATS server, sometimes nothing else.
        if nats && random.random() {
            victims.clear();
        }
        let down = Duration::from_millis(random.random_range(0..80));
        for server in &mut self.servers {
            // One that gave up would come back with the next kill, and nobody would know.
            assert_eq!(server.has_ended(), None, "an instance ended by itself");
        }
        for victim in &victims {
            self.servers[*victim].kill();
            self.instance_kills += 1;
        }
        if nats {
            self.nats.as_mut().expect("there is one").kill();
            self.nats_kills += 1;
        }
        tokio::time::sleep(down).await;
        // The callers go on meanwhile.
        tokio::task::block_in_place(|| {
            if let Some(server) = self.nats.as_mut().filter(|_| nats) {
                server.restart();
            }
            for victim in victims {
                self.servers[victim].restart();
            }
        });
    }

    /// Kills things as long as it has to, each time after some more answers.
    async fn torture(&mut self, kills: u64, storm: &Storm) {
        let mut random = storm.random(u64::MAX - 2);
        let nats_too = self.nats.is_some();
        for kill in 0..kills {
            let enough = storm.answered.load(SeqCst) + random.random_range(30..250);
            let started = Instant::now();
            while storm.answered.load(SeqCst) < enough {
                assert!(started.elapsed() < PATIENCE, "nobody is answered any more");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Now and then in the middle of a write, or between it and the answer.
            let moment = Duration::from_micros(random.random_range(0..3_000));
            tokio::time::sleep(moment).await;
            let nats = nats_too && (kill == kills / 2 || random.random_ratio(1, 4));
            self.kill(&mut random, nats).await;
        }
    }

    /// What every instance shows, all at one position.
    async fn shelves(&self) -> Vec<Shelf> {
        let clients = self.clients().await;
        loop {
            let mut shelves = Vec::new();
            for client in &clients {
                shelves.push(shelf(client).await);
            }
            let same = |shelf: &Option<Shelf>| {
                let position = shelf.as_ref().map(|shelf| shelf.position);
                position.is_some() && position == shelves[0].as_ref().map(|shelf| shelf.position)
            };
            // A tick may come in between.
            if shelves.iter().all(same) {
                return shelves.into_iter().flatten().collect();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What every instance shows, and once more after all were killed and made it anew from the
    /// log; at one position, so that the digests have to be the same.
    async fn rebuilt(&mut self) -> Vec<Shelf> {
        patiently(async {
            loop {
                let mut shelves = self.shelves().await;
                for server in &mut self.servers {
                    server.kill();
                    server.restart();
                }
                shelves.extend(self.shelves().await);
                // Ticks, and the rules of their file, may have come in between; they end.
                if shelves
                    .iter()
                    .all(|shelf| shelf.position == shelves[0].position)
                {
                    return shelves;
                }
            }
        })
        .await
    }

    async fn clients(&self) -> Vec<Client> {
        let mut clients = Vec::new();
        for server in &self.servers {
            clients.push(server.connect().await);
        }
        clients
    }

    /// The whole log, when nobody writes any more.
    async fn log(&self) -> Vec<Recording> {
        let log: Arc<dyn Log> = match &self.nats {
            Some(nats) => {
                let options = jetstream::Options::new(nats.url());
                Arc::new(JetStreamLog::open(options).await.expect("it opens"))
            }
            None => {
                let options = embedded::Options::new(self.servers[0].journal_dir());
                Arc::new(EmbeddedLog::open(options).expect("it opens"))
            }
        };
        let bounds = log.bounds().await.expect("it has bounds");
        let mut reader = log.reader(1).await.expect("it can be read");
        let entries = read_to(&mut *reader, 1, bounds.last).await;
        entries.iter().map(Recording::read).collect()
    }
}

/// What one instance shows; `None` if the log went on meanwhile.
async fn shelf(client: &Client) -> Option<Shelf> {
    let digest = client.digest(0).await;
    let mut cells = Cells::new();
    let mut time = 0;
    for sku in SKUS {
        let request = pb::ExplainRequest {
            channel: RULES[0][0].name.into(),
            sku: sku.into(),
            min_position: digest.position,
        };
        let shown = client.availability().explain(request).await;
        let shown = shown.expect("it explains").into_inner();
        if shown.position != digest.position {
            return None;
        }
        time = time_us(shown.as_of.as_ref());
        for term in shown.locations {
            let balances = term.balances.expect("it has balances");
            let cell = Cell {
                good: balances.good,
                reserved: balances.reserved,
            };
            cells.insert((sku.into(), term.location), cell);
        }
    }
    let request = pb::ListExceptionsRequest::default();
    let open = client.operations().list_exceptions(request).await;
    let open = open.expect("a list").into_inner().exceptions;
    Some(Shelf {
        position: digest.position,
        time_us: time,
        cells,
        digest: digest.digest,
        exceptions: open.iter().map(|open| format!("{open:?}")).collect(),
    })
}

/// Everything at once, until so many kills are over; then everything is asked once more.
async fn tortured(processes: &mut Processes, kills: u64) -> Evidence {
    let storm = Storm::new(seed(), &processes.servers);
    let mut random = storm.random(u64::MAX - 3);
    let mut stock = Vec::new();
    for sku in SKUS {
        // In another order than that of their names, which is what has to count.
        for at in LOCATIONS.iter().rev() {
            stock.push(received(&format!("first/{sku}-{at}"), sku, UNITS, at));
        }
    }
    storm.post(stock, &mut random).await;
    let (handed_over, to_ship) = tokio::sync::mpsc::unbounded_channel();
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..SHOPPERS {
        callers.spawn(Shopper::new(number, &storm, &handed_over).shop());
    }
    drop(handed_over);
    callers.spawn(Arc::clone(&storm).warehouse(to_ship));
    callers.spawn(Arc::clone(&storm).watch());
    processes.torture(kills, &storm).await;
    storm.enough.store(true, SeqCst);
    patiently(async {
        while let Some(ended) = callers.join_next().await {
            ended.expect("no caller panics");
        }
    })
    .await;
    ask_again(&storm).await;
    let shelves = processes.rebuilt().await;
    for server in &mut processes.servers {
        server.kill();
    }
    println!(
        "shelves seen while it went on: {}",
        storm.glimpses.load(SeqCst)
    );
    Evidence {
        told: storm.told(),
        log: processes.log().await,
        shelves,
    }
}

/// Who walked away is answered after all; whose time is over is told so, though nobody writes; and
/// then every command is sent once more to every instance, and every reservation looked at there.
async fn ask_again(storm: &Arc<Storm>) {
    let everywhere = 0..storm.instances();
    let mut commands: BTreeMap<String, (Arc<pb::Command>, bool)> = BTreeMap::new();
    for attempt in storm.told().attempts {
        let answered = attempt.answer.is_some();
        // Of an id that was sent with other content later, the first is meant.
        let id = id_of(&attempt.command).to_owned();
        let known = commands.entry(id).or_insert((attempt.command, false));
        known.1 |= answered;
    }
    let unanswered = commands.values().filter(|(_, answered)| !answered);
    for (command, _) in unanswered {
        patiently(storm.insist(0, command, false)).await;
    }
    let brief = |command: &pb::Command| match &command.command {
        Some(Asked::Reserve(reserve)) => reserve.time_to_live.is_some_and(|time| time.seconds < 10),
        _ => false,
    };
    for (id, _) in commands.iter().filter(|(_, (command, _))| brief(command)) {
        patiently(async {
            loop {
                let found = storm.look(0, id, 0).await;
                if found.is_some_and(|found| found.state() != pb::ReservationState::Active) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    let commands = commands.values();
    let all = commands.flat_map(|(command, _)| everywhere.clone().map(move |at| (command, at)));
    let all: Vec<_> = all.map(|(command, at)| (Arc::clone(command), at)).collect();
    let asked = stream::iter(all).for_each_concurrent(64, |(command, at)| async move {
        patiently(storm.insist(at, &command, true)).await;
        if let Some(Asked::Reserve(reserve)) = &command.command {
            while storm.look(at, &reserve.id, 0).await.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    asked.await;
}

/// Runs one engine, and examines what is on record; also that the examination is one.
async fn withstands(engine: &str, shards: &[usize], nats: Option<NatsServer>) {
    let kills = from_environment("SELLABLE_TORTURE_KILLS").unwrap_or(KILLS);
    let started = Instant::now();
    let mut processes = Processes::start(shards, nats);
    let evidence = tortured(&mut processes, kills).await;
    let (findings, figures) = examine(&evidence);
    println!(
        "torture {engine} ({} instances, {} s): kills={} nats_kills={} {figures}",
        shards.len(),
        started.elapsed().as_secs(),
        processes.instance_kills,
        processes.nats_kills,
    );
    assert!(
        findings.is_empty(),
        "{}: {}",
        findings.len(),
        listed(&findings)
    );
    assert_eq!(figures.units_oversold, 0);
    assert_eq!(processes.nats.is_some(), processes.nats_kills > 0);
    // That it was hard: units were wanted and not there, and time and retries played their part.
    for (what, count) in [
        ("grants", figures.granted),
        ("refusals", figures.short),
        ("expired", figures.expired),
        ("lost answers", figures.unanswered),
        ("duplicates", figures.duplicates),
    ] {
        assert!(count > 0, "there were no {what}, so nothing is shown");
    }
    // Of a long run it would take longer than the run.
    if kills <= KILLS {
        finds_falsifications(&evidence);
    }
}

fn listed(findings: &[String]) -> String {
    let first: Vec<&str> = findings.iter().take(20).map(String::as_str).collect();
    first.join("\n")
}

/// Makes histories that could not have been from one that could, and sees that each is found out,
/// and by the check that is there for it. Without that, the examination would prove nothing.
fn finds_falsifications(good: &Evidence) {
    let falsify = |what: &str, told: &str, change: &dyn Fn(&mut Evidence)| {
        let mut evidence = good.clone();
        change(&mut evidence);
        let findings = examine(&evidence).0;
        let found = findings.iter().any(|finding| finding.contains(told));
        assert!(found, "not noticed: {what}; but: {}", listed(&findings));
    };
    /// Of a reservation that does not expire while it is looked at: of one that is over, nobody
    /// could tell by the shelves how much it had been.
    fn grant(evidence: &mut Evidence) -> &mut evidence::Attempt {
        let ended_us = evidence.shelves.iter().map(|shelf| shelf.time_us).max();
        let granted = |attempt: &&mut evidence::Attempt| {
            let outcome = attempt.answer.as_ref().map(|answer| &answer.outcome);
            let Some(Outcome::Granted { expires_us, .. }) = outcome else {
                return false;
            };
            expires_us.is_none_or(|until_us| Some(until_us) > ended_us)
        };
        let found = evidence.told.attempts.iter_mut().find(granted);
        found.expect("something was granted")
    }
    fn refusal(evidence: &mut Evidence) -> &mut evidence::Attempt {
        let short = |attempt: &&mut evidence::Attempt| {
            let outcome = attempt.answer.as_ref().map(|answer| &answer.outcome);
            matches!(outcome, Some(Outcome::Short(_)))
        };
        let found = evidence.told.attempts.iter_mut().find(short);
        found.expect("something was refused")
    }
    fn whole(evidence: &mut Evidence) -> &mut pb::Reservation {
        let looks = evidence.told.looks.iter_mut().map(|look| &mut look.found);
        let mut granted = looks.filter(|found| found.short_lines.is_empty());
        granted.find(|found| found.lines.len() > 1).expect("a cart")
    }
    falsify(
        "one unit granted too many",
        "by the log it is",
        &|evidence| {
            let answer = grant(evidence).answer.as_mut().expect("an answer");
            if let Outcome::Granted { allocations, .. } = &mut answer.outcome {
                allocations[0].quantity += 1;
            }
        },
    );
    falsify(
        "one unit granted too many, to all who asked",
        "by what callers were told, the shelves hold",
        &|evidence| {
            let id = id_of(&grant(evidence).command).to_owned();
            for attempt in &mut evidence.told.attempts {
                let answer = attempt.answer.as_mut();
                if let Some(Outcome::Granted { allocations, .. }) =
                    answer.map(|answer| &mut answer.outcome)
                    && id_of(&attempt.command) == id
                {
                    allocations[0].quantity += 1;
                }
            }
        },
    );
    falsify(
        "a refusal that another instance tells as a grant",
        "by the log it is",
        &|evidence| {
            let answer = refusal(evidence).answer.as_mut().expect("an answer");
            answer.outcome = Outcome::Granted {
                allocations: vec![],
                expires_us: None,
            };
        },
    );
    falsify(
        "a refusal that was not necessary",
        "by the log it is",
        &|evidence| {
            let attempt = grant(evidence);
            attempt.answer.as_mut().expect("an answer").outcome = Outcome::Short(vec![]);
        },
    );
    falsify(
        "a grant with its unit at another place",
        "by the log it is",
        &|evidence| {
            let answer = grant(evidence).answer.as_mut().expect("an answer");
            if let Outcome::Granted { allocations, .. } = &mut answer.outcome {
                allocations[0].location = "moon".into();
            }
        },
    );
    falsify("a half-held cart", "a cart is held in part", &|evidence| {
        let line = &mut whole(evidence).lines[1];
        line.reserved = 0;
        line.claims.clear();
    });
    falsify(
        "a look at a position that the log does not have",
        "the log has no such",
        &|evidence| {
            whole(evidence).position = 1_000_000_000;
        },
    );
    falsify(
        "a decision at another position",
        "it was decided at",
        &|evidence| {
            let decided = &mut grant(evidence).answer.as_mut().expect("one").decided;
            decided.as_mut().expect("it tells").0 += 1;
        },
    );
    falsify(
        "a command that is decided twice",
        "it had been decided before",
        &|evidence| {
            let id = id_of(&grant(evidence).command).to_owned();
            for attempt in &mut evidence.told.attempts {
                if let Some((.., duplicate)) = attempt
                    .answer
                    .as_mut()
                    .and_then(|answer| answer.decided.as_mut())
                    && id_of(&attempt.command) == id
                {
                    *duplicate = false;
                }
            }
        },
    );
    falsify(
        "a command that nobody answers",
        "was never answered",
        &|evidence| {
            let id = id_of(&grant(evidence).command).to_owned();
            for attempt in &mut evidence.told.attempts {
                if id_of(&attempt.command) == id {
                    attempt.answer = None;
                }
            }
        },
    );
    falsify(
        "an answer that the log forgot",
        "the log does not have it",
        &|evidence| {
            let id = id_of(&grant(evidence).command).to_owned();
            for entry in &mut evidence.log {
                if let Some(pb::record::Body::Commands(batch)) = &mut entry.record.body {
                    batch.commands.retain(|command| id_of(command) != id);
                }
            }
        },
    );
    falsify(
        "a movement that the log counts twice",
        "by the log it is",
        &|evidence| {
            for entry in &mut evidence.log {
                if let Some(pb::record::Body::Movements(batch)) = &mut entry.record.body {
                    let mut twice = batch.movements[0].clone();
                    twice.id += "again";
                    batch.movements.push(twice);
                    return;
                }
            }
        },
    );
    falsify(
        "an order against time",
        "had been told already",
        &|evidence| {
            let last = evidence
                .told
                .attempts
                .iter()
                .map(|attempt| attempt.answered)
                .max();
            let id = id_of(&grant(evidence).command).to_owned();
            for attempt in &mut evidence.told.attempts {
                if id_of(&attempt.command) == id {
                    attempt.sent = last.expect("attempts") + 1;
                    attempt.answered = attempt.sent + 1;
                }
            }
        },
    );
    falsify(
        "a look behind what was told",
        "behind what it had told",
        &|evidence| {
            let look = evidence.told.looks.first_mut().expect("a look");
            look.sent = u64::MAX - 1;
            look.answered = u64::MAX;
        },
    );
    falsify(
        "a unit that vanished from the shelves",
        "by what callers were told, the shelves hold",
        &|evidence| {
            let cells = &mut evidence.shelves[0].cells;
            cells.values_mut().next().expect("a cell").good -= 1;
        },
    );
    falsify(
        "a unit that is reserved by nobody",
        "the books hold",
        &|evidence| {
            for shelf in &mut evidence.shelves {
                shelf.cells.values_mut().next().expect("a cell").reserved += 1;
            }
        },
    );
    falsify(
        "instances that hold different stock",
        "digests differ",
        &|evidence| {
            evidence.shelves[1].digest = "another".into();
        },
    );
    falsify(
        "a shelf that was oversold for a moment",
        "a glimpse",
        &|evidence| {
            evidence.told.glimpses.push((1, "a glimpse".into()));
        },
    );
    falsify(
        "units that were promised and are not there",
        "callers were promised too much",
        &|evidence| {
            let mut attempts = evidence.told.attempts.iter_mut();
            let granted =
                attempts.find_map(|attempt| match &mut attempt.answer.as_mut()?.outcome {
                    Outcome::Granted {
                        allocations,
                        expires_us: None,
                    } => Some(allocations),
                    _ => None,
                });
            granted.expect("a grant without end")[0].quantity += 1_000_000;
        },
    );
    falsify("an open exception", "is open", &|evidence| {
        evidence.shelves[0].exceptions.push("one is open".into());
    });
}

#[test]
fn what_could_not_have_been_is_found() {
    let good = made_up();
    let (findings, figures) = examine(&good);
    assert_eq!(findings, [""; 0]);
    assert_eq!((figures.granted, figures.short), (2, 1));
    finds_falsifications(&good);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_never_oversells() {
    withstands("embedded", &[3], None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_on_one_stream_never_oversell() {
    withstands("jetstream", &[1, 2, 5], Some(NatsServer::start())).await;
}
