//! Reads a document: its groups, its lists of locations, and what is wrong anywhere in it.
//!
//! It is read by hand from the parsed tree and not through `serde`, because `serde` stops at the
//! first error and because every finding is to name its line.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::duplicate::{Headers, Twice};
use super::finding::{DocumentError, Finding, Lines, Warning, hint, join, settle};
use super::pattern::Pattern;
use super::places::{Entry, Group, Target};
use crate::domain::movement;
use crate::limits;

/// A key, with its place.
pub(crate) type Key<'i> = Spanned<DeString<'i>>;
/// A value, with its place.
pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

/// What one kind of document has for itself.
pub(crate) struct Grammar {
    /// What it is called, as in "the rules document".
    pub(crate) name: &'static str,
    /// Its table; also what an entry of that is called.
    pub(crate) section: &'static str,
    /// Whether it has `groups` beside that.
    pub(crate) has_groups: bool,
    /// Most entries of that table.
    pub(crate) section_max: usize,
    /// What is said of a table or key that is defined twice, if there is more to say than its key.
    pub(crate) twice: fn(&[&str]) -> Option<Twice>,
}

/// What a document has.
pub(crate) struct Contents<T> {
    /// In order of name.
    pub(crate) groups: Vec<Group>,
    /// What was made of the entries of its section, in the order written.
    pub(crate) entries: Vec<T>,
}

