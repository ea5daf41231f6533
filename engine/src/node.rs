//! One node: the ports of its configuration, the actors over them, and how both come and go.
//!
//! Opening a node opens its stores and reads its tenants, and nothing runs yet: that is what a command
//! without a running node works on. Starting it takes records up; draining finishes what was taken up,
//! closes the stores and leaves nothing to be replayed. A process that ends without draining loses nothing.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use heddle_actors::metrics::Metrics as ActorMetrics;
use heddle_actors::options::Options;
use heddle_actors::ports::Ports;
use heddle_actors::privacy::security::Security;
use heddle_actors::privacy::security::keys::WatchedKeys;
use heddle_actors::random::Random;
use heddle_actors::system::System;
use heddle_actors::tenant::configuration::{Tenants, TenantsError};
use heddle_connectors::calendar::{GoogleCalendar, google};
use heddle_connectors::channels;
use heddle_connectors::clock::SystemClock;
use heddle_connectors::egress::Egress;
use heddle_connectors::keys::{self, Entropy, EnvelopeKeys, SystemEntropy, vault};
use heddle_connectors::knowledge::extract::process::{self as extraction, Extractor};
use heddle_connectors::knowledge::{self, Bound, Bounds, Languages, TantivyKnowledge};
use heddle_connectors::responders::{Extractive, Llm, llm};
use heddle_schemas::config::{Config, StateKind};
use heddle_schemas::language::Language;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::keys::{Keys, KeysError};
use heddle_schemas::ports::responder::Responder;
use heddle_schemas::ports::state::State;
use heddle_schemas::tenant::{KnowledgeBase, Provider, Tenant};
use heddle_schemas::topic::{Topic, TopicPartition};
use prometheus::Registry;

use crate::configuration::ConfigurationError;
use crate::dead_letters::DeadLetters;
use crate::masters::MasterKeys;
use crate::metrics::Metrics;
use crate::operations::Operations;
use crate::operations::verification::Proving;
use crate::region::{self, RegionError};
use crate::stores::{Stores, StoresError};

