//! What the benchmarks share: rounds in turn, tables, the machine, and a retailer's movements.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::{fmt::Write as _, fs, hint::black_box, time::Duration};

use bytes::Bytes;
use prost::Message;
use sellable::{
    log::{Entry, Lane, MediaType},
    proto::v1 as pb,
};

/// Three channels, of which each sells from another part of the locations.
pub(crate) const RULES: &str = include_str!("../../examples/rules.toml");
/// The channels of [`RULES`].
pub(crate) const CHANNELS: [&str; 3] = ["web", "app", "marketplace"];

/// True if this is to run as a benchmark: `cargo test --all-targets` starts benchmarks, too, and
/// without the flag that `cargo bench` gives.
pub(crate) fn is_bench() -> bool {
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    if !is_bench {
        println!("a benchmark; run it with `cargo bench`");
    }
    is_bench
}

/// The number behind `--name`, or in `SELLABLE_BENCH_NAME`, or `default`.
///
/// # Panics
/// If it is not a number.
pub(crate) fn size(name: &str, default: usize) -> usize {
    let flag = format!("--{name}");
    let variable = format!(
        "SELLABLE_BENCH_{}",
        name.to_ascii_uppercase().replace('-', "_")
    );
    let text = std::env::args()
        .skip_while(|arg| *arg != flag)
        .nth(1)
        .or_else(|| std::env::var(variable).ok());
    text.map_or(default, |text| {
        text.replace('_', "")
            .parse()
            .unwrap_or_else(|_| panic!("{flag} {text}: not a number"))
    })
}

/// Prints what this is, on which machine, and when.
pub(crate) fn introduce(what: &str) {
    let first_line_of = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key));
        line.map_or_else(String::new, |line| {
            line.rsplit(':').next().unwrap_or_default().trim().into()
        })
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("# {what}");
    println!(
        "{}, {cores} cores, kernel {}, load {}, {}",
        first_line_of("/proc/cpuinfo", "model name"),
        first_line_of("/proc/sys/kernel/osrelease", ""),
        first_line_of("/proc/loadavg", ""),
        jiff::Zoned::now().strftime("%Y-%m-%d %H:%M %Z"),
    );
    println!();
}

/// What is to be reached: ours against the other side.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// The ratio is at least this.
    AtLeast(f64),
    /// The ratio, or the figure, is at most this.
    AtMost(f64),
    /// Only for orientation.
    None,
}

impl Goal {
    /// Whether `figure` reaches it, in a word.
    pub(crate) fn verdict(self, figure: f64) -> &'static str {
        match self {
            Goal::AtLeast(least) if figure < least => "short",
            Goal::AtMost(most) if figure > most => "short",
            Goal::None => "",
            _ => "pass",
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Goal::AtLeast(least) => f.pad(&format!(">= {least:.2}")),
            Goal::AtMost(most) => f.pad(&format!("<= {most:.2}")),
            Goal::None => f.pad(""),
        }
    }
}

/// Figures of two sides, a pair for each round.
#[derive(Debug, Default, Clone)]
pub(crate) struct Rounds {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Rounds {
    /// Runs both sides in turn, the first one first and the second one first alternately, so
    /// that a noisy machine harms both alike.
    pub(crate) fn alternate(
        rounds: usize,
        mut ours: impl FnMut() -> f64,
        mut theirs: impl FnMut() -> f64,
    ) -> Self {
        let mut figures = Self::default();
        for round in 0..rounds {
            if round % 2 == 0 {
                figures.ours.push(ours());
                figures.theirs.push(theirs());
            } else {
                figures.theirs.push(theirs());
                figures.ours.push(ours());
            }
        }
        figures
    }

