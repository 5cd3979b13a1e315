//! Order independence: for any set of facts, any permutation, any duplication, any batching and
//! any number of shards give the same balances, order lines, availability and digest, and they
//! are those of the slow, obvious model.
//!
//! A short run by default; `SELLABLE_MODEL_CASES=20000 cargo test --test ledger_model` is a long
//! one. A failure prints the shrunk history and how to run it again.

#[path = "support/model.rs"]
mod model;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use model::{Channel, Fact, Line, Model, OCCURRED_US, What};
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestError, TestRunner},
};
use prost::Message;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use sellable::{
    domain::{
        admission::{Admission, Horizon, Verdict},
        balances::{Account, Balances, Loc, LocationNames},
        digest::Digest,
        exceptions::Outcome,
        keys::{Keyer, SkuHash},
        ledger::{Books, CellChange, Ledger, PlainBooks},
        movement::Condition,
        posting::Posting,
    },
    instance::{Instance, Options},
    log::{Lane, MediaType, memory::MemoryLog},
    proto::v1 as pb,
};

/// In another order by name than any order in which they are likely to arrive.
const LOCATIONS: [&str; 5] = ["m-store", "a-store", "z-dc", "k-3pl", "B-dc"];
const SKUS: [&str; 3] = ["4006381333931", "tee-red-M", "tee-red-L"];
const CONDITIONS: [Condition; 4] = [
    Condition::Good,
    Condition::Quarantined,
    Condition::Damaged,
    Condition::ReturnPending,
];

fn channels() -> [Channel; 4] {
    let open = Channel {
        name: "web",
        sources: None,
        buffer: 0,
        buffer_percent: 0,
        share_percent: 100,
        minimum: 0,
        maximum: None,
        paused_sku: None,
    };
    [
        Channel {
            name: "market",
            buffer: 2,
            buffer_percent: 15,
            share_percent: 70,
            minimum: 3,
            maximum: Some(60),
            ..open
        },
        Channel {
            name: "pause",
            paused_sku: Some(SKUS[1]),
            buffer: 1,
            ..open
        },
        Channel {
            name: "stores",
            sources: Some(&["m-store", "a-store"]),
            buffer_percent: 33,
            ..open
        },
        open,
    ]
}

fn location() -> impl Strategy<Value = String> {
    prop::sample::select(&LOCATIONS[..]).prop_map(str::to_owned)
}

fn line() -> impl Strategy<Value = Line> {
    (0..2, 0..2).prop_map(|(order, line)| (format!("order-{order}"), format!("{line}")))
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![3 => Just(Condition::Good), 2 => prop::sample::select(&CONDITIONS[..])]
}

/// Small ones, that meet; and some so large that a few of them need more than 32 bits.
fn quantity() -> impl Strategy<Value = i64> {
    prop_oneof![40 => 1..30i64, 1 => 900_000_000..=1_000_000_000i64]
}

fn what() -> impl Strategy<Value = What> {
    let at = location;
    let two = (at(), at()).prop_filter("it moves", |(from, to)| from != to);
    let conditions = (condition(), condition()).prop_filter("it changes", |(from, to)| from != to);
    prop_oneof![
        4 => (at(), condition()).prop_map(|(at, to)| What::Received(at, to)),
        1 => (at(), condition()).prop_map(|(at, from)| What::Issued(at, from)),
        1 => (at(), conditions).prop_map(|(at, (from, to))| What::Reclassified(at, from, to)),
        1 => (at(), condition()).prop_map(|(at, to)| What::Adjusted(at, to)),
        6 => (line(), at()).prop_map(|(line, at)| What::Reserved(line, at)),
        3 => (line(), prop::option::of(at())).prop_map(|(line, at)| What::Released(line, at)),
        3 => (line(), two).prop_map(|(line, (from, to))| What::Reassigned(line, from, to)),
        1 => (line(), at()).prop_map(|(line, at)| What::Picked(line, at)),
        1 => (line(), at()).prop_map(|(line, at)| What::Packed(line, at)),
        4 => (line(), at()).prop_map(|(line, at)| What::Shipped(line, at)),
    ]
}

