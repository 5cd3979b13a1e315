//! The rules document as written: TOML in, definitions and findings out.
//!
//! It is read by hand from the parsed tree and not through `serde`, because `serde` stops at the
//! first error and because every finding is to name its line.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::duplicate::Headers;
use super::finding::{Finding, Lines, Place, RulesError, Warning, hint, join, settle};
use super::pattern::Pattern;
use crate::domain::movement;
use crate::limits;

/// All definitions of a document; groups and channels in order of name.
#[derive(Debug, Clone, Default)]
pub(super) struct Document {
    pub(super) groups: Vec<Group>,
    pub(super) channels: Vec<Channel>,
}

/// A named list of locations.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) members: Vec<Entry>,
}

/// A channel and its overrides, these in order of key.
#[derive(Debug, Clone)]
pub(super) struct Channel {
    pub(super) name: String,
    pub(super) sources: Vec<Entry>,
    pub(super) terms: Terms,
    pub(super) overrides: Vec<Override>,
}

/// What an override changes, for a SKU or, if the key ends in `*`, for a prefix of SKUs.
#[derive(Debug, Clone)]
pub(super) struct Override {
    pub(super) key: String,
    pub(super) terms: Terms,
}

/// Terms as far as they are set.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    pub(super) exclude: Option<Vec<Entry>>,
    pub(super) buffer: Option<i64>,
    pub(super) buffer_percent: Option<u8>,
    pub(super) share_percent: Option<u8>,
    pub(super) minimum: Option<i64>,
    pub(super) maximum: Option<i64>,
    pub(super) paused: Option<bool>,
}

/// An entry of a list of locations.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) target: Target,
    pub(super) place: Place,
    /// The key of the list.
    pub(super) path: Arc<str>,
}

/// What an entry stands for.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// `@name`, by index into [`Document::groups`].
    Group(usize),
    Location(String),
    /// With its text, for warnings.
    Pattern(Pattern, String),
}

impl Document {
    /// Every entry of every list.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        let members = self.groups.iter().flat_map(|group| &group.members);
        let of_channels = self.channels.iter().flat_map(|channel| {
            let terms = std::iter::once(&channel.terms)
                .chain(channel.overrides.iter().map(|own| &own.terms));
            let excluded = terms.flat_map(|terms| terms.exclude.iter().flatten());
            channel.sources.iter().chain(excluded)
        });
        members.chain(of_channels)
    }
}

const TERMS: [&str; 7] = [
    "exclude",
    "buffer",
    "buffer_percent",
    "share_percent",
    "minimum",
    "maximum",
    "paused",
];
const CHANNEL_ONLY: [&str; 2] = ["sources", "override"];

type Value<'i> = Spanned<DeValue<'i>>;

/// Reads a document.
///
/// # Errors
/// Every error that can be found.
pub(super) fn read(text: &str) -> Result<(Document, Vec<Warning>), RulesError> {
    if text.len() > limits::RULES_BYTES_MAX {
        let message = format!(
            "the document has {} bytes; at most {}",
            text.len(),
            limits::RULES_BYTES_MAX
        );
        return Err(RulesError {
            findings: vec![Finding {
                line: 1,
                column: 1,
                path: String::new(),
                message,
            }],
            omitted: 0,
        });
    }
    let (tree, syntax) = DeTable::parse_recoverable(text);
    let mut reader = Reader::new(text);
    reader.take_syntax_errors(&syntax);
    let document = reader.document(tree.get_ref());
    if reader.errors.is_empty() {
        return Ok((document, settle(reader.warnings).0));
    }
    let (findings, omitted) = settle(reader.errors);
    Err(RulesError { findings, omitted })
}

