//! Redis: a hash for each cell, a key for each id, and a script that reserves.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo, Pipeline, RedisResult,
    aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use rustix::process::Signal;

use crate::{
    load::Caller,
    process::{Process, find, tied},
    store::{CART_SKUS, CART_UNITS, Cell, Ids, LINES, LOCATIONS, REMEMBERED_S, Store, UNITS},
    support::{self, Random},
};

/// Commands sent at once to fill it.
const FILL_DEPTH: usize = 1_000;

/// `KEYS`: the cell, the id; `ARGV`: units, seconds for which the id is remembered. One command
/// claims the id and says whether it is new; only a refusal takes another one.
const RESERVE: &str = "
if not redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[2]) then
  return tonumber(redis.call('GET', KEYS[2]))
end
local cell = redis.call('HMGET', KEYS[1], 'good', 'reserved')
if cell[1] - cell[2] < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[2], '0', 'KEEPTTL')
  return 0
end
redis.call('HINCRBY', KEYS[1], 'reserved', ARGV[1])
return 1
";

/// `KEYS`: the id, then the cell of each line, one unit each; `ARGV`: seconds for which the id is
/// remembered, and whether the lines are. Each cell is read and written once, however many lines
/// name it.
const RESERVE_LINES: &str = "
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[1]) then
  return tonumber(redis.call('GET', KEYS[1]))
end
local wanted = {}
for at = 2, #KEYS do
  wanted[KEYS[at]] = (wanted[KEYS[at]] or 0) + 1
end
for key, units in pairs(wanted) do
  local cell = redis.call('HMGET', key, 'good', 'reserved')
  if cell[1] - cell[2] < units then
    redis.call('SET', KEYS[1], '0', 'KEEPTTL')
    return 0
  end
end
for key, units in pairs(wanted) do
  redis.call('HINCRBY', key, 'reserved', units)
end
if ARGV[2] == '1' then
  local lines = {}
  for at = 2, #KEYS do
    lines[#lines + 1] = at - 1
    lines[#lines + 1] = KEYS[at]
  end
  redis.call('HSET', 'lines:' .. KEYS[1], unpack(lines))
  redis.call('EXPIRE', 'lines:' .. KEYS[1], ARGV[1])
end
return 1
";

/// The server's program.
pub(crate) fn program() -> Option<PathBuf> {
    find("redis-server", &[])
}

/// What is given to the server beside its port and directory.
pub(crate) fn settings(appendfsync: &str) -> [String; 8] {
    // No rewriting of its log while it is measured, as it would with what is configured by
    // default: a favour.
    [
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        appendfsync,
        "--auto-aof-rewrite-percentage",
        "0",
    ]
    .map(String::from)
}

/// A running server.
pub(crate) struct Redis {
    _process: Process,
    client: Client,
    skus: usize,
    scripts: Scripts,
}

#[derive(Debug, Clone, Default)]
struct Scripts {
    reserve: String,
    reserve_lines: String,
}

impl Redis {
    /// Starts one whose directory is below `dir`.
    pub(crate) async fn start(name: &'static str, dir: &Path, settings: &[String]) -> Self {
        let dir = dir.join(name.replace([' ', ','], "-"));
        std::fs::create_dir(&dir).expect("a directory");
        let port = crate::program::free_port();
        let mut command: Command = tied(&program().expect("looked for before"), "KILL");
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
            .arg(&dir)
            .args(settings);
        let mut process = Process::start(name, &dir, Signal::KILL, command);
        let info = format!("redis://127.0.0.1:{port}").into_connection_info();
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = info.expect("an address").set_tcp_settings(tcp);
        let client = Client::open(info).expect("an address");
        let mut first = process.answer(async || connect(&client).await).await;
        let mut load = async |script| -> String {
            let mut command = redis::cmd("SCRIPT");
            let loaded = command.arg("LOAD").arg(script).query_async(&mut first);
            loaded.await.expect("a script")
        };
        let scripts = Scripts {
            reserve: load(RESERVE).await,
            reserve_lines: load(RESERVE_LINES).await,
        };
        Self {
            _process: process,
            client,
            skus: 0,
            scripts,
        }
    }

    /// Fills all cells of so many SKUs, and the sums that a team may keep beside them.
    pub(crate) async fn fill(&mut self, skus: usize) {
        self.skus = skus;
        let mut connection = connect(&self.client).await.expect("it answers");
        let cells: Vec<Cell> = Cell::all(skus).collect();
        for cells in cells.chunks(FILL_DEPTH) {
            let mut pipeline = redis::pipe();
            for cell in cells {
                let fields = [("good", UNITS), ("reserved", 0)];
                pipeline.hset_multiple(key(*cell), &fields).ignore();
            }
            send(&pipeline, &mut connection).await;
        }
        let numbers: Vec<usize> = (0..skus).collect();
        for numbers in numbers.chunks(FILL_DEPTH) {
            let mut pipeline = redis::pipe();
            for sku in numbers {
                pipeline
                    .set(sum_key(*sku), LOCATIONS as i64 * UNITS)
                    .ignore();
            }
            send(&pipeline, &mut connection).await;
        }
    }

    /// Stores over so many connections; more stores than connections share them.
    pub(crate) async fn stores(&self, stores: usize, connections: usize) -> Vec<RedisStore> {
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(connect(&self.client).await.expect("it answers"));
        }
        let store = |at: usize| RedisStore {
            connection: open[at % connections].clone(),
            scripts: self.scripts.clone(),
            skus: self.skus,
            keeps_lines: false,
        };
        (0..stores).map(store).collect()
    }

    /// Bytes that it uses for what `fill` puts in, as it counts itself; it holds nothing else.
    pub(crate) async fn used_by(&self, fill: impl AsyncFn(MultiplexedConnection)) -> u64 {
        let mut connection = connect(&self.client).await.expect("it answers");
        let emptied = redis::cmd("FLUSHALL").exec_async(&mut connection).await;
        emptied.expect("it is empty");
        let mut used = async || -> u64 {
            let mut command = redis::cmd("INFO");
            let info = command.arg("memory").query_async(&mut connection);
            let text: String = info.await.expect("it tells");
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("used_memory:"));
            line.expect("a line").parse().expect("a number")
        };
        let before = used().await;
        fill(connect(&self.client).await.expect("it answers")).await;
        used().await - before
    }
}

