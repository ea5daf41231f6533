//! A simulated WhatsApp Cloud API with its customers: a real HTTP server and a real HTTP client on
//! loopback, for the demo, the tests that kill the engine, and load tests.
//!
//! The contract: it behaves to the engine as the provider does (shapes, limits, errors, webhooks at
//! least once and out of order, retried until taken), and it keeps an account of everything, outside
//! the process under test. It outlives that process: when the engine is killed and comes back at the
//! same address, webhooks that had no 200 are sent again. Every random choice comes from a seed; what
//! the network and the scheduler do with the timing does not.
//!
//! Start [`graph::GraphApi`] first (the engine's `api_base` needs its address), then the engine, then
//! [`webhooks::Webhooks`] towards the engine and [`customers::Customers`] on top of both; at the end
//! [`customers::Customers::report`].
//!
//! # Layout
//! - `graph`: `POST /{version}/{phone_number_id}/messages`, with limits (`limits`), injected faults
//!   (`fault`) and the account of what was taken (`ledger`).
//! - `webhooks`: signed webhooks with retries and duplicates.
//! - `customers`: people who ask in bursts and wait for answers; `record` is what one of them saw,
//!   `report` the sum.
//! - `llm`: beside all that, a provider of language models with limits, faults and an account of its own.
//! - `operator`: who configures the node under test.
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
#[cfg(test)]
mod tests;
pub mod wamid;
pub mod webhooks;

/// Why the simulator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the simulated API is taken or not ours.
    #[error("the simulated API cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The HTTP client of the webhooks cannot be built.
    #[error("the HTTP client of the webhooks cannot be set up")]
    Client(#[from] reqwest::Error),
    /// There is nobody to play or nothing to say.
    #[error("the script is empty: it takes at least one {0}")]
    Script(&'static str),
}

/// Serves until what it returns is gone.
fn serve(listener: TcpListener, app: Router) -> Arc<watch::Sender<()>> {
    let (stop, mut stopped) = watch::channel(());
    let listener = listener.tap_io(|stream| {
        // Latency only; a socket that refuses the option still works.
        let _ = stream.set_nodelay(true);
    });
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        // Ends when the sender is gone: that is the signal.
        let _ = stopped.changed().await;
    });
    tokio::spawn(server.into_future());
    Arc::new(stop)
}
