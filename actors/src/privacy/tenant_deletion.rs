//! Tenant deletions: requested here, continued by the leader until no row is left.
//!
//! Contract: when [`ask`] returns, no node accepts anything for the tenant any more once it has read topic tenants, and
//! the tenant's key is destroyed, so that nothing sealed under it can be read. Rows follow. A row keeps the deletion
//! open until it is complete and published, and [`OpenDeletions`] resumes it from any state, after any crash.
//!
//! Rows are removed as the descriptors of their tables say. Those of conversations and accounts are fenced: their
//! owners remove them, on a record of their own topic ([`InboundEvent::Leave`], [`OutboundCommand::Leave`]).
//! Conditionally written rows are removed conditionally, unfenced ones without a fence. Nothing rests on a list of the
//! tenant's data: each walk goes over all its rows, and only one that finds none is the last ([`DeletionRecord::walked`]).
//!
//! A record of a deleted tenant that comes late is settled and counted, and neither applied nor kept ([`find`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use heddle_schemas::audit::{Act, Outcome, What, Who};
use heddle_schemas::id::{AccountKey, ContactId, ConversationId, OutboundId, TenantId};
use heddle_schemas::money::Money;
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::knowledge::KnowledgeError;
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::state::{Batch, Row, Scan, StoreError, Swap, Walk, Write};
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::record::inbound::{InboundEvent, InboundRecord};
use heddle_schemas::record::outbound::{Leave, OutboundCommand, OutboundRecord};
use heddle_schemas::record::{V, encode};
use heddle_schemas::table::{
    Descriptor, Key, Owner, Partition, REMOVAL_OPEN, REMOVAL_TOLD, Table, TenantDeletion, Written,
};
use heddle_schemas::tenant_deletion::{DeletionRecord, Used};
use heddle_schemas::time::Timestamp;
use heddle_schemas::zone::Month;

use crate::partition::commit::read;
use crate::partition::pages::Pages;
use crate::partition::publish;
use crate::ports::Ports;
use crate::privacy::audit_log::{AuditError, AuditLog};
use crate::privacy::deleted_totals;
use crate::tenant::configuration::{Tenants, TenantsError};
use crate::tenant::quota;

/// Rows of a page.
const PAGE: usize = 256;
/// Pages between two checks of everything else.
const PAGES: usize = 16;
/// Number of conversations and accounts that receive the deletion at once: others' records are behind them in the same
/// partitions.
const LEAVES: usize = 256;
/// Rows that are removed on a condition at once.
const AT_ONCE: usize = 16;
/// Maximum number of remembered recipients of the deletion in a walk; above it, some receive it once more.
const TOLD: usize = 100_000;
/// The pause between two walks, in which conversations and accounts do their part.
const PAUSE: Duration = Duration::from_secs(30);

