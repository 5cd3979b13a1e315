//! A state that is saved while the log goes on, and restored with any number of shards, is the state
//! that it was: whatever follows, nobody can tell that it was restored.
//!
//! A short run by default. A long one is `SELLABLE_MODEL_CASES=100000 cargo test --release --test
//! models checkpoint:: -- --nocapture`. A failure prints the shrunk log and the command that runs it
//! again.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sellable::{
    bench::Pipeline,
    checkpoint::{Meta, Totals, format::Contents},
    domain::{
        admission::Horizon,
        exceptions::Open,
        reconcile::{AsOf, Chunk, Compared},
    },
    instance::Options,
    intake::{CommandReceipt, Parked},
    log::{Anchor, Entry, Lane, MediaType},
    proto::v1 as pb,
    shard::Audit,
};

use crate::model::{
    OCCURRED_US,
    bare::equal,
    cases::run,
    fact::Fact,
    generate::{LOCATIONS, SKUS, STEP_US, at_step},
    logs::{History, Step, history, record, rules},
};

/// Short, so that epochs pass and ids, commands and lines are forgotten.
const HORIZON: Horizon = Horizon {
    us: 4 * STEP_US,
    ids_max: 200_000_000,
};

fn options(shards: u32) -> Options {
    Options {
        shards: shards as usize,
        horizon: HORIZON,
        lines_retain_us: HORIZON.us,
        parked_kept_max: 5,
        ..Options::default()
    }
}

/// What happens at one position.
#[derive(Debug, Clone)]
enum Happening {
    Entry(Lane, Bytes),
    Commands(Vec<pb::Command>),
    /// A person sees, releases or discards one of what is open or parked, drawn from this number.
    Resolve(u64),
}

fn facts(source: &str, facts: &[Fact]) -> Happening {
    let batch = pb::MovementBatch {
        version: 1,
        movements: facts.iter().map(Fact::proto).collect(),
    };
    let lane = Lane::Producer {
        source: source.into(),
        media_type: MediaType::Protobuf,
    };
    Happening::Entry(lane, batch.encode_to_vec().into())
}

const AUTHORITIES: [&str; 3] = [
    "",
    "[source.wms]\nmay = ['*']\n",
    "[source.wms]\nmay = ['received', 'reserved', 'shipped']\n[source.pos]\nmay = ['*']\n",
];

/// The log, with what the model's histories do not have: several sources, conflicts, what cannot
/// be read, source authority, and what people decide.
fn happenings(history: &History, random: &mut StdRng) -> Vec<(i64, Happening)> {
    let mut step = 0;
    let mut all = Vec::new();
    for next in &history.steps {
        match next {
            Step::Facts(list) => {
                let source = if random.random_ratio(1, 4) {
                    "pos"
                } else {
                    "wms"
                };
                all.push((step, facts(source, list)));
                if random.random_ratio(1, 4) {
                    let mut others = list.clone();
                    others.iter_mut().for_each(|fact| fact.quantity += 1);
                    all.push((step, facts(source, &others)));
                }
                if random.random_ratio(1, 4) {
                    all.push((step, facts(source, list)));
                }
            }
            Step::Commands(commands) => all.push((step, Happening::Commands(commands.clone()))),
            Step::Time(steps) => step += steps,
            Step::Rules(version) => {
                let put = pb::RulesPut {
                    toml: rules()[*version].toml(),
                    actor: "anna".into(),
                    ..pb::RulesPut::default()
                };
                let body = pb::record::Body::Rules(put);
                all.push((step, Happening::Entry(Lane::Record, record(body))));
            }
        }
        match random.random_range(0..12) {
            0 => {
                let toml = AUTHORITIES[random.random_range(0..AUTHORITIES.len())];
                let put = pb::AuthorityPut {
                    toml: toml.into(),
                    ..pb::AuthorityPut::default()
                };
                let body = pb::record::Body::Authority(put);
                all.push((step, Happening::Entry(Lane::Record, record(body))));
            }
            1 => {
                let lane = Lane::Producer {
                    source: "wms".into(),
                    media_type: MediaType::Json,
                };
                let text = format!("no movement, {}", random.random_range(0..3));
                all.push((step, Happening::Entry(lane, text.into())));
            }
            2 | 3 => all.push((step, Happening::Resolve(random.random()))),
            _ => {}
        }
    }
    all
}

/// A way through a log, and what it answered.
struct Way {
    pipeline: Pipeline,
    position: u64,
    answers: Vec<Vec<CommandReceipt>>,
}

