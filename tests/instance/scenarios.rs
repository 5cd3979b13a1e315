//! What happens in a retailer's day, told in tables that a stock controller can read and correct:
//! `tests/scenarios/*.md`, one event a row, with its outcome and how things stand after it. Each is
//! run through a whole instance.

mod table;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use prost::Message;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use sellable::{
    domain::{
        exceptions::{Open, Outcome, StateKind},
        reserve::ShortReason,
    },
    instance::{Instance, Options},
    intake::{Allocation, CommandOutcome, CommandReceipt, Refusal, Resolved},
    log::{Log, memory::MemoryLog},
    proto::v1 as pb,
    shard::Receipt,
};
use table::{Column, Event, Row, Scenario, differences, in_order, parse};

/// One test for each table, so that it is named by what fails.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),+];
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                as_told(stringify!($name)).await;
            }
        )+
    };
}

scenarios! {
    bought_online_returned_in_store,
    checkout_abandoned,
    counted_while_goods_move,
    duplicate_receipt,
    duplicate_rma,
    inbound_overdue,
    inspected_before_received,
    marketplace_return,
    missing_disposition,
    mixed_dispositions,
    oversold_by_a_store_sale,
    partial_receipt,
    received_elsewhere_than_authorized,
    refunded_before_received,
    short_shipment,
    substitution,
    transfer_counted_twice,
    transfer_short,
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn read(name: &str) -> Scenario {
    let path = format!("tests/scenarios/{name}.md");
    let text = fs::read_to_string(dir().join(format!("{name}.md")));
    let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
    parse(&path, &text).unwrap_or_else(|wrong| panic!("{wrong}"))
}

#[test]
fn every_table_is_run() {
    let files = fs::read_dir(dir()).expect("there are scenarios");
    let mut found: Vec<String> = files
        .map(|file| file.expect("a file").file_name().into_string())
        .map(|name| name.expect("a name"))
        .filter_map(|name| name.strip_suffix(".md").map(str::to_owned))
        .filter(|name| name != "README")
        .collect();
    found.sort_unstable();
    assert_eq!(found, NAMES);
}

async fn as_told(name: &str) {
    let scenario = read(name);
    for shards in [1, 3] {
        let stage = Stage::set(&scenario, shards).await;
        let mut wrong = String::new();
        for row in &scenario.rows {
            let outcome = stage.play(row).await;
            let found = stage.found(row, outcome).await;
            wrong += &differences(&scenario, row, &found);
        }
        stage.instance.stop().await;
        assert!(wrong.is_empty(), "on {shards} shard(s):\n{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_give_the_same_in_any_order_and_doubled() {
    let mut random = StdRng::seed_from_u64(7);
    let mut told = 0;
    for name in NAMES {
        let scenario = read(name);
        if !scenario.any_order {
            continue;
        }
        told += 1;
        let as_told = last_of(&scenario, scenario.rows.iter(), 1, &mut random).await;
        for round in 0..16 {
            let mut rows: Vec<&Row> = scenario.rows.iter().collect();
            match round {
                0 => rows.reverse(),
                // As told, but each one twice.
                1 => {}
                _ => rows.shuffle(&mut random),
            }
            let mut all = rows.clone();
            match round % 3 {
                // Each again at once, and all of them again in another order.
                0 => all = rows.iter().flat_map(|row| [*row, *row]).collect(),
                1 => {
                    rows.shuffle(&mut random);
                    all.append(&mut rows);
                }
                _ => {}
            }
            let shards = [1, 3][round % 2];
            let found = last_of(&scenario, all.iter().copied(), shards, &mut random).await;
            let order: Vec<usize> = all.iter().map(|row| row.line).collect();
            let wrong = &found.1;
            assert!(
                wrong.is_empty(),
                "on {shards} shard(s), in the order of the lines {order:?}:\n{wrong}"
            );
            assert_eq!(
                found, as_told,
                "{name}, in the order of the lines {order:?}"
            );
        }
    }
    assert!(
        told >= 10,
        "only {told} scenarios say that order does not matter"
    );
}

/// Plays the facts of these rows at the log's time of the end, some of them in one call. Gives the
/// digest, and what is not as it should be after the last row of the table.
async fn last_of(
    scenario: &Scenario,
    rows: impl Iterator<Item = &Row>,
    shards: usize,
    random: &mut StdRng,
) -> (String, String) {
    let stage = Stage::set(scenario, shards).await;
    let clock = scenario.rows.iter().rev().find_map(|row| match row.event {
        Event::Clock(us) => Some(us),
        _ => None,
    });
    stage.tick(clock.unwrap_or(scenario.begin_us)).await;
    let mut facts: Vec<&pb::Movement> = rows
        .filter_map(|row| match &row.event {
            Event::Fact(movement) => Some(&**movement),
            _ => None,
        })
        .collect();
    while !facts.is_empty() {
        let batch = facts.drain(..random.random_range(1..=facts.len().min(4)));
        stage.post(batch).await;
    }
    let last = scenario.rows.last().expect("a table has rows");
    // What became of the last one is another matter.
    let place = scenario.columns.iter().position(|c| *c == Column::Outcome);
    let outcome = last.cells[place.expect("it is required")].clone();
    let found = stage.found(last, outcome).await;
    let (audit, _) = stage.instance.audit().await.expect("it runs");
    stage.instance.stop().await;
    let digest = audit.digest.to_string();
    (digest, differences(scenario, last, &found))
}

/// An instance on a log whose clock the scenario sets.
struct Stage<'s> {
    scenario: &'s Scenario,
    log: MemoryLog,
    instance: Arc<Instance>,
}

impl<'s> Stage<'s> {
    async fn set(scenario: &'s Scenario, shards: usize) -> Self {
        let log = MemoryLog::new();
        log.set_clock(Some(scenario.begin_us));
        let options = Options {
            shards,
            ..Options::default()
        };
        let instance = Instance::start(Arc::new(log.clone()), &options).await;
        let instance = instance.expect("it starts");
        let put = pb::RulesPut {
            toml: scenario.rules.clone(),
            ..pb::RulesPut::default()
        };
        let version = instance.put_rules(put).await.expect("it takes rules");
        assert!(version > 0, "the rules are not in force");
        Self {
            scenario,
            log,
            instance,
        }
    }

    /// The log goes on to this time.
    async fn tick(&self, us: i64) {
        self.log.set_clock(Some(us));
        let record = pb::Record {
            version: 1,
            body: Some(pb::record::Body::Tick(pb::Tick {})),
            ..pb::Record::default()
        };
        let position = self.log.append(record.encode_to_vec().into()).await;
        let position = position.expect("it is stored");
        self.instance.view().progress().wait_for(position).await;
    }

    async fn post<'m>(&self, movements: impl Iterator<Item = &'m pb::Movement>) -> Receipt {
        let movements = movements.map(|m| Bytes::from(m.encode_to_vec())).collect();
        self.instance.post(movements).await.expect("it is taken")
    }

    /// Lets a row's event happen, and tells what became of it.
    async fn play(&self, row: &Row) -> String {
        match &row.event {
            Event::Fact(movement) => {
                let receipt = self.post([&**movement].into_iter()).await;
                match receipt.outcomes[..] {
                    [(Outcome::Applied, false)] => "applied".into(),
                    [(Outcome::Applied, true)] => "duplicate".into(),
                    [(Outcome::Parked(kind), false)] => format!("parked as {}", kind.name()),
                    ref other => format!("{other:?}"),
                }
            }
            Event::Command(command) => {
                let command = Bytes::from(command.encode_to_vec());
                let receipt = self.instance.command(command, 1).await;
                decision(&receipt.expect("it is taken"))
            }
            Event::Clock(us) => {
                self.tick(*us).await;
                "-".into()
            }
            Event::Decide(resolution, disposition, id) => {
                self.decide(*resolution, *disposition, id).await
            }
        }
    }

    async fn decide(
        &self,
        resolution: pb::Resolution,
        disposition: pb::Disposition,
        id: &str,
    ) -> String {
        let parked = self.instance.parked();
        let parked = parked.page(None, 2, usize::MAX, |parked| parked.id == id);
        let [((_, exception), parked)] = &parked[..] else {
            return format!("{} parked movements have the id {id}", parked.len());
        };
        let record = pb::ResolveException {
            exception: exception.to_string(),
            resolution: resolution.into(),
            disposition: disposition.into(),
            actor: "a stock controller".into(),
            original: parked.original.to_vec(),
            source: parked.source.clone(),
            content_type: parked.media_type.clone(),
            ..pb::ResolveException::default()
        };
        let resolved = self.instance.resolve(record).await;
        match resolved.expect("it is taken").0 {
            Resolved::Done => "done".into(),
            Resolved::NotFound => "not found".into(),
            Resolved::Refused(why) => format!("refused: {why}"),
        }
    }

    /// A row as it should be written, with what is found.
    async fn found(&self, row: &Row, outcome: String) -> Vec<String> {
        let (audit, _) = self.instance.audit().await.expect("it runs");
        assert_eq!(audit.conservation_violations, 0, "line {}", row.line);
        let found = |(column, cell): (&Column, &String)| match column {
            Column::Outcome => outcome.clone(),
            Column::Exceptions => self.exceptions(),
            Column::Ats(channel, sku) => self.ats(channel, sku),
            Column::Balance(account, at, sku) => {
                let terms = self.explain(None, sku).locations;
                let there = terms.iter().find(|term| term.location == *at);
                there.map_or(0, |term| term.balances[*account]).to_string()
            }
            _ => cell.clone(),
        };
        self.scenario
            .columns
            .iter()
            .zip(&row.cells)
            .map(found)
            .collect()
    }

    fn explain(&self, channel: Option<&str>, sku: &str) -> sellable::shard::Explanation {
        let reading = self.instance.view().read();
        let rules = &reading.rules.rules;
        let first = rules.channels().next().map(|(_, name)| name);
        let name = channel.or(first).expect("the rules have a channel");
        let channel = rules.channel(name);
        reading.explain(
            channel.unwrap_or_else(|| panic!("no channel {name:?}")),
            sku,
        )
    }

    fn ats(&self, channel: &str, sku: &str) -> String {
        let explained = self.explain(Some(channel), sku);
        let reading = self.instance.view().read();
        let channel = reading.rules.rules.channel(channel).expect("there is one");
        let mut answer = None;
        reading.available(channel, [sku].into_iter(), |_, ats| answer = ats);
        assert_eq!(answer, explained.known.then_some(explained.ats));
        answer.map_or("unknown".into(), |ats| ats.to_string())
    }

    fn exceptions(&self) -> String {
        let desk = self.instance.exceptions();
        let mut all: Vec<String> = desk.all_open().values().map(tell).collect();
        let parked = desk.parked().page(None, 1_000, usize::MAX, |_| true);
        all.extend(
            parked
                .iter()
                .map(|(_, parked)| format!("{} {}", parked.kind.name(), parked.id)),
        );
        // The counts are kept apart from the list.
        let counts = desk.counts().values().sum::<u64>();
        let parked = desk.parked().counts().values().sum::<u64>();
        assert_eq!(counts + parked, all.len() as u64, "{all:?}");
        if all.is_empty() {
            return "none".into();
        }
        in_order(all)
    }
}

/// An exception as tables name it.
fn tell(open: &Open) -> String {
    let subject = &open.subject;
    let mut text = format!("{} {} {}", open.kind.name(), open.units, subject.sku);
    if open.kind == StateKind::NegativeBalance {
        text += &format!(" {}", subject.document);
    } else if !subject.document.is_empty() {
        text += &format!(" of {}/{}", subject.document, subject.line);
    }
    if !subject.location.is_empty() {
        text += &format!(" at {}", subject.location);
    }
    text
}

/// What was decided about a command, as tables have it.
fn decision(receipt: &CommandReceipt) -> String {
    let allocations = |allocations: &[Allocation]| {
        let tell = |a: &Allocation| format!("{} {} at {}", a.quantity, a.sku, a.location);
        allocations.iter().map(tell).collect::<Vec<_>>().join(", ")
    };
    let mut text = match &receipt.outcome {
        CommandOutcome::Reserved {
            allocations: all, ..
        } => format!("granted {}", allocations(all)),
        CommandOutcome::Short(lines) => {
            let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for line in lines {
                let reason = match line.reason {
                    ShortReason::Insufficient => "insufficient",
                    ShortReason::UnknownSku => "unknown SKU",
                    ShortReason::NotSoldFromLocation => "not sold from there",
                    ShortReason::OnlySplit => "only split",
                };
                let short = format!("{} {}", line.requested - line.available, line.sku);
                by_reason.entry(reason).or_default().push(short);
            }
            let tell = |(reason, short): (&str, Vec<String>)| {
                format!("short by {} ({reason})", short.join(", "))
            };
            let reasons: Vec<String> = by_reason.into_iter().map(tell).collect();
            format!("refused: {}", reasons.join("; "))
        }
        CommandOutcome::Confirmed => "confirmed".into(),
        CommandOutcome::Extended(us) => {
            let time = jiff::Timestamp::from_microsecond(*us).expect("a time");
            format!("extended to {}", time.strftime("%Y-%m-%d %H:%M"))
        }
        CommandOutcome::Released(all) if all.is_empty() => "released nothing".into(),
        CommandOutcome::Released(all) => format!("released {}", allocations(all)),
        CommandOutcome::Refused(Refusal::Expired(_)) => "refused: it has expired".into(),
        CommandOutcome::Refused(other) => format!("refused: {other}"),
    };
    if receipt.duplicate {
        text += " (as before)";
    }
    text
}

/// A scenario with this table.
fn with_table(table: &str) -> String {
    format!(
        "# A title\n\n```toml\n[channel.web]\nsources = [\"*\"]\n```\n\n\
         The order of these events does not matter.\n\n{table}"
    )
}

const HEAD: &str = "\
| event | SKU | qty | where | document | outcome | ATS web | good dc | open exceptions |
|---|---|---|---|---|---|---|---|---|
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_expectation_is_shown_with_its_line_and_what_is_found() {
    let table = "\
| received | MUG | 5 | dc | | applied | 5 | 5 | none |
| issued sale | MUG | 7 | dc | | duplicate | 5 | -2 | none |
";
    let scenario = parse("a.md", &with_table(&format!("{HEAD}{table}")));
    let scenario = scenario.expect("it is well formed");
    let stage = Stage::set(&scenario, 1).await;
    let mut wrong = Vec::new();
    for row in &scenario.rows {
        let outcome = stage.play(row).await;
        wrong.push(differences(
            &scenario,
            row,
            &stage.found(row, outcome).await,
        ));
    }
    stage.instance.stop().await;
    let expected = "\
a.md:13: after \"issued sale\"
    outcome  expected: duplicate
             found:    applied
    ATS web MUG  expected: 5
                 found:    0
    open exceptions  expected: none
                     found:    negative_balance 2 MUG good at dc, oversold 2 MUG at dc
    as found  | issued sale | MUG | 7 | dc |  | applied | 0 | -2 | \
negative_balance 2 MUG good at dc, oversold 2 MUG at dc |
";
    assert_eq!(wrong, ["", expected]);
}

#[test]
fn what_a_table_cannot_mean_is_an_error_with_its_line() {
    let row = "| received | MUG | 5 | dc | | applied | 5 | 5 | none |\n";
    let sound = with_table(&format!("{HEAD}{row}"));
    parse("a.md", &sound).expect("it is well formed");
    let table = [
        (row, "", "a.md:10: the table has no events"),
        ("# A", "A", "a.md:1: a scenario begins with its title"),
        ("does not matter", "may matter", "a.md:1: one line says"),
        (
            "|---|---|---|---|---|---|---|---|---|\n",
            "",
            "a.md:11: a line like",
        ),
        ("[channel.web]", "[channel.web", "a.md:3: "),
        (
            "[channel.web]\nsources",
            "# ",
            "a.md:3: the rules have no channel",
        ),
        (
            "```toml",
            "```",
            "a.md:1: there is one block of channel rules",
        ),
        (
            "| good dc |",
            "| god dc |",
            "there are no columns named \"god dc\"",
        ),
        (
            "| good dc |",
            "| remark |",
            "there are no columns named \"remark\"",
        ),
        (
            "| good dc |",
            "| good dc CUP |",
            "names a SKU that no event does",
        ),
        (
            "| good dc |",
            "| where |",
            "two columns are named \"where\"",
        ),
        (
            "| ATS web |",
            "| note |",
            "there is no column \"ATS <channel>\"",
        ),
        (
            "| open exceptions |",
            "| note |",
            "there is no column \"open exceptions\"",
        ),
        (
            "| 5 | 5 | none |",
            "| 5 | none |",
            "a.md:12: the row has 8 cells",
        ),
        (
            "| 5 | 5 | none |",
            "| 5 | | none |",
            "is no number of units",
        ),
        (
            "| 5 | 5 | none |",
            "| five | 5 | none |",
            "is no number of units",
        ),
        (
            "| 5 | 5 | none |",
            "| 5 | 5 | |",
            "nothing is said under Exceptions",
        ),
        ("| applied |", "| |", "nothing is said under Outcome"),
        ("| MUG | 5 |", "| MUG | |", "is no quantity"),
        ("| MUG | 5 |", "| MUG | 0 |", "quantity: is 0"),
        ("| received |", "| recieved |", "did you mean `received`?"),
        ("| received |", "| received mint |", "condition"),
        ("| received |", "| issued |", "reason"),
        ("| received |", "| shipped |", "a.md:12: order"),
        (
            "| received |",
            "| picked well |",
            "\"well\" has no meaning here",
        ),
        (
            "| received |",
            "| clock 9:00 |",
            "this event has nothing under Sku",
        ),
        (
            "| received |",
            "| person: release |",
            "this event has nothing under Sku",
        ),
        (
            "| received |",
            "| request: hold |",
            "nobody can request \"hold\"",
        ),
        (
            "| dc | | applied",
            "| dc | PO-1 | applied",
            "a document is like",
        ),
        (
            "| dc | | applied",
            "| dc | P/1 by noon | applied",
            "is no time like",
        ),
        ("| dc |", "| dc → x |", "a.md:12: "),
        (
            "| received | MUG | 5 | dc | |",
            "| request: reserve web | MUG | 5 | dc | C-1 |",
            "this is no fact",
        ),
        (
            "| applied |",
            "| parked as conflicting_duplicate |",
            "this is no fact",
        ),
    ];
    for (from, to, expected) in table {
        assert!(sound.contains(from), "{from:?}");
        let broken = sound.replacen(from, to, 1);
        let wrong = parse("a.md", &broken).map(|_| ()).expect_err(to);
        assert!(
            wrong.contains(expected),
            "{to:?}: {wrong:?} is not {expected:?}"
        );
    }
}
