//! Progress of webhooks, as far as the log is concerned.

use super::Instance;
use crate::{
    intake::{DeliveryBook, PostError, Reported, sequencer::Waiting},
    proto::v1 as pb,
};

impl Instance {
    /// How far webhooks have got, who delivers to them, and what they refused.
    pub fn deliveries(&self) -> &DeliveryBook {
        &self.deliveries
    }

    /// Writes how far a webhook has got, and waits until that is decided.
    ///
    /// # Errors
    /// See [`PostError`]. Writing the same again is always safe.
    pub async fn report_delivery(
        &self,
        progress: pb::DeliveryProgress,
    ) -> Result<Reported, PostError> {
        let body = pb::record::Body::Delivery(progress);
        self.write(body, Waiting::Delivery).await
    }

    /// What a webhook refused for good, by SKU; `None` if the log does not know the webhook.
    pub fn dead_letters(&self, webhook: &str) -> Option<Vec<pb::DeadLetter>> {
        let standing = self.deliveries.get(webhook)?;
        let letters = standing.dead_letters.iter();
        Some(letters.map(|(sku, letter)| letter.to_proto(sku)).collect())
    }

    /// Has dead letters of a webhook tried again, those of these SKUs, or all if there are none. Gives
    /// how many they are; `None` if the log does not know the webhook.
    ///
    /// # Errors
    /// See [`PostError`]. Asking again is always safe.
    pub async fn retry_dead_letters(
        &self,
        webhook: &str,
        skus: Vec<String>,
    ) -> Result<Option<u64>, PostError> {
        let progress = pb::DeliveryProgress {
            webhook: webhook.to_owned(),
            retry: true,
            retry_skus: skus,
            ..pb::DeliveryProgress::default()
        };
        // Decided in the log, like all of it: this instance may not know the webhook yet.
        let reported = self.report_delivery(progress).await?;
        Ok(reported.took_effect.then_some(reported.retried))
    }
}
