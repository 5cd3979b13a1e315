//! Read-back: what a marketplace shows, against what was published.
//!
//! A marketplace may accept a number and not apply it. A connector that reads back what is shown
//! closes the loop: what differs although there was time enough is reported, and delivered once more
//! on every way.

use super::{Feeds, SubscribeError};
use crate::{
    domain::movement::{TimeUs, text},
    instance::now_us,
    intake::PostError,
    limits::{ACTOR_BYTES_MAX, FEED_SETTLE_MS_MAX, FEED_SKUS_MAX, SKU_BYTES_MAX},
    proto::v1 as pb,
    wire::movement::optional_time_us,
};

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Where.
    pub field: String,
    /// Why.
    pub reason: String,
}

impl Wrong {
    fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// See [`SubscribeError`].
    #[error(transparent)]
    NoChannel(#[from] SubscribeError),
    /// The log does not take that numbers are to be delivered once more.
    #[error(transparent)]
    NotWritten(#[from] PostError),
}

/// What a connector says, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    request: pb::ReportShownRequest,
    /// What was logged later may be on its way.
    settled_us: TimeUs,
}

/// Checks a request.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(request: pb::ReportShownRequest) -> Result<Shown, Wrong> {
    if request.shown.len() > FEED_SKUS_MAX {
        let reason = format!("has {} SKUs; at most {FEED_SKUS_MAX}", request.shown.len());
        return Err(Wrong::new("shown", reason));
    }
    let mut skus = std::collections::BTreeSet::new();
    for (at, shown) in request.shown.iter().enumerate() {
        let field = format!("shown[{at}].sku");
        if let Err(invalid) = text("sku", &shown.sku, SKU_BYTES_MAX) {
            return Err(Wrong::new(field, invalid.reason));
        }
        if !skus.insert(&shown.sku) {
            return Err(Wrong::new(field, format!("{:?} is there twice", shown.sku)));
        }
    }
    if request.settle_ms > FEED_SETTLE_MS_MAX {
        let reason = format!("is {}; 0 to {FEED_SETTLE_MS_MAX}", request.settle_ms);
        return Err(Wrong::new("settle_ms", reason));
    }
    if request.actor.len() > ACTOR_BYTES_MAX {
        let reason = format!(
            "has {} bytes; at most {ACTOR_BYTES_MAX}",
            request.actor.len()
        );
        return Err(Wrong::new("actor", reason));
    }
    let read_us = optional_time_us("read_at", request.read_at.as_ref())
        .map_err(|invalid| Wrong::new(invalid.field, invalid.reason))?
        .unwrap_or_else(now_us);
    Ok(Shown {
        settled_us: read_us - request.settle_ms as i64 * 1_000,
        request,
    })
}

/// Compares what is shown, and has delivered once more what differs.
///
/// # Errors
/// See [`Failed`].
pub async fn compare(feeds: &Feeds, shown: Shown) -> Result<pb::ReportShownResponse, Failed> {
    let Shown {
        request,
        settled_us,
    } = shown;
    let channel = &request.channel;
    // Also where nothing is shown.
    feeds.feed(channel)?;
    let delivered = feeds.delivered(channel);
    let mut response = pb::ReportShownResponse::default();
    for own in request.shown {
        let Some(published) = feeds.published(channel, &own.sku).await? else {
            response.unknown_skus.push(own.sku);
            continue;
        };
        if published == own.units {
            response.matched += 1;
            continue;
        }
        let is_on_its_way =
            feeds
                .last_change(channel, &own.sku)
                .is_some_and(|(position, logged_us)| {
                    logged_us > settled_us
                        || delivered.is_some_and(|delivered| delivered < position)
                });
        let difference = pb::ShownDifference {
            sku: own.sku,
            shown: own.units,
            published,
        };
        if is_on_its_way {
            response.in_flight.push(difference);
        } else {
            response.differences.push(difference);
        }
    }
    if response.differences.is_empty() {
        return Ok(response);
    }
    feeds.count_shown_different(channel, response.differences.len() as u64);
    if !request.report_only {
        let skus = response.differences.iter().map(|own| own.sku.clone());
        let republish = pb::Republish {
            channel: channel.clone(),
            skus: skus.collect(),
            actor: request.actor,
        };
        response.position = feeds.instance().republish(republish).await?;
        response.republished = response.differences.len() as u64;
    }
    Ok(response)
}
