//! Which CQL row a key is: the one place that knows both shapes.
//!
//! | CQL table | partition | rows | holds |
//! |---|---|---|---|
//! | conversation | tenant, id | kind, row | head, marker, claim, delivery, tool |
//! | history | tenant, id | row, newest first | history |
//! | account | tenant, id | row | backlog |
//! | send | tenant, id, row | none | send |
//! | record | tenant, id, kind | none | alias, contact, key, quota, limit, sweep |
//! | document | tenant, id | row | document |
//! | spend | tenant, id | row | spend |
//! | member | tenant, id | row | member |
//! | register | tenant, id | kind, row | erasure, access, removal, parked, audience |
//! | agenda | topic, partition, bucket | row | agenda |
//!
//! Conversation and history have the same partition key, so that a turn is one batch of one partition.
//! `kind` is the number of the key's table. What is only ever looked up by its whole key has a partition
//! to itself: it spreads evenly, however many rows an account or a tenant has.

use std::slice;

use heddle_schemas::table::{Key, Partition, Table, Written};
use scylla::errors::SerializationError;
use scylla::frame::response::result::ColumnSpec;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::value::SerializeValue;
use scylla::serialize::writers::RowWriter;
use scylla::value::CqlValue;

use super::agenda::{self, Bucket};

/// A table of the keyspace that holds rows of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Stored {
    Conversation,
    History,
    Account,
    Send,
    Record,
    Document,
    Spend,
    Member,
    Register,
    Agenda,
}

impl Stored {
    pub(super) const ALL: [Self; 10] = [
        Self::Conversation,
        Self::History,
        Self::Account,
        Self::Send,
        Self::Record,
        Self::Document,
        Self::Spend,
        Self::Member,
        Self::Register,
        Self::Agenda,
    ];

    pub(super) fn of(table: Table) -> Self {
        match table {
            Table::Head | Table::Marker | Table::Claim | Table::Delivery | Table::Tool => Self::Conversation,
            Table::History => Self::History,
            Table::Agenda => Self::Agenda,
            Table::Send => Self::Send,
            Table::Backlog => Self::Account,
            Table::Alias
            | Table::Contact
            | Table::Key
            | Table::Quota
            | Table::Limit
            | Table::Sweep
            | Table::Request => Self::Record,
            Table::Document => Self::Document,
            Table::Spend => Self::Spend,
            Table::Member => Self::Member,
            Table::Erasure | Table::Access | Table::Removal | Table::Parked | Table::Audience => {
                Self::Register
            }
        }
    }

    /// Tables whose rows it holds.
    fn tables(self) -> impl Iterator<Item = Table> {
        Table::ALL.into_iter().filter(move |table| Self::of(*table) == self)
    }

    /// The table whose rows it holds, if it has no `kind` that distinguishes them.
    fn only(self) -> Option<Table> {
        self.tables().next().filter(|_| !self.has_kind())
    }

    /// The key that is stored under these values of its primary key; `None` for an agenda's, and where they are
    /// none of this build's.
    #[expect(clippy::disallowed_methods, reason = "a store reads back the keys that it was given")]
    pub(super) fn key(self, values: &mut impl Iterator<Item = Option<CqlValue>>) -> Option<Key> {
        let tenant = values.next()?.and_then(CqlValue::into_string)?;
        let id = values.next()?.and_then(CqlValue::into_blob)?;
        let table = match self.only() {
            Some(table) => table,
            None => {
                let kind = values.next()?.as_ref().and_then(CqlValue::as_tinyint)?;
                Table::from_number(u8::try_from(kind).ok()?)?
            }
        };
        let row = if self.has_row() { values.next()?.and_then(CqlValue::into_blob)? } else { Vec::new() };
        (Self::of(table) == self && self != Self::Agenda).then(|| Key::stored(table, &tenant, &id, &row))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Conversation => "conversation",
            Self::History => "history",
            Self::Account => "account",
            Self::Send => "send",
            Self::Record => "record",
            Self::Document => "document",
            Self::Spend => "spend",
            Self::Member => "member",
            Self::Register => "register",
            Self::Agenda => "agenda",
        }
    }

    /// The columns of its primary key, in the order in which [`Place`] writes them.
    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Conversation | Self::Register => &["tenant", "id", "kind", "row"],
            Self::History | Self::Account | Self::Send | Self::Document | Self::Spend | Self::Member => {
                &["tenant", "id", "row"]
            }
            Self::Record => &["tenant", "id", "kind"],
            Self::Agenda => &["topic", "partition", "bucket", "row"],
        }
    }

    /// The columns before `row`, where rows can be scanned.
    pub(super) fn scanned_within(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Send | Self::Record => None,
            _ => self.columns().split_last().map(|(_, before)| before),
        }
    }

    /// Returns true if its rows lie from the last to the first.
    pub(super) fn is_descending(self) -> bool {
        self == Self::History
    }

    /// Returns whether some of its rows are written on a condition.
    pub(super) fn is_conditional(self) -> bool {
        self.tables()
            .any(|table| matches!(table.descriptor().written, Written::Conditional | Written::Versioned))
    }

    fn has_kind(self) -> bool {
        matches!(self, Self::Conversation | Self::Record | Self::Register)
    }

    fn has_row(self) -> bool {
        self != Self::Record
    }

    /// Tables of one family have the same partition key.
    fn family(self) -> Self {
        if self == Self::History { Self::Conversation } else { self }
    }
}

