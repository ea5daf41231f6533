//! Keys of rows. Each is made by a constructor that takes what the row is named after.

use std::fmt;

use bytes::{BufMut, Bytes};

use super::catalog::Table;
use super::descriptor::{ContactIn, Owner};
use super::partition::{Partition, Parts};
use super::row::{
    BACKLOG_QUEUED, BACKLOG_UNKNOWN, MEMBER_SHARDS, REMOVAL_OPEN, REMOVAL_TOLD, REMOVAL_TOTALS, SpentBy,
    agenda_bound, agenda_letter, outbound_row,
};
use crate::audience::AudienceId;
use crate::id::{AccountKey, ChunkId, ContactId, ConversationId, MessageKey, OutboundId, TenantId, TurnId};
use crate::time::Timestamp;
use crate::topic::{Topic, TopicPartition};

/// Id of the partition of a tenant's own key.
const TENANT_KEY: &[u8] = b"t";

/// One row of one table.
///
/// It is made in one piece: a turn names half a dozen rows. None is made without its tenant:
///
/// ```
/// use heddle_schemas::table::Key;
/// let acme = "acme".parse().unwrap();
/// assert_eq!(Key::document(&acme, "faq").tenant(), "acme");
/// ```
/// ```compile_fail,E0061
/// use heddle_schemas::table::Key;
/// let key = Key::document("faq");
/// ```
/// ```compile_fail,E0308
/// use heddle_schemas::table::Key;
/// // What came from outside is no tenant's id before it has been read as one.
/// let key = Key::document("acme", "faq");
/// ```
/// ```compile_fail,E0624
/// use heddle_schemas::table::{Key, Table};
/// let key = Key::new(Table::Document, "acme", &[], b"faq");
/// ```
/// ```compile_fail,E0451
/// use heddle_schemas::table::Key;
/// let key = Key { bytes: Default::default(), row_at: 0 };
/// ```
/// [`Key::from_bytes`] and [`Key::stored`] are for stores, which read back what they were given; lints deny them to
/// everybody else.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    bytes: Bytes,
    row_at: usize,
}

impl Key {
    /// Creates a key from these bytes, of which those before `row_at` are the partition's.
    pub(super) fn encoded(bytes: Bytes, row_at: usize) -> Self {
        Self { bytes, row_at }
    }

    pub(super) fn new(table: Table, tenant: &str, parts: &[&[u8]], row: &[u8]) -> Self {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let row_at = 4 + tenant.len() + len;
        let mut bytes = Vec::with_capacity(row_at + row.len());
        bytes.put_u8(table as u8);
        // Ids are at most 64 characters, so both lengths fit.
        bytes.put_u8(u8::try_from(tenant.len()).unwrap_or(u8::MAX));
        bytes.put_slice(tenant.as_bytes());
        bytes.put_u16(u16::try_from(len).unwrap_or(u16::MAX));
        for part in parts {
            bytes.put_slice(part);
        }
        bytes.put_slice(row);
        Self { row_at, bytes: bytes.into() }
    }

    pub(super) fn of_conversation(table: Table, id: &ConversationId, row: &[u8]) -> Self {
        let parts: [&[u8]; 5] = [
            id.channel.as_str().as_bytes(),
            b"/",
            id.account.as_str().as_bytes(),
            b"/",
            &id.contact.to_bytes(),
        ];
        Self::new(table, id.tenant.as_str(), &parts, row)
    }

    pub(super) fn of_account(table: Table, id: &AccountKey, row: &[u8]) -> Self {
        let parts: [&[u8]; 3] = [id.channel.as_str().as_bytes(), b"/", id.account.as_str().as_bytes()];
        Self::new(table, id.tenant.as_str(), &parts, row)
    }

    /// State of a conversation.
    #[must_use]
    pub fn head(conversation: &ConversationId) -> Self {
        Self::of_conversation(Table::Head, conversation, &[])
    }

    /// Messages that a commit added to a thread.
    #[must_use]
    pub fn history(conversation: &ConversationId, sequence: u64) -> Self {
        Self::of_conversation(Table::History, conversation, &sequence.to_be_bytes())
    }

    /// Marker of a message that has been processed.
    #[must_use]
    pub fn marker(conversation: &ConversationId, message: MessageKey) -> Self {
        Self::of_conversation(Table::Marker, conversation, &message.to_bytes())
    }

    /// Claim of the call to the outside for a turn.
    #[must_use]
    pub fn claim(conversation: &ConversationId, turn: TurnId) -> Self {
        Self::of_conversation(Table::Claim, conversation, &turn.0.to_bytes())
    }

