//! Audiences: a tenant's lists of people.
//!
//! An audience is a head and its members. The head is written by conditional update and holds nothing about people; a
//! member is a row by contact, sealed under the contact's data key, written by imports only. Members of an audience
//! exist only while its head does: an import that finds the head deleted removes what it wrote, and a deletion removes
//! the head last. So the erasure of a contact finds all its memberships by going through the heads.
//!
//! # Layout
//! - this file: heads, members, deletion, and the part of an erasure. [`import`]: writes people into an audience.

pub mod import;

use std::collections::BTreeMap;

use heddle_schemas::audience::{AudienceHead, AudienceId, MAX_AUDIENCES, MEMBER_COLUMN, Member};
use heddle_schemas::id::{ContactId, TenantId};
use heddle_schemas::ports::keys::{Cipher, KeysError, Missing, aad};
use heddle_schemas::ports::state::{Batch, Scan, StoreError, Swap, Write};
use heddle_schemas::sealed::Sealed;
use heddle_schemas::table::{Key, MEMBER_SHARDS, Partition};

use crate::partition::commit::{commit, read};
use crate::partition::pages::{Page, Pages};
use crate::ports::Ports;

/// Rows that are read at once.
const PAGE: usize = 512;

/// Failure to read or change an audience.
#[derive(Debug, thiserror::Error)]
pub enum AudienceError {
    /// The tenant has no such audience, or has it no more.
    #[error("there is no audience {0}; it may have been deleted meanwhile")]
    Unknown(AudienceId),
    /// The tenant has the most audiences that a tenant may have.
    #[error("the tenant has {MAX_AUDIENCES} audiences, the most there may be; delete one")]
    TooMany,
    /// No channel of this installation has phone numbers.
    #[error("no channel of this installation has phone numbers")]
    NoPhones,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Returns every audience of a tenant, by id.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    ports: &Ports,
    tenant: &TenantId,
) -> Result<BTreeMap<AudienceId, AudienceHead>, StoreError> {
    let mut found = BTreeMap::new();
    let mut pages = Pages::new(ports, Scan::first(Partition::audiences(tenant), PAGE));
    while let Some(page) = pages.next().await? {
        for (key, stored) in page {
            let id = key.of_audience().ok_or_else(|| corrupt(&key))?;
            found.insert(id, head_of(&key, &stored)?);
        }
    }
    Ok(found)
}

/// Returns the head of an audience.
///
/// # Errors
/// [`StoreError`].
pub async fn find(
    ports: &Ports,
    tenant: &TenantId,
    audience: &AudienceId,
) -> Result<Option<AudienceHead>, StoreError> {
    let key = Key::audience(tenant, audience);
    let stored = read(&ports.metrics, || ports.state.get(&key)).await?;
    stored.map(|stored| head_of(&key, &stored)).transpose()
}

/// Position in the members of an audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    shard: u8,
    after: Option<Key>,
}

impl Position {
    /// Before the first member.
    pub const START: Self = Self { shard: 0, after: None };
}

/// Reads a page of the rows of an audience from a position on; returns the next position, `None` behind the last.
async fn rows(
    ports: &Ports,
    tenant: &TenantId,
    audience: &AudienceId,
    at: &Position,
) -> Result<(Vec<(Key, Sealed)>, Option<Position>), StoreError> {
    let scan = Scan::first(Partition::members(tenant, audience, at.shard), PAGE);
    let open = |key: &Key, stored: &[u8]| {
        Ok::<_, StoreError>(Some((key.clone(), Sealed::from_bytes(stored.to_vec()))))
    };
    let Page { items, after } = Page::read(ports, scan, at.after.as_ref(), open).await?;
    let next = match after {
        Some(after) => Some(Position { shard: at.shard, after: Some(after) }),
        None => (at.shard + 1 < MEMBER_SHARDS).then_some(Position { shard: at.shard + 1, after: None }),
    };
    Ok((items, next))
}

/// Returns the number of members.
///
/// # Errors
/// [`StoreError`].
pub async fn count(ports: &Ports, tenant: &TenantId, audience: &AudienceId) -> Result<u64, StoreError> {
    let (mut all, mut at) = (0, Some(Position::START));
    while let Some(position) = at {
        let (page, next) = rows(ports, tenant, audience, &position).await?;
        all += page.len() as u64;
        at = next;
    }
    Ok(all)
}

/// Returns a page of the members from a position on, and the next position; `None` behind the last. Members whose key
/// is destroyed are left out: their erasure is under way.
///
/// # Errors
/// [`AudienceError`].
pub async fn members(
    ports: &Ports,
    tenant: &TenantId,
    audience: &AudienceId,
    at: &Position,
) -> Result<(Vec<(ContactId, Member)>, Option<Position>), AudienceError> {
    let (page, next) = rows(ports, tenant, audience, at).await?;
    let mut members = Vec::with_capacity(page.len());
    for (key, sealed) in page {
        let contact = key.about().ok_or_else(|| corrupt(&key))?;
        if let Some(member) = opened(ports, tenant, contact, &key, &sealed).await? {
            members.push((contact, member));
        }
    }
    Ok((members, next))
}

