//! Parked movements into the bytes of a checkpoint, and back.

use std::{sync::Arc, sync::Mutex};

use bytes::Bytes;

use super::{Inner, Known, Parked, ParkedList};
use crate::domain::{
    digest::{Digest, Digester},
    exceptions::{Acknowledged, ExceptionId, ParkedKind},
    saved::{Broken, Input, Output},
};

/// All of them at one moment.
#[derive(Debug)]
pub(crate) struct SavedParked {
    known: Vec<(ExceptionId, Known)>,
    kept: Vec<Arc<Parked>>,
}

impl ParkedList {
    /// All of them as they are now.
    pub(crate) fn all(&self) -> SavedParked {
        let inner = self.lock();
        SavedParked {
            known: inner
                .known
                .iter()
                .map(|(id, known)| (*id, *known))
                .collect(),
            kept: inner.kept.values().cloned().collect(),
        }
    }

    /// From bytes. Holds the details of at most `kept_max`.
    pub(crate) fn load(kept_max: usize, bytes: &[u8]) -> Result<Self, Broken> {
        let mut input = Input::new(bytes);
        let mut inner = Inner::default();
        for _ in 0..input.count()? {
            let (id, known) = load_known(&mut input)?;
            *inner.counts.entry(known.kind).or_default() += u64::from(known.open);
            inner.known.insert(id, known);
        }
        inner.digest = digest_of(bytes)?;
        for _ in 0..input.count()? {
            let parked = load_parked(&mut input)?;
            inner.kept_bytes += parked.original.len();
            let place = (parked.first_seen_us, parked.exception_id());
            inner.kept.insert(place, Arc::new(parked));
        }
        inner.bound(kept_max);
        Ok(Self {
            kept_max,
            inner: Mutex::new(inner),
        })
    }
}

/// What parked movements in bytes add to the digest.
pub(crate) fn digest_of(bytes: &[u8]) -> Result<Digest, Broken> {
    let mut input = Input::new(bytes);
    let (mut digest, mut digester) = (Digest::default(), Digester::default());
    for _ in 0..input.count()? {
        let (id, known) = load_known(&mut input)?;
        if known.open {
            digest += digester.parked(id.0);
        }
    }
    Ok(digest)
}

impl SavedParked {
    /// Into bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let mut output = Output::new();
        output.count(self.known.len());
        for (id, known) in &self.known {
            output.u128(id.0);
            output.i64(known.first_seen_us);
            output.u8(known.kind as u8);
            output.flag(known.open);
        }
        output.count(self.kept.len());
        for parked in &self.kept {
            output.u8(parked.kind as u8);
            output.u64(parked.position);
            output.u32(parked.index);
            output.i64(parked.first_seen_us);
            output.text(&parked.source);
            output.text(&parked.id);
            output.text(&parked.reason);
            output.bytes(&parked.original);
            output.text(&parked.media_type);
            output.u64(parked.occurrences);
            output.option(parked.acknowledged.as_ref(), |output, seen| {
                seen.save(output);
            });
        }
        output.into_bytes()
    }
}

fn load_kind(input: &mut Input<'_>) -> Result<ParkedKind, Broken> {
    let number = input.u8()?;
    let mut kinds = ParkedKind::ALL.into_iter();
    let kind = kinds.find(|kind| *kind as u8 == number);
    kind.ok_or(Broken(
        "it has a movement that is parked for no known reason",
    ))
}

fn load_known(input: &mut Input<'_>) -> Result<(ExceptionId, Known), Broken> {
    let id = ExceptionId(input.u128()?);
    let known = Known {
        first_seen_us: input.i64()?,
        kind: load_kind(input)?,
        open: input.flag()?,
    };
    Ok((id, known))
}

fn load_parked(input: &mut Input<'_>) -> Result<Parked, Broken> {
    Ok(Parked {
        kind: load_kind(input)?,
        position: input.u64()?,
        index: input.u32()?,
        first_seen_us: input.i64()?,
        source: input.text()?.to_owned(),
        id: input.text()?.to_owned(),
        reason: input.text()?.to_owned(),
        original: Bytes::copy_from_slice(input.bytes()?),
        media_type: input.text()?.to_owned(),
        occurrences: input.u64()?,
        acknowledged: input.option(Acknowledged::load)?,
    })
}