fn facts() -> impl Strategy<Value = Vec<Fact>> {
    let fact = (
        prop::sample::select(&SKUS[..]),
        quantity(),
        any::<bool>(),
        what(),
    );
    prop::collection::vec(fact, 1..60).prop_map(|facts| {
        let number = |(n, (sku, quantity, minus, what)): (usize, (&str, i64, bool, What))| Fact {
            id: format!("m{n}"),
            sku: sku.to_owned(),
            quantity: match what {
                What::Adjusted(..) if minus => -quantity,
                _ => quantity,
            },
            what,
        };
        facts.into_iter().enumerate().map(number).collect()
    })
}

/// A history, and what to draw its permutations, duplicates and batches from.
fn history() -> impl Strategy<Value = (Vec<Fact>, u64)> {
    (facts(), any::<u64>())
}

/// The facts in any order, some of them several times.
fn arrivals(facts: &[Fact], random: &mut StdRng) -> Vec<Fact> {
    let mut arrivals = facts.to_vec();
    for fact in facts {
        while random.random_ratio(1, 5) {
            arrivals.push(fact.clone());
        }
    }
    arrivals.shuffle(random);
    arrivals
}

/// Numbers in order of arrival.
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    fn number(&mut self, name: &str) -> Loc {
        let found = self.0.iter().position(|known| known == name);
        Loc(found.unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        }) as u32)
    }
}

impl LocationNames for Names {
    fn name(&self, loc: Loc) -> &str {
        &self.0[loc.0 as usize]
    }
}

/// A bug, put in on purpose: locations in order of arrival instead of by name.
struct NamesByNumber(Vec<String>);

impl LocationNames for NamesByNumber {
    fn name(&self, loc: Loc) -> &str {
        &self.0[loc.0 as usize]
    }
}

/// A bug, put in on purpose: claims are never given back.
#[derive(Default)]
struct BooksThatKeepClaims(PlainBooks);

impl Books for BooksThatKeepClaims {
    fn post(&mut self, sku: SkuHash, name: &str, changes: &[CellChange], net_in: i64) {
        let mut changes = changes.to_vec();
        for change in &mut changes {
            change.by[Account::Reserved] = change.by[Account::Reserved].max(0);
        }
        self.0.post(sku, name, &changes, net_in);
    }
}

/// Applies arrivals as the sequencer and one shard do.
fn apply<B: Books>(
    arrivals: &[Fact],
    books: B,
    names_of: impl Fn(&Names) -> Option<NamesByNumber>,
) -> (Ledger<B>, Names) {
    let (mut ledger, mut names) = (Ledger::new(books), Names::default());
    let (mut admission, mut keyer) = (Admission::new(Horizon::DEFAULT), Keyer::new());
    admission.advance(OCCURRED_US);
    for fact in arrivals {
        let movement = fact.movement();
        movement
            .check(OCCURRED_US)
            .expect("the generator keeps the limits");
        let (key, content) = (keyer.movement("wms", &fact.id), keyer.content(&movement));
        let verdict = admission.admit(key, content, movement.occurred_us);
        let posting = Posting::of(&movement, &mut keyer, |name| names.number(name));
        match (verdict, names_of(&names)) {
            (Verdict::Apply, None) => ledger.apply(&posting, &fact.sku, &names),
            (Verdict::Apply, Some(others)) => ledger.apply(&posting, &fact.sku, &others),
            (Verdict::Repeat(_), _) => {}
            (Verdict::Park(kind), _) => panic!("{kind:?}: {fact:?}"),
        }
    }
    (ledger, names)
}

fn equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &T,
    expected: &T,
) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: found {found:?}, expected {expected:?}"))
}

