//! Order independence: for any set of facts, any permutation, any duplication, any batching and
//! any number of shards give the same balances, lines, exceptions, availability and digest, and
//! they are those of the slow, obvious model.
//!
//! A short run by default. A long one, without the threads of whole instances, is
//! `SELLABLE_MODEL_CASES=100000 cargo test --release --test models
//! ledger::any_order_gives_what_the_model_gives_without_threads -- --nocapture`. A failure prints
//! the shrunk history and the command that runs it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use proptest::strategy::{Strategy, ValueTree};
use prost::Message;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use sellable::{
    bench::Pipeline,
    domain::{
        admission::Horizon,
        balances::Account,
        digest::{Digest, Digester},
        exceptions::{Outcome, ParkedKind, StateKind},
        ledger::PlainBooks,
        movement::{Condition, TimeUs},
        reconcile::Statement,
    },
    instance::{Instance, Options},
    intake::ParkedList,
    log::{Entry, Lane, Log, MediaType, memory::MemoryLog},
    proto::v1 as pb,
    shard::{Audit, View},
};

use crate::model::{
    Channel, Exceptions, Fact, Misreading, Model, OCCURRED_US, Rules, What,
    bare::{
        Arrived, BooksThatKeepClaims, BooksThatStayWrong, ByNumber, Clock, Driver, RIGHTLY, apply,
        apply_stated, equal,
    },
    cases::{run, runner},
    generate::{History, LOCATIONS, SKUS, at_step, history},
    listed,
    logs::record,
};

fn rules() -> Rules {
    let channels = vec![
        Channel {
            buffer: 2,
            buffer_percent: 15,
            share_percent: 70,
            minimum: 3,
            maximum: Some(60),
            ..Channel::open("market")
        },
        Channel {
            paused_sku: Some(SKUS[1]),
            buffer: 1,
            ..Channel::open("pause")
        },
        Channel {
            sources: &["m-store", "a-store"],
            buffer_percent: 33,
            ..Channel::open("stores")
        },
        Channel::open("web"),
    ];
    Rules {
        groups: &[],
        channels,
    }
}

/// The facts in any order, some of them several times, and some with other contents.
fn arrivals(history: &History, random: &mut StdRng) -> Vec<Fact> {
    let mut arrivals = history.facts.clone();
    for (place, more) in &history.conflicts {
        let mut other = history.facts[*place].clone();
        if let What::Counted(_, _, units) = &mut other.what {
            *units = units.map(|units| units.map(|units| units + more));
        } else {
            other.quantity += if other.quantity > 500_000_000 {
                -more
            } else {
                *more
            };
            if other.quantity == 0 {
                other.quantity = 1;
            }
        }
        // An id may come again with another SKU, which may be in another shard.
        if more % 2 == 0 {
            other.sku = SKUS[*more as usize / 2 % SKUS.len()].into();
        }
        arrivals.push(other);
    }
    for fact in arrivals.clone() {
        while random.random_ratio(1, 5) {
            arrivals.push(fact.clone());
        }
    }
    arrivals.shuffle(random);
    arrivals
}

/// What is to come of arrivals.
struct Expected {
    /// Each of them once, and of each id what arrived first.
    facts: Vec<Fact>,
    parked: BTreeMap<ParkedKind, u64>,
}

fn expected(arrivals: &[Fact]) -> Expected {
    let mut first: BTreeMap<&str, &Fact> = BTreeMap::new();
    let mut parked: BTreeSet<(ParkedKind, String)> = BTreeSet::new();
    for fact in arrivals {
        if fact.what.is_undecided() {
            parked.insert((ParkedKind::UnknownDisposition, format!("{fact:?}")));
        } else if *first.entry(&fact.id).or_insert(fact) != fact {
            parked.insert((ParkedKind::ConflictingDuplicate, format!("{fact:?}")));
        }
    }
    let mut counts = BTreeMap::new();
    for (kind, _) in parked {
        *counts.entry(kind).or_default() += 1;
    }
    Expected {
        facts: first.into_values().cloned().collect(),
        parked: counts,
    }
}

