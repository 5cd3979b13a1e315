//! Commands against the slow, obvious model: logs that interleave facts, commands, rules and time
//! are decided alike by every instance, whatever its number of shards and whenever it starts, and as
//! the text of the contract says from the set of facts so far.
//!
//! A short run by default. A long one, without the threads of whole instances, is
//! `SELLABLE_MODEL_CASES=100000 cargo test --release --test models
//! reserve::every_instance_decides_as_the_model_does_without_threads -- --nocapture`. A failure
//! prints the shrunk log and the command that runs it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use proptest::strategy::{Strategy, ValueTree};
use prost::Message;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sellable::{
    bench::Pipeline,
    domain::{
        admission::Horizon,
        balances::{Account, LocationNames},
        digest::Digest,
        keys::LineKind,
        movement::{Condition, TimeUs},
    },
    instance::{Instance, Options},
    intake::{CommandOutcome, CommandReceipt},
    log::{Entry, Lane, Log, MediaType, memory::MemoryLog},
    proto::v1::{self as pb, command::Command},
    shard::{Audit, View},
};

use crate::model::{
    self, Exceptions, Fact, Misreading, Model, Rules, What,
    bare::equal,
    cases::{run, runner},
    decide::{At, Desk, comparable, id_of},
    generate::{SKUS, STEP_US, at_step},
    listed,
    logs::{History, Step, history, record, rules},
};

/// The model, on its way through a log.
struct Course {
    desk: Desk,
    step: i64,
    rules: Option<usize>,
    seen: BTreeSet<String>,
    clean: bool,
}

impl Course {
    fn new(clean: bool) -> Self {
        Self {
            desk: Desk::default(),
            step: 0,
            rules: None,
            seen: BTreeSet::new(),
            clean,
        }
    }

    fn now_us(&self) -> TimeUs {
        at_step(self.step)
    }

    fn model(&self) -> Model {
        self.desk.model(self.now_us())
    }

    fn rules(&self) -> Option<&'static Rules> {
        self.rules.map(|version| &rules()[version])
    }

    fn take(&mut self, facts: &[Fact]) {
        for fact in facts {
            if !fact.what.is_undecided() && self.seen.insert(fact.id.clone()) {
                self.desk.facts.push(fact.clone());
            }
        }
    }

    /// What a command at this position is answered. Whatever is granted was there.
    fn decide(&mut self, command: &pb::Command, position: u64) -> Result<CommandReceipt, String> {
        let (before, rules) = (self.model(), self.rules());
        let at = At {
            position,
            now_us: self.now_us(),
            rules,
        };
        let receipt = self.desk.decide(command, &at);
        let (Some(Command::Reserve(reserve)), false) = (&command.command, receipt.duplicate) else {
            return Ok(receipt);
        };
        if let CommandOutcome::Reserved { allocations, .. } = &receipt.outcome {
            let rules = rules.ok_or("granted without rules")?;
            let channel = rules
                .channel(&reserve.channel)
                .ok_or("granted without a channel")?;
            let mut granted: BTreeMap<&str, i64> = BTreeMap::new();
            for part in allocations {
                *granted.entry(&part.sku).or_default() += part.quantity;
            }
            let after = self.model();
            let reserved = |model: &Model, sku: &str| -> i64 {
                let cells = model.cells.iter().filter(|((of, _), _)| of == sku);
                cells.map(|(_, balances)| balances[Account::Reserved]).sum()
            };
            for (sku, units) in granted {
                let claimed = reserved(&after, sku) - reserved(&before, sku);
                if claimed > units {
                    return Err(format!(
                        "{claimed} of {sku} are claimed for {units} granted"
                    ));
                }
                // Of several lines each is at most what is shown, as of several reservations.
                let offer = rules
                    .offer(&before, channel, sku, &[])
                    .ok_or("granted of nothing")?;
                let there: i64 = offer.by_location.iter().map(|(_, units)| units).sum();
                let mut lines = reserve.lines.iter().filter(|line| line.sku == sku);
                if units > there || lines.any(|line| line.quantity > offer.ats) {
                    return Err(format!("{units} of {sku} were granted of {offer:?}"));
                }
            }
            if self.clean {
                let oversold = after.cells.iter().find(|(_, balances)| balances.free() < 0);
                if let Some(oversold) = oversold {
                    return Err(format!("oversold: {oversold:?}"));
                }
            }
        }
        Ok(receipt)
    }
}

