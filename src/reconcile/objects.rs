//! Snapshots that an ERP puts into an object store bucket of JetStream.
//!
//! All instances read the bucket's own meta subject by one durable consumer, so that each object
//! goes to exactly one of them. Whoever has it says every now and then that it is still at work;
//! should it fall silent, another one gets the object. That does no harm: what was corrected counts
//! once.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use async_nats::jetstream::{
    AckKind, Context, Message,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    object_store::{self, ObjectInfo, ObjectStore},
    stream::{StorageType, Stream},
};
use futures::StreamExt;
use tokio::{sync::mpsc, time::MissedTickBehavior};

use super::{
    BadLine, Comparison, Options, ReconcileError,
    files::{self, FileError, Format, Row},
};
use crate::{
    instance::Instance,
    limits::{SNAPSHOT_CHUNK_LINES, SNAPSHOT_CHUNKS_MAX, SNAPSHOT_COPY_BYTES_MAX},
    log::{
        LogError,
        jetstream::{self, open_context, unavailable},
    },
    proto::v1::{self as pb, snapshot_header::Moment},
    wire::parse_time,
};

/// After how long without a word from an instance another one gets its object.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How often an instance says that it is still at work.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// How long the bucket keeps objects, if it has to be made: 30 days.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How long a snapshot waits that could not be compared for now.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How often an object is given to an instance before it is given up.
const DELIVERIES_MAX: i64 = 10;
/// After how long the bucket is looked for again, if it cannot be reached.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// The durable consumer that all instances share.
const CONSUMER: &str = "sellable";

/// How snapshots from the bucket are treated.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the log is.
    pub nats: jetstream::Options,
    /// Correct variances of up to so many units; `None`: report all.
    pub up_to_units: Option<i64>,
    /// How far clocks may be apart, in milliseconds.
    pub tolerance_ms: i64,
    /// How snapshots are compared.
    pub options: Options,
}

impl Settings {
    /// The bucket of the log's stream.
    pub fn bucket(&self) -> String {
        format!("{}-snapshots", self.nats.stream)
    }
}