/// Compares a ledger of the obvious books with the model.
fn compare_plain<B>(
    model: &Model,
    ledger: &Ledger<B>,
    books: &PlainBooks,
    names: &Names,
) -> Result<(), String>
where
    B: Books,
{
    let cells: BTreeMap<(String, String), Balances> = books
        .cells
        .iter()
        .filter(|(_, balances)| !balances.is_zero())
        .map(|((sku, at), balances)| ((sku.clone(), names.name(*at).to_owned()), *balances))
        .collect();
    equal("cells", &cells, &model.cells)?;
    equal("digest of cells", &books.digest(names), &model.digest())?;
    let skus: Vec<&String> = books.net_in.keys().collect();
    equal("SKUs", &skus, &model.skus.iter().collect())?;
    for (sku, net_in) in &books.net_in {
        let expected = model.net_in.get(sku).copied().unwrap_or(0);
        equal("units in less units out", net_in, &expected)?;
    }
    equal("number of lines", &ledger.lines().len(), &model.lines.len())?;
    for (((order, line), sku), expected) in &model.lines {
        let key = Keyer::new().line(order, line, sku);
        let found = ledger.lines().get(key).ok_or("a line is missing")?;
        let claim = found.claims(names).iter().map(|(_, units)| units).sum();
        let found = [found.reserved, found.released, found.shipped, claim];
        equal("line", &found, expected)?;
    }
    Ok(())
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

/// Sends arrivals through a whole instance: some lie in the log when it starts, as producers'
/// messages, the others are posted, by two callers at once; in batches of any size.
async fn instance_of(arrivals: &[Fact], shards: usize, random: &mut StdRng) -> Arc<Instance> {
    let log = MemoryLog::new();
    log.set_clock(Some(OCCURRED_US));
    let (before, posted) = arrivals.split_at(random.random_range(0..=arrivals.len()));
    let mut rest = before;
    while !rest.is_empty() {
        let (batch, others) = rest.split_at(random.random_range(1..=rest.len()));
        rest = others;
        let batch = pb::MovementBatch {
            version: 1,
            movements: batch.iter().map(Fact::proto).collect(),
        };
        let lane = Lane::Producer {
            source: "wms".into(),
            media_type: MediaType::Protobuf,
        };
        log.publish(lane, batch.encode_to_vec().into());
    }
    let options = Options {
        shards,
        record_movements_max: random.random_range(1..20),
        ..Options::default()
    };
    let instance = Instance::start(Arc::new(log), &options)
        .await
        .expect("it starts");
    let toml: String = channels().iter().map(Channel::toml).collect();
    let put = pb::RulesPut {
        toml,
        ..pb::RulesPut::default()
    };
    let mut rest = posted;
    let rules_after = random.random_range(0..=posted.len());
    let mut put = Some(put);
    while !rest.is_empty() {
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
            let applied = |(outcome, _): &(Outcome, bool)| *outcome == Outcome::Applied;
            assert!(receipt.outcomes.iter().all(applied), "{receipt:?}");
            assert!(instance.view().progress().position() >= receipt.position);
        };
        tokio::join!(post(one), post(other));
    }
    if let Some(put) = put.take() {
        instance.put_rules(put).await.expect("the rules are taken");
    }
    instance
}

/// Compares a whole instance with the model.
async fn compare_instance(
    model: &Model,
    instance: &Instance,
    digest: Digest,
) -> Result<(), String> {
    let (audit, _) = instance.audit().await.ok_or("it stopped")?;
    equal("digest", &audit.digest, &digest)?;
    equal("violations", &audit.conservation_violations, &0)?;
    equal("cells", &audit.cells, &(model.cells.len() as u64))?;
    equal("lines", &audit.order_lines, &(model.lines.len() as u64))?;
    equal("units", &audit.units, &model.units())?;
    equal("parked", &instance.movements().parked, &0)?;
    let reading = instance.view().read();
    let skus: Vec<&str> = SKUS.into_iter().chain(["never seen"]).collect();
    for channel in channels() {
        let number = reading
            .rules
            .rules
            .channel(channel.name)
            .ok_or("no such channel")?;
        let mut found = Vec::new();
        reading.available(number, &skus, |_, ats| found.push(ats));
        let expected: Vec<_> = skus.iter().map(|sku| model.ats(&channel, sku)).collect();
        equal(channel.name, &found, &expected)?;
        for (sku, ats) in skus.iter().zip(&expected) {
            let explanation = reading.explain(number, sku);
            equal("explained", &explanation.ats, &ats.unwrap_or(0))?;
            equal("known", &explanation.known, &ats.is_some())?;
            for term in explanation.locations {
                let cell = model.cells.get(&((*sku).to_owned(), term.location.clone()));
                let expected = cell.copied().unwrap_or_default();
                equal(&term.location, &term.balances, &expected)?;
            }
        }
    }
    Ok(())
}

