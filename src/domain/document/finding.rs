//! What is said about a document, and where in it.

use std::cell::Cell;
use std::ops::Range;

use crate::limits;

/// Something to be said about a document: an error, or only a warning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
    /// The key, e.g. `channel.web.buffer`; empty if it concerns no key.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// What is allowed and yet worth a look.
pub type Warning = Finding;

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Why a document cannot be taken: all that could be found, not only the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentError {
    /// Which kind of document it is, as in "the rules document".
    pub document: &'static str,
    /// The errors, in the order of the document; at least one, and at most
    /// [`limits::RULES_FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many more there are than `findings` lists.
    pub omitted: usize,
}

impl std::fmt::Display for DocumentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let document = self.document;
        match self.findings.len() + self.omitted {
            1 => write!(f, "the {document} document has an error:")?,
            n => write!(f, "the {document} document has {n} errors:")?,
        }
        for finding in &self.findings {
            write!(f, "\n{finding}")?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for DocumentError {}

/// A place in a document. Both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Turns byte offsets of a text into places.
pub(super) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
    /// An offset and its column, the latest found. Without it, a document on one line would be
    /// counted through anew for each of its entries.
    latest: Cell<(usize, usize)>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            text,
            starts,
            latest: Cell::new((0, 1)),
        }
    }

    /// The place of a byte offset; behind the end, that of the end.
    pub(super) fn place(&self, offset: usize) -> Place {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.starts.partition_point(|start| *start <= offset);
        let (from, column) = match self.latest.get() {
            (latest, column) if (self.starts[line - 1]..=offset).contains(&latest) => {
                (latest, column)
            }
            _ => (self.starts[line - 1], 1),
        };
        let column = column + self.text[from..offset].chars().count();
        self.latest.set((offset, column));
        Place {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }

    /// The lines without their ends, each with its number from 1.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (u32, &'t str)> {
        (1..).zip(self.text.lines())
    }

    /// The text at `span`; empty if that lies outside.
    pub(super) fn slice(&self, span: Range<usize>) -> &'t str {
        self.text.get(span).unwrap_or("")
    }
}

/// Sorts and bounds findings.
pub(super) fn settle(mut findings: Vec<Finding>) -> (Vec<Finding>, usize) {
    findings.sort();
    findings.dedup();
    let omitted = findings.len().saturating_sub(limits::RULES_FINDINGS_MAX);
    findings.truncate(limits::RULES_FINDINGS_MAX);
    (findings, omitted)
}

/// Appends a key to a path, in quotes where TOML wants them.
pub(crate) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let dot = if path.is_empty() { "" } else { "." };
    if bare {
        format!("{path}{dot}{key}")
    } else {
        format!("{path}{dot}{key:?}")
    }
}

/// The closest of `names`, if one is so close that it may be meant; of equally close ones, the
/// first.
pub(super) fn closest<'n>(
    wrong: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    let near = (wrong.chars().count() / 3).clamp(1, 3);
    names
        .into_iter()
        .filter(|name| name.len().abs_diff(wrong.len()) <= 4 * near)
        .map(|name| (edits(wrong, name), name))
        .min_by_key(|(edits, _)| *edits)
        .filter(|(edits, _)| *edits <= near)
        .map(|(_, name)| name)
}

/// ` (did you mean `…`?)` for the [`closest`], if there is one; otherwise nothing.
pub(crate) fn hint<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    closest(wrong, names).map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

/// How many characters must be put in, taken out or replaced to make `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_from_one() {
        let lines = Lines::new("a = 1\néé = 2\n");
        let place = |offset| {
            let place = lines.place(offset);
            (place.line, place.column)
        };
        assert_eq!(place(0), (1, 1));
        assert_eq!(place(5), (1, 6));
        assert_eq!(place(6), (2, 1));
        assert_eq!(place(10), (2, 3));
        assert_eq!(place(11), (2, 4), "from the place found before");
        assert_eq!(place(6), (2, 1), "and back");
        assert_eq!(place(9), (2, 2), "inside a character: the character");
        assert_eq!(place(999), (3, 1));
    }

    #[test]
    fn hints_are_given_only_if_close() {
        let names = ["buffer", "paused", "sources"];
        assert_eq!(hint("bufer", names), " (did you mean `buffer`?)");
        assert_eq!(hint("source", names), " (did you mean `sources`?)");
        assert_eq!(hint("puased", names), " (did you mean `paused`?)");
        assert_eq!(hint("colour", names), "");
        assert_eq!(hint("x", []), "");
    }

    #[test]
    fn paths_quote_what_toml_quotes() {
        assert_eq!(join("", "channel"), "channel");
        assert_eq!(join("channel", "web"), "channel.web");
        assert_eq!(join("channel.web", "SHOE-*"), "channel.web.\"SHOE-*\"");
    }
}
