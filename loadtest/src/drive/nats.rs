//! Movements on NATS: published on `movements.<source>`, acknowledged by JetStream.

use std::time::Duration;

use async_nats::{HeaderMap, jetstream};
use prost::Message;
use tonic::Status;

use crate::{
    Failure,
    catalogue::SOURCE,
    proto::{Movement, MovementBatch},
    server::Address,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Version of the contract that is written.
const CONTRACT_VERSION: u32 = 1;

/// A connection to NATS.
#[derive(Clone)]
pub struct Nats {
    context: jetstream::Context,
    headers: HeaderMap,
}

impl std::fmt::Debug for Nats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nats").finish_non_exhaustive()
    }
}

impl Nats {
    /// Connects to `nats://host:port`, if load is welcome there.
    ///
    /// # Errors
    /// If it is no such address, is not on this machine, or nobody answers.
    pub async fn connect(url: &str, allow_remote: bool) -> Result<Self, Failure> {
        let place = url.strip_prefix("nats://").ok_or_else(|| {
            Failure::usage(format!("{url:?} is no address of a NATS server"))
                .hint("write it as nats://127.0.0.1:4222")
        })?;
        if !allow_remote {
            Address::parse(place)?.ensure_loopback().await?;
        }
        let client = async_nats::ConnectOptions::new()
            .connection_timeout(CONNECT_TIMEOUT)
            .connect(url)
            .await
            .map_err(|error| {
                Failure::unavailable(format!("no NATS server answers at {url}: {error}"))
                    .hint("start it with `nats-server --jetstream`, or name it with --nats")
            })?;
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", "application/protobuf");
        Ok(Self {
            context: jetstream::new(client),
            headers,
        })
    }

    /// Publishes a batch; gives its position in the log, which is its sequence in the stream.
    ///
    /// # Errors
    /// If it was not acknowledged: then it is unknown whether it was stored.
    pub async fn publish(&self, movements: Vec<Movement>) -> Result<u64, Status> {
        let batch = MovementBatch {
            version: CONTRACT_VERSION,
            movements,
        };
        let unknown = |error: jetstream::context::PublishError| {
            Status::unavailable(format!("not acknowledged by JetStream: {error}"))
        };
        let subject = format!("movements.{SOURCE}");
        let acknowledged = self
            .context
            .publish_with_headers(subject, self.headers.clone(), batch.encode_to_vec().into())
            .await
            .map_err(unknown)?;
        Ok(acknowledged.await.map_err(unknown)?.sequence)
    }
}