/// What an instance, or the threadless way through its parts, shows at the end.
struct Shown<'s> {
    audit: Audit,
    view: &'s View,
    exceptions: Exceptions,
}

impl Shown<'_> {
    fn compare(&self, course: &Course) -> Result<(), String> {
        let (model, audit) = (course.model(), &self.audit);
        for ((sku, at), expected) in &model.cells {
            let guess = rules()[0].channel("web").expect("there is one");
            let reading = self.view.read();
            let Some(channel) = reading.rules.rules.channel(guess.name) else {
                break;
            };
            let explanation = reading.explain(channel, sku);
            let term = explanation
                .locations
                .iter()
                .find(|term| term.location == *at);
            let found = term.map(|term| term.balances).unwrap_or_default();
            equal(&format!("{sku} at {at}"), &found, expected)?;
        }
        equal("violations", &audit.conservation_violations, &0)?;
        equal("cells", &audit.cells, &(model.cells.len() as u64))?;
        equal("lines", &audit.order_lines, &(model.lines.len() as u64))?;
        equal("units", &audit.units, &model.units())?;
        equal("exceptions", &self.exceptions, &model.exceptions)?;
        if course.clean {
            equal("exceptions of clean stock", &self.exceptions.len(), &0)?;
        }
        let Some(rules) = course.rules() else {
            return Ok(());
        };
        let reading = self.view.read();
        for channel in &rules.channels {
            let number = reading.rules.rules.channel(channel.name);
            let mut found = Vec::new();
            reading.available(
                number.ok_or("no such channel")?,
                SKUS.into_iter(),
                |_, ats| {
                    found.push(ats);
                },
            );
            let expected: Vec<_> = SKUS
                .iter()
                .map(|sku| rules.ats(&model, channel, sku))
                .collect();
            equal(channel.name, &found, &expected)?;
        }
        Ok(())
    }
}

fn producer() -> Lane {
    Lane::Producer {
        source: "wms".into(),
        media_type: MediaType::Protobuf,
    }
}

fn batch_of(facts: &[Fact]) -> pb::MovementBatch {
    pb::MovementBatch {
        version: 1,
        movements: facts.iter().map(Fact::proto).collect(),
    }
}

fn rules_put(version: usize) -> pb::RulesPut {
    pb::RulesPut {
        toml: rules()[version].toml(),
        ..pb::RulesPut::default()
    }
}

/// Sends a log through the parts of an instance, on this thread, and compares each answer.
fn pipeline_of(
    history: &History,
    shards: u32,
    misreading: Misreading,
) -> Result<(Digest, u64), String> {
    let mut pipeline = Pipeline::with_shards(Horizon::DEFAULT, shards);
    let mut course = Course::new(history.clean);
    course.desk.misreading = misreading;
    let (mut position, mut answers) = (0, 0);
    for step in &history.steps {
        position += 1;
        let time_us = course.now_us();
        let mut feed = |lane, payload| {
            let entry = Entry {
                position,
                time_us,
                lane,
                payload,
            };
            let batch = pipeline.decode(vec![entry]).expect("it is of this version");
            pipeline.apply(batch);
        };
        match step {
            Step::Facts(facts) => {
                feed(producer(), batch_of(facts).encode_to_vec().into());
                course.take(facts);
            }
            Step::Commands(commands) => {
                let found = pipeline.decide(position, time_us, commands.clone());
                for (command, found) in commands.iter().zip(found) {
                    let expected = course.decide(command, position)?;
                    equal(&format!("{command:?}"), &comparable(found), &expected)?;
                    answers += 1;
                }
            }
            Step::Time(steps) => course.step += steps,
            Step::Rules(version) => {
                let body = pb::record::Body::Rules(rules_put(*version));
                feed(Lane::Record, record(body));
                course.rules = Some(*version);
            }
        }
    }
    let tick = Entry {
        position: position + 1,
        time_us: course.now_us(),
        lane: Lane::Record,
        payload: record(pb::record::Body::Tick(pb::Tick {})),
    };
    let batch = pipeline.decode(vec![tick]).expect("it is of this version");
    pipeline.apply(batch);
    let audit = pipeline.audit();
    let shown = Shown {
        audit,
        view: pipeline.view(),
        exceptions: listed(&pipeline.open_exceptions()),
    };
    shown.compare(&course)?;
    Ok((audit.digest, answers))
}

