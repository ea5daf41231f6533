//! The ports of a node over the store in memory, whose random numbers are the same each time.

use std::sync::{Arc, Mutex};

use heddle_actors::metrics::Metrics;
use heddle_actors::ports::Ports;
use heddle_actors::privacy::security::Security;
use heddle_actors::random::Random;
use heddle_connectors::keys::EnvelopeKeys;
use heddle_connectors::memory::{MemoryCalendar, MemoryKnowledge, MemoryStore, TokioClock};
use heddle_schemas::config;
use heddle_schemas::id::ChannelKind;
use heddle_schemas::ports::channel::Channel;
use heddle_schemas::ports::responder::Responder;
use prometheus::Registry;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(crate) fn ports(
    store: Arc<MemoryStore>,
    keys: EnvelopeKeys,
    clock: Arc<TokioClock>,
    channel: Arc<dyn Channel>,
    responder: Arc<dyn Responder>,
) -> Ports {
    let random = Mutex::new(StdRng::seed_from_u64(1));
    let random: Random = Arc::new(move || random.lock().unwrap().random());
    let metrics = Arc::new(Metrics::register(&Registry::new()));
    let security = Security::new(config::Security::default(), clock.clone(), metrics.clone(), random.clone());
    Ports {
        log: store.clone(),
        state: store,
        keys: Arc::new(keys),
        calendar: Arc::new(MemoryCalendar::default()),
        knowledge: Arc::new(MemoryKnowledge::default()),
        responders: Arc::new(move |_| responder.clone()),
        channels: Arc::new([(ChannelKind::Whatsapp, channel)].into()),
        clock,
        random,
        metrics,
        security,
        versions: heddle_schemas::record::Versions::default(),
    }
}