/// Takes snapshots, one at a time, until it is dropped. What cannot be reached is tried again.
pub async fn follow(instance: Arc<Instance>, settings: Settings) {
    instance.caught_up().await;
    loop {
        let error = match watch(&instance, &settings).await {
            Ok(()) => "its consumer ended".to_owned(),
            Err(error) => error.to_string(),
        };
        let bucket = settings.bucket();
        tracing::warn!(%bucket, %error, "no snapshots can be taken for now; trying again");
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

async fn watch(instance: &Arc<Instance>, settings: &Settings) -> Result<(), LogError> {
    let context = open_context(&settings.nats, "snapshots").await?;
    let bucket = open(&context, settings).await?;
    let stream = context.get_stream(format!("OBJ_{}", settings.bucket()));
    let consumer = consumer(&stream.await.map_err(unavailable)?, settings).await?;
    // One at a time, so that the others are left to other instances.
    let messages = consumer.stream().max_messages_per_batch(1);
    let mut messages = messages.messages().await.map_err(unavailable)?;
    tracing::info!(bucket = %settings.bucket(), "taking snapshots");
    while let Some(message) = messages.next().await {
        let message = message.map_err(unavailable)?;
        take(instance, settings, &bucket, &message).await;
    }
    Ok(())
}

async fn open(context: &Context, settings: &Settings) -> Result<ObjectStore, LogError> {
    let name = settings.bucket();
    if let Ok(bucket) = context.get_object_store(&name).await {
        return Ok(bucket);
    }
    let config = object_store::Config {
        bucket: name.clone(),
        description: Some("Snapshots for Sellable to reconcile".into()),
        max_age: KEPT,
        storage: StorageType::File,
        num_replicas: settings.nats.replicas,
        ..object_store::Config::default()
    };
    match context.create_object_store(config).await {
        Ok(bucket) => Ok(bucket),
        // Another instance may have been faster.
        Err(error) => match context.get_object_store(&name).await {
            Ok(bucket) => Ok(bucket),
            Err(_) => Err(unavailable(format!(
                "the object store bucket {name} cannot be made: {error}"
            ))),
        },
    }
}

async fn consumer(stream: &Stream, settings: &Settings) -> Result<PullConsumer, LogError> {
    let config = pull::Config {
        durable_name: Some(CONSUMER.into()),
        description: Some("Each snapshot goes to one instance of Sellable".into()),
        filter_subject: format!("$O.{}.M.>", settings.bucket()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: DELIVERIES_MAX,
        ..pull::Config::default()
    };
    let consumer = stream.get_or_create_consumer(CONSUMER, config).await;
    consumer.map_err(unavailable)
}

/// What an object came to.
#[derive(Debug)]
enum Taken {
    /// Compared, or nothing to compare.
    Done,
    /// It cannot be compared, however often it is tried.
    Refused(String),
    /// Not for now.
    Later(String),
}

async fn take(
    instance: &Arc<Instance>,
    settings: &Settings,
    bucket: &ObjectStore,
    message: &Message,
) {
    let work = compare(instance, settings, bucket, message);
    tokio::pin!(work);
    let mut alive = tokio::time::interval(ALIVE_EVERY);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let taken = loop {
        tokio::select! {
            taken = &mut work => break taken,
            _ = alive.tick() => {
                // Should it not arrive, the next one may.
                let _ = message.ack_with(AckKind::Progress).await;
            }
        }
    };
    let acked = match taken {
        Taken::Done => message.double_ack().await,
        Taken::Refused(reason) => {
            tracing::error!(%reason, "a snapshot cannot be compared");
            message.ack_with(AckKind::Term).await
        }
        Taken::Later(reason) => {
            tracing::warn!(%reason, "a snapshot cannot be compared for now; trying again");
            message.ack_with(AckKind::Nak(Some(AGAIN_AFTER))).await
        }
    };
    if let Err(error) = acked {
        // Then it comes again, which does no harm.
        tracing::warn!(%error, "NATS did not take the acknowledgement of a snapshot");
    }
}

async fn compare(
    instance: &Arc<Instance>,
    settings: &Settings,
    bucket: &ObjectStore,
    message: &Message,
) -> Taken {
    let info: ObjectInfo = match serde_json::from_slice(&message.payload) {
        Ok(info) => info,
        Err(error) => return Taken::Refused(format!("its description cannot be read: {error}")),
    };
    let name = info.name.clone();
    if info.deleted {
        return Taken::Done;
    }
    let header = header(&info, settings);
    let (header, format) = match header {
        Ok(found) => found,
        Err(reason) => return Taken::Refused(format!("{name}: {reason}")),
    };
    let file = match download(bucket, &name).await {
        Ok(file) => file,
        Err(Download::TooLarge(error)) => return Taken::Refused(format!("{name}: {error}")),
        Err(Download::Failed(error)) => return Taken::Later(format!("{name}: {error}")),
    };
    match compare_file(instance, settings, header, file, format).await {
        Ok(report) => {
            let summary = report.summary.unwrap_or_default();
            tracing::info!(
                %name,
                report = %report.report,
                cells = summary.cells,
                variance = summary.variance,
                corrected = summary.corrected,
                held = summary.held,
                parked = summary.parked,
                "a snapshot was compared"
            );
            Taken::Done
        }
        Err(Problem::File(error)) => Taken::Refused(format!("{name}: {error}")),
        Err(Problem::Comparison(error)) => not_compared(&name, &error),
    }
}

fn not_compared(name: &str, error: &ReconcileError) -> Taken {
    let mut reason = format!("{name}: {error}");
    match error {
        ReconcileError::Post(_) | ReconcileError::UnknownWatermark { .. } => Taken::Later(reason),
        ReconcileError::BadLines { lines, .. } => {
            for BadLine { line, invalid } in lines.iter().take(20) {
                reason += &format!("; line {line}: {invalid}");
            }
            Taken::Refused(reason)
        }
        _ => Taken::Refused(reason),
    }
}

/// Why a file was not compared.
enum Problem {
    File(FileError),
    Comparison(ReconcileError),
}

impl From<ReconcileError> for Problem {
    fn from(error: ReconcileError) -> Self {
        Self::Comparison(error)
    }
}

async fn compare_file(
    instance: &Arc<Instance>,
    settings: &Settings,
    header: pb::SnapshotHeader,
    file: std::fs::File,
    format: Format,
) -> Result<pb::Report, Problem> {
    let mut comparison = Comparison::begin(instance, header, settings.options).await?;
    let mut batches = read(file, format);
    while let Some(batch) = batches.recv().await {
        for row in batch.map_err(Problem::File)? {
            match row.read {
                Ok(line) => comparison.add([line]).await?,
                Err(invalid) => comparison.reject(BadLine {
                    line: row.line,
                    invalid,
                }),
            }
        }
    }
    let end = pb::SnapshotEnd {
        lines: comparison.came(),
        skipped_lines: 0,
    };
    Ok(comparison.finish(end).await?.report)
}

/// Reads rows off the threads that answer callers.
fn read(file: std::fs::File, format: Format) -> mpsc::Receiver<Result<Vec<Row>, FileError>> {
    let (batches, receiver) = mpsc::channel(SNAPSHOT_CHUNKS_MAX);
    tokio::task::spawn_blocking(move || {
        let read = || -> Result<(), FileError> {
            let mut rows = files::open_file(file, format)?;
            let mut batch = Vec::new();
            while let Some(row) = rows.next_row()? {
                batch.push(row);
                let full = batch.len() >= SNAPSHOT_CHUNK_LINES;
                if full
                    && batches
                        .blocking_send(Ok(std::mem::take(&mut batch)))
                        .is_err()
                {
                    return Ok(());
                }
            }
            // Who does not wait any more needs none.
            let _ = batches.blocking_send(Ok(batch));
            Ok(())
        };
        if let Err(error) = read() {
            let _ = batches.blocking_send(Err(error));
        }
    });
    receiver
}

/// Why an object was not copied.
enum Download {
    TooLarge(FileError),
    Failed(io::Error),
}

impl From<io::Error> for Download {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Copies an object into a file that is gone once it is closed. The client checks its hash.
async fn download(bucket: &ObjectStore, name: &str) -> Result<std::fs::File, Download> {
    let mut object = bucket.get(name).await.map_err(io::Error::other)?;
    fits(&object.info).map_err(Download::TooLarge)?;
    let mut file = tokio::fs::File::from_std(tempfile::tempfile()?);
    tokio::io::copy(&mut object, &mut file).await?;
    let mut file = file.into_std().await;
    io::Seek::rewind(&mut file)?;
    Ok(file)
}

fn fits(info: &ObjectInfo) -> Result<(), FileError> {
    match info.size as u64 > SNAPSHOT_COPY_BYTES_MAX {
        true => Err(FileError::too_large(SNAPSHOT_COPY_BYTES_MAX)),
        false => Ok(()),
    }
}

/// What an object says about itself: its metadata first, then its headers. Names are taken whether
/// they are written `as_of`, `As-Of` or `AS_OF`.
fn header(info: &ObjectInfo, settings: &Settings) -> Result<(pb::SnapshotHeader, Format), String> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    for (name, values) in info.headers.iter().flat_map(|headers| headers.iter()) {
        if let Some(value) = values.first() {
            said.insert(plain(name.as_ref()), value.to_string());
        }
    }
    for (name, value) in &info.metadata {
        said.insert(plain(name), value.clone());
    }
    let get = |name: &str| said.get(name).map(|value| value.trim());
    let moment = match (get("as_of"), get("watermark")) {
        (Some(_), Some(_)) => {
            return Err("it says `as_of` and `watermark`; one of them says the moment".to_owned());
        }
        (Some(text), None) => {
            let time = parse_time(text);
            Moment::AsOf(time.map_err(|reason| format!("`as_of` {reason}"))?)
        }
        (None, Some(id)) => Moment::Watermark(id.to_owned()),
        (None, None) => {
            return Err(
                "its metadata say neither `as_of` (a time) nor `watermark` (a movement)".to_owned(),
            );
        }
    };
    let correct = match (get("policy"), settings.up_to_units) {
        (None, up_to) => up_to,
        (Some("report"), _) => None,
        (Some("correct"), Some(up_to)) => Some(up_to),
        (Some("correct"), None) => {
            return Err(
                "it asks to be corrected, but `reconciliation.policy` is report".to_owned(),
            );
        }
        (Some(other), _) => return Err(format!("`policy` is {other:?}; report or correct")),
    };
    let format = Format::of_name(&info.name);
    let format = format
        .ok_or("its form does not follow from its name; name it .csv, .ndjson or .parquet")?;
    let scope = get("scope").unwrap_or_default().split(',').map(str::trim);
    let header = pb::SnapshotHeader {
        snapshot: get("snapshot").unwrap_or(&info.name).to_owned(),
        source: get("source").unwrap_or("erp").to_owned(),
        moment: Some(moment),
        clock_tolerance_ms: settings.tolerance_ms,
        scope: scope
            .filter(|entry| !entry.is_empty())
            .map(str::to_owned)
            .collect(),
        policy: match correct {
            Some(_) => pb::ReconciliationPolicy::Correct.into(),
            None => pb::ReconciliationPolicy::Report.into(),
        },
        up_to_units: correct,
        actor: "nats".to_owned(),
        ..pb::SnapshotHeader::default()
    };
    Ok((header, format))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, metadata: &[(&str, &str)]) -> ObjectInfo {
        let metadata: BTreeMap<&str, &str> = metadata.iter().copied().collect();
        let json = serde_json::json!({ "name": name, "bucket": "b", "metadata": metadata });
        serde_json::from_value(json).expect("an object's description")
    }

    fn settings(up_to_units: Option<i64>) -> Settings {
        Settings {
            nats: jetstream::Options::new("nats://127.0.0.1"),
            up_to_units,
            tolerance_ms: 250,
            options: Options::default(),
        }
    }

    #[test]
    fn an_object_says_what_it_is_by_its_name_and_metadata() {
        let at = ("As-Of", "2026-11-20T22:00:00Z");
        let found = header(&info("stock.csv", &[at]), &settings(None)).expect("right");
        assert_eq!(found.1, Format::Csv);
        let told = found.0;
        assert_eq!((&*told.source, &*told.snapshot), ("erp", "stock.csv"));
        assert_eq!(told.policy(), pb::ReconciliationPolicy::Report);
        assert_eq!((told.clock_tolerance_ms, told.scope.len()), (250, 0));

        let more = [
            ("watermark", "m-7"),
            ("source", "sap"),
            ("snapshot", "monday"),
            ("scope", "dc, store-*"),
        ];
        let found = header(&info("a.ndjson", &more), &settings(Some(5))).expect("right");
        let told = found.0;
        assert_eq!((&*told.source, &*told.snapshot), ("sap", "monday"));
        assert_eq!(told.moment, Some(Moment::Watermark("m-7".into())));
        assert_eq!(told.scope, ["dc", "store-*"]);
        assert_eq!(told.policy(), pb::ReconciliationPolicy::Correct);
        assert_eq!(told.up_to_units, Some(5));
        let report = [at, ("policy", "report")];
        let found = header(&info("a.csv", &report), &settings(Some(5))).expect("right");
        assert_eq!(found.0.up_to_units, None);
    }

    #[test]
    fn what_is_wrong_with_an_object_is_said() {
        let at = ("as_of", "2026-11-20T22:00:00Z");
        for (name, metadata, says) in [
            ("a.csv", &[][..], "neither `as_of`"),
            ("a.csv", &[at, ("watermark", "1")], "one of them"),
            ("a.csv", &[("as_of", "yesterday")], "`as_of` is"),
            ("a.txt", &[at], ".csv, .ndjson or .parquet"),
            ("a.csv", &[at, ("policy", "correct")], "is report"),
            ("a.csv", &[at, ("policy", "fix")], "\"fix\""),
        ] {
            let error = header(&info(name, metadata), &settings(None)).expect_err("wrong");
            assert!(error.contains(says), "{error}");
        }
        let mut large = info("a.parquet", &[at]);
        large.size = usize::try_from(SNAPSHOT_COPY_BYTES_MAX).expect("64 bits");
        assert_eq!(fits(&large), Ok(()));
        large.size += 1;
        let error = fits(&large).expect_err("too large").to_string();
        assert!(error.contains("more than 8589934592 bytes"), "{error}");
    }
}
