//! The rules document as written: TOML in, definitions and findings out.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::domain::document::{
    self, DocumentError, Entry, Grammar, Group, Reader, Twice, Value, Warning, hint, join,
};
use crate::limits;

/// All definitions of a document; groups and channels in order of name.
#[derive(Debug, Clone, Default)]
pub(super) struct Document {
    pub(super) groups: Vec<Group>,
    pub(super) channels: Vec<Channel>,
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
    pub(super) publish_step: Option<i64>,
    pub(super) publish_step_percent: Option<u8>,
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

const TERMS: [&str; 9] = [
    "exclude",
    "buffer",
    "buffer_percent",
    "share_percent",
    "minimum",
    "maximum",
    "paused",
    "publish_step",
    "publish_step_percent",
];
const CHANNEL_ONLY: [&str; 2] = ["sources", "override"];

const GRAMMAR: Grammar = Grammar {
    name: "rules",
    section: "channel",
    has_groups: true,
    section_max: limits::CHANNELS_MAX,
    twice: |path| match path {
        ["channel", channel] => Some(Twice::just(format!("the channel `{channel}`"))),
        ["channel", _, "override", sku] => Some(Twice::just(format!("the override for `{sku}`"))),
        _ => None,
    },
};

/// Reads a document.
///
/// # Errors
/// Every error that can be found.
pub(super) fn read(text: &str) -> Result<(Document, Vec<Warning>), DocumentError> {
    let (read, warnings) = document::read(text, &GRAMMAR, |reader, key, value| {
        ChannelReader { toml: reader }.channel(key.span(), key.get_ref(), value)
    })?;
    let (groups, mut channels) = (read.groups, read.entries);
    channels.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((Document { groups, channels }, warnings))
}

struct ChannelReader<'r, 't> {
    toml: &'r mut Reader<'t>,
}

impl ChannelReader<'_, '_> {
    fn channel(&mut self, span: Range<usize>, name: &str, value: &Value<'_>) -> Option<Channel> {
        let path = join("channel", name);
        self.toml
            .name(span.clone(), &path, name, limits::CHANNEL_BYTES_MAX);
        let table = self.toml.table(&path, value)?;
        let mut terms = Terms::default();
        let mut sources = None;
        let mut written_overrides = None;
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = join(&path, name);
            match name {
                "sources" => sources = Some((key.span(), self.toml.locations(&path, value))),
                "override" => written_overrides = self.toml.table(&path, value),
                _ if self.term(&mut terms, &path, name, value) => {}
                _ => {
                    let hint = hint(name, CHANNEL_ONLY.into_iter().chain(TERMS));
                    let message = format!("unknown key{hint}");
                    self.toml.error(key.span(), &path, message);
                }
            }
        }
        let sources = match sources {
            None => {
                let message = "has no `sources`; list the groups and locations it sells from";
                self.toml.absence(span, &path, message);
                Vec::new()
            }
            Some((span, Some(entries))) if entries.is_empty() => {
                let message = "the list is empty: the channel sells nothing";
                self.toml.warn(span, &join(&path, "sources"), message);
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
            let Some(table) = self.toml.table(&path, value) else {
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
                self.toml.error(key.span(), &path, message);
            }
            if table.is_empty() {
                self.toml
                    .warn(key.span(), &path, "the override changes nothing");
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
                return self.toml.error(span, path, message);
            }
            Some(prefix) => prefix,
            None => key,
        };
        if stem.contains('*') {
            let message = "a `*` may stand only at the end: an override is for a SKU or a prefix";
            return self.toml.error(span, path, message);
        }
        // A prefix may end in a space, which a whole SKU may not.
        let is_prefix = stem.len() < key.len();
        let stem = if is_prefix { stem.trim_end() } else { stem };
        self.toml.name(span, path, stem, limits::SKU_BYTES_MAX);
    }

    /// Reads the term `name`; false if there is no such term.
    fn term(&mut self, terms: &mut Terms, path: &str, name: &str, value: &Value<'_>) -> bool {
        match name {
            "exclude" => terms.exclude = self.toml.locations(path, value),
            "buffer" => terms.buffer = self.integer(path, value, limits::QUANTITY_MAX),
            "buffer_percent" => terms.buffer_percent = self.percent(path, value),
            "share_percent" => terms.share_percent = self.percent(path, value),
            "minimum" => terms.minimum = self.integer(path, value, limits::RULES_UNITS_MAX),
            "maximum" => terms.maximum = self.integer(path, value, limits::RULES_UNITS_MAX),
            "publish_step" => {
                terms.publish_step = self.integer(path, value, limits::RULES_UNITS_MAX);
            }
            "publish_step_percent" => terms.publish_step_percent = self.percent(path, value),
            "paused" => match value.get_ref() {
                DeValue::Boolean(paused) => terms.paused = Some(*paused),
                _ => self.toml.wrong_type(path, value, "`true` or `false`"),
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
                return self.toml.error(value.span(), &join(path, name), message);
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
            self.toml.wrong_type(path, value, "a whole number");
            return None;
        };
        let number = i64::from_str_radix(written.as_str(), written.radix()).ok();
        let number = number.filter(|number| (0..=max).contains(number));
        if number.is_none() {
            self.toml.error(
                value.span(),
                path,
                format!("{written} is out of range; 0 to {max}"),
            );
        }
        number
    }
}
