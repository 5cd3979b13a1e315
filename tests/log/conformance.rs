//! Every engine keeps the log's contract.

use std::sync::Arc;

use async_trait::async_trait;
use sellable::{
    limits,
    log::{
        Log, conformance,
        conformance::LogFactory,
        embedded::{self, EmbeddedLog, FsyncPolicy},
        jetstream::{self, JetStreamLog},
        memory::{Faults, MemoryLog},
    },
};

use crate::nats::NatsServer;

struct Embedded {
    dir: tempfile::TempDir,
    fsync: FsyncPolicy,
    tail_bytes_max: usize,
}

impl Embedded {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            fsync: FsyncPolicy::Always,
            tail_bytes_max: limits::TAIL_BYTES_MAX,
        }
    }
}

#[async_trait]
impl LogFactory for Embedded {
    async fn open(&mut self) -> Arc<dyn Log> {
        let mut options = embedded::Options::new(self.dir.path());
        options.fsync = self.fsync;
        options.tail_bytes_max = self.tail_bytes_max;
        // Small, so that every case crosses from file to file.
        options.segment_bytes = 2 * limits::RECORD_BYTES_MAX as u64;
        Arc::new(EmbeddedLog::open(options).expect("opens"))
    }
}

struct JetStream(NatsServer);

#[async_trait]
impl LogFactory for JetStream {
    async fn open(&mut self) -> Arc<dyn Log> {
        let options = jetstream::Options::new(self.0.url());
        Arc::new(JetStreamLog::open(options).await.expect("opens"))
    }
}

struct Memory(MemoryLog);

#[async_trait]
impl LogFactory for Memory {
    async fn open(&mut self) -> Arc<dyn Log> {
        Arc::new(self.0.clone())
    }
}

/// Runs the suite as one test for each case.
macro_rules! conformance {
    ($engine:ident, $factory:expr) => {
        conformance! { $engine, $factory =>
            an_empty_log_is_waited_for
            entries_come_back_unchanged
            a_record_that_is_too_large_is_refused
            who_sends_is_told_only_of_a_failure
            concurrent_appends_get_positions_of_their_own
            what_was_acknowledged_can_be_read
            readers_follow_the_tail_and_agree
            a_dropped_next_loses_nothing
            a_restart_keeps_everything
            trimming_forgets_only_what_is_old
            a_position_beyond_the_end_is_another_log
            an_anchor_tells_logs_apart
        }
    };
    ($engine:ident, $factory:expr => $($case:ident)+) => {
        mod $engine {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    conformance::$case(&mut $factory).await;
                }
            )+
        }
    };
}

conformance!(embedded_always, Embedded::new());
conformance!(
    embedded_interval,
    Embedded {
        fsync: FsyncPolicy::Interval(std::time::Duration::from_millis(5)),
        ..Embedded::new()
    }
);
conformance!(
    embedded_os_without_tail,
    Embedded {
        fsync: FsyncPolicy::Os,
        tail_bytes_max: 0,
        ..Embedded::new()
    }
);
conformance!(on_jetstream, JetStream(NatsServer::start()));
conformance!(in_memory, Memory(MemoryLog::new()));
conformance!(
    in_memory_delayed,
    Memory(MemoryLog::with_faults(Faults {
        seed: 7,
        ack_delay_max: std::time::Duration::from_millis(3),
        ..Faults::default()
    }))
);
