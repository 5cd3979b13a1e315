//! The source authority in force, and those before it.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::{
    domain::{
        authority::Authority,
        document::DocumentError,
        movement::TimeUs,
        saved::{Broken, Input, Output},
    },
    log::Position,
    proto::v1 as pb,
};

/// Versions kept to be looked up.
const VERSIONS_KEPT_MAX: usize = 1_000;

/// A version of the source authority.
#[derive(Debug, Clone)]
pub struct AuthorityInForce {
    /// Position of its record in the log; 0 for the one that is built in, which allows everything.
    pub version: Position,
    /// The authority.
    pub authority: Arc<Authority>,
    /// When it took effect, by the log's time.
    pub put_us: TimeUs,
    /// Who put it.
    pub actor: String,
    /// Why.
    pub note: String,
}

impl AuthorityInForce {
    /// The one that is built in: every source may post everything.
    pub fn built_in() -> Self {
        Self {
            version: 0,
            authority: Arc::default(),
            put_us: 0,
            actor: String::new(),
            note: String::new(),
        }
    }

    /// What is in force once the record at `position` has taken effect; `None` if it has none,
    /// because it expected another version than this one.
    ///
    /// # Errors
    /// If its document is wrong; then it has no effect either. Whoever wrote the record checked
    /// it, so this is a record of another version of this program.
    pub fn after(
        &self,
        put: pb::AuthorityPut,
        position: Position,
        put_us: TimeUs,
    ) -> Result<Option<Self>, DocumentError> {
        if put
            .expected_version
            .is_some_and(|expected| expected != self.version)
        {
            return Ok(None);
        }
        let (authority, _) = Authority::parse(&put.toml)?;
        Ok(Some(Self {
            version: position,
            authority: Arc::new(authority),
            put_us,
            actor: put.actor,
            note: put.note,
        }))
    }
}

impl AuthorityInForce {
    /// Puts it into a checkpoint.
    pub(crate) fn save(&self, output: &mut Output) {
        output.u64(self.version);
        output.i64(self.put_us);
        output.text(self.authority.text());
        output.text(&self.actor);
        output.text(&self.note);
    }

    fn load(input: &mut Input<'_>) -> Result<Self, Broken> {
        let (version, put_us) = (input.u64()?, input.i64()?);
        let authority = Authority::parse(input.text()?);
        let (authority, _) =
            authority.map_err(|_| Broken("it has a source authority that is wrong"))?;
        Ok(Self {
            version,
            authority: Arc::new(authority),
            put_us,
            actor: input.text()?.to_owned(),
            note: input.text()?.to_owned(),
        })
    }
}

/// What readers find the authority by. Reading costs no lock.
#[derive(Debug)]
pub struct AuthorityBook {
    in_force: ArcSwap<AuthorityInForce>,
    history: ArcSwap<Vec<Arc<AuthorityInForce>>>,
}

impl Default for AuthorityBook {
    fn default() -> Self {
        Self {
            in_force: ArcSwap::from_pointee(AuthorityInForce::built_in()),
            history: ArcSwap::default(),
        }
    }
}

impl AuthorityBook {
    /// The authority in force.
    #[inline]
    pub fn in_force(&self) -> Guard<Arc<AuthorityInForce>> {
        self.in_force.load()
    }

    /// The authority of a version, if it is kept.
    pub fn version(&self, version: Position) -> Option<Arc<AuthorityInForce>> {
        let history = self.history.load();
        let found = history.iter().rev().find(|own| own.version == version);
        found.cloned()
    }

    /// The versions that are kept, the oldest first.
    pub(crate) fn history(&self) -> Arc<Vec<Arc<AuthorityInForce>>> {
        self.history.load_full()
    }

    /// Takes versions from a checkpoint.
    pub(crate) fn load(input: &mut Input<'_>) -> Result<Self, Broken> {
        let book = Self::default();
        let mut history = Vec::new();
        for _ in 0..input.count()? {
            history.push(Arc::new(AuthorityInForce::load(input)?));
        }
        if let Some(last) = history.last() {
            book.in_force.store(Arc::clone(last));
        }
        book.history.store(Arc::new(history));
        Ok(book)
    }

    /// Puts an authority in force for readers. Only the sequencer does.
    pub(crate) fn put(&self, authority: Arc<AuthorityInForce>) {
        let mut history = Vec::clone(&self.history.load());
        history.push(Arc::clone(&authority));
        let surplus = history.len().saturating_sub(VERSIONS_KEPT_MAX);
        history.drain(..surplus);
        self.history.store(Arc::new(history));
        self.in_force.store(authority);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(toml: &str, expected_version: Option<Position>) -> pb::AuthorityPut {
        pb::AuthorityPut {
            toml: toml.to_owned(),
            actor: "anna".to_owned(),
            note: "why".to_owned(),
            expected_version,
        }
    }

    #[test]
    fn a_record_takes_effect_if_its_version_holds_and_its_document_is_right() {
        let built_in = AuthorityInForce::built_in();
        assert!(built_in.authority.is_open());
        let wms = "[source.wms]\nmay = ['*']\n";
        let first = built_in
            .after(put(wms, Some(0)), 7, 1_000)
            .unwrap()
            .unwrap();
        assert_eq!((first.version, first.put_us), (7, 1_000));
        assert_eq!((first.actor.as_str(), first.note.as_str()), ("anna", "why"));
        assert!(!first.authority.may("pos", 0, None));
        assert!(first.after(put("", Some(0)), 8, 2_000).unwrap().is_none());
        assert!(first.after(put("[source", None), 8, 2_000).is_err());
        let second = first.after(put("", Some(7)), 9, 2_000).unwrap().unwrap();
        assert!(second.authority.is_open());
    }

    #[test]
    fn versions_are_kept_to_be_looked_up() {
        let book = AuthorityBook::default();
        assert_eq!(book.in_force().version, 0);
        assert!(book.version(0).is_none(), "the one built in is no record");
        for position in 1..=VERSIONS_KEPT_MAX as Position + 2 {
            let next = book.in_force().after(put("", None), position, 0);
            book.put(Arc::new(next.unwrap().unwrap()));
        }
        assert_eq!(book.in_force().version, VERSIONS_KEPT_MAX as Position + 2);
        assert!(book.version(2).is_none(), "too long ago");
        assert_eq!(book.version(3).map(|own| own.version), Some(3));
    }
}
