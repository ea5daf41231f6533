//! The demo's scenario: a clinic on a simulated WhatsApp Cloud API, its customers, and the checks at the end.
//!
//! Everything is real but the people: the engine serves on a loopback address, its operator gives it the tenant
//! and the documents, the provider is an HTTP server that signs, duplicates and retries webhooks, enforces the
//! documented limits and keeps its own account. Who runs the demo brings the engine ([`Engine`]) and the way to
//! configure it ([`Operator`]).
//!
//! [`Demo::start`] before the engine, then [`Demo::prepare`], then [`Demo::play`].
//!
//! # Layout
//! - [`script`]: the tenant, its documents and what the customers ask.
//! - [`screen`]: what is shown while it runs.
//! - [`summary`]: what it came to, and the checks.

mod screen;
mod script;
mod summary;

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use heddle_schemas::ports::clock::Clock;
use heddle_simulator::Error;
use heddle_simulator::customers::{self, Customers};
use heddle_simulator::fault::Faults;
use heddle_simulator::graph::{self, GraphApi};
use heddle_simulator::limits::Limits;
use heddle_simulator::operator::Operator;
use heddle_simulator::webhooks::{self, Webhooks};

use self::screen::Screen;
pub use self::screen::Show;
pub use self::summary::{Check, LatencyMillis, Summary};

/// How long the engine may take to settle what is left when the last customer has gone.
const QUIET: Duration = Duration::from_secs(30);

/// Size of the demo, and its seed.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Customers who write at once.
    pub customers: NonZeroUsize,
    /// Questions of each.
    pub questions: NonZeroUsize,
    /// Decides who asks what, and what is sent twice.
    pub seed: u64,
}

/// Counts of the engine itself, to compare with those of the simulator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineCounts {
    /// Messages it has dropped since it had them already.
    pub duplicates: u64,
    /// Turns it has taken.
    pub turns: u64,
    /// Sends whose outcome it does not know.
    pub unknown_sends: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Records of topics inbound and outbound without an end.
    pub unsettled: u64,
}

/// The engine that the demo shows.
pub trait Engine {
    /// Its counts at this moment.
    fn counts(&self) -> impl Future<Output = EngineCounts> + Send;
}

/// A demo whose simulated API listens.
pub struct Demo {
    options: Options,
    graph: GraphApi,
    clock: Arc<dyn Clock>,
}

/// A demo whose customers have gone. Its webhooks go on until it is dropped.
pub struct Played {
    /// What it came to.
    pub summary: Summary,
    _customers: Customers,
    _webhooks: Webhooks,
}

impl Demo {
    /// Starts the simulated API.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(options: Options, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let provider = graph::Options {
            numbers: script::tokens(),
            limits: Some(Limits::default()),
            faults: Faults {
                latency: Duration::from_millis(20)..Duration::from_millis(120),
                ..Faults::default()
            },
            seed: options.seed,
            ..graph::Options::default()
        };
        let graph = GraphApi::start(provider, clock.clone()).await?;
        Ok(Self { options, graph, clock })
    }

    /// Where the simulated API is reached.
    #[must_use]
    pub fn graph_api(&self) -> String {
        self.graph.api_base()
    }

    /// Applies the tenant and adds its documents, as an operator would.
    ///
    /// # Errors
    /// When the engine does not take them.
    pub async fn prepare<O: Operator>(&self, operator: &O) -> Result<(), O::Error> {
        let tenant = script::tenant(&self.graph.api_base());
        let id = tenant.id.clone();
        operator.apply(tenant).await?;
        for document in script::documents() {
            operator.add(&id, document).await?;
        }
        Ok(())
    }

    /// Sends the customers to the engine at this address, shows what happens, and ends when they have gone and
    /// the engine has settled everything.
    ///
    /// # Errors
    /// When webhooks or customers cannot start.
    pub async fn play(&self, target: &str, engine: &impl Engine, show: Show) -> Result<Played, Error> {
        let hooks = webhooks::Options {
            seed: self.options.seed,
            ..webhooks::Options::new(target, script::secrets())
        };
        let webhooks = Webhooks::start(hooks, &self.graph, self.clock.clone())?;
        let crowd = customers::Options {
            customers: self.options.customers,
            questions: self.options.questions,
            start: Duration::from_secs(1),
            gap: Duration::from_millis(20)..Duration::from_millis(150),
            think: Duration::from_millis(100)..Duration::from_millis(800),
            seed: self.options.seed,
            ..customers::Options::new(script::accounts(), script::questions())
        };
        let (scenes, shown) = tokio::sync::mpsc::unbounded_channel();
        let customers = Customers::start(crowd, &self.graph, &webhooks, self.clock.clone(), Some(scenes))?;
        let screen = Screen::start(show, shown, customers.progress().1);
        customers.done().await;
        let quiet = quieten(engine, &webhooks).await;
        screen.stop().await;
        let summary = Summary::of(&engine.counts().await, &customers.report(), quiet);
        Ok(Played { summary, _customers: customers, _webhooks: webhooks })
    }
}

/// Waits until every webhook is taken and every record settled. Returns whether that came to pass.
async fn quieten(engine: &impl Engine, webhooks: &Webhooks) -> bool {
    let quiet = async {
        loop {
            webhooks.idle().await;
            if engine.counts().await.unsettled == 0 && webhooks.open() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(QUIET, quiet).await.is_ok()
}
