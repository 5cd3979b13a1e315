//! Says of a key that is written twice what it is and where it was first.
//!
//! The TOML parser reports only where the second one is.

use toml::de::{DeTable, DeValue};

use super::finding::{Lines, join};

/// The table headers of a document, in order.
pub(super) struct Headers {
    headers: Vec<(u32, Vec<String>)>,
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
        Self { headers }
    }

    /// The path of the `key` that is written again in `line`, and the message about it.
    pub(super) fn describe(&self, lines: &Lines<'_>, line: u32, key: &str) -> (String, String) {
        let above = self.headers.partition_point(|(number, _)| *number <= line);
        let (at, table) = match self.headers[..above].last() {
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
        let what = match path_refs.as_slice() {
            ["channel", channel] => format!("the channel `{channel}`"),
            ["channel", _, "override", sku] => format!("the override for `{sku}`"),
            ["groups", group] => format!("the group `{group}`"),
            [.., key] => format!("`{key}`"),
            [] => format!("`{key}`"),
        };
        let first = match first.filter(|first| *first < line) {
            Some(first) => format!("; first in line {first}"),
            None => String::new(),
        };
        let path = path_refs
            .iter()
            .fold(String::new(), |path, key| join(&path, key));
        (path, format!("{what} is defined twice{first}"))
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