    /// Delivery status of a sent message.
    #[must_use]
    pub fn delivery(conversation: &ConversationId, outbound: &OutboundId) -> Self {
        Self::of_conversation(Table::Delivery, conversation, &outbound_row(outbound))
    }

    /// Agenda entry that waits until `due`.
    #[must_use]
    pub fn agenda(partition: TopicPartition, due: Timestamp, id: &[u8]) -> Self {
        let mut row = Vec::with_capacity(8 + id.len());
        row.extend_from_slice(&agenda_bound(due));
        row.extend_from_slice(id);
        Partition::agenda(partition).row(&row)
    }

    /// The journal of one send.
    #[must_use]
    pub fn send(account: &AccountKey, outbound: &OutboundId) -> Self {
        Self::of_account(Table::Send, account, &outbound_row(outbound))
    }

    /// Queued command of an account that is suspended, or busier than its queue holds.
    #[must_use]
    pub fn backlog(account: &AccountKey, sequence: u64) -> Self {
        let mut row = [BACKLOG_QUEUED; 9];
        row[1..].copy_from_slice(&sequence.to_be_bytes());
        Self::of_account(Table::Backlog, account, &row)
    }

    /// A send whose outcome is unknown.
    #[must_use]
    pub fn unknown(account: &AccountKey, outbound: &OutboundId) -> Self {
        let mut row = [BACKLOG_UNKNOWN; 35];
        row[1..].copy_from_slice(&outbound_row(outbound));
        Self::of_account(Table::Backlog, account, &row)
    }

    /// The contact that is met under an id; `alias` is a keyed hash over channel, scope and id.
    #[must_use]
    pub fn alias(tenant: &TenantId, alias: MessageKey) -> Self {
        Self::new(Table::Alias, tenant.as_str(), &[&alias.to_bytes()], &[])
    }

    /// A request to send a message; `key` is a keyed hash of its idempotency key.
    #[must_use]
    pub fn request(tenant: &TenantId, key: MessageKey) -> Self {
        Self::new(Table::Request, tenant.as_str(), &[&key.to_bytes()], &[])
    }

    /// Consents and opt-outs of a contact.
    #[must_use]
    pub fn contact(tenant: &TenantId, contact: ContactId) -> Self {
        Self::new(Table::Contact, tenant.as_str(), &[&contact.to_bytes()], &[])
    }

    /// The wrapped key of a tenant.
    #[must_use]
    pub fn tenant_key(tenant: &TenantId) -> Self {
        Self::new(Table::Key, tenant.as_str(), &[TENANT_KEY], &[])
    }

    /// The wrapped data key of a contact.
    #[must_use]
    pub fn contact_key(tenant: &TenantId, contact: ContactId) -> Self {
        Self::new(Table::Key, tenant.as_str(), &[b"c", &contact.to_bytes()], &[])
    }

    /// The wrapped key of a channel account's credentials.
    #[must_use]
    pub fn channel_key(account: &AccountKey) -> Self {
        let AccountKey { tenant, channel, account } = account;
        let parts: [&[u8]; 4] = [b"a", channel.as_str().as_bytes(), b"/", account.as_str().as_bytes()];
        Self::new(Table::Key, tenant.as_str(), &parts, &[])
    }

    /// The row of no tenant by which a store verifies its key-encryption key.
    #[must_use]
    pub fn master_check() -> Self {
        Self::new(Table::Key, "", &[b"m"], &[])
    }

    /// The row of no tenant that names the region of a store.
    #[must_use]
    pub fn region() -> Self {
        Self::new(Table::Key, "", &[b"r"], &[])
    }

    /// A document of a tenant.
    #[must_use]
    pub fn document(tenant: &TenantId, document: &str) -> Self {
        Self::new(Table::Document, tenant.as_str(), &[], document.as_bytes())
    }

    /// Spending of a tenant's monthly quota; `month` as its zone has it, such as `2026-11`.
    #[must_use]
    pub fn quota(tenant: &TenantId, month: &str) -> Self {
        Self::new(Table::Quota, tenant.as_str(), &[month.as_bytes()], &[])
    }

    /// Spending of a turn on a reservation; attempts are those at calls to the outside, 0 where none was made.
    #[must_use]
    pub fn spend(tenant: &TenantId, chunk: ChunkId, turn: &SpentBy) -> Self {
        Self::new(Table::Spend, tenant.as_str(), &[&chunk.to_bytes()], &turn.to_row())
    }

    /// A step of a turn that called tools.
    #[must_use]
    pub fn tool(conversation: &ConversationId, turn: TurnId, step: u8) -> Self {
        let mut row = [0_u8; 17];
        row[..16].copy_from_slice(&turn.0.to_bytes());
        row[16] = step;
        Self::of_conversation(Table::Tool, conversation, &row)
    }

