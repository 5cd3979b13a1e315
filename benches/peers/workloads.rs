//! What all sides are asked for, and what is compared with what.

use std::path::Path;

use crate::{
    load::{Load, Side},
    ours::{Ours, Streamed},
    postgres::Postgres,
    redis::{self, KeptSums, Pipelined, Redis, RedisStore},
    report::{Memory, Section},
    store::{Carts, LINES, ManyLines, OneLine, Store, check},
    support::Goal,
};

const OURS: &str = "Sellable, synced";
const OURS_STREAMED: &str = "Sellable, synced, 4 streams";
const OURS_EACH: &str = "Sellable, synced, a connection each";
const OURS_UNSYNCED: &str = "Sellable, not synced";
const OURS_UNSYNCED_STREAMED: &str = "Sellable, not synced, 4 streams";
const EMPTY: &str = "empty handler";
const EMPTY_STREAMED: &str = "empty handler, 4 streams";
const REDIS: &str = "Redis, AOF always";
const REDIS_SHARED: &str = "Redis, AOF always, 4 connections";
const REDIS_EVERYSEC: &str = "Redis, AOF everysec";
const REDIS_EVERYSEC_SHARED: &str = "Redis, AOF everysec, 4 connections";
const POSTGRES: &str = "PostgreSQL";

/// Cells, and ids, whose memory is measured.
const MEMORY_COUNT: usize = 1_000_000;
/// Connections of callers that share them.
const SHARED: usize = 4;

/// All that are compared, each with the same stock.
pub(crate) struct Servers {
    skus: usize,
    ours: Ours,
    ours_unsynced: Ours,
    empty: Ours,
    redis: Redis,
    redis_everysec: Redis,
    postgres: Postgres,
}

impl Servers {
    /// Starts, fills and checks them.
    pub(crate) async fn start(dir: &Path, skus: usize) -> Self {
        let settings = redis::settings("always");
        let settings_everysec = redis::settings("everysec");
        let mut servers = Self {
            skus,
            ours: Ours::start(OURS, dir, "always").await,
            ours_unsynced: Ours::start(OURS_UNSYNCED, dir, "os").await,
            empty: Ours::start_empty(dir).await,
            redis: Redis::start(REDIS, dir, &settings).await,
            redis_everysec: Redis::start(REDIS_EVERYSEC, dir, &settings_everysec).await,
            postgres: Postgres::start(dir).await,
        };
        // One more, for checks: nobody else asks for it.
        let all = skus + 1;
        for ours in [&mut servers.ours, &mut servers.ours_unsynced] {
            eprintln!("filling Sellable");
            ours.fill(all).await;
            check("Sellable", &mut ours.stores(1, 1).await.remove(0), skus).await;
        }
        for redis in [&mut servers.redis, &mut servers.redis_everysec] {
            eprintln!("filling Redis");
            redis.fill(all).await;
            check("Redis", &mut redis.stores(1, 1).await.remove(0), skus).await;
        }
        eprintln!("filling PostgreSQL");
        servers.postgres.fill(all).await;
        let mut store = servers.postgres.stores(1).await.remove(0);
        check(POSTGRES, &mut store, skus).await;
        servers
    }
}

/// Carts. They come first: what may be sold is known as long as nothing is reserved.
pub(crate) fn carts(servers: &Servers, load: &Load<'_>, callers: usize) -> Section {
    const PIPELINED: &str = "Redis, pipelined HMGET of 100 hashes";
    const PIPELINED_SHARED: &str = "Redis, pipelined HMGET, 4 connections";
    const SUMS: &str = "Redis, MGET of 10 sums kept by hand";
    const SUMS_SHARED: &str = "Redis, MGET of 10 sums, 4 connections";
    const SELLABLE: &str = "Sellable";
    const SELLABLE_EACH: &str = "Sellable, a connection each";
    let skus = servers.skus;
    let runtime = load.runtime;
    let ours = |connections| {
        let stores = runtime.block_on(servers.ours.stores(callers, connections));
        Carts::callers(stores, skus)
    };
    let redis = |connections| runtime.block_on(servers.redis.stores(callers, connections));
    let postgres = runtime.block_on(servers.postgres.stores(callers));
    let sides = vec![
        load.side(SELLABLE, ours(SHARED)),
        load.side(SELLABLE_EACH, ours(callers)),
        load.side(PIPELINED, Carts::callers(redis(callers), skus)),
        load.side(PIPELINED_SHARED, Carts::callers(redis(SHARED), skus)),
        load.side(SUMS, KeptSums::callers(redis(callers))),
        load.side(SUMS_SHARED, KeptSums::callers(redis(SHARED))),
        load.side(POSTGRES, Carts::callers(postgres, skus)),
    ];
    let measured = load.alternate("carts", sides);
    let title = format!("Carts of 10 SKUs at 10 locations, {callers} callers");
    Section::new(title, "carts/s", measured)
        .compare(SELLABLE, PIPELINED, Goal::AtLeast(5.0))
        .compare(SELLABLE_EACH, PIPELINED, Goal::None)
        .compare(SELLABLE, PIPELINED_SHARED, Goal::None)
        .compare(SELLABLE, SUMS, Goal::None)
        .compare(SELLABLE_EACH, SUMS, Goal::None)
        .compare(SELLABLE, SUMS_SHARED, Goal::None)
        .compare(SELLABLE, POSTGRES, Goal::None)
}

