//! Delivery reports: delivery states of the conversation's messages.

use heddle_schemas::ports::state::{Batch, Write};
use heddle_schemas::record::encode;
use heddle_schemas::record::inbound::{DeliveryFailure, DeliveryReport, DeliveryStatus, Pricing};
use heddle_schemas::retention::Kind;
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::entity::Conversation;
use super::fault::{Fault, unparsed};
use crate::partition::Receipt;
use crate::partition::commit::read;

/// Delivery of a message of ours, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Delivery state.
    pub status: DeliveryStatus,
    /// Since when.
    pub at: Timestamp,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<DeliveryFailure>,
    /// The channel's charge for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pricing: Option<Pricing>,
    /// Time of writing, from which its time to live counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Timestamp>,
}

impl Conversation {
    /// Stores the delivery state of a message of ours: it only rises.
    pub(super) async fn report(
        &self,
        tenant: &Tenant,
        report: &DeliveryReport,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        let ports = &self.context.ports;
        let key = Key::delivery(&self.id, &report.outbound);
        let stored = read(&ports.metrics, || ports.state.get(&key)).await?;
        let stored = match stored.map(|stored| serde_json::from_slice::<Delivery>(&stored)).transpose() {
            Ok(stored) => stored,
            Err(error) => return Box::pin(self.leave_as_it_is(error, receipt)).await,
        };
        let before = stored.as_ref().map_or(DeliveryStatus::Queued, |delivery| delivery.status);
        let failed = stored.as_ref().and_then(|delivery| delivery.failure.as_ref());
        let status = report.merge_into(before, failed);
        let priced = stored.as_ref().and_then(|delivery| delivery.pricing.clone());
        // The first charge that is reported stays: each later status repeats it.
        let is_charged = priced.is_none() && report.pricing.is_some();
        let mut write = None;
        if stored.is_none() && self.is_of_forgotten(report).await? {
            ports.metrics.resurrection();
        } else if stored.is_none() || status != before || is_charged {
            let now = ports.clock.now();
            let (at, failure) = match &stored {
                Some(stored) if status == before => (stored.at, stored.failure.clone()),
                _ => (report.at, report.failure.clone()),
            };
            let pricing = priced.or_else(|| report.pricing.clone());
            let delivery = Delivery { status, at, failure, pricing, written: Some(now) };
            let expires = now.after(tenant.retention.of(Kind::Receipts));
            write = Some(Write::put_until(key, encode(&delivery), expires));
        }
        self.commit(Batch {
            writes: write.into_iter().collect(),
            consumed: vec![receipt.consumed()],
            ..Batch::default()
        })
        .await?;
        Ok(())
    }

    /// Settles a report about a row that a later build may have written: it knows more of the message than this one.
    async fn leave_as_it_is(&self, error: serde_json::Error, receipt: &Receipt) -> Result<(), Fault> {
        let detail = unparsed(&error);
        tracing::warn!(tenant = %self.id.tenant, detail, "a delivery that cannot be read stays as it is");
        self.acknowledge(receipt).await
    }
}