/// Location of a row, without kind and row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Home<'k> {
    Of(&'k str, &'k [u8]),
    Agenda(Bucket),
}

/// The primary key of a row, or with `row: None` what a scan is within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'k> {
    pub(super) stored: Stored,
    home: Home<'k>,
    kind: Option<i8>,
    row: Option<&'k [u8]>,
}

/// Identity of a CQL partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Unit<'k>(Stored, Home<'k>, Option<i8>, Option<&'k [u8]>);

impl<'k> Place<'k> {
    pub(super) fn of(key: &'k Key) -> Self {
        let stored = Stored::of(key.table());
        let home = match key.of_agenda() {
            Some(partition) => Home::Agenda(Bucket { partition, number: agenda::bucket(key.row()) }),
            None => Home::Of(key.tenant(), key.id()),
        };
        let row = stored.has_row().then(|| key.row());
        Self { stored, home, kind: kind(stored, key.table()), row }
    }

    /// Returns the location of the rows of a partition other than an agenda.
    pub(super) fn within(partition: &'k Partition) -> Self {
        let stored = Stored::of(partition.table());
        let home = Home::Of(partition.tenant(), partition.id());
        Self { stored, home, kind: kind(stored, partition.table()), row: None }
    }

    /// Returns the location of the rows of a bucket of an agenda.
    pub(super) fn within_bucket(bucket: Bucket) -> Self {
        Self { stored: Stored::Agenda, home: Home::Agenda(bucket), kind: None, row: None }
    }

    /// Its bucket, where it is in an agenda.
    pub(super) fn bucket(&self) -> Option<Bucket> {
        match self.home {
            Home::Agenda(bucket) => Some(bucket),
            Home::Of(..) => None,
        }
    }

    /// The CQL partition it is in.
    pub(super) fn unit(&self) -> Unit<'k> {
        let kind = self.kind.filter(|_| self.stored == Stored::Record);
        let row = self.row.filter(|_| self.stored == Stored::Send);
        Unit(self.stored.family(), self.home, kind, row)
    }

    fn write(&self, cells: &mut Cells<'_, '_>) -> Result<(), SerializationError> {
        match self.home {
            Home::Of(tenant, id) => {
                cells.put(&tenant)?;
                cells.put(&id)?;
            }
            Home::Agenda(bucket) => {
                cells.put(&bucket.partition.topic.as_str())?;
                cells.put(&agenda::partition_number(bucket.partition))?;
                cells.put(&bucket.number)?;
            }
        }
        if let Some(kind) = self.kind {
            cells.put(&kind)?;
        }
        self.row.map_or(Ok(()), |row| cells.put(&row))
    }
}

fn kind(stored: Stored, table: Table) -> Option<i8> {
    // The numbers of tables are small.
    stored.has_kind().then_some(table as i8)
}

/// A value beside the primary key's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'v> {
    Int(i32),
    Long(i64),
    Blob(Option<&'v [u8]>),
}

/// At most three of them, in the statement's order.
pub(super) type Few<'v> = [Option<Value<'v>>; 3];

pub(super) const NONE: Few<'static> = [None; 3];

/// The values of a statement: those before the place, the place, those after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'v> {
    pub(super) before: Few<'v>,
    pub(super) place: Place<'v>,
    pub(super) after: Few<'v>,
}