const SHARDS: [u32; 3] = [1, 2, 4];

fn check_pipelines(history: &History) -> Result<u64, String> {
    let (mut digest, mut answers) = (None, 0);
    for shards in SHARDS {
        let (found, answered) = pipeline_of(history, shards, Misreading::None)
            .map_err(|error| format!("{shards} shards: {error}"))?;
        equal("digest", &found, digest.get_or_insert(found))?;
        answers += answered;
    }
    Ok(answers)
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime")
    })
}

async fn start(log: &MemoryLog, shards: u32) -> Arc<Instance> {
    let options = Options {
        shards: shards as usize,
        ..Options::default()
    };
    let instance = Instance::start(Arc::new(log.clone()), &options).await;
    instance.expect("it starts")
}

async fn ask(instance: &Instance, command: &pb::Command) -> CommandReceipt {
    let receipt = instance.command(command.encode_to_vec().into(), 1).await;
    comparable(receipt.expect("it is decided"))
}

/// What an instance shows to sell, before a reservation of one line from anywhere that may be
/// split: exactly that is granted.
fn shown_of(instance: &Instance, command: &pb::Command) -> Option<(i64, i64)> {
    let Some(Command::Reserve(reserve)) = &command.command else {
        return None;
    };
    let [line] = &reserve.lines[..] else {
        return None;
    };
    if !reserve.allow_split || !line.location.is_empty() {
        return None;
    }
    let reading = instance.view().read();
    let channel = reading.rules.rules.channel(&reserve.channel)?;
    let mut shown = 0;
    reading.available(channel, [&*line.sku].into_iter(), |_, ats| {
        shown = ats.unwrap_or(0)
    });
    Some((line.quantity, shown))
}

/// Writes a log with several instances on it, and compares every answer of every instance.
async fn check_instances(history: &History) -> Result<(), String> {
    let random = &mut StdRng::seed_from_u64(history.seed);
    let (log, mut course) = (MemoryLog::new(), Course::new(history.clean));
    log.set_clock(Some(course.now_us()));
    let mut instances = Vec::new();
    for shards in SHARDS {
        instances.push(start(&log, shards).await);
    }
    let mut asked: Vec<pb::Command> = Vec::new();
    for step in &history.steps {
        match step {
            Step::Facts(facts) => {
                let batch = batch_of(facts);
                if random.random_ratio(1, 2) {
                    log.publish(producer(), batch.encode_to_vec().into());
                } else {
                    let body = pb::record::Body::Movements(batch);
                    log.append(record(body)).await.expect("it is stored");
                }
                course.take(facts);
            }
            Step::Commands(commands) => {
                if let [command] = &commands[..]
                    && random.random_ratio(1, 2)
                {
                    let instance = &instances[random.random_range(0..instances.len())];
                    let last = log.bounds().await.expect("it is there").last;
                    instance.view().progress().wait_for(last).await;
                    let shown = shown_of(instance, command);
                    let found = ask(instance, command).await;
                    let expected = course.decide(command, found.position)?;
                    equal(&format!("{command:?}"), &found, &expected)?;
                    if let (Some((wanted, shown)), false) = (shown, found.duplicate) {
                        let (granted, refused) = match found.outcome {
                            CommandOutcome::Reserved { .. } => (true, false),
                            CommandOutcome::Short(_) => (false, true),
                            _ => (false, false),
                        };
                        if granted && wanted > shown || refused && wanted <= shown {
                            return Err(format!("{wanted} of {shown} shown: {command:?}"));
                        }
                    }
                } else {
                    let batch = pb::CommandBatch {
                        commands: commands.clone(),
                    };
                    let body = pb::record::Body::Commands(batch);
                    let position = log.append(record(body)).await.expect("it is stored");
                    for command in commands {
                        course.decide(command, position)?;
                    }
                }
                asked.extend(commands.iter().cloned());
            }
            Step::Time(steps) => {
                course.step += steps;
                log.set_clock(Some(course.now_us()));
            }
            Step::Rules(version) => {
                let body = pb::record::Body::Rules(rules_put(*version));
                log.append(record(body)).await.expect("it is stored");
                course.rules = Some(*version);
            }
        }
    }
    // This one was not there when it happened.
    instances.push(start(&log, 3).await);
    let tick = record(pb::record::Body::Tick(pb::Tick {}));
    log.append(tick).await.expect("it is stored");
    let compared = compare_instances(&log, &instances, &mut course, &asked).await;
    for instance in instances {
        instance.stop().await;
    }
    compared
}

