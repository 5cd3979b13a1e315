//! Which address may be loaded, and the connections to it.

use std::{error::Error, net::SocketAddr, time::Duration};

use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint},
};

use crate::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a server is said to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// With its scheme.
    pub url: String,
    /// Name or IP address, the latter without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// Reads `http://host:port`, or `host:port`.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let bad = || {
            Failure::usage(format!("{text:?} is no address of a server"))
                .hint("write it as http://127.0.0.1:7420")
        };
        let url = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: Uri = url.parse().map_err(|_| bad())?;
        if uri.scheme_str() != Some("http") {
            return Err(bad());
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().ok_or_else(bad)?,
            url,
        })
    }

    /// Load on a server that others use is an outage, and a mistyped address is enough for it.
    /// So all that the host resolves to has to be loopback.
    ///
    /// # Errors
    /// If it is not, or does not resolve.
    pub async fn ensure_loopback(&self) -> Result<(), Failure> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|error| {
                Failure::unavailable(format!("{:?} does not resolve: {error}", self.host))
            })?
            .collect();
        if found.is_empty() {
            return Err(Failure::unavailable(format!(
                "{:?} resolves to no address",
                self.host
            )));
        }
        if let Some(other) = found.iter().find(|address| !is_loopback(address)) {
            return Err(Failure::usage(format!(
                "{} is not on this machine ({})",
                self.url,
                other.ip()
            ))
            .hint("add --allow-remote if the load is welcome there"));
        }
        Ok(())
    }

    /// Opens that many connections.
    ///
    /// # Errors
    /// If nobody answers there.
    pub async fn connect(&self, connections: usize) -> Result<Vec<Channel>, Failure> {
        let endpoint = Endpoint::from_shared(self.url.clone())
            .map_err(|error| Failure::usage(format!("{:?}: {error}", self.url)))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let mut channels = Vec::with_capacity(connections);
        for _ in 0..connections {
            let channel = endpoint.connect().await.map_err(|error| {
                Failure::unavailable(format!(
                    "no server answers at {}: {}",
                    self.url,
                    innermost(&error)
                ))
                .hint("start one with `sellable demo`, or name it with --server")
            })?;
            channels.push(channel);
        }
        Ok(channels)
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    // `::ffff:127.0.0.1` is 127.0.0.1.
    address.ip().to_canonical().is_loopback()
}

/// The cause at the bottom: it says the most ("Connection refused").
fn innermost(error: &dyn Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn allowed(text: &str) -> bool {
        let address = Address::parse(text).expect("an address");
        address.ensure_loopback().await.is_ok()
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        let address = Address::parse("localhost:7420").expect("an address");
        assert_eq!(address.url, "http://localhost:7420");
        assert_eq!((address.host.as_str(), address.port), ("localhost", 7420));
        let address = Address::parse("http://[::1]:80/").expect("an address");
        assert_eq!((address.host.as_str(), address.port), ("::1", 80));
        for bad in [
            "",
            "localhost",
            "https://localhost:1",
            "http://:1",
            "http://a b:1",
            "[::1]",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn only_this_machine_may_be_loaded() {
        for own in [
            "127.0.0.1:7420",
            "http://127.9.8.7:1",
            "[::1]:7420",
            "[::ffff:127.0.0.1]:7420",
        ] {
            assert!(allowed(own).await, "{own}");
        }
        for other in [
            "10.0.0.1:7420",
            "192.168.1.5:7420",
            "0.0.0.0:7420",
            "[::]:7420",
            "[2001:db8::1]:7420",
            "[::ffff:10.0.0.1]:7420",
            // What stands before the @ is no host.
            "http://127.0.0.1:7420@10.0.0.1:7420",
            "http://localhost@10.0.0.1:7420",
        ] {
            assert!(!allowed(other).await, "{other}");
        }
    }

    #[tokio::test]
    async fn a_refusal_says_what_would_allow_it() {
        let address = Address::parse("10.0.0.1:7420").expect("an address");
        let failure = address.ensure_loopback().await.expect_err("remote");
        assert_eq!(
            failure.to_string(),
            "error: http://10.0.0.1:7420 is not on this machine (10.0.0.1)\n\
             next: add --allow-remote if the load is welcome there"
        );
    }
}
