//! Follows the log: reads it in order, decodes it, and hands it to the sequencer.

use std::sync::Arc;

use super::{decode::Decoder, sequencing::SequencerQueue};
use crate::{
    limits::FOLLOW_ENTRIES_MAX,
    log::{Log, LogError, Position},
};

/// Follows `log` from `from` on until nobody takes the steps any more.
///
/// # Errors
/// What ends the instance: the log is damaged, is not the one it was, or holds what this version
/// cannot decide about.
pub(crate) async fn follow(
    log: Arc<dyn Log>,
    from: Position,
    mut decoder: Decoder,
    sequencer: SequencerQueue,
) -> Result<(), LogError> {
    let mut reader = log.reader(from).await?;
    let mut next = from;
    let mut decoded = Vec::new();
    loop {
        let entries = tokio::select! {
            entries = reader.next(FOLLOW_ENTRIES_MAX) => entries?,
            () = sequencer.closed() => return Ok(()),
        };
        for entry in entries {
            assert_eq!(entry.position, next, "the log's reader left a gap");
            next += 1;
            decoder.decode(entry, &mut decoded)?;
            for step in decoded.drain(..) {
                if sequencer.hand_over(step).await.is_err() {
                    return Ok(());
                }
            }
        }
        // Nothing waits for more entries: there may be none for long.
        if let Some(step) = decoder.rest()
            && sequencer.hand_over(step).await.is_err()
        {
            return Ok(());
        }
    }
}
