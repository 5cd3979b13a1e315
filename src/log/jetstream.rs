//! The log on NATS JetStream: one stream holds what producers publish (`movements.<source>`) and
//! what the instances write (`sellable.records.<instance>`), in one order.
//!
//! The server acknowledges once the message is stored on enough replicas. By default it syncs its
//! files every two minutes only: killing a server loses nothing; a power failure can lose what one
//! server alone held. `sync_interval: always`, or three replicas in places that do not fail
//! together, close that gap.
//!
//! # Reading
//!
//! See `reader.rs`: the server keeps no position for us and gets no acknowledgements. Whatever is in
//! doubt (a gap, a lost connection, silence) is settled in one way: forget the consumer, make sure
//! that the stream is still the one that was read, and make a new consumer after the last entry.

mod bucket;
mod message;
mod reader;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, RequestErrorKind, ServerAddr,
    client::Request,
    connection::State,
    header::NATS_MESSAGE_ID,
    jetstream::{
        self, Context, ErrorCode,
        context::{self, CreateStreamErrorKind, GetStreamErrorKind, RequestError},
        stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream},
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use self::{bucket::Bucket, reader::JetStreamReader};
use super::{AppendError, Bounds, Depot, Identity, Log, LogError, Position, Reader};
use crate::{domain::movement::TimeUs, limits};

/// The subjects that the stream has to hold.
pub const SUBJECTS: [&str; 2] = ["movements.>", "sellable.records.>"];

/// Room for headers and subject beside the payload of a record.
const ENVELOPE_BYTES: usize = 1 << 10;
/// Longest pause between two attempts to reach the server again.
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(2);

/// How to reach the log on JetStream, and how to make its stream if there is none.
#[derive(Debug, Clone)]
pub struct Options {
    /// Server, or several separated by commas: `nats://host:4222`, `tls://…`. Name and password may
    /// stand in it.
    pub url: String,
    /// Name of the stream.
    pub stream: String,
    /// Credentials file, as `nsc` writes it.
    pub credentials: Option<PathBuf>,
    /// How long opening may take before it is given up.
    pub open_timeout: Duration,
    /// How long to wait for one acknowledgement, or one answer to a question.
    pub ack_timeout: Duration,
    /// How often a record is sent before it counts as unconfirmed.
    pub publish_attempts: u32,
    /// After how long without a word from the server a reader starts anew.
    pub silence_max: Duration,
    /// Replicas of a new stream.
    pub replicas: usize,
    /// How long a new stream keeps entries; zero: until they are trimmed.
    pub max_age: Duration,
    /// How many bytes a new stream may take; -1: no limit. A full stream refuses entries.
    pub bytes_max: i64,
    /// For how long a new stream recognizes a record that is sent again. Has to be longer than all
    /// attempts of one append can take.
    pub duplicate_window: Duration,
}

impl Options {
    /// The defaults, for a server.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            stream: "SELLABLE".into(),
            credentials: None,
            open_timeout: Duration::from_secs(5),
            ack_timeout: Duration::from_secs(3),
            publish_attempts: 5,
            silence_max: Duration::from_secs(10),
            replicas: 1,
            max_age: Duration::ZERO,
            bytes_max: -1,
            duplicate_window: Duration::from_secs(120),
        }
    }

    /// The servers, fit to be shown.
    fn url_shown(&self) -> String {
        without_credentials(&self.url)
    }

    /// How long after the first attempt a record may still be sent again: the server must not have
    /// forgotten it by then.
    fn resend_max(&self) -> Duration {
        // Twice: the last attempt itself takes time, and so does a pause of the process.
        self.ack_timeout * 2 * self.publish_attempts
    }
}

/// The log on JetStream.
#[derive(Debug)]
pub struct JetStreamLog {
    options: Options,
    identity: Identity,
    created_ns: i128,
    /// Publishes, and asks about the stream. Readers have connections of their own, so that what
    /// they take does not stand in the way of acknowledgements.
    client: Client,
    stream: Stream,
    subject: String,
    message_ids: String,
    message_count: AtomicU64,
    in_flight: Semaphore,
}

