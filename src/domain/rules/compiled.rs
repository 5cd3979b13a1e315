//! Rules made ready for use: policies by SKU, memberships by location.

use std::collections::BTreeSet;

use super::document::{self, Channel, Document, Override, Terms};
use super::membership::Membership;
use super::policy::Policy;
use crate::domain::document::{DocumentError, Entry, Map, Places, Warning, unmatched, unseen};

/// A channel's number in one set of [`Rules`], from 0, in order of name. Below
/// [`CHANNELS_MAX`](limits::CHANNELS_MAX).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelIx(pub u16);

impl ChannelIx {
    /// The number as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Channel rules in force. Immutable; a change makes new ones.
///
/// Two are equal if their documents are the same text: a change of a comment is a change.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    text: Box<str>,
    document: Document,
    groups: Vec<Places>,
    channels: Vec<Compiled>,
    /// Every SKU and prefix that any channel overrides.
    overridden: Selectors,
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Rules {}

#[derive(Debug, Clone)]
struct Compiled {
    name: Box<str>,
    base: Policy,
    /// `None`: every SKU has the base policy.
    overrides: Option<Overrides>,
    sources: Places,
    /// The channel's exclusions, and those of overrides that have their own, by list number.
    exclusions: Vec<(u32, Places)>,
}

#[derive(Debug, Clone)]
struct Overrides {
    selectors: Selectors,
    /// By what `selectors` finds: the key and the policy.
    policies: Vec<(Box<str>, Policy)>,
}

impl Rules {
    /// Reads a document; the warnings are those that can be told from it alone.
    ///
    /// The empty document is valid: it has no channels, and equals [`Rules::default`], the
    /// built-in rules.
    ///
    /// # Errors
    /// Every error that can be found: what is not TOML, an unknown key or group, a channel, group
    /// or key defined twice, a wrong type, a value out of range or longer than its limit, a
    /// `minimum` above the `maximum`, a channel without `sources`, an entry listed twice, a wrong
    /// pattern, too many channels, more than
    /// [`RULES_BYTES_MAX`](limits::RULES_BYTES_MAX).
    pub fn parse(text: &str) -> Result<(Self, Vec<Warning>), DocumentError> {
        let (document, warnings) = document::read(text)?;
        let rules = Self {
            text: text.into(),
            groups: document
                .groups
                .iter()
                .map(|group| Places::of(&group.members, &[]))
                .collect(),
            ..Self::default()
        };
        Ok((rules.compile(document), warnings))
    }

    fn compile(mut self, document: Document) -> Self {
        let mut lists = 0;
        self.channels = document
            .channels
            .iter()
            .map(|channel| Compiled::new(channel, &self.groups, &mut lists))
            .collect();
        let keys = document
            .channels
            .iter()
            .flat_map(|channel| &channel.overrides);
        self.overridden = Selectors::of(keys);
        self.document = document;
        self
    }

    /// The document, as it was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The channel of a name.
    pub fn channel(&self, name: &str) -> Option<ChannelIx> {
        let at = self
            .channels
            .binary_search_by(|own| own.name.as_ref().cmp(name))
            .ok()?;
        Some(index(at))
    }

    /// All channels, in order of name.
    pub fn channels(&self) -> impl ExactSizeIterator<Item = (ChannelIx, &str)> {
        self.channels
            .iter()
            .enumerate()
            .map(|(at, channel)| (index(at), channel.name.as_ref()))
    }

    /// How many channels there are.
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// The name of a channel of these rules.
    ///
    /// # Panics
    /// If it is not one of these rules.
    pub fn channel_name(&self, channel: ChannelIx) -> &str {
        &self.channels[channel.index()].name
    }

    /// The terms of a channel for SKUs without an override.
    ///
    /// # Panics
    /// If it is not a channel of these rules.
    #[inline]
    pub fn base_policy(&self, channel: ChannelIx) -> &Policy {
        &self.channels[channel.index()].base
    }

    /// The terms of a channel for a SKU. Allocates nothing; costs one branch if the channel has
    /// no overrides, otherwise one look-up and one for each length of prefix in use.
    ///
    /// # Panics
    /// If it is not a channel of these rules.
    #[inline]
    pub fn policy(&self, channel: ChannelIx, sku: &str) -> &Policy {
        let channel = &self.channels[channel.index()];
        match &channel.overrides {
            None => &channel.base,
            Some(overrides) => overrides
                .find(sku)
                .map_or(&channel.base, |(_, policy)| policy),
        }
    }

    /// Whether any channel lets small changes pass without publishing them.
    pub fn has_publish_steps(&self) -> bool {
        let steps = |policy: &Policy| policy.publish_step > 0 || policy.publish_step_percent > 0;
        self.channels.iter().any(|channel| {
            let overrides = channel.overrides.iter().flat_map(|own| &own.policies);
            steps(&channel.base) || overrides.into_iter().any(|(_, policy)| steps(policy))
        })
    }

    /// The key of the override that applies to a SKU, as written: a SKU, or a prefix with `*`.
    ///
    /// # Panics
    /// If it is not a channel of these rules.
    pub fn override_key(&self, channel: ChannelIx, sku: &str) -> Option<&str> {
        let overrides = self.channels[channel.index()].overrides.as_ref()?;
        overrides.find(sku).map(|(key, _)| key.as_ref())
    }