struct Reader<'t> {
    lines: Lines<'t>,
    errors: Vec<Finding>,
    warnings: Vec<Warning>,
    /// Lines that are not TOML: what was recovered of them is a guess, and not worth an error.
    broken_lines: BTreeSet<u32>,
    /// Names of the groups, in order.
    groups: Vec<String>,
    groups_used: BTreeSet<usize>,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            lines: Lines::new(text),
            errors: Vec::new(),
            warnings: Vec::new(),
            broken_lines: BTreeSet::new(),
            groups: Vec::new(),
            groups_used: BTreeSet::new(),
        }
    }

    fn finding(&self, span: Range<usize>, path: &str, message: String) -> Finding {
        let place = self.lines.place(span.start);
        Finding {
            line: place.line,
            column: place.column,
            path: path.to_owned(),
            message,
        }
    }

    fn error(&mut self, span: Range<usize>, path: &str, message: impl Into<String>) {
        let finding = self.finding(span, path, message.into());
        if !self.broken_lines.contains(&finding.line) {
            self.errors.push(finding);
        }
    }

    /// An error that something is missing; in a broken document it may merely be unreadable.
    fn absence(&mut self, span: Range<usize>, path: &str, message: impl Into<String>) {
        if self.broken_lines.is_empty() {
            self.error(span, path, message);
        }
    }

    fn warn(&mut self, span: Range<usize>, path: &str, message: impl Into<String>) {
        let finding = self.finding(span, path, message.into());
        self.warnings.push(finding);
    }

    fn take_syntax_errors(&mut self, syntax: &[toml::de::Error]) {
        let mut headers = None;
        for error in syntax {
            let span = error.span().unwrap_or(0..0);
            let place = self.lines.place(span.start);
            let (path, message) = if error.message() == "duplicate key" {
                // To describe one takes a look through the document; hardly any more is listed.
                if self.errors.len() < limits::RULES_FINDINGS_MAX {
                    let headers = headers.get_or_insert_with(|| Headers::of(&self.lines));
                    headers.describe(&self.lines, place.line, self.lines.slice(span.clone()))
                } else {
                    (String::new(), "a key is defined twice".to_owned())
                }
            } else if self.broken_lines.insert(place.line) {
                (String::new(), format!("not TOML: {}", error.message()))
            } else {
                // What follows on the same line is mostly a consequence.
                continue;
            };
            let finding = self.finding(span, &path, message);
            self.errors.push(finding);
        }
    }

    fn document(&mut self, tree: &DeTable<'_>) -> Document {
        let mut groups = None;
        let mut channels = None;
        for (key, value) in tree {
            match key.get_ref().as_ref() {
                "groups" => groups = self.table("groups", value),
                "channel" => channels = self.table("channel", value),
                other => {
                    let hint = hint(other, ["groups", "channel"]);
                    let known = "known are `groups` and `channel`";
                    let message = format!("unknown key{hint}; {known}");
                    self.error(key.span(), &join("", other), message);
                }
            }
        }
        // Channels refer to groups, so groups come first wherever they are written.
        let written_groups = groups;
        let groups = written_groups.map_or_else(Vec::new, |table| self.read_groups(table));
        let channels = channels.map_or_else(Vec::new, |table| self.read_channels(table));
        if let Some(table) = written_groups {
            self.unused_groups(&groups, table);
        }
        Document { groups, channels }
    }

    fn read_groups(&mut self, table: &DeTable<'_>) -> Vec<Group> {
        let mut written: Vec<_> = table.iter().collect();
        written.sort_by(|a, b| a.0.get_ref().cmp(b.0.get_ref()));
        self.groups = written
            .iter()
            .map(|(k, _)| k.get_ref().to_string())
            .collect();
        let mut groups = Vec::new();
        for (key, value) in written {
            let name = key.get_ref().as_ref();
            let path = join("groups", name);
            if name.starts_with('@') {
                let message = "the name of a group is written without `@` here";
                self.error(key.span(), &path, message);
            }
            self.name(key.span(), &path, name, limits::LOCATION_BYTES_MAX);
            let members = self.entries(&path, value, false).unwrap_or_default();
            if members.is_empty() {
                self.warn(key.span(), &path, "the group is empty");
            }
            groups.push(Group {
                name: name.to_owned(),
                members,
            });
        }
        groups
    }

    /// Warns of groups that no channel refers to.
    fn unused_groups(&mut self, groups: &[Group], table: &DeTable<'_>) {
        for (key, _) in table {
            let name = key.get_ref().as_ref();
            let at = groups.binary_search_by(|group| group.name.as_str().cmp(name));
            if at.is_ok_and(|at| !self.groups_used.contains(&at)) {
                self.warn(
                    key.span(),
                    &join("groups", name),
                    "no channel uses the group",
                );
            }
        }
    }

    fn read_channels(&mut self, table: &DeTable<'_>) -> Vec<Channel> {
        let mut written: Vec<_> = table.iter().collect();
        written.sort_by_key(|(key, _)| key.span().start);
        if let Some((key, _)) = written.get(limits::CHANNELS_MAX) {
            let message = format!(
                "there are {} channels; at most {}",
                written.len(),
                limits::CHANNELS_MAX
            );
            self.error(key.span(), "channel", message);
        }
        let mut channels: Vec<Channel> = written
            .into_iter()
            .filter_map(|(key, value)| self.channel(key.span(), key.get_ref(), value))
            .collect();
        channels.sort_by(|a, b| a.name.cmp(&b.name));
        channels
    }

    fn channel(&mut self, span: Range<usize>, name: &str, value: &Value<'_>) -> Option<Channel> {
        let path = join("channel", name);
        self.name(span.clone(), &path, name, limits::CHANNEL_BYTES_MAX);
        let table = self.table(&path, value)?;
        let mut terms = Terms::default();
        let mut sources = None;
        let mut written_overrides = None;
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = join(&path, name);
            match name {
                "sources" => sources = Some((key.span(), self.entries(&path, value, true))),
                "override" => written_overrides = self.table(&path, value),
                _ if self.term(&mut terms, &path, name, value) => {}
                _ => {
                    let hint = hint(name, CHANNEL_ONLY.into_iter().chain(TERMS));
                    let message = format!("unknown key{hint}");
                    self.error(key.span(), &path, message);
                }
            }
        }
        let sources = match sources {
            None => {
                let message = "has no `sources`; list the groups and locations it sells from";
                self.absence(span, &path, message);
                Vec::new()
            }
            Some((span, Some(entries))) if entries.is_empty() => {
                let message = "the list is empty: the channel sells nothing";
                self.warn(span, &join(&path, "sources"), message);
                entries
            }
            Some((_, entries)) => entries.unwrap_or_default(),
        };
        self.order_of_bounds(&path, table, &terms, &Terms::default());
        let path = join(&path, "override");
        let overrides =
            written_overrides.map_or_else(Vec::new, |table| self.overrides(&path, table, &terms));
        Some(Channel {
            name: name.to_owned(),
            sources,
            terms,
            overrides,
        })
    }

    fn overrides(&mut self, path: &str, table: &DeTable<'_>, base: &Terms) -> Vec<Override> {
        let mut overrides = Vec::new();
        for (key, value) in table {
            let sku = key.get_ref().as_ref();
            let path = join(path, sku);
            self.selector(key.span(), &path, sku);
            let Some(table) = self.table(&path, value) else {
                continue;
            };
            let mut terms = Terms::default();
            for (key, value) in table {
                let name = key.get_ref().as_ref();
                let path = join(&path, name);
                if self.term(&mut terms, &path, name, value) {
                    continue;
                }
                let message = if CHANNEL_ONLY.contains(&name) {
                    format!("an override cannot set `{name}`")
                } else {
                    format!("unknown key{}", hint(name, TERMS))
                };
                self.error(key.span(), &path, message);
            }
            if table.is_empty() {
                self.warn(key.span(), &path, "the override changes nothing");
            }
            self.order_of_bounds(&path, table, &terms, base);
            overrides.push(Override {
                key: sku.to_owned(),
                terms,
            });
        }
        overrides.sort_by(|a, b| a.key.cmp(&b.key));
        overrides
    }

    /// Checks the key of an override: a SKU, or a prefix of SKUs and `*`.
    fn selector(&mut self, span: Range<usize>, path: &str, key: &str) {
        let stem = match key.strip_suffix('*') {
            Some("") => {
                let message = "matches every SKU; set the terms of the channel itself instead";
                return self.error(span, path, message);
            }
            Some(prefix) => prefix,
            None => key,
        };
        if stem.contains('*') {
            let message = "a `*` may stand only at the end: an override is for a SKU or a prefix";
            return self.error(span, path, message);
        }
        // A prefix may end in a space, which a whole SKU may not.
        let is_prefix = stem.len() < key.len();
        let stem = if is_prefix { stem.trim_end() } else { stem };
        self.name(span, path, stem, limits::SKU_BYTES_MAX);
    }

    fn name(&mut self, span: Range<usize>, path: &str, name: &str, bytes_max: usize) {
        if let Err(invalid) = movement::text("name", name, bytes_max) {
            self.error(span, path, format!("the name {}", invalid.reason));
        }
    }

    /// Reads the term `name`; false if there is no such term.
    fn term(&mut self, terms: &mut Terms, path: &str, name: &str, value: &Value<'_>) -> bool {
        match name {
            "exclude" => terms.exclude = self.entries(path, value, true),
            "buffer" => terms.buffer = self.integer(path, value, limits::QUANTITY_MAX),
            "buffer_percent" => terms.buffer_percent = self.percent(path, value),
            "share_percent" => terms.share_percent = self.percent(path, value),
            "minimum" => terms.minimum = self.integer(path, value, limits::RULES_UNITS_MAX),
            "maximum" => terms.maximum = self.integer(path, value, limits::RULES_UNITS_MAX),
            "paused" => match value.get_ref() {
                DeValue::Boolean(paused) => terms.paused = Some(*paused),
                _ => self.wrong_type(path, value, "`true` or `false`"),
            },
            _ => return false,
        }
        true
    }

    /// Checks `minimum` against `maximum`, as they are once `terms` are laid over `base`.
    fn order_of_bounds(&mut self, path: &str, table: &DeTable<'_>, terms: &Terms, base: &Terms) {
        let minimum = terms.minimum.or(base.minimum).unwrap_or(0);
        let Some(maximum) = terms.maximum.or(base.maximum) else {
            return;
        };
        if minimum <= maximum {
            return;
        }
        // Blame what is written here. If neither is, the channel itself has been blamed.
        for name in ["minimum", "maximum"] {
            if let Some((_, value)) = table.iter().find(|(key, _)| key.get_ref() == name) {
                let message = format!("`minimum` ({minimum}) is larger than `maximum` ({maximum})");
                return self.error(value.span(), &join(path, name), message);
            }
        }
    }

    fn percent(&mut self, path: &str, value: &Value<'_>) -> Option<u8> {
        let percent = self.integer(path, value, 100)?;
        u8::try_from(percent).ok()
    }

    /// A whole number from 0 to `max`.
    fn integer(&mut self, path: &str, value: &Value<'_>, max: i64) -> Option<i64> {
        let DeValue::Integer(written) = value.get_ref() else {
            self.wrong_type(path, value, "a whole number");
            return None;
        };
        let number = i64::from_str_radix(written.as_str(), written.radix()).ok();
        let number = number.filter(|number| (0..=max).contains(number));
        if number.is_none() {
            self.error(
                value.span(),
                path,
                format!("{written} is out of range; 0 to {max}"),
            );
        }
        number
    }

    fn table<'v, 'i>(&mut self, path: &str, value: &'v Value<'i>) -> Option<&'v DeTable<'i>> {
        if let DeValue::Table(table) = value.get_ref() {
            return Some(table);
        }
        self.wrong_type(path, value, "a table");
        None
    }

    fn wrong_type(&mut self, path: &str, value: &Value<'_>, wanted: &str) {
        let is = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "`true` or `false`",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.error(value.span(), path, format!("is {is}; it must be {wanted}"));
    }

    /// A list of locations, patterns and, where allowed, groups.
    fn entries(&mut self, path: &str, value: &Value<'_>, groups: bool) -> Option<Vec<Entry>> {
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(path, value, "a list of texts");
            return None;
        };
        let shared_path: Arc<str> = path.into();
        let mut entries = Vec::new();
        let mut seen = BTreeSet::new();
        for value in array.iter() {
            let DeValue::String(text) = value.get_ref() else {
                self.wrong_type(path, value, "a list of texts only");
                continue;
            };
            if !seen.insert(text.as_ref()) {
                self.error(value.span(), path, format!("`{text}` is listed twice"));
                continue;
            }
            match self.target(text, groups) {
                Ok(target) => entries.push(Entry {
                    target,
                    place: self.lines.place(value.span().start),
                    path: Arc::clone(&shared_path),
                }),
                Err(Wrong::Here(message)) => self.error(value.span(), path, message),
                Err(Wrong::Absent(message)) => self.absence(value.span(), path, message),
            }
        }
        Some(entries)
    }

    fn target(&mut self, text: &str, groups: bool) -> Result<Target, Wrong> {
        let here = |message: String| Err(Wrong::Here(message));
        let nested = "groups cannot be members of groups";
        if let Some(name) = text.strip_prefix('@') {
            if !groups {
                return here(format!("`{text}` is a group; {nested}"));
            }
            let Ok(group) = self.groups.binary_search_by(|own| own.as_str().cmp(name)) else {
                // To look through all groups for each of many wrong names would take too long.
                let few = self.errors.len() < limits::RULES_FINDINGS_MAX;
                let names = self.groups.iter().map(String::as_str).filter(|_| few);
                let message = format!("there is no group `{name}`{}", hint(name, names));
                return Err(Wrong::Absent(message));
            };
            self.groups_used.insert(group);
            return Ok(Target::Group(group));
        }
        if Pattern::is_meant(text) {
            return match Pattern::parse(text) {
                Ok(pattern) => Ok(Target::Pattern(pattern, text.to_owned())),
                Err(why) => here(format!("the pattern `{text}` {why}")),
            };
        }
        if self
            .groups
            .binary_search_by(|own| own.as_str().cmp(text))
            .is_ok()
        {
            return here(if groups {
                format!("`{text}` is a group; write `@{text}`")
            } else {
                format!("`{text}` is a group; {nested}")
            });
        }
        match movement::text("location", text, limits::LOCATION_BYTES_MAX) {
            Ok(()) => Ok(Target::Location(text.to_owned())),
            Err(invalid) => here(format!("the location {}", invalid.reason)),
        }
    }
}

/// Why an entry is wrong.
enum Wrong {
    Here(String),
    /// What it refers to is absent, see [`Reader::absence`].
    Absent(String),
}