/// Addresses of servers, separated by commas, without the name and password that may stand in them.
pub fn without_credentials(urls: &str) -> String {
    let shown = urls
        .split(',')
        .map(|url| match (url.find("://"), url.rfind('@')) {
            (Some(scheme), Some(at)) if scheme + 3 <= at => {
                format!("{}***{}", &url[..scheme + 3], &url[at..])
            }
            // Without a scheme, too, all before it is a name, a password or a token.
            (None, Some(at)) => format!("***{}", &url[at..]),
            _ => url.to_owned(),
        });
    shown.collect::<Vec<_>>().join(",")
}

/// Name and password, or token, that stand in an address. The client itself does not look at them.
fn credentials_in(servers: &[&str]) -> Option<(String, Option<String>)> {
    let addresses = servers
        .iter()
        .filter_map(|url| url.parse::<ServerAddr>().ok());
    addresses.into_iter().find_map(|address| {
        let name = percent_decoded(address.username()?);
        Some((name, address.password().map(percent_decoded)))
    })
}

/// The text that an address spells with `%` and two digits for what it cannot hold.
fn percent_decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let decoded = part
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match decoded {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => {
                bytes.push(b'%');
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The server's answer to a published message.
#[derive(Debug, Deserialize)]
struct Ack {
    seq: Option<Position>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Refusal {
    /// Whether the record is surely not stored. An error on the server's side (5xx) may have come
    /// after it was, but for a full stream.
    fn is_final(&self) -> bool {
        let full = self.err_code == ErrorCode::STREAM_STORE_FAILED.0
            && self.description.contains("exceeded");
        self.code < 500 || full
    }
}

/// Connects. Answers also a counter that rises whenever the connection is lost: what had been on
/// its way to us then never comes.
async fn connect(
    options: &Options,
    purpose: &str,
) -> Result<(Client, watch::Receiver<u64>), LogError> {
    let (lost, losses) = watch::channel(0_u64);
    let shown = options.url_shown();
    let url = shown.clone();
    let mut connect = ConnectOptions::new()
        .name(format!("sellable {purpose}"))
        .connection_timeout(options.open_timeout)
        .request_timeout(Some(options.ack_timeout))
        .subscription_capacity(limits::SUBSCRIPTION_MESSAGES_MAX)
        .reconnect_delay_callback(|attempts| {
            let factor = 1 << attempts.min(10);
            RECONNECT_DELAY_MAX.min(Duration::from_millis(4) * factor)
        })
        .event_callback(move |event| {
            match &event {
                Event::Disconnected => {
                    lost.send_modify(|losses| *losses += 1);
                    tracing::warn!(%url, "lost the connection to NATS; trying to get it back");
                }
                Event::Connected => tracing::info!(%url, "connected to NATS"),
                // What is dropped shows as a gap, and is read again.
                Event::SlowConsumer(_) => tracing::warn!(%url, "NATS sent more than was taken"),
                event => tracing::warn!(%url, %event, "NATS"),
            }
            async {}
        });
    if let Some(path) = &options.credentials {
        connect = connect.credentials_file(path).await.map_err(|error| {
            LogError::Setup(format!(
                "the NATS credentials {} cannot be read: {error}",
                path.display()
            ))
        })?;
    }
    let url = &shown;
    let servers: Vec<&str> = options.url.split(',').map(str::trim).collect();
    if let Some((name, password)) = credentials_in(&servers) {
        connect = match password {
            Some(password) => connect.user_and_password(name, password),
            None => connect.token(name),
        };
    }
    let client = match timeout(options.open_timeout, connect.connect(&servers[..])).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => {
            return Err(match error.kind() {
                ConnectErrorKind::ServerParse => LogError::Setup(format!(
                    "`{url}` is not the address of a NATS server: {error}; write it like \
                     nats://host:4222"
                )),
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    LogError::Setup(format!(
                        "NATS at {url} does not let us in: {error}; check the credentials"
                    ))
                }
                ConnectErrorKind::Tls => LogError::Setup(format!(
                    "no secure connection to NATS at {url}: {error}; check the certificates"
                )),
                _ => LogError::Unavailable(format!(
                    "NATS at {url} does not answer: {error}; is it running there?"
                )),
            });
        }
        Err(_) => {
            return Err(LogError::Unavailable(format!(
                "NATS at {url} does not answer within {:?}; is it running there?",
                options.open_timeout
            )));
        }
    };
    Ok((client, losses))
}

/// JetStream through a connection of its own, for what is no log.
///
/// # Errors
/// If the server cannot be reached.
pub async fn open_context(options: &Options, purpose: &str) -> Result<Context, LogError> {
    let (client, _) = connect(options, purpose).await?;
    Ok(context(client, options))
}

fn context(client: Client, options: &Options) -> Context {
    let mut context = jetstream::new(client);
    context.set_timeout(options.ack_timeout);
    context
}

/// The server cannot do that now.
pub(crate) fn unavailable(error: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(error.to_string())
}

impl JetStreamLog {
    /// Connects, and finds or creates the stream.
    pub async fn open(options: Options) -> Result<Self, LogError> {
        if options.resend_max() >= options.duplicate_window {
            return Err(LogError::Setup(format!(
                "a record may be sent again for up to {:?}, but the stream recognizes it only for \
                 {:?}; raise `duplicate_window`",
                options.resend_max(),
                options.duplicate_window
            )));
        }
        let (client, _) = connect(&options, "publisher").await?;
        if !client.is_server_compatible(2, 10, 0) {
            let version = client.server_info().version;
            return Err(LogError::Setup(format!(
                "NATS at {} is version {version}; 2.10 or later is needed",
                options.url_shown()
            )));
        }
        let needed = limits::RECORD_BYTES_MAX + ENVELOPE_BYTES;
        if client.max_payload() < needed {
            return Err(LogError::Setup(format!(
                "NATS at {} takes messages of at most {} bytes; set `max_payload` to at least \
                 {needed} in its configuration",
                options.url_shown(),
                client.max_payload(),
            )));
        }
        let stream = find_or_create(&context(client.clone(), &options), &options).await?;
        let info = stream.cached_info();
        check_config(&info.config, &options)?;
        let created_ns = info.created.unix_timestamp_nanos();
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ns = since.map_or(0, |since| since.as_nanos());
        // Unique among instances, however many start at the same moment.
        let seed =
            std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
        let instance = xxh3_64_with_seed(&now_ns.to_le_bytes(), seed);
        Ok(Self {
            identity: Identity {
                engine: "jetstream",
                name: format!("stream {} at {}", options.stream, options.url_shown()),
                created_us: (created_ns / 1_000) as TimeUs,
                id: xxh3_64(options.stream.as_bytes()),
            },
            created_ns,
            client,
            stream,
            subject: format!("{}{instance:016x}", message::RECORDS),
            message_ids: format!("{instance:016x}"),
            message_count: AtomicU64::new(0),
            in_flight: Semaphore::new(limits::PUBLISH_IN_FLIGHT_MAX),
            options,
        })
    }

    async fn info(&self) -> Result<Info, LogError> {
        self.stream.get_info().await.map_err(unavailable)
    }

    /// Sends a record once. `Err(Ok(_))` is the server's refusal, `Err(Err(_))` silence.
    async fn publish(
        &self,
        record: Bytes,
        headers: HeaderMap,
    ) -> Result<Position, Result<Refusal, String>> {
        let request = Request::new().payload(record).headers(headers);
        let answer = self.client.send_request(self.subject.clone(), request);
        let message = answer.await.map_err(|error| {
            Err(match error.kind() {
                RequestErrorKind::NoResponders => format!(
                    "no stream takes `{}` now: its server is away, or it was deleted",
                    self.subject
                ),
                _ => error.to_string(),
            })
        })?;
        let ack: Ack = serde_json::from_slice(&message.payload)
            .map_err(|error| Err(format!("an answer that is not an acknowledgement: {error}")))?;
        match ack {
            Ack {
                error: Some(refusal),
                ..
            } => Err(Ok(refusal)),
            Ack {
                seq: Some(position),
                ..
            } => Ok(position),
            Ack { .. } => Err(Err("an acknowledgement without a position".into())),
        }
    }
}

async fn find_or_create(context: &Context, options: &Options) -> Result<Stream, LogError> {
    let name = &options.stream;
    let no_jetstream = || {
        LogError::Setup(format!(
            "NATS at {} has no JetStream for us; start it with `-js`, or enable JetStream for \
             this account",
            options.url_shown()
        ))
    };
    match context.get_stream(name).await {
        Ok(stream) => return Ok(stream),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            GetStreamErrorKind::JetStream(error)
                if matches!(
                    error.error_code(),
                    ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
                ) =>
            {
                return Err(no_jetstream());
            }
            GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
                return Err(LogError::Setup(format!(
                    "`{name}` cannot be the name of a stream; use letters, digits, `-` and `_`"
                )));
            }
            GetStreamErrorKind::Request if no_responders(&error) => {
                return Err(no_jetstream());
            }
            _ => return Err(unavailable(error)),
        },
    }
    let config = Config {
        name: name.clone(),
        description: Some("The log of Sellable: movements and records in one order.".into()),
        subjects: SUBJECTS.map(Into::into).into(),
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        // A full stream must say so; to drop the oldest instead would be to forget stock.
        discard: DiscardPolicy::New,
        num_replicas: options.replicas,
        max_age: options.max_age,
        max_bytes: options.bytes_max,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: limits::MESSAGE_BYTES_MAX as i32,
        duplicate_window: options.duplicate_window,
        // A single message taken out would be a hole that no replica can pass.
        deny_delete: true,
        ..Config::default()
    };
    context.create_stream(config).await.map_err(|error| {
        let what = format!("the stream {name} cannot be created: {error}");
        match error.kind() {
            CreateStreamErrorKind::JetStreamUnavailable => no_jetstream(),
            CreateStreamErrorKind::JetStream(cause)
                if cause.error_code() == ErrorCode::STREAM_SUBJECT_OVERLAP =>
            {
                LogError::Setup(format!(
                    "{what}; another stream holds `movements` or `sellable.records` subjects: name \
                     that one, or take the subjects from it"
                ))
            }
            CreateStreamErrorKind::JetStream(_) => LogError::Setup(what),
            _ => LogError::Unavailable(what),
        }
    })
}