    /// Whether any channel has an override for a SKU. If not, [`Rules::base_policy`] is the
    /// policy of every channel: worth asking once for each SKU.
    pub fn has_overrides_for(&self, sku: &str) -> bool {
        self.overridden.find(sku).is_some()
    }

    /// The channels that sell from a location, in order of channel. Not for the hot path, see
    /// [`super::Memberships`].
    pub fn memberships(&self, location: &str) -> Vec<Membership> {
        let groups: Vec<Option<u32>> = self
            .groups
            .iter()
            .map(|group| group.rank(location, &[]))
            .collect();
        let member = |(at, channel): (usize, &Compiled)| {
            let rank = channel.sources.rank(location, &groups)?;
            let excluded_by: Box<[u32]> = channel
                .exclusions
                .iter()
                .filter(|(_, places)| places.rank(location, &groups).is_some())
                .map(|(list, _)| *list)
                .collect();
            (excluded_by.len() < channel.exclusions.len()).then(|| Membership {
                channel: index(at),
                rank,
                excluded_by,
            })
        };
        self.channels
            .iter()
            .enumerate()
            .filter_map(member)
            .collect()
    }

    /// A warning for each location that is named and not `known`, that is, has never been seen:
    /// the first [`RULES_FINDINGS_MAX`](limits::RULES_FINDINGS_MAX), in the order of the document.
    pub fn warnings(&self, known: impl Fn(&str) -> bool) -> Vec<Warning> {
        unseen(self.document.entries(), &self.document.groups, known)
    }

    /// A warning for each pattern that matches none of the known locations. Likewise bounded.
    pub fn pattern_warnings<'n>(&self, known: impl IntoIterator<Item = &'n str>) -> Vec<Warning> {
        unmatched(self.document.entries(), known)
    }
}

/// The reader bounds the number of channels far below what fits.
fn index(at: usize) -> ChannelIx {
    ChannelIx(u16::try_from(at).expect("more channels than their limit"))
}

impl Compiled {
    /// `lists` counts the lists of exclusions of all channels.
    fn new(channel: &Channel, groups: &[Places], lists: &mut u32) -> Self {
        let mut exclusions = Vec::new();
        let mut exclude = |entries: &[Entry]| {
            let list = *lists;
            *lists += 1;
            exclusions.push((list, Places::of(entries, groups)));
            list
        };
        let open = Policy {
            buffer: 0,
            buffer_percent: 0,
            share_percent: 100,
            minimum: 0,
            maximum: None,
            paused: false,
            publish_step: 0,
            publish_step_percent: 0,
            exclude_list: 0,
        };
        let base_list = exclude(channel.terms.exclude.as_deref().unwrap_or_default());
        let base = lay_over(&open, &channel.terms, base_list);
        let policies: Vec<(Box<str>, Policy)> = channel
            .overrides
            .iter()
            .map(|own| {
                let list = own.terms.exclude.as_deref().map_or(base_list, &mut exclude);
                (own.key.as_str().into(), lay_over(&base, &own.terms, list))
            })
            .collect();
        let overrides = (!policies.is_empty()).then(|| Overrides {
            selectors: Selectors::of(&channel.overrides),
            policies,
        });
        Self {
            name: channel.name.as_str().into(),
            base,
            overrides,
            sources: Places::of(&channel.sources, groups),
            exclusions,
        }
    }
}

fn lay_over(base: &Policy, terms: &Terms, exclude_list: u32) -> Policy {
    Policy {
        buffer: terms.buffer.unwrap_or(base.buffer),
        buffer_percent: terms.buffer_percent.unwrap_or(base.buffer_percent),
        share_percent: terms.share_percent.unwrap_or(base.share_percent),
        minimum: terms.minimum.unwrap_or(base.minimum),
        maximum: terms.maximum.or(base.maximum),
        paused: terms.paused.unwrap_or(base.paused),
        publish_step: terms.publish_step.unwrap_or(base.publish_step),
        publish_step_percent: terms
            .publish_step_percent
            .unwrap_or(base.publish_step_percent),
        exclude_list,
    }
}

impl Overrides {
    fn find(&self, sku: &str) -> Option<&(Box<str>, Policy)> {
        Some(&self.policies[self.selectors.find(sku)?])
    }
}

/// Finds by SKU: exactly, otherwise by the longest prefix.
#[derive(Debug, Clone, Default)]
struct Selectors {
    exact: Map<usize>,
    prefixes: Map<usize>,
    /// Lengths of the prefixes in bytes, the longest first.
    lengths: Vec<usize>,
}

impl Selectors {
    /// Finds the positions of `overrides`.
    fn of<'o>(overrides: impl IntoIterator<Item = &'o Override>) -> Self {
        let mut selectors = Self::default();
        let mut lengths = BTreeSet::new();
        for (at, own) in overrides.into_iter().enumerate() {
            match own.key.strip_suffix('*') {
                Some(prefix) => {
                    lengths.insert(prefix.len());
                    selectors.prefixes.insert(prefix.into(), at);
                }
                None => {
                    selectors.exact.insert(own.key.as_str().into(), at);
                }
            }
        }
        selectors.lengths = lengths.into_iter().rev().collect();
        selectors
    }

    fn find(&self, sku: &str) -> Option<usize> {
        if let Some(at) = self.exact.get(sku) {
            return Some(*at);
        }
        self.lengths.iter().find_map(|length| {
            let prefix = sku.get(..*length)?;
            self.prefixes.get(prefix).copied()
        })
    }
}