impl Way {
    fn new(pipeline: Pipeline, position: u64) -> Self {
        Self {
            pipeline,
            position,
            answers: Vec::new(),
        }
    }

    fn take(&mut self, (step, happening): &(i64, Happening)) {
        self.position += 1;
        let (position, time_us) = (self.position, at_step(*step));
        let (lane, payload) = match happening {
            Happening::Entry(lane, payload) => (lane.clone(), payload.clone()),
            Happening::Commands(commands) => {
                let receipts = self.pipeline.decide(position, time_us, commands.clone());
                self.answers.push(receipts);
                return;
            }
            Happening::Resolve(number) => {
                let body = pb::record::Body::Resolve(self.resolve(*number));
                (Lane::Record, record(body))
            }
        };
        let entry = Entry {
            position,
            time_us,
            lane,
            payload,
        };
        let batch = self.pipeline.decode(vec![entry]).expect("of this version");
        self.pipeline.apply(batch);
    }

    fn resolve(&self, number: u64) -> pb::ResolveException {
        let (open, parked) = (self.open(), self.parked());
        let place = (number / 3) as usize;
        let mut resolve = pb::ResolveException {
            actor: "kim".into(),
            note: "seen".into(),
            resolution: pb::Resolution::Acknowledge.into(),
            ..pb::ResolveException::default()
        };
        if !parked.is_empty() && (number.is_multiple_of(2) || open.is_empty()) {
            let parked = &parked[place % parked.len()];
            resolve.exception = parked.exception_id().to_string();
            resolve.resolution = (1 + number % 3) as i32;
            resolve.original = parked.original.to_vec();
            resolve.source = parked.source.clone();
            resolve.content_type = parked.media_type.clone();
            resolve.disposition = pb::Disposition::Scrap.into();
        } else if !open.is_empty() {
            let open = &open[place % open.len()];
            resolve.exception = open.subject.about().id(open.kind).to_string();
        }
        resolve
    }

    fn open(&self) -> Vec<Open> {
        let mut open = self.pipeline.open_exceptions();
        open.sort_by_key(|open| open.subject.about().id(open.kind));
        open
    }

    fn parked(&self) -> Vec<Parked> {
        let page = self
            .pipeline
            .parked()
            .page(None, 1_000, usize::MAX, |_| true);
        page.into_iter().map(|(_, parked)| parked).collect()
    }

    /// Begins to save what there is now.
    fn begin(&mut self, file: &std::path::Path, step: i64) -> Audit {
        let audit = self.pipeline.audit();
        let meta = Meta {
            anchor: Anchor {
                position: self.position,
                hash: 0,
            },
            log_engine: "memory".into(),
            log_name: String::new(),
            log_created_us: 0,
            log_id: 0,
            time_us: at_step(step),
            taken_us: 0,
            version: String::new(),
            horizon: HORIZON,
            lines_retain_us: HORIZON.us,
            shards: 0,
        };
        self.pipeline.begin_checkpoint(file, meta);
        audit
    }
}

/// What the cells held at a moment, and what would be told of a snapshot of it; `None` if that is
/// too long ago.
fn books(way: &mut Way, us: i64) -> Option<Vec<Compared>> {
    let mut chunk = Chunk::default();
    for sku in SKUS {
        for at in LOCATIONS {
            let at = way.pipeline.location(at);
            chunk.push(sku, at, [Some(7), Some(0), None, Some(1)]);
        }
    }
    let as_of = AsOf {
        us,
        tolerance_us: 1_000_000,
        exact_source: None,
    };
    way.pipeline.compare(Arc::new(chunk), as_of)
}

