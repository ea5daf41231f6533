//! Deletion of the conversations of disconnected channel accounts, by the leader.
//!
//! A tenant's configuration names the accounts that were disconnected, and whether their conversations go
//! (`retention.disconnected`). Each conversation removes its own rows, on a record of its own topic
//! ([`InboundEvent::Leave`]), which it ignores when the account is connected again by then. Journals of sends hold no
//! content and end by themselves; what waits to be sent is withheld by the account.
//!
//! Nothing is stored about the progress: a walk over the tenant's conversations that finds none of an account is the last
//! one of this leader, and the next leader walks once more. So a crash at any step is harmless, and so is a repetition.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use heddle_schemas::id::{ConversationId, TenantId};
use heddle_schemas::ports::state::{StoreError, Walk};
use heddle_schemas::record::V;
use heddle_schemas::record::inbound::{InboundEvent, InboundRecord};
use heddle_schemas::table::{Owner, Table};
use heddle_schemas::tenant::{Disconnected, Tenant};

use crate::partition::commit::read;
use crate::partition::publish;
use crate::ports::Ports;
use crate::tenant::configuration::Tenants;

/// Rows that are read at once.
const PAGE: usize = 256;
/// Pages of a walk between two checks of everything else.
const PAGES: usize = 16;
/// Disconnections that are remembered as done; above it, all are walked over once more.
const DONE: usize = 100_000;

/// A disconnection: a later one of the same account is another.
type Disconnection = (TenantId, Disconnected);

/// Disconnected accounts whose conversations are still to be deleted, continued by the leader.
#[derive(Debug, Default)]
pub(crate) struct Disconnections {
    /// Those of which a walk has found nothing; at most [`DONE`].
    done: HashSet<Disconnection>,
    /// The walk under way.
    walk: Option<Walking>,
    /// The tenant of the last walk: others come before it is walked over once more.
    last: Option<TenantId>,
}

#[derive(Debug)]
struct Walking {
    tenant: TenantId,
    /// The accounts that it deletes the conversations of.
    of: Vec<Disconnected>,
    after: Option<Bytes>,
    found: bool,
}

impl Disconnections {
    /// Goes on for a while. Returns true if there is more to do at once.
    pub(crate) async fn go_on(&mut self, ports: &Ports, tenants: &Tenants) -> Result<bool, StoreError> {
        let Some(mut walking) = self.walk.take().or_else(|| self.next(tenants)) else { return Ok(false) };
        self.last = Some(walking.tenant.clone());
        let Some(tenant) = tenants.get(&walking.tenant) else { return Ok(true) };
        for _ in 0..PAGES {
            let tables = Table::with(|table| table.owner == Owner::Conversation);
            let walk = Walk { after: walking.after.take(), ..Walk::of(&tenant.id, tables, PAGE) };
            let page = match read(&ports.metrics, || ports.state.walk(&walk)).await {
                // It was begun on another store.
                Err(StoreError::Corrupt { .. }) if walk.after.is_some() => break,
                page => page?,
            };
            let now = ports.clock.now();
            let live = page.rows.iter().filter(|row| row.expires.is_none_or(|expires| expires > now));
            let going: BTreeSet<_> = live
                .filter_map(|row| row.key.conversation())
                .filter(|conversation| walking.is_about(&tenant, conversation))
                .collect();
            walking.found |= !going.is_empty();
            let records = going.into_iter().map(|conversation| {
                let event = InboundEvent::Leave;
                publish::inbound(ports, &InboundRecord { v: V, conversation, at: now, event })
            });
            let records: Vec<_> = records.collect();
            if !records.is_empty() {
                ports.log.append(records).await?;
            }
            walking.after = page.next;
            if walking.after.is_none() {
                return Ok(self.walked(walking));
            }
        }
        self.walk = Some(walking);
        Ok(true)
    }

    /// Ends a walk. Returns true if another account may be next at once.
    fn walked(&mut self, walking: Walking) -> bool {
        if walking.found {
            // The conversations do their part until the next check.
            return false;
        }
        if self.done.len() + walking.of.len() > DONE {
            self.done.clear();
        }
        let tenant = walking.tenant;
        self.done.extend(walking.of.into_iter().map(|of| (tenant.clone(), of)));
        true
    }

    /// The next tenant, in the order of their ids and around, with accounts of which conversations may be left.
    fn next(&self, tenants: &Tenants) -> Option<Walking> {
        let all = tenants.list();
        let (later, earlier): (Vec<_>, Vec<_>) =
            all.iter().partition(|tenant| self.last.as_ref().is_none_or(|last| tenant.id > *last));
        later.into_iter().chain(earlier).find_map(|tenant| {
            let open = tenant.disconnected.iter().filter(|one| {
                tenant.deletes_conversations_of(one.kind, &one.account)
                    && !self.done.contains(&(tenant.id.clone(), (*one).clone()))
            });
            let of: Vec<_> = open.cloned().collect();
            let tenant = tenant.id.clone();
            (!of.is_empty()).then_some(Walking { tenant, of, after: None, found: false })
        })
    }
}

impl Walking {
    fn is_about(&self, tenant: &Tenant, conversation: &ConversationId) -> bool {
        let (kind, account) = (conversation.channel, &conversation.account);
        self.of.iter().any(|one| one.kind == kind && one.account == *account)
            && tenant.deletes_conversations_of(kind, account)
    }
}