/// What the state comes to in all: the digest of cells and lines.
fn digest_of(expected: &Expected, model: &Model, end_us: TimeUs) -> Digest {
    let random = &mut StdRng::seed_from_u64(0);
    let bare = apply(
        &expected.facts,
        end_us,
        random,
        PlainBooks::default(),
        &RIGHTLY,
    );
    let mut digest = model.digest();
    digest += bare.ledger.lines_digest(&bare.names);
    digest += bare.ledger.counted_digest(&bare.names);
    digest
}

/// What an instance, or the threadless way through its parts, shows.
struct Shown<'s> {
    audit: Audit,
    view: &'s View,
    parked: &'s ParkedList,
    exceptions: Exceptions,
}

impl Shown<'_> {
    /// Compares with the model.
    fn compare(&self, expected: &Expected, model: &Model, digest: Digest) -> Result<(), String> {
        let audit = &self.audit;
        equal("violations", &audit.conservation_violations, &0)?;
        equal("cells", &audit.cells, &(model.cells.len() as u64))?;
        equal("lines", &audit.order_lines, &(model.lines.len() as u64))?;
        equal("units", &audit.units, &model.units())?;
        equal("exceptions", &self.exceptions, &model.exceptions)?;
        let counts = self.parked.counts();
        let counts = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        equal("parked", &counts, &expected.parked)?;
        let mut digest = digest;
        for (_, parked) in self.parked.page(None, usize::MAX, usize::MAX, |_| true) {
            digest += Digester::default().parked(parked.exception_id().0);
        }
        equal("digest", &audit.digest, &digest)?;

        let (rules, reading) = (rules(), self.view.read());
        let skus: Vec<&str> = SKUS.into_iter().chain(["never seen"]).collect();
        for channel in &rules.channels {
            let number = reading.rules.rules.channel(channel.name);
            let number = number.ok_or("no such channel")?;
            let mut found = Vec::new();
            reading.available(number, skus.iter().copied(), |_, ats| found.push(ats));
            let ats = |sku: &&str| rules.ats(model, channel, sku);
            let expected: Vec<_> = skus.iter().map(ats).collect();
            equal(channel.name, &found, &expected)?;
            for (sku, ats) in skus.iter().zip(&expected) {
                let explanation = reading.explain(number, sku);
                equal("explained", &explanation.ats, &ats.unwrap_or(0))?;
                equal("known", &explanation.known, &ats.is_some())?;
                for term in explanation.locations {
                    let expected = model.cell(sku, &term.location);
                    equal(&term.location, &term.balances, &expected)?;
                }
            }
        }
        Ok(())
    }
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

fn encoded(fact: &Fact) -> Bytes {
    fact.proto().encode_to_vec().into()
}

fn batch_of(facts: &[Fact]) -> Bytes {
    let batch = pb::MovementBatch {
        version: 1,
        movements: facts.iter().map(Fact::proto).collect(),
    };
    batch.encode_to_vec().into()
}

fn producer() -> Lane {
    Lane::Producer {
        source: "wms".into(),
        media_type: MediaType::Protobuf,
    }
}

fn tick() -> Bytes {
    record(pb::record::Body::Tick(pb::Tick {}))
}

fn rules_put() -> pb::RulesPut {
    pb::RulesPut {
        toml: rules().toml(),
        ..pb::RulesPut::default()
    }
}