/// Reservations of one line, spread over all cells or all on one.
pub(crate) fn one_line(
    servers: &Servers,
    load: &Load<'_>,
    callers: usize,
    is_hot: bool,
) -> Section {
    let (spread, skus) = match is_hot {
        true => ("all on one cell", 1),
        false => ("spread over all cells", servers.skus),
    };
    // One store more than callers, to count with.
    let stores = callers + 1;
    let ours = |name, connections| {
        let stores = servers.ours.stores(stores, connections);
        lines_side(load, name, OURS, load.runtime.block_on(stores), skus)
    };
    let redis = |name, connections| {
        let stores = servers.redis.stores(stores, connections);
        lines_side(load, name, REDIS, load.runtime.block_on(stores), skus)
    };
    let runtime = load.runtime;
    let [unsynced, empty] = [(&servers.ours_unsynced, stores), (&servers.empty, callers)]
        .map(|(server, stores)| runtime.block_on(server.stores(stores, SHARED)));
    let [streamed, unsynced_streamed, empty_streamed] = [
        (&servers.ours, stores),
        (&servers.ours_unsynced, stores),
        (&servers.empty, callers),
    ]
    .map(|(server, stores)| runtime.block_on(server.streamed_stores(stores, SHARED)));
    let everysec = |connections| {
        let stores = servers.redis_everysec.stores(stores, connections);
        runtime.block_on(stores)
    };
    let postgres = runtime.block_on(servers.postgres.stores(stores));
    let sides = vec![
        ours(OURS, SHARED),
        lines_side(load, OURS_STREAMED, OURS, streamed, skus),
        ours(OURS_EACH, stores),
        lines_side(load, OURS_UNSYNCED, OURS_UNSYNCED, unsynced, skus),
        lines_side(
            load,
            OURS_UNSYNCED_STREAMED,
            OURS_UNSYNCED,
            unsynced_streamed,
            skus,
        ),
        load.side(EMPTY, OneLine::callers(empty, load.next_run(), skus)),
        load.side(
            EMPTY_STREAMED,
            OneLine::callers(empty_streamed, load.next_run(), skus),
        ),
        redis(REDIS, stores),
        redis(REDIS_SHARED, SHARED),
        lines_side(load, REDIS_EVERYSEC, REDIS_EVERYSEC, everysec(stores), skus),
        lines_side(
            load,
            REDIS_EVERYSEC_SHARED,
            REDIS_EVERYSEC,
            everysec(SHARED),
            skus,
        ),
        lines_side(load, POSTGRES, POSTGRES, postgres, skus),
    ];
    let what = format!("Reserve one line, {spread}, {callers} callers");
    let measured = load.alternate(&what, sides);
    let postgres = if is_hot {
        Goal::AtLeast(15.0)
    } else {
        Goal::None
    };
    Section::new(what, "reservations/s", measured)
        .compare(OURS, EMPTY, Goal::AtLeast(0.8))
        .compare(OURS, REDIS, Goal::AtLeast(1.5))
        .compare(OURS_STREAMED, EMPTY, Goal::AtLeast(0.8))
        .compare(OURS_STREAMED, REDIS, Goal::AtLeast(1.5))
        .compare(OURS_STREAMED, REDIS_SHARED, Goal::AtLeast(1.5))
        .compare(OURS_STREAMED, EMPTY_STREAMED, Goal::None)
        .compare(OURS_EACH, REDIS, Goal::None)
        .compare(OURS, REDIS_SHARED, Goal::None)
        .compare(OURS_UNSYNCED, REDIS_EVERYSEC, Goal::None)
        .compare(OURS_UNSYNCED_STREAMED, REDIS_EVERYSEC_SHARED, Goal::None)
        .compare(OURS, REDIS_EVERYSEC, Goal::None)
        .compare(OURS_STREAMED, REDIS_EVERYSEC_SHARED, Goal::None)
        .compare(OURS, POSTGRES, postgres)
}

