//! Lists of locations: as written, and as what is asked of them.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use super::finding::{Finding, Place, Warning, closest};
use super::pattern::Pattern;
use crate::limits;

/// A map for look-ups. The hasher has no random keys, so that nothing here differs from one
/// process to another; no map is ever iterated.
pub(in crate::domain) type Map<V> = HashMap<Box<str>, V, BuildHasherDefault<DefaultHasher>>;

/// A named list of locations.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) members: Vec<Entry>,
}

/// An entry of a list of locations.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(super) target: Target,
    pub(super) place: Place,
    /// The key of the list.
    pub(super) path: Arc<str>,
}

/// What an entry stands for.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// `@name`, by index into the document's groups.
    Group(usize),
    Location(String),
    /// With its text, for warnings.
    Pattern(Pattern, String),
}

/// A warning for each location that is named and not `known`, that is, has never been seen: the
/// first [`RULES_FINDINGS_MAX`](limits::RULES_FINDINGS_MAX), in the order of the document.
pub(in crate::domain) fn unseen<'e>(
    entries: impl Iterator<Item = &'e Entry>,
    groups: &[Group],
    known: impl Fn(&str) -> bool,
) -> Vec<Warning> {
    let unseen = |entry: &Entry| matches!(&entry.target, Target::Location(name) if !known(name));
    warn_about(entries.filter(|entry| unseen(entry)), |name| {
        let groups = groups.iter().map(|group| group.name.as_str());
        let hint = closest(name, groups).map_or_else(String::new, |group| {
            format!(" (did you mean the group `@{group}`?)")
        });
        format!("the location `{name}` has never been seen{hint}")
    })
}

/// A warning for each pattern that matches none of the known locations. Likewise bounded.
pub(in crate::domain) fn unmatched<'e, 'n>(
    entries: impl Iterator<Item = &'e Entry>,
    known: impl IntoIterator<Item = &'n str>,
) -> Vec<Warning> {
    let known: Vec<&str> = known.into_iter().collect();
    let unmatched = |entry: &Entry| match &entry.target {
        Target::Pattern(pattern, _) => !known.iter().any(|name| pattern.matches(name)),
        _ => false,
    };
    warn_about(entries.filter(|entry| unmatched(entry)), |text| {
        format!("the pattern `{text}` matches no location seen so far")
    })
}

/// Says `message` of the first of the `odd` entries.
fn warn_about<'e>(
    odd: impl Iterator<Item = &'e Entry>,
    message: impl Fn(&str) -> String,
) -> Vec<Warning> {
    let mut entries: Vec<&Entry> = odd.collect();
    entries.sort_by_key(|entry| (entry.place.line, entry.place.column));
    entries.truncate(limits::RULES_FINDINGS_MAX);
    let warning = |entry: &Entry| {
        let (Target::Location(text) | Target::Pattern(_, text)) = &entry.target else {
            return None;
        };
        Some(Finding {
            line: entry.place.line,
            column: entry.place.column,
            path: entry.path.to_string(),
            message: message(text),
        })
    };
    entries.into_iter().filter_map(warning).collect()
}

/// A list of locations, patterns and groups, as a function from location to rank.
#[derive(Debug, Clone, Default)]
pub(in crate::domain) struct Places {
    exact: Map<u32>,
    /// In order of rank.
    patterns: Vec<(u32, Pattern)>,
    /// The rank of its first member, and the group's index; in order of rank.
    groups: Vec<(u32, usize)>,
    /// One more than the largest rank.
    size: u32,
}

impl Places {
    /// `groups` are the document's, which have no groups themselves.
    pub(in crate::domain) fn of(entries: &[Entry], groups: &[Places]) -> Self {
        // Ranks cannot overflow: no entry is listed twice, so there are fewer than bytes in a
        // document.
        let mut places = Self::default();
        for entry in entries {
            let rank = places.size;
            places.size += 1;
            match &entry.target {
                Target::Location(name) => {
                    places.exact.insert(name.as_str().into(), rank);
                }
                Target::Pattern(pattern, _) => places.patterns.push((rank, pattern.clone())),
                Target::Group(group) => {
                    places.groups.push((rank, *group));
                    places.size += groups[*group].size;
                }
            }
        }
        places
    }

    /// The rank of the first entry that matches; `in_groups` has the location's rank in each
    /// group.
    pub(in crate::domain) fn rank(&self, location: &str, in_groups: &[Option<u32>]) -> Option<u32> {
        let exact = self.exact.get(location).copied();
        let pattern = self
            .patterns
            .iter()
            .find(|(_, pattern)| pattern.matches(location));
        let group = self
            .groups
            .iter()
            .find_map(|(rank, group)| Some(rank + in_groups[*group]?));
        [exact, pattern.map(|(rank, _)| *rank), group]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether any entry matches; `groups` are the document's.
    pub(in crate::domain) fn contains(&self, location: &str, groups: &[Places]) -> bool {
        self.exact.contains_key(location)
            || self.patterns.iter().any(|(_, own)| own.matches(location))
            || self
                .groups
                .iter()
                .any(|(_, group)| groups[*group].contains(location, &[]))
    }
}
