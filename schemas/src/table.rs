//! The tables of the state store and the keys of their rows.
//!
//! Every table has one shape: a partition (what is stored and fenced together), rows in byte order
//! inside it, and an opaque value. A [`Key`] names one row and can be made only here, so that no
//! row of a tenant is reached without naming the tenant.
//!
//! | table | partition | row | value | lives |
//! |---|---|---|---|---|
//! | head | conversation | none | state of the conversation | as the contact |
//! | history | conversation | sequence | what one commit added to the thread, sealed | tenant's retention |
//! | marker | conversation | message key | that the message has been seen, and in which turn | longer than every redelivery |
//! | claim | conversation | turn | who calls outside for the turn | as markers |
//! | delivery | conversation | outbound id | how far a sent message has come | tenant's retention |
//! | agenda | topic partition | due, id | what waits | until done |
//! | send | account | outbound id | the journal of one send | as markers |
//! | backlog | account | kind, then outbound id or sequence | unknown sends, and what waits for the account | until sent |
//! | alias | tenant | keyed hash of an id | the contact | as the contact |
//! | contact | tenant | contact | its consents, opt-outs and restriction, what is personal of them sealed | as the tenant |
//! | key | tenant, or none | `t`, contact or channel account | a wrapped key; without a tenant, to which master key and region the store belongs | until erased |
//! | document | tenant | document, or none | a document, sealed; without one, the version of all of them | until removed |
//! | quota | tenant | month | what was spent, and which chunks are out | as the tenant |
//! | spend | chunk of a quota | turn, attempt | what a call may cost, then what the turn cost | until its month is long over |
//! | tool | conversation | turn, step | which tools were called, and what they gave, sealed | as markers |
//! | erasure | tenant | erasure | how far an erasure has come, then its receipt | as the tenant |
//! | erasure | none | tenant, contact | an erasure that is not complete, as it was asked for | until it is |
//! | access | tenant, or none | number, or none | an entry of the audit log, chained to the one before; without one, the newest once more | as the audit log is kept |
//! | removal | none | `t` and tenant | how far the deletion of a tenant has come, then its receipt | for ever: the id is not given out twice |
//! | removal | none | `o` and tenant | nothing: the deletion is not complete | until it is |
//! | limit | none | keyed hash of a provider key | which node may use how much of its limits | until it is idle |
//! | sweep | topic partition | none | how far changed retention has been applied to its rows | as the partition |
//! | parked | topic partition | key of the log | a conversation or account that is held for records of a later build | until a node reads them |
//! | parked | conversation or account | offset | a record that waits for a node that reads it | until a node reads it |

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::id::{AccountKey, ChunkId, ContactId, ConversationId, MessageKey, OutboundId, TenantId, TurnId};
use crate::time::Timestamp;
use crate::topic::{Topic, TopicPartition};

/// A table of the state store. The numbers are stored; they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the module's table says what each holds")]
pub enum Table {
    Head = 1,
    History = 2,
    Marker = 3,
    Claim = 4,
    Delivery = 5,
    Agenda = 6,
    Send = 7,
    Backlog = 8,
    Alias = 9,
    Contact = 10,
    Key = 11,
    Document = 12,
    Quota = 13,
    Spend = 14,
    Tool = 15,
    Limit = 16,
    Erasure = 17,
    Access = 18,
    Sweep = 19,
    Removal = 20,
    Parked = 21,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 21] = [
        Self::Head,
        Self::History,
        Self::Marker,
        Self::Claim,
        Self::Delivery,
        Self::Agenda,
        Self::Send,
        Self::Backlog,
        Self::Alias,
        Self::Contact,
        Self::Key,
        Self::Document,
        Self::Quota,
        Self::Spend,
        Self::Tool,
        Self::Limit,
        Self::Erasure,
        Self::Access,
        Self::Sweep,
        Self::Removal,
        Self::Parked,
    ];

    /// The table with this stored number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&table| table as u8 == number)
    }

    /// The name used in messages and in CQL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::History => "history",
            Self::Marker => "marker",
            Self::Claim => "claim",
            Self::Delivery => "delivery",
            Self::Agenda => "agenda",
            Self::Send => "send",
            Self::Backlog => "backlog",
            Self::Alias => "alias",
            Self::Contact => "contact",
            Self::Key => "key",
            Self::Document => "document",
            Self::Quota => "quota",
            Self::Spend => "spend",
            Self::Tool => "tool",
            Self::Limit => "limit",
            Self::Erasure => "erasure",
            Self::Access => "access",
            Self::Sweep => "sweep",
            Self::Removal => "removal",
            Self::Parked => "parked",
        }
    }
}

