//! Settings of one instance: one table of keys, from which the parser, the environment variables,
//! the flags and the documentation all follow.
//!
//! A key's value is the last one given in this order: its default, `sellable.toml`, its
//! environment variable, a flag. Everything is parsed from text and maps that the caller passes;
//! nothing here looks at the process.

mod document;
mod load;
mod value;

use std::{net::SocketAddr, path::PathBuf};

use crate::limits;

pub use document::{effective_json, effective_text, template};
pub use load::{ConfigError, ConfigErrors, FlagValue, Loaded, Origin, Setting, Sources, load};
pub use value::{Kind, Value};

use value::FromValue;

/// One key of the settings.
#[derive(Debug)]
pub struct Key {
    /// Dotted name; the part before the dot is the TOML section.
    pub name: &'static str,
    /// Which values it takes.
    pub kind: Kind,
    /// Default, written as in an environment variable.
    pub default: &'static str,
    /// Convenience flag, without the dashes. Every key can be given with `--set` too.
    pub flag: Option<&'static str>,
    /// Documentation, line by line.
    pub doc: &'static [&'static str],
}

impl Key {
    /// Its environment variable.
    pub fn env(&self) -> String {
        format!(
            "{}{}",
            ENV_PREFIX,
            self.name.replace('.', "_").to_ascii_uppercase()
        )
    }

    /// The key with this dotted name.
    pub fn find(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }
}

/// Prefix of every environment variable.
pub const ENV_PREFIX: &str = "SELLABLE_";

macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident: $type:ty = $name:literal, $kind:expr, $default:literal, $flag:expr;
    )+) => {
        /// Settings of one instance, checked and typed.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        /// Every key, in the order in which they are documented.
        pub static KEYS: &[Key] = &[
            $( Key {
                name: $name,
                kind: $kind,
                default: $default,
                flag: $flag,
                doc: &[$($doc),+],
            }, )+
        ];

        impl Config {
            /// Builds it from one value for each key, in the order of [`KEYS`].
            fn from_values<'a>(mut values: impl Iterator<Item = &'a Value>) -> Self {
                Config {
                    $( $field: <$type as FromValue>::from_value(
                        values.next().expect("there is one value for each key"),
                    ), )+
                }
            }
        }
    };
}

