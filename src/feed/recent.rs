//! The last change of each SKU of a channel, in the order in which they came.
//!
//! What a receiver has not had yet is what comes behind its place here, each SKU once: conflation
//! costs a receiver nothing but a number. So many SKUs are kept; who falls further back begins with
//! the state anew.

use std::{collections::VecDeque, sync::Arc};

use hashbrown::HashMap;

use super::Number;
use crate::log::Position;

/// One change.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Its number, counted from 0 in the order in which changes came.
    no: u64,
    pub(super) number: Number,
    /// The number is that of here.
    pub(super) as_of: Position,
    /// Everything up to here came before it.
    after: Position,
    /// No newer change of the same SKU has come.
    is_last: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Recent {
    entries: VecDeque<Entry>,
    last: HashMap<Arc<str>, u64>,
    next_no: u64,
    /// All changes later than this position are known …
    known_after: Position,
    /// … and all from this number on.
    known_from: u64,
    kept_max: usize,
}

/// Some of the changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Collected {
    pub(super) numbers: Vec<Number>,
    /// Where to go on.
    pub(super) next_no: u64,
    /// Everything up to here is in them, or was before; `None`: there are no more.
    pub(super) complete_to: Option<Position>,
    /// Changes that were passed over because a newer one has come.
    pub(super) conflated: u64,
}

