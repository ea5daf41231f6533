//! Builds the ports of a node over a store in memory, with random numbers that are the same in each run.

use std::sync::{Arc, Mutex};

use heddle_actors::metrics::Metrics;
use heddle_actors::ports::Ports;
use heddle_actors::privacy::security::Security;
use heddle_actors::random::Random;
use heddle_memory::{MemoryCalendar, MemoryKnowledge, MemoryStore, TokioClock};
use heddle_schemas::config;
use heddle_schemas::id::ChannelKind;
use heddle_schemas::ports::calendar::Calendar;
use heddle_schemas::ports::channel::Channel;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::keys::Keys;
use heddle_schemas::ports::knowledge::Knowledge;
use heddle_schemas::ports::log::Log;
use heddle_schemas::ports::responder::Responder;
use heddle_schemas::ports::state::State;
use heddle_schemas::record::Versions;
use prometheus::Registry;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Builder of ports. Those that are not replaced are in memory and empty.
pub struct PortsBuilder {
    log: Arc<dyn Log>,
    state: Arc<dyn State>,
    keys: Arc<dyn Keys>,
    clock: Arc<dyn Clock>,
    channel: Arc<dyn Channel>,
    responder: Arc<dyn Responder>,
    calendar: Arc<dyn Calendar>,
    knowledge: Arc<dyn Knowledge>,
    registry: Registry,
    seed: u64,
    versions: Versions,
}

impl PortsBuilder {
    /// Returns ports over this store, with WhatsApp answered by `channel` and turns by `responder`.
    pub fn new(
        store: Arc<MemoryStore>,
        keys: impl Keys + 'static,
        clock: Arc<TokioClock>,
        channel: Arc<dyn Channel>,
        responder: Arc<dyn Responder>,
    ) -> Self {
        Self {
            log: store.clone(),
            state: store,
            keys: Arc::new(keys),
            clock,
            channel,
            responder,
            calendar: Arc::new(MemoryCalendar::default()),
            knowledge: Arc::new(MemoryKnowledge::default()),
            registry: Registry::new(),
            seed: 1,
            versions: Versions::default(),
        }
    }

    /// Replaces the log.
    #[must_use]
    pub fn log(self, log: Arc<dyn Log>) -> Self {
        Self { log, ..self }
    }

    /// Replaces the state store.
    #[must_use]
    pub fn state(self, state: Arc<dyn State>) -> Self {
        Self { state, ..self }
    }

    /// Replaces the calendar.
    #[must_use]
    pub fn calendar(self, calendar: Arc<dyn Calendar>) -> Self {
        Self { calendar, ..self }
    }

    /// Replaces the documents.
    #[must_use]
    pub fn knowledge(self, knowledge: Arc<dyn Knowledge>) -> Self {
        Self { knowledge, ..self }
    }

    /// Registers the metrics here.
    #[must_use]
    pub fn registry(self, registry: Registry) -> Self {
        Self { registry, ..self }
    }

    /// Seeds the random numbers; 1 by default.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets the versions of records that are read and written; those of this build by default.
    #[must_use]
    pub fn versions(self, versions: Versions) -> Self {
        Self { versions, ..self }
    }

    /// The ports.
    #[must_use]
    pub fn build(self) -> Ports {
        let Self {
            log,
            state,
            keys,
            clock,
            channel,
            responder,
            calendar,
            knowledge,
            registry,
            seed,
            versions,
        } = self;
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        let random: Random = Arc::new(move || random.lock().unwrap().random());
        let metrics = Arc::new(Metrics::register(&registry));
        let security =
            Security::new(config::Security::default(), clock.clone(), metrics.clone(), random.clone());
        Ports {
            log,
            state,
            keys,
            calendar,
            knowledge,
            responders: Arc::new(move |_| responder.clone()),
            channels: Arc::new([(ChannelKind::Whatsapp, channel)].into()),
            clock,
            random,
            metrics,
            security,
            versions,
        }
    }
}