    /// An erasure.
    #[must_use]
    pub fn erasure(tenant: &TenantId, erasure: MessageKey) -> Self {
        Partition::erasures(tenant).row(&erasure.to_bytes())
    }

    /// Index row of an erasure of a contact that is under way.
    #[must_use]
    pub fn open_erasure(tenant: &TenantId, contact: ContactId) -> Self {
        let row = [tenant.as_str().as_bytes(), b"/", &contact.to_bytes()].concat();
        Partition::open_erasures().row(&row)
    }

    /// Returns the contact whose erasure is under way, of a row of [`Partition::open_erasures`].
    #[must_use]
    pub fn of_open_erasure(&self) -> Option<(TenantId, ContactId)> {
        let (rest, contact) = self.row().split_last_chunk::<16>()?;
        let (b'/', tenant) = rest.split_last()? else { return None };
        let tenant = std::str::from_utf8(tenant).ok()?.parse().ok()?;
        Some((tenant, ContactId::from_bytes(*contact)))
    }

    /// The deletion of a tenant.
    #[must_use]
    pub fn removal(tenant: &TenantId) -> Self {
        Partition::removals().row(&[&[REMOVAL_TOLD], tenant.as_str().as_bytes()].concat())
    }

    /// Totals of a month, written as `2026-01`, of all tenants that were deleted. It names none of them.
    #[must_use]
    pub fn removal_totals(month: &str) -> Self {
        Partition::removals().row(&[&[REMOVAL_TOTALS], month.as_bytes()].concat())
    }

    /// Index row of a tenant deletion that is not complete.
    #[must_use]
    pub fn open_removal(tenant: &TenantId) -> Self {
        Partition::removals().row(&[&[REMOVAL_OPEN], tenant.as_str().as_bytes()].concat())
    }

    /// Returns the tenant whose deletion is not complete, of a row of [`Partition::removals`].
    #[must_use]
    pub fn of_open_removal(&self) -> Option<TenantId> {
        let (&REMOVAL_OPEN, tenant) = self.row().split_first()? else { return None };
        std::str::from_utf8(tenant).ok()?.parse().ok()
    }

    /// An audience of a tenant.
    #[must_use]
    pub fn audience(tenant: &TenantId, audience: &AudienceId) -> Self {
        Partition::audiences(tenant).row(audience.as_str().as_bytes())
    }

    /// Returns the audience of a row of [`Partition::audiences`] or of [`Partition::members`].
    #[must_use]
    pub fn of_audience(&self) -> Option<AudienceId> {
        let id = match self.table() {
            Table::Audience => self.row(),
            Table::Member => self.id().split_last()?.1,
            _ => return None,
        };
        std::str::from_utf8(id).ok()?.parse().ok()
    }

    /// A member of an audience.
    #[must_use]
    pub fn member(tenant: &TenantId, audience: &AudienceId, contact: ContactId) -> Self {
        let contact = contact.to_bytes();
        let shard = contact[0] % MEMBER_SHARDS;
        Partition::members(tenant, audience, shard).row(&contact)
    }

    /// An entry of the audit log.
    #[must_use]
    pub fn access(tenant: Option<&TenantId>, number: u64) -> Self {
        Partition::access(tenant).row(&number.to_be_bytes())
    }

    /// The head of an audit log: its newest entry once more. It sorts before every entry.
    #[must_use]
    pub fn access_head(tenant: Option<&TenantId>) -> Self {
        Partition::access(tenant).row(&[])
    }

    /// Progress of applying changed retention to the rows of a partition.
    #[must_use]
    pub fn sweep(partition: TopicPartition) -> Self {
        let topic = agenda_letter(partition.topic);
        Self::new(Table::Sweep, "", &[&[topic], &partition.partition.to_be_bytes()], &[])
    }

    /// Distribution of the limits of a provider key.
    #[must_use]
    pub fn limit(key: &[u8; 32]) -> Self {
        Self::new(Table::Limit, "", &[key], &[])
    }

    /// A row as a store has it that holds table, tenant, [`Key::id`] and [`Key::row`] apart.
    #[must_use]
    pub fn stored(table: Table, tenant: &str, id: &[u8], row: &[u8]) -> Self {
        Self::new(table, tenant, &[id], row)
    }

