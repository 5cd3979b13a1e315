//! The NATS feed: `availability.<channel>`, for connectors that live on NATS.
//!
//! Updates go into a stream of their own, `<nats.stream>_AVAILABILITY`, so that each connector reads
//! them at its own pace with a consumer of its own. However many instances run, each update is
//! written once and follows the one before: the server takes a message only if the last one of its
//! subject is the one that the writer knows (`Nats-Expected-Last-Subject-Sequence`). Who finds that
//! another was faster stands by, and takes over when changes stay unwritten. What the last message
//! says is all that has to be known for that: up to which position everything is written, and that
//! none of the numbers is of a later position than `as_of`. The next writer waits until it has
//! published that itself, so numbers never go back.
//!
//! A connector that is new, or that fell out of what the stream keeps, sends a request to
//! `availability-state.<channel>`: one instance answers with the current state, in several messages
//! to the same reply subject; the last one has a `position`, after which the messages of the stream
//! go on. The stream says by itself when it begins with the state anew: `kind` is `STATE` then.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::{
    HeaderMap, Message,
    header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID},
    jetstream::{
        Context,
        context::{PublishError, PublishErrorKind},
        stream::{
            Config, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, StorageType, Stream,
        },
    },
};
use bytes::Bytes;
use futures::StreamExt;
use tokio::task::JoinSet;

use super::{Delivery, Feeds, Start, State, Update, UpdateKind, Way, json};
use crate::log::{
    LogError, Position,
    jetstream::{self, open_context, unavailable},
};

/// Form of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `sellable.v1.AvailabilityUpdate`.
    Protobuf,
    /// A CloudEvent in structured mode, see [`json`].
    Json,
}

/// How the feed is written.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the log is, and the stream beside it.
    pub nats: jetstream::Options,
    /// Form of the messages.
    pub form: Form,
    /// How long the stream keeps updates, if it has to be made.
    pub max_age: Duration,
}

impl Settings {
    /// Name of the stream.
    pub fn stream(&self) -> String {
        format!("{}_AVAILABILITY", self.nats.stream)
    }
}

/// All subjects of the stream.
pub const SUBJECTS: &str = "availability.*";
/// Where the current state is asked for.
pub const STATE_SUBJECTS: &str = "availability-state.*";
/// Of all instances, one answers.
const STATE_QUEUE: &str = "sellable";
/// Headers of each message.
const POSITION: &str = "Sellable-Position";
const AS_OF: &str = "Sellable-As-Of-Position";
const LOG: &str = "Sellable-Log";
/// After how long without a message an instance takes over, if there is something to write.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(1);
/// How often one that stands by looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After how long something that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The subject of a channel: its name, with what a subject cannot hold as `%` and two digits.
pub fn subject(prefix: &str, channel: &str) -> String {
    let mut subject = format!("{prefix}.");
    for letter in channel.chars() {
        if letter.is_whitespace() || letter.is_control() || ".*>%".contains(letter) {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                subject += &format!("%{byte:02X}");
            }
        } else {
            subject.push(letter);
        }
    }
    subject
}

/// Writes the feeds of all channels, and answers who asks for the state, until it is dropped. What
/// cannot be reached is tried again.
pub async fn follow(feeds: Arc<Feeds>, settings: Settings) {
    feeds.instance().caught_up().await;
    loop {
        let Err(error) = follow_once(&feeds, &settings).await;
        let stream = settings.stream();
        tracing::warn!(%stream, %error, "the NATS feed cannot be written for now; trying again");
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

async fn follow_once(
    feeds: &Arc<Feeds>,
    settings: &Settings,
) -> Result<std::convert::Infallible, LogError> {
    let context = open_context(&settings.nats, "feed").await?;
    let stream = open(&context, settings).await?;
    let mut tasks = JoinSet::new();
    let mut writers = BTreeMap::new();
    let answering = answer(Arc::clone(feeds), context.clone(), settings.form);
    tasks.spawn(answering);
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        let channels = feeds.channels();
        // The writer of a channel that is gone has ended.
        writers.retain(|_, writer: &mut tokio::task::AbortHandle| !writer.is_finished());
        for channel in channels {
            writers.entry(Arc::clone(&channel)).or_insert_with(|| {
                let writer = Writer {
                    subject: subject("availability", &channel),
                    delivery: Delivery::new(Way::Nats, ""),
                    feeds: Arc::clone(feeds),
                    context: context.clone(),
                    stream: stream.clone(),
                    form: settings.form,
                    channel,
                };
                tasks.spawn(writer.run())
            });
        }
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                // A panic is a bug, and must not be looked over.
                return Err(unavailable(error));
            }
        }
    }
}

