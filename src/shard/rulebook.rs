//! The channel rules in force, and those before them.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::{
    domain::{
        movement::TimeUs,
        rules::Rules,
        saved::{Broken, Input, Output},
    },
    log::Position,
};

/// Versions kept to be looked up.
const VERSIONS_KEPT_MAX: usize = 1_000;

/// A version of the channel rules.
#[derive(Debug, Clone)]
pub struct RulesInForce {
    /// Counts the versions, from 0; blocks say by which one their sums were made.
    pub(crate) epoch: u32,
    /// Position of its record in the log; 0 for the built-in rules without channels.
    pub version: Position,
    /// The rules.
    pub rules: Arc<Rules>,
    /// When it took effect, by the log's time.
    pub put_us: TimeUs,
    /// Who put it.
    pub actor: String,
    /// Why.
    pub note: String,
}

impl RulesInForce {
    /// The built-in rules, which have no channels.
    pub fn built_in() -> Self {
        Self {
            epoch: 0,
            version: 0,
            rules: Arc::default(),
            put_us: 0,
            actor: String::new(),
            note: String::new(),
        }
    }
}

impl RulesInForce {
    /// Puts it into a checkpoint.
    pub(crate) fn save(&self, output: &mut Output) {
        output.u32(self.epoch);
        output.u64(self.version);
        output.i64(self.put_us);
        output.text(self.rules.text());
        output.text(&self.actor);
        output.text(&self.note);
    }

    fn load(input: &mut Input<'_>) -> Result<Self, Broken> {
        let (epoch, version, put_us) = (input.u32()?, input.u64()?, input.i64()?);
        let rules = Rules::parse(input.text()?);
        let (rules, _) = rules.map_err(|_| Broken("it has rules that are wrong"))?;
        Ok(Self {
            epoch,
            version,
            rules: Arc::new(rules),
            put_us,
            actor: input.text()?.to_owned(),
            note: input.text()?.to_owned(),
        })
    }
}

/// What readers find the rules by. Reading costs no lock.
#[derive(Debug)]
pub struct Rulebook {
    in_force: ArcSwap<RulesInForce>,
    history: ArcSwap<Vec<Arc<RulesInForce>>>,
}

impl Default for Rulebook {
    fn default() -> Self {
        Self {
            in_force: ArcSwap::from_pointee(RulesInForce::built_in()),
            history: ArcSwap::default(),
        }
    }
}

impl Rulebook {
    /// The rules in force.
    #[inline]
    pub fn in_force(&self) -> Guard<Arc<RulesInForce>> {
        self.in_force.load()
    }

    /// The rules of a version, if it is kept.
    pub fn version(&self, version: Position) -> Option<Arc<RulesInForce>> {
        let history = self.history.load();
        let found = history.iter().rev().find(|rules| rules.version == version);
        found.cloned()
    }

    /// The versions that are kept, the oldest first.
    pub(crate) fn history(&self) -> Arc<Vec<Arc<RulesInForce>>> {
        self.history.load_full()
    }

    /// Takes versions from a checkpoint.
    pub(crate) fn load(input: &mut Input<'_>) -> Result<Self, Broken> {
        let rulebook = Self::default();
        let mut history = Vec::new();
        for _ in 0..input.count()? {
            history.push(Arc::new(RulesInForce::load(input)?));
        }
        if let Some(last) = history.last() {
            rulebook.in_force.store(Arc::clone(last));
        }
        rulebook.history.store(Arc::new(history));
        Ok(rulebook)
    }

    /// Puts rules in force for readers. Called once all shards have made their sums anew.
    pub(crate) fn put(&self, rules: Arc<RulesInForce>) {
        let mut history = Vec::clone(&self.history.load());
        history.push(Arc::clone(&rules));
        let surplus = history.len().saturating_sub(VERSIONS_KEPT_MAX);
        history.drain(..surplus);
        self.history.store(Arc::new(history));
        self.in_force.store(rules);
    }
}
