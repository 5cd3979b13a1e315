//! What the embedded log costs against the least that durability can cost, and what the
//! well-kept embedded stores would cost in its place.
//!
//! Every engine sits behind the same queue and the same group commit: callers hand over a record
//! and wait; one thread takes whatever has gathered, appends it as a group, syncs once and
//! answers. The floor appends the bare bytes to one file, without a header or a checksum, and
//! calls `fdatasync`. Engines take turns within a round, so that a noisy machine disturbs all of
//! them alike; the median of the rounds is printed, with its ratio to the floor.
//!
//! `cargo bench --bench log_engines`; `SELLABLE_BENCH_DIR` chooses the disk,
//! `SELLABLE_BENCH_MS` the time per measurement.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use redb::ReadableDatabase;
use sellable::log::{
    Log,
    embedded::{EmbeddedLog, Options},
};
use tokio::sync::{mpsc, oneshot};

const ROUNDS: usize = 3;
const QUEUE_MAX: usize = 256;
const GROUP_MAX: usize = 256;
const TABLE: redb::TableDefinition<u64, &[u8]> = redb::TableDefinition::new("log");

/// A store that can append a group durably and read everything back.
trait Store: Send {
    fn append_group(&mut self, first: u64, group: &[Bytes]);
    fn read_all(&mut self) -> u64;
}

struct Floor {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
}

impl Floor {
    fn open(dir: &Path) -> Self {
        let path = dir.join("floor");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        Self {
            path,
            file,
            buffer: Vec::new(),
        }
    }
}

impl Store for Floor {
    fn append_group(&mut self, _first: u64, group: &[Bytes]) {
        self.buffer.clear();
        for record in group {
            self.buffer.extend_from_slice(record);
        }
        self.file.write_all(&self.buffer).unwrap();
        self.file.sync_data().unwrap();
    }

    fn read_all(&mut self) -> u64 {
        let mut file = File::open(&self.path).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            let read = file.read(&mut buffer).unwrap();
            if read == 0 {
                return bytes;
            }
            bytes += read as u64;
        }
    }
}

struct Fjall {
    database: fjall::Database,
    keyspace: fjall::Keyspace,
}

impl Fjall {
    fn open(dir: &Path) -> Self {
        let database = fjall::Database::builder(dir.join("fjall"))
            .journal_compression(fjall::CompressionType::None)
            .open()
            .unwrap();
        // Values of 1 KiB and more go to blob files, so that compaction does not copy them.
        let keyspace = database
            .keyspace("log", || {
                fjall::KeyspaceCreateOptions::default()
                    .with_kv_separation(Some(fjall::KvSeparationOptions::default()))
            })
            .unwrap();
        Self { database, keyspace }
    }
}

impl Store for Fjall {
    fn append_group(&mut self, first: u64, group: &[Bytes]) {
        let mut batch = self
            .database
            .batch()
            .durability(Some(fjall::PersistMode::SyncData));
        for (position, record) in (first..).zip(group) {
            batch.insert(&self.keyspace, position.to_be_bytes(), &record[..]);
        }
        batch.commit().unwrap();
    }

    fn read_all(&mut self) -> u64 {
        let mut bytes = 0;
        for guard in self.keyspace.iter() {
            bytes += guard.value().unwrap().len() as u64;
        }
        bytes
    }
}

struct Redb(redb::Database);

impl Redb {
    fn open(dir: &Path) -> Self {
        Self(redb::Database::create(dir.join("redb")).unwrap())
    }
}

impl Store for Redb {
    fn append_group(&mut self, first: u64, group: &[Bytes]) {
        // The default durability is immediate: synced when `commit` returns.
        let transaction = self.0.begin_write().unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            for (position, record) in (first..).zip(group) {
                table.insert(position, &record[..]).unwrap();
            }
        }
        transaction.commit().unwrap();
    }

    fn read_all(&mut self) -> u64 {
        let transaction = self.0.begin_read().unwrap();
        let table = transaction.open_table(TABLE).unwrap();
        let mut bytes = 0;
        for item in table.range::<u64>(..).unwrap() {
            bytes += item.unwrap().1.value().len() as u64;
        }
        bytes
    }
}

/// The embedded log itself; it has the queue and the group commit of its own.
async fn measure_embedded(dir: &Path, callers: usize, size: usize, time: Duration) -> Rates {
    let log = Arc::new(EmbeddedLog::open(Options::new(dir.join("embedded"))).unwrap());
    let writer = log.clone();
    let append = move |record| {
        let log = writer.clone();
        async move {
            log.append(record).await.unwrap();
        }
    };
    let appended = drive(append, callers, size, time).await;
    drop(log);
    // Opened anew, so that nothing comes from memory.
    let log = EmbeddedLog::open(Options::new(dir.join("embedded"))).unwrap();
    let last = log.bounds().await.unwrap().last;
    let mut reader = log.reader(1).await.unwrap();
    let started = Instant::now();
    let (mut read, mut bytes) = (0, 0);
    while read < last {
        for entry in reader.next(4_096).await.unwrap() {
            read += 1;
            bytes += entry.payload.len();
        }
    }
    Rates {
        appends_per_s: appended.per_s,
        p999_us: appended.p999_us,
        read_mb_per_s: bytes as f64 / 1e6 / started.elapsed().as_secs_f64(),
    }
}