/// Sends arrivals through a whole instance: some lie in the log when it starts, as producers'
/// messages, the others are posted, by two callers at once; in batches of any size. `in_order`: what
/// arrives first makes a difference, so there is one caller, and one record at a time.
async fn instance_of(
    arrivals: &[Fact],
    end_us: TimeUs,
    shards: usize,
    in_order: bool,
    random: &mut StdRng,
) -> Arc<Instance> {
    let (log, mut clock) = (MemoryLog::new(), Clock::new(end_us));
    log.set_clock(Some(OCCURRED_US));
    let (before, posted) = arrivals.split_at(random.random_range(0..=arrivals.len()));
    let mut rest = before;
    while !rest.is_empty() {
        let (batch, others) = rest.split_at(random.random_range(1..=rest.len()));
        rest = others;
        log.set_clock(Some(clock.next(random)));
        log.publish(producer(), batch_of(batch));
    }
    let options = Options {
        shards,
        record_movements_max: random.random_range(1..20),
        appends_max: if in_order { 1 } else { 2 },
        ..Options::default()
    };
    let instance = Instance::start(Arc::new(log.clone()), &options)
        .await
        .expect("it starts");
    let mut rest = posted;
    let rules_after = random.random_range(0..=posted.len());
    let mut put = Some(rules_put());
    while !rest.is_empty() {
        log.set_clock(Some(clock.next(random)));
        if posted.len() - rest.len() >= rules_after
            && let Some(put) = put.take()
        {
            instance.put_rules(put).await.expect("the rules are taken");
        }
        let (batch, others) = rest.split_at(random.random_range(1..=rest.len()));
        rest = others;
        let (one, other) = batch.split_at(random.random_range(0..=batch.len()));
        let post = async |part: &[Fact]| {
            if part.is_empty() {
                return;
            }
            let receipt = instance.post(part.iter().map(encoded).collect()).await;
            let receipt = receipt.expect("it is taken");
            assert_eq!(receipt.outcomes.len(), part.len());
            for (fact, (outcome, _)) in part.iter().zip(&receipt.outcomes) {
                let undecided = Outcome::Parked(ParkedKind::UnknownDisposition);
                let right = match outcome {
                    Outcome::Applied => !fact.what.is_undecided(),
                    Outcome::Parked(ParkedKind::ConflictingDuplicate) => true,
                    other => fact.what.is_undecided() && *other == undecided,
                };
                assert!(right, "{outcome:?}: {fact:?}");
            }
            assert!(instance.view().progress().position() >= receipt.position);
        };
        if in_order {
            post(one).await;
            post(other).await;
        } else {
            tokio::join!(post(one), post(other));
        }
    }
    if let Some(put) = put.take() {
        instance.put_rules(put).await.expect("the rules are taken");
    }
    log.set_clock(Some(end_us));
    let last = log.append(tick()).await.expect("it is stored");
    instance.view().progress().wait_for(last).await;
    instance
}

/// Compares a whole instance with the model.
async fn compare_instance(
    instance: &Instance,
    expected: &Expected,
    model: &Model,
    digest: Digest,
) -> Result<(), String> {
    let (audit, _) = instance.audit().await.ok_or("it stopped")?;
    let shown = Shown {
        audit,
        view: instance.view(),
        parked: instance.parked(),
        exceptions: listed(instance.exceptions().all_open().values()),
    };
    shown.compare(expected, model, digest)
}

/// Sends arrivals through the parts of an instance, on this thread: entries of any number of
/// movements, any number of entries at once.
fn pipeline_of(arrivals: &[Fact], end_us: TimeUs, shards: u32, random: &mut StdRng) -> Pipeline {
    let mut pipeline = Pipeline::with_shards(Horizon::DEFAULT, shards);
    let mut clock = Clock::new(end_us);
    let (mut rest, mut entries, mut position) = (arrivals, Vec::new(), 0);
    let mut rules_after = Some(random.random_range(0..=arrivals.len()));
    let mut entry = |time_us, lane, payload| {
        position += 1;
        Entry {
            position,
            time_us,
            lane,
            payload,
        }
    };
    while !rest.is_empty() {
        if rules_after.is_some_and(|after| arrivals.len() - rest.len() >= after) {
            rules_after = None;
            let body = pb::record::Body::Rules(rules_put());
            entries.push(entry(clock.next(random), Lane::Record, record(body)));
        }
        let (batch, others) = rest.split_at(random.random_range(1..=rest.len()));
        rest = others;
        entries.push(entry(clock.next(random), producer(), batch_of(batch)));
        if random.random_ratio(1, 2) {
            let batch = pipeline.decode(std::mem::take(&mut entries));
            pipeline.apply(batch.expect("it is of this version"));
        }
    }
    if rules_after.is_some() {
        let body = pb::record::Body::Rules(rules_put());
        entries.push(entry(clock.next(random), Lane::Record, record(body)));
    }
    entries.push(entry(end_us, Lane::Record, tick()));
    let batch = pipeline.decode(entries).expect("it is of this version");
    pipeline.apply(batch);
    pipeline
}