impl Recent {
    /// Knows all changes later than a position, of which there are none yet.
    pub(super) fn new(known_after: Position, kept_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            last: HashMap::new(),
            next_no: 0,
            known_after,
            known_from: 0,
            kept_max: kept_max.max(1),
        }
    }

    /// A change has come: the number is that of `as_of`, and everything up to `after` came before.
    pub(super) fn put(&mut self, number: Number, as_of: Position, after: Position) {
        let no = self.next_no;
        self.next_no += 1;
        let before = self.last.insert(Arc::clone(&number.sku), no);
        if let Some(at) = before.and_then(|before| self.place(before)) {
            self.entries[at].is_last = false;
        }
        self.entries.push_back(Entry {
            no,
            number,
            as_of,
            after,
            is_last: true,
        });
        while self.last.len() > self.kept_max {
            self.forget_first();
        }
        if self.entries.len() > 2 * self.kept_max {
            self.entries.retain(|entry| entry.is_last);
        }
    }

    fn forget_first(&mut self) {
        let Some(entry) = self.entries.pop_front() else {
            return;
        };
        if entry.is_last {
            self.last.remove(&entry.number.sku);
            self.known_after = self.known_after.max(entry.as_of);
            self.known_from = entry.no + 1;
        }
    }

    fn place(&self, no: u64) -> Option<usize> {
        // Nearly always none was taken out of the middle.
        let first = self.entries.front()?.no;
        let at = usize::try_from(no.checked_sub(first)?).ok()?;
        if self.entries.get(at).is_some_and(|entry| entry.no == no) {
            return Some(at);
        }
        let at = self.entries.partition_point(|entry| entry.no < no);
        (self.entries.get(at)?.no == no).then_some(at)
    }

    /// The number that the next change will have.
    pub(super) fn next_no(&self) -> u64 {
        self.next_no
    }

    /// SKUs whose last change is kept.
    pub(super) fn len(&self) -> usize {
        self.last.len()
    }

    /// All changes later than this position are known.
    pub(super) fn known_after(&self) -> Position {
        self.known_after
    }

    /// The number of the first change later than a position; `None` if some of them are not known any
    /// more.
    pub(super) fn first_after(&self, position: Position) -> Option<u64> {
        if position < self.known_after {
            return None;
        }
        let at = self
            .entries
            .partition_point(|entry| entry.as_of <= position);
        Some(self.entries.get(at).map_or(self.next_no, |entry| entry.no))
    }

    /// Whether all changes from this number on are known.
    pub(super) fn knows_from(&self, no: u64) -> bool {
        no >= self.known_from
    }

    /// The last change of a SKU, if it is kept.
    pub(super) fn of(&self, sku: &str) -> Option<&Entry> {
        self.entries.get(self.place(*self.last.get(sku)?)?)
    }

    /// Changes from a number on, at most so many.
    pub(super) fn collect(&self, from: u64, max: usize) -> Collected {
        let begin = self.entries.partition_point(|entry| entry.no < from);
        let mut collected = Collected {
            numbers: Vec::new(),
            next_no: self.next_no,
            complete_to: None,
            conflated: 0,
        };
        for entry in self.entries.range(begin..) {
            if !entry.is_last {
                collected.conflated += 1;
                continue;
            }
            if collected.numbers.len() == max {
                collected.next_no = entry.no;
                collected.complete_to = Some(entry.after);
                break;
            }
            collected.numbers.push(entry.number.clone());
        }
        collected
    }

    /// The changes of these SKUs from a number on.
    pub(super) fn collect_of(&self, skus: &[Arc<str>], from: u64) -> Collected {
        let found = skus.iter().filter_map(|sku| self.of(sku));
        let numbers = found
            .filter(|entry| entry.no >= from)
            .map(|entry| entry.number.clone());
        Collected {
            numbers: numbers.collect(),
            next_no: self.next_no,
            complete_to: None,
            conflated: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn number(sku: &str, units: i64) -> Number {
        Number {
            sku: sku.into(),
            units,
            before: None,
            logged_us: 0,
            occurred_us: 0,
        }
    }

    fn shown(collected: &Collected) -> Vec<(&str, i64)> {
        let numbers = collected.numbers.iter();
        numbers.map(|own| (&*own.sku, own.units)).collect()
    }

    #[test]
    fn of_several_changes_of_a_sku_the_last_is_left() {
        let mut recent = Recent::new(10, 100);
        for (sku, units, as_of, after) in [("A", 1, 11, 10), ("B", 2, 12, 11), ("A", 3, 13, 12)] {
            recent.put(number(sku, units), as_of, after);
        }
        let all = recent.collect(0, 10);
        assert_eq!(shown(&all), [("B", 2), ("A", 3)]);
        assert_eq!((all.next_no, all.complete_to, all.conflated), (3, None, 1));
        let first = recent.collect(0, 1);
        assert_eq!(shown(&first), [("B", 2)]);
        assert_eq!((first.next_no, first.complete_to), (2, Some(12)));
        assert_eq!(recent.first_after(12), Some(2));
        assert_eq!(recent.first_after(13), Some(3));
        assert_eq!(recent.first_after(9), None);
        assert_eq!(
            shown(&recent.collect_of(&["A".into(), "C".into()], 0)),
            [("A", 3)]
        );
        assert_eq!(shown(&recent.collect_of(&["B".into()], 2)), []);
    }

    #[test]
    fn who_falls_behind_what_is_kept_is_told() {
        let mut recent = Recent::new(0, 2);
        for (n, sku) in ["A", "B", "B", "B", "C"].into_iter().enumerate() {
            let position = n as Position + 1;
            recent.put(number(sku, 1), position, position - 1);
        }
        assert_eq!(recent.len(), 2);
        assert!(!recent.knows_from(0) && recent.knows_from(1));
        assert_eq!(recent.first_after(0), None);
        assert_eq!(recent.first_after(1), Some(3));
        assert_eq!(shown(&recent.collect(1, 9)), [("B", 1), ("C", 1)]);
    }

    proptest! {
        /// Whoever resumes anywhere, and takes however few at once, ends with the newest numbers,
        /// and each position it was told is true.
        #[test]
        fn nothing_is_missed(
            changes in prop::collection::vec((0..12u8, 0..3i64, 0..3u64), 0..120),
            kept_max in 1..14usize,
            max in 1..5usize,
            resume in 0..120u64,
        ) {
            let mut recent = Recent::new(0, kept_max);
            // Numbers by SKU, as of each position.
            let mut as_of: Vec<BTreeMap<String, i64>> = vec![BTreeMap::new()];
            let (mut position, mut after) = (0, 0);
            for (sku, units, step) in changes {
                if step > 0 {
                    after = position;
                    position += 1;
                    as_of.push(as_of[position as usize - 1].clone());
                }
                let sku = sku.to_string();
                recent.put(number(&sku, units), position.max(1), after);
                if position == 0 {
                    position = 1;
                    as_of.push(BTreeMap::new());
                }
                as_of[position as usize].insert(sku, units);
            }
            let resume = resume.min(position);
            if let Some(mut no) = recent.first_after(resume) {
                let mut held = as_of[resume as usize].clone();
                loop {
                    let collected = recent.collect(no, max);
                    for number in &collected.numbers {
                        held.insert(number.sku.to_string(), number.units);
                    }
                    no = collected.next_no;
                    let Some(complete_to) = collected.complete_to else { break };
                    // All that changed up to there, and never again, is there.
                    for (sku, units) in &as_of[complete_to as usize] {
                        let later = as_of[complete_to as usize..].iter().any(|all| all.get(sku) != Some(units));
                        prop_assert!(later || held.get(sku) == Some(units));
                    }
                }
                prop_assert_eq!(&held, as_of.last().unwrap());
            }
            prop_assert!(recent.len() <= kept_max);
        }
    }
}
