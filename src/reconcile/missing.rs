//! Cells that a snapshot lacks, though it says that it is complete where they are.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    cells::{Cells, location_hash},
    comparison::Batch,
};
use crate::{
    domain::{
        balances::{Loc, LocationNames},
        document::Pattern,
        movement::{Invalid, text},
        reconcile::{Chunk, StatedUnits},
    },
    instance::Instance,
    limits::{LOCATION_BYTES_MAX, SNAPSHOT_CHUNK_LINES, SNAPSHOT_CHUNKS_MAX, SNAPSHOT_SCOPE_MAX},
};

/// Locations of which a snapshot is complete.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope(Vec<Entry>);

#[derive(Debug, Clone)]
enum Entry {
    Name(String),
    Pattern(Pattern),
}

impl Scope {
    /// Reads names and patterns.
    ///
    /// # Errors
    /// The first that is wrong, by its place.
    pub(super) fn parse(entries: &[String]) -> Result<Self, Invalid> {
        if entries.len() > SNAPSHOT_SCOPE_MAX {
            let reason = format!(
                "has {} entries; at most {SNAPSHOT_SCOPE_MAX}",
                entries.len()
            );
            return Err(Invalid::new("scope", reason));
        }
        let entry = |(place, entry): (usize, &String)| {
            let field = || format!("scope[{place}]");
            if Pattern::is_meant(entry) {
                return Pattern::parse(entry)
                    .map(Entry::Pattern)
                    .map_err(|reason| Invalid::new(field(), reason));
            }
            text("scope", entry, LOCATION_BYTES_MAX)
                .map_err(|invalid| Invalid::new(field(), invalid.reason))?;
            Ok(Entry::Name(entry.clone()))
        };
        let entries: Result<_, _> = entries.iter().enumerate().map(entry).collect();
        entries.map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, location: &str) -> bool {
        self.0.iter().any(|entry| match entry {
            Entry::Name(name) => name == location,
            Entry::Pattern(pattern) => pattern.matches(location),
        })
    }
}

/// Walks over all cells, off the writers' threads and without a lock, and gives those that lie in
/// the scope and are not among `cells`, each as if it were `stated`.
pub(super) fn walk(
    instance: &Arc<Instance>,
    cells: Cells,
    scope: Scope,
    stated: StatedUnits,
) -> mpsc::Receiver<Batch> {
    let (batches, receiver) = mpsc::channel(SNAPSHOT_CHUNKS_MAX);
    let instance = Arc::clone(instance);
    tokio::task::spawn_blocking(move || {
        let view = instance.view();
        let mut places = Places {
            scope,
            known: Vec::new(),
        };
        let (mut chunk, mut lines) = (Chunk::default(), Vec::new());
        for part in 0..view.parts() {
            view.cells_of_part(part, |sku, hash, found| {
                for (at, _) in found {
                    let place = places.of(*at, view.locations());
                    let Some((name, location)) = place else {
                        continue;
                    };
                    if !cells.has(hash, *location) {
                        chunk.push(sku, Some(*at), stated);
                        lines.push((0, Arc::clone(name)));
                    }
                }
            });
            let is_last = part + 1 == view.parts();
            // A part may have many more cells than a chunk has lines.
            while lines.len() >= SNAPSHOT_CHUNK_LINES || (is_last && !lines.is_empty()) {
                let batch = first_of(&mut chunk, &mut lines);
                if batches.blocking_send(batch).is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

/// Takes the first lines out.
fn first_of(chunk: &mut Chunk, lines: &mut Vec<(u64, Arc<str>)>) -> Batch {
    let count = lines.len().min(SNAPSHOT_CHUNK_LINES);
    let mut first = Chunk::default();
    for line in chunk.lines.drain(..count).collect::<Vec<_>>() {
        first.push(chunk.sku(&line), line.at, line.units);
    }
    if chunk.lines.is_empty() {
        chunk.names.clear();
    }
    Batch {
        chunk: Arc::new(first),
        lines: lines.drain(..count).collect(),
    }
}

/// What is known of locations, by their number.
struct Places {
    scope: Scope,
    /// `None`: not looked at yet.
    known: Vec<Option<Place>>,
}

/// Name and hash of a location; `None`: it is not in the scope.
type Place = Option<(Arc<str>, u64)>;

impl Places {
    fn of(&mut self, at: Loc, names: &impl LocationNames) -> Option<&(Arc<str>, u64)> {
        let index = at.0 as usize;
        if self.known.len() <= index {
            self.known.resize(index + 1, None);
        }
        let Self { scope, known } = self;
        known[index]
            .get_or_insert_with(|| {
                let name = names.name(at);
                scope.has(name).then(|| (name.into(), location_hash(name)))
            })
            .as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::keys::SkuHash;

    #[test]
    fn a_scope_has_names_and_patterns() {
        let scope = |entries: &[&str]| {
            Scope::parse(&entries.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let both = scope(&["dc", "store-[1-3]"]).expect("right");
        for (location, inside) in [
            ("dc", true),
            ("dcs", false),
            ("store-2", true),
            ("store-4", false),
        ] {
            assert_eq!(both.has(location), inside, "{location}");
        }
        assert!(!scope(&[]).expect("right").has("dc") && scope(&[]).expect("right").is_empty());
        assert!(scope(&["*"]).expect("right").has("anything"));
        for (wrong, field) in [(&["dc", ""][..], "scope[1]"), (&["[a"], "scope[0]")] {
            assert_eq!(scope(wrong).expect_err("wrong").field, field);
        }
        let many = vec!["dc".to_owned(); SNAPSHOT_SCOPE_MAX + 1];
        assert_eq!(Scope::parse(&many).expect_err("too many").field, "scope");
    }

    #[test]
    fn the_first_lines_keep_their_names() {
        let (mut chunk, mut lines) = (Chunk::default(), Vec::new());
        let count = SNAPSHOT_CHUNK_LINES + 7;
        for n in 0..count {
            chunk.push(
                &format!("S{n}"),
                Some(Loc(n as u32)),
                [Some(0), None, None, None],
            );
            lines.push((0, "dc".into()));
        }
        let mut seen = 0;
        while !lines.is_empty() {
            let batch = first_of(&mut chunk, &mut lines);
            assert_eq!(batch.chunk.lines.len(), batch.lines.len());
            for line in &batch.chunk.lines {
                assert_eq!(batch.chunk.sku(line), format!("S{seen}"));
                assert_eq!(line.sku, SkuHash::of(&format!("S{seen}")));
                assert_eq!(line.at, Some(Loc(seen)));
                seen += 1;
            }
        }
        assert_eq!(seen as usize, count);
        assert!(chunk.names.is_empty());
    }
}
