//! The HTTP client of a channel: how long a call may take, and which connections are kept.

use std::num::NonZeroUsize;
use std::time::Duration;

use reqwest::Client;

use crate::egress::Egress;

/// Configuration of calls to a channel's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Timeout of a connection, name look-up and TLS included; less than `timeout`, so
    /// that a dead network is distinguished from a send of unknown outcome. Default 5 s.
    pub connect_timeout: Duration,
    /// Timeout of a send as a whole; after it its outcome is unknown. Default 30 s.
    pub timeout: Duration,
    /// Time that an unused connection is kept. Less than what servers allow (a minute or more),
    /// because a send on a connection that is just being closed is one of unknown outcome.
    /// Default 20 s.
    pub idle: Duration,
    /// Maximum number of unused connections kept to one host. Default 64.
    pub idle_connections: NonZeroUsize,
    /// Addresses that may be called. Default: the public internet.
    pub egress: Egress,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            idle: Duration::from_secs(20),
            idle_connections: const { NonZeroUsize::new(64).unwrap() },
            egress: Egress::default(),
        }
    }
}

/// Error of setting a channel up.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client of a channel cannot be set up")]
pub struct SetupError(#[from] reqwest::Error);

/// A client that calls as the options say.
pub(super) fn client(options: &Options) -> Result<Client, SetupError> {
    // The client's own retries stay at their default, requests that HTTP/2 itself calls unprocessed
    // (RFC 9113, 8.7): those were never accepted.
    Ok(options
        .egress
        .client()
        .connect_timeout(options.connect_timeout)
        .timeout(options.timeout)
        .pool_idle_timeout(options.idle)
        .pool_max_idle_per_host(options.idle_connections.get())
        .build()?)
}