async fn compare_instances(
    log: &MemoryLog,
    instances: &[Arc<Instance>],
    course: &mut Course,
    asked: &[pb::Command],
) -> Result<(), String> {
    let mut once = BTreeSet::new();
    for command in asked {
        if !once.insert(command.encode_to_vec()) {
            continue;
        }
        // Each of them tells what was decided then, and nothing changes.
        for instance in instances {
            let found = ask(instance, command).await;
            let expected = course.decide(command, found.position)?;
            if !id_of(command).is_empty() {
                equal(&format!("again: {command:?}"), &found, &expected)?;
            }
        }
    }
    let last = log.bounds().await.expect("it is there").last;
    let (mut digest, mut open) = (None, None);
    for instance in instances {
        instance.view().progress().wait_for(last).await;
        let (audit, _) = instance.audit().await.ok_or("it stopped")?;
        let all_open = instance.exceptions().all_open();
        let shown = Shown {
            audit,
            view: instance.view(),
            exceptions: listed(all_open.values()),
        };
        let shards = instance.view().shards();
        shown
            .compare(course)
            .map_err(|error| format!("{shards} shards: {error}"))?;
        equal("digest", &audit.digest, digest.get_or_insert(audit.digest))?;
        // Also since when.
        equal(
            "exceptions",
            &all_open,
            open.get_or_insert(all_open.clone()),
        )?;
        compare_reservations(instance, course).await?;
    }
    Ok(())
}

/// How each reservation stands.
async fn compare_reservations(instance: &Instance, course: &Course) -> Result<(), String> {
    let model = course.model();
    for (id, reservation) in &course.desk.reservations {
        let view = instance
            .reservation(id)
            .await
            .map_err(|error| error.to_string())?;
        let view = view.ok_or("a reservation is missing")?;
        for ((line, sku, _), (totals, claims)) in reservation.lines.iter().zip(&view.lines) {
            let key = (LineKind::Order, (id.clone(), line.clone()), sku.clone());
            let expected = model.lines.get(&key).cloned().unwrap_or_default();
            let found = [totals.opened, totals.withdrawn, totals.fulfilled];
            equal(&format!("{key:?}"), &found, &expected.totals)?;
            let name = |at| instance.locations().name(at).to_owned();
            let found: BTreeMap<String, i64> = claims
                .iter()
                .map(|(at, units)| (name(*at), *units))
                .collect();
            equal(&format!("{key:?}"), &found, &expected.claims)?;
        }
    }
    Ok(())
}

#[test]
fn every_instance_decides_as_the_model_does() {
    let test = "every_instance_decides_as_the_model_does";
    run(test, 150, 1, history, |history| {
        runtime().block_on(check_instances(history))
    });
}

/// The same through the same code, without the threads of an instance, for long runs.
#[test]
fn every_instance_decides_as_the_model_does_without_threads() {
    let (histories, answers) = (AtomicU64::new(0), AtomicU64::new(0));
    let started = std::time::Instant::now();
    let test = "every_instance_decides_as_the_model_does_without_threads";
    run(test, 1_000, 2, history, |history| {
        let answered = check_pipelines(history)?;
        histories.fetch_add(1, Relaxed);
        answers.fetch_add(answered, Relaxed);
        Ok(())
    });
    eprintln!(
        "{} logs with {SHARDS:?} shards, {} answers, in {:?}; none diverged",
        histories.into_inner(),
        answers.into_inner(),
        started.elapsed()
    );
}