fn check(facts: &[Fact], seed: u64) -> Result<(), String> {
    let model = Model::of(facts);
    if !model.conserves() {
        return Err("the model itself does not conserve units".into());
    }
    let random = &mut StdRng::seed_from_u64(seed);
    let mut digest = None;
    for _ in 0..3 {
        let arrivals = arrivals(facts, random);
        let (ledger, names) = apply(&arrivals, PlainBooks::default(), |_| None);
        compare_plain(&model, &ledger, ledger.books(), &names)?;
        let mut found = model.digest();
        found += ledger.lines_digest(&names);
        equal(
            "digest of another order",
            &found,
            digest.get_or_insert(found),
        )?;
    }
    let digest = digest.expect("there was a first one");
    for shards in [1, 2, 4] {
        let arrivals = arrivals(facts, random);
        let compared = runtime().block_on(async {
            let instance = instance_of(&arrivals, shards, random).await;
            let compared = compare_instance(&model, &instance, digest).await;
            instance.stop().await;
            compared
        });
        compared.map_err(|error| format!("{shards} shards: {error}"))?;
    }
    Ok(())
}

fn cases(default: u32) -> u32 {
    let cases = std::env::var("SELLABLE_MODEL_CASES").ok();
    cases.map_or(default, |cases| {
        cases.parse().expect("SELLABLE_MODEL_CASES is a number")
    })
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        // What fails is printed whole; there is no file to keep beside the tests.
        failure_persistence: None,
        ..Config::default()
    })
}

#[test]
fn any_order_gives_what_the_model_gives() {
    let result = runner(cases(250)).run(&history(), |(facts, seed)| {
        check(&facts, seed).map_err(TestCaseError::fail)
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, (facts, seed))) => panic!(
            "{reason}\nseed {seed} of `check`, with the facts\n{facts:#?}\n\
             (PROPTEST_RNG_SEED, where it was set, runs the same histories again)"
        ),
        Err(error) => panic!("{error}"),
    }
}

/// The histories are hard enough, and the comparison sharp enough, to find these bugs.
#[test]
fn the_comparison_notices_bugs_put_in_on_purpose() {
    let mut by_number = 0;
    let mut kept = 0;
    let mut lost = 0;
    let histories = 60;
    let mut runner = TestRunner::deterministic();
    for _ in 0..histories {
        let tree = history().new_tree(&mut runner).expect("a history");
        let (facts, seed) = proptest::strategy::ValueTree::current(&tree);
        let model = Model::of(&facts);
        let arrivals = arrivals(&facts, &mut StdRng::seed_from_u64(seed));

        let numbered = |names: &Names| {
            let number = |n| format!("{n:03}");
            Some(NamesByNumber((0..names.0.len()).map(number).collect()))
        };
        let (ledger, names) = apply(&arrivals, PlainBooks::default(), numbered);
        by_number += u32::from(compare_plain(&model, &ledger, ledger.books(), &names).is_err());

        let (ledger, names) = apply(&arrivals, BooksThatKeepClaims::default(), |_| None);
        kept += u32::from(compare_plain(&model, &ledger, &ledger.books().0, &names).is_err());

        // One fact got lost.
        let (_, fewer) = facts.split_first().expect("one at least");
        let (ledger, names) = apply(fewer, PlainBooks::default(), |_| None);
        lost += u32::from(compare_plain(&model, &ledger, ledger.books(), &names).is_err());
    }
    assert!(
        by_number > 0,
        "claims taken in order of arrival were not noticed"
    );
    assert!(
        kept > histories / 2,
        "claims that are kept were noticed {kept} times only"
    );
    assert!(
        lost > histories / 2,
        "lost facts were noticed {lost} times only"
    );
}

/// The same for a whole instance: a movement with one unit more than the model knows of.
#[test]
fn the_comparison_of_an_instance_notices_one_unit_too_many() {
    let fact = |id: &str, quantity| Fact {
        id: id.into(),
        sku: SKUS[0].into(),
        quantity,
        what: What::Received(LOCATIONS[0].into(), Condition::Good),
    };
    let (facts, others) = ([fact("a", 7), fact("b", 5)], [fact("a", 7), fact("b", 6)]);
    let model = Model::of(&facts);
    let random = &mut StdRng::seed_from_u64(1);
    runtime().block_on(async {
        let right = instance_of(&facts, 2, random).await;
        compare_instance(&model, &right, model.digest())
            .await
            .expect("they agree");
        let wrong = instance_of(&others, 2, random).await;
        let error = compare_instance(&model, &wrong, model.digest())
            .await
            .unwrap_err();
        assert!(error.starts_with("digest"), "{error}");
        right.stop().await;
        wrong.stop().await;
    });
}