type Request = (Bytes, oneshot::Sender<u64>);

/// Appends from `callers` tasks for `time`; answers appends a second and bytes a second read back.
async fn measure(store: Box<dyn Store>, callers: usize, size: usize, time: Duration) -> Rates {
    let (sender, mut receiver) = mpsc::channel::<Request>(QUEUE_MAX);
    let writer = std::thread::spawn(move || {
        let mut store = store;
        let mut next = 1;
        while let Some((record, reply)) = receiver.blocking_recv() {
            let (mut group, mut replies) = (vec![record], vec![reply]);
            while group.len() < GROUP_MAX {
                let Ok((record, reply)) = receiver.try_recv() else {
                    break;
                };
                group.push(record);
                replies.push(reply);
            }
            store.append_group(next, &group);
            for reply in replies {
                let _ = reply.send(next);
                next += 1;
            }
        }
        store
    });
    let append = move |record: Bytes| {
        let sender = sender.clone();
        async move {
            let (reply, position) = oneshot::channel();
            sender.send((record, reply)).await.unwrap();
            position.await.unwrap();
        }
    };
    let appended = drive(append, callers, size, time).await;
    let mut store = tokio::task::spawn_blocking(|| writer.join().unwrap())
        .await
        .unwrap();
    let started = Instant::now();
    let bytes = tokio::task::spawn_blocking(move || store.read_all())
        .await
        .unwrap();
    Rates {
        appends_per_s: appended.per_s,
        p999_us: appended.p999_us,
        read_mb_per_s: bytes as f64 / 1e6 / started.elapsed().as_secs_f64(),
    }
}

#[derive(Clone, Copy)]
struct Rates {
    appends_per_s: f64,
    p999_us: f64,
    read_mb_per_s: f64,
}

struct Appended {
    per_s: f64,
    p999_us: f64,
}

/// Calls `append` from `callers` tasks until `time` is over.
async fn drive<F, Fut>(append: F, callers: usize, size: usize, time: Duration) -> Appended
where
    F: Fn(Bytes) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    // Not compressible, so that no engine gains by compression what real records would not give.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let record = Bytes::from_iter(
        std::iter::repeat_with(|| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        })
        .take(size),
    );
    let append = Arc::new(append);
    let started = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (append, record) = (append.clone(), record.clone());
            tokio::spawn(async move {
                let mut waited = Histogram::<u64>::new(3).unwrap();
                while started.elapsed() < time {
                    let called = Instant::now();
                    append(record.clone()).await;
                    waited.record(called.elapsed().as_micros() as u64).unwrap();
                }
                waited
            })
        })
        .collect();
    let mut waited = Histogram::<u64>::new(3).unwrap();
    for task in tasks {
        waited.add(task.await.unwrap()).unwrap();
    }
    Appended {
        per_s: waited.len() as f64 / started.elapsed().as_secs_f64(),
        p999_us: waited.value_at_quantile(0.999) as f64,
    }
}

/// The files below `dir`, without the zeros at their ends, and their lengths.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>, u64)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            let mut bytes = fs::read(&path).unwrap();
            let len = bytes.len() as u64;
            while bytes.last() == Some(&0) {
                bytes.pop();
            }
            files.push((path, bytes, len));
        }
    }
    files
}

fn restore(files: &[(PathBuf, Vec<u8>, u64)]) {
    for (path, bytes, len) in files {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(path).unwrap();
        file.write_all(bytes).unwrap();
        file.set_len(*len).unwrap();
    }
}

/// Flips one byte at a time in a store of acknowledged records, opens it and reads all.
/// Says how often the damage was reported, how often records were missing or wrong without a
/// word, and how often nothing was amiss.
fn damage(name: &str, read: impl Fn(&Path) -> Option<Vec<Vec<u8>>>, write: impl Fn(&Path)) {
    const RECORDS: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let files = snapshot(dir.path());
    // The largest file is the one that holds the records.
    let (victim, bytes, _) = files.iter().max_by_key(|file| file.1.len()).unwrap();
    let (mut reported, mut lost, mut wrong, mut intact) = (0, 0, 0, 0);
    for step in 0..400 {
        let at = bytes.len() * step / 400 + step % 7;
        if at >= bytes.len() {
            continue;
        }
        for entry in fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
        restore(&files);
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        let mut file = OpenOptions::new().write(true).open(victim).unwrap();
        file.write_all(&damaged).unwrap();
        drop(file);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(dir.path())));
        match outcome {
            Ok(Some(records)) if records.len() < RECORDS => lost += 1,
            Ok(Some(records)) => {
                let sound = |(index, record): (usize, &Vec<u8>)| *record == sample(index);
                if records.iter().enumerate().all(sound) {
                    intact += 1;
                } else {
                    wrong += 1;
                }
            }
            Ok(None) | Err(_) => reported += 1,
        }
    }
    println!("{name:<10} {reported:>9} {lost:>14} {wrong:>15} {intact:>7}");
}