async fn open(context: &Context, settings: &Settings) -> Result<Stream, LogError> {
    let name = settings.stream();
    if let Ok(stream) = context.get_stream(&name).await {
        return Ok(stream);
    }
    let config = Config {
        name: name.clone(),
        description: Some("What each channel may sell, as it changes, by Sellable.".into()),
        subjects: vec![SUBJECTS.into()],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_age: settings.max_age,
        num_replicas: settings.nats.replicas,
        allow_direct: true,
        ..Config::default()
    };
    context
        .get_or_create_stream(config)
        .await
        .map_err(|error| unavailable(format!("the stream {name} cannot be made: {error}")))
}

/// The last message of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Last {
    sequence: u64,
    id: String,
    log: String,
    /// Everything up to here is written; 0: in the midst of the state.
    position: Position,
    /// No number is of a later position.
    as_of: Position,
}

/// Writes one channel.
struct Writer {
    channel: Arc<str>,
    subject: String,
    feeds: Arc<Feeds>,
    context: Context,
    stream: Stream,
    form: Form,
    delivery: Arc<Delivery>,
}

/// Why writing ended for now.
enum Interrupted {
    /// Another instance was faster.
    Overtaken,
    /// It is not known what became of a message.
    Failed(String),
    /// The channel is gone, or the instance stops.
    Ended,
}

impl Writer {
    async fn run(self) {
        self.feeds.register(&self.channel, &self.delivery);
        // Until it is the one that writes.
        self.delivery.set_state(State::Standby);
        loop {
            let last = match self.last().await {
                Ok(last) => last,
                Err(error) => {
                    self.fail(&error.to_string()).await;
                    continue;
                }
            };
            match self.write_after(last).await {
                Interrupted::Ended => return,
                Interrupted::Failed(error) => self.fail(&error).await,
                Interrupted::Overtaken => {
                    self.delivery.set_state(State::Standby);
                    if !self.stand_by().await {
                        return;
                    }
                }
            }
        }
    }

    async fn fail(&self, error: &str) {
        self.delivery.failed(error);
        self.delivery.set_state(State::Retrying);
        tokio::time::sleep(RETRY_AFTER).await;
    }

