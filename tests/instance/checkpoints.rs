//! Checkpoints of whole instances: which one a start takes, what halts it, and that one taken while
//! others write is the state at its position.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use prost::Message;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sellable::{
    bench::Pipeline,
    checkpoint::{
        FORMAT, FORMAT_OLDEST,
        format::{Contents, Reject},
        store::file_name,
    },
    domain::{
        exceptions::Outcome,
        movement::{Condition, Kind, Movement},
    },
    instance::{CheckpointOptions, Instance, NotTaken, Options, StartError},
    intake::{CommandOutcome, CommandReceipt},
    log::{
        Log, LogError, Position,
        embedded::{self, EmbeddedLog},
        memory::MemoryLog,
    },
    proto::v1 as pb,
    shard::Audit,
    wire::movement::to_proto,
};

/// The time of the log, far ahead of the machine's: so nothing is due by that one, and no tick comes
/// between a checkpoint and what it is compared with.
const NOW_US: i64 = 4_000_000_000_000_000;
const RULES: &str = "[channel.web]\nsources = ['*']\n";

fn movement(id: &str, sku: &str, quantity: i64, kind: Kind<'_>) -> Bytes {
    let movement = Movement {
        id,
        source: "wms",
        occurred_us: NOW_US,
        sku,
        quantity,
        correlation_id: "",
        reference: "",
        actor: "",
        kind,
    };
    to_proto(&movement).encode_to_vec().into()
}

fn received(id: &str, sku: &str, quantity: i64, location: &str) -> Bytes {
    let condition = Condition::Good;
    let inbound = None;
    let kind = Kind::Received {
        location,
        condition,
        inbound,
    };
    movement(id, sku, quantity, kind)
}

fn reserve(id: &str, sku: &str, quantity: i64) -> Bytes {
    let reserve = pb::ReserveRequest {
        id: id.into(),
        channel: "web".into(),
        lines: vec![pb::ReserveLine {
            sku: sku.into(),
            quantity,
            ..pb::ReserveLine::default()
        }],
        time_to_live: Some(prost_types::Duration {
            seconds: 3_600,
            nanos: 0,
        }),
        ..pb::ReserveRequest::default()
    };
    let command = pb::Command {
        command: Some(pb::command::Command::Reserve(reserve)),
    };
    command.encode_to_vec().into()
}

fn options(dir: &Path, shards: usize) -> Options {
    Options {
        shards,
        checkpoints: Some(CheckpointOptions::on_demand(dir)),
        ..Options::default()
    }
}

async fn start(log: &MemoryLog, options: &Options) -> Result<Arc<Instance>, StartError> {
    let instance = Instance::start(Arc::new(log.clone()), options).await?;
    tokio::time::timeout(Duration::from_secs(60), instance.caught_up())
        .await
        .expect("it catches up");
    Ok(instance)
}

async fn audit(instance: &Instance) -> (Audit, Position) {
    instance.audit().await.expect("it runs")
}

/// Stock, lines, reservations, rules, and something for people.
async fn fill(instance: &Instance, from: usize, to: usize) -> Vec<CommandReceipt> {
    if from == 0 {
        let put = pb::RulesPut {
            toml: RULES.into(),
            ..pb::RulesPut::default()
        };
        instance.put_rules(put).await.expect("rules");
    }
    let mut receipts = Vec::new();
    for n in from..to {
        let (sku, at) = (format!("sku-{}", n % 7), format!("store-{}", n % 5));
        let id = format!("m{n}");
        let order = format!("o{}", n % 11);
        let shipped = Kind::Shipped {
            order: &order,
            line: "1",
            location: &at,
        };
        let movements = vec![
            received(&id, &sku, 5, &at),
            movement(&format!("s{n}"), &sku, 1, shipped),
            // Of every third, the id is taken.
            received(&format!("m{}", n - n % 3), &sku, 6, &at),
        ];
        instance.post(movements).await.expect("posted");
        let receipt = instance
            .command(reserve(&format!("r{n}"), &sku, 2), 1)
            .await;
        receipts.push(receipt.expect("decided"));
    }
    receipts
}

