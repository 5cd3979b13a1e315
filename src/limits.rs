//! Every limit of the service, in one place, and how they relate.
//!
//! Units come last in a name. Limits of the public contract are documented in `proto/` too; those
//! that an operator may set are only the defaults here, see `sellable config`.

/// Longest movement id, order, return or transfer number, in bytes.
pub const ID_BYTES_MAX: usize = 128;
/// Longest source name, in bytes.
pub const SOURCE_BYTES_MAX: usize = 64;
/// Longest SKU, in bytes.
pub const SKU_BYTES_MAX: usize = 100;
/// Longest location name, in bytes.
pub const LOCATION_BYTES_MAX: usize = 64;
/// Longest channel name, in bytes.
pub const CHANNEL_BYTES_MAX: usize = 64;
/// Longest line number of an order, in bytes.
pub const LINE_BYTES_MAX: usize = 64;
/// Longest free-text reason of an adjustment, in bytes.
pub const REASON_BYTES_MAX: usize = 64;
/// Longest reference, in bytes.
pub const REFERENCE_BYTES_MAX: usize = 256;
/// Largest quantity of one movement, in units.
pub const QUANTITY_MAX: i64 = 1_000_000_000;
/// How far a movement may lie ahead of the log's time, in microseconds: five minutes.
pub const AHEAD_US_MAX: i64 = 5 * 60 * 1_000_000;
/// Latest time that can be stated, in microseconds since 1970: the end of the year 9999.
pub const TIME_US_MAX: i64 = 253_402_300_799_999_999;

/// Most movements in one message or call.
pub const BATCH_MOVEMENTS_MAX: usize = 1_000;
/// Most SKUs in one query.
pub const QUERY_SKUS_MAX: usize = 1_000;
/// Largest rules document, in bytes.
pub const RULES_BYTES_MAX: usize = 1 << 20;
/// Most channels in one rules document.
pub const CHANNELS_MAX: usize = 256;
/// Longest pattern for location names in the rules, in bytes.
pub const RULES_PATTERN_BYTES_MAX: usize = 128;
/// Largest `minimum` or `maximum` of a channel, in units.
pub const RULES_UNITS_MAX: i64 = 1_000_000_000_000_000;
/// Most errors, and most warnings, that one answer about a rules document lists.
pub const RULES_FINDINGS_MAX: usize = 100;
/// Most SKUs that a dry run of rules names for each channel.
pub const RULES_CHANGES_MAX: usize = 20;

/// Largest message that intake reads from the log, in bytes. NATS itself allows 1 MiB by default.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Largest record that an instance writes, in bytes: under the default `max_payload` of NATS.
pub const RECORD_BYTES_MAX: usize = 900 << 10;
/// Most movements gathered into one record.
pub const RECORD_MOVEMENTS_MAX: usize = 4_000;

/// Entries that are read from the log, and decoded, at once.
pub const FOLLOW_ENTRIES_MAX: usize = 512;
/// Decoded steps that may wait for the sequencer.
pub const SEQUENCER_QUEUE_STEPS_MAX: usize = 8;
/// Batches that may wait for a shard.
pub const SHARD_QUEUE_BATCHES_MAX: usize = 16;
/// Postings whose cache misses overlap.
pub const PREFETCH_POSTINGS: usize = 32;
/// SKUs of a query whose cache misses overlap.
pub const PREFETCH_QUERIES: usize = 32;

const _: () = assert!(RECORD_BYTES_MAX < 1 << 20 && RECORD_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(RECORD_MOVEMENTS_MAX >= BATCH_MOVEMENTS_MAX);
