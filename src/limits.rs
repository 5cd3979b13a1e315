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
/// Most lines of one reservation, and of one release.
pub const COMMAND_LINES_MAX: usize = 100;
/// Shortest time to live of a reservation, in microseconds: a second.
pub const TIME_TO_LIVE_US_MIN: i64 = 1_000_000;
/// Longest time to live of a reservation, in microseconds: seven days.
pub const TIME_TO_LIVE_US_MAX: i64 = 7 * 24 * 3_600 * 1_000_000;
/// Most commands remembered for their retries; more are refused.
pub const COMMANDS_REMEMBERED_MAX: usize = 10_000_000;
/// Largest document of channel rules, or of source authority, in bytes.
pub const RULES_BYTES_MAX: usize = 896 << 10;
/// Most channels in one rules document.
pub const CHANNELS_MAX: usize = 256;
/// Most sources in one document of source authority.
pub const AUTHORITY_SOURCES_MAX: usize = 1_000;
/// Longest pattern in a document, in bytes.
pub const RULES_PATTERN_BYTES_MAX: usize = 128;
/// Largest `minimum` or `maximum` of a channel, in units.
pub const RULES_UNITS_MAX: i64 = 1_000_000_000_000_000;
/// Most errors, and most warnings, that one answer about a document lists.
pub const RULES_FINDINGS_MAX: usize = 100;
/// Most SKUs that a dry run of rules names for each channel.
pub const RULES_CHANGES_MAX: usize = 20;

/// Longest name of who put a document, in bytes.
pub const ACTOR_BYTES_MAX: usize = 128;
/// Longest note, in bytes.
pub const NOTE_BYTES_MAX: usize = 512;
/// Exceptions of a page, if the caller does not say.
pub const EXCEPTIONS_PAGE_DEFAULT: u32 = 100;
/// Exceptions of a page, at most.
pub const EXCEPTIONS_PAGE_MAX: u32 = 1_000;
/// Most bytes of originals on one page, if it has more than one: clients take 4 MiB by default.
pub const EXCEPTIONS_PAGE_BYTES_MAX: usize = 2 << 20;
/// Reports of snapshots that are kept.
pub const REPORTS_KEPT_MAX: usize = 32;
/// Lines of a report that are kept: the largest.
pub const REPORT_LINES_KEPT_MAX: usize = 10_000;
/// Reports of which only some records have come; beyond it, the oldest is let go.
pub const REPORTS_UNFINISHED_MAX: usize = 8;
/// Lines of a report that name a difference which timing explains: the largest.
pub const REPORT_TIMING_LINES_MAX: usize = 1_000;
/// Locations and SKUs that the summary of a report names: those with the most units.
pub const REPORT_GROUPS_MAX: usize = 100;
/// Lines of a page of a report, if the caller does not say.
pub const REPORT_PAGE_DEFAULT: u32 = 1_000;
/// Lines of a page of a report, at most.
pub const REPORT_PAGE_MAX: u32 = 5_000;
/// Lines of one message of a snapshot, or of what was found.
pub const SNAPSHOT_MESSAGE_LINES_MAX: usize = 5_000;
/// Lines of one snapshot: 13 bytes are kept of each while it is compared.
pub const SNAPSHOT_LINES_MAX: u64 = 50_000_000;
/// Lines of a snapshot that are compared at once.
pub const SNAPSHOT_CHUNK_LINES: usize = 4_096;
/// Chunks of a snapshot that are compared, or wait for it, at once.
pub const SNAPSHOT_CHUNKS_MAX: usize = 4;
/// Bytes of a snapshot that is copied to a temporary file, as it cannot be read where it is.
pub const SNAPSHOT_COPY_BYTES_MAX: u64 = 8 << 30;
/// Patterns of the scope of a snapshot.
pub const SNAPSHOT_SCOPE_MAX: usize = 100;
/// Lines of a snapshot that an answer names as wrong; all others are counted.
pub const SNAPSHOT_FINDINGS_MAX: usize = 100;
/// Largest stated balance, in units, and the least is its negative.
pub const SNAPSHOT_UNITS_MAX: i64 = 1_000_000_000_000_000;
/// Largest clock tolerance, in milliseconds: an hour.
pub const CLOCK_TOLERANCE_MS_MAX: i64 = 3_600_000;
/// Snapshots that one instance compares at once.
pub const COMPARISONS_MAX: usize = 2;