fn compare_pipeline(
    pipeline: &mut Pipeline,
    expected: &Expected,
    model: &Model,
    digest: Digest,
) -> Result<(), String> {
    let audit = pipeline.audit();
    let shown = Shown {
        audit,
        view: pipeline.view(),
        parked: pipeline.parked(),
        exceptions: listed(&pipeline.open_exceptions()),
    };
    shown.compare(expected, model, digest)
}

/// Through what a history is sent beside the bare ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    Instances,
    Pipelines,
}

const BARE: usize = 3;
const SHARDS: [u32; 3] = [1, 2, 4];
/// Permutations of each history.
const PERMUTATIONS: usize = BARE + SHARDS.len();

fn check(history: &History, through: Through) -> Result<(), String> {
    let (end_us, random) = (history.end_us, &mut StdRng::seed_from_u64(history.seed));
    // The same for all orders, unless what arrives first makes a difference.
    let mut only = None;
    for permutation in 0..PERMUTATIONS {
        let arrivals = arrivals(history, random);
        let expected = expected(&arrivals);
        let model = Model::of(&expected.facts, end_us);
        if !model.conserves() {
            return Err("the model itself does not conserve units".into());
        }
        let digest = digest_of(&expected, &model, end_us);
        if history.conflicts.is_empty() {
            equal(
                "digest of another order",
                &digest,
                only.get_or_insert(digest),
            )?;
        }
        if permutation < BARE {
            let bare = apply(&arrivals, end_us, random, PlainBooks::default(), &RIGHTLY);
            bare.compare(&model, bare.ledger.books(), end_us)?;
            let mut found = model.digest();
            found += bare.ledger.lines_digest(&bare.names);
            found += bare.ledger.counted_digest(&bare.names);
            bare.compare_books(&expected.facts, random)?;
            equal("digest", &found, &digest)?;
            continue;
        }
        let shards = SHARDS[permutation - BARE];
        let compared = match through {
            Through::Pipelines => {
                let mut pipeline = pipeline_of(&arrivals, end_us, shards, random);
                compare_pipeline(&mut pipeline, &expected, &model, digest)
            }
            Through::Instances => runtime().block_on(async {
                let (shards, in_order) = (shards as usize, !history.conflicts.is_empty());
                let instance = instance_of(&arrivals, end_us, shards, in_order, random).await;
                let compared = compare_instance(&instance, &expected, &model, digest).await;
                instance.stop().await;
                compared
            }),
        };
        compared.map_err(|error| format!("{shards} shards: {error}"))?;
    }
    Ok(())
}

#[test]
fn any_order_gives_what_the_model_gives() {
    let test = "any_order_gives_what_the_model_gives";
    run(test, 250, 1, history, |h| check(h, Through::Instances));
}

/// The same through the same code, without the threads of an instance, for long runs.
#[test]
fn any_order_gives_what_the_model_gives_without_threads() {
    let (histories, facts) = (AtomicU64::new(0), AtomicU64::new(0));
    let started = std::time::Instant::now();
    let test = "any_order_gives_what_the_model_gives_without_threads";
    run(test, 1_500, 2, history, |history| {
        check(history, Through::Pipelines)?;
        histories.fetch_add(1, Relaxed);
        facts.fetch_add(history.facts.len() as u64, Relaxed);
        Ok(())
    });
    let histories = histories.into_inner();
    eprintln!(
        "{histories} histories of {} facts, {} permutations, in {:?}; none diverged",
        facts.into_inner(),
        histories * PERMUTATIONS as u64,
        started.elapsed()
    );
}