/// Everything that can be seen of two of them is the same.
fn alike(left: &mut Way, right: &mut Way) -> Result<(), String> {
    equal("audit", &left.pipeline.audit(), &right.pipeline.audit())?;
    equal("open exceptions", &left.open(), &right.open())?;
    equal("parked", &left.parked(), &right.parked())?;
    let counts = |way: &Way| way.pipeline.parked().counts();
    equal("counts of parked", &counts(left), &counts(right))?;
    equal(
        "outcomes",
        &left.pipeline.outcomes(),
        &right.pipeline.outcomes(),
    )?;
    for before in [-1, 0, 2, 3, 6, 10] {
        let us = OCCURRED_US - before * 1_000_000;
        let books = [&mut *left, &mut *right].map(|way| books(way, us));
        equal(&format!("books as of {us}"), &books[0], &books[1])?;
    }
    let (left, right) = (left.pipeline.view(), right.pipeline.view());
    let sizes = |view: &sellable::shard::View| {
        let sizes = view.sizes();
        (sizes.skus, sizes.cells, sizes.order_lines, sizes.locations)
    };
    equal("sizes", &sizes(left), &sizes(right))?;
    equal("next timer", &left.next_timer_us(), &right.next_timer_us())?;
    let (left, right) = (left.read(), right.read());
    equal("position", &left.position, &right.position)?;
    equal("rules", &left.rules.version, &right.rules.version)?;
    for (channel, name) in left.rules.rules.channels() {
        equal("channel", &right.rules.rules.channel(name), &Some(channel))?;
        for sku in SKUS {
            let (l, r) = (left.explain(channel, sku), right.explain(channel, sku));
            equal(&format!("{sku} for {name}"), &l, &r)?;
        }
        let ats = |reading: &sellable::shard::Reading<'_>| {
            let mut all = Vec::new();
            reading.available(channel, SKUS.into_iter(), |_, ats| all.push(ats));
            all
        };
        equal(name, &ats(&left), &ats(&right))?;
    }
    Ok(())
}

fn check(history: &History) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(history.seed);
    let all = happenings(history, &mut random);
    let cut = random.random_range(0..=all.len());
    let (shards, others) = (random.random_range(1..4), random.random_range(1..5));
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("checkpoint");

    // It saves while it goes on: some slices after each step, or all of them at the end.
    let mut way = Way::new(Pipeline::with_options(&options(shards)), 0);
    all[..cut].iter().for_each(|next| way.take(next));
    let step = cut.checked_sub(1).map_or(0, |last| all[last].0);
    let at_cut = way.begin(&file, step);
    way.answers.clear();
    let (slices, mut more) = (random.random_range(0..60), true);
    for next in &all[cut..] {
        way.take(next);
        for _ in 0..slices {
            more = more && way.pipeline.save_slice();
        }
    }
    let finished = way.pipeline.finish_checkpoint();
    let (totals, bytes): (Totals, u64) = finished.map_err(|error| error.to_string())?;
    equal("digest of the file", &totals.digest, &at_cut.digest)?;
    equal("cells of the file", &totals.cells, &at_cut.cells)?;
    equal("lines of the file", &totals.lines, &at_cut.order_lines)?;

    let contents = Contents::open(&file).map_err(|error| error.to_string())?;
    equal("bytes", &contents.bytes, &bytes)?;
    let restored = Pipeline::restore(&contents, &options(others));
    let restored = restored.map_err(|error| format!("{shards} to {others} shards: {error}"))?;
    let mut other = Way::new(restored, cut as u64);
    equal("audit at the cut", &other.pipeline.audit(), &at_cut)?;
    all[cut..].iter().for_each(|next| other.take(next));
    equal("answers", &other.answers, &way.answers)?;
    if cut < all.len() {
        alike(&mut way, &mut other)?;
    }

    // Repeats are repeats, and commands are answered as they were.
    let end = all.last().map_or(0, |(step, _)| *step);
    for (_, next) in &all {
        if !matches!(next, Happening::Resolve(_)) {
            way.take(&(end, next.clone()));
            other.take(&(end, next.clone()));
        }
    }
    equal("answers again", &other.answers, &way.answers)?;
    alike(&mut way, &mut other)?;

    // And it can be saved and restored again, also once time has forgotten most of it.
    for later in [end, end + 20] {
        let tick = record(pb::record::Body::Tick(pb::Tick {}));
        let tick = (later, Happening::Entry(Lane::Record, tick));
        way.take(&tick);
        other.take(&tick);
        alike(&mut way, &mut other)?;
        other.begin(&file, later);
        let finished = other.pipeline.finish_checkpoint();
        finished.map_err(|error| error.to_string())?;
        let contents = Contents::open(&file).map_err(|error| error.to_string())?;
        let restored = Pipeline::restore(&contents, &options(shards));
        let restored = restored.map_err(|error| format!("again: {error}"))?;
        other = Way::new(restored, other.position);
        other.answers = way.answers.clone();
        alike(&mut way, &mut other)?;
    }
    Ok(())
}

#[test]
fn nobody_can_tell_that_it_was_restored() {
    run(
        "nobody_can_tell_that_it_was_restored",
        150,
        1,
        history,
        check,
    );
}