/// Most webhooks in one document.
pub const WEBHOOKS_MAX: usize = 100;
/// Most webhooks whose progress the log keeps; more have no effect there.
pub const WEBHOOKS_KNOWN_MAX: usize = 1_000;
/// Longest name of a webhook, in bytes.
pub const WEBHOOK_NAME_BYTES_MAX: usize = 64;
/// Most numbers in one request of a webhook.
pub const WEBHOOK_BATCH_ITEMS_MAX: usize = 1_000;
/// SKUs that wait for one webhook, some 200 bytes each; beyond it no more are taken from the feed,
/// which conflates them.
pub const WEBHOOK_PENDING_SKUS_MAX: usize = 250_000;
/// Bytes that are read of a webhook's answer.
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 256 << 10;
/// Longest wait that a webhook's `Retry-After` may ask for, in seconds: an hour.
pub const WEBHOOK_RETRY_AFTER_S_MAX: u64 = 3_600;
/// Longest lease of a webhook, in milliseconds: ten minutes.
pub const WEBHOOK_LEASE_MS_MAX: u64 = 600_000;
/// Dead letters of one webhook; with as many, it gives up no more of them, and stops.
pub const DEAD_LETTERS_MAX: usize = 10_000;
/// Dead letters, and others that are settled, in one record of the log.
pub const DEAD_LETTERS_RECORD_MAX: usize = 1_000;
/// Longest reason of a dead letter, in bytes.
pub const DEAD_LETTER_REASON_BYTES_MAX: usize = 512;

/// New connections on their way to one of the threads that serve callers; more are accepted later.
pub const CONNECTIONS_HANDED_OVER_MAX: usize = 64;
/// How long nothing is accepted after a connection could not be, in milliseconds.
pub const ACCEPT_RETRY_MS: u64 = 50;

/// How long a connection that has ended is read from, for what its caller sent meanwhile, in
/// milliseconds: longer than a way there and back.
pub const CONNECTION_LINGER_MS: u64 = 1_000;

/// Bytes that a caller may send on one stream before they are read.
pub const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// The same of all streams of a connection. It also bounds what small messages cost beyond their
/// bytes: the HTTP/2 library ends a connection that has more of them waiting than half as many bytes
/// of bookkeeping, at up to 256 each. A caller who sends requests of 20 bytes on one stream, one by
/// one and without waiting for answers, fills the stream before that.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const _: () = assert!(STREAM_WINDOW_BYTES as u64 / 20 * 256 < CONNECTION_WINDOW_BYTES as u64 / 2);

/// Batches of one stream that are under way at once.
pub const STREAM_BATCHES_MAX: usize = 8;
/// Reservations of one stream that are under way at once.
pub const STREAM_RESERVATIONS_MAX: usize = 1_024;

/// Largest message that intake reads from the log, in bytes. NATS itself allows 1 MiB by default.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Largest record that an instance writes, in bytes: under the default `max_payload` of NATS.
pub const RECORD_BYTES_MAX: usize = 900 << 10;
/// Most movements gathered into one record.
pub const RECORD_MOVEMENTS_MAX: usize = 4_000;

/// Movements, or lines of commands, with which a record does not wait for more. What may be unapplied
/// is some records then, each of which is written, decoded, let in or applied while others are
/// elsewhere on the way; as one, it would go through all of that by itself.
pub const RECORD_LINES_FULL: usize = 256;
/// Movements, and lines of commands, that callers have written into the log and that are not applied
/// yet: some two milliseconds. What is beyond waits before the log, where commands go past it.
pub const UNAPPLIED_LINES_MAX: usize = 4_096;
/// As how many a movement counts there while commands wait, which wait for all that is before them in
/// the log: so less of them is. A record counts as this part of all, at most.
pub const MOVEMENTS_WEIGHT_BESIDE_COMMANDS: usize = 4;

/// At most one tick is written in this time, in microseconds.
pub const TICK_EVERY_US: i64 = 1_000_000;
/// How often it is looked whether a tick is due, in milliseconds.
pub const TICK_LOOK_EVERY_MS: u64 = 100;

/// Most bytes of parked movements that are held in memory; those before are in the log.
pub const PARKED_BYTES_MAX: usize = 64 << 20;

