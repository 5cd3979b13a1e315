//! PostgreSQL: a row for each cell, a row for each id, and a function that reserves.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::Signal;
use tokio_postgres::{Client, Config, NoTls, Statement};

use crate::{
    process::{POSTGRES_USER, Process, find, is_root, tied_unprivileged},
    store::{Cell, Store, UNITS},
    support,
};

/// Half of each page of cells is left free, so that an update finds room beside the row and needs
/// no new index entry. Ids and their answers are kept, as those of the others are.
const SCHEMA: &str = "
CREATE TABLE cell (
  sku text, location text, good bigint NOT NULL, reserved bigint NOT NULL,
  PRIMARY KEY (sku, location)
) WITH (fillfactor = 50);
CREATE TABLE reservation (id text PRIMARY KEY, granted boolean NOT NULL);

CREATE FUNCTION reserve(new_id text, in_sku text, at text, units bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO reservation VALUES (new_id, true) ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    RETURN (SELECT granted FROM reservation WHERE id = new_id);
  END IF;
  UPDATE cell SET reserved = reserved + units
    WHERE sku = in_sku AND location = at AND good - reserved >= units;
  IF NOT FOUND THEN
    UPDATE reservation SET granted = false WHERE id = new_id;
    RETURN false;
  END IF;
  RETURN true;
END $$;

CREATE FUNCTION reserve_lines(new_id text, skus text[], locations text[]) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  cells bigint;
  covered bigint;
BEGIN
  INSERT INTO reservation VALUES (new_id, true) ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    RETURN (SELECT granted FROM reservation WHERE id = new_id);
  END IF;
  SELECT count(*) INTO cells
    FROM (SELECT DISTINCT * FROM unnest(skus, locations)) AS named;
  -- Locked in one order, so that two reservations never wait for each other.
  SELECT count(*) INTO covered FROM (
    SELECT FROM cell JOIN (
      SELECT sku, location, count(*) AS units
        FROM unnest(skus, locations) AS line (sku, location) GROUP BY sku, location
    ) AS wanted USING (sku, location)
    WHERE good - reserved >= wanted.units
    ORDER BY sku, location FOR UPDATE OF cell
  ) AS locked;
  IF covered < cells THEN
    UPDATE reservation SET granted = false WHERE id = new_id;
    RETURN false;
  END IF;
  UPDATE cell SET reserved = reserved + wanted.units FROM (
    SELECT sku, location, count(*) AS units
      FROM unnest(skus, locations) AS line (sku, location) GROUP BY sku, location
  ) AS wanted WHERE cell.sku = wanted.sku AND cell.location = wanted.location;
  RETURN true;
END $$;
";

const RESERVE: &str = "SELECT reserve($1, $2, $3, $4)";
const RESERVE_LINES: &str = "SELECT reserve_lines($1, $2, $3)";
/// A sum of whole numbers is a `numeric` otherwise.
const CART: &str =
    "SELECT sku, sum(good - reserved)::bigint FROM cell WHERE sku = ANY($1) GROUP BY sku";
const RESERVED: &str = "SELECT sum(reserved)::bigint FROM cell";

/// What is given to the server beside its port and directory: durable as by default, with memory
/// for all that is measured, and without checkpoints meanwhile.
pub(crate) const SETTINGS: [&str; 8] = [
    "synchronous_commit=on",
    "fsync=on",
    "shared_buffers=512MB",
    "max_wal_size=8GB",
    "checkpoint_timeout=30min",
    "max_connections=500",
    "unix_socket_directories=",
    "listen_addresses=127.0.0.1",
];

/// The server's program, or that of `name` beside it. Debian keeps them off the `PATH`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut dirs: Vec<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    // The newest first.
    dirs.sort();
    dirs.reverse();
    find(name, &dirs)
}

/// A running server.
pub(crate) struct Postgres {
    _process: Process,
    config: Config,
}

