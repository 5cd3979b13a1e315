//! An authority made ready to be asked.

use super::document::{self, Document};
use crate::domain::document::{DocumentError, Finding, Places, Warning, unmatched, unseen};
use crate::domain::movement::KIND_NAMES;

/// All kinds, a bit for each.
const ALL: u32 = (1 << KIND_NAMES.len()) - 1;

/// The bit of a kind, by its number.
pub(super) const fn bit(kind: u8) -> u32 {
    debug_assert!((kind as usize) < KIND_NAMES.len(), "a kind's number");
    1 << kind
}

/// Source authority in force. Immutable; a change makes a new one.
///
/// Two are equal if their documents are the same text: a change of a comment is a change.
#[derive(Debug, Clone, Default)]
pub struct Authority {
    text: Box<str>,
    document: Document,
    groups: Vec<Places>,
    /// In order of name.
    sources: Vec<Source>,
}

impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Authority {}

#[derive(Debug, Clone)]
struct Source {
    name: Box<str>,
    grants: Vec<Grant>,
}

#[derive(Debug, Clone)]
struct Grant {
    kinds: u32,
    /// `None`: everywhere.
    places: Option<Places>,
}

/// The kinds that one source may post, a bit for each; by location only where it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope {
    /// Whatever the location.
    pub(super) everywhere: u32,
    /// At any location at all, and so without naming one.
    pub(super) somewhere: u32,
}

impl Authority {
    /// Reads a document; the warnings are those that can be told from it alone.
    ///
    /// The empty document is valid: it allows everything, and equals [`Authority::default`], which
    /// is built in.
    ///
    /// # Errors
    /// Every error that can be found: what is not TOML, an unknown key, group or kind, a source,
    /// group or key defined twice, a wrong type, a name longer than its limit, a source without
    /// `may`, an entry listed twice, a wrong pattern, a pattern of kinds that matches none, too
    /// many sources, more than [`RULES_BYTES_MAX`](crate::limits::RULES_BYTES_MAX).
    pub fn parse(text: &str) -> Result<(Self, Vec<Warning>), DocumentError> {
        let (document, mut warnings) = document::read(text)?;
        let groups: Vec<Places> = document
            .groups
            .iter()
            .map(|group| Places::of(&group.members, &[]))
            .collect();
        let grant = |grant: &document::Grant| Grant {
            kinds: grant.kinds,
            places: (grant.locations.as_ref()).map(|entries| Places::of(entries, &groups)),
        };
        let sources = document.sources.iter().map(|source| Source {
            name: source.name.as_str().into(),
            grants: source.grants.iter().map(grant).collect(),
        });
        let authority = Self {
            text: text.into(),
            sources: sources.collect(),
            groups,
            document,
        };
        if authority.is_open() {
            warnings.push(Finding {
                line: 1,
                column: 1,
                path: "source".to_owned(),
                message: "none is named: every source may post everything".to_owned(),
            });
        }
        Ok((authority, warnings))
    }

    /// The document, as it was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it names no source, and so allows everything.
    pub fn is_open(&self) -> bool {
        self.sources.is_empty()
    }

    /// Whether `source` may post a movement of this kind
    /// ([`Kind::number`](crate::domain::movement::Kind::number)), acting at `location` if it names
    /// one. Not for the hot path, see [`super::Permissions`].
    pub fn may(&self, source: &str, kind: u8, location: Option<&str>) -> bool {
        let kinds = match location {
            None => self.scope(source).somewhere,
            Some(location) => self.kinds_at(source, location),
        };
        kinds & bit(kind) != 0
    }

    /// Why `source` may not post such a movement, in a sentence.
    pub fn refusal(&self, source: &str, kind: u8, location: Option<&str>) -> String {
        if self.find(source).is_none() {
            return format!("the source authority does not name the source `{source}`");
        }
        let name = KIND_NAMES[usize::from(kind)];
        match location {
            Some(location) if self.scope(source).somewhere & bit(kind) != 0 => format!(
                "the source authority lets `{source}` post `{name}`, but not for the location `{location}`"
            ),
            _ => format!("the source authority does not let `{source}` post `{name}`"),
        }
    }

    /// A warning for each location that is named and not `known`, that is, has never been seen:
    /// the first [`RULES_FINDINGS_MAX`](crate::limits::RULES_FINDINGS_MAX), in the order of the
    /// document.
    pub fn warnings(&self, known: impl Fn(&str) -> bool) -> Vec<Warning> {
        unseen(self.document.entries(), &self.document.groups, known)
    }

    /// A warning for each pattern that matches none of the known locations. Likewise bounded.
    pub fn pattern_warnings<'n>(&self, known: impl IntoIterator<Item = &'n str>) -> Vec<Warning> {
        unmatched(self.document.entries(), known)
    }

    pub(super) fn scope(&self, source: &str) -> Scope {
        if self.is_open() {
            return Scope {
                everywhere: ALL,
                somewhere: ALL,
            };
        }
        let mut scope = Scope {
            everywhere: 0,
            somewhere: 0,
        };
        for grant in self.find(source).map_or(&[][..], |own| &own.grants) {
            scope.somewhere |= grant.kinds;
            if grant.places.is_none() {
                scope.everywhere |= grant.kinds;
            }
        }
        scope
    }

    /// The kinds that a source may post for a location, a bit for each.
    pub(super) fn kinds_at(&self, source: &str, location: &str) -> u32 {
        if self.is_open() {
            return ALL;
        }
        let holds = |grant: &&Grant| {
            let places = grant.places.as_ref();
            places.is_none_or(|places| places.contains(location, &self.groups))
        };
        let grants = self.find(source).map_or(&[][..], |own| &own.grants);
        let kinds = grants.iter().filter(holds).map(|grant| grant.kinds);
        kinds.fold(0, |all, kinds| all | kinds)
    }

    fn find(&self, source: &str) -> Option<&Source> {
        let at = self
            .sources
            .binary_search_by(|own| own.name.as_ref().cmp(source))
            .ok()?;
        Some(&self.sources[at])
    }
}
