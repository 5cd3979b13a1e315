//! Channel rules, by their formulas.

use sellable::domain::balances::{Account, Balances};

use super::Model;

/// A rules document.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Groups of locations, in order.
    pub(crate) groups: &'static [(&'static str, &'static [&'static str])],
    pub(crate) channels: Vec<Channel>,
}

/// The terms of a channel, as they are written into the rules.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    pub(crate) name: &'static str,
    /// In order of priority: locations, `@group`, or what a location begins with and `*`.
    pub(crate) sources: &'static [&'static str],
    /// Locations it does not sell from.
    pub(crate) exclude: &'static [&'static str],
    pub(crate) buffer: i64,
    pub(crate) buffer_percent: i64,
    pub(crate) share_percent: i64,
    pub(crate) minimum: i64,
    pub(crate) maximum: Option<i64>,
    /// A SKU of which it sells nothing.
    pub(crate) paused_sku: Option<&'static str>,
}

impl Channel {
    /// Sells all there is, from everywhere.
    pub(crate) const fn open(name: &'static str) -> Self {
        Self {
            name,
            sources: &["*"],
            exclude: &[],
            buffer: 0,
            buffer_percent: 0,
            share_percent: 100,
            minimum: 0,
            maximum: None,
            paused_sku: None,
        }
    }

    /// Its table in a rules document.
    fn toml(&self) -> String {
        let mut text = format!("[channel.{}]\nsources = {:?}\n", self.name, self.sources);
        if !self.exclude.is_empty() {
            text += &format!("exclude = {:?}\n", self.exclude);
        }
        for (key, value) in [
            ("buffer", self.buffer),
            ("buffer_percent", self.buffer_percent),
            ("share_percent", self.share_percent),
            ("minimum", self.minimum),
        ] {
            text += &format!("{key} = {value}\n");
        }
        if let Some(maximum) = self.maximum {
            text += &format!("maximum = {maximum}\n");
        }
        if let Some(sku) = self.paused_sku {
            text += &format!(
                "[channel.{}.override.\"{sku}\"]\npaused = true\n",
                self.name
            );
        }
        text
    }

    /// "max(0, free - max(buffer, ⌈good × buffer_percent / 100⌉))"
    fn contribution(&self, balances: &Balances) -> i64 {
        let good = i128::from(balances[Account::Good]);
        let free = good - i128::from(balances[Account::Reserved]);
        let by_percent = (good.max(0) * i128::from(self.buffer_percent) + 99) / 100;
        (free - by_percent.max(self.buffer.into())).max(0) as i64
    }

    /// "⌊Σ cell × share_percent / 100⌋; 0 if paused or below `minimum`; at most `maximum`"
    fn ats(&self, sku: &str, sum: i128) -> i64 {
        let ats = sum * i128::from(self.share_percent) / 100;
        if self.paused_sku == Some(sku) || ats < self.minimum.into() {
            return 0;
        }
        ats.min(self.maximum.unwrap_or(i64::MAX).into()) as i64
    }
}

/// What a channel may sell of a SKU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    /// In all.
    pub(crate) ats: i64,
    /// By location, the first in priority first.
    pub(crate) by_location: Vec<(String, i64)>,
}

impl Rules {
    /// The document.
    pub(crate) fn toml(&self) -> String {
        let mut text = String::from("[groups]\n");
        for (name, members) in self.groups {
            text += &format!("{name} = {members:?}\n");
        }
        self.channels.iter().for_each(|c| text += &c.toml());
        text
    }

    /// The channel of a name.
    pub(crate) fn channel(&self, name: &str) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.name == name)
    }

    /// A location's place in a channel's order of priority: that of the first entry that names
    /// it. `None` if the channel does not sell from there.
    pub(crate) fn priority(&self, channel: &Channel, at: &str) -> Option<usize> {
        if channel.exclude.contains(&at) {
            return None;
        }
        let members = |entry: &&'static str| -> Vec<&'static str> {
            let group = entry.strip_prefix('@');
            let Some(group) = group else {
                return vec![*entry];
            };
            let group = self.groups.iter().find(|(name, _)| *name == group);
            group.expect("a group of these rules").1.to_vec()
        };
        let entries = channel.sources.iter().flat_map(members);
        let names = |entry: &str| match entry.strip_suffix('*') {
            Some(begin) => at.starts_with(begin),
            None => entry == at,
        };
        entries
            .enumerate()
            .find(|(_, entry)| names(entry))
            .map(|(place, _)| place)
    }

    /// What a channel may sell of a SKU, if `taken` was reserved too; `None` if no fact names it.
    pub(crate) fn offer(
        &self,
        model: &Model,
        channel: &Channel,
        sku: &str,
        taken: &[(String, i64)],
    ) -> Option<Offer> {
        if !model.skus.contains(sku) {
            return None;
        }
        let (mut offers, mut shown) = (Vec::new(), 0);
        for ((_, at), balances) in model.cells.iter().filter(|((of, _), _)| of == sku) {
            let mut balances = *balances;
            if self.priority(channel, at).is_some() {
                shown += i128::from(channel.contribution(&balances));
            }
            for (_, units) in taken.iter().filter(|(place, _)| place == at) {
                balances[Account::Reserved] += units;
            }
            if let Some(priority) = self.priority(channel, at) {
                offers.push((priority, at.clone(), channel.contribution(&balances)));
            }
        }
        // Equal priority: by name.
        offers.sort();
        // What is shown holds for all lines of a cart together.
        let taken: i64 = taken.iter().map(|(_, units)| units).sum();
        Some(Offer {
            ats: (channel.ats(sku, shown) - taken).max(0),
            by_location: offers
                .into_iter()
                .map(|(_, at, units)| (at, units))
                .collect(),
        })
    }

    /// Units that a channel may sell of a SKU; `None` if no fact names it.
    pub(crate) fn ats(&self, model: &Model, channel: &Channel, sku: &str) -> Option<i64> {
        self.offer(model, channel, sku, &[]).map(|offer| offer.ats)
    }
}