/// What snapshots of these moments state of some cells, in any order.
fn statements(history: &History, arrivals: usize, random: &mut StdRng) -> Vec<(usize, Statement)> {
    let mut snapshots = StdRng::seed_from_u64(history.seed);
    let count = snapshots.random_range(1..12);
    let mut stated: Vec<_> = (0..count)
        .map(|_| Statement {
            sku: SKUS[snapshots.random_range(0..SKUS.len())].into(),
            location: LOCATIONS[snapshots.random_range(0..LOCATIONS.len())].into(),
            condition: Account::PHYSICAL[snapshots.random_range(0..2)],
            as_of_us: OCCURRED_US - snapshots.random_range(-1..12) * 1_000_000,
            snapshot: format!("erp/{}", snapshots.random_range(0..3)).into(),
            stated: snapshots.random_range(0..20),
        })
        .collect();
    // One snapshot says one thing of a cell.
    let mut said = BTreeSet::new();
    stated.retain(|new| {
        let of = (new.sku.clone(), new.location.clone(), new.condition);
        said.insert((of, new.as_of_us, new.snapshot.clone()))
    });
    stated.shuffle(random);
    let placed = |new| (random.random_range(0..=arrivals), new);
    stated.into_iter().map(placed).collect()
}

/// Variances are a function of the facts and of what snapshots state, whichever comes first.
#[test]
fn variances_are_those_of_the_model() {
    let test = "variances_are_those_of_the_model";
    let (open, closed) = (AtomicU64::new(0), AtomicU64::new(0));
    run(test, 1_500, 3, history, |history| {
        let random = &mut StdRng::seed_from_u64(history.seed);
        for _ in 0..3 {
            let arrivals = arrivals(history, random);
            let stated = statements(history, arrivals.len(), random);
            let facts = expected(&arrivals).facts;
            let mut model = Model::of(&facts, history.end_us);
            model.state(&facts, &stated);
            let books = PlainBooks::default();
            let end_us = history.end_us;
            let bare = apply_stated(&arrivals, &stated, end_us, random, books, &RIGHTLY);
            bare.compare(&model, bare.ledger.books(), end_us)?;
            let variances = model.exceptions.keys();
            let count = variances
                .filter(|(kind, _)| *kind == StateKind::Variance)
                .count();
            open.fetch_add(count as u64, Relaxed);
            closed.fetch_add((stated.len() - count) as u64, Relaxed);
        }
        Ok(())
    });
    let (open, closed) = (open.into_inner(), closed.into_inner());
    eprintln!("{open} variances, and {closed} statements that are none");
    assert!(open > 100 && closed > 100, "one of them never happens");
}