/// Entries that are read from the log, and decoded, at once.
pub const FOLLOW_ENTRIES_MAX: usize = 512;
/// Movements of one decoded step for each shard, those of one entry more or less: enough that handing
/// them over costs next to nothing, and so few that decoder, sequencer and shards work side by side.
pub const STEP_MOVEMENTS_OF_SHARD: usize = 512;
/// Movements of one decoded step, those of one entry more or less.
pub const STEP_MOVEMENTS_MAX: usize = 4_096;
/// Decoded steps that may wait for the sequencer.
pub const SEQUENCER_QUEUE_STEPS_MAX: usize = 8;
/// Batches that may wait for a shard.
pub const SHARD_QUEUE_BATCHES_MAX: usize = 16;
/// Lines of commands, or movements, that are done by who read them from the log if nothing waits
/// before them: some 100 µs. To hand them to other threads would take as long.
pub const AT_ONCE_LINES_MAX: usize = 128;
/// Bytes that the embedded log writes with one sync, and then has applied on the thread that wrote
/// them: some 80 reservations of a line. To apply more would delay the next sync, which releases of
/// large carts may, that have many lines in few bytes.
pub const ATTENDED_BYTES_MAX: usize = 8 << 10;
/// Postings whose cache misses overlap.
pub const PREFETCH_POSTINGS: usize = 32;
/// Commands whose cache misses overlap; most have a few lines.
pub const PREFETCH_COMMANDS: usize = 16;
/// SKUs of a query whose cache misses overlap.
pub const PREFETCH_QUERIES: usize = 64;

/// Changes of published numbers that a shard hands over at once: some milliseconds of its time.
pub const FEED_CUT_CHANGES_MAX: usize = 16 << 10;
/// Numbers of one update.
pub const FEED_UPDATE_NUMBERS_MAX: usize = 4_096;
/// Numbers of one part of a state, one part of the SKUs more or less: each receiver has its own.
pub const FEED_STATE_NUMBERS_MAX: usize = 1_024;
/// SKUs that one caller of `Watch` or `ReportShown` may name.
pub const FEED_SKUS_MAX: usize = 1_000;
/// Updates of a channel, from different places on, that receivers share until there is a newer one.
pub const FEED_UPDATES_MADE_MAX: usize = 64;
/// Longest time that a marketplace may take to apply what it accepted, in ms: a day.
pub const FEED_SETTLE_MS_MAX: u64 = 86_400_000;

/// How often it is looked whether a checkpoint is due, in milliseconds.
pub const CHECKPOINT_LOOK_EVERY_MS: u64 = 200;
/// A checkpoint of another instance is fetched if it spares a new one to read as many records.
pub const CHECKPOINT_FETCH_RECORDS_MIN: u64 = 100_000;
/// Bytes of what is saved that make a section of a checkpoint, one thing more or less. So few that
/// a query which wakes up where one is being written does not notice: some 20 us.
pub const CHECKPOINT_SECTION_BYTES: usize = 64 << 10;
/// How long a slice of the state may take, in microseconds, but for the last thing in it: a query, or
/// a batch of movements, that comes meanwhile waits so long.
pub const CHECKPOINT_SLICE_US: u64 = 50;
/// A slice that took longer, in microseconds, was mostly interrupted, by those for whom it would rest:
/// it rests as if it had taken so long.
pub const CHECKPOINT_SLICE_RESTED_US_MAX: u64 = 4 * CHECKPOINT_SLICE_US;
/// Times as long as saving a slice of the state took, the next slice waits: so a checkpoint takes
/// a thirtieth of a processor from each shard, and the thread that writes it no more than keeps up.
/// With a tenth, the 99th percentile of queries was one and a half times that without a checkpoint
/// (`benches/checkpoint.rs`).
pub const CHECKPOINT_REST_FACTOR: u32 = 29;
/// How often the sequencer looks for work while it rests between slices, in microseconds.
pub const CHECKPOINT_REST_LOOK_US: u64 = 200;
/// How far the thread that writes a checkpoint lets others go before it, -20 to 19. Not to the end:
/// where all processors are busy, what waits to be written would grow.
pub const CHECKPOINT_NICENESS: i32 = 5;
/// Bytes of a checkpoint that are written at once.
pub const CHECKPOINT_WRITE_BYTES: usize = 512 << 10;
/// Bytes of a checkpoint after which it is synced, where it is written through the page cache.
pub const CHECKPOINT_SYNC_BYTES: u64 = 32 << 20;
/// How often it is looked whether there is something to write or to count, in milliseconds: to be
/// woken for each section would take longer than to write it, of the shard's writer, too.
pub const CHECKPOINT_WRITE_EVERY_MS: u64 = 10;
/// Sections that may wait to be written into a checkpoint.
pub const CHECKPOINT_QUEUE_MESSAGES_MAX: usize = 256;
/// Written sections that may wait to be counted; more are counted by who writes them.
pub const CHECKPOINT_COUNTED_SECTIONS_MAX: usize = 64;
/// Most bytes that a writer holds of what it had to save before it changed; beyond it, it waits for
/// the disk.
pub const OUTLET_BYTES_MAX: usize = 64 << 20;