/// Reads a document; `entry` makes something of each entry of its section.
///
/// # Errors
/// Every error that can be found.
pub(crate) fn read<T>(
    text: &str,
    grammar: &'static Grammar,
    mut entry: impl FnMut(&mut Reader<'_>, &Key<'_>, &Value<'_>) -> Option<T>,
) -> Result<(Contents<T>, Vec<Warning>), DocumentError> {
    if text.len() > limits::RULES_BYTES_MAX {
        let message = format!(
            "the document has {} bytes; at most {}",
            text.len(),
            limits::RULES_BYTES_MAX
        );
        return Err(DocumentError {
            document: grammar.name,
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
    let mut reader = Reader::new(text, grammar);
    reader.take_syntax_errors(&syntax);
    let (written_groups, section) = reader.sections(tree.get_ref());
    // The entries refer to groups, so groups come first wherever they are written.
    let groups = written_groups.map_or_else(Vec::new, |table| reader.read_groups(table));
    let mut entries = Vec::new();
    for (key, value) in section.map_or_else(Vec::new, |table| reader.in_order(table)) {
        entries.extend(entry(&mut reader, key, value));
    }
    if let Some(table) = written_groups {
        reader.unused_groups(&groups, table);
    }
    if reader.errors.is_empty() {
        return Ok((Contents { groups, entries }, settle(reader.warnings).0));
    }
    let (findings, omitted) = settle(reader.errors);
    Err(DocumentError {
        document: grammar.name,
        findings,
        omitted,
    })
}

/// Keeps what is found while a document is read.
pub(crate) struct Reader<'t> {
    grammar: &'static Grammar,
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
    fn new(text: &'t str, grammar: &'static Grammar) -> Self {
        Self {
            grammar,
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

    pub(crate) fn error(&mut self, span: Range<usize>, path: &str, message: impl Into<String>) {
        let finding = self.finding(span, path, message.into());
        if !self.broken_lines.contains(&finding.line) {
            self.errors.push(finding);
        }
    }

    /// An error that something is missing; in a broken document it may merely be unreadable.
    pub(crate) fn absence(&mut self, span: Range<usize>, path: &str, message: impl Into<String>) {
        if self.broken_lines.is_empty() {
            self.error(span, path, message);
        }
    }

    pub(crate) fn warn(&mut self, span: Range<usize>, path: &str, message: impl Into<String>) {
        let finding = self.finding(span, path, message.into());
        self.warnings.push(finding);
    }

    /// Whether another error may still be listed. What is costly to say is said only then.
    pub(crate) fn is_worth_a_hint(&self) -> bool {
        self.errors.len() < limits::RULES_FINDINGS_MAX
    }

    fn take_syntax_errors(&mut self, syntax: &[toml::de::Error]) {
        let mut headers = None;
        for error in syntax {
            let span = error.span().unwrap_or(0..0);
            let place = self.lines.place(span.start);
            let (path, message) = if error.message() == "duplicate key" {
                let headers = headers.get_or_insert_with(|| Headers::of(&self.lines));
                if !headers.is_news(place.line) {
                    continue;
                }
                // To describe one takes a look through the document.
                if self.is_worth_a_hint() {
                    let key = self.lines.slice(span.clone());
                    headers.describe(&self.lines, place.line, key, self.grammar.twice)
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

    /// The tables of the document: its groups, and its section.
    fn sections<'v, 'i>(
        &mut self,
        tree: &'v DeTable<'i>,
    ) -> (Option<&'v DeTable<'i>>, Option<&'v DeTable<'i>>) {
        let own = self.grammar.section;
        let has_groups = self.grammar.has_groups;
        let (mut groups, mut section) = (None, None);
        for (key, value) in tree {
            match key.get_ref().as_ref() {
                "groups" if has_groups => groups = self.table("groups", value),
                name if name == own => section = self.table(own, value),
                other if has_groups => {
                    let hint = hint(other, ["groups", own]);
                    let message = format!("unknown key{hint}; known are `groups` and `{own}`");
                    self.error(key.span(), &join("", other), message);
                }
                other => {
                    let hint = hint(other, [own]);
                    let message = format!("unknown key{hint}; known is `{own}` alone");
                    self.error(key.span(), &join("", other), message);
                }
            }
        }
        (groups, section)
    }

    /// The entries of the section in the order written.
    fn in_order<'v, 'i>(&mut self, table: &'v DeTable<'i>) -> Vec<(&'v Key<'i>, &'v Value<'i>)> {
        let mut written: Vec<_> = table.iter().collect();
        written.sort_by_key(|(key, _)| key.span().start);
        let Grammar {
            section,
            section_max: max,
            ..
        } = self.grammar;
        if let Some((key, _)) = written.get(*max) {
            let message = format!("there are {} {section}s; at most {max}", written.len());
            self.error(key.span(), section, message);
        }
        written
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
            let members = self.list(&path, value, false).unwrap_or_default();
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

    /// Warns of groups that no entry refers to.
    fn unused_groups(&mut self, groups: &[Group], table: &DeTable<'_>) {
        let message = format!("no {} uses the group", self.grammar.section);
        for (key, _) in table {
            let name = key.get_ref().as_ref();
            let at = groups.binary_search_by(|group| group.name.as_str().cmp(name));
            if at.is_ok_and(|at| !self.groups_used.contains(&at)) {
                self.warn(key.span(), &join("groups", name), message.as_str());
            }
        }
    }

    pub(crate) fn name(&mut self, span: Range<usize>, path: &str, name: &str, bytes_max: usize) {
        if let Err(invalid) = movement::text("name", name, bytes_max) {
            self.error(span, path, format!("the name {}", invalid.reason));
        }
    }

    pub(crate) fn table<'v, 'i>(
        &mut self,
        path: &str,
        value: &'v Value<'i>,
    ) -> Option<&'v DeTable<'i>> {
        if let DeValue::Table(table) = value.get_ref() {
            return Some(table);
        }
        self.wrong_type(path, value, "a table");
        None
    }

    pub(crate) fn wrong_type(&mut self, path: &str, value: &Value<'_>, wanted: &str) {
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

    /// The texts of a list, each with its place and none twice.
    pub(crate) fn texts<'v>(
        &mut self,
        path: &str,
        value: &'v Value<'_>,
    ) -> Option<Vec<(Range<usize>, &'v str)>> {
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(path, value, "a list of texts");
            return None;
        };
        let mut texts = Vec::new();
        let mut seen = BTreeSet::new();
        for value in array.iter() {
            let DeValue::String(text) = value.get_ref() else {
                self.wrong_type(path, value, "a list of texts only");
                continue;
            };
            if seen.insert(text.as_ref()) {
                texts.push((value.span(), text.as_ref()));
            } else {
                self.error(value.span(), path, format!("`{text}` is listed twice"));
            }
        }
        Some(texts)
    }

    /// A list of groups, locations and patterns.
    pub(crate) fn locations(&mut self, path: &str, value: &Value<'_>) -> Option<Vec<Entry>> {
        self.list(path, value, true)
    }

    /// A list of locations, patterns and, where allowed, groups.
    fn list(&mut self, path: &str, value: &Value<'_>, groups: bool) -> Option<Vec<Entry>> {
        let shared_path: Arc<str> = path.into();
        let mut entries = Vec::new();
        for (span, text) in self.texts(path, value)? {
            match self.target(text, groups) {
                Ok(target) => entries.push(Entry {
                    target,
                    place: self.lines.place(span.start),
                    path: Arc::clone(&shared_path),
                }),
                Err(Wrong::Here(message)) => self.error(span, path, message),
                Err(Wrong::Absent(message)) => self.absence(span, path, message),
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
                let few = self.is_worth_a_hint();
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
