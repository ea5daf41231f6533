//! Load on a running node, by signed webhooks or by records of topic ingress, and the count and measure of what
//! comes back.
//!
//! The node may have any store behind it. The load brings its own provider, a simulated Graph API, and its own
//! tenants, which its operator applies; each message asks a question whose reply names it, so that lost, doubled
//! and misordered replies are told from one another, outside the process under test.
//!
//! Two loops. At a rate (open) messages come when they are due, however the node does, and every latency
//! counts from then: a stall is measured by all that were due in it. As fast as it goes (closed), a fixed
//! number of customers ask, wait for the reply and ask again: that gives the throughput, and latencies at
//! saturation.
//!
//! [`Load::start`], then [`Load::prepare`], then [`Load::run`].
//!
//! # Layout
//! - [`options`]: what a run does, and which limit of the channel it would measure instead of the engine.
//! - [`schedule`], [`choice`]: when a message is due, and in which conversation.
//! - [`cast`]: tenants, customers, questions, and how a reply names its question.
//! - [`parcel`]: messages that leave together; [`way`]: the ways they take into the engine, `webhooks` and `kafka`.
//! - [`observed`]: a message that was sent, and what its body was answered; [`tally`]: the account of them;
//!   [`report`]: its sum.
//! - [`drive`]: runs it; [`screen`]: the progress bar.

mod cast;
mod choice;
mod drive;
mod observed;
mod options;
mod parcel;
mod report;
mod schedule;
mod screen;
mod tally;
mod way;

pub use self::drive::{Load, Progress};
pub use self::options::{Options, Pace, Until, Way};
pub use self::report::{LatencyMs, Report};
pub use self::screen::Screen;

/// Why a load does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that cannot be: every fault, a line each.
    #[error("{0}")]
    Options(String),
    /// An address of [`Way::Webhooks`].
    #[error("the addresses that webhooks go to")]
    Address(#[source] url::ParseError),
    /// The HTTP client of the webhooks.
    #[error("the HTTP client of the webhooks cannot be set up")]
    Client(#[source] reqwest::Error),
    /// The producer of [`Way::Kafka`].
    #[error("the producer of --kafka")]
    Producer(#[source] heddle_connectors::kafka::OpenError),
    /// The simulated API.
    #[error(transparent)]
    Graph(#[from] heddle_simulator::Error),
    /// The thread that sends.
    #[error("the sender broke down")]
    Sender(#[source] tokio::task::JoinError),
}

impl Error {
    /// Whether the options are at fault, and not what happened.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Options(_) | Self::Address(_) | Self::Client(_) | Self::Producer(_) => true,
            Self::Graph(_) | Self::Sender(_) => false,
        }
    }
}
