//! Reads the stream, and notices whatever could make two replicas read different logs.
//!
//! Pull requests are sent and their answers taken directly: the client's own stream of messages
//! clones its context for each of them, and leaves it to the caller to find out what was lost.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use async_nats::{
    Client, Message, StatusCode, Subscriber,
    jetstream::{
        Context, ErrorCode,
        consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull},
        context::GetStreamErrorKind,
        stream::{LastRawMessageErrorKind, Stream},
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use tokio::{
    sync::watch,
    task::unconstrained,
    time::{Instant, sleep_until, timeout},
};

use super::{Options, check_created, context, message};
use crate::{
    limits,
    log::{Anchor, Entry, LogError, Position, Reader, check_from},
};

/// How long one pull request stands before it is renewed.
const EXPIRES: Duration = Duration::from_secs(60);
/// Longest pause between two attempts to go on.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often the same gap is met before it is looked into.
const GAPS_MAX: u32 = 2;

pub(super) struct JetStreamReader {
    stream: String,
    silence_max: Duration,
    client: Client,
    context: Context,
    losses: watch::Receiver<u64>,
    created_ns: i128,
    /// Position of the last entry handed out.
    applied: Position,
    /// Of that entry, once one has been handed out.
    anchor: Option<Anchor>,
    decoder: message::Decoder,
    session: Option<Session>,
    /// Attempts to go on that failed in a row.
    failures: u32,
    retry_at: Option<Instant>,
    /// Gaps met in a row right after the last entry.
    gaps: u32,
}

/// One consumer, and what has been asked of it.
struct Session {
    client: Client,
    stream: Arc<Stream>,
    messages: Subscriber,
    inbox: String,
    request_subject: String,
    request: Bytes,
    /// How many requests were made; the last one stands.
    requests: u64,
    /// What it can still bring; 0 if it has come to its end.
    messages_due: usize,
    /// Losses of the connection at the start; one more, and the session is over.
    losses: u64,
    /// Position of the next message.
    next: Position,
    /// What came instead of it.
    gap: Option<Position>,
    /// Entries not yet handed out.
    ready: Vec<Entry>,
}

#[derive(Serialize)]
struct PullRequest {
    batch: usize,
    max_bytes: usize,
    expires: u128,
    idle_heartbeat: u128,
}

/// Why a session came to its end.
enum Interruption {
    /// Something that passes: a word for the log.
    Passing(String),
    /// The message after the last entry is not the next one.
    Gap(Position),
    /// Final.
    Fatal(LogError),
}

impl From<LogError> for Interruption {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(what) => Interruption::Passing(what),
            error => Interruption::Fatal(error),
        }
    }
}

fn passing(error: impl std::fmt::Display) -> Interruption {
    Interruption::Passing(error.to_string())
}

impl JetStreamReader {
    pub(super) fn new(
        options: &Options,
        client: Client,
        losses: watch::Receiver<u64>,
        created_ns: i128,
        from: Position,
    ) -> Self {
        Self {
            stream: options.stream.clone(),
            silence_max: options.silence_max,
            context: context(client.clone(), options),
            client,
            losses,
            created_ns,
            applied: from - 1,
            anchor: None,
            decoder: message::Decoder::default(),
            session: None,
            failures: 0,
            retry_at: None,
            gaps: 0,
        }
    }

    /// The stream, if it is still the one that was read.
    async fn checked_stream(&self) -> Result<Arc<Stream>, Interruption> {
        let name = &self.stream;
        let stream = match self.context.get_stream(name).await {
            Ok(stream) => stream,
            Err(error) => {
                let deleted = matches!(
                    error.kind(),
                    GetStreamErrorKind::JetStream(cause)
                        if cause.error_code() == ErrorCode::STREAM_NOT_FOUND
                );
                if deleted {
                    let what = format!("the stream {name} was deleted");
                    return Err(Interruption::Fatal(LogError::Diverged(what)));
                }
                return Err(passing(error));
            }
        };
        let info = stream.cached_info();
        check_created(name, info, self.created_ns)?;
        let bounds = super::bounds(info);
        check_from(self.applied + 1, bounds.first, bounds.last)?;
        if let Some(anchor) = self.anchor
            && anchor.position >= bounds.first
        {
            self.check_anchor(&stream, anchor).await?;
        }
        Ok(Arc::new(stream))
    }

