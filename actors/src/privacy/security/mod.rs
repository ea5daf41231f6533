//! Security signals: possible attacks and breaches of personal data. Counted, published as incidents, and never a flood
//! of events.
//!
//! Contract: [`Security::saw`] takes a lock for a moment, waits for nothing and may be called from anywhere. From a
//! threshold on, the signals of one kind and one tenant within a window are an incident: a metric and a log line at
//! once, and an event in topic events by [`Security::run`]. While it goes on, a further event with the numbers until
//! then follows once a window; after a window without a signal it ends. A crash loses the count since the last event;
//! the metric has been scraped, and the log line is written.
//!
//! # Layout
//! - here: the interface for callers; `watch`: the decision when it is an incident, without IO; [`keys`]: keys that
//!   report ciphertexts that do not open.

pub mod keys;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heddle_schemas::config;
use heddle_schemas::id::{ContactId, MessageKey, TenantId};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::{Log, StoreError};
use heddle_schemas::record::V;
use heddle_schemas::record::event::{DataCategory, Event, EventRecord, IncidentKind, Measure};
use tokio::sync::Notify;

use self::watch::{Now, Watch};
use crate::metrics::Metrics;
use crate::partition::publish;
use crate::random::Random;

/// Interval of the check for incidents that go on and are to be published again.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The pause while the log does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Single observation that may be part of an attack or a breach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecuritySignal<'a> {
    /// Ciphertext that did not open.
    FailedDecryption {
        /// The contact whose key it was to be, where it was one's.
        contact: Option<ContactId>,
        /// Data that such ciphertexts hold.
        data: &'a [DataCategory],
    },
    /// Webhook of one of its accounts with a wrong signature.
    WebhookSignature,
    /// Access to this tenant's data by a caller that may speak for another tenant.
    CrossTenant,
    /// Personal data was exported.
    Export {
        /// Contact concerned, where it was one.
        contact: Option<ContactId>,
        /// Number of records.
        records: u64,
    },
    /// Its audit log is not as written, at this number of places.
    AuditLog {
        /// Faults.
        faults: u64,
    },
    /// Data of a tenant of another region in these stores.
    ForeignRegion,
}

impl SecuritySignal<'_> {
    /// Returns its kind.
    #[must_use]
    pub fn kind(&self) -> IncidentKind {
        match self {
            Self::FailedDecryption { .. } => IncidentKind::FailedDecryption,
            Self::WebhookSignature => IncidentKind::WebhookSignature,
            Self::CrossTenant => IncidentKind::CrossTenant,
            Self::Export { .. } => IncidentKind::UnusualExport,
            Self::AuditLog { .. } => IncidentKind::AuditLog,
            Self::ForeignRegion => IncidentKind::ForeignRegion,
        }
    }

    /// Returns the data that may be concerned.
    fn data(&self) -> &[DataCategory] {
        match self {
            Self::FailedDecryption { data, .. } => data,
            Self::WebhookSignature | Self::CrossTenant | Self::ForeignRegion => &[],
            Self::Export { .. } => {
                &[DataCategory::ContactDetails, DataCategory::Messages, DataCategory::Consents]
            }
            Self::AuditLog { .. } => &[DataCategory::AuditLog],
        }
    }

    fn contact(&self) -> Option<ContactId> {
        match self {
            Self::FailedDecryption { contact, .. } | Self::Export { contact, .. } => *contact,
            Self::WebhookSignature | Self::CrossTenant | Self::AuditLog { .. } | Self::ForeignRegion => None,
        }
    }

    fn records(&self) -> u64 {
        match self {
            Self::FailedDecryption { .. } => 1,
            Self::Export { records, .. } => *records,
            Self::AuditLog { faults } => *faults,
            Self::WebhookSignature | Self::CrossTenant | Self::ForeignRegion => 0,
        }
    }
}

/// Returns the engine's measure against incidents of a kind.
fn measure(kind: IncidentKind) -> Measure {
    match kind {
        IncidentKind::FailedDecryption => Measure::NotUsed,
        IncidentKind::WebhookSignature | IncidentKind::CrossTenant | IncidentKind::ForeignRegion => {
            Measure::Refused
        }
        IncidentKind::UnusualExport => Measure::Permitted,
        IncidentKind::AuditLog => Measure::Told,
    }
}

/// Publishes security signals as incidents.
pub struct Security {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    random: Random,
    watch: Mutex<Watch>,
    news: Notify,
}

impl Security {
    /// Returns the signals, without any so far.
    #[must_use]
    pub fn new(
        options: config::Security,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        random: Random,
    ) -> Arc<Self> {
        let watch = Mutex::new(Watch::new(options));
        Arc::new(Self { clock, metrics, random, watch, news: Notify::new() })
    }

    /// Something was seen that concerns a tenant, or (`None`) none.
    pub fn saw(&self, tenant: Option<&TenantId>, signal: SecuritySignal<'_>) {
        let kind = signal.kind();
        let tenant = tenant.cloned().unwrap_or_else(TenantId::engine);
        let id = || MessageKey::from_bytes((self.random)());
        let began = self.lock().saw(self.now(), &tenant, signal, id);
        self.metrics.security_signal(kind, began.is_some());
        if let Some(incident) = began {
            tracing::error!(%tenant, kind = kind.as_str(), %incident, "a security incident has begun");
            self.news.notify_one();
        }
    }

    /// Personal data of a tenant was exported: of one contact, or (`None`) of all.
    pub fn exported(&self, tenant: &TenantId, contact: Option<ContactId>, records: u64) {
        self.saw(Some(tenant), SecuritySignal::Export { contact, records });
    }

    /// Publishes due incidents, for as long as it is polled.
    pub async fn run(self: Arc<Self>, log: Arc<dyn Log>) {
        loop {
            // An incident that is not published now is published by a later check.
            match self.publish(&*log).await {
                Ok(()) => drop(tokio::time::timeout(CHECK_INTERVAL, self.news.notified()).await),
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "security events not published, retrying");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Publishes the incidents that are due.
    ///
    /// # Errors
    /// The log's errors; unpublished incidents stay due.
    pub async fn publish(&self, log: &dyn Log) -> Result<(), StoreError> {
        let due = self.lock().due(self.now());
        for (tenant, incident) in due {
            let (kind, published) = (incident.kind, (incident.id, incident.count));
            let event = Event::Security(incident);
            let record = EventRecord { v: V, tenant, at: self.clock.now(), event };
            log.append(vec![publish::event_into(log, &record)]).await?;
            self.lock().published(self.now(), &record.tenant, kind, published);
        }
        Ok(())
    }

    fn now(&self) -> Now {
        Now { at: self.clock.now(), elapsed: self.clock.elapsed() }
    }

    fn lock(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Security").finish_non_exhaustive()
    }
}