async fn connect(client: &Client) -> RedisResult<MultiplexedConnection> {
    // No other side has a timer for each call.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// Sends a pipeline of which only the success matters.
pub(crate) async fn send(pipeline: &Pipeline, connection: &mut MultiplexedConnection) {
    let sent = pipeline.query_async::<()>(connection);
    sent.await.expect("it is taken");
}

fn key(cell: Cell) -> String {
    let (sku, location) = cell.names();
    format!("cell:{sku}:{location}")
}

fn id_key(id: &str) -> String {
    format!("id:{id}")
}

fn sum_key(sku: usize) -> String {
    format!("ats:web:{}", support::sku(sku))
}

/// A connection, or a part in one.
pub(crate) struct RedisStore {
    connection: MultiplexedConnection,
    scripts: Scripts,
    skus: usize,
    keeps_lines: bool,
}

impl RedisStore {
    /// The same, but reservations of many lines keep them, so that one of them could be released.
    pub(crate) fn keeping_lines(self) -> Self {
        Self {
            keeps_lines: true,
            ..self
        }
    }

    fn reserve_command(&self, id: &str, cell: Cell, units: i64) -> redis::Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.scripts.reserve).arg(2);
        command.arg(key(cell)).arg(id_key(id));
        command.arg(units).arg(REMEMBERED_S);
        command
    }
}

impl Store for RedisStore {
    async fn reserve(&mut self, id: &str, cell: Cell, units: i64) -> bool {
        let command = self.reserve_command(id, cell, units);
        let granted: i64 = command
            .query_async(&mut self.connection)
            .await
            .expect("an answer");
        granted == 1
    }

    async fn reserve_lines(&mut self, id: &str, cells: &[Cell]) -> bool {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.scripts.reserve_lines);
        command.arg(1 + cells.len()).arg(id_key(id));
        for cell in cells {
            command.arg(key(*cell));
        }
        command.arg(REMEMBERED_S).arg(i32::from(self.keeps_lines));
        let granted: i64 = command
            .query_async(&mut self.connection)
            .await
            .expect("an answer");
        granted == 1
    }

    async fn cart(&mut self, skus: &[usize]) -> i64 {
        let mut pipeline = Pipeline::with_capacity(skus.len() * LOCATIONS);
        for sku in skus {
            for location in 0..LOCATIONS {
                let cell = Cell {
                    sku: *sku,
                    location,
                };
                let mut command = redis::cmd("HMGET");
                command.arg(key(cell)).arg("good").arg("reserved");
                pipeline.add_command(command);
            }
        }
        let cells = pipeline.query_async(&mut self.connection);
        let cells: Vec<(i64, i64)> = cells.await.expect("an answer");
        cells.iter().map(|(good, reserved)| good - reserved).sum()
    }

    async fn reserved(&mut self) -> i64 {
        let cells: Vec<Cell> = Cell::all(self.skus).collect();
        let mut reserved = 0;
        for cells in cells.chunks(FILL_DEPTH) {
            let mut pipeline = redis::pipe();
            for cell in cells {
                pipeline.hget(key(*cell), "reserved");
            }
            let units = pipeline.query_async(&mut self.connection);
            let units: Vec<i64> = units.await.expect("an answer");
            reserved += units.iter().sum::<i64>();
        }
        reserved
    }
}