    /// Adds the figures of one round.
    pub(crate) fn push(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    /// The figures of one round: ours, then theirs.
    pub(crate) fn round(&self, at: usize) -> (f64, f64) {
        (self.ours[at], self.theirs[at])
    }

    /// Ours divided by theirs: lowest, median and highest of the rounds.
    pub(crate) fn ratio(&self) -> (f64, f64, f64) {
        let mut ratios: Vec<f64> = self
            .ours
            .iter()
            .zip(&self.theirs)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        ratios.sort_by(f64::total_cmp);
        (ratios[0], median(&ratios), ratios[ratios.len() - 1])
    }

    /// Our median.
    pub(crate) fn ours(&self) -> f64 {
        median(&self.ours)
    }

    /// Their median.
    pub(crate) fn theirs(&self) -> f64 {
        median(&self.theirs)
    }
}

/// The middle one.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Prints the head of a table of comparisons.
pub(crate) fn head(what: &str, unit: &str) {
    println!("| {what}, {unit} | ours | against | | ratio | min to max | goal | |");
    println!("|---|---:|---|---:|---:|---:|---:|---|");
}

/// Prints one comparison.
pub(crate) fn row(what: &str, against: &str, rounds: &Rounds, goal: Goal) {
    let (low, middle, high) = rounds.ratio();
    println!(
        "| {what} | {} | {against} | {} | **{middle:.2}** | {low:.2} to {high:.2} | {goal} | {} |",
        figure(rounds.ours()),
        figure(rounds.theirs()),
        goal.verdict(middle)
    );
}

/// A figure with as many digits as mean something.
pub(crate) fn figure(value: f64) -> String {
    if value.abs() < 1_000.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Processor time that this thread has taken: what other programs on the machine take meanwhile
/// does not count, only what they do to the caches.
pub(crate) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Nanoseconds of this thread since `start`, for each of `count`.
pub(crate) fn ns_each(start: Duration, count: usize) -> f64 {
    (thread_time() - start).as_nanos() as f64 / count as f64
}

/// Calls a second.
pub(crate) fn per_second(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

/// Resident memory of this process, in bytes.
///
/// # Panics
/// If the system does not say.
pub(crate) fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux says it");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("resident memory");
    let kib = line.trim().trim_end_matches(" kB").parse::<usize>();
    kib.expect("a number of KiB") << 10
}

/// A small generator of random numbers, the same in every run (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub u64);

impl Random {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// Brings `items` into a random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The floor under all that touches memory at random: read-modify-writes of one cache line among
/// many, of which each says where the next one is.
pub(crate) struct Misses {
    lines: Vec<Line>,
    at: usize,
}

#[repr(align(64))]
#[derive(Clone)]
struct Line([u64; 8]);

impl Misses {
    /// Among as many cache lines.
    pub(crate) fn among(lines: usize) -> Self {
        let mut random = Random(7);
        let line = |_| Line([random.next(), 0, 0, 0, 0, 0, 0, 0]);
        Self {
            lines: (0..lines).map(line).collect(),
            at: 0,
        }
    }

    /// Nanoseconds for one, over `count` of them.
    pub(crate) fn ns(&mut self, count: usize) -> f64 {
        let start = thread_time();
        for _ in 0..count {
            let lines = self.lines.len() as u128;
            let line = &mut self.lines[self.at].0;
            line[1] += 1;
            // What is there says where to go next; what was written is part of it, so that it
            // cannot be known before, and the way never closes to a short circle.
            let next = mix(line[0] ^ line[1]);
            self.at = ((u128::from(next) * lines) >> 64) as usize;
        }
        black_box(self.at);
        ns_each(start, count)
    }
}

/// Name of a SKU.
pub(crate) fn sku(number: usize) -> String {
    format!("04012{number:08}")
}

/// Name of a location: two distribution centres, then stores.
pub(crate) fn location(number: usize) -> String {
    match number {
        0 => "dc-east".into(),
        1 => "dc-west".into(),
        _ => format!("store-{:03}", number - 1),
    }
}

/// Time of all that happens in benchmarks.
pub(crate) const NOW_US: i64 = 1_795_168_800_000_000;

/// A movement.
pub(crate) fn movement(
    id: u64,
    sku: String,
    quantity: i64,
    kind: pb::movement::Kind,
) -> pb::Movement {
    let mut text = String::with_capacity(36);
    write!(text, "0198c5f2-7d1e-7a31-9c40-{id:012}").expect("text takes text");
    pb::Movement {
        id: text,
        source: "wms".into(),
        occurred_at: Some(prost_types::Timestamp {
            seconds: NOW_US / 1_000_000,
            nanos: 123_456_000,
        }),
        sku,
        quantity,
        kind: Some(kind),
        ..pb::Movement::default()
    }
}

/// Units that come in.
pub(crate) fn received(id: u64, sku: String, quantity: i64, location: String) -> pb::Movement {
    let kind = pb::movement::Kind::Received(pb::Received {
        location,
        condition: pb::Condition::Good.into(),
        ..pb::Received::default()
    });
    movement(id, sku, quantity, kind)
}

/// What a producer publishes.
pub(crate) fn encode(movements: Vec<pb::Movement>) -> Bytes {
    let batch = pb::MovementBatch {
        version: 1,
        movements,
    };
    batch.encode_to_vec().into()
}

/// A producer that says what it publishes.
pub(crate) fn producer() -> Lane {
    Lane::Producer {
        source: "wms".into(),
        media_type: MediaType::Protobuf,
    }
}

/// Rules as a record of the log.
pub(crate) fn rules_record(toml: &str) -> Bytes {
    let put = pb::RulesPut {
        toml: toml.into(),
        ..pb::RulesPut::default()
    };
    let record = pb::Record {
        version: 1,
        instance: 0,
        token: 0,
        body: Some(pb::record::Body::Rules(put)),
    };
    record.encode_to_vec().into()
}

/// Gives entries their places in a log.
#[derive(Debug, Default)]
pub(crate) struct Positions(u64);

impl Positions {
    /// The next entry, with `payload`.
    pub(crate) fn entry(&mut self, lane: Lane, payload: Bytes) -> Entry {
        self.0 += 1;
        Entry {
            position: self.0,
            time_us: NOW_US,
            lane,
            payload,
        }
    }
}

/// A mix of movements over many cells, in which every one goes to a cell at random: what is
/// touched is rarely in the cache.
#[derive(Debug)]
pub(crate) struct Mix {
    random: Random,
    skus: usize,
    locations: usize,
    next_id: u64,
    next_order: u64,
    /// Lines that were reserved and not yet shipped, and of what.
    open: std::collections::VecDeque<(u64, usize, usize)>,
    /// Lines that stay open, so that what is shipped has left the cache.
    open_min: usize,
    recent: Vec<pb::Movement>,
}

impl Mix {
    /// Over so many SKUs at so many locations each; ids from `first_id` on.
    pub(crate) fn new(skus: usize, locations: usize, first_id: u64, open_min: usize) -> Self {
        Self {
            random: Random(11),
            skus,
            locations,
            next_id: first_id,
            next_order: 0,
            open: std::collections::VecDeque::new(),
            open_min,
            recent: Vec::new(),
        }
    }

    /// A reservation, which opens an order line.
    pub(crate) fn reserved(&mut self) -> pb::Movement {
        let (at_sku, at) = self.cell();
        self.next_order += 1;
        self.open.push_back((self.next_order, at_sku, at));
        let kind = pb::movement::Kind::Reserved(pb::Reserved {
            order: order(self.next_order),
            line: "1".into(),
            location: location(at),
            channel: "web".into(),
            expires_at: None,
        });
        self.with_id(at_sku, 1, kind)
    }

    /// The next movement: 2 % repeats, and of the others 30 % received, 15 % issued, 10 %
    /// adjusted, 5 % reclassified, 20 % reserved, 20 % shipped.
    pub(crate) fn next(&mut self) -> pb::Movement {
        use pb::movement::Kind;
        if self.random.below(100) < 2 && !self.recent.is_empty() {
            return self.recent[self.random.below(self.recent.len())].clone();
        }
        let choice = self.random.below(100);
        let quantity = 1 + self.random.below(9) as i64;
        let (at_sku, at) = self.cell();
        let movement = match choice {
            0..30 => {
                self.next_id += 1;
                received(self.next_id, sku(at_sku), quantity, location(at))
            }
            30..45 => {
                let kind = Kind::Issued(pb::Issued {
                    location: location(at),
                    condition: pb::Condition::Good.into(),
                    reason: pb::IssueReason::Sale.into(),
                });
                self.with_id(at_sku, quantity, kind)
            }
            45..55 => {
                let kind = Kind::Adjusted(pb::Adjusted {
                    location: location(at),
                    condition: pb::Condition::Good.into(),
                    reason: "cycle count".into(),
                });
                let sign = if choice.is_multiple_of(2) { 1 } else { -1 };
                self.with_id(at_sku, sign * quantity, kind)
            }
            55..60 => {
                let kind = Kind::Reclassified(pb::Reclassified {
                    location: location(at),
                    from: pb::Condition::Good.into(),
                    to: pb::Condition::Damaged.into(),
                });
                self.with_id(at_sku, quantity, kind)
            }
            60..80 => self.reserved(),
            _ if self.open.len() <= self.open_min => self.reserved(),
            _ => {
                let (number, at_sku, at) = self.open.pop_front().expect("some are open");
                let kind = Kind::Shipped(pb::Shipped {
                    order: order(number),
                    line: "1".into(),
                    location: location(at),
                });
                self.with_id(at_sku, 1, kind)
            }
        };
        if self.recent.len() < 10_000 {
            self.recent.push(movement.clone());
        } else {
            let at = self.random.below(self.recent.len());
            self.recent[at].clone_from(&movement);
        }
        movement
    }

    fn with_id(&mut self, at_sku: usize, quantity: i64, kind: pb::movement::Kind) -> pb::Movement {
        self.next_id += 1;
        movement(self.next_id, sku(at_sku), quantity, kind)
    }

    fn cell(&mut self) -> (usize, usize) {
        (
            self.random.below(self.skus),
            self.random.below(self.locations),
        )
    }
}

fn order(number: u64) -> String {
    format!("ORD-2026-{number:09}")
}