/// Why a deletion does not go on now.
#[derive(Debug, thiserror::Error)]
pub enum DeletionError {
    /// The state store or the log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tenant's key.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The tenant's configuration.
    #[error(transparent)]
    Tenants(#[from] TenantsError),
    /// Its documents.
    #[error(transparent)]
    Knowledge(#[from] KnowledgeError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// Requests the deletion of a tenant; `entry` is its entry in the audit log. A second request changes nothing.
///
/// # Errors
/// [`DeletionError`]; then it may be under way or not, and is to be asked for again.
pub async fn ask(
    ports: &Ports,
    tenants: &Tenants,
    tenant: &TenantId,
    entry: u64,
) -> Result<DeletionRecord, DeletionError> {
    if let Some(deletion) = find(ports, tenant).await? {
        return Ok(deletion);
    }
    let new = DeletionRecord::new(tenant.clone(), ports.clock.now(), entry);
    let open = Key::open_removal(tenant);
    let asked = match ports.state.compare_and_set(&open, None, Some(encode(&new)), None).await? {
        Swap::Done | Swap::Found(None) => new,
        Swap::Found(Some(found)) => readable(&open, &found)?,
    };
    Ok(stop(ports, tenants, begun(ports, asked).await?).await?.deletion)
}

/// The deletion of a tenant, where one was asked for: the tenant is not to be anything any more.
///
/// # Errors
/// [`StoreError`].
pub async fn find(ports: &Ports, tenant: &TenantId) -> Result<Option<DeletionRecord>, StoreError> {
    Ok(load(ports, tenant).await?.map(|stored| stored.deletion))
}

/// A deletion, and the row that it was read from: only that row is changed.
#[derive(Debug)]
struct Stored {
    deletion: DeletionRecord,
    bytes: Bytes,
}

impl Stored {
    fn of(key: &Key, bytes: Bytes) -> Result<Self, StoreError> {
        Ok(Self { deletion: readable(key, &bytes)?, bytes })
    }
}

async fn load(ports: &Ports, tenant: &TenantId) -> Result<Option<Stored>, StoreError> {
    let key = Key::removal(tenant);
    let stored = read(&ports.metrics, || ports.state.get(&key)).await?;
    stored.map(|stored| Stored::of(&key, stored)).transpose()
}

/// Every deletion, by tenant.
///
/// # Errors
/// [`StoreError`].
pub async fn list(ports: &Ports) -> Result<Vec<DeletionRecord>, StoreError> {
    let rows = all(ports, REMOVAL_TOLD).await?;
    rows.iter().map(|(key, stored)| readable(key, stored)).collect()
}

async fn all(ports: &Ports, kind: u8) -> Result<Vec<(Key, Bytes)>, StoreError> {
    let scan = Scan {
        from: vec![kind].into(),
        to: Some(vec![kind + 1].into()),
        ..Scan::first(Partition::removals(), PAGE)
    };
    let mut pages = Pages::new(ports, scan);
    let mut rows = Vec::new();
    while let Some(page) = pages.next().await? {
        rows.extend(page);
    }
    Ok(rows)
}

/// The row of a deletion that is durable by the row that says it is open.
async fn begun(ports: &Ports, asked: DeletionRecord) -> Result<Stored, StoreError> {
    let key = Key::removal(&asked.tenant);
    let bytes = encode(&asked);
    match ports.state.compare_and_set(&key, None, Some(bytes.clone()), None).await? {
        Swap::Done | Swap::Found(None) => Ok(Stored { deletion: asked, bytes }),
        Swap::Found(Some(found)) => Stored::of(&key, found),
    }
}

/// Stops the tenant everywhere, and destroys its key.
async fn stop(ports: &Ports, tenants: &Tenants, stored: Stored) -> Result<Stored, DeletionError> {
    let Stored { deletion, bytes } = stored;
    if deletion.key_destroyed_at.is_some() {
        return Ok(Stored { deletion, bytes });
    }
    tenants.remove(&deletion.tenant).await?;
    ports.keys.erase_tenant(&deletion.tenant).await?;
    let destroyed = DeletionRecord { key_destroyed_at: Some(ports.clock.now()), ..deletion };
    // Where another writer was faster, the next check reads the current state.
    save(ports, &bytes, &destroyed).await?;
    Ok(Stored { bytes: encode(&destroyed), deletion: destroyed })
}

/// Returns true if it has not been changed since it was read.
async fn save(ports: &Ports, before: &Bytes, after: &DeletionRecord) -> Result<bool, StoreError> {
    let key = Key::removal(&after.tenant);
    let saved = ports.state.compare_and_set(&key, Some(before.clone()), Some(encode(after)), None).await?;
    Ok(saved == Swap::Done)
}

/// Tenant deletions that are not complete, continued by the leader.
#[derive(Debug, Default)]
pub(crate) struct OpenDeletions {
    /// When the next walk begins, by the clock's elapsed time.
    next: HashMap<TenantId, Duration>,
    /// Recipients of the deletion in the walk under way.
    told: HashSet<ConversationId>,
    /// True once the receipts of earlier builds have lost what their tenants used.
    are_unlinked: bool,
}

impl OpenDeletions {
    /// Checks once. Returns true if there is more to do at once.
    pub(crate) async fn look(&mut self, ports: &Ports, tenants: &Tenants) -> Result<bool, StoreError> {
        let now = ports.clock.now();
        if !self.are_unlinked {
            let kept = list(ports).await?;
            for complete in kept.iter().filter(|one| one.is_complete() && !one.usage.is_empty()) {
                deleted_totals::unlink(ports, &complete.tenant).await?;
            }
            self.are_unlinked = true;
        }
        let open = all(ports, REMOVAL_OPEN).await?;
        let mut oldest = Duration::ZERO;
        let mut more = false;
        for (key, stored) in &open {
            let asked = readable(key, stored)?;
            oldest = oldest.max(now.since(asked.requested_at));
            let tenant = asked.tenant.clone();
            // One that fails holds up no other.
            match self.go_on(ports, tenants, asked).await {
                Ok(again) => more |= again,
                Err(error) => tracing::warn!(%error, %tenant, "the deletion of a tenant cannot go on now"),
            }
        }
        ports.metrics.removals(open.len(), oldest);
        Ok(more)
    }

    async fn go_on(
        &mut self,
        ports: &Ports,
        tenants: &Tenants,
        asked: DeletionRecord,
    ) -> Result<bool, DeletionError> {
        let stored = match load(ports, &asked.tenant).await? {
            Some(stored) => stored,
            None => begun(ports, asked).await?,
        };
        let deletion = &stored.deletion;
        if deletion.is_complete() {
            close(ports, tenants, deletion).await?;
            self.next.remove(&deletion.tenant);
            return Ok(false);
        }
        if deletion.key_destroyed_at.is_none() {
            stop(ports, tenants, stored).await?;
            return Ok(true);
        }
        if self.next.get(&deletion.tenant).is_some_and(|at| *at > ports.clock.elapsed()) {
            return Ok(false);
        }
        self.walk(ports, tenants, stored).await
    }

    /// Walks on for a while. The position reached is durable before a row is removed, so after a crash the walk goes on
    /// behind rows that it did not remove: the next one finds them.
    async fn walk(
        &mut self,
        ports: &Ports,
        tenants: &Tenants,
        Stored { mut deletion, bytes: before }: Stored,
    ) -> Result<bool, DeletionError> {
        let tenant = deletion.tenant.clone();
        let now = ports.clock.now();
        if deletion.walk.is_none() {
            self.told.retain(|conversation| conversation.tenant != tenant);
            // A node that applied it, not knowing, has written behind the record that removed it.
            tenants.remove(&tenant).await?;
            ports.knowledge.erase(&tenant).await?;
        }
        let counts = deletion.rows.is_none();
        let settled = deletion.has_settled(now);
        let mut found = Found::default();
        let mut ended = false;
        for _ in 0..PAGES {
            let stand = deletion.walking(now);
            let after = stand.after.as_ref().and_then(|after| hex::decode(after).ok()).map(Bytes::from);
            let tables = Table::with(|table| table.tenant_deletion.removes());
            let walk = Walk { after, ..Walk::of(&tenant, tables, PAGE) };
            let page = match ports.state.walk(&walk).await {
                // It was begun on another store, or by another build.
                Err(StoreError::Corrupt { .. }) if walk.after.is_some() => {
                    deletion.walk = None;
                    break;
                }
                page => page?,
            };
            let rows = page.rows.into_iter().filter(|row| lives(row, now) && !row.key.outlives_tenant());
            for row in rows {
                *stand.found.entry(row.key.table().as_str().to_owned()).or_default() += 1;
                if !counts {
                    found.take(row, settled);
                }
            }
            stand.after = page.next.map(hex::encode);
            if stand.after.is_none() {
                ended = true;
                break;
            }
            if found.leaving() >= LEAVES {
                break;
            }
        }
        for month in &found.months {
            let used = used(quota::used(ports, &tenant, *month).await?);
            deletion.usage.entry(*month).or_insert(used);
        }
        if ended {
            if !counts {
                self.open_erasures(ports, &mut deletion, &mut found).await?;
            }
            deletion.walked(now);
            self.next.insert(tenant, ports.clock.elapsed() + PAUSE);
        }
        if !save(ports, &before, &deletion).await? {
            // Another node is the leader by now.
            return Ok(false);
        }
        self.remove(ports, found).await?;
        if deletion.is_complete() {
            close(ports, tenants, &deletion).await?;
        }
        Ok(!ended)
    }

    /// Removes the open rows of erasures of its contacts, which are no tenant's rows.
    async fn open_erasures(
        &self,
        ports: &Ports,
        deletion: &mut DeletionRecord,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let prefix = |end: u8| Bytes::from([deletion.tenant.as_str().as_bytes(), &[end]].concat());
        let scan = Scan {
            from: prefix(b'/'),
            to: Some(prefix(b'/' + 1)),
            ..Scan::first(Partition::open_erasures(), PAGE)
        };
        let rows = ports.state.scan(&scan).await?;
        if let (Some(stand), false) = (&mut deletion.walk, rows.is_empty()) {
            *stand.found.entry(Table::Erasure.as_str().to_owned()).or_default() += rows.len() as u64;
        }
        found.conditional.extend(rows);
        Ok(())
    }

    async fn remove(&mut self, ports: &Ports, found: Found) -> Result<(), DeletionError> {
        if self.told.len() > TOLD {
            self.told.clear();
        }
        let fresh: Vec<_> =
            found.conversations.into_iter().filter(|of| self.told.insert(of.clone())).collect();
        let now = ports.clock.now();
        let mut records: Vec<_> = fresh.into_iter().map(|of| leave(ports, of, now)).collect();
        records.extend(found.accounts.into_iter().map(|(of, sends)| leave_account(ports, of, sends, now)));
        if !records.is_empty() {
            ports.log.append(records).await?;
        }
        futures::stream::iter(found.conditional)
            .map(|(key, value)| async move {
                // A row that was changed since is found by the next walk.
                ports.state.compare_and_set(&key, Some(value), None, None).await.map(drop)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        if !found.plain.is_empty() {
            let writes = found.plain.into_iter().map(Write::delete).collect();
            ports.state.commit(Batch { writes, ..Batch::default() }).await?;
        }
        Ok(())
    }
}

/// Rows that a walk has found, and how each goes.
#[derive(Debug, Default)]
struct Found {
    conversations: BTreeSet<ConversationId>,
    accounts: BTreeMap<AccountKey, Vec<OutboundId>>,
    conditional: Vec<(Key, Bytes)>,
    plain: Vec<Key>,
    /// Those whose ledger goes.
    months: BTreeSet<Month>,
}

impl Found {
    /// Sorts a row by the way of its deletion; `settled`: nothing of the tenant can be under way any more.
    fn take(&mut self, row: Row, settled: bool) {
        let Row { key, value, .. } = row;
        let Descriptor { owner, written, tenant_deletion, .. } = *key.table().descriptor();
        if tenant_deletion == TenantDeletion::RemovedOnceSettled && !settled {
            return;
        }
        match (owner, written) {
            (Owner::Conversation, _) => self.conversations.extend(key.conversation()),
            (Owner::Account, _) => {
                let Some(account) = key.account() else { return };
                let sends = self.accounts.entry(account).or_default();
                // An account finds its other rows by itself.
                sends.extend((key.table() == Table::Send).then(|| OutboundId::from_row(key.row())).flatten());
            }
            // Its topic partition removes them when the entity is to depart.
            (Owner::Entity, _) => {
                self.conversations.extend(key.conversation());
                if let Some(account) = key.account() {
                    self.accounts.entry(account).or_default();
                }
            }
            (_, Written::Conditional) => {
                if key.table() == Table::Quota {
                    let month: Option<Month> =
                        std::str::from_utf8(key.id()).ok().and_then(|month| month.parse().ok());
                    self.months.extend(month);
                }
                self.conditional.push((key, value));
            }
            // They were removed together before the walk began; rows found now have been written since.
            (_, Written::Versioned) if key.row().is_empty() => self.conditional.push((key, value)),
            (_, Written::Unfenced | Written::Versioned) => self.plain.push(key),
            // Nothing else has the fence; a test of the descriptors holds that there are none.
            (_, Written::Fenced) => {}
        }
    }

    fn leaving(&self) -> usize {
        self.conversations.len() + self.accounts.len()
    }
}

/// Returns true when a row has not ended. One that has is as good as removed: its key is destroyed, and the store drops
/// it.
fn lives(row: &Row, now: Timestamp) -> bool {
    row.expires.is_none_or(|expires| expires > now)
}

fn used(totals: quota::amounts::Totals) -> Used {
    let quota::amounts::Totals { turns, messages, input_tokens, output_tokens, money, .. } = totals;
    let tokens = input_tokens.saturating_add(output_tokens).saturating_add(totals.interrupted_tokens);
    let money = Money::from_micros(money.saturating_add(totals.interrupted_money));
    Used { turns, messages, tokens, money }
}

fn leave(ports: &Ports, conversation: ConversationId, at: Timestamp) -> NewRecord {
    publish::inbound(ports, &InboundRecord { v: V, conversation, at, event: InboundEvent::Leave })
}

fn leave_account(ports: &Ports, of: AccountKey, sends: Vec<OutboundId>, at: Timestamp) -> NewRecord {
    let AccountKey { tenant, channel, account } = of;
    let contact = ContactId::from_bytes([0; 16]);
    let conversation = ConversationId { tenant, channel, account, contact };
    let command = OutboundCommand::Leave(Leave { sends });
    publish::outbound(ports, &OutboundRecord { v: V, conversation, at, command })
}

/// Publishes that a deletion is complete, at least once, and then closes it.
async fn close(ports: &Ports, tenants: &Tenants, complete: &DeletionRecord) -> Result<(), DeletionError> {
    let DeletionRecord { tenant, requested_at, entry, .. } = complete;
    // Topic tenants is compacted, and the record that removed it may be gone: the last one is of now.
    tenants.remove(tenant).await?;
    deleted_totals::unlink(ports, tenant).await?;
    let rows = complete.counted().unwrap_or_default();
    let event = Event::TenantDeleted { requested_at: *requested_at, rows };
    let event = EventRecord { v: V, tenant: tenant.clone(), at: ports.clock.now(), event };
    ports.log.append(vec![publish::event(ports, &event)]).await?;
    let act = Act {
        who: Who::ENGINE,
        what: What::TenantErase { tenant: tenant.clone() },
        why: None,
        outcome: Outcome::Done,
        began: Some(*entry),
        records: Some(rows),
    };
    AuditLog::new(ports.clone()).append(None, act).await?;
    let key = Key::open_removal(tenant);
    let stored = ports.state.get(&key).await?;
    if let Some(stored) = stored {
        ports.state.compare_and_set(&key, Some(stored), None, None).await?;
    }
    Ok(())
}

fn readable(key: &Key, stored: &[u8]) -> Result<DeletionRecord, StoreError> {
    serde_json::from_slice(stored)
        .map_err(|error| StoreError::Corrupt { detail: format!("{key:?}: no deletion: {error}") })
}