/// The logs are hard enough, and the comparison sharp enough, to find these bugs.
#[test]
fn the_comparison_notices_bugs_put_in_on_purpose() {
    let mut noticed: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..600 {
        let tree = history().new_tree(&mut runner(seed)).expect("a log");
        let history = tree.current();
        for misreading in [
            Misreading::None,
            Misreading::NoExpiry,
            Misreading::FirstTimeCounts,
            Misreading::EachLineAlone,
            Misreading::LastNameFirst,
        ] {
            let compared = pipeline_of(&history, 1, misreading);
            let noticed = noticed.entry(format!("{misreading:?}")).or_default();
            *noticed += u32::from(compared.is_err());
        }
    }
    eprintln!("of 600 logs, these noticed: {noticed:#?}");
    assert_eq!(
        noticed.remove("None"),
        Some(0),
        "what is right is taken for wrong"
    );
    for (bug, noticed) in noticed {
        assert!(noticed > 0, "{bug} was not noticed");
    }
}

/// Reserves so many units until the next step of time.
fn reserve(id: &str, quantity: i64) -> Step {
    Step::Commands(vec![pb::Command {
        command: Some(Command::Reserve(pb::ReserveRequest {
            id: id.into(),
            channel: "web".into(),
            lines: vec![pb::ReserveLine {
                sku: SKUS[0].into(),
                quantity,
                ..pb::ReserveLine::default()
            }],
            time_to_live: Some(prost_types::Duration {
                seconds: STEP_US / 1_000_000,
                nanos: 0,
            }),
            ..pb::ReserveRequest::default()
        })),
    }])
}

/// Others may have what expired by the time that a command reserves for the same line.
#[test]
fn what_expired_does_not_come_back() {
    let fact = |id: &str, quantity, what| Fact {
        id: id.into(),
        sku: SKUS[0].into(),
        quantity,
        occurred_us: model::OCCURRED_US,
        what,
    };
    let at = || String::from("z-dc");
    let line = ("r1".to_owned(), "1".to_owned());
    let history = History {
        steps: vec![
            Step::Rules(0),
            Step::Facts(vec![
                fact("m1", 10, What::Received(at(), Condition::Good)),
                fact("m2", 6, What::Reserved(line, at(), Some(at_step(1)))),
            ]),
            Step::Time(1),
            reserve("r2", 6),
            reserve("r1", 4),
        ],
        clean: true,
        seed: 1,
    };
    check_pipelines(&history).expect("nothing is oversold");
    runtime()
        .block_on(check_instances(&history))
        .expect("instances decide alike");
    let error = pipeline_of(&history, 1, Misreading::ExpiredComesBack).unwrap_err();
    assert!(
        error.contains("10 of 4006381333931 are claimed for 4"),
        "{error}"
    );
}

/// What expired is available again, to the unit and at the very time.
#[test]
fn what_expired_can_be_reserved_again() {
    let reserve = |id: &str| reserve(id, 7);
    let stock = Fact {
        id: "m1".into(),
        sku: SKUS[0].into(),
        quantity: 7,
        occurred_us: model::OCCURRED_US,
        what: What::Received("z-dc".into(), Condition::Good),
    };
    let history = History {
        steps: vec![
            Step::Rules(0),
            Step::Facts(vec![stock]),
            reserve("r1"),
            reserve("r2"),
            Step::Time(1),
            reserve("r3"),
        ],
        clean: true,
        seed: 1,
    };
    let mut course = Course::new(true);
    let mut granted = Vec::new();
    for step in &history.steps {
        match step {
            Step::Facts(facts) => course.take(facts),
            Step::Commands(commands) => {
                let receipt = course.decide(&commands[0], 1).expect("nothing is oversold");
                granted.push(matches!(receipt.outcome, CommandOutcome::Reserved { .. }));
            }
            Step::Time(steps) => course.step += steps,
            Step::Rules(version) => course.rules = Some(*version),
        }
    }
    assert_eq!(granted, [true, false, true]);
    runtime()
        .block_on(check_instances(&history))
        .expect("instances decide alike");
}
