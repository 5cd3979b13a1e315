//! One writer and several readers at once: what a reader sees of one SKU belongs together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use arc_swap::ArcSwap;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::domain::balances::Loc;

/// Units of each SKU, wherever they lie, and however many are reserved.
const UNITS: i64 = 1_000_000_007;
const RESERVED: i64 = 501;
const SKUS: usize = 5;
const LOCATIONS: usize = 48;
const WRITES: u32 = 60_000;
const READERS: u64 = 3;

/// No channels, one, and four of them, of which one has overrides.
const DOCUMENTS: [&str; 3] = [
    "",
    "[channel.web]\nsources = ['*']\nbuffer = 1\n",
    "[channel.a]\nsources = ['L1*', 'L2']\n\
     [channel.b]\nsources = ['*']\nexclude = ['L?']\nbuffer_percent = 20\n\
     [channel.c]\nsources = ['*']\n\
     [channel.c.override.'S1*']\nbuffer = 3\nexclude = ['L7']\n\
     [channel.d]\nsources = ['L47', '*3']\nshare_percent = 50\n",
];

/// The `epoch`-th rules of this test.
fn rules_of(epoch: u32) -> Arc<RulesInForce> {
    let (rules, _) = Rules::parse(DOCUMENTS[epoch as usize % DOCUMENTS.len()]).expect("is valid");
    Arc::new(RulesInForce {
        epoch,
        rules: Arc::new(rules),
        ..RulesInForce::built_in()
    })
}

/// What one read of a block saw.
struct Seen {
    epoch: u32,
    overridden: bool,
    sums: Vec<i64>,
    cells: Vec<(Loc, Balances)>,
    net_in: i64,
}

fn see(block: &Block) -> Seen {
    block.read(|| Seen {
        epoch: block.rules_epoch(),
        overridden: block.overridden(),
        sums: (0..usize::from(block.shape().channels))
            .map(|at| block.sum(at))
            .collect(),
        cells: (0..block.cells())
            .map(|at| (block.location(at), block.balances(at)))
            .collect(),
        net_in: block.net_in(),
    })
}

fn check(seen: &Seen, name: &str, rules: &Rules, locations: &Locations) {
    assert!(
        seen.cells.is_sorted_by(|a, b| a.0 < b.0),
        "locations out of order, or twice"
    );
    let total = |account| seen.cells.iter().map(|(_, b)| b[account]).sum::<i64>();
    assert_eq!(
        total(Account::Good),
        seen.net_in,
        "half a movement of {name}"
    );
    assert!(
        seen.net_in == UNITS || seen.cells.is_empty(),
        "half a movement of {name}"
    );
    let reserved = total(Account::Reserved);
    assert!(
        reserved == RESERVED || seen.cells.is_empty(),
        "half a movement of {name}"
    );
    assert_eq!(seen.overridden, rules.has_overrides_for(name));
    assert!(seen.sums.len() >= rules.channel_count());
    for (channel, sum) in rules.channels().map(|(channel, _)| channel).zip(&seen.sums) {
        let policy = rules.policy(channel, name);
        let of_cell = |(at, b): &(Loc, Balances)| {
            let members = rules.memberships(locations.name(*at));
            let member = members.into_iter().find(|member| member.channel == channel);
            member.map_or(0, |m| {
                m.contribution(policy, b[Account::Good], b[Account::Reserved])
            })
        };
        let expected: i64 = seen.cells.iter().map(of_cell).sum();
        assert_eq!(*sum, expected, "the sum of {name} is not that of its cells");
    }
}

/// Moves units, claims, or both, from one location to another.
fn random_changes(random: &mut StdRng) -> Vec<CellChange> {
    let from = random.random_range(0..LOCATIONS);
    let to = (from + random.random_range(1..LOCATIONS)) % LOCATIONS;
    let by = Balances([
        match random.random_range(0..100) {
            // Needs more than 32 bits at once, or after a few of them.
            0 => random.random_range(-5_000_000_000..5_000_000_000i64),
            1..=3 => random.random_range(-1_000_000_000..1_000_000_000),
            _ => random.random_range(0..40),
        },
        0,
        0,
        0,
        random.random_range(-9..9),
        0,
        0,
    ]);
    let less = Balances(by.0.map(|units| -units));
    let change = |at: usize, by| CellChange {
        at: Loc(at as u32),
        by,
    };
    vec![change(from, less), change(to, by)]
}