/// Returns the member of a row; `None` where its key is destroyed, or the row is gone.
///
/// # Errors
/// [`AudienceError`].
pub async fn member_of(ports: &Ports, tenant: &TenantId, key: &Key) -> Result<Option<Member>, AudienceError> {
    let contact = key.about().ok_or_else(|| corrupt(key))?;
    match read(&ports.metrics, || ports.state.get(key)).await? {
        Some(stored) => opened(ports, tenant, contact, key, &Sealed::from_bytes(stored)).await,
        None => Ok(None),
    }
}

/// Returns the memberships of a contact, by audience.
///
/// # Errors
/// [`AudienceError`].
pub async fn of_contact(
    ports: &Ports,
    tenant: &TenantId,
    contact: ContactId,
) -> Result<BTreeMap<AudienceId, Member>, AudienceError> {
    let mut found = BTreeMap::new();
    for audience in list(ports, tenant).await?.into_keys() {
        let key = Key::member(tenant, &audience, contact);
        if let Some(member) = member_of(ports, tenant, &key).await? {
            found.insert(audience, member);
        }
    }
    Ok(found)
}

async fn opened(
    ports: &Ports,
    tenant: &TenantId,
    contact: ContactId,
    key: &Key,
    sealed: &Sealed,
) -> Result<Option<Member>, AudienceError> {
    match ports.keys.contact(tenant, contact, Missing::Fail).await {
        Ok(cipher) => Ok(open(&*cipher, key, sealed)?),
        Err(KeysError::Gone { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a member; `None` where it was sealed under an earlier key of the contact, which is destroyed.
fn open(cipher: &(impl Cipher + ?Sized), key: &Key, sealed: &Sealed) -> Result<Option<Member>, StoreError> {
    let Ok(plain) = cipher.open(&aad(key, MEMBER_COLUMN), sealed) else { return Ok(None) };
    serde_json::from_slice(&plain).map(Some).map_err(|_| corrupt(key))
}

/// Deletes an audience and its members; returns the number of members. A deletion that was interrupted is repeated.
///
/// # Errors
/// [`AudienceError::Unknown`], [`AudienceError::Store`].
pub async fn delete(ports: &Ports, tenant: &TenantId, audience: &AudienceId) -> Result<u64, AudienceError> {
    let head = Key::audience(tenant, audience);
    let Some(mut stored) = ports.state.get(&head).await? else {
        return Err(AudienceError::Unknown(audience.clone()));
    };
    let mut deleted = delete_members(ports, tenant, audience).await?;
    while let Swap::Found(found) = ports.state.compare_and_set(&head, Some(stored), None, None).await? {
        // An import has ended meanwhile.
        deleted += delete_members(ports, tenant, audience).await?;
        let Some(found) = found else { break };
        stored = found;
    }
    Ok(deleted)
}

async fn delete_members(ports: &Ports, tenant: &TenantId, audience: &AudienceId) -> Result<u64, StoreError> {
    let (mut deleted, mut at) = (0, Some(Position::START));
    while let Some(position) = at {
        let (page, next) = rows(ports, tenant, audience, &position).await?;
        deleted += page.len() as u64;
        remove(ports, page.iter().map(|(key, _)| key)).await?;
        at = next;
    }
    Ok(deleted)
}

/// Deletes rows of members.
async fn remove(ports: &Ports, keys: impl Iterator<Item = &Key>) -> Result<(), StoreError> {
    let writes: Vec<_> = keys.cloned().map(Write::delete).collect();
    if writes.is_empty() {
        return Ok(());
    }
    commit(&*ports.state, &ports.metrics, |_| Batch { writes: writes.clone(), ..Batch::default() }).await
}

/// Deletes a contact's memberships: its part of an erasure.
///
/// # Errors
/// [`StoreError`]; a repetition is harmless.
pub(crate) async fn forget(ports: &Ports, tenant: &TenantId, contact: ContactId) -> Result<(), StoreError> {
    let mut found = Vec::new();
    for audience in list(ports, tenant).await?.into_keys() {
        let key = Key::member(tenant, &audience, contact);
        if read(&ports.metrics, || ports.state.get(&key)).await?.is_some() {
            found.push(key);
        }
    }
    remove(ports, found.iter()).await
}

/// Deletes a contact's memberships that do not open: an import that was under way during the erasure wrote them under
/// the key that is destroyed.
///
/// # Errors
/// [`StoreError`]: the store, or the tenant's key is away.
pub(crate) async fn forget_unreadable(
    ports: &Ports,
    tenant: &TenantId,
    contact: ContactId,
) -> Result<(), StoreError> {
    let mut left = Vec::new();
    for audience in list(ports, tenant).await?.into_keys() {
        let key = Key::member(tenant, &audience, contact);
        let Some(stored) = read(&ports.metrics, || ports.state.get(&key)).await? else { continue };
        match opened(ports, tenant, contact, &key, &Sealed::from_bytes(stored)).await {
            Ok(Some(_)) => {}
            Ok(None) => left.push(key),
            Err(AudienceError::Store(error)) => return Err(error),
            // Without the tenant's key nothing can be told; the tenant is being deleted, or the key comes back.
            Err(AudienceError::Keys(error)) => error.passing().map_or(Ok(()), Err)?,
            Err(_) => {}
        }
    }
    remove(ports, left.iter()).await
}

fn head_of(key: &Key, stored: &[u8]) -> Result<AudienceHead, StoreError> {
    serde_json::from_slice(stored).map_err(|_| corrupt(key))
}

fn corrupt(key: &Key) -> StoreError {
    StoreError::Corrupt { detail: format!("{key:?} is no row of an audience") }
}
