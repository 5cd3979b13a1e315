//! Comparing a snapshot with the books of its own time.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Instance;
use crate::{
    domain::{
        keys::Keyer,
        movement::TimeUs,
        recent::RecentView,
        reconcile::{AsOf, Chunk, Compared},
    },
    intake::{PostError, sequencer::Step},
    log::Position,
    shard::compare::Comparing,
};

/// Why a snapshot could not be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// The instance is stopping.
    #[error("the instance is stopping")]
    Stopping,
    /// What occurred after the snapshot's moment is no longer known in full.
    #[error("the snapshot is older than what is kept to compare it with")]
    TooOld {
        /// The oldest moment, tolerance included, of which a snapshot can be compared.
        kept_since_us: TimeUs,
    },
}

impl Instance {
    /// Compares lines of a snapshot with what the books held at its time, at one position of the
    /// log; tells what came of each, in their order, and the position. Queries go on meanwhile, and
    /// movements are applied between chunks: keep them to some thousand lines.
    ///
    /// # Errors
    /// See [`CompareError`].
    pub async fn compare(
        &self,
        chunk: Arc<Chunk>,
        as_of: AsOf,
    ) -> Result<(Vec<Compared>, Position), CompareError> {
        let comparing = Arc::new(Comparing::new(chunk, as_of, self.shards));
        let (answer, told) = oneshot::channel();
        let step = Step::Compare(Arc::clone(&comparing), answer);
        self.ask(step, told)
            .await
            .map_err(|_| CompareError::Stopping)?
            .map(|position| (comparing.result(), position))
            .map_err(|kept_since_us| CompareError::TooOld { kept_since_us })
    }

    /// When the movement `id` of `source` occurred, if it is among the recent ones that changed
    /// what lies somewhere: for a watermark.
    ///
    /// # Errors
    /// [`PostError::Stopping`].
    pub async fn occurred(&self, source: &str, id: &str) -> Result<Option<TimeUs>, PostError> {
        let Some(number) = self.sources.get(source) else {
            return Ok(None);
        };
        let (answer, told) = oneshot::channel();
        let views: Vec<RecentView> = self.ask(Step::Recent(answer), told).await?;
        let key = Keyer::new().movement(source, id).first_half();
        let found = tokio::task::spawn_blocking(move || {
            let mut found = views.iter().map(|view| view.occurred_us(key, number.0));
            found.find_map(|found| found)
        });
        Ok(found.await.expect("looking does not panic"))
    }

    /// The number of a source of movements, if it ever posted any.
    pub fn source_number(&self, source: &str) -> Option<u32> {
        self.sources.get(source).map(|number| number.0)
    }

    /// Sends a step and waits for what it tells.
    pub(super) async fn ask<T>(
        &self,
        step: Step,
        told: oneshot::Receiver<T>,
    ) -> Result<T, PostError> {
        let steps = self.lock_steps().clone().ok_or(PostError::Stopping)?;
        steps.send(step).await.map_err(|_| PostError::Stopping)?;
        told.await.map_err(|_| PostError::Stopping)
    }
}