impl SerializeRow for Values<'_> {
    fn serialize(
        &self,
        context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        let mut cells = Cells { columns: context.columns().iter(), writer };
        cells.put_few(&self.before)?;
        self.place.write(&mut cells)?;
        cells.put_few(&self.after)?;
        if cells.columns.next().is_some() { Err(SerializationError::new(OtherValues)) } else { Ok(()) }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// Writes values one after the other, each checked against its column.
struct Cells<'c, 'w> {
    columns: slice::Iter<'c, ColumnSpec<'c>>,
    writer: &'c mut RowWriter<'w>,
}

impl Cells<'_, '_> {
    fn put(&mut self, value: &dyn SerializeValue) -> Result<(), SerializationError> {
        let column = self.columns.next().ok_or_else(|| SerializationError::new(OtherValues))?;
        value.serialize(column.typ(), self.writer.make_cell_writer()).map(drop)
    }

    fn put_few(&mut self, few: &Few<'_>) -> Result<(), SerializationError> {
        few.iter().flatten().try_for_each(|value| match value {
            Value::Int(number) => self.put(number),
            Value::Long(number) => self.put(number),
            Value::Blob(bytes) => self.put(bytes),
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the statement takes another number of values")]
struct OtherValues;

#[cfg(test)]
mod tests {
    use heddle_schemas::id::{AccountKey, ChannelKind, ContactId, MessageKey, OutboundId, TurnId};
    use heddle_schemas::time::Timestamp;
    use heddle_schemas::topic::{Topic, TopicPartition};

    use super::*;
    use crate::fixtures::conversation;

    #[test]
    fn a_turn_is_in_one_partition_and_another_conversation_in_another() {
        let keys = [
            Key::head(&conversation(1)),
            Key::history(&conversation(1), 7),
            Key::marker(&conversation(1), MessageKey::from_bytes([2; 16])),
            Key::claim(&conversation(1), TurnId(MessageKey::from_bytes([3; 16]))),
        ];
        for key in &keys {
            assert_eq!(Place::of(key).unit(), Place::of(&keys[0]).unit(), "{key:?}");
        }
        let other = Key::head(&conversation(2));
        assert_ne!(Place::of(&other).unit(), Place::of(&keys[0]).unit());
    }

    #[test]
    fn what_is_only_looked_up_has_a_partition_a_row() {
        let account = AccountKey {
            tenant: "acme".parse().unwrap(),
            channel: ChannelKind::Whatsapp,
            account: "1122".parse().unwrap(),
        };
        let outbound = |index| {
            OutboundId::of_turn(
                ContactId::from_bytes([1; 16]),
                TurnId(MessageKey::from_bytes([1; 16])),
                index,
            )
        };
        let (one, other) = (Key::send(&account, &outbound(0)), Key::send(&account, &outbound(1)));
        assert_ne!(Place::of(&one).unit(), Place::of(&other).unit());
        let tenant = "acme".parse().unwrap();
        let contact = ContactId::from_bytes([b'c'; 16]);
        let (details, alias) =
            (Key::contact(&tenant, contact), Key::alias(&tenant, MessageKey::from_bytes([b'c'; 16])));
        assert_ne!(Place::of(&details).unit(), Place::of(&alias).unit(), "the same id in two tables");
        assert_eq!(
            Place::of(&Key::backlog(&account, 1)).unit(),
            Place::of(&Key::backlog(&account, 2)).unit()
        );
    }

    #[test]
    fn a_table_without_a_kind_holds_rows_of_one_table_only() {
        for stored in Stored::ALL {
            let tables = stored.tables().count();
            assert!(tables > 0 && (stored.has_kind() || tables == 1), "{stored:?} holds {tables} tables");
        }
    }

    #[test]
    fn conditional_statements_are_prepared_where_rows_are_written_so() {
        let conditional = Stored::ALL.into_iter().filter(|stored| stored.is_conditional());
        let expected = [Stored::Conversation, Stored::Record, Stored::Document, Stored::Register];
        assert_eq!(conditional.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_agenda_is_split_by_due_time() {
        let partition = TopicPartition { topic: Topic::Inbound, partition: 1 };
        let at = |seconds| Key::agenda(partition, Timestamp::from_secs(seconds), b"x");
        let (early, same, late) = (at(100), at(109), at(110));
        assert_eq!(Place::of(&early).unit(), Place::of(&same).unit());
        assert_ne!(Place::of(&early).unit(), Place::of(&late).unit());
        assert_eq!(Place::of(&late).bucket(), Some(Bucket { partition, number: 11 }));
    }
}
