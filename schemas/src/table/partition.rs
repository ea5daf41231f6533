//! Partitions of tables: what is stored and fenced together, and scanned.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::catalog::Table;
use super::descriptor::Owner;
use super::key::Key;
use super::row::{agenda_letter, agenda_topic};
use crate::audience::AudienceId;
use crate::id::{AccountKey, ChunkId, ConversationId, TenantId};
use crate::topic::{Topic, TopicPartition};

/// One partition of one table, from which rows are named or scanned.
///
/// Encoded as: table (1), length of the tenant (1) and tenant, length of the partition (2) and
/// partition. Agenda, limits, sweeps, deletions of tenants, what is open of erasures and a part of the audit log belong
/// to the engine, not to a tenant: their tenant is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub(super) Bytes);

impl Partition {
    fn new(table: Table, tenant: &str, parts: &[&[u8]]) -> Self {
        Self(Key::new(table, tenant, parts, &[]).into_bytes())
    }

    fn conversation(table: Table, id: &ConversationId) -> Self {
        Self(Key::of_conversation(table, id, &[]).into_bytes())
    }

    fn account(table: Table, id: &AccountKey) -> Self {
        Self(Key::of_account(table, id, &[]).into_bytes())
    }

    /// Every partition that a conversation owns, by table.
    pub fn of_conversation(id: &ConversationId) -> impl Iterator<Item = Self> {
        Table::with(|table| table.owner == Owner::Conversation)
            .into_iter()
            .map(|table| Self::conversation(table, id))
    }

    /// The history of a conversation, rows by sequence.
    #[must_use]
    pub fn history(conversation: &ConversationId) -> Self {
        Self::conversation(Table::History, conversation)
    }

    /// Markers of the messages that a conversation has processed, rows by message.
    #[must_use]
    pub fn markers(conversation: &ConversationId) -> Self {
        Self::conversation(Table::Marker, conversation)
    }

    /// Claims of the calls to the outside for the turns of a conversation, rows by turn.
    #[must_use]
    pub fn claims(conversation: &ConversationId) -> Self {
        Self::conversation(Table::Claim, conversation)
    }

    /// The deliveries of a conversation, rows by outbound id.
    #[must_use]
    pub fn deliveries(conversation: &ConversationId) -> Self {
        Self::conversation(Table::Delivery, conversation)
    }

    /// Agenda of a partition of the log, rows by due time.
    #[must_use]
    pub fn agenda(partition: TopicPartition) -> Self {
        let topic = agenda_letter(partition.topic);
        Self::new(Table::Agenda, "", &[&[topic], &partition.partition.to_be_bytes()])
    }

    /// Backlog of an account: first sends of unknown outcome, then the queue by sequence.
    #[must_use]
    pub fn backlog(account: &AccountKey) -> Self {
        Self::account(Table::Backlog, account)
    }

    /// The documents of a tenant, rows by document id.
    #[must_use]
    pub fn documents(tenant: &TenantId) -> Self {
        Self::new(Table::Document, tenant.as_str(), &[])
    }

    /// Spending on a reservation of a tenant's quota, rows by turn and attempt.
    #[must_use]
    pub fn spends(tenant: &TenantId, chunk: ChunkId) -> Self {
        Self::new(Table::Spend, tenant.as_str(), &[&chunk.to_bytes()])
    }

    /// The tools of a conversation's turns, rows by turn and step.
    #[must_use]
    pub fn tools(conversation: &ConversationId) -> Self {
        Self::conversation(Table::Tool, conversation)
    }

    /// The erasures of a tenant, rows by their id.
    #[must_use]
    pub fn erasures(tenant: &TenantId) -> Self {
        Self::new(Table::Erasure, tenant.as_str(), &[])
    }

    /// The erasures of all tenants that are not complete, rows by tenant and contact: what is to be done is found
    /// without reading what is done.
    #[must_use]
    pub fn open_erasures() -> Self {
        Self::new(Table::Erasure, "", &[])
    }