/// A side whose last store counts what is reserved on `server`.
fn lines_side<'r, S: Store>(
    load: &Load<'r>,
    name: &'static str,
    server: &'static str,
    mut stores: Vec<S>,
    skus: usize,
) -> Side<'r> {
    let counter = stores.pop().expect("one more than callers");
    let callers = OneLine::callers(stores, load.next_run(), skus);
    counted(load, load.side(name, callers), server, counter)
}

fn counted<'r>(
    load: &Load<'r>,
    side: Side<'r>,
    server: &'static str,
    mut counter: impl Store,
) -> Side<'r> {
    let runtime = load.runtime;
    side.counted_by(server, move || runtime.block_on(counter.reserved()))
}

/// Reservations of 100 lines, all on one cell.
pub(crate) fn many_lines(servers: &Servers, load: &Load<'_>, callers: usize) -> Section {
    const STREAMED: &str = "Sellable, 100 of one line streamed";
    const PIPELINED: &str = "Redis, 100 calls of one line pipelined";
    const ONE_CALL: &str = "Redis, one call of 100 lines";
    const ONE_CALL_KEPT: &str = "Redis, one call of 100 lines, kept";
    const ONE_STATEMENT: &str = "PostgreSQL, one statement of 100 lines";
    let runtime = load.runtime;
    let ours = runtime.block_on(servers.ours.stores(callers, SHARED));
    let streamed = runtime.block_on(servers.ours.streamed_stores(callers, SHARED));
    let redis = || runtime.block_on(servers.redis.stores(callers, callers));
    let postgres = runtime.block_on(servers.postgres.stores(callers));
    // One store more, to count with, for each side.
    let our_counter = || runtime.block_on(servers.ours.stores(1, 1)).remove(0);
    let redis_counter = || runtime.block_on(servers.redis.stores(1, 1)).remove(0);
    let postgres_counter = runtime.block_on(servers.postgres.stores(1)).remove(0);
    let keeping = redis().into_iter().map(RedisStore::keeping_lines).collect();
    let ours = load.side(OURS, ManyLines::callers(ours, load.next_run()));
    let streamed = load.side(STREAMED, Streamed::callers(streamed, load.next_run()));
    let pipelined = load.side(PIPELINED, Pipelined::callers(redis(), load.next_run()));
    let one_call = load.side(ONE_CALL, ManyLines::callers(redis(), load.next_run()));
    let kept = load.side(ONE_CALL_KEPT, ManyLines::callers(keeping, load.next_run()));
    let postgres = ManyLines::callers(postgres, load.next_run());
    let postgres = load.side(ONE_STATEMENT, postgres);
    let sides = vec![
        counted(load, ours, OURS, our_counter()),
        counted(load, streamed, OURS, our_counter()),
        counted(load, pipelined, REDIS, redis_counter()),
        counted(load, one_call, REDIS, redis_counter()),
        counted(load, kept, REDIS, redis_counter()),
        counted(load, postgres, POSTGRES, postgres_counter),
    ];
    let what = format!("Reserve {LINES} lines a call, all on one cell, {callers} callers");
    let measured = load.alternate(&what, sides);
    Section::new(what, "lines/s", measured)
        .compare(OURS, PIPELINED, Goal::AtLeast(5.0))
        .compare(STREAMED, PIPELINED, Goal::None)
        .compare(OURS, ONE_CALL, Goal::None)
        .compare(OURS, ONE_CALL_KEPT, Goal::None)
        .compare(OURS, ONE_STATEMENT, Goal::None)
}

/// Bytes for a cell and for a remembered id. Ours are quoted from `benches/memory.rs`, as
/// `benches/README.md` has them; those of Redis are measured.
pub(crate) async fn memory(dir: &Path) -> Vec<Memory> {
    let (cell, id) = redis::memory(dir, MEMORY_COUNT).await;
    vec![
        Memory {
            what: "a cell with its balances, 1 M cells",
            ours: 94.0,
            peer: "Redis, a hash of six fields",
            theirs: cell,
            goal: 100.0,
        },
        Memory {
            what: "a remembered id, 1 M ids",
            ours: 23.7,
            peer: "Redis, a key that expires",
            theirs: id,
            goal: 24.0,
        },
    ]
}
