//! What feeds need of an instance.

use tokio::sync::oneshot;

use super::Instance;
use crate::{
    intake::{
        Cut, PostError,
        sequencer::{Step, Waiting},
    },
    log::Position,
    proto::v1 as pb,
};

impl Instance {
    /// Takes changes of published numbers, at one position; a part of them if there are very many.
    /// Needs [`super::Options::feeds`].
    ///
    /// # Errors
    /// [`PostError::Stopping`].
    pub async fn cut(&self) -> Result<Cut, PostError> {
        let (answer, cut) = oneshot::channel();
        self.ask(Step::Cut(answer), cut).await
    }

    /// Has published numbers delivered once more, by every instance, and waits until they are to be.
    /// Gives the position from which on they are.
    ///
    /// # Errors
    /// See [`PostError`].
    pub async fn republish(&self, republish: pb::Republish) -> Result<Position, PostError> {
        let body = pb::record::Body::Republish(republish);
        self.write(body, Waiting::Document).await
    }
}