settings! {
    /// Address on which gRPC is served. `0.0.0.0:7420` serves every network the host is on;
    /// there is neither TLS nor authentication yet, so keep it behind something that has them.
    listen: SocketAddr = "listen", Kind::Address, "127.0.0.1:7420", Some("listen");

    /// Directory of this instance: the journal of the embedded log. Made if missing; a relative
    /// path is taken from the working directory. One process at a time.
    data_dir: PathBuf = "data_dir", Kind::Path, "./data", Some("data-dir");

    /// Shards, each with its own writer thread. 0: one less than there are cores, at least 1.
    /// A private matter of an instance: any number gives the same state and the same digest.
    shards: usize = "shards",
        Kind::Integer { min: 0, max: 256, unit: "shards" }, "0", Some("shards");

    /// Address on which /metrics, /livez and /readyz are served over HTTP.
    http_listen: SocketAddr = "http.listen", Kind::Address, "127.0.0.1:7421", Some("http-listen");

    /// When the embedded log calls fsync.
    /// `always`: before a movement is answered; it survives a power failure.
    /// `interval`: every `journal.sync_interval_ms`; a power failure may lose that much.
    /// `os`: when the operating system likes; survives a kill of the process, no power failure.
    journal_sync: JournalSync = "journal.sync",
        Kind::Choice(&["always", "interval", "os"]), "always", None;

    /// Time between two fsyncs if `journal.sync` is `interval`.
    journal_sync_interval_ms: u64 = "journal.sync_interval_ms",
        Kind::Integer { min: 1, max: 60_000, unit: "ms" }, "100", None;

    /// Servers of NATS, separated by commas; name and password, or a token, may stand in the
    /// address (nats://name:password@host:4222). Set: the log is a JetStream stream. Empty: the log
    /// is embedded, in `data_dir`. The servers' own `sync_interval` says what a power failure
    /// may lose.
    nats_url: Option<String> = "nats.url", Kind::OptionalText, "", Some("nats");

    /// Name of the stream. Made if missing.
    nats_stream: String = "nats.stream", Kind::Text, "SELLABLE", None;

    /// Credentials file of NATS (.creds). Empty: none.
    nats_credentials_file: Option<PathBuf> = "nats.credentials_file", Kind::OptionalPath, "", None;

    /// Copies that the NATS cluster keeps of the stream, if it has to be made.
    nats_replicas: u32 = "nats.replicas",
        Kind::Integer { min: 1, max: 5, unit: "copies" }, "1", None;

    /// Directory of the checkpoints: the state as files, from which a restart goes on instead of
    /// reading the whole log. Made if missing; one process at a time. Empty: `checkpoints` in
    /// `data_dir`.
    checkpoint_dir: Option<PathBuf> = "checkpoint.dir", Kind::OptionalPath, "", None;

    /// A checkpoint is taken after so much time, if anything was applied since the last one. 0: not
    /// for that reason.
    checkpoint_every_seconds: u64 = "checkpoint.every_seconds",
        Kind::Integer { min: 0, max: 604_800, unit: "s" }, "600", None;

    /// A checkpoint is taken after so many records of the log. 0: not for that reason.
    checkpoint_every_records: u64 = "checkpoint.every_records",
        Kind::Integer { min: 0, max: 1_000_000_000_000, unit: "records" }, "1000000", None;

    /// Checkpoints that are kept; older ones are removed. Should one be damaged, the one before is
    /// used. 0: none are taken or used, and every start reads the whole log.
    checkpoint_keep: usize = "checkpoint.keep",
        Kind::Integer { min: 0, max: 100, unit: "checkpoints" }, "3", None;

    /// Trim the log below the oldest checkpoint that is kept, once there are as many as are kept and
    /// all of them can be read. Only if nobody else needs the log's beginning: other instances on the
    /// same stream, a new one without a checkpoint, `sellable verify`, an audit.
    checkpoint_trim: bool = "checkpoint.trim", Kind::Bool, "false", None;

    /// A checkpoint of another instance to begin with, if the directory of the checkpoints has none
    /// yet. Empty: none.
    checkpoint_bootstrap: Option<PathBuf> = "checkpoint.bootstrap",
        Kind::OptionalPath, "", Some("bootstrap");

    /// JetStream: leave the newest checkpoint in a bucket of the object store, named after the stream
    /// with `_CHECKPOINTS` behind it. A new instance without any fetches it there, if the stream's
    /// beginning was trimmed or is far away.
    checkpoint_publish: bool = "checkpoint.publish", Kind::Bool, "false", None;

    /// Channel rules (TOML) to put in force at the start and on SIGHUP, if they differ from the
    /// ones in force. Empty: rules change by `sellable rules put` alone.
    rules_file: Option<PathBuf> = "rules.file", Kind::OptionalPath, "", Some("rules");

    /// Source authority (TOML): which source may post what. Put in force at the start and on SIGHUP,
    /// if it differs from the one in force. Empty: it changes by `sellable authority put` alone.
    authority_file: Option<PathBuf> = "authority.file", Kind::OptionalPath, "", Some("authority");

    /// How long movement ids are remembered. A movement older than what has been forgotten cannot
    /// be proved new and is parked as `stale`.
    ids_horizon_hours: u64 = "ids.horizon_hours",
        Kind::Integer { min: 1, max: 87_600, unit: "hours" }, "168", None;

    /// Most movement ids remembered, whatever their age; the oldest are forgotten first. All
    /// instances on one log need the same value, since it decides what is stale.
    ids_max: u64 = "ids.max",
        Kind::Integer { min: 1_000, max: 10_000_000_000, unit: "ids" }, "200000000", None;

    /// How long lines of orders, inbound deliveries, transfers and returns are followed after
    /// nothing more is to come of them. 0: as long as ids. Longer finds an RMA that is issued twice
    /// weeks after the order was shipped, at some 60 bytes for a line. All instances on one log need
    /// the same value.
    lines_retain_hours: u64 = "lines.retain_hours",
        Kind::Integer { min: 0, max: 87_600, unit: "hours" }, "0", None;

    /// Most movements that wait at the door, over all callers. Beyond it, posting answers
    /// RESOURCE_EXHAUSTED.
    intake_queue_movements_max: usize = "intake.queue_movements_max",
        Kind::Integer { min: 1_000, max: 10_000_000, unit: "movements" }, "100000", None;

    /// Most commands (reserve, confirm, release, extend) that wait at the door, over all callers.
    /// Beyond it, they are answered with RESOURCE_EXHAUSTED.
    intake_queue_commands_max: usize = "intake.queue_commands_max",
        Kind::Integer { min: 100, max: 1_000_000, unit: "commands" }, "20000", None;

    /// Most movements, or commands, of many callers that are gathered into one record of the log. It
    /// is smaller mostly: a record that has 256 of them waits for no more.
    intake_record_movements_max: usize = "intake.record_movements_max",
        Kind::Integer {
            min: limits::BATCH_MOVEMENTS_MAX as u64,
            max: limits::RECORD_MOVEMENTS_MAX as u64,
            unit: "movements",
        }, "4000", None;

    /// How long a record waits for more callers to join it, if it has fewer than 256. 0: it takes those
    /// that came together while the record before it was written, which is mostly best.
    intake_gather_wait_us: u64 = "intake.gather_wait_us",
        Kind::Integer { min: 0, max: 1_000_000, unit: "µs" }, "0", None;

    /// Longest time that a query waits for its `min_position`.
    query_min_position_wait_ms_max: u64 = "query.min_position_wait_ms_max",
        Kind::Integer { min: 0, max: 600_000, unit: "ms" }, "5000", None;

    /// Largest gRPC message taken.
    grpc_message_bytes_max: usize = "grpc.message_bytes_max",
        Kind::Integer { min: 1 << 16, max: 1 << 28, unit: "bytes" }, "8388608", None;

    /// Most gRPC calls under way on one connection.
    grpc_concurrent_streams_max: u32 = "grpc.concurrent_streams_max",
        Kind::Integer { min: 1, max: 1_000_000, unit: "calls" }, "1000", None;

    /// Most parked movements kept in memory with their bytes; beyond it, the oldest are only counted.
    exceptions_kept_max: usize = "exceptions.kept_max",
        Kind::Integer { min: 100, max: 10_000_000, unit: "exceptions" }, "100000", None;

    /// Take snapshots that an ERP puts into the object store bucket `<nats.stream>-snapshots`. Needs
    /// `nats.url`. Exactly one of the instances takes each. Its metadata, or headers, say `as_of` or
    /// `watermark`, and may say `source`, `snapshot`, `scope` and `policy`; its name says the form.
    reconciliation_enabled: bool = "reconciliation.enabled", Kind::Bool, "false", None;

    /// What is done about variances of snapshots from that bucket. `report`: they are reported.
    /// `correct`: those of up to `reconciliation.up_to_units` are corrected, the others are held for
    /// approval. Then an object's own `policy` may say `report`; one that says `correct` is refused
    /// where this says `report`.
    reconciliation_policy: SnapshotPolicy = "reconciliation.policy",
        Kind::Choice(&["report", "correct"]), "report", None;

    /// Largest variance of a snapshot from that bucket that is corrected without approval. 0: none.
    reconciliation_up_to_units: u64 = "reconciliation.up_to_units",
        Kind::Integer { min: 0, max: limits::QUANTITY_MAX as u64, unit: "units" }, "0", None;

    /// How far clocks may be apart for snapshots from that bucket: movements no farther than this
    /// from the moment of a snapshot may be in it or not.
    reconciliation_tolerance_ms: u64 = "reconciliation.tolerance_ms",
        Kind::Integer {
            min: 0,
            max: limits::CLOCK_TOLERANCE_MS_MAX as u64,
            unit: "ms",
        }, "2000", None;

    /// Most variances of one snapshot that are opened as exceptions, or corrected. Of a snapshot with
    /// more, none is, and its report says so: most likely it is not about the moment it names. About
    /// 200 bytes are held of each while it is compared.
    reconciliation_variances_max: usize = "reconciliation.variances_max",
        Kind::Integer { min: 0, max: 10_000_000, unit: "variances" }, "1000000", None;

    /// Shortest time between two updates of a feed: what changes meanwhile is conflated, so that each
    /// SKU is told once. Longer spares processor time, here and at receivers.
    feeds_interval_ms: u64 = "feeds.interval_ms",
        Kind::Integer { min: 0, max: 60_000, unit: "ms" }, "5", None;

    /// SKUs of each channel whose last change is kept, for receivers that resume. One that comes back
    /// after more have changed is given the whole state. Some 200 bytes each.
    feeds_kept_max: usize = "feeds.kept_max",
        Kind::Integer { min: 1, max: 100_000_000, unit: "SKUs" }, "100000", None;

    /// A caller of `Watch` to whom nothing was sent for so long is sent a heartbeat, with the position
    /// that was reached.
    feeds_heartbeat_seconds: u64 = "feeds.heartbeat_seconds",
        Kind::Integer { min: 1, max: 3_600, unit: "s" }, "15", None;

    /// Write feeds to NATS too, for connectors there: `availability.<channel>` in a stream
    /// `<nats.stream>_AVAILABILITY`, made if missing. Needs `nats.url`.
    /// `off`: no. `protobuf`: as `sellable.v1.AvailabilityUpdate`. `json`: as CloudEvents.
    feeds_nats: NatsFeed = "feeds.nats",
        Kind::Choice(&["off", "protobuf", "json"]), "off", None;

    /// How long that stream keeps updates, if it has to be made. A connector that was away for longer
    /// asks for the state (`availability-state.<channel>`).
    feeds_nats_max_age_hours: u64 = "feeds.nats_max_age_hours",
        Kind::Integer { min: 1, max: 8_760, unit: "hours" }, "24", None;

    /// Webhooks (TOML): to which receivers what a channel may sell is sent over HTTP, and how. Read at
    /// the start. Empty: none.
    feeds_webhooks_file: Option<PathBuf> = "feeds.webhooks_file", Kind::OptionalPath, "", None;

    /// On SIGTERM: how long calls under way may take to end before they are cut off.
    drain_grace_ms: u64 = "drain.grace_ms",
        Kind::Integer { min: 0, max: 600_000, unit: "ms" }, "10000", None;

    /// Form of the program's own log, on stderr: `text` for people, `json` for machines.
    trace_format: TraceFormat = "trace.format",
        Kind::Choice(&["text", "json"]), "text", Some("log-format");

    /// What the program's own log tells: a level (error, warn, info), or one for each target, as
    /// in `info,sellable::log=warn`. Release builds have nothing finer than info.
    trace_filter: String = "trace.filter", Kind::Text, "info", Some("log-level");
}

