//! Every table, with its descriptor.

use bytes::{BufMut, Bytes};

use super::descriptor::{
    ContactErasure, ContactIn, Dated, Descriptor, Export, ExportedPart, Form, Json, Lifetime, Owner,
    SealedUnder, Section, TenantDeletion, Written,
};
use crate::audience::MEMBER_COLUMN;
use crate::id::TenantId;
use crate::ports::knowledge::DOCUMENT_COLUMN;
use crate::retention::Kind;

/// Column of a row of the history.
pub const HISTORY_COLUMN: &str = "entries";
/// Column of a step of a turn's tools.
pub const TOOL_COLUMN: &str = "step";

/// Declares the tables: `name = number => descriptor`. One list makes the enum, [`Table::ALL`] and the descriptors, so
/// that none can lack a table.
macro_rules! tables {
    ($($(#[$doc:meta])+ $name:ident = $number:literal => $descriptor:expr;)+) => {
        /// A table of the state store. The numbers are stored; they never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Table {
            $($(#[$doc])+ $name = $number,)+
        }

        impl Table {
            /// Every table, by number.
            pub const ALL: [Self; [$($number),+].len()] = [$(Self::$name),+];

            /// Properties of the table.
            #[must_use]
            pub fn descriptor(self) -> &'static Descriptor {
                match self {
                    $(Self::$name => const { &$descriptor },)+
                }
            }
        }
    };
}

tables! {
    /// State of a conversation: one row, without a name.
    Head = 1 => Descriptor {
        name: "head",
        owner: Owner::Conversation,
        contact: ContactIn::Conversation,
        // The number and the name in it end with the last message.
        lifetime: Lifetime::Retention { kinds: &[Kind::Messages], dated: Dated::Head },
        written: Written::Fenced,
        contact_erasure: ContactErasure::Removed,
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Json(Json::Head),
        export: Export::Both(Section::Conversation),
    };
    /// Thread of a conversation, by sequence: what one commit added.
    History = 2 => Descriptor {
        name: "history",
        owner: Owner::Conversation,
        contact: ContactIn::Conversation,
        lifetime: Lifetime::Retention { kinds: &[Kind::Messages, Kind::Media], dated: Dated::Thread },
        written: Written::Fenced,
        contact_erasure: ContactErasure::Removed,
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Thread { column: HISTORY_COLUMN },
        export: Export::Both(Section::Part(ExportedPart::Thread)),
    };
    /// Messages that a conversation has seen, by message key: the turn that each is in.
    Marker = 3 => Descriptor {
        name: "marker",
        owner: Owner::Conversation,
        contact: ContactIn::Conversation,
        // Longer than every redelivery.
        lifetime: Lifetime::Own,
        written: Written::Fenced,
        contact_erasure: ContactErasure::Kept(
            "by the keyed hash, a message from before that is delivered once more is refused, whatever the channel's clock \
             says; it holds no content, and ends by itself",
        ),
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Ids(&[0, 16]),
        export: Export::No("keyed hashes of message ids; the messages are in the thread"),
    };
    /// Calls to the outside, by turn: the node that makes each, and the messages it covers.
    Claim = 4 => Descriptor {
        name: "claim",
        owner: Owner::Conversation,
        contact: ContactIn::Conversation,
        lifetime: Lifetime::Own,
        written: Written::Conditional,
        contact_erasure: ContactErasure::Removed,
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Json(Json::Claim),
        export: Export::No("the engine's bookkeeping of calls; what they gave is in the thread"),
    };
    /// Statuses of sent messages, by outbound id.
    Delivery = 5 => Descriptor {
        name: "delivery",
        owner: Owner::Conversation,
        contact: ContactIn::Conversation,
        lifetime: Lifetime::Retention { kinds: &[Kind::Receipts], dated: Dated::Delivery },
        written: Written::Fenced,
        contact_erasure: ContactErasure::Removed,
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Json(Json::Delivery),
        export: Export::Both(Section::Part(ExportedPart::Deliveries)),
    };
    /// Timers of a topic partition, by due time and entity.
    Agenda = 6 => Descriptor {
        name: "agenda",
        owner: Owner::Partition,
        contact: ContactIn::Nowhere,
        lifetime: Lifetime::UntilDone,
        written: Written::Fenced,
        // By the conversation, whose head knows the due time of its row.
        contact_erasure: ContactErasure::Removed,
        tenant_deletion: TenantDeletion::Drains("the entity that a timer wakes finds its tenant deleted and removes it"),
        form: Form::Ids(&[0]),
        export: Export::No("due times of the engine's work"),
    };
    /// Journals of sends of an account, by outbound id.
    Send = 7 => Descriptor {
        name: "send",
        owner: Owner::Account,
        contact: ContactIn::OutboundRow,
        lifetime: Lifetime::Own,
        written: Written::Fenced,
        contact_erasure: ContactErasure::Kept(
            "without the journal a redelivered record would be sent again; it names the contact by an id that leads to \
             no person, holds no content, and ends by itself",
        ),
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Json(Json::Send),
        export: Export::No("the engine's bookkeeping of sends; their statuses are among the deliveries"),
    };
    /// Backlog of an account: sends of unknown outcome by outbound id, then messages that wait by sequence.
    Backlog = 8 => Descriptor {
        name: "backlog",
        owner: Owner::Account,
        // The record in the value says.
        contact: ContactIn::Nowhere,
        lifetime: Lifetime::UntilDone,
        written: Written::Fenced,
        contact_erasure: ContactErasure::Removed,
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Json(Json::Outbound),
        export: Export::Both(Section::Part(ExportedPart::Waiting)),
    };
    /// Contact that is met under an id: one row for each keyed hash of an id.
    Alias = 9 => Descriptor {
        name: "alias",
        owner: Owner::Tenant,
        contact: ContactIn::Nowhere,
        lifetime: Lifetime::UntilDeleted,
        written: Written::Conditional,
        contact_erasure: ContactErasure::Kept(
            "the keyed hash leads a person who writes again to the opt-outs that survive an erasure",
        ),
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Ids(&[16]),
        export: Export::No("keyed hashes of ids; the ids themselves are in the conversations"),
    };
    /// Consents, opt-outs and restriction of a contact: one row, without a name.
    Contact = 10 => Descriptor {
        name: "contact",
        owner: Owner::Contact,
        contact: ContactIn::Id,
        lifetime: Lifetime::UntilDeleted,
        written: Written::Conditional,
        contact_erasure: ContactErasure::Kept("opt-outs hold after an erasure, and consents are proved by their evidence"),
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Json(Json::Contact),
        export: Export::Both(Section::Consents),
    };
    /// Wrapped keys of a tenant (`t`), a contact (`c`) or a channel account (`a`); without a tenant the check value of
    /// the key-encryption key and the region of the store.
    Key = 11 => Descriptor {
        name: "key",
        owner: Owner::Tenant,
        contact: ContactIn::KeyId,
        lifetime: Lifetime::UntilDeleted,
        written: Written::Conditional,
        contact_erasure: ContactErasure::Tombstone,
        tenant_deletion: TenantDeletion::Removed,
        form: Form::WrappedKey,
        export: Export::No("keys are secret"),
    };
    /// Documents of a tenant, by id; the row without a name is the version of all of them.
    Document = 12 => Descriptor {
        name: "document",
        owner: Owner::Tenant,
        contact: ContactIn::Nowhere,
        lifetime: Lifetime::UntilDeleted,
        written: Written::Versioned,
        contact_erasure: ContactErasure::NotAbout,
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Sealed { under: SealedUnder::Tenant, column: DOCUMENT_COLUMN },
        export: Export::Tenant(Section::Documents),
    };
    /// Ledger of a tenant's quota: one row a month.
    Quota = 13 => Descriptor {
        name: "quota",
        owner: Owner::Tenant,
        contact: ContactIn::Nowhere,
        lifetime: Lifetime::UntilDeleted,
        written: Written::Conditional,
        contact_erasure: ContactErasure::NotAbout,
        // Until its leases are given back, the ledger does not have all that was used.
        tenant_deletion: TenantDeletion::RemovedOnceSettled,
        form: Form::Json(Json::Ledger),
        export: Export::Tenant(Section::Usage),
    };
    /// Costs that were taken from a quota lease, by turn and attempt.
    Spend = 14 => Descriptor {
        name: "spend",
        owner: Owner::Tenant,
        contact: ContactIn::RowStart,
        // Until its month is long over.
        lifetime: Lifetime::Own,
        written: Written::Unfenced,
        contact_erasure: ContactErasure::Kept(
            "the quota is added up from it; it names the contact by an id that leads to no person, and ends by itself",
        ),
        // The ledger, which is read from it, is before it in a walk.
        tenant_deletion: TenantDeletion::RemovedOnceSettled,
        form: Form::Json(Json::Spend),
        export: Export::No("summed up in the usage"),
    };
    /// Calls of tools in the turns of a conversation, by turn and step.
    Tool = 15 => Descriptor {
        name: "tool",
        owner: Owner::Conversation,
        contact: ContactIn::Conversation,
        lifetime: Lifetime::Own,
        written: Written::Fenced,
        contact_erasure: ContactErasure::Removed,
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Sealed { under: SealedUnder::Contact, column: TOOL_COLUMN },
        export: Export::Both(Section::Part(ExportedPart::Tools)),
    };
    /// Shares of the nodes in the limits of a provider key: one row for each keyed hash of such a key.
    Limit = 16 => Descriptor {
        name: "limit",
        owner: Owner::Engine,
        contact: ContactIn::Nowhere,
        // The last node that stops using the key removes it.
        lifetime: Lifetime::UntilDeleted,
        written: Written::Conditional,
        contact_erasure: ContactErasure::NotAbout,
        tenant_deletion: TenantDeletion::NotAbout,
        form: Form::Json(Json::Engine),
        export: Export::No("the engine's own state"),
    };
    /// Erasures of a tenant's contacts, by id; without a tenant the erasures of all tenants that are not complete.
    Erasure = 17 => Descriptor {
        name: "erasure",
        owner: Owner::Tenant,
        contact: ContactIn::Nowhere,
        lifetime: Lifetime::UntilDeleted,
        written: Written::Conditional,
        contact_erasure: ContactErasure::Kept("it is the receipt of the erasure"),
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Json(Json::Erasure),
        export: Export::Both(Section::Erasures),
    };
    /// Audit log of a tenant, or without one of the engine: entries by number, chained; the row without a name is the
    /// newest entry once more.
    Access = 18 => Descriptor {
        name: "access",
        owner: Owner::Tenant,
        contact: ContactIn::Nowhere,
        lifetime: Lifetime::UntilDeleted,
        written: Written::Conditional,
        contact_erasure: ContactErasure::Kept("evidence of who did what; it names contacts by ids that lead to no person"),
        tenant_deletion: TenantDeletion::Kept("evidence of who did what; it names contacts by ids that lead to no person"),
        form: Form::Json(Json::AuditEntry),
        // A tenant's own audit log is read page by page, and verified, by an operation of its own.
        export: Export::Contact(Section::AuditLog),
    };
    /// Progress of the retention sweep over a topic partition: one row, without a name.
    Sweep = 19 => Descriptor {
        name: "sweep",
        owner: Owner::Partition,
        contact: ContactIn::Nowhere,
        lifetime: Lifetime::UntilDeleted,
        written: Written::Fenced,
        contact_erasure: ContactErasure::NotAbout,
        tenant_deletion: TenantDeletion::NotAbout,
        form: Form::Json(Json::Engine),
        export: Export::No("the engine's own state"),
    };
    /// Deletions of tenants: `o` and tenant while one is not complete, `t` and tenant for its receipt; `u` and month, what all
    /// deleted tenants used in it.
    Removal = 20 => Descriptor {
        name: "removal",
        owner: Owner::Engine,
        contact: ContactIn::Nowhere,
        lifetime: Lifetime::UntilDeleted,
        written: Written::Conditional,
        contact_erasure: ContactErasure::NotAbout,
        tenant_deletion: TenantDeletion::Kept("the receipt of the deletion; the id is not given out twice"),
        form: Form::Json(Json::TenantDeletion),
        export: Export::No("the receipt belongs to the operator, not to the deleted tenant"),
    };
    /// Records of a conversation or an account that wait for a node of a later build, by offset; without a tenant, by
    /// topic partition and key in the log, the entities that are held for such records.
    Parked = 21 => Descriptor {
        name: "parked",
        owner: Owner::Entity,
        // Those of an account mention it in the record.
        contact: ContactIn::Conversation,
        lifetime: Lifetime::UntilDone,
        written: Written::Fenced,
        contact_erasure: ContactErasure::Removed,
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Record,
        export: Export::No("records that no node has applied yet, and that this build may not read"),
    };
    /// Audiences of a tenant, by id: columns and times, nothing about people.
    Audience = 22 => Descriptor {
        name: "audience",
        owner: Owner::Tenant,
        contact: ContactIn::Nowhere,
        lifetime: Lifetime::UntilDeleted,
        written: Written::Conditional,
        contact_erasure: ContactErasure::NotAbout,
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Json(Json::Audience),
        export: Export::Tenant(Section::Audiences),
    };
    /// Members of a shard of an audience, by contact.
    Member = 23 => Descriptor {
        name: "member",
        owner: Owner::Tenant,
        contact: ContactIn::RowStart,
        lifetime: Lifetime::UntilDeleted,
        written: Written::Unfenced,
        // By the request for the erasure, which goes through the tenant's audiences.
        contact_erasure: ContactErasure::Removed,
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Sealed { under: SealedUnder::Contact, column: MEMBER_COLUMN },
        export: Export::Both(Section::Members),
    };
    /// Requests to send a message, by keyed hash of the idempotency key: a keyed hash of the request.
    Request = 40 => Descriptor {
        name: "request",
        owner: Owner::Tenant,
        contact: ContactIn::Nowhere,
        // Shorter than a conversation remembers the request.
        lifetime: Lifetime::Own,
        written: Written::Conditional,
        contact_erasure: ContactErasure::Kept(
            "keyed hashes that lead to no person and end by themselves; they keep a request from being sent twice",
        ),
        tenant_deletion: TenantDeletion::Removed,
        form: Form::Ids(&[16]),
        export: Export::No("the engine's bookkeeping of requests; the messages are in the thread"),
    };
}

impl Table {
    /// The table with this stored number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&table| table as u8 == number)
    }

    /// The name used in messages and in CQL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.descriptor().name
    }

    /// First bytes of the keys of all its rows, or with a tenant of the tenant's rows.
    #[must_use]
    pub fn prefix(self, tenant: Option<&TenantId>) -> Bytes {
        let mut bytes = vec![self as u8];
        if let Some(tenant) = tenant {
            let tenant = tenant.as_str();
            bytes.put_u8(u8::try_from(tenant.len()).unwrap_or(u8::MAX));
            bytes.put_slice(tenant.as_bytes());
        }
        bytes.into()
    }

    /// Tables whose descriptors match.
    #[must_use]
    pub fn with(matches: impl Fn(&Descriptor) -> bool) -> Vec<Self> {
        Self::ALL.into_iter().filter(|table| matches(table.descriptor())).collect()
    }

    /// Tables that hold rows of tenants; a store can walk over all of them.
    #[must_use]
    pub fn of_tenants() -> Vec<Self> {
        Self::with(|table| !matches!(table.owner, Owner::Partition | Owner::Engine))
    }
}
