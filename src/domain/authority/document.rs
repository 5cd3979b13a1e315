//! The document as written: TOML in, grants and findings out.

use std::ops::Range;

use toml::de::DeValue;

use super::compiled::bit;
use crate::domain::document::{
    self, DocumentError, Entry, Grammar, Group, Pattern, Reader, Twice, Value, Warning, hint, join,
};
use crate::domain::movement::{self, KIND_NAMES};
use crate::limits;

/// All definitions of a document; groups and sources in order of name.
#[derive(Debug, Clone, Default)]
pub(super) struct Document {
    pub(super) groups: Vec<Group>,
    pub(super) sources: Vec<Source>,
}

/// A source and all that it is granted.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) grants: Vec<Grant>,
}

#[derive(Debug, Clone)]
pub(super) struct Grant {
    /// A bit for each kind, by its number.
    pub(super) kinds: u32,
    /// `None`: everywhere.
    pub(super) locations: Option<Vec<Entry>>,
}

impl Document {
    /// Every entry of every list of locations.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        let members = self.groups.iter().flat_map(|group| &group.members);
        let grants = self.sources.iter().flat_map(|source| &source.grants);
        members.chain(grants.flat_map(|grant| grant.locations.iter().flatten()))
    }
}

const GRAMMAR: Grammar = Grammar {
    name: "authority",
    section: "source",
    has_groups: true,
    section_max: limits::AUTHORITY_SOURCES_MAX,
    twice: |path| match path {
        ["source", source] => Some(Twice {
            what: format!("the source `{source}`"),
            advice: format!("if it has several grants, write each as `[[source.{source}]]`"),
        }),
        _ => None,
    },
};

const KEYS: [&str; 2] = ["may", "locations"];

/// Reads a document.
///
/// # Errors
/// Every error that can be found.
pub(super) fn read(text: &str) -> Result<(Document, Vec<Warning>), DocumentError> {
    let (read, warnings) = document::read(text, &GRAMMAR, |reader, key, value| {
        SourceReader { toml: reader }.source(key.span(), key.get_ref(), value)
    })?;
    let (groups, mut sources) = (read.groups, read.entries);
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((Document { groups, sources }, warnings))
}

struct SourceReader<'r, 't> {
    toml: &'r mut Reader<'t>,
}

impl SourceReader<'_, '_> {
    fn source(&mut self, span: Range<usize>, name: &str, value: &Value<'_>) -> Option<Source> {
        let path = join("source", name);
        if let Err(invalid) = movement::check_source(name) {
            let message = format!("the name {}", invalid.reason);
            self.toml.error(span.clone(), &path, message);
        }
        let mut grants = Vec::new();
        match value.get_ref() {
            DeValue::Array(several) => {
                if several.is_empty() {
                    self.toml
                        .warn(span, &path, "has no grant: it may post nothing");
                }
                for value in several.iter() {
                    grants.extend(self.grant(value.span(), &path, value));
                }
            }
            _ => grants.extend(self.grant(span, &path, value)),
        }
        Some(Source {
            name: name.to_owned(),
            grants,
        })
    }

    fn grant(&mut self, span: Range<usize>, path: &str, value: &Value<'_>) -> Option<Grant> {
        let table = self.toml.table(path, value)?;
        let (mut kinds, mut locations) = (None, None);
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = join(path, name);
            match name {
                "may" => kinds = Some(self.kinds(key.span(), &path, value)),
                "locations" => {
                    locations = self.toml.locations(&path, value);
                    if locations.as_ref().is_some_and(Vec::is_empty) {
                        let message =
                            "the list is empty: only movements that name no location are allowed";
                        self.toml.warn(key.span(), &path, message);
                    }
                }
                _ => {
                    let hint = hint(name, KEYS);
                    let message = format!("unknown key{hint}; known are `may` and `locations`");
                    self.toml.error(key.span(), &path, message);
                }
            }
        }
        if kinds.is_none() {
            let message = "has no `may`; list the kinds of movements that it may post";
            self.toml.absence(span, path, message);
        }
        Some(Grant {
            kinds: kinds.unwrap_or(0),
            locations,
        })
    }

    /// The kinds that a list names, as bits.
    fn kinds(&mut self, span: Range<usize>, path: &str, value: &Value<'_>) -> u32 {
        let Some(texts) = self.toml.texts(path, value) else {
            return 0;
        };
        if texts.is_empty() {
            let message = "the list is empty: no movement is allowed";
            self.toml.warn(span, path, message);
        }
        let mut kinds = 0;
        for (span, text) in texts {
            match self.named(text) {
                Ok(named) => kinds |= named,
                Err(message) => self.toml.error(span, path, message),
            }
        }
        kinds
    }

    fn named(&self, text: &str) -> Result<u32, String> {
        let all = (0u8..).zip(KIND_NAMES);
        if !Pattern::is_meant(text) {
            let mut found = all.filter(|(_, name)| *name == text);
            let found = found.next().map(|(number, _)| bit(number));
            return found.ok_or_else(|| {
                let hint = hint(text, KIND_NAMES);
                let known = if hint.is_empty() { self.known() } else { hint };
                format!("there is no kind of movement `{text}`{known}")
            });
        }
        let pattern = Pattern::parse(text).map_err(|why| format!("the pattern `{text}` {why}"))?;
        let matched = all
            .filter(|(_, name)| pattern.matches(name))
            .fold(0, |kinds, (number, _)| kinds | bit(number));
        if matched == 0 {
            let known = self.known();
            return Err(format!(
                "the pattern `{text}` matches no kind of movement{known}"
            ));
        }
        Ok(matched)
    }

    /// All kinds, as the end of a message that is worth the space.
    fn known(&self) -> String {
        if self.toml.is_worth_a_hint() {
            format!("; known are {}", KIND_NAMES.join(", "))
        } else {
            String::new()
        }
    }
}