    async fn last(&self) -> Result<Option<Last>, LogError> {
        let message = self.stream.get_last_raw_message_by_subject(&self.subject);
        match message.await {
            Ok(message) => {
                let header = |name: &str| {
                    let value = message.headers.get(name);
                    value.map_or_else(String::new, |value| value.as_str().to_owned())
                };
                Ok(Some(Last {
                    sequence: message.sequence,
                    id: header(NATS_MESSAGE_ID.as_ref()),
                    log: header(LOG),
                    position: header(POSITION).parse().unwrap_or(0),
                    as_of: header(AS_OF).parse().unwrap_or(0),
                }))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Writes what comes after the last message, until something comes in between.
    async fn write_after(&self, last: Option<Last>) -> Interrupted {
        let same_log = |last: &&Last| *last.log == **self.feeds.log();
        let start = match last.as_ref().filter(same_log) {
            None => Start::State,
            Some(last) => {
                // Its numbers may be newer than ours.
                self.feeds.published_up_to(last.as_of).await;
                self.delivery.reached(last.position);
                match last.position {
                    0 => Start::State,
                    position => Start::After(position),
                }
            }
        };
        let mut sequence = last.map_or(0, |last| last.sequence);
        let Ok(mut subscription) = self.feeds.subscribe(&self.channel, Vec::new(), start) else {
            return Interrupted::Ended;
        };
        loop {
            let update = match subscription.next().await {
                Ok(update) => update,
                Err(_) => return Interrupted::Ended,
            };
            self.delivery.conflated.store(
                subscription.conflated(),
                std::sync::atomic::Ordering::Relaxed,
            );
            if update.kind == UpdateKind::Heartbeat {
                continue;
            }
            match self.publish(&update, sequence).await {
                Ok(written) => {
                    sequence = written;
                    self.delivery.set_state(State::Delivering);
                }
                Err(interrupted) => return interrupted,
            }
            self.delivery.delivered(&update);
            self.delivery.reached(update.position);
        }
    }

    /// Writes one message after the last one that is known. Gives its sequence.
    async fn publish(&self, update: &Update, after: u64) -> Result<u64, Interrupted> {
        let id = format!(
            "{}-{after}-{}-{}",
            self.subject, update.position, update.as_of
        );
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, id.as_str());
        headers.insert(
            NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            after.to_string().as_str(),
        );
        headers.insert(POSITION, update.position.to_string().as_str());
        headers.insert(AS_OF, update.as_of.to_string().as_str());
        headers.insert(LOG, &*update.log);
        let payload = put_content(&mut headers, update, self.form);
        let sent = self
            .context
            .publish_with_headers(self.subject.clone(), headers, payload)
            .await;
        let acknowledged = match sent {
            Ok(acknowledgement) => acknowledgement.await,
            Err(error) => Err(error),
        };
        let error: PublishError = match acknowledged {
            // A repeat of the same id would be another instance's message.
            Ok(acknowledgement) if acknowledgement.duplicate => return Err(Interrupted::Overtaken),
            Ok(acknowledgement) => return Ok(acknowledgement.sequence),
            Err(error) => error,
        };
        match error.kind() {
            PublishErrorKind::WrongLastSequence => Err(Interrupted::Overtaken),
            _ => match self.last().await {
                // It was stored, and only its acknowledgement was lost.
                Ok(Some(last)) if last.id == id => Err(Interrupted::Failed(format!(
                    "an acknowledgement was lost: {error}"
                ))),
                _ => Err(Interrupted::Failed(error.to_string())),
            },
        }
    }

    /// Waits until nobody writes although there is something to write. False if the channel is gone.
    async fn stand_by(&self) -> bool {
        let mut known = None;
        let mut since = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Ok(last) = self.last().await else {
                continue;
            };
            let position = last.as_ref().map_or(0, |last| last.position);
            self.delivery.reached(position);
            let Some(has_changes) = self.feeds.has_changes_after(&self.channel, position) else {
                return false;
            };
            if known != last || !has_changes {
                known = last;
                since = tokio::time::Instant::now();
            } else if since.elapsed() >= TAKE_OVER_AFTER {
                tracing::info!(channel = %self.channel, "taking over the NATS feed");
                return true;
            }
        }
    }
}

fn put_content(headers: &mut HeaderMap, update: &Update, form: Form) -> Bytes {
    match form {
        Form::Protobuf => {
            headers.insert("Content-Type", "application/protobuf");
            update.encoded().0
        }
        Form::Json => {
            headers.insert("Content-Type", "application/cloudevents+json");
            json::cloud_event(&update.to_proto()).to_string().into()
        }
    }
}

/// Answers who asks for the current state of a channel, until it is dropped.
async fn answer(feeds: Arc<Feeds>, context: Context, form: Form) {
    let client = context.client();
    loop {
        let subscribed = client
            .queue_subscribe(STATE_SUBJECTS, STATE_QUEUE.into())
            .await;
        match subscribed {
            Ok(mut requests) => {
                while let Some(request) = requests.next().await {
                    answer_one(&feeds, &client, request, form).await;
                }
            }
            Err(error) => tracing::warn!(%error, "cannot listen on {STATE_SUBJECTS}"),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

async fn answer_one(feeds: &Feeds, client: &async_nats::Client, request: Message, form: Form) {
    let Some(reply) = request.reply else { return };
    let channel = feeds
        .channels()
        .into_iter()
        .find(|channel| subject("availability-state", channel) == *request.subject);
    let Some(channel) = channel else {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Service-Error-Code", "404");
        headers.insert("Nats-Service-Error", "the rules have no such channel");
        let _ = client
            .publish_with_headers(reply, headers, Bytes::new())
            .await;
        return;
    };
    let mut token = String::new();
    loop {
        let Ok((update, next)) = feeds.state_page(&channel, &token).await else {
            // The rules have changed; who asked finds no last page, and asks again.
            return;
        };
        for part in parts(&update) {
            let mut headers = HeaderMap::new();
            let payload = put_content(&mut headers, &part, form);
            if client
                .publish_with_headers(reply.clone(), headers, payload)
                .await
                .is_err()
            {
                return;
            }
        }
        let Some(next) = next else { return };
        token = next;
    }
}

/// A page in messages that are not too large; only the last one has its position.
fn parts(update: &Update) -> Vec<Update> {
    let chunks: Vec<_> = update
        .numbers
        .chunks(crate::limits::FEED_UPDATE_NUMBERS_MAX)
        .collect();
    let last = chunks.len().saturating_sub(1);
    let part = |(at, numbers): (usize, &[super::Number])| {
        let position = if at == last { update.position } else { 0 };
        Update::new(
            UpdateKind::State,
            (&update.channel, &update.log),
            [0, position, update.as_of],
            numbers.to_vec(),
        )
    };
    if chunks.is_empty() {
        return vec![part((0, &[]))];
    }
    chunks.into_iter().enumerate().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_one_token_of_a_subject() {
        for (channel, expected) in [
            ("web", "availability.web"),
            ("Marché-EU_1", "availability.Marché-EU_1"),
            ("a.b", "availability.a%2Eb"),
            ("a b*>%", "availability.a%20b%2A%3E%25"),
        ] {
            assert_eq!(subject("availability", channel), expected);
        }
    }
}
