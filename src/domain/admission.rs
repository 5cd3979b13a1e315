//! Admission: lets each movement in once, in log order.

use std::collections::VecDeque;

use super::{
    exceptions::ParkedKind,
    keys::MovementKey,
    movement::TimeUs,
    remembered::{Known, RememberedIds, RememberedOutcome},
    saved::{Broken, Input, Output},
};
use crate::limits;

/// Epochs that make up the horizon.
const EPOCHS: i64 = 64;

/// For how long, and how many, ids are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// By the log's time of their arrival, in microseconds.
    pub us: i64,
    /// In number, at most; the oldest are forgotten first.
    pub ids_max: u64,
}

impl Horizon {
    /// Seven days, and 200 million ids (4.6 GB at the most).
    pub const DEFAULT: Self = Self {
        us: 7 * 24 * 3_600 * 1_000_000,
        ids_max: 200_000_000,
    };
}

/// What is to be done with a movement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// New: apply it.
    Apply,
    /// Known with equal content: nothing changes; this was its outcome.
    Repeat(RememberedOutcome),
    /// Park it.
    Park(ParkedKind),
}

/// The gate before the books. Sees all movements of the log, in order, whatever the number of
/// shards, since an id may come again with another SKU.
#[derive(Debug)]
pub struct Admission {
    ids: RememberedIds,
    horizon: Horizon,
    now_us: TimeUs,
    /// Epochs with arrivals, and how many.
    arrivals: VecDeque<(u64, u64)>,
    /// Sum of the arrivals.
    live: u64,
    /// Ids that arrived before this have been forgotten.
    forgotten_before_us: Option<TimeUs>,
}

impl Admission {
    /// A gate that has seen nothing.
    pub fn new(horizon: Horizon) -> Self {
        Self {
            ids: RememberedIds::default(),
            horizon,
            now_us: 0,
            arrivals: VecDeque::new(),
            live: 0,
            forgotten_before_us: None,
        }
    }

    /// The log's time moves on to `now_us`. It never steps back: an earlier time is ignored.
    pub fn advance(&mut self, now_us: TimeUs) {
        self.now_us = self.now_us.max(now_us);
        let epoch = self.epoch_of(self.now_us);
        if self.arrivals.back().is_some_and(|(last, _)| *last == epoch) {
            return;
        }
        self.arrivals.push_back((epoch, 0));
        let oldest = epoch.saturating_sub(EPOCHS as u64);
        while self
            .arrivals
            .front()
            .is_some_and(|(first, _)| *first < oldest)
        {
            self.forget_oldest();
        }
        self.ids.advance(epoch, oldest.max(self.first_epoch()));
    }

    /// Decides about one movement that arrives now.
    pub fn admit(&mut self, key: MovementKey, content: u64, occurred_us: TimeUs) -> Verdict {
        let stale = self.is_stale(occurred_us);
        let outcome = if stale {
            RememberedOutcome::Stale
        } else {
            RememberedOutcome::Applied
        };
        match self.ids.check_and_remember(key, content, outcome) {
            Known::Repeat(outcome) => Verdict::Repeat(outcome),
            Known::Conflict => Verdict::Park(ParkedKind::ConflictingDuplicate),
            Known::New => {
                self.count_arrival();
                if stale {
                    Verdict::Park(ParkedKind::Stale)
                } else {
                    Verdict::Apply
                }
            }
        }
    }

    /// Whether what occurred then cannot be proved new.
    pub fn is_stale(&self, occurred_us: TimeUs) -> bool {
        // A movement may lie ahead of the log's time, so one that occurred a little after the
        // time up to which ids are forgotten may be among the forgotten, too.
        self.forgotten_before_us
            .is_some_and(|before| occurred_us < before.saturating_add(limits::AHEAD_US_MAX))
    }

    /// Whether this is known with equal content. Remembers nothing.
    pub fn is_repeat(&self, key: MovementKey, content: u64) -> bool {
        self.ids.is_repeat(key, content)
    }

    /// Brings what [`Admission::admit`] will read into the cache.
    #[inline]
    pub fn prefetch(&self, key: MovementKey) {
        self.ids.prefetch(key);
    }

    /// Ids that arrived before this have been forgotten; `None`: none have.
    pub fn forgotten_before_us(&self) -> Option<TimeUs> {
        self.forgotten_before_us
    }

    /// The log's time.
    pub fn now_us(&self) -> TimeUs {
        self.now_us
    }

    /// All of it, as it is now, is to be saved: puts everything but the ids, which follow slice by
    /// slice.
    ///
    /// # Panics
    /// If that is under way already.
    pub fn begin_saving(&mut self, output: &mut Output) {
        output.i64(self.now_us);
        output.count(self.arrivals.len());
        for (epoch, count) in &self.arrivals {
            output.u64(*epoch);
            output.u64(*count);
        }
        output.u64(self.live);
        output.option(self.forgotten_before_us, Output::i64);
        self.ids.begin_saving(output);
    }

    /// Saves more ids. True if there are more to save.
    pub fn save_slice(&mut self) -> bool {
        self.ids.save_slice()
    }

    /// Ids that were saved and not yet taken.
    pub fn saved_ids(&mut self) -> &mut Output {
        self.ids.saved()
    }