/// A log with two checkpoints and some records after them; gives their positions.
async fn two(log: &MemoryLog, dir: &Path) -> [Position; 2] {
    log.set_clock(Some(NOW_US));
    let instance = start(log, &options(dir, 2)).await.expect("it starts");
    fill(&instance, 0, 8).await;
    let one = instance.checkpoint().await.expect("taken").position;
    fill(&instance, 8, 16).await;
    let two = instance.checkpoint().await.expect("taken").position;
    fill(&instance, 16, 20).await;
    instance.stop().await;
    assert!(one < two);
    [one, two]
}

fn file(dir: &Path, position: Position) -> PathBuf {
    dir.join(file_name(position))
}

fn started_from(instance: &Instance) -> Option<Position> {
    instance.checkpoints().expect("it keeps some").started_from
}

fn halted(outcome: Result<Arc<Instance>, StartError>) -> String {
    match outcome {
        Err(StartError::Log(LogError::Diverged(text))) => text,
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("it started"),
    }
}

fn refused(outcome: Result<Arc<Instance>, StartError>) -> String {
    match outcome {
        Err(StartError::Log(LogError::Setup(text))) => text,
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("it started"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_from_the_newest_with_any_number_of_shards() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().expect("a directory"));
    log.set_clock(Some(NOW_US));
    let first = start(&log, &options(dir.path(), 2))
        .await
        .expect("it starts");
    assert!(matches!(first.checkpoint().await, Err(NotTaken::Empty)));
    let receipts = fill(&first, 0, 20).await;
    let taken = first.checkpoint().await.expect("taken");
    let (at_checkpoint, position) = audit(&first).await;
    assert_eq!(
        (taken.position, taken.digest),
        (position, at_checkpoint.digest)
    );
    assert_eq!(
        fs::metadata(&taken.path).expect("a file").len(),
        taken.bytes
    );
    fill(&first, 20, 25).await;
    let (before, end) = audit(&first).await;
    let movements = first.movements();
    let exceptions = first.exceptions().all_open();
    assert!(!exceptions.is_empty() && movements.parked > 0);
    first.stop().await;

    for shards in [1, 2, 5] {
        let again = start(&log, &options(dir.path(), shards))
            .await
            .expect("it starts");
        assert_eq!(started_from(&again), Some(taken.position));
        let (found, at) = audit(&again).await;
        assert_eq!(found, before);
        assert!(at >= end, "retries are records, too");
        assert_eq!(again.movements().applied, movements.applied);
        assert_eq!(again.exceptions().all_open(), exceptions);
        // Retries are answered as at first, and change nothing.
        for (n, receipt) in receipts.iter().enumerate() {
            let command = reserve(&format!("r{n}"), &format!("sku-{}", n % 7), 2);
            let retried = again.command(command, 1).await.expect("decided");
            assert!(retried.duplicate);
            assert_eq!(retried.outcome, receipt.outcome);
        }
        let repeat = again
            .post(vec![received("m0", "sku-0", 5, "store-0")])
            .await;
        let outcomes = repeat.expect("posted").outcomes;
        assert_eq!(outcomes, [(Outcome::Applied, true)]);
        let view = again.reservation("r0").await.expect("it runs");
        let view = view.expect("it is known");
        let granted = matches!(receipts[0].outcome, CommandOutcome::Reserved { .. });
        assert!(granted && !view.confirmed && view.until_us > NOW_US);
        assert_eq!(audit(&again).await.0.digest, before.digest);
        again.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_damage_is_noticed_and_the_one_before_is_used() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().expect("a directory"));
    let [one, two] = two(&log, dir.path()).await;
    let newest = file(dir.path(), two);
    let whole = fs::read(&newest).expect("a file");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let seed = now.as_nanos() as u64;
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let look = |bytes: &[u8]| {
        fs::write(&newest, bytes).expect("written");
        Contents::open(&newest).and_then(|contents| contents.check())
    };
    look(&whole).expect("it is whole");

    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << random.random_range(0..8);
        let reason = look(&bytes).expect_err("a flipped bit is noticed");
        match at {
            0..8 => assert!(matches!(reason, Reject::NotACheckpoint), "{at}: {reason}"),
            _ => assert!(matches!(reason, Reject::Damaged { .. }), "{at}: {reason}"),
        }
    }
    for len in 0..whole.len() {
        let reason = look(&whole[..len]).expect_err("a torn file is noticed");
        assert!(matches!(reason, Reject::Torn { .. }), "{len}: {reason}");
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(matches!(look(&longer), Err(Reject::Damaged { .. })));
    let other_version = with_format(&whole, FORMAT + 1);
    for other in [FORMAT + 1, FORMAT_OLDEST - 1] {
        match look(&with_format(&whole, other)) {
            Err(Reject::Format(found)) => assert_eq!(found, other),
            outcome => panic!("{outcome:?}"),
        }
    }
    // So few ids are in one piece for each part, as they were in the second format.
    let before = with_format(&whole, FORMAT_OLDEST);
    look(&before).expect("versions before are read");

    // Whatever it is, the one before is used, and the state is the same.
    let mut flipped = whole.clone();
    flipped[random.random_range(100..whole.len())] ^= 4;
    let mut states = Vec::new();
    for bytes in [
        &whole[..],
        &before,
        &flipped,
        &whole[..whole.len() - 9],
        &other_version,
    ] {
        fs::write(&newest, bytes).expect("written");
        let instance = start(&log, &options(dir.path(), 1))
            .await
            .expect("it starts");
        let is_read = bytes == whole || bytes == before;
        let expected = if is_read { two } else { one };
        assert_eq!(started_from(&instance), Some(expected));
        // Ticks may have been written since, so positions may differ.
        states.push(audit(&instance).await.0);
        instance.stop().await;
    }
    // And without any, the whole log is read.
    fs::write(&newest, &flipped).expect("written");
    fs::write(file(dir.path(), one), &whole[..50]).expect("written");
    let instance = start(&log, &options(dir.path(), 1))
        .await
        .expect("it starts");
    assert_eq!(started_from(&instance), None);
    states.push(audit(&instance).await.0);
    instance.stop().await;
    assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
}

/// The same file as another version of the program would have written it.
fn with_format(whole: &[u8], format: u32) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    bytes[8..12].copy_from_slice(&format.to_le_bytes());
    let sum = xxhash_rust::xxh3::xxh3_64(&bytes[..16]);
    bytes[16..24].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// What the log gives up to a position, without any checkpoint.
async fn replayed(log: &MemoryLog, to: Position, options: &Options) -> Audit {
    let mut pipeline = Pipeline::with_options(options);
    let mut reader = log.reader(1).await.expect("a reader");
    let mut next = 1;
    while next <= to {
        let many = (to + 1 - next).min(100) as usize;
        let entries = reader.next(many).await.expect("entries");
        next += entries.len() as u64;
        let batch = pipeline.decode(entries).expect("of this version");
        pipeline.apply(batch);
    }
    pipeline.audit()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_taken_while_others_write_is_the_state_at_its_position() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().expect("a directory"));
    log.set_clock(Some(NOW_US));
    let mut options = options(dir.path(), 2);
    options.checkpoints.as_mut().expect("they are kept").keep = 100;
    let instance = start(&log, &options).await.expect("it starts");
    fill(&instance, 0, 5).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (instance, stop) = (Arc::clone(&instance), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut n = 0;
                while !stop.load(Relaxed) {
                    let id = |n| format!("{writer}-{n}");
                    let sku = format!("sku-{}", n % 97);
                    let stock = (0..40).map(|k| {
                        let at = format!("store-{}", (n + k) % 9);
                        received(&id(n * 100 + k), &sku, 3, &at)
                    });
                    let posted = instance.post(stock.collect()).await;
                    posted.expect("posted");
                    let command = reserve(&id(n), &sku, 2);
                    instance.command(command, 1).await.expect("decided");
                    n += 1;
                }
                n
            })
        })
        .collect();
    let mut taken = Vec::new();
    for _ in 0..12 {
        taken.push(instance.checkpoint().await.expect("taken"));
    }
    stop.store(true, Relaxed);
    for writer in writers {
        assert!(writer.await.expect("no panic") > 0);
    }
    let end = audit(&instance).await;
    instance.stop().await;
    let first = taken.first().expect("some").position;
    let last = taken.last().expect("some").position;
    assert!(first < last, "nobody wrote while they were taken");
    for checkpoint in taken {
        let contents = Contents::open(&checkpoint.path).expect("a checkpoint");
        let expected = replayed(&log, checkpoint.position, &options).await;
        assert_eq!(contents.totals.digest, expected.digest);
        let mut restored = Pipeline::restore(&contents, &options).expect("it can be loaded");
        assert_eq!(restored.audit(), expected);
    }
    let again = start(&log, &options).await.expect("it starts");
    assert_eq!(started_from(&again), Some(last));
    assert_eq!(audit(&again).await, end);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_leaves_everything_as_it_was() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().expect("a directory"));
    log.set_clock(Some(NOW_US));
    let options = options(dir.path(), 2);
    let instance = start(&log, &options).await.expect("it starts");
    fill(&instance, 0, 5).await;
    // A directory is in the way of the file.
    let in_the_way = dir.path().join("unfinished");
    fs::create_dir(&in_the_way).expect("made");
    for n in 5..8 {
        assert!(matches!(instance.checkpoint().await, Err(NotTaken::Io(_))));
        fill(&instance, n, n + 1).await;
    }
    fs::remove_dir(&in_the_way).expect("removed");
    let taken = instance.checkpoint().await.expect("taken");
    let status = instance.checkpoints().expect("it keeps some");
    assert_eq!((status.taken, status.failed), (1, 3));
    assert_eq!(
        replayed(&log, taken.position, &options).await.digest,
        taken.digest
    );
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_tail_halts() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().expect("a directory"));
    let [one, two] = two(&log, dir.path()).await;
    log.cut_tail(two - 1);
    let told = halted(start(&log, &options(dir.path(), 1)).await);
    assert!(told.contains("its tail was lost"), "{told}");
    // Also if that checkpoint is damaged: the one before would hide it.
    fs::write(file(dir.path(), two), b"SELLCKPT").expect("written");
    let told = halted(start(&log, &options(dir.path(), 1)).await);
    assert!(told.contains(&two.to_string()), "{told}");
    // Who has read that decides.
    fs::remove_file(file(dir.path(), two)).expect("removed");
    let instance = start(&log, &options(dir.path(), 1))
        .await
        .expect("it starts");
    assert_eq!(started_from(&instance), Some(one));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_cut_and_grew_anew_halts() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().expect("a directory"));
    let [_, two] = two(&log, dir.path()).await;
    let last = log.bounds().await.expect("bounds").last;
    log.cut_tail(two - 1);
    for _ in two..=last + 3 {
        let tick = pb::Record {
            version: 1,
            instance: 7,
            token: 0,
            body: Some(pb::record::Body::Tick(pb::Tick {})),
        };
        log.append(tick.encode_to_vec().into())
            .await
            .expect("stored");
    }
    let told = halted(start(&log, &options(dir.path(), 1)).await);
    assert!(told.contains("another entry"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_made_anew_halts() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().expect("a directory"));
    two(&log, dir.path()).await;
    log.recreate();
    let told = halted(start(&log, &options(dir.path(), 1)).await);
    assert!(told.contains("of another log"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_one_instance() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().expect("a directory"));
    let instance = start(&log, &options(dir.path(), 1))
        .await
        .expect("it starts");
    let told = refused(start(&log, &options(dir.path(), 1)).await);
    assert!(told.contains("in use by another process"), "{told}");
    instance.stop().await;
    let instance = start(&log, &options(dir.path(), 1))
        .await
        .expect("it is free");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_other_settings_is_not_used() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().expect("a directory"));
    two(&log, dir.path()).await;
    let mut other = options(dir.path(), 1);
    other.horizon.us /= 2;
    let instance = start(&log, &other).await.expect("it starts");
    assert_eq!(started_from(&instance), None);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_taken_by_themselves_and_so_many_are_kept() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().expect("a directory"));
    log.set_clock(Some(NOW_US));
    let mut options = options(dir.path(), 1);
    let own = options.checkpoints.as_mut().expect("they are kept");
    (own.every_records, own.keep) = (3, 2);
    let instance = start(&log, &options).await.expect("it starts");
    let mut n = 0;
    while instance.checkpoints().expect("kept").taken < 4 {
        fill(&instance, n, n + 1).await;
        n += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(n < 3_000, "none are taken");
    }
    instance.stop().await;
    let files = sellable::checkpoint::store::list(dir.path()).expect("a list");
    assert_eq!(files.len(), 2);
}