    /// Makes sure that the last entry handed out is still there: a stream that was truncated and
    /// grew anew has another in its place.
    async fn check_anchor(&self, stream: &Stream, anchor: Anchor) -> Result<(), Interruption> {
        let Anchor { position, hash } = anchor;
        let diverged = |what: &str| {
            let what = format!("position {position} of the stream {} {what}", self.stream);
            Interruption::Fatal(LogError::Diverged(what))
        };
        let stored = match stream.get_raw_message(position).await {
            Ok(stored) => stored,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                return Err(diverged("was read, and is no longer there"));
            }
            Err(error) => return Err(passing(error)),
        };
        let stored = Entry {
            position: stored.sequence,
            time_us: (stored.time.unix_timestamp_nanos() / 1_000) as i64,
            lane: crate::log::Lane::Record,
            payload: stored.payload,
        };
        if stored.hash() != hash {
            return Err(diverged("is no longer the message that was read"));
        }
        Ok(())
    }

    async fn start_session(&mut self) -> Result<(), Interruption> {
        // Read before the checks: a loss during them makes this session end at once.
        let losses = *self.losses.borrow();
        let stream = self.checked_stream().await?;
        let inbox = self.client.new_inbox();
        let messages = self.client.subscribe(format!("{inbox}.*")).await;
        let messages = messages.map_err(passing)?;
        let heartbeat = self.silence_max / 2;
        let consumer = stream
            .create_consumer(pull::Config {
                description: Some("A reader of Sellable's log.".into()),
                deliver_policy: match self.applied {
                    0 => DeliverPolicy::All,
                    applied => DeliverPolicy::ByStartSequence {
                        start_sequence: applied + 1,
                    },
                },
                ack_policy: AckPolicy::None,
                replay_policy: ReplayPolicy::Instant,
                memory_storage: true,
                num_replicas: 1,
                inactive_threshold: 5 * EXPIRES,
                ..pull::Config::default()
            })
            .await
            .map_err(passing)?;
        let request = PullRequest {
            batch: limits::PULL_MESSAGES,
            max_bytes: limits::PULL_BYTES,
            expires: EXPIRES.as_nanos(),
            idle_heartbeat: heartbeat.min(EXPIRES / 3).as_nanos(),
        };
        let name = &consumer.cached_info().name;
        self.session = Some(Session {
            request_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{}.{name}", self.stream),
            request: serde_json::to_vec(&request).map_err(passing)?.into(),
            client: self.client.clone(),
            stream,
            messages,
            inbox,
            requests: 0,
            messages_due: 0,
            losses,
            next: self.applied + 1,
            gap: None,
            ready: Vec::new(),
        });
        Ok(())
    }

    /// Entries of the session, or why it ended.
    async fn take(&mut self, entries_max: usize) -> Result<Vec<Entry>, Interruption> {
        if let Some(retry_at) = self.retry_at {
            sleep_until(retry_at).await;
            self.retry_at = None;
        }
        if self.session.is_none() {
            self.start_session().await?;
        }
        let session = self.session.as_mut().expect("just started");
        if session.ready.is_empty() {
            session
                .fill(
                    entries_max,
                    &mut self.decoder,
                    &mut self.losses,
                    self.silence_max,
                )
                .await?;
        }
        // A call with a greater limit may have been dropped before it got its entries.
        let later = session
            .ready
            .split_off(entries_max.min(session.ready.len()));
        let entries = std::mem::replace(&mut session.ready, later);
        let last = entries.last().expect("filled with at least one");
        self.applied = last.position;
        self.anchor = Some(last.anchor());
        self.failures = 0;
        self.gaps = 0;
        Ok(entries)
    }

    /// Makes the next call start anew; an error if that cannot help.
    async fn interrupted(&mut self, interruption: Interruption) -> Result<(), LogError> {
        let session = self.session.take();
        let reason = match interruption {
            Interruption::Fatal(error) => return Err(error),
            Interruption::Passing(reason) => reason,
            Interruption::Gap(met) => {
                self.gaps += 1;
                if self.gaps >= GAPS_MAX
                    && let Some(session) = session
                {
                    self.look_into_gap(&session.stream, met).await?;
                }
                format!("position {met} came after {}", self.applied)
            }
        };
        let delay = Duration::from_millis(10) * 2_u32.pow(self.failures.min(10));
        self.failures += 1;
        self.retry_at = Some(Instant::now() + delay.min(BACKOFF_MAX));
        // The first time is the rule when a connection is lost, and says little.
        if self.failures > 1 {
            tracing::warn!(
                stream = %self.stream,
                applied = self.applied,
                %reason,
                "reading is interrupted; trying again"
            );
        }
        Ok(())
    }

    /// Tells messages that were dropped on their way, and come again, from ones that are gone.
    async fn look_into_gap(&self, stream: &Stream, met: Position) -> Result<(), LogError> {
        let missing = self.applied + 1;
        match stream.get_raw_message(missing).await {
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
            // It is there, or the question was not answered: to be tried again.
            _ => return Ok(()),
        }
        let Ok(info) = stream.get_info().await else {
            return Ok(());
        };
        check_created(&self.stream, &info, self.created_ns)?;
        let bounds = super::bounds(&info);
        check_from(missing, bounds.first, bounds.last)?;
        Err(LogError::Diverged(format!(
            "positions {missing} to {} of the stream {} were deleted from its middle; restore the \
             stream from a backup",
            met.saturating_sub(1),
            self.stream
        )))
    }
}