    /// Takes back everything but the ids.
    ///
    /// # Errors
    /// If these bytes were not saved so.
    pub fn load(horizon: Horizon, input: &mut Input<'_>) -> Result<Self, Broken> {
        let mut gate = Self::new(horizon);
        gate.now_us = input.i64()?;
        for _ in 0..input.count()? {
            gate.arrivals.push_back((input.u64()?, input.u64()?));
        }
        gate.live = input.u64()?;
        gate.forgotten_before_us = input.option(Input::i64)?;
        gate.ids = RememberedIds::load(input)?;
        Ok(gate)
    }

    /// Takes back saved ids.
    ///
    /// # Errors
    /// If these bytes were not saved so.
    pub fn take_back_ids(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.ids.take_back(bytes)
    }

    /// All saved ids have been taken back.
    pub fn all_ids_taken_back(&mut self) {
        self.ids.all_taken_back();
    }

    /// Ids remembered.
    pub fn ids(&self) -> &RememberedIds {
        &self.ids
    }

    fn count_arrival(&mut self) {
        self.live += 1;
        let Some(last) = self.arrivals.back_mut() else {
            let epoch = self.epoch_of(self.now_us);
            self.arrivals.push_back((epoch, 1));
            return;
        };
        last.1 += 1;
        let epoch = last.0;
        // The last epoch stays, however many it has: it is bounded by the next one's start.
        if self.live > self.horizon.ids_max && self.arrivals.len() > 1 {
            self.forget_oldest();
            self.ids.advance(epoch, self.first_epoch());
        }
    }

    fn forget_oldest(&mut self) {
        let Some((epoch, count)) = self.arrivals.pop_front() else {
            return;
        };
        self.live -= count;
        if count > 0 {
            self.forgotten_before_us = Some((epoch as i64 + 1) * self.epoch_us());
        }
    }

    fn first_epoch(&self) -> u64 {
        self.arrivals.front().map_or(0, |(epoch, _)| *epoch)
    }

    fn epoch_of(&self, us: TimeUs) -> u64 {
        (us / self.epoch_us()) as u64
    }

    fn epoch_us(&self) -> i64 {
        (self.horizon.us / EPOCHS).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600 * 1_000_000;
    const START: i64 = 1_000_000 * HOUR;

    fn key(n: u64) -> MovementKey {
        MovementKey(xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes()))
    }

    fn gate(hours: i64, ids_max: u64) -> Admission {
        let mut gate = Admission::new(Horizon {
            us: hours * HOUR,
            ids_max,
        });
        gate.advance(START);
        gate
    }

    #[test]
    fn a_young_log_takes_years_of_history() {
        let mut gate = gate(64, 1_000_000);
        assert_eq!(gate.admit(key(1), 1, 0), Verdict::Apply);
        assert_eq!(gate.forgotten_before_us(), None);
    }

    #[test]
    fn what_cannot_be_proved_new_is_stale() {
        let mut gate = gate(64, 1_000_000);
        assert_eq!(gate.admit(key(1), 1, START), Verdict::Apply);
        gate.advance(START + 60 * HOUR);
        assert_eq!(
            gate.admit(key(1), 1, START),
            Verdict::Repeat(RememberedOutcome::Applied)
        );
        gate.advance(START + 66 * HOUR);
        assert_eq!(gate.forgotten_before_us(), Some(START + HOUR));
        // The same movement again, and a new one of that time: neither can be proved new.
        assert_eq!(
            gate.admit(key(1), 1, START),
            Verdict::Park(ParkedKind::Stale)
        );
        assert_eq!(
            gate.admit(key(2), 1, START),
            Verdict::Park(ParkedKind::Stale)
        );
        assert_eq!(
            gate.admit(key(2), 1, START),
            Verdict::Repeat(RememberedOutcome::Stale)
        );
        assert_eq!(gate.admit(key(3), 1, START + 2 * HOUR), Verdict::Apply);
    }

    #[test]
    fn a_movement_ahead_of_the_log_is_not_applied_twice() {
        let mut gate = gate(64, 1_000_000);
        gate.advance(START + HOUR - 1);
        // Occurs five minutes after its own arrival, which is in the next epoch.
        let occurred = START + HOUR - 1 + limits::AHEAD_US_MAX;
        assert_eq!(gate.admit(key(1), 1, occurred), Verdict::Apply);
        gate.advance(START + 66 * HOUR);
        assert_eq!(
            gate.admit(key(1), 1, occurred),
            Verdict::Park(ParkedKind::Stale)
        );
    }

    #[test]
    fn ids_are_bounded_in_number() {
        let mut gate = gate(64, 10);
        for n in 0..8 {
            assert_eq!(gate.admit(key(n), 1, START), Verdict::Apply);
        }
        gate.advance(START + HOUR);
        for n in 8..11 {
            assert_eq!(gate.admit(key(n), 1, START + HOUR), Verdict::Apply);
        }
        assert_eq!(gate.forgotten_before_us(), Some(START + HOUR));
    }

    #[test]
    fn time_never_steps_back() {
        let mut gate = gate(64, 10);
        gate.advance(START - 10 * HOUR);
        assert_eq!(gate.now_us(), START);
    }
}