    /// Reads back what [`Key::as_bytes`] wrote; `None` when the bytes are no key.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        Table::from_number(*bytes.first()?)?;
        let tenant = usize::from(*bytes.get(1)?);
        let len = bytes.get(2 + tenant..4 + tenant)?;
        let row_at = 4 + tenant + usize::from(u16::from_be_bytes([len[0], len[1]]));
        (bytes.len() >= row_at).then_some(Self { bytes, row_at })
    }

    /// The encoded key, to be kept.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The encoded key: its order is table, tenant, partition, row.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The row inside its partition.
    #[must_use]
    pub fn row(&self) -> &[u8] {
        &self.bytes[self.row_at..]
    }

    /// The partition it is in.
    #[must_use]
    pub fn partition(&self) -> Partition {
        Partition(self.bytes.slice(..self.row_at))
    }

    /// Its table.
    ///
    /// # Panics
    /// Never: a key is made only with a known table.
    #[must_use]
    pub fn table(&self) -> Table {
        Table::from_number(self.bytes[0]).expect("a key is made with a known table")
    }

    /// The tenant it belongs to; empty for the agenda.
    #[must_use]
    pub fn tenant(&self) -> &str {
        Parts::of(&self.bytes).tenant
    }

    /// Returns the id of its partition; see [`Partition::id`].
    #[must_use]
    pub fn id(&self) -> &[u8] {
        Parts::of(&self.bytes).id
    }

    /// The partition of the log whose agenda it is in; `None` for every other table.
    #[must_use]
    pub fn of_agenda(&self) -> Option<TopicPartition> {
        Parts::of(&self.bytes).agenda()
    }

    /// The key in the log of the entity that a parked record is for; `None` for every other row.
    fn parked_for(&self, topic: Topic) -> Option<String> {
        let parts = Parts::of(&self.bytes);
        let is_one = parts.table.descriptor().owner == Owner::Entity && !parts.tenant.is_empty();
        let entity = parts.id.strip_prefix(&[agenda_letter(topic)]).filter(|_| is_one)?;
        Some(format!("{}/{}", parts.tenant, std::str::from_utf8(entity).ok()?))
    }

    /// The conversation whose row it is; `None` for tables of something else, and for a key that no id made.
    #[must_use]
    pub fn conversation(&self) -> Option<ConversationId> {
        if let Some(parked) = self.parked_for(Topic::Inbound) {
            return parked.parse().ok();
        }
        let parts = Parts::of(&self.bytes);
        let (account, contact) = parts.id.split_last_chunk::<16>()?;
        let is_conversations = parts.table.descriptor().owner == Owner::Conversation;
        let account = account.strip_suffix(b"/").filter(|_| is_conversations)?;
        let AccountKey { tenant, channel, account } = account_of(parts.tenant, account)?;
        Some(ConversationId { tenant, channel, account, contact: ContactId::from_bytes(*contact) })
    }

    /// The account whose row it is; `None` as for [`Key::conversation`].
    #[must_use]
    pub fn account(&self) -> Option<AccountKey> {
        if let Some(parked) = self.parked_for(Topic::Outbound) {
            return parked.parse().ok();
        }
        let parts = Parts::of(&self.bytes);
        let is_accounts = parts.table.descriptor().owner == Owner::Account;
        account_of(parts.tenant, parts.id).filter(|_| is_accounts)
    }

    /// The contact about whom the row is, where it is about one.
    #[must_use]
    pub fn about(&self) -> Option<ContactId> {
        let contact = |id: &[u8]| Some(ContactId::from_bytes(id.try_into().ok()?));
        match self.table().descriptor().contact {
            ContactIn::Nowhere => None,
            ContactIn::Conversation => self.conversation().map(|conversation| conversation.contact),
            ContactIn::Id => contact(self.id()),
            ContactIn::KeyId => contact(self.id().strip_prefix(b"c")?),
            ContactIn::OutboundRow => OutboundId::from_row(self.row()).map(|id| id.contact),
            ContactIn::RowStart => contact(self.row().first_chunk::<16>()?),
        }
    }

    /// Returns whether the row stays when its tenant is deleted: its table keeps it, or it is the tombstone of the
    /// tenant's key.
    #[must_use]
    pub fn outlives_tenant(&self) -> bool {
        let is_tenants_key = self.table() == Table::Key && self.id() == TENANT_KEY;
        is_tenants_key || !self.table().descriptor().tenant_deletion.removes()
    }
}

fn account_of(tenant: &str, id: &[u8]) -> Option<AccountKey> {
    let (channel, account) = std::str::from_utf8(id).ok()?.split_once('/')?;
    Some(AccountKey {
        tenant: tenant.parse().ok()?,
        channel: channel.parse().ok()?,
        account: account.parse().ok()?,
    })
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.partition(), hex::encode(self.row()))
    }
}