/// Reserves one line a command, many commands at once, each with an id of its own.
pub(crate) struct Pipelined {
    store: RedisStore,
    ids: Ids,
}

impl Pipelined {
    /// As many callers as there are stores.
    pub(crate) fn callers(stores: Vec<RedisStore>, run: usize) -> Vec<Self> {
        let caller = |(at, store)| Self {
            store,
            ids: Ids::new(run, at),
        };
        stores.into_iter().enumerate().map(caller).collect()
    }
}

impl Caller for Pipelined {
    async fn call(&mut self) -> u64 {
        let mut pipeline = Pipeline::with_capacity(LINES);
        for _ in 0..LINES {
            let id = self.ids.next();
            pipeline.add_command(self.store.reserve_command(&id, Cell::HOT, 1));
        }
        let granted = pipeline.query_async(&mut self.store.connection);
        let granted: Vec<i64> = granted.await.expect("an answer");
        assert!(granted.iter().all(|granted| *granted == 1), "enough");
        LINES as u64
    }
}

/// Looks at carts by sums that somebody keeps up to date beside the cells.
pub(crate) struct KeptSums {
    store: RedisStore,
    random: Random,
}

impl KeptSums {
    /// As many callers as there are stores.
    pub(crate) fn callers(stores: Vec<RedisStore>) -> Vec<Self> {
        let caller = |(at, store)| Self {
            store,
            random: Random(at as u64 + 1),
        };
        stores.into_iter().enumerate().map(caller).collect()
    }
}

impl Caller for KeptSums {
    async fn call(&mut self) -> u64 {
        let mut command = redis::cmd("MGET");
        for _ in 0..CART_SKUS {
            command.arg(sum_key(self.random.below(self.store.skus)));
        }
        let sums = command.query_async(&mut self.store.connection);
        let sums: Vec<i64> = sums.await.expect("an answer");
        assert_eq!(sums.iter().sum::<i64>(), CART_UNITS, "nothing is reserved");
        1
    }
}

/// Bytes for a hash of a cell with its six balances, and for a remembered id, `count` of each.
pub(crate) async fn memory(dir: &Path, count: usize) -> (f64, f64) {
    let none = ["--save", "", "--appendonly", "no"].map(String::from);
    let redis = Redis::start("Redis for memory", dir, &none).await;
    let numbers: Vec<usize> = (0..count).collect();
    let fill = async |mut connection: MultiplexedConnection, key: &dyn Fn(&mut Pipeline, usize)| {
        for numbers in numbers.chunks(FILL_DEPTH) {
            let mut pipeline = redis::pipe();
            for number in numbers {
                key(&mut pipeline, *number);
            }
            send(&pipeline, &mut connection).await;
        }
    };
    let cells = redis.used_by(async |connection| {
        let set = |pipeline: &mut Pipeline, number: usize| {
            let cell = Cell {
                sku: number / LOCATIONS,
                location: number % LOCATIONS,
            };
            let fields = [
                ("good", 100),
                ("reserved", 0),
                ("in_transit", 0),
                ("quarantined", 0),
                ("damaged", 0),
                ("return_pending", 0),
            ];
            pipeline.hset_multiple(self::key(cell), &fields).ignore();
        };
        fill(connection, &set).await;
    });
    let cells = cells.await;
    let ids = redis.used_by(async |connection| {
        let set = |pipeline: &mut Pipeline, number: usize| {
            let id = format!("0198c5f2-7d1e-7a31-9c40-{number:012}");
            pipeline.set_ex(id_key(&id), 1, REMEMBERED_S).ignore();
        };
        fill(connection, &set).await;
    });
    let ids = ids.await;
    let each = |bytes: u64| bytes as f64 / count as f64;
    (each(cells), each(ids))
}
