//! Simulated WhatsApp Cloud API with its customers: a real HTTP server and a real HTTP client on
//! loopback, for the demo, the tests that kill the engine, and load tests.
//!
//! Contract: it behaves towards the engine as the provider does (shapes, limits, errors, webhooks at
//! least once and out of order, retried until accepted), and it keeps counts of everything, outside
//! the process under test. It outlives that process: when the engine is killed and restarts at the
//! same address, webhooks without a 200 are retried. Every random choice comes from a seed; the timing
//! of the network and the scheduler does not.
//!
//! Start [`graph::GraphApi`] first (the engine's `api_base` needs its address), then the engine, then
//! [`webhooks::Webhooks`] towards the engine and [`customers::Customers`] on top of both; at the end
//! [`customers::Customers::report`].
//!
//! # Layout
//! - `graph`: `POST /{version}/{phone_number_id}/messages`, with limits (`limits`), rules about contents and people
//!   (`rules`), injected faults (`fault`) and the accepted messages (`ledger`).
//! - `webhooks`: signed webhooks with retries and duplicates.
//! - `customers`: people who ask in bursts and wait for answers; `record` is the record of one of them,
//!   `report` the totals.
//! - `llm`: a separate provider of language models with limits, faults and counts of its own.
//! - `operator`: the operator that configures the node under test.
//! - `wamid`, `dice`: message ids that look real, seeded randomness.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub mod customers;
pub mod dice;
pub mod fault;
pub mod graph;
pub mod ledger;
pub mod limits;
pub mod llm;
pub mod operator;
pub mod record;
pub mod report;
pub mod rules;
#[cfg(test)]
mod tests;
pub mod wamid;
pub mod webhooks;

/// Error of a start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the simulated API is in use or not local.
    #[error("the simulated API cannot listen on {address}")]
    Listen {
        /// The requested address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The HTTP client of the webhooks cannot be built.
    #[error("the HTTP client of the webhooks cannot be set up")]
    Client(#[from] reqwest::Error),
    /// The script has no customers' numbers or no questions.
    #[error("the script is empty: it needs at least one {0}")]
    Script(&'static str),
}

/// Serves until the returned handle is dropped.
fn serve(listener: TcpListener, app: Router) -> Arc<watch::Sender<()>> {
    let (stop, mut stopped) = watch::channel(());
    let listener = listener.tap_io(|stream| {
        // Only affects latency; a socket that refuses the option still works.
        let _ = stream.set_nodelay(true);
    });
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        // Returns when the sender is dropped, which is the signal to stop.
        let _ = stopped.changed().await;
    });
    tokio::spawn(server.into_future());
    Arc::new(stop)
}