/// Whether nobody on the NATS side takes questions about streams.
fn no_responders(error: &dyn std::error::Error) -> bool {
    let cause = error
        .source()
        .and_then(|s| s.downcast_ref::<RequestError>());
    cause.is_some_and(|cause| cause.kind() == context::RequestErrorKind::NoResponders)
}

/// Checks that an existing stream can be our log.
fn check_config(config: &Config, options: &Options) -> Result<(), LogError> {
    let wrong = |what: &str, correction: &str| {
        Err(LogError::Setup(format!(
            "the stream {} {what}; {correction}",
            options.stream
        )))
    };
    let mut subjects: Vec<_> = config.subjects.iter().map(String::as_str).collect();
    subjects.sort_unstable();
    if subjects != SUBJECTS {
        return wrong(
            &format!("holds the subjects {subjects:?}"),
            "the log needs exactly `movements.>` and `sellable.records.>`: name another stream, or \
             set them with `nats stream edit --subjects`",
        );
    }
    if config.storage != StorageType::File {
        return wrong(
            "is kept in memory only",
            "a restart of its server would lose it: create it with file storage",
        );
    }
    if config.retention != RetentionPolicy::Limits {
        return wrong(
            "removes messages once they are consumed",
            "every replica has to read all of them: create it with retention `limits`",
        );
    }
    if config.max_messages_per_subject > 0 || config.allow_rollup || config.allow_message_ttl {
        return wrong(
            "may lose single messages from its middle",
            "create it without a limit per subject, without rollups and without a time to live \
             for single messages",
        );
    }
    if config.mirror.is_some() || config.sealed || config.no_ack {
        return wrong(
            "is a mirror, is sealed, or does not acknowledge",
            "create one that can be written to, with acknowledgements",
        );
    }
    let needed = limits::RECORD_BYTES_MAX + ENVELOPE_BYTES;
    if config.max_message_size > 0 && (config.max_message_size as usize) < needed {
        return wrong(
            &format!(
                "takes messages of at most {} bytes",
                config.max_message_size
            ),
            &format!("set `max_msg_size` to at least {needed}"),
        );
    }
    if config.duplicate_window <= options.resend_max() {
        return wrong(
            &format!(
                "recognizes a repeated record only for {:?}",
                config.duplicate_window
            ),
            &format!(
                "set its duplicate window to more than {:?}",
                options.resend_max()
            ),
        );
    }
    if config.discard == DiscardPolicy::Old && (config.max_bytes > 0 || config.max_messages > 0) {
        tracing::warn!(
            stream = %options.stream,
            "a full stream drops its oldest messages; `discard: new` is safer"
        );
    }
    Ok(())
}

