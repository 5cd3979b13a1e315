//! Connecting to a server.

use std::time::Duration;

use clap::Args;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use super::exit::{Exit, Failure, innermost};
use crate::{
    config::Config,
    proto::v1::{
        availability_client::AvailabilityClient, feeds_client::FeedsClient,
        movements_client::MovementsClient, operations_client::OperationsClient,
        reconciliation_client::ReconciliationClient, reservations_client::ReservationsClient,
        rules_client::RulesClient,
    },
};

/// Largest answer that is taken, in bytes: a query by location of 1,000 SKUs fits with ease.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which server, and how long to wait for it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub struct Server {
    /// Where the server answers
    #[arg(
        long,
        env = "SELLABLE_SERVER",
        default_value = "http://127.0.0.1:7420",
        value_name = "URL"
    )]
    pub server: String,
    /// How long one call may take, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub timeout: u64,
}

impl Server {
    /// The server that an embedding command has just started with these settings.
    pub fn of(config: &Config) -> Self {
        let mut address = config.listen;
        if address.ip().is_unspecified() {
            let own: std::net::IpAddr = match address {
                std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            };
            address.set_ip(own);
        }
        Self {
            server: format!("http://{address}"),
            timeout: 30,
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// If the address is none, or nobody answers there.
    pub async fn connect(&self) -> Result<Client, Failure> {
        let url = if self.server.contains("://") {
            self.server.clone()
        } else {
            format!("http://{}", self.server)
        };
        let bad = || {
            Failure::usage(format!("{:?} is no address of a server", self.server))
                .hint("write it as http://host:7420")
        };
        if !url.starts_with("http://") {
            return Err(bad());
        }
        let channel = Endpoint::from_shared(url.clone())
            .map_err(|_| bad())?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .connect()
            .await
            .map_err(|error| {
                Failure::new(
                    Exit::Unavailable,
                    format!("no server answers at {url}: {}", innermost(&error)),
                )
                .hint(
                    "start one with `sellable serve` or `sellable demo`, or name it with --server",
                )
            })?;
        Ok(Client {
            channel,
            timeout: Duration::from_secs(self.timeout),
        })
    }
}

/// A connection.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    timeout: Duration,
}

impl Client {
    /// A call that may take as long as the user allows.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// The service of this name.
    pub fn availability(&self) -> AvailabilityClient<Channel> {
        AvailabilityClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// A stream that goes on until somebody ends it.
    pub fn stream<T>(&self, message: T) -> Request<T> {
        Request::new(message)
    }

    /// The service of this name.
    pub fn feeds(&self) -> FeedsClient<Channel> {
        FeedsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The service of this name.
    pub fn movements(&self) -> MovementsClient<Channel> {
        MovementsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The service of this name.
    pub fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The service of this name.
    pub fn reconciliation(&self) -> ReconciliationClient<Channel> {
        ReconciliationClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The service of this name.
    pub fn reservations(&self) -> ReservationsClient<Channel> {
        ReservationsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The service of this name.
    pub fn rules(&self) -> RulesClient<Channel> {
        RulesClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}
