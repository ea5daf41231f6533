//! Load generator for a running node: sends signed webhooks or records of topic ingress, and measures the replies.
//!
//! The node may have any store behind it. The load brings its own provider, a simulated Graph API, and its own
//! tenants, which its operator applies. Each message asks a question whose reply names it, so that lost, doubled
//! and misordered replies are distinguished outside the process under test.
//!
//! Two loops. At a rate (open loop) messages are sent when they are due, whatever the node does, and every latency
//! counts from then, so that a stall shows in every message due during it. At maximum speed (closed loop), a fixed
//! number of customers ask, wait for the reply and ask again, which measures the throughput, and latencies at
//! saturation.
//!
//! Call order: [`Load::start`], then [`Load::prepare`], then [`Load::run`].
//!
//! # Layout
//! - [`options`]: the options of a run, and the channel limits that it would measure instead of the engine.
//! - [`schedule`], [`choice`]: the due time of a message, and its conversation.
//! - [`fixture`]: tenants, customers, questions, and the codes by which a reply names its question.
//! - [`parcel`]: messages sent together; [`ingress`]: the two ingresses, `webhooks` and `kafka`.
//! - [`observed`]: a sent message and the answer to its body; [`tally`]: the counts; [`report`]: the totals.
//! - [`drive`]: the driver; [`screen`]: the progress bar.

mod choice;
mod drive;
mod fixture;
mod ingress;
mod observed;
mod options;
mod parcel;
mod report;
mod schedule;
mod screen;
mod tally;

pub use self::drive::{Load, Progress};
pub use self::options::{Options, Pace, Until, Way};
pub use self::report::{LatencyMs, Report};
pub use self::screen::Screen;

/// Error of a load run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Invalid options: every fault, one per line.
    #[error("{0}")]
    Options(String),
    /// Invalid address of [`Way::Webhooks`].
    #[error("an address of --webhooks is not valid")]
    Address(#[source] url::ParseError),
    /// The HTTP client of the webhooks.
    #[error("the HTTP client of the webhooks cannot be set up")]
    Client(#[source] reqwest::Error),
    /// The Kafka producer of [`Way::Kafka`].
    #[error("the Kafka producer cannot be set up")]
    Producer(#[source] heddle_connectors::kafka::OpenError),
    /// The simulated API.
    #[error(transparent)]
    Graph(#[from] heddle_simulator::Error),
    /// The sending thread panicked.
    #[error("the sending thread panicked")]
    Sender(#[source] tokio::task::JoinError),
}

impl Error {
    /// Returns whether the options are at fault, not the run.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Options(_) | Self::Address(_) | Self::Client(_) | Self::Producer(_) => true,
            Self::Graph(_) | Self::Sender(_) => false,
        }
    }
}