impl Table {
    /// What the keys of all its rows begin with; with a tenant, those of the tenant's.
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
}

/// One partition of one table, from which rows are named or scanned.
///
/// Encoded as: table (1), length of the tenant (1) and tenant, length of the partition (2) and
/// partition. Agenda, limits, sweeps, deletions of tenants, what is open of erasures and a part of the audit log belong
/// to the engine, not to a tenant: their tenant is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(Bytes);

impl Partition {
    fn new(table: Table, tenant: &str, parts: &[&[u8]]) -> Self {
        let Key { bytes, .. } = Key::new(table, tenant, parts, &[]);
        Self(bytes)
    }

    fn conversation(table: Table, id: &ConversationId) -> Self {
        let Key { bytes, .. } = Key::of_conversation(table, id, &[]);
        Self(bytes)
    }

    fn account(table: Table, id: &AccountKey) -> Self {
        let Key { bytes, .. } = Key::of_account(table, id, &[]);
        Self(bytes)
    }

    /// The history of a conversation, rows by sequence.
    #[must_use]
    pub fn history(conversation: &ConversationId) -> Self {
        Self::conversation(Table::History, conversation)
    }

    /// What a conversation has seen, rows by message.
    #[must_use]
    pub fn markers(conversation: &ConversationId) -> Self {
        Self::conversation(Table::Marker, conversation)
    }

    /// Who calls outside for the turns of a conversation, rows by turn.
    #[must_use]
    pub fn claims(conversation: &ConversationId) -> Self {
        Self::conversation(Table::Claim, conversation)
    }

    /// The deliveries of a conversation, rows by outbound id.
    #[must_use]
    pub fn deliveries(conversation: &ConversationId) -> Self {
        Self::conversation(Table::Delivery, conversation)
    }

    /// What waits in a partition of the log, rows by due time.
    #[must_use]
    pub fn agenda(partition: TopicPartition) -> Self {
        let topic = agenda_letter(partition.topic);
        Self::new(Table::Agenda, "", &[&[topic], &partition.partition.to_be_bytes()])
    }

    /// What waits for an account: first sends of unknown outcome, then the queue by sequence.
    #[must_use]
    pub fn backlog(account: &AccountKey) -> Self {
        Self::account(Table::Backlog, account)
    }

    /// The documents of a tenant, rows by document id.
    #[must_use]
    pub fn documents(tenant: &TenantId) -> Self {
        Self::new(Table::Document, tenant.as_str(), &[])
    }

    /// What was spent of a chunk of a tenant's quota, rows by turn and attempt.
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