/// Record `index` of the damage test.
fn sample(index: usize) -> Vec<u8> {
    (0..40)
        .map(|byte| (index * 31 + byte * 7) as u8 | 1)
        .collect()
}

fn damage_all() {
    std::panic::set_hook(Box::new(|_| {}));
    println!("flipped    reported  silently lost  silently wrong  intact");
    let samples = || (0..200).map(|index| Bytes::from(sample(index)));
    damage(
        "fjall",
        |dir| {
            let database = fjall::Database::builder(dir.join("fjall")).open().ok()?;
            let keyspace = database.keyspace("log", Default::default).ok()?;
            keyspace
                .iter()
                .map(|guard| Some(guard.value().ok()?.to_vec()))
                .collect()
        },
        |dir| {
            let mut store = Fjall::open(dir);
            for (index, record) in samples().enumerate() {
                store.append_group(index as u64 + 1, &[record]);
            }
        },
    );
    damage(
        "redb",
        |dir| {
            let database = redb::Database::open(dir.join("redb")).ok()?;
            let transaction = database.begin_read().ok()?;
            let table = transaction.open_table(TABLE).ok()?;
            let range = table.range::<u64>(..).ok()?;
            range
                .map(|item| Some(item.ok()?.1.value().to_vec()))
                .collect()
        },
        |dir| {
            let mut store = Redb::open(dir);
            for (index, record) in samples().enumerate() {
                store.append_group(index as u64 + 1, &[record]);
            }
        },
    );
    let options = |dir: &Path| Options::new(dir.join("embedded"));
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    damage(
        "embedded",
        |dir| {
            runtime().block_on(async {
                let log = EmbeddedLog::open(options(dir)).ok()?;
                let last = log.bounds().await.ok()?.last;
                let mut reader = log.reader(1).await.ok()?;
                let mut records = Vec::new();
                while (records.len() as u64) < last {
                    let entries = reader.next(1_000).await.ok()?;
                    records.extend(entries.iter().map(|entry| entry.payload.to_vec()));
                }
                Some(records)
            })
        },
        |dir| {
            runtime().block_on(async {
                let log = EmbeddedLog::open(options(dir)).unwrap();
                for record in samples() {
                    log.append(record).await.unwrap();
                }
            });
        },
    );
    let _ = std::panic::take_hook();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` must not run for minutes.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    // It runs the embedded log on a runtime of its own.
    std::thread::spawn(damage_all).join().unwrap();
    let parent = env::var_os("SELLABLE_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
    let time_ms = env::var("SELLABLE_BENCH_MS").map_or(1_500, |text| text.parse().unwrap());
    println!("engine      callers     size   appends/s   ratio  p99.9 us   read MB/s   ratio");
    for (callers, size) in [(1, 256), (16, 256), (1, 65_536), (16, 65_536)] {
        let mut rates: [Vec<Rates>; 4] = Default::default();
        for _ in 0..ROUNDS {
            for (index, rates) in rates.iter_mut().enumerate() {
                let dir = tempfile::tempdir_in(&parent).unwrap();
                let time = Duration::from_millis(time_ms);
                if index == 3 {
                    rates.push(measure_embedded(dir.path(), callers, size, time).await);
                    continue;
                }
                let store: Box<dyn Store> = match index {
                    0 => Box::new(Floor::open(dir.path())),
                    1 => Box::new(Fjall::open(dir.path())),
                    _ => Box::new(Redb::open(dir.path())),
                };
                rates.push(measure(store, callers, size, time).await);
            }
        }
        let medians = rates.map(|rates| Rates {
            appends_per_s: median(rates.iter().map(|rate| rate.appends_per_s).collect()),
            p999_us: median(rates.iter().map(|rate| rate.p999_us).collect()),
            read_mb_per_s: median(rates.iter().map(|rate| rate.read_mb_per_s).collect()),
        });
        for (name, rates) in ["floor", "fjall", "redb", "embedded"].iter().zip(medians) {
            println!(
                "{name:<10} {callers:>8} {size:>8} {:>11.0} {:>7.2} {:>9.0} {:>11.0} {:>7.2}",
                rates.appends_per_s,
                rates.appends_per_s / medians[0].appends_per_s,
                rates.p999_us,
                rates.read_mb_per_s,
                rates.read_mb_per_s / medians[0].read_mb_per_s,
            );
        }
    }
}