    /// The audit log of a tenant, or of what is no tenant's; rows by number.
    #[must_use]
    pub fn access(tenant: Option<&TenantId>) -> Self {
        Self::new(Table::Access, tenant.map_or("", TenantId::as_str), &[])
    }

    /// The conversations or accounts of a partition of the log that are held, rows by their key in the log.
    #[must_use]
    pub fn held(partition: TopicPartition) -> Self {
        let topic = agenda_letter(partition.topic);
        Self::new(Table::Parked, "", &[&[topic], &partition.partition.to_be_bytes()])
    }

    /// The parked records of a conversation or account, rows by offset. `entity` is its key in the log without the
    /// tenant, as text: it may be one that this build cannot name.
    #[must_use]
    pub fn parked(tenant: &TenantId, topic: Topic, entity: &str) -> Self {
        Self::new(Table::Parked, tenant.as_str(), &[&[agenda_letter(topic)], entity.as_bytes()])
    }

    /// The deletions of tenants: rows that say which are not complete, and one a tenant.
    #[must_use]
    pub fn removals() -> Self {
        Self::new(Table::Removal, "", &[])
    }

    /// The audiences of a tenant, rows by id.
    #[must_use]
    pub fn audiences(tenant: &TenantId) -> Self {
        Self::new(Table::Audience, tenant.as_str(), &[])
    }

    /// A shard of an audience, of [`MEMBER_SHARDS`](super::row::MEMBER_SHARDS), rows by contact.
    #[must_use]
    pub fn members(tenant: &TenantId, audience: &AudienceId, shard: u8) -> Self {
        Self::new(Table::Member, tenant.as_str(), &[audience.as_str().as_bytes(), &[shard]])
    }

    /// The row of this name.
    #[must_use]
    pub fn row(&self, row: &[u8]) -> Key {
        let mut bytes = BytesMut::with_capacity(self.0.len() + row.len());
        bytes.put_slice(&self.0);
        bytes.put_slice(row);
        Key::encoded(bytes.freeze(), self.0.len())
    }

    /// The encoded bytes: what every row's key begins with.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its table.
    #[must_use]
    pub fn table(&self) -> Table {
        Parts::of(&self.0).table
    }

    /// The tenant it belongs to; empty for the agenda.
    #[must_use]
    pub fn tenant(&self) -> &str {
        Parts::of(&self.0).tenant
    }

    /// Returns its id below the tenant: a conversation, an account, an alias; empty for documents.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        Parts::of(&self.0).id
    }

    /// The partition of the log whose agenda it is; `None` for every other table.
    #[must_use]
    pub fn of_agenda(&self) -> Option<TopicPartition> {
        Parts::of(&self.0).agenda()
    }
}

/// Parts that a partition is encoded from.
pub(super) struct Parts<'a> {
    pub(super) table: Table,
    pub(super) tenant: &'a str,
    pub(super) id: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Takes apart what [`Partition`] and [`Key`] begin with; a row after it is left out.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        let table = Table::from_number(bytes[0]).expect("a key is made with a known table");
        let id_at = 4 + usize::from(bytes[1]);
        let len = usize::from(u16::from_be_bytes([bytes[id_at - 2], bytes[id_at - 1]]));
        // Bytes of a foreign key may be anything; those of a tenant's id are ASCII.
        let tenant = std::str::from_utf8(&bytes[2..id_at - 2]).unwrap_or_default();
        Self { table, tenant, id: &bytes[id_at..id_at + len] }
    }

    pub(super) fn agenda(&self) -> Option<TopicPartition> {
        let (&[topic], partition) = self.id.split_first_chunk()?;
        let topic = agenda_topic(topic).filter(|_| self.table == Table::Agenda)?;
        Some(TopicPartition { topic, partition: u32::from_be_bytes(partition.try_into().ok()?) })
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.0.first().copied().and_then(Table::from_number);
        write!(
            f,
            "{}({})",
            table.map_or("?", Table::as_str),
            hex::encode(self.0.get(1..).unwrap_or_default())
        )
    }
}