/// When the embedded log calls fsync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalSync {
    /// Before every answer.
    Always,
    /// Every `journal.sync_interval_ms`.
    Interval,
    /// When the operating system likes.
    Os,
}

/// What is done about variances of snapshots from the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotPolicy {
    /// They are reported.
    Report,
    /// The small ones are corrected, the others held.
    Correct,
}

/// Whether feeds are written to NATS, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatsFeed {
    /// They are not.
    Off,
    /// As protobuf.
    Protobuf,
    /// As CloudEvents in JSON.
    Json,
}

/// Form of the program's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which engine keeps the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A journal in `data_dir`.
    Embedded,
    /// A stream of NATS JetStream.
    JetStream,
}

impl Config {
    /// The engine, which follows from `nats.url`.
    pub fn engine(&self) -> Engine {
        match self.nats_url {
            Some(_) => Engine::JetStream,
            None => Engine::Embedded,
        }
    }

    /// The directory of the checkpoints.
    pub fn checkpoints_in(&self) -> PathBuf {
        let own = self.checkpoint_dir.clone();
        own.unwrap_or_else(|| self.data_dir.join("checkpoints"))
    }

    /// The number of shards on a host of so many cores.
    pub fn shard_count(&self, cores: usize) -> usize {
        match self.shards {
            0 => cores.saturating_sub(1).max(1),
            given => given,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let defaults: Vec<Value> = KEYS.iter().map(Key::default_value).collect();
        Config::from_values(defaults.iter())
    }
}

impl FromValue for JournalSync {
    fn from_value(value: &Value) -> Self {
        match value.as_text() {
            "always" => Self::Always,
            "interval" => Self::Interval,
            _ => Self::Os,
        }
    }
}

impl FromValue for SnapshotPolicy {
    fn from_value(value: &Value) -> Self {
        match value.as_text() {
            "correct" => Self::Correct,
            _ => Self::Report,
        }
    }
}

impl FromValue for NatsFeed {
    fn from_value(value: &Value) -> Self {
        match value.as_text() {
            "protobuf" => Self::Protobuf,
            "json" => Self::Json,
            _ => Self::Off,
        }
    }
}

impl FromValue for TraceFormat {
    fn from_value(value: &Value) -> Self {
        match value.as_text() {
            "json" => Self::Json,
            _ => Self::Text,
        }
    }
}

#[cfg(test)]
mod tests;