/// The histories are hard enough, and the comparison sharp enough, to find these bugs.
#[test]
fn the_comparison_notices_bugs_put_in_on_purpose() {
    let mut noticed: BTreeMap<String, u32> = BTreeMap::new();
    let histories = 400;
    for seed in 0..histories {
        let tree = history().new_tree(&mut runner(seed.into()));
        let mut history = tree.expect("a history").current();
        history.conflicts.clear();
        let end_us = history.end_us;
        let random = &mut StdRng::seed_from_u64(history.seed);
        let arrivals = arrivals(&history, random);
        let model = Model::of(&expected(&arrivals).facts, end_us);
        let mut note = |bug: &str, compared: Result<(), String>| {
            *noticed.entry(bug.into()).or_default() += u32::from(compared.is_err());
        };
        let mut driven = |driver: Driver| {
            let bare = apply(&arrivals, end_us, random, PlainBooks::default(), &driver);
            bare.compare(&model, bare.ledger.books(), end_us)
        };

        note("nothing", driven(RIGHTLY));
        let numbered = |names: &Arrived| {
            let number = |n| format!("{n:03}");
            Some(ByNumber((0..names.0.len()).map(number).collect()))
        };
        note(
            "locations by number",
            driven(Driver {
                names: numbered,
                ..RIGHTLY
            }),
        );
        note(
            "no time",
            driven(Driver {
                time: false,
                ..RIGHTLY
            }),
        );
        note(
            "no closing",
            driven(Driver {
                closing: false,
                ..RIGHTLY
            }),
        );

        let bare = apply(
            &arrivals,
            end_us,
            random,
            BooksThatKeepClaims::default(),
            &RIGHTLY,
        );
        note(
            "claims kept",
            bare.compare(&model, &bare.ledger.books().0, end_us),
        );
        let bare = apply(
            &arrivals,
            end_us,
            random,
            BooksThatStayWrong::default(),
            &RIGHTLY,
        );
        note(
            "staying wrong",
            bare.compare(&model, &bare.ledger.books().0, end_us),
        );
        let fewer: Vec<Fact> = match arrivals.first() {
            Some(lost) => arrivals
                .iter()
                .filter(|fact| fact.id != lost.id)
                .cloned()
                .collect(),
            None => continue,
        };
        let bare = apply(&fewer, end_us, random, PlainBooks::default(), &RIGHTLY);
        note(
            "a fact lost",
            bare.compare(&model, bare.ledger.books(), end_us),
        );

        let bare = apply(&arrivals, end_us, random, PlainBooks::default(), &RIGHTLY);
        for misreading in [
            Misreading::RestockFirst,
            Misreading::InspectedBeforeReceipt,
            Misreading::NoExpiry,
            Misreading::FirstTimeCounts,
            Misreading::LastNameFirst,
            Misreading::AllOrdersReturned,
            Misreading::CountedNow,
            Misreading::FirstCountCounts,
        ] {
            let model = Model::misread(misreading, &expected(&arrivals).facts, end_us);
            let compared = bare.compare(&model, bare.ledger.books(), end_us);
            note(&format!("{misreading:?}"), compared);
        }
    }
    eprintln!("of {histories} histories, these noticed: {noticed:#?}");
    assert_eq!(
        noticed.remove("nothing"),
        Some(0),
        "what is right is taken for wrong"
    );
    assert_eq!(noticed.len(), 14);
    for (bug, noticed) in noticed {
        assert!(noticed > 0, "{bug} was not noticed");
        if ["claims kept", "a fact lost"].contains(&bug.as_str()) {
            assert!(
                noticed > histories / 4,
                "{bug} was noticed {noticed} times only"
            );
        }
    }
}

/// The same for a whole instance: a movement with one unit more than the model knows of.
#[test]
fn the_comparison_of_an_instance_notices_one_unit_too_many() {
    let fact = |id: &str, quantity| Fact {
        id: id.into(),
        sku: SKUS[0].into(),
        quantity,
        occurred_us: OCCURRED_US,
        what: What::Received(LOCATIONS[0].into(), Condition::Good),
    };
    let (facts, others) = ([fact("a", 7), fact("b", 5)], [fact("a", 7), fact("b", 6)]);
    let expected = expected(&facts);
    let end_us = at_step(1);
    let model = Model::of(&facts, end_us);
    let digest = digest_of(&expected, &model, end_us);
    let random = &mut StdRng::seed_from_u64(1);
    runtime().block_on(async {
        let right = instance_of(&facts, end_us, 2, true, random).await;
        compare_instance(&right, &expected, &model, digest)
            .await
            .expect("they agree");
        let wrong = instance_of(&others, end_us, 2, true, random).await;
        let error = compare_instance(&wrong, &expected, &model, digest)
            .await
            .unwrap_err();
        assert!(error.starts_with("units"), "{error}");
        right.stop().await;
        wrong.stop().await;
    });
}
