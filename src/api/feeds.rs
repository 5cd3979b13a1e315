//! The `Feeds` service.

use std::{pin::Pin, sync::atomic::Ordering::Relaxed, time::Duration};

use futures::Stream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{Service, raw::feeds_server::Feeds as FeedsService, status};
use crate::{
    domain::movement::text,
    feed::{Delivery, Ended, PageError, Start, Subscription, Update, read_back},
    limits::{FEED_SKUS_MAX, SKU_BYTES_MAX},
    proto::v1 as pb,
    wire::Encoded,
};

type Updates = Pin<Box<dyn Stream<Item = Result<Encoded, Status>> + Send>>;

#[tonic::async_trait]
impl FeedsService for Service {
    type WatchStream = Updates;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Updates>, Status> {
        let request = request.into_inner();
        self.wait_for(0).await?;
        check_count("skus", request.skus.len())?;
        for (at, sku) in request.skus.iter().enumerate() {
            text("sku", sku, SKU_BYTES_MAX)
                .map_err(|invalid| status::bad_field(format!("skus[{at}]"), invalid.reason))?;
        }
        let feeds = &self.feeds;
        let start = match request.resume_position {
            None => Start::State,
            Some(position) => {
                let log = &request.resume_log;
                if !log.is_empty() && **log != **feeds.log() {
                    let reason = format!(
                        "{log:?} is another log than the one here, {:?}, where its positions mean \
                         nothing: watch without resume_position",
                        feeds.log()
                    );
                    return Err(out_of_range("resume_log", &reason));
                }
                self.published_up_to(position).await?;
                Start::After(position)
            }
        };
        let subscription = feeds
            .subscribe(&request.channel, request.skus, start)
            .map_err(|_| self.no_channel(&request.channel))?;
        Ok(Response::new(updates(subscription)))
    }

    async fn get_state(
        &self,
        request: Request<pb::GetStateRequest>,
    ) -> Result<Response<pb::GetStateResponse>, Status> {
        let request = request.into_inner();
        self.wait_for(0).await?;
        let (update, next_page_token) = self
            .feeds
            .state_page(&request.channel, &request.page_token)
            .await
            .map_err(|error| match error {
                PageError::NoChannel(_) => self.no_channel(&request.channel),
                PageError::NotOurs => status::bad_field("page_token", error.to_string()),
            })?;
        Ok(Response::new(pb::GetStateResponse {
            update: Some(update.to_proto()),
            next_page_token: next_page_token.unwrap_or_default(),
        }))
    }

    async fn report_shown(
        &self,
        request: Request<pb::ReportShownRequest>,
    ) -> Result<Response<pb::ReportShownResponse>, Status> {
        let request = request.into_inner();
        self.wait_for(0).await?;
        let channel = request.channel.clone();
        let shown = read_back::check(request)
            .map_err(|wrong| status::bad_field(wrong.field, wrong.reason))?;
        match read_back::compare(&self.feeds, shown).await {
            Ok(response) => Ok(Response::new(response)),
            Err(read_back::Failed::NoChannel(_)) => Err(self.no_channel(&channel)),
            Err(read_back::Failed::NotWritten(error)) => Err(status::not_posted(&error)),
        }
    }

