//! Descriptor of a table: the owner of its rows, their lifetime, how they are written, and what erases them.
//!
//! A descriptor is data. Code that goes through tables reads it and keeps no list of tables of its own.

use crate::retention::Kind;

/// Properties of a table that hold for all its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// Name in messages and in CQL; stored in receipts of tenant deletions.
    pub name: &'static str,
    /// Entity that a partition belongs to.
    pub owner: Owner,
    /// Position of the contact in a row's key.
    pub contact: ContactIn,
    /// End of a row.
    pub lifetime: Lifetime,
    /// Kind of write.
    pub written: Written,
    /// Effect of the erasure of a contact.
    pub contact_erasure: ContactErasure,
    /// Effect of the deletion of a tenant.
    pub tenant_deletion: TenantDeletion,
    /// Form of a value.
    pub form: Form,
    /// Place in exports.
    pub export: Export,
}

/// Entity that a partition belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A conversation; its actor alone writes the rows.
    Conversation,
    /// A channel account; its actor alone writes the rows.
    Account,
    /// A conversation or a channel account under its key in the log; only the actor of its topic partition writes the
    /// rows. Rows about the whole topic partition have an empty tenant.
    Entity,
    /// A contact of a tenant.
    Contact,
    /// A tenant. What the engine keeps of the same kind for itself has an empty tenant.
    Tenant,
    /// A partition of a topic.
    Partition,
    /// The engine.
    Engine,
}

/// Position of the contact in a row's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactIn {
    /// No row is about one contact alone, or its key does not say which.
    Nowhere,
    /// The conversation that owns the partition.
    Conversation,
    /// The partition's id.
    Id,
    /// The partition's id behind the prefix `c`; ids with another prefix are about no contact.
    KeyId,
    /// The outbound id that names the row.
    OutboundRow,
    /// The first bytes of the row.
    RowStart,
}

/// End of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// The tenant's retention of these kinds; every row carries its end. The sweep applies a shortened retention.
    Retention {
        /// Kinds of its rows.
        kinds: &'static [Kind],
        /// Source of the time at which a row was written.
        dated: Dated,
    },
    /// A time that its writer sets; every row carries its end.
    Own,
    /// Until the work that the row stands for is done. A store without atomic batches puts such rows first and deletes
    /// them last, so that a crash in between finds the work again.
    UntilDone,
    /// Until something deletes it.
    UntilDeleted,
}

impl Lifetime {
    /// Returns whether every row carries its end.
    #[must_use]
    pub fn ends(self) -> bool {
        matches!(self, Self::Retention { .. } | Self::Own)
    }
}

/// Source of the time at which a row was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dated {
    /// The entries of a thread.
    Thread,
    /// The report of a delivery.
    Delivery,
    /// The state of a conversation.
    Head,
}

/// Kind of write. A key is written in one kind only: the kinds do not share timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// In batches under the fence of a topic partition.
    Fenced,
    /// In batches, at times without a fence.
    Unfenced,
    /// In batches without a fence; the partition's row without a name is its version, a conditional write.
    Versioned,
    /// By conditional write.
    Conditional,
}

/// Effect of the erasure of a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactErasure {
    /// The contact's rows are removed.
    Removed,
    /// The contact's row becomes a tombstone that holds the time of the erasure.
    Tombstone,
    /// The contact's rows stay, for this reason.
    Kept(&'static str),
    /// No row is about a contact.
    NotAbout,
}

/// Effect of the deletion of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantDeletion {
    /// The tenant's rows are removed, but for the tombstone of its key.
    Removed,
    /// The tenant's rows are removed once nothing of the tenant can be under way any more: what is under way still
    /// reads or writes them.
    RemovedOnceSettled,
    /// The tenant's rows go by themselves, for this reason.
    Drains(&'static str),
    /// The tenant's rows stay, for this reason.
    Kept(&'static str),
    /// No row belongs to a tenant.
    NotAbout,
}

impl TenantDeletion {
    /// Returns whether the deletion removes the rows.
    #[must_use]
    pub fn removes(self) -> bool {
        matches!(self, Self::Removed | Self::RemovedOnceSettled)
    }
}

/// Form of a value. What people wrote and how they are reached occurs in sealed values and columns only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A ciphertext.
    Sealed {
        /// Key that sealed it.
        under: SealedUnder,
        /// Column of its associated data.
        column: &'static str,
    },
    /// A ciphertext whose plaintext is the entries of a thread, sealed under the contact's key.
    Thread {
        /// Column of its associated data.
        column: &'static str,
    },
    /// An id, a keyed hash, or nothing: bytes of one of these lengths.
    Ids(&'static [usize]),
    /// A wrapped key, or the tombstone of one.
    WrappedKey,
    /// A record of a topic, behind the time at which it was appended; a later build may have written it. What people
    /// wrote is sealed in it.
    Record,
    /// JSON.
    Json(Json),
}

/// Key that sealed a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedUnder {
    /// The contact's data key; the erasure of the contact makes the value unreadable.
    Contact,
    /// The tenant's key.
    Tenant,
}

/// Form of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Json {
    /// State of a conversation; the address is sealed under the contact's key.
    Head,
    /// Claim of a call to the outside.
    Claim,
    /// Status of a sent message.
    Delivery,
    /// Journal of a send.
    Send,
    /// Record of topic outbound; the message is sealed under the tenant's log key of the day.
    Outbound,
    /// Consents of a contact; the words of the evidence are sealed under the tenant's key.
    Contact,
    /// Ledger of a quota.
    Ledger,
    /// Cost of a call or a turn.
    Spend,
    /// Erasure of a contact.
    Erasure,
    /// Deletion of a tenant.
    TenantDeletion,
    /// Entry of the audit log, which verifies itself.
    AuditEntry,
    /// Head of an audience.
    Audience,
    /// State of the engine that names no tenant and no contact.
    Engine,
}

/// Place in exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// In exports of a contact and of a tenant.
    Both(Section),
    /// In exports of a contact only.
    Contact(Section),
    /// In exports of a tenant only.
    Tenant(Section),
    /// In none, for this reason.
    No(&'static str),
}

impl Export {
    /// Section in an export of a tenant.
    #[must_use]
    pub fn of_tenant(self) -> Option<Section> {
        match self {
            Self::Both(section) | Self::Tenant(section) => Some(section),
            Self::Contact(_) | Self::No(_) => None,
        }
    }

    /// Section in an export of a contact.
    #[must_use]
    pub fn of_contact(self) -> Option<Section> {
        match self {
            Self::Both(section) | Self::Contact(section) => Some(section),
            Self::Tenant(_) | Self::No(_) => None,
        }
    }
}

/// Section of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Conversations, with their parts.
    Conversation,
    /// A list inside a conversation.
    Part(ExportedPart),
    /// Consents and opt-outs.
    Consents,
    /// Erasures.
    Erasures,
    /// Entries of the audit log.
    AuditLog,
    /// Documents.
    Documents,
    /// Usage by month.
    Usage,
    /// Audiences.
    Audiences,
    /// Members of audiences.
    Members,
}

/// List inside an exported conversation, in the order of the export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExportedPart {
    /// The thread.
    Thread,
    /// Statuses of sent messages.
    Deliveries,
    /// Calls of tools.
    Tools,
    /// Messages that wait for the account.
    Waiting,
}