    /// The row of this name.
    #[must_use]
    pub fn row(&self, row: &[u8]) -> Key {
        let mut bytes = BytesMut::with_capacity(self.0.len() + row.len());
        bytes.put_slice(&self.0);
        bytes.put_slice(row);
        Key { row_at: self.0.len(), bytes: bytes.freeze() }
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

    /// What it is of, below the tenant: a conversation, an account, an alias; empty for documents.
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

/// What a partition is encoded from.
struct Parts<'a> {
    table: Table,
    tenant: &'a str,
    id: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Takes apart what [`Partition`] and [`Key`] begin with; a row after it is left out.
    fn of(bytes: &'a [u8]) -> Self {
        let table = Table::from_number(bytes[0]).expect("a key is made with a known table");
        let id_at = 4 + usize::from(bytes[1]);
        let len = usize::from(u16::from_be_bytes([bytes[id_at - 2], bytes[id_at - 1]]));
        // Bytes of a foreign key may be anything; those of a tenant's id are ASCII.
        let tenant = std::str::from_utf8(&bytes[2..id_at - 2]).unwrap_or_default();
        Self { table, tenant, id: &bytes[id_at..id_at + len] }
    }

    fn agenda(&self) -> Option<TopicPartition> {
        let (&[topic], partition) = self.id.split_first_chunk()?;
        let topic = agenda_topic(topic).filter(|_| self.table == Table::Agenda)?;
        Some(TopicPartition { topic, partition: u32::from_be_bytes(partition.try_into().ok()?) })
    }
}

/// The letter of a topic in the agenda's partitions. Stored; never changes.
fn agenda_letter(topic: Topic) -> u8 {
    match topic {
        Topic::Inbound => b'i',
        Topic::Outbound => b'o',
        // Nothing waits in these: their agendas are empty.
        Topic::Ingress => b'g',
        Topic::Tenants => b't',
        Topic::Events => b'e',
        Topic::Dlq => b'd',
    }
}

fn agenda_topic(letter: u8) -> Option<Topic> {
    Topic::ALL.into_iter().find(|&topic| agenda_letter(topic) == letter)
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
    fn new(table: Table, tenant: &str, parts: &[&[u8]], row: &[u8]) -> Self {
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

    fn of_conversation(table: Table, id: &ConversationId, row: &[u8]) -> Self {
        let parts: [&[u8]; 5] = [
            id.channel.as_str().as_bytes(),
            b"/",
            id.account.as_str().as_bytes(),
            b"/",
            &id.contact.to_bytes(),
        ];
        Self::new(table, id.tenant.as_str(), &parts, row)
    }

    fn of_account(table: Table, id: &AccountKey, row: &[u8]) -> Self {
        let parts: [&[u8]; 3] = [id.channel.as_str().as_bytes(), b"/", id.account.as_str().as_bytes()];
        Self::new(table, id.tenant.as_str(), &parts, row)
    }

    /// State of a conversation.
    #[must_use]
    pub fn head(conversation: &ConversationId) -> Self {
        Self::of_conversation(Table::Head, conversation, &[])
    }

    /// What a commit added to a thread.
    #[must_use]
    pub fn history(conversation: &ConversationId, sequence: u64) -> Self {
        Self::of_conversation(Table::History, conversation, &sequence.to_be_bytes())
    }

    /// That a message has been seen.
    #[must_use]
    pub fn marker(conversation: &ConversationId, message: MessageKey) -> Self {
        Self::of_conversation(Table::Marker, conversation, &message.to_bytes())
    }

    /// Who calls outside for a turn.
    #[must_use]
    pub fn claim(conversation: &ConversationId, turn: TurnId) -> Self {
        Self::of_conversation(Table::Claim, conversation, &turn.0.to_bytes())
    }

    /// How far a sent message has come.
    #[must_use]
    pub fn delivery(conversation: &ConversationId, outbound: &OutboundId) -> Self {
        Self::of_conversation(Table::Delivery, conversation, &outbound_row(outbound))
    }

    /// What waits until `due`.
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

    /// What waits for an account that is stopped, or busier than its queue holds.
    #[must_use]
    pub fn backlog(account: &AccountKey, sequence: u64) -> Self {
        let mut row = [BACKLOG_QUEUED; 9];
        row[1..].copy_from_slice(&sequence.to_be_bytes());
        Self::of_account(Table::Backlog, account, &row)
    }

    /// A send that nobody knows the outcome of.
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

    /// What a contact has consented to and opted out of.
    #[must_use]
    pub fn contact(tenant: &TenantId, contact: ContactId) -> Self {
        Self::new(Table::Contact, tenant.as_str(), &[&contact.to_bytes()], &[])
    }

    /// The wrapped key of a tenant.
    #[must_use]
    pub fn tenant_key(tenant: &TenantId) -> Self {
        Self::new(Table::Key, tenant.as_str(), &[b"t"], &[])
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

    /// The row of no tenant by which a store knows its master key.
    #[must_use]
    pub fn master_check() -> Self {
        Self::new(Table::Key, "", &[b"m"], &[])
    }

    /// The row of no tenant that says to which region a store belongs.
    #[must_use]
    pub fn region() -> Self {
        Self::new(Table::Key, "", &[b"r"], &[])
    }

    /// A document of a tenant.
    #[must_use]
    pub fn document(tenant: &TenantId, document: &str) -> Self {
        Self::new(Table::Document, tenant.as_str(), &[], document.as_bytes())
    }

    /// What a tenant has spent of a month's quota; `month` as its zone has it, such as `2026-11`.
    #[must_use]
    pub fn quota(tenant: &TenantId, month: &str) -> Self {
        Self::new(Table::Quota, tenant.as_str(), &[month.as_bytes()], &[])
    }

    /// What a turn has spent of a chunk; attempts are those at calls to the outside, 0 where none was made.
    #[must_use]
    pub fn spend(tenant: &TenantId, chunk: ChunkId, turn: &SpentBy) -> Self {
        Self::new(Table::Spend, tenant.as_str(), &[&chunk.to_bytes()], &turn.to_bytes())
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

    /// That the erasure of a contact is under way.
    #[must_use]
    pub fn open_erasure(tenant: &TenantId, contact: ContactId) -> Self {
        let row = [tenant.as_str().as_bytes(), b"/", &contact.to_bytes()].concat();
        Partition::open_erasures().row(&row)
    }

    /// Whose erasure is under way, of a row of [`Partition::open_erasures`].
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

    /// That the deletion of a tenant is not complete.
    #[must_use]
    pub fn open_removal(tenant: &TenantId) -> Self {
        Partition::removals().row(&[&[REMOVAL_OPEN], tenant.as_str().as_bytes()].concat())
    }

    /// Whose deletion is not complete, of a row of [`Partition::removals`].
    #[must_use]
    pub fn of_open_removal(&self) -> Option<TenantId> {
        let (&REMOVAL_OPEN, tenant) = self.row().split_first()? else { return None };
        std::str::from_utf8(tenant).ok()?.parse().ok()
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

    /// How far changed retention has been applied to the rows of a partition.
    #[must_use]
    pub fn sweep(partition: TopicPartition) -> Self {
        let topic = agenda_letter(partition.topic);
        Self::new(Table::Sweep, "", &[&[topic], &partition.partition.to_be_bytes()], &[])
    }

    /// How the limits of a provider key are shared out.
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

    /// What its partition is of; see [`Partition::id`].
    #[must_use]
    pub fn id(&self) -> &[u8] {
        Parts::of(&self.bytes).id
    }

    /// The partition of the log whose agenda it is in; `None` for every other table.
    #[must_use]
    pub fn of_agenda(&self) -> Option<TopicPartition> {
        Parts::of(&self.bytes).agenda()
    }

    /// The key in the log of whom a parked record is for; `None` for every other row.
    fn parked_for(&self, topic: Topic) -> Option<String> {
        let parts = Parts::of(&self.bytes);
        let is_one = parts.table == Table::Parked && !parts.tenant.is_empty();
        let entity = parts.id.strip_prefix(&[agenda_letter(topic)]).filter(|_| is_one)?;
        Some(format!("{}/{}", parts.tenant, std::str::from_utf8(entity).ok()?))
    }

    /// The conversation whose row it is; `None` for tables of something else, and for a key that no id made.
    #[must_use]
    pub fn conversation(&self) -> Option<ConversationId> {
        if let Some(parked) = self.parked_for(Topic::Inbound) {
            return parked.parse().ok();
        }
        let of_conversations =
            [Table::Head, Table::History, Table::Marker, Table::Claim, Table::Delivery, Table::Tool];
        let parts = Parts::of(&self.bytes);
        let (account, contact) = parts.id.split_last_chunk::<16>()?;
        let account = account.strip_suffix(b"/").filter(|_| of_conversations.contains(&parts.table))?;
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
        let is_accounts = matches!(parts.table, Table::Send | Table::Backlog);
        account_of(parts.tenant, parts.id).filter(|_| is_accounts)
    }

    /// The contact about whom the row is, where it is about one.
    #[must_use]
    pub fn about(&self) -> Option<ContactId> {
        let contact = |id: &[u8]| Some(ContactId::from_bytes(id.try_into().ok()?));
        match self.table() {
            Table::Contact => contact(self.id()),
            Table::Key => contact(self.id().strip_prefix(b"c")?),
            Table::Send => OutboundId::from_row(self.row()).map(|id| id.contact),
            Table::Spend => contact(self.row().first_chunk::<16>()?),
            _ => self.conversation().map(|conversation| conversation.contact),
        }
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

/// The first byte of the row of a deletion that is not complete.
pub const REMOVAL_OPEN: u8 = b'o';
/// The first byte of the row of a deletion.
pub const REMOVAL_TOLD: u8 = b't';

/// Who has spent: an attempt at a turn of a conversation.
///
/// A turn is named after a message, whose key is of its conversation; the contact tells apart what is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpentBy {
    /// With whom.
    pub contact: ContactId,
    /// Which turn.
    pub turn: TurnId,
    /// Which attempt at calling the outside, from 1; 0 where none was made.
    pub attempt: u8,
}

impl SpentBy {
    /// Of this attempt.
    #[must_use]
    pub fn new(contact: ContactId, turn: TurnId, attempt: u32) -> Self {
        Self { contact, turn, attempt: u8::try_from(attempt).unwrap_or(u8::MAX) }
    }

    fn to_bytes(self) -> [u8; 33] {
        let mut row = [0_u8; 33];
        row[..16].copy_from_slice(&self.contact.to_bytes());
        row[16..32].copy_from_slice(&self.turn.0.to_bytes());
        row[32] = self.attempt;
        row
    }
}

/// The first byte of backlog rows of sends of unknown outcome.
pub const BACKLOG_UNKNOWN: u8 = 0;
/// The first byte of backlog rows that wait in order.
pub const BACKLOG_QUEUED: u8 = 1;

/// The first eight bytes of an agenda row: rows below it are due before `due`.
#[must_use]
pub fn agenda_bound(due: Timestamp) -> [u8; 8] {
    // Times before 1970 do not occur; the sign bit would break the order.
    u64::try_from(due.as_micros()).unwrap_or(0).to_be_bytes()
}

impl OutboundId {
    /// Reads it from a row that is named by it.
    #[must_use]
    pub fn from_row(row: &[u8]) -> Option<Self> {
        let row: &[u8; 34] = row.try_into().ok()?;
        let (contact, rest) = row.split_first_chunk::<16>()?;
        let (turn, index) = rest.split_first_chunk::<16>()?;
        Some(Self {
            contact: ContactId::from_bytes(*contact),
            turn: TurnId(MessageKey::from_bytes(*turn)),
            index: u16::from_be_bytes(index.try_into().ok()?),
        })
    }
}

fn outbound_row(outbound: &OutboundId) -> [u8; 34] {
    let mut row = [0_u8; 34];
    row[..16].copy_from_slice(&outbound.contact.to_bytes());
    row[16..32].copy_from_slice(&outbound.turn.0.to_bytes());
    row[32..].copy_from_slice(&outbound.index.to_be_bytes());
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(tenant: &str, contact: u8) -> ConversationId {
        ConversationId {
            tenant: tenant.parse().unwrap(),
            channel: crate::id::ChannelKind::Whatsapp,
            account: "1122".parse().unwrap(),
            contact: ContactId::from_bytes([contact; 16]),
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "what stores do is tried here")]
    fn a_key_reads_back_from_its_bytes() {
        let key = Key::history(&conversation("acme", 1), 7);
        let back = Key::from_bytes(key.as_bytes().clone()).unwrap();
        assert_eq!(back, key);
        assert_eq!(back.table(), Table::History);
        assert_eq!(back.row(), 7_u64.to_be_bytes());
        assert_eq!(back.partition(), Partition::history(&conversation("acme", 1)));
        assert_eq!(Key::stored(back.table(), back.tenant(), back.id(), back.row()), key);
    }

    #[test]
    fn keys_begin_with_their_table_and_tenant() {
        let key = Key::history(&conversation("acme", 1), 7);
        let of = |tenant: &str| Table::History.prefix(Some(&tenant.parse().unwrap()));
        assert!(key.as_bytes().starts_with(&Table::History.prefix(None)));
        assert!(key.as_bytes().starts_with(&of("acme")));
        for other in ["acm", "acme1", "b"] {
            assert!(!key.as_bytes().starts_with(&of(other)), "{other}");
        }
    }

    #[test]
    fn no_partition_begins_with_another() {
        let partitions = [
            Partition::history(&conversation("a", 1)),
            Partition::history(&conversation("a", 2)),
            Partition::history(&conversation("ab", 1)),
            Partition::deliveries(&conversation("a", 1)),
            Partition::documents(&"a".parse().unwrap()),
            Partition::documents(&"ab".parse().unwrap()),
        ];
        for (i, one) in partitions.iter().enumerate() {
            for (j, other) in partitions.iter().enumerate() {
                assert!(i == j || !other.as_bytes().starts_with(one.as_bytes()), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_key_says_what_it_was_made_of() {
        let of = conversation("acme", 7);
        let key = Key::history(&of, 1);
        assert_eq!((key.table(), key.tenant()), (Table::History, "acme"));
        let mut id = b"whatsapp/1122/".to_vec();
        id.extend([7; 16]);
        assert_eq!(key.id(), id);
        assert_eq!(key.of_agenda(), None);
        let partition = key.partition();
        assert_eq!((partition.table(), partition.tenant(), partition.id()), (Table::History, "acme", &*id));
        let document = Key::document(&"acme".parse().unwrap(), "faq");
        assert_eq!((document.tenant(), document.id(), document.row()), ("acme", &b""[..], &b"faq"[..]));
    }

    #[test]
    fn a_key_says_whose_it_is() {
        // A contact's bytes may be anything, a slash too.
        let of = conversation("acme", b'/');
        let account =
            AccountKey { tenant: of.tenant.clone(), channel: of.channel, account: of.account.clone() };
        let turn = TurnId(MessageKey::from_bytes([3; 16]));
        let outbound = OutboundId { contact: of.contact, turn, index: 1 };
        for key in [
            Key::head(&of),
            Key::history(&of, 1),
            Key::marker(&of, turn.0),
            Key::claim(&of, turn),
            Key::delivery(&of, &outbound),
            Key::tool(&of, turn, 1),
        ] {
            assert_eq!((key.conversation(), key.account()), (Some(of.clone()), None), "{key:?}");
            assert_eq!(key.about(), Some(of.contact), "{key:?}");
        }
        for key in [Key::send(&account, &outbound), Key::backlog(&account, 1)] {
            assert_eq!((key.conversation(), key.account()), (None, Some(account.clone())), "{key:?}");
        }
        let spent = SpentBy::new(of.contact, turn, 1);
        for key in [
            Key::send(&account, &outbound),
            Key::contact(&of.tenant, of.contact),
            Key::contact_key(&of.tenant, of.contact),
            Key::spend(&of.tenant, ChunkId::from_bytes([4; 16]), &spent),
        ] {
            assert_eq!(key.about(), Some(of.contact), "{key:?}");
        }
        for key in
            [Key::tenant_key(&of.tenant), Key::alias(&of.tenant, turn.0), Key::document(&of.tenant, "x")]
        {
            assert_eq!((key.about(), key.conversation(), key.account()), (None, None, None), "{key:?}");
        }
    }

    #[test]
    fn an_agenda_says_whose_it_is() {
        for topic in Topic::ALL {
            let of = TopicPartition { topic, partition: 70_000 };
            let key = Key::agenda(of, Timestamp::from_secs(1), b"x");
            assert_eq!((key.of_agenda(), key.partition().of_agenda()), (Some(of), Some(of)));
            assert_eq!(key.tenant(), "");
        }
    }

    #[test]
    fn an_outbound_id_reads_back_from_its_row() {
        let of = conversation("acme", 7);
        let turn = TurnId(MessageKey::from_bytes([3; 16]));
        let outbound = OutboundId { contact: of.contact, turn, index: 517 };
        assert_eq!(OutboundId::from_row(Key::delivery(&of, &outbound).row()), Some(outbound));
        assert_eq!(OutboundId::from_row(&[0; 33]), None);
    }

    #[test]
    fn a_row_says_which_conversation_or_account_it_is_of() {
        let of = conversation("acme", b'/');
        let turn = TurnId(MessageKey::from_bytes([3; 16]));
        let outbound = OutboundId { contact: of.contact, turn, index: 1 };
        let of_conversation = [
            Key::head(&of),
            Key::history(&of, 1),
            Key::marker(&of, turn.0),
            Key::claim(&of, turn),
            Key::delivery(&of, &outbound),
            Key::tool(&of, turn, 1),
        ];
        for key in of_conversation {
            assert_eq!((key.conversation(), key.account()), (Some(of.clone()), None), "{key:?}");
        }
        let account = of.account();
        for key in
            [Key::send(&account, &outbound), Key::backlog(&account, 7), Key::unknown(&account, &outbound)]
        {
            assert_eq!((key.conversation(), key.account()), (None, Some(account.clone())), "{key:?}");
        }
        let others = [Key::tenant_key(&of.tenant), Key::document(&of.tenant, "a/b")];
        assert!(others.iter().all(|key| key.conversation().is_none() && key.account().is_none()));
    }

    #[test]
    fn a_parked_record_says_whom_it_is_for() {
        let of = conversation("acme", b'/');
        let entity = |key: String| key.split_once('/').unwrap().1.to_owned();
        let inbound = Partition::parked(&of.tenant, Topic::Inbound, &entity(of.to_string()));
        let key = inbound.row(&7_u64.to_be_bytes());
        assert_eq!(
            (key.conversation(), key.account(), key.about()),
            (Some(of.clone()), None, Some(of.contact))
        );
        let account = of.account();
        let outbound = Partition::parked(&of.tenant, Topic::Outbound, &entity(account.to_string()));
        let key = outbound.row(&7_u64.to_be_bytes());
        assert_eq!((key.conversation(), key.account(), key.tenant()), (None, Some(account), "acme"));
        let held =
            Partition::held(TopicPartition { topic: Topic::Inbound, partition: 3 }).row(b"acme/pigeon/1/x");
        assert_eq!((held.conversation(), held.account(), held.tenant()), (None, None, ""));
    }

    #[test]
    fn an_open_removal_says_whose_it_is() {
        let tenant: TenantId = "acme".parse().unwrap();
        assert_eq!(Key::open_removal(&tenant).of_open_removal(), Some(tenant.clone()));
        assert_eq!(Key::removal(&tenant).of_open_removal(), None);
    }

    #[test]
    fn an_open_erasure_says_whose_it_is() {
        let (tenant, contact): (TenantId, _) = ("acme".parse().unwrap(), ContactId::from_bytes([b'/'; 16]));
        let key = Key::open_erasure(&tenant, contact);
        assert_eq!((key.of_open_erasure(), key.tenant()), (Some((tenant, contact)), ""));
        assert_eq!(
            Key::erasure(&"acme".parse().unwrap(), MessageKey::from_bytes([1; 16])).of_open_erasure(),
            None
        );
    }

    #[test]
    fn agenda_rows_sort_by_due_time() {
        let partition = TopicPartition { topic: Topic::Inbound, partition: 3 };
        let early = Key::agenda(partition, Timestamp::from_secs(1), b"z");
        let late = Key::agenda(partition, Timestamp::from_secs(300), b"a");
        assert!(early < late);
    }
}
