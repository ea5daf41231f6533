//! Checks of a message right before its call: whether it may go now.
//!
//! First the lease of the partition, which may have to be waited for; only then consent and window, so that a stop that
//! came meanwhile is seen. A message that is no reply needs that its contact has not opted out, by the record as it is
//! in the store then; anything but a template needs that the reply window, where the channel has one, is not over; all need that the account is connected.

use futures::FutureExt;
use heddle_schemas::consent::{Category, Standing};
use heddle_schemas::ports::channel::ChannelAccount;
use heddle_schemas::ports::state::{Fence, StoreError};
use heddle_schemas::record::inbound::Withheld;
use heddle_schemas::record::outbound::{Purpose, SendCommand};

use super::{Send, Taken};
use crate::account::machine::Sendable;
use crate::account::sources::Item;
use crate::intake::consent;
use crate::partition::commit::read;

impl Send {
    /// Returns why the message may not go now, if it may not.
    pub(super) async fn check(&self, item: &Item, taken: Taken) -> Result<Option<Withheld>, StoreError> {
        let ports = &self.context.ports;
        // An account that was suspended since may have been lost meanwhile, and the call cannot be fenced.
        let Fence { partition, epoch } = self.fence;
        read(&ports.metrics, || ports.log.holds(partition, epoch)).await?;
        // A reply answers the customer's question, and is sent also after an opt-out.
        if let Some(category) = taken.category {
            let standing = consent::standing(ports, &self.account.tenant, item.contact(), category).await?;
            match standing {
                Standing::Stopped => return Ok(Some(Withheld::OptedOut)),
                Standing::Restricted => return Ok(Some(Withheld::Restricted)),
                Standing::Unknown if self.requires_consent(category) => return Ok(Some(Withheld::NoConsent)),
                Standing::Unknown | Standing::Given => {}
            }
        }
        if self.is_window_over(taken) || self.lacks_window(item) {
            return Ok(Some(Withheld::WindowOver));
        }
        Ok(self.configured().is_none().then_some(Withheld::Disconnected))
    }

    /// Returns true where the tenant writes for a purpose only to people who have consented to it.
    fn requires_consent(&self, category: Category) -> bool {
        let tenant = self.context.tenants.get(&self.account.tenant);
        tenant.is_some_and(|tenant| tenant.consent.require.contains(&category))
    }

    /// Returns true when the time in which the message was allowed is over.
    pub(super) fn is_window_over(&self, taken: Taken) -> bool {
        taken.window_until.is_some_and(|until| self.context.ports.clock.now() >= until)
    }

    /// Returns true where a message names no end of its window, and only a template may be sent without: a campaign or
    /// the tenant writes to a person of whom nobody says that they wrote within the window.
    fn lacks_window(&self, item: &Item) -> bool {
        let SendCommand { purpose, kind, window_until, .. } = &item.command;
        let has_window = self.channel.profile().reply_window.is_some();
        has_window && *purpose != Purpose::Reply && kind.is_free_form() && window_until.is_none()
    }

    /// Returns true where the lease is known to hold without waiting for anything.
    pub(super) fn holds_now(&self) -> bool {
        let Fence { partition, epoch } = self.fence;
        matches!(self.context.ports.log.holds(partition, epoch).now_or_never(), Some(Ok(())))
    }

    /// Returns the account as it is configured now; `None` once it is disconnected.
    pub(super) fn configured(&self) -> Option<ChannelAccount> {
        let tenant = self.context.tenants.get(&self.account.tenant)?;
        tenant.channel(self.account.channel, &self.account.account).cloned()
    }
}
