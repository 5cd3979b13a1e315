//! A log in memory, for tests: it does on demand, from a seed, what real logs do on bad days.
//!
//! Clones share one log, so a test keeps a handle to it while the service under test has another,
//! and "restarts" by opening a service on the same log again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use super::{
    Anchor, AppendError, Bounds, Entry, Identity, Lane, Log, LogError, Position, Reader, check_from,
};
use crate::{domain::movement::TimeUs, limits};

/// What goes wrong at random, how often in a thousand. Equal seeds and equal calls give equal
/// faults. The default is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// What the faults are drawn from; print it when a test fails.
    pub seed: u64,
    /// An append waits up to this long for its answer; readers may see the entry before.
    pub ack_delay_max: Duration,
    /// The record is stored, and the append says [`AppendError::Unconfirmed`].
    pub unconfirmed_but_stored_per_mille: u16,
    /// The record is not stored, and the append says [`AppendError::Unconfirmed`].
    pub unconfirmed_and_lost_per_mille: u16,
    /// A reader ends with [`LogError::Unavailable`] instead of reading.
    pub reader_error_per_mille: u16,
}

/// The log in memory.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counts changes, to wake readers.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    identity: Identity,
    first: Position,
    entries: VecDeque<Entry>,
    faults: Faults,
    random: u64,
    clock_us: Option<TimeUs>,
    poison: Option<String>,
    /// What every open reader ends with.
    reader_error: Option<(u64, LogError)>,
}

impl State {
    fn last(&self) -> Position {
        self.first + self.entries.len() as u64 - 1
    }

    /// The next random number: a Weyl sequence, mixed.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }

    fn happens(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.random() % 1_000 < u64::from(per_mille)
    }

    fn now_us(&self) -> TimeUs {
        self.clock_us.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| since.as_micros() as TimeUs)
        })
    }

    fn push(&mut self, lane: Lane, payload: Bytes) -> Position {
        let position = self.last() + 1;
        let time_us = self.now_us();
        self.entries.push_back(Entry {
            position,
            time_us,
            lane,
            payload,
        });
        position
    }

    fn get(&self, position: Position) -> Option<&Entry> {
        let index = position.checked_sub(self.first)?;
        self.entries.get(index as usize)
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// An empty log without faults.
    pub fn new() -> Self {
        Self::with_faults(Faults::default())
    }

    /// An empty log with faults.
    pub fn with_faults(faults: Faults) -> Self {
        let mut state = State {
            identity: Identity {
                engine: "memory",
                name: "memory".into(),
                created_us: 0,
                id: 0,
            },
            first: 1,
            entries: VecDeque::new(),
            random: faults.seed,
            faults,
            clock_us: None,
            poison: None,
            reader_error: None,
        };
        state.identity.created_us = state.now_us();
        state.identity.id = state.random();
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changes: watch::Sender::new(0),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    fn changed(&self) {
        self.shared.changes.send_modify(|changes| *changes += 1);
    }

    /// Replaces the faults, and starts them anew from their seed.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state();
        state.random = faults.seed;
        state.faults = faults;
    }

    /// Sets the time that entries get from now on; `None`: that of the machine. It may step back.
    pub fn set_clock(&self, time_us: Option<TimeUs>) {
        self.state().clock_us = time_us;
    }

    /// Stores an entry as if a producer had published it to the log itself.
    pub fn publish(&self, lane: Lane, payload: Bytes) -> Position {
        let position = self.state().push(lane, payload);
        self.changed();
        position
    }

    /// Loses all entries above `last`, as a log does that is restored from an older backup.
    /// Readers that were further end with [`LogError::Diverged`].
    pub fn cut_tail(&self, last: Position) {
        let mut state = self.state();
        let kept = (last + 1).saturating_sub(state.first) as usize;
        state.entries.truncate(kept);
        drop(state);
        self.changed();
    }

    /// Deletes the log and makes it anew, with another identity.
    pub fn recreate(&self) {
        let mut state = self.state();
        state.first = 1;
        state.entries.clear();
        state.identity.id = state.random();
        state.identity.created_us = state.now_us();
        drop(state);
        self.changed();
    }

    /// Ends every open reader with this error; ones made later are not affected.
    pub fn fail_readers(&self, error: LogError) {
        let mut state = self.state();
        let generation = state.reader_error.as_ref().map_or(0, |error| error.0) + 1;
        state.reader_error = Some((generation, error));
        drop(state);
        self.changed();
    }

    /// Poisons the log, as a failed sync does: no append succeeds until [`MemoryLog::restart`].
    pub fn poison(&self, reason: impl Into<String>) {
        self.state().poison = Some(reason.into());
    }

    /// Takes the poison away, as a restart of the process does.
    pub fn restart(&self) {
        self.state().poison = None;
    }
}