#[test]
fn readers_see_whole_movements_while_blocks_and_rules_change() {
    let locations = Arc::new(Locations::default());
    for n in 0..LOCATIONS {
        assert_eq!(locations.number(&format!("L{n}")), Loc(n as u32));
    }
    let index = Arc::new(Index::new());
    let mut books = ShardBooks::new(Arc::clone(&index), Arc::clone(&locations), Arc::default());
    // Those in force for readers, and those before: a block may go by either, or by the next.
    let known = ArcSwap::from_pointee(vec![rules_of(0), rules_of(1)]);
    let (done, skus, reads) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));

    std::thread::scope(|scope| {
        let reader = |seed| {
            let (index, locations) = (&index, &locations);
            let (known, done, skus, reads) = (&known, &done, &skus, &reads);
            move || {
                let random = &mut StdRng::seed_from_u64(seed);
                let mut last = false;
                // Once more after the writer has finished.
                while !std::mem::replace(&mut last, done.load(SeqCst)) {
                    let guard = &epoch::pin();
                    for _ in 0..32 {
                        let sku = random.random_range(0..=skus.load(SeqCst));
                        let name = format!("S{sku}");
                        let Some(block) = index.get(SkuHash::of(&name), &name, guard) else {
                            continue;
                        };
                        assert_eq!(block.name(), name);
                        let seen = see(block);
                        let known = known.load();
                        let rules = known.iter().find(|rules| rules.epoch == seen.epoch);
                        // It may have become older than all that are known since it was read.
                        if let Some(rules) = rules {
                            check(&seen, &name, &rules.rules, locations);
                            reads.fetch_add(1, SeqCst);
                        }
                    }
                }
            }
        };
        for seed in 0..READERS {
            scope.spawn(reader(seed));
        }

        let random = &mut StdRng::seed_from_u64(7);
        for n in 0..WRITES {
            // Now and then a new SKU, so that tables grow; mostly one of a few.
            let new = n < SKUS as u32 || n % 8 == 0;
            let sku = match new {
                true => skus.load(SeqCst),
                false => random.random_range(0..SKUS as u64),
            };
            let name = format!("S{sku}");
            let hash = SkuHash::of(&name);
            if new {
                let mut by = Balances::of(Account::Good, UNITS);
                by[Account::Reserved] = RESERVED;
                let at = Loc(random.random_range(0..LOCATIONS as u32));
                books.post(hash, &name, &[CellChange { at, by }], UNITS, None);
                skus.fetch_add(1, SeqCst);
            } else {
                books.post(hash, &name, &random_changes(random), 0, None);
            }
            if n % 2_000 == 1_999 {
                let epoch = n / 2_000 + 1;
                let around = (epoch.saturating_sub(2)..epoch + 2).map(rules_of).collect();
                known.store(Arc::new(around));
                books.put_rules(rules_of(epoch));
            }
            if n % 16 == 0 {
                epoch::pin().flush();
            }
        }
        done.store(true, SeqCst);
    });

    assert!(reads.load(SeqCst) >= READERS, "the readers read");
    let audit = books.audit();
    assert_eq!(audit.conservation_violations, 0);
    assert_eq!(audit.units, UNITS * skus.load(SeqCst) as i64);
    // Every block went by the last rules.
    index.for_each(&epoch::pin(), |block| {
        assert_eq!(block.rules_epoch(), books.desk.rules.epoch);
        check(
            &see(block),
            block.name(),
            &books.desk.rules.rules,
            &locations,
        );
    });
    // The count of bytes is that of the blocks that are there.
    let mut bytes = 0;
    index.for_each(&epoch::pin(), |block| bytes += block.bytes() as u64);
    assert_eq!(books.desk.counts.block_bytes.load(Relaxed), bytes);
}