impl Postgres {
    /// Makes a database below `dir` and starts a server on it.
    pub(crate) async fn start(dir: &Path) -> Self {
        let [initdb, server] = ["initdb", "postgres"].map(|name| program(name).expect("there"));
        if is_root() {
            eprintln!("PostgreSQL refuses to be run by root: it is run by {POSTGRES_USER}");
        }
        let data = dir.join("PostgreSQL");
        let made = tied_unprivileged(&initdb, "KILL")
            .arg("-D")
            .arg(&data)
            .args(["--username=bench", "--auth=trust", "--no-locale"])
            .args(["--encoding=UTF8"])
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("initdb.log")).expect("a log file"))
            .status();
        let made = made.expect("initdb can be run");
        let said = || fs::read_to_string(dir.join("initdb.log")).unwrap_or_default();
        assert!(made.success(), "initdb ended with {made}: {}", said());
        let port = crate::program::free_port();
        let mut command = tied_unprivileged(&server, "QUIT");
        command.args(["-p", &port.to_string(), "-D"]).arg(&data);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        let mut process = Process::start("PostgreSQL", dir, Signal::QUIT, command);
        let mut config = Config::new();
        config.host("127.0.0.1").port(port);
        config.user("bench").dbname("postgres");
        let client = process.answer(async || connect(&config).await).await;
        client.batch_execute(SCHEMA).await.expect("a schema");
        Self {
            _process: process,
            config,
        }
    }

    /// Fills all cells of so many SKUs.
    pub(crate) async fn fill(&self, skus: usize) {
        let client = connect(&self.config).await.expect("it answers");
        let cells = Cell::all(skus).map(Cell::names);
        let (skus, locations): (Vec<String>, Vec<String>) = cells.unzip();
        let insert = "INSERT INTO cell SELECT sku, location, $3::bigint, 0 \
                      FROM unnest($1::text[], $2::text[]) AS cell (sku, location)";
        let filled = client.execute(insert, &[&skus, &locations, &UNITS]).await;
        filled.expect("it is filled");
        let analyzed = client.batch_execute("VACUUM ANALYZE");
        analyzed.await.expect("it is analyzed");
    }

    /// As many stores, each with a connection of its own.
    pub(crate) async fn stores(&self, stores: usize) -> Vec<PostgresStore> {
        let mut all = Vec::new();
        for _ in 0..stores {
            let client = connect(&self.config).await.expect("it answers");
            let prepare = async |text| client.prepare(text).await.expect("it is prepared");
            all.push(PostgresStore {
                reserve: prepare(RESERVE).await,
                reserve_lines: prepare(RESERVE_LINES).await,
                cart: prepare(CART).await,
                client,
            });
        }
        all
    }
}

async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A connection with its prepared statements.
pub(crate) struct PostgresStore {
    client: Client,
    reserve: Statement,
    reserve_lines: Statement,
    cart: Statement,
}

impl Store for PostgresStore {
    async fn reserve(&mut self, id: &str, cell: Cell, units: i64) -> bool {
        let (sku, location) = cell.names();
        let row = self
            .client
            .query_one(&self.reserve, &[&id, &sku, &location, &units])
            .await;
        row.expect("an answer").get(0)
    }

    async fn reserve_lines(&mut self, id: &str, cells: &[Cell]) -> bool {
        let names = cells.iter().map(|cell| cell.names());
        let (skus, locations): (Vec<String>, Vec<String>) = names.unzip();
        let row = self
            .client
            .query_one(&self.reserve_lines, &[&id, &skus, &locations])
            .await;
        row.expect("an answer").get(0)
    }

    async fn cart(&mut self, skus: &[usize]) -> i64 {
        let mut asked: Vec<String> = skus.iter().map(|sku| support::sku(*sku)).collect();
        let rows = self.client.query(&self.cart, &[&asked]).await;
        let rows = rows.expect("an answer");
        let mut units = 0;
        for row in &rows {
            let (sku, free): (&str, i64) = (row.get(0), row.get(1));
            // One answer for a SKU that is asked for twice.
            let before = asked.len();
            asked.retain(|asked| asked != sku);
            units += free * (before - asked.len()) as i64;
        }
        units
    }

    async fn reserved(&mut self) -> i64 {
        let row = self.client.query_one(RESERVED, &[]);
        row.await.expect("an answer").get(0)
    }
}