impl Shared {
    /// A panic in a test must not hide behind a second one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Log for MemoryLog {
    fn identity(&self) -> Identity {
        self.state().identity.clone()
    }

    async fn append(&self, record: Bytes) -> Result<Position, AppendError> {
        if record.len() > limits::RECORD_BYTES_MAX {
            return Err(AppendError::TooLarge {
                bytes: record.len(),
                bytes_max: limits::RECORD_BYTES_MAX,
            });
        }
        let (answer, delay) = {
            let mut state = self.state();
            if let Some(reason) = &state.poison {
                return Err(AppendError::Poisoned(reason.clone()));
            }
            let delay = state.faults.ack_delay_max;
            let delay = match delay.is_zero() {
                true => delay,
                false => delay.mul_f64(state.random() as f64 / u64::MAX as f64),
            };
            let lost = state.faults.unconfirmed_and_lost_per_mille;
            let hidden = state.faults.unconfirmed_but_stored_per_mille;
            if state.happens(lost) {
                let what = "injected: not stored".into();
                (Err(AppendError::Unconfirmed(what)), delay)
            } else {
                let position = state.push(Lane::Record, record);
                let what = "injected: stored".into();
                match state.happens(hidden) {
                    true => (Err(AppendError::Unconfirmed(what)), delay),
                    false => (Ok(position), delay),
                }
            }
        };
        self.changed();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        answer
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        let state = self.state();
        Ok(Bounds {
            first: state.first,
            last: state.last(),
        })
    }

    async fn reader(&self, from: Position) -> Result<Box<dyn Reader>, LogError> {
        assert!(from >= 1, "the first position is 1");
        let state = self.state();
        check_from(from, state.first, state.last())?;
        Ok(Box::new(MemoryReader {
            shared: self.shared.clone(),
            changes: self.shared.changes.subscribe(),
            identity: state.identity.clone(),
            generation: state.reader_error.as_ref().map_or(0, |error| error.0),
            next: from,
            anchor: None,
        }))
    }

    async fn trim(&self, below: Position) -> Result<(), LogError> {
        let mut state = self.state();
        while state.first < below && state.entries.pop_front().is_some() {
            state.first += 1;
        }
        drop(state);
        self.changed();
        Ok(())
    }

    fn not_writable(&self) -> Option<String> {
        self.state().poison.clone()
    }
}

struct MemoryReader {
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    identity: Identity,
    generation: u64,
    next: Position,
    anchor: Option<Anchor>,
}

impl MemoryReader {
    /// What there is to read now.
    fn take(&mut self, entries_max: usize) -> Result<Vec<Entry>, LogError> {
        let mut state = self.shared.state();
        if let Some((generation, error)) = &state.reader_error
            && *generation != self.generation
        {
            return Err(error.clone());
        }
        if state.identity != self.identity {
            return Err(LogError::Diverged(
                "the log was deleted and made anew".into(),
            ));
        }
        check_from(self.next, state.first, state.last())?;
        if let Some(anchor) = self.anchor
            && let Some(entry) = state.get(anchor.position)
            && entry.hash() != anchor.hash
        {
            let what = format!("position {} holds another entry", anchor.position);
            return Err(LogError::Diverged(what));
        }
        if self.next > state.last() {
            return Ok(Vec::new());
        }
        let error_per_mille = state.faults.reader_error_per_mille;
        if state.happens(error_per_mille) {
            return Err(LogError::Unavailable("injected".into()));
        }
        let start = (self.next - state.first) as usize;
        let end = state.entries.len().min(start.saturating_add(entries_max));
        Ok(state.entries.range(start..end).cloned().collect())
    }
}

#[async_trait]
impl Reader for MemoryReader {
    async fn next(&mut self, entries_max: usize) -> Result<Vec<Entry>, LogError> {
        assert!(entries_max > 0);
        loop {
            self.changes.mark_unchanged();
            let entries = self.take(entries_max)?;
            if let Some(last) = entries.last() {
                self.next = last.position + 1;
                self.anchor = Some(last.anchor());
                return Ok(entries);
            }
            let closed = |_| LogError::Unavailable("it was closed".into());
            self.changes.changed().await.map_err(closed)?;
        }
    }
}