async fn embedded(dir: &Path) -> Arc<EmbeddedLog> {
    let options = embedded::Options {
        segment_bytes: 2 * sellable::limits::RECORD_BYTES_MAX as u64,
        ..embedded::Options::new(dir)
    };
    // What ended has let go of it a little later.
    for _ in 0..1_000 {
        let options = options.clone();
        let opened = tokio::task::spawn_blocking(|| EmbeddedLog::open(options)).await;
        if let Ok(log) = opened.expect("no panic") {
            return Arc::new(log);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the log does not open");
}

/// Fills segments quickly.
async fn bulk(instance: &Instance, names: &str, records: usize) {
    for n in 0..records {
        let stock = (0..4_000).map(|k| {
            let id = format!("{names}-{n}-{k}-with-a-long-id-so-that-segments-are-soon-full");
            received(&id, &format!("sku-{}", k % 50), 1, "dc")
        });
        instance.post(stock.collect()).await.expect("posted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_trimmed_below_the_oldest_and_never_above() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, checkpoints) = (dir.path().join("data"), dir.path().join("checkpoints"));
    let mut options = options(&checkpoints, 1);
    let own = options.checkpoints.as_mut().expect("they are kept");
    (own.keep, own.trim) = (2, true);
    let log = embedded(&data).await;
    let instance = Instance::start(log.clone(), &options)
        .await
        .expect("it starts");
    let mut taken = Vec::new();
    for round in 0..6 {
        bulk(&instance, &round.to_string(), 4).await;
        // One that cannot be read again is no reason to forget anything.
        let hidden = (round == 3).then(|| {
            let newest: &sellable::instance::Checkpoint = taken.last().expect("some");
            let bytes = fs::read(&newest.path).expect("a file");
            fs::write(&newest.path, &bytes[..bytes.len() / 2]).expect("written");
            (newest.path.clone(), bytes)
        });
        let first = log.bounds().await.expect("bounds").first;
        taken.push(instance.checkpoint().await.expect("taken"));
        let now = log.bounds().await.expect("bounds").first;
        match hidden {
            Some((path, bytes)) => {
                assert_eq!(now, first, "it was trimmed though one is torn");
                fs::write(path, bytes).expect("written");
            }
            None if round == 0 => assert_eq!(now, 1, "trimmed with fewer than are kept"),
            None => {
                let oldest = taken[taken.len() - 2].position;
                assert!(now <= oldest, "{now} is above {oldest}");
            }
        }
    }
    let first = log.bounds().await.expect("bounds").first;
    assert!(first > 1, "it was never trimmed");
    let end = audit(&instance).await;
    instance.stop().await;
    drop((instance, log));

    // Both that are kept are still of use.
    let [older, newer] = [4, 5].map(|n: usize| taken[n].clone());
    for checkpoint in [&newer, &older] {
        let log = embedded(&data).await;
        let instance = Instance::start(log, &options).await.expect("it starts");
        assert_eq!(started_from(&instance), Some(checkpoint.position));
        instance.caught_up().await;
        assert_eq!(audit(&instance).await, end);
        instance.stop().await;
        fs::remove_file(&checkpoint.path).expect("removed");
    }
    let log = embedded(&data).await;
    let told = refused(Instance::start(log, &options).await);
    assert!(
        told.contains("Copy a checkpoint of another instance"),
        "{told}"
    );
}