    async fn list(
        &self,
        request: Request<pb::ListFeedsRequest>,
    ) -> Result<Response<pb::ListFeedsResponse>, Status> {
        let channel = request.into_inner().channel;
        let mut feeds = self.feeds.status();
        feeds.retain(|feed| channel.is_empty() || feed.channel == channel);
        Ok(Response::new(pb::ListFeedsResponse {
            feeds,
            log: self.feeds.log().as_ref().into(),
        }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<pb::ListDeadLettersRequest>,
    ) -> Result<Response<pb::ListDeadLettersResponse>, Status> {
        let webhook = request.into_inner().webhook;
        let dead_letters = self.instance.dead_letters(&webhook);
        let dead_letters = dead_letters.ok_or_else(|| no_webhook(&webhook))?;
        Ok(Response::new(pb::ListDeadLettersResponse { dead_letters }))
    }

    async fn retry_dead_letters(
        &self,
        request: Request<pb::RetryDeadLettersRequest>,
    ) -> Result<Response<pb::RetryDeadLettersResponse>, Status> {
        let pb::RetryDeadLettersRequest { webhook, skus } = request.into_inner();
        check_count("skus", skus.len())?;
        let retried = self.instance.retry_dead_letters(&webhook, skus).await;
        let retried = retried.map_err(|error| status::not_posted(&error))?;
        let retried = retried.ok_or_else(|| no_webhook(&webhook))?;
        Ok(Response::new(pb::RetryDeadLettersResponse { retried }))
    }
}

impl Service {
    /// Waits a while until a position is published here.
    async fn published_up_to(&self, position: u64) -> Result<(), Status> {
        let wait = self.options.min_position_wait_max;
        let published = self.feeds.published_up_to(position);
        tokio::time::timeout(wait.max(SHORT), published)
            .await
            .map_err(|_| {
                let reason = format!(
                    "{position} is ahead of this instance, which has published up to {}; try again, \
                     or watch without it",
                    self.feeds.as_of()
                );
                out_of_range("resume_position", &reason)
            })
    }

    fn no_channel(&self, channel: &str) -> Status {
        let rules = self.instance.view().rulebook().in_force();
        status::unknown_channel(channel, rules.rules.channels().map(|(_, name)| name))
    }
}

fn no_webhook(webhook: &str) -> Status {
    Status::not_found(format!("the log knows of no webhook {webhook:?}"))
}

/// So long it waits at least: what was just published elsewhere is on its way.
const SHORT: Duration = Duration::from_millis(100);

/// What a caller of `Watch` gets. It is polled only when the connection takes more, so that a caller
/// who does not read costs no more than the update that waits for it.
fn updates(subscription: Subscription) -> Updates {
    let watching = Watching::new(subscription);
    Box::pin(futures::stream::unfold(Some(watching), async |watching| {
        let mut watching = watching?;
        match watching.subscription.next().await {
            Ok(update) => {
                watching.delivered(&update);
                Some((Ok(update.encoded()), Some(watching)))
            }
            Err(ended) => Some((Err(end(&watching, ended)), None)),
        }
    }))
}

fn end(watching: &Watching, ended: Ended) -> Status {
    match ended {
        Ended::NoChannel => Status::not_found(format!(
            "the rules have no channel {:?} any more",
            watching.subscription.channel()
        )),
        Ended::Stopping => {
            Status::unavailable("the instance is stopping; resume on another, or once it is back")
        }
    }
}

/// A caller who is counted.
struct Watching {
    subscription: Subscription,
    conflated: u64,
}

impl Watching {
    fn new(subscription: Subscription) -> Self {
        let watching = Self {
            subscription,
            conflated: 0,
        };
        watching.delivery().subscribers.fetch_add(1, Relaxed);
        watching
    }

    fn delivered(&mut self, update: &Update) {
        let conflated = self.subscription.conflated();
        let more = conflated - std::mem::replace(&mut self.conflated, conflated);
        self.delivery().conflated.fetch_add(more, Relaxed);
        self.delivery().delivered(update);
    }

    fn delivery(&self) -> &Delivery {
        self.subscription.grpc()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.delivery().subscribers.fetch_sub(1, Relaxed);
    }
}

fn check_count(field: &str, count: usize) -> Result<(), Status> {
    if count > FEED_SKUS_MAX {
        let reason = format!("has {count} SKUs; at most {FEED_SKUS_MAX}");
        return Err(status::bad_field(field, reason));
    }
    Ok(())
}

fn out_of_range(field: &str, reason: &str) -> Status {
    let details = ErrorDetails::with_bad_request_violation(field, reason);
    Status::with_error_details(Code::OutOfRange, format!("{field}: {reason}"), details)
}