/// Why a node could not be opened or started.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration or the master key.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The master key is another one, or where it is kept does not serve.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Log or state.
    #[error(transparent)]
    Stores(#[from] StoresError),
    /// They belong to another region.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// A channel.
    #[error(transparent)]
    Channel(#[from] channels::SetupError),
    /// The responder.
    #[error(transparent)]
    Responder(#[from] llm::SetupError),
    /// Appointments.
    #[error(transparent)]
    Calendar(#[from] google::SetupError),
    /// The tenants.
    #[error("the tenants cannot be read: {0}")]
    Tenants(#[from] TenantsError),
}

/// An opened node.
pub struct Node {
    /// Its configuration.
    pub config: Config,
    /// Adapters behind the ports.
    pub ports: Ports,
    /// All metrics of the process.
    pub registry: Registry,
    /// The metrics of the engine's own parts.
    pub metrics: Arc<Metrics>,
    keys: Arc<EnvelopeKeys>,
    files: Arc<Extractor>,
    /// Once they are read: the knowledge, which is opened before, asks them for languages.
    tenants: Arc<OnceLock<Arc<Tenants>>>,
    stores: Stores,
}

impl Node {
    /// Opens the stores, keys and channels of a configuration.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn open(config: Config) -> Result<Self, NodeError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("each name is registered once");
        let masters = MasterKeys::read(&config, &vault::Calls::register(&registry))?;
        let random: Random = Arc::new(|| {
            let mut bytes = [0; 16];
            SystemEntropy.key(&mut bytes);
            bytes
        });
        let owner = format!("{}/{}", config.node.name, hex::encode(random()));
        let stores = Stores::open(&config, clock.clone(), owner.clone(), &registry).await?;
        let state = stores.state();
        if let Err(error) = region::bind(&config, &*state, &*stores.log(), clock.now()).await {
            stores.close().await;
            return Err(error.into());
        }
        let keys = match open_keys(masters, state.clone(), clock.clone()).await {
            Ok(keys) => keys,
            Err(error) => {
                stores.close().await;
                return Err(error);
            }
        };
        let metrics = Arc::new(ActorMetrics::register(&registry));
        let security = Security::new(config.security.clone(), clock.clone(), metrics.clone(), random.clone());
        // Rotation asks the keys themselves; all others ask those that report what does not open.
        let watched: Arc<dyn Keys> = Arc::new(WatchedKeys::new(keys.clone(), security.clone()));
        let tenants: Arc<OnceLock<Arc<Tenants>>> = Arc::default();
        let known = tenants.clone();
        let languages = Languages::new(move |tenant| {
            let tenant = known.get().and_then(|tenants| tenants.get(tenant));
            tenant.map_or_else(Language::default, |tenant| tenant.knowledge.language)
        });
        let known = tenants.clone();
        let bounds = Bounds::new(move |tenant| {
            let tenant = known.get().and_then(|tenants| tenants.get(tenant));
            let KnowledgeBase { max_documents, max_bytes, .. } =
                tenant.map_or_else(KnowledgeBase::default, |tenant| tenant.knowledge.clone());
            Bound { documents: max_documents.get().into(), bytes: max_bytes.get() }
        });
        let knowledge = knowledge::Options { languages, bounds, ..knowledge::Options::default() };
        let documents = TantivyKnowledge::new(state.clone(), watched.clone(), &knowledge);
        let egress = Egress::new(config.security.private_addresses.clone());
        let calls = channels::Options {
            timeout: config.engine.send_timeout,
            egress: egress.clone(),
            ..channels::Options::default()
        };
        let channels = Arc::new(channels::registry(&calls, &clock)?);
        let extractive: Arc<dyn Responder> = Arc::new(Extractive);
        let models = llm::Options { egress: egress.clone(), ..llm::Options::default() };
        let llm = Llm::new(&models, state.clone(), clock.clone(), owner.clone())?;
        heddle_connectors::metrics::register_llm(&registry, &llm);
        let llm: Arc<dyn Responder> = Arc::new(llm);
        let calendars = google::Options { egress: egress.clone(), ..google::Options::default() };
        let ports = Ports {
            log: stores.log(),
            state,
            keys: watched,
            calendar: Arc::new(GoogleCalendar::new(&calendars, clock.clone())?),
            knowledge: Arc::new(documents),
            responders: Arc::new(move |tenant: &Tenant| match tenant.llm.provider {
                Provider::Extractive => extractive.clone(),
                Provider::Openai | Provider::Deepseek | Provider::Gemini => llm.clone(),
            }),
            channels,
            clock,
            random,
            metrics,
            security,
            versions: config.versions(),
        };
        let metrics = Arc::new(Metrics::register(&registry));
        let files = Arc::new(Extractor::new(extraction::Options::default()));
        Ok(Self { config, ports, registry, metrics, keys, files, tenants, stores })
    }

    /// The operations without a running node: for commands on a folder that no process has open.
    ///
    /// # Errors
    /// When the tenants cannot be read, such as under a wrong master key.
    pub async fn administration(&self) -> Result<Operations, NodeError> {
        let (tenants, _) = Tenants::load(&self.ports, &self.config.node.region).await?;
        tenants.limit_retention(self.config.log.oldest_record())?;
        Ok(self.administration_of(tenants).offline())
    }

    /// The operations on tenants that somebody else keeps up to date.
    #[must_use]
    pub fn administration_of(&self, tenants: Arc<Tenants>) -> Operations {
        self.know(&tenants);
        let options = Options::of(&self.config);
        let letters = DeadLetters::new(&self.ports, tenants.clone(), &options, self.metrics.clone());
        let proving = Proving {
            oldest_record: options.oldest_record,
            marker_ttl: options.marker_ttl,
            files: (self.config.state.kind == StateKind::Embedded).then(|| self.config.data_dir.clone()),
        };
        let (ports, keys, files) = (self.ports.clone(), self.keys.clone(), self.files.clone());
        let egress = Egress::new(self.config.security.private_addresses.clone());
        Operations::new(tenants, ports, (keys, egress), files, letters, proving)
    }

    /// Starts the actors. Webhooks are not taken in before [`heddle_actors::intake::gate::IntakeGate::set_open`].
    ///
    /// # Errors
    /// When the tenants cannot be read, such as under a wrong master key.
    pub async fn start(&self) -> Result<System, NodeError> {
        let system = System::start(self.ports.clone(), Options::of(&self.config)).await?;
        self.know(&system.tenants);
        Ok(system)
    }

    fn know(&self, tenants: &Arc<Tenants>) {
        // They are the same for as long as the node is open.
        let _ = self.tenants.set(tenants.clone());
    }

    /// Returns the number of unsettled records of a topic.
    pub async fn unsettled(&self, topic: Topic) -> u64 {
        let log = &self.ports.log;
        let mut unsettled = 0;
        for partition in 0..log.partitions(topic) {
            let partition = TopicPartition { topic, partition };
            // A closed store has no offsets, and no caller needs them any more.
            if let (Ok(end), Ok(position)) = (log.end(partition).await, log.position(partition).await) {
                unsettled += end.saturating_sub(position.next).saturating_sub(position.ahead.len() as u64);
            }
        }
        unsettled
    }

    /// Returns the reason for which the stores accept nothing now, if there is one.
    #[must_use]
    pub fn store_fault(&self) -> Option<String> {
        self.stores.fault()
    }

    /// Closes the stores: everything is on disk and nothing to be replayed.
    pub async fn close(&self) {
        // What a command without a running node has seen; the log line is written in any case.
        if let Err(error) = self.ports.security.publish(&*self.ports.log).await {
            tracing::debug!(%error, "security events were not published");
        }
        self.stores.close().await;
    }
}

/// The keys of a store, under a master key that is known to be the store's.
async fn open_keys(
    masters: MasterKeys,
    state: Arc<dyn State>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<EnvelopeKeys>, NodeError> {
    let masters = masters.for_store(EnvelopeKeys::has_begun(&*state).await?)?;
    let keys = Arc::new(EnvelopeKeys::with_masters(state, clock, masters, keys::Options::default()));
    keys.verify_master().await?;
    Ok(keys)
}

/// Ends the actors within the configured time and closes the stores. Returns whether all was finished.
pub async fn shut_down(node: &Node, system: System) -> bool {
    node.metrics.ready(false);
    let finished = system.drain().await;
    node.close().await;
    if !finished {
        let drain: Duration = node.config.engine.drain;
        tracing::warn!(?drain, "work was left for the next start; nothing is lost");
    }
    finished
}