#[async_trait]
impl Log for JetStreamLog {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    async fn append(&self, record: Bytes) -> Result<Position, AppendError> {
        let number = self.message_count.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", self.message_ids);
        self.append_once(record, &name).await
    }

    async fn append_once(&self, record: Bytes, name: &str) -> Result<Position, AppendError> {
        if record.len() > limits::RECORD_BYTES_MAX {
            return Err(AppendError::TooLarge {
                bytes: record.len(),
                bytes_max: limits::RECORD_BYTES_MAX,
            });
        }
        let _permit = self.in_flight.acquire().await;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, name);
        headers.insert("Nats-Expected-Stream", self.options.stream.as_str());
        let started = Instant::now();
        let mut doubt = None;
        for attempt in 1..=self.options.publish_attempts {
            match self.publish(record.clone(), headers.clone()).await {
                Ok(position) => return Ok(position),
                // If an earlier attempt is in doubt, this says nothing about that one.
                Err(Ok(refusal)) if doubt.is_none() && refusal.is_final() => {
                    return Err(AppendError::Refused(refusal.description));
                }
                Err(Ok(refusal)) => doubt = Some(refusal.description),
                Err(Err(silence)) => doubt = Some(silence),
            }
            tracing::warn!(attempt, reason = ?doubt, "NATS did not acknowledge a record");
            // Later, the server might take it for a new one.
            if started.elapsed() + self.options.ack_timeout > self.options.resend_max() {
                break;
            }
            if attempt < self.options.publish_attempts {
                tokio::time::sleep(Duration::from_millis(50) * attempt).await;
            }
        }
        Err(AppendError::Unconfirmed(doubt.unwrap_or_default()))
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        let info = self.info().await?;
        self.check_created(&info)?;
        Ok(bounds(&info))
    }

    async fn reader(&self, from: Position) -> Result<Box<dyn Reader>, LogError> {
        assert!(from >= 1, "the first position is 1");
        let Bounds { first, last } = self.bounds().await?;
        super::check_from(from, first, last)?;
        let (client, losses) = connect(&self.options, "reader").await?;
        let reader = JetStreamReader::new(&self.options, client, losses, self.created_ns, from);
        Ok(Box::new(reader))
    }

    async fn trim(&self, below: Position) -> Result<(), LogError> {
        let Bounds { first, last } = self.bounds().await?;
        // Beyond its end, the server would move the end itself.
        let below = below.min(last + 1);
        if below > first {
            let purge = self.stream.purge().sequence(below);
            purge.await.map_err(unavailable)?;
        }
        Ok(())
    }

    fn not_writable(&self) -> Option<String> {
        (self.client.connection_state() != State::Connected)
            .then(|| format!("NATS at {} is away", self.options.url_shown()))
    }

    fn depot(&self) -> Option<Box<dyn Depot>> {
        Some(Box::new(Bucket {
            context: context(self.client.clone(), &self.options),
            stream: self.options.stream.clone(),
            replicas: self.options.replicas,
        }))
    }
}

impl JetStreamLog {
    fn check_created(&self, info: &Info) -> Result<(), LogError> {
        check_created(&self.options.stream, info, self.created_ns)
    }
}

fn check_created(stream: &str, info: &Info, created_ns: i128) -> Result<(), LogError> {
    if info.created.unix_timestamp_nanos() == created_ns {
        return Ok(());
    }
    Err(LogError::Diverged(format!(
        "the stream {stream} was deleted and created anew at {}",
        info.created
    )))
}

fn bounds(info: &Info) -> Bounds {
    let Bounds { first, last } = Bounds {
        first: info.state.first_sequence,
        last: info.state.last_sequence,
    };
    // A stream that never held a message says that it starts at 0; one whose messages are all
    // gone may say that it starts anywhere up to the next.
    match info.state.messages {
        0 => Bounds {
            first: last + 1,
            last,
        },
        _ => Bounds { first, last },
    }
}
