//! Says of a key that is written twice what it is and where it was first.
//!
//! The TOML parser reports only where the second one is.

use std::collections::BTreeSet;

use toml::de::{DeTable, DeValue};

use super::finding::{Lines, join};

/// What is said of a table or key that is defined twice.
pub(crate) struct Twice {
    /// What it is, e.g. "the channel `web`".
    pub(crate) what: String,
    /// What to do about it; may be empty.
    pub(crate) advice: String,
}

impl Twice {
    /// Without advice.
    pub(crate) fn just(what: String) -> Self {
        Self {
            what,
            advice: String::new(),
        }
    }
}

/// The table headers of a document, in order.
pub(super) struct Headers {
    headers: Vec<(u32, Vec<String>)>,
    /// Lines of those that repeat one before.
    repeated: BTreeSet<u32>,
}

impl Headers {
    /// Finds the headers. A line of a multi-line text that looks like one is taken for one: it
    /// can only make a message less precise.
    pub(super) fn of(lines: &Lines<'_>) -> Self {
        let headers = lines
            .numbered()
            .filter(|(_, line)| line.trim_start().starts_with('['))
            .filter_map(|(number, line)| Some((number, header(line)?)))
            .collect();
        Self {
            headers,
            repeated: BTreeSet::new(),
        }
    }

    /// Whether a key written again in `line` is news. Ask in the order of the document.
    ///
    /// The parser adds a table that is defined twice to the first one, so that the keys in it are
    /// mostly repeats as well; they are right once the header is.
    pub(super) fn is_news(&mut self, line: u32) -> bool {
        match self.above(line).last() {
            Some((header, _)) if *header == line => self.repeated.insert(line),
            Some((header, _)) => !self.repeated.contains(header),
            None => true,
        }
    }

    /// The headers down to `line`.
    fn above(&self, line: u32) -> &[(u32, Vec<String>)] {
        let above = self.headers.partition_point(|(number, _)| *number <= line);
        &self.headers[..above]
    }

    /// The path of the `key` that is written again in `line`, and the message about it.
    /// `twice` may know more than the key.
    pub(super) fn describe(
        &self,
        lines: &Lines<'_>,
        line: u32,
        key: &str,
        twice: fn(&[&str]) -> Option<Twice>,
    ) -> (String, String) {
        let (at, table) = match self.above(line).last() {
            Some((at, table)) => (*at, table.as_slice()),
            None => (0, &[][..]),
        };
        let (path, first) = if at == line {
            let first = self.headers.iter().find(|(_, path)| path == table);
            (table.to_vec(), first.map(|(number, _)| *number))
        } else {
            let mut path = table.to_vec();
            path.push(key.trim_matches(['"', '\'']).to_owned());
            let first = lines.numbered().skip(at as usize).find(|(_, text)| {
                let rest = text.trim_start().strip_prefix(key);
                rest.is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
            });
            (path, first.map(|(number, _)| number))
        };
        let path_refs: Vec<&str> = path.iter().map(String::as_str).collect();
        let Twice { what, advice } = twice(&path_refs).unwrap_or_else(|| {
            Twice::just(match path_refs.as_slice() {
                ["groups", group] => format!("the group `{group}`"),
                [.., key] => format!("`{key}`"),
                [] => format!("`{key}`"),
            })
        });
        let first = match first.filter(|first| *first < line) {
            Some(first) => format!("; first in line {first}"),
            None => String::new(),
        };
        let separator = if advice.is_empty() { "" } else { "; " };
        let path = path_refs
            .iter()
            .fold(String::new(), |path, key| join(&path, key));
        let message = format!("{what} is defined twice{first}{separator}{advice}");
        (path, message)
    }
}

/// The path of a line that is the header of a table.
fn header(line: &str) -> Option<Vec<String>> {
    let tree = DeTable::parse(line).ok()?;
    let mut path = Vec::new();
    let mut table = tree.get_ref();
    while let Some((key, value)) = table.iter().next() {
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    Some(path)
}
