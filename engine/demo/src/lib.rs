//! Scenario of the demo: a clinic on a simulated WhatsApp Cloud API, its customers, and the checks at the end.
//!
//! Everything but the people is real: the engine serves on a loopback address, its operator applies the tenant
//! and the documents, the provider is an HTTP server that signs, duplicates and retries webhooks, enforces the
//! documented limits and keeps its own counts. The caller supplies the engine ([`Engine`]) and the operator that
//! configures it ([`Operator`]).
//!
//! Call order: [`Demo::start`] before the engine, then [`Demo::prepare`], then [`Demo::play`].
//!
//! # Layout
//! - [`script`]: the tenant, its documents and the customers' questions.
//! - [`screen`]: the display while the demo runs.
//! - [`summary`]: the results and the checks.

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

/// Maximum time for the engine to settle all records after the last customer has finished.
const QUIET: Duration = Duration::from_secs(30);

/// Size of the demo, and its seed.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Number of concurrent customers.
    pub customers: NonZeroUsize,
    /// Questions per customer.
    pub questions: NonZeroUsize,
    /// Seed of the questions asked and of the webhooks sent twice.
    pub seed: u64,
}

/// The engine's own counts, to compare with the simulator's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineCounts {
    /// Messages dropped as duplicates.
    pub duplicates: u64,
    /// Turns taken.
    pub turns: u64,
    /// Sends with an unknown outcome.
    pub unknown_sends: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Records of topics inbound and outbound that are not settled.
    pub unsettled: u64,
}

/// Engine under demonstration.
pub trait Engine {
    /// Returns its current counts.
    fn counts(&self) -> impl Future<Output = EngineCounts> + Send;
}

/// Demo whose simulated API is listening.
pub struct Demo {
    options: Options,
    graph: GraphApi,
    clock: Arc<dyn Clock>,
}

/// Demo whose customers have finished. Its webhooks are delivered until it is dropped.
pub struct Played {
    /// Results and checks.
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

    /// Returns the base address of the simulated API.
    #[must_use]
    pub fn graph_api(&self) -> String {
        self.graph.api_base()
    }

    /// Applies the tenant and adds its documents, as an operator would.
    ///
    /// # Errors
    /// When the engine refuses them.
    pub async fn prepare<O: Operator>(&self, operator: &O) -> Result<(), O::Error> {
        let tenant = script::tenant(&self.graph.api_base());
        let id = tenant.id.clone();
        operator.apply(tenant).await?;
        for document in script::documents() {
            operator.add(&id, document).await?;
        }
        Ok(())
    }

    /// Runs the customers against the engine at this address and shows their conversations. Returns when they have
    /// finished and the engine has settled everything.
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

/// Waits until every webhook is accepted and every record is settled. Returns whether both happened in time.
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
