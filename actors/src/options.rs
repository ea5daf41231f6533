//! The limits and policies of a node's actors.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use heddle_schemas::config;

/// Bounds and policies of the actors.
#[derive(Debug, Clone)]
pub struct Options {
    /// Records of a partition in work at once.
    pub permits_per_partition: NonZeroUsize,
    /// Maximum number of a partition's entities in memory.
    pub residents_per_partition: NonZeroUsize,
    /// Agenda entries of a partition in memory.
    pub agenda_window: NonZeroUsize,
    /// Maximum number of those that one tenant has in work at once; lower where many tenants have some.
    pub woken_per_tenant: NonZeroUsize,
    /// Time without work after which an entity leaves memory.
    pub passivate_after: Duration,
    /// The longest call to a channel.
    pub send_timeout: Duration,
    /// The longest wait for a responder.
    pub answer_timeout: Duration,
    /// Time for which a turn may wait for its tenant's share before the fallback is said.
    pub answer_deadline: Duration,
    /// Time for which an interrupted send waits for a status.
    pub unknown_wait: Duration,
    /// Number of times that a reply of unknown outcome is sent again before it is abandoned.
    pub unknown_repeats: u32,
    /// Time after which a suspended account tries one message.
    pub stopped_probe: Duration,
    /// Turns of one tenant in work at once.
    pub turns_per_tenant: NonZeroUsize,
    /// Messages of an account in memory that can move; more wait in the state store.
    pub account_queue: NonZeroUsize,
    /// Maximum number of an account's calls under way at once.
    pub account_calls: NonZeroUsize,
    /// Time for which a shutdown waits for records in work.
    pub drain: Duration,
    /// Maximum number of rows a second that a sweep of changed retention reads.
    pub sweep_rows_per_second: NonZeroU32,
    /// Number of rows that a sweep reads before it stores its progress.
    pub sweep_page: NonZeroUsize,
    /// Up to which age a message is answered.
    pub answer_within: Duration,
    /// Maximum age of a settled record in the log; zero where no tenant's retention is checked against it.
    pub oldest_record: Duration,
    /// Retention of markers of seen messages and of journals of sends: longer than any redelivery.
    pub marker_ttl: Duration,
    /// The region that log and state are in.
    pub region: String,
}

impl Options {
    /// The options that a configuration asks for.
    #[must_use]
    pub fn of(config: &config::Config) -> Self {
        let engine = &config.engine;
        let partitions = config.log.partitions.get() as usize;
        let share = NonZeroUsize::new(engine.max_conversations.get().div_ceil(partitions));
        Self {
            permits_per_partition: engine.permits_per_partition,
            residents_per_partition: share.unwrap_or(NonZeroUsize::MIN),
            passivate_after: engine.passivate_after,
            send_timeout: engine.send_timeout,
            unknown_wait: engine.unknown_wait,
            unknown_repeats: engine.unknown_repeats,
            turns_per_tenant: engine.turns_per_tenant,
            woken_per_tenant: engine.woken_per_tenant,
            drain: engine.drain,
            answer_deadline: engine.answer_deadline,
            answer_within: engine.answer_within,
            sweep_rows_per_second: engine.sweep_rows_per_second,
            oldest_record: config.log.oldest_record(),
            region: config.node.region.clone(),
            ..Self::default()
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        let engine = config::Engine::default();
        Self {
            permits_per_partition: engine.permits_per_partition,
            residents_per_partition: engine.max_conversations,
            agenda_window: const { NonZeroUsize::new(16_384).unwrap() },
            woken_per_tenant: engine.woken_per_tenant,
            passivate_after: engine.passivate_after,
            send_timeout: engine.send_timeout,
            answer_timeout: Duration::from_secs(60),
            answer_deadline: engine.answer_deadline,
            unknown_wait: engine.unknown_wait,
            unknown_repeats: engine.unknown_repeats,
            stopped_probe: Duration::from_secs(300),
            turns_per_tenant: engine.turns_per_tenant,
            account_queue: const { NonZeroUsize::new(256).unwrap() },
            // A number of 1,000/s whose calls take a quarter of a second has 250 under way.
            account_calls: const { NonZeroUsize::new(256).unwrap() },
            drain: engine.drain,
            answer_within: engine.answer_within,
            sweep_rows_per_second: engine.sweep_rows_per_second,
            sweep_page: const { NonZeroUsize::new(500).unwrap() },
            oldest_record: Duration::ZERO,
            // Ten days: WhatsApp retries webhooks for seven, and a day each for the log and the dlq.
            marker_ttl: Duration::from_secs(10 * 86_400),
            region: config::Node::default().region,
        }
    }
}