/// Size of one file of the embedded log, in bytes; `trim` frees whole files.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Bytes of a file of the embedded log that get their blocks on the disk at once.
pub const ALLOCATED_BYTES: usize = 64 << 10;
/// Most records that the embedded log writes with one sync.
pub const GROUP_RECORDS_MAX: usize = 1_024;
/// Most bytes that the embedded log writes with one sync, one record more or less.
pub const GROUP_BYTES_MAX: usize = 8 << 20;
/// Most bytes of records that wait for the embedded log's writer.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Most bytes of recent entries that the embedded log keeps in memory for its readers.
pub const TAIL_BYTES_MAX: usize = 32 << 20;
/// Most recent entries that the embedded log keeps in memory for its readers.
pub const TAIL_ENTRIES_MAX: usize = 64 << 10;
/// What a reader of the embedded log takes from a file at once, in bytes.
pub const READ_BYTES: usize = 1 << 20;

/// Most records published to JetStream and not yet acknowledged.
pub const PUBLISH_IN_FLIGHT_MAX: usize = 512;
/// Messages that a reader asks JetStream for at once.
pub const PULL_MESSAGES: usize = 32 << 10;
/// Bytes that a reader asks JetStream for at once.
pub const PULL_BYTES: usize = 32 << 20;
/// Messages that the NATS client holds for a reader; it drops what comes beyond.
pub const SUBSCRIPTION_MESSAGES_MAX: usize = 64 << 10;
/// Most names of producers that a reader keeps, so as not to allocate one for each message.
pub const SOURCES_CACHED_MAX: usize = 1_024;

const _: () = assert!(GROUP_BYTES_MAX + RECORD_BYTES_MAX < SEGMENT_BYTES as usize / 2);
const _: () = assert!(RECORD_BYTES_MAX < QUEUE_BYTES_MAX);
// What one request brings has to find room, and the server's status messages beside it.
const _: () = assert!(PULL_MESSAGES + PULL_MESSAGES / 2 < SUBSCRIPTION_MESSAGES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX < PULL_BYTES);
const _: () = assert!(RECORD_BYTES_MAX < 1 << 20 && RECORD_BYTES_MAX < MESSAGE_BYTES_MAX);
// A message that cannot be read at all is kept whole.
const _: () = assert!(MESSAGE_BYTES_MAX < PARKED_BYTES_MAX);
// Rules are one record, with a few bytes of framing.
const _: () = assert!(RULES_BYTES_MAX + ACTOR_BYTES_MAX + NOTE_BYTES_MAX + 100 < RECORD_BYTES_MAX);
const _: () = assert!(RECORD_MOVEMENTS_MAX >= BATCH_MOVEMENTS_MAX);
const _: () = assert!(UNAPPLIED_LINES_MAX >= RECORD_MOVEMENTS_MAX);
// Several full records are on their way, beside commands, too.
const _: () =
    assert!(RECORD_LINES_FULL * MOVEMENTS_WEIGHT_BESIDE_COMMANDS * 2 <= UNAPPLIED_LINES_MAX);
// A dead letter has a few numbers, too, and so many SKUs may be settled beside them.
const _: () = assert!(
    DEAD_LETTERS_RECORD_MAX * (2 * SKU_BYTES_MAX + DEAD_LETTER_REASON_BYTES_MAX + 64)
        < RECORD_BYTES_MAX
);