impl Session {
    /// Waits until there is at least one entry to hand out, and takes what has come with it.
    async fn fill(
        &mut self,
        entries_max: usize,
        decoder: &mut message::Decoder,
        losses: &mut watch::Receiver<u64>,
        silence_max: Duration,
    ) -> Result<(), Interruption> {
        loop {
            if *losses.borrow_and_update() != self.losses {
                return Err(passing("the connection was lost"));
            }
            if self.messages_due == 0 {
                self.ask().await?;
            }
            let drained = self.drain(entries_max, decoder);
            tokio::select! {
                biased;
                drained = timeout(silence_max, drained) => match drained {
                    Ok(drained) => drained?,
                    Err(_) => return Err(passing(format!("no word for {silence_max:?}"))),
                },
                _ = losses.changed() => return Err(passing("the connection was lost")),
            }
            if !self.ready.is_empty() {
                return Ok(());
            }
            if let Some(position) = self.gap {
                return Err(Interruption::Gap(position));
            }
        }
    }

    /// Waits for a message, and takes all that have come with it. All in one go: the runtime's
    /// budget for a task would end it after 128.
    async fn drain(
        &mut self,
        entries_max: usize,
        decoder: &mut message::Decoder,
    ) -> Result<(), Interruption> {
        unconstrained(poll_fn(|cx| {
            let mut taken = false;
            while self.ready.len() < entries_max && self.messages_due > 0 && self.gap.is_none() {
                match self.messages.poll_next_unpin(cx) {
                    Poll::Ready(message) => self.take(message, decoder)?,
                    Poll::Pending if taken => break,
                    Poll::Pending => return Poll::Pending,
                }
                taken = true;
            }
            Poll::Ready(Ok(()))
        }))
        .await
    }

    /// Asks for more. One request stands at a time, so that nothing has to be guessed about which
    /// of them brought a message; it is large enough for the pause between two not to count.
    async fn ask(&mut self) -> Result<(), Interruption> {
        self.requests += 1;
        self.messages_due = limits::PULL_MESSAGES;
        let inbox = format!("{}.{}", self.inbox, self.requests);
        let subject = self.request_subject.clone();
        let sent = self
            .client
            .publish_with_reply(subject, inbox, self.request.clone());
        sent.await.map_err(passing)
    }

    fn take(
        &mut self,
        message: Option<Message>,
        decoder: &mut message::Decoder,
    ) -> Result<(), Interruption> {
        let Some(message) = message else {
            return Err(passing("the subscription ended"));
        };
        let Some((position, time_us)) = message::delivered(&message) else {
            return self.take_status(&message);
        };
        self.messages_due = self.messages_due.saturating_sub(1);
        if position == self.next {
            self.next += 1;
            self.ready.push(decoder.entry(position, time_us, message));
        } else {
            self.gap = Some(position);
        }
        Ok(())
    }

    fn take_status(&mut self, message: &Message) -> Result<(), Interruption> {
        let description = message.description.as_deref().unwrap_or_default();
        // A request that has brought all that it asked for may still be closed in words.
        let number = message.subject.rsplit('.').next();
        let stands = number.and_then(|number| number.parse().ok()) == Some(self.requests);
        match message.status {
            Some(StatusCode::IDLE_HEARTBEAT) => Ok(()),
            Some(StatusCode::TIMEOUT) => {
                if stands {
                    self.messages_due = 0;
                }
                Ok(())
            }
            Some(StatusCode::REQUEST_TERMINATED)
                if ["Batch Completed", "Message Size Exceeds MaxBytes"].contains(&description) =>
            {
                if stands && self.messages_due == limits::PULL_MESSAGES {
                    return Err(passing("a message is larger than can be asked for"));
                }
                if stands {
                    self.messages_due = 0;
                }
                Ok(())
            }
            Some(status) => Err(passing(format!("the server says {status}: {description}"))),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Reader for JetStreamReader {
    async fn next(&mut self, entries_max: usize) -> Result<Vec<Entry>, LogError> {
        assert!(entries_max > 0);
        loop {
            match self.take(entries_max).await {
                Ok(entries) => return Ok(entries),
                Err(interruption) => self.interrupted(interruption).await?,
            }
        }
    }
}
