//! Encoding of a frame: the changes of many batches, one after the other.
//!
//! A change is encoded on its caller's thread; the writer only fills in the offsets and times of records, whose
//! places the encoder remembers. All numbers are big-endian.

use bytes::Bytes;
use heddle_schemas::ports::log::{NewRecord, Record};
use heddle_schemas::ports::state::Write;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Epoch, Offset, Topic, TopicPartition};

const PUT: u8 = 1;
const DELETE: u8 = 2;
const RECORD: u8 = 3;
const CONSUMED: u8 = 4;
const EPOCH: u8 = 5;

/// One change, as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A row has this value, until `expires`.
    Put {
        /// The encoded key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// Expiry time.
        expires: Option<Timestamp>,
    },
    /// Deletes a row.
    Delete {
        /// The encoded key.
        key: Bytes,
    },
    /// A record was appended.
    Record(Record),
    /// A record was settled.
    Consumed(TopicPartition, Offset),
    /// The folder was opened.
    Epoch(Epoch),
}

/// Encoded changes, with the places that the writer fills in.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    /// Places of each record's offset and time.
    pub(super) records: Vec<usize>,
}

impl Encoded {
    /// Adds a row's change.
    pub(super) fn write(&mut self, write: &Write) {
        let key = write.key.as_bytes();
        match &write.value {
            Some(value) => {
                self.bytes.push(PUT);
                self.short(key);
                let expires = write.expires.map_or(i64::MAX, Timestamp::as_micros);
                self.bytes.extend_from_slice(&expires.to_be_bytes());
                self.long(value);
            }
            None => {
                self.bytes.push(DELETE);
                self.short(key);
            }
        }
    }

    /// Adds a record; its offset and time are filled in by the writer.
    pub(super) fn record(&mut self, record: &NewRecord) {
        self.bytes.push(RECORD);
        self.partition(record.partition);
        self.records.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; 16]);
        self.short(&record.key);
        self.long(&record.value);
    }

    /// Adds a settled record.
    pub(super) fn consumed(&mut self, partition: TopicPartition, offset: Offset) {
        self.bytes.push(CONSUMED);
        self.partition(partition);
        self.bytes.extend_from_slice(&offset.to_be_bytes());
    }

    /// Adds the beginning of an epoch.
    pub(super) fn epoch(&mut self, epoch: Epoch) {
        self.bytes.push(EPOCH);
        self.bytes.extend_from_slice(&epoch.0.to_be_bytes());
    }

    /// Fills in a record's offset and time.
    pub(super) fn fill(&mut self, place: usize, offset: Offset, at: Timestamp) {
        self.bytes[place..place + 8].copy_from_slice(&offset.to_be_bytes());
        self.bytes[place + 8..place + 16].copy_from_slice(&at.as_micros().to_be_bytes());
    }

    fn partition(&mut self, partition: TopicPartition) {
        self.bytes.push(topic_number(partition.topic));
        self.bytes.extend_from_slice(&partition.partition.to_be_bytes());
    }

    fn short(&mut self, bytes: &[u8]) {
        // Checked against the limits before it is encoded.
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(bytes);
    }

    fn long(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(bytes);
    }
}

/// Reads the changes of a frame's payload; `None` after them means that the rest is no change.
pub(super) fn changes(payload: &[u8]) -> impl Iterator<Item = Option<Change>> {
    each(payload, Reader::change)
}

/// Reads the records of a partition in a frame's payload and skips everything else: most of a frame is of no use to
/// a reader of older records. `None` as in [`changes`].
pub(super) fn records(payload: &[u8], wanted: TopicPartition) -> impl Iterator<Item = Option<Record>> {
    each(payload, move |reader| reader.record_of(wanted)).filter_map(|read| match read {
        Some(Some(record)) => Some(Some(record)),
        Some(None) => None,
        None => Some(None),
    })
}

fn each<'a, T>(
    payload: &'a [u8],
    read: impl Fn(&mut Reader<'a>) -> Option<T>,
) -> impl Iterator<Item = Option<T>> {
    let mut reader = Reader { bytes: payload };
    std::iter::from_fn(move || {
        if reader.bytes.is_empty() {
            return None;
        }
        let change = read(&mut reader);
        if change.is_none() {
            reader.bytes = &[];
        }
        Some(change)
    })
}

/// Reads numbers and byte strings off the front.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    /// Bytes not yet decoded.
    pub(super) bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*taken)
    }

    /// The next byte.
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next two bytes.
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next four bytes.
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next eight bytes.
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The next eight bytes, signed.
    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// A topic's number and a partition.
    pub(super) fn partition(&mut self) -> Option<TopicPartition> {
        Some(TopicPartition { topic: topic_of(self.u8()?)?, partition: self.u32()? })
    }

    fn short(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }

    fn long(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.take(len)
    }

    fn change(&mut self) -> Option<Change> {
        Some(match self.u8()? {
            PUT => {
                let key = copied(self.short()?);
                let expires = Some(self.i64()?).filter(|&at| at != i64::MAX).map(Timestamp::from_micros);
                Change::Put { key, expires, value: copied(self.long()?) }
            }
            DELETE => Change::Delete { key: copied(self.short()?) },
            RECORD => {
                let partition = self.partition()?;
                Change::Record(self.record(partition)?)
            }
            CONSUMED => Change::Consumed(self.partition()?, self.u64()?),
            EPOCH => Change::Epoch(Epoch(self.u64()?)),
            _ => return None,
        })
    }

    fn record(&mut self, partition: TopicPartition) -> Option<Record> {
        let offset = self.u64()?;
        let at = Timestamp::from_micros(self.i64()?);
        Some(Record { partition, offset, at, key: copied(self.short()?), value: copied(self.long()?) })
    }

    /// Passes over one change; the record in it, where it is one of that partition.
    fn record_of(&mut self, wanted: TopicPartition) -> Option<Option<Record>> {
        match self.u8()? {
            PUT => {
                self.short()?;
                self.i64()?;
                self.long()?;
            }
            DELETE => drop(self.short()?),
            RECORD => {
                let partition = self.partition()?;
                if partition == wanted {
                    return self.record(partition).map(Some);
                }
                self.u64()?;
                self.i64()?;
                self.short()?;
                self.long()?;
            }
            CONSUMED => {
                self.partition()?;
                self.u64()?;
            }
            EPOCH => drop(self.u64()?),
            _ => return None,
        }
        Some(None)
    }
}

/// A copy: a kept part of a frame must not keep the whole segment in memory.
fn copied(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// The stored number of a topic. It never changes.
#[must_use]
pub(super) fn topic_number(topic: Topic) -> u8 {
    match topic {
        Topic::Inbound => 1,
        Topic::Outbound => 2,
        Topic::Tenants => 3,
        Topic::Events => 4,
        Topic::Dlq => 5,
        Topic::Ingress => 6,
    }
}

fn topic_of(number: u8) -> Option<Topic> {
    Topic::ALL.into_iter().find(|&topic| topic_number(topic) == number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_schemas::table::Key;

    #[test]
    fn changes_read_back_as_they_were_encoded() {
        let partition = TopicPartition { topic: Topic::Outbound, partition: 3 };
        let row = Key::document(&"acme".parse().unwrap(), "a.md");
        let mut encoded = Encoded::default();
        encoded.write(&Write::put_until(row.clone(), "value", Timestamp::from_secs(5)));
        encoded.write(&Write::delete(row.clone()));
        let record = NewRecord { partition, key: "k".into(), value: "v".into() };
        encoded.record(&record);
        encoded.consumed(partition, 41);
        let place = encoded.records[0];
        encoded.fill(place, 7, Timestamp::from_secs(9));
        let key = row.as_bytes().clone();
        let expected = vec![
            Change::Put { key: key.clone(), value: "value".into(), expires: Some(Timestamp::from_secs(5)) },
            Change::Delete { key },
            Change::Record(Record {
                partition,
                offset: 7,
                key: "k".into(),
                value: "v".into(),
                at: Timestamp::from_secs(9),
            }),
            Change::Consumed(partition, 41),
        ];
        let read: Vec<_> = changes(&encoded.bytes).collect::<Option<_>>().unwrap();
        assert_eq!(read, expected);
        let only: Vec<_> = records(&encoded.bytes, partition).collect::<Option<_>>().unwrap();
        assert_eq!(Change::Record(only[0].clone()), expected[2]);
        let other = TopicPartition { partition: 4, ..partition };
        assert_eq!((only.len(), records(&encoded.bytes, other).count()), (1, 0));
    }

    #[test]
    fn a_payload_that_is_cut_ends_in_nothing() {
        let mut encoded = Encoded::default();
        encoded.epoch(Epoch(3));
        encoded.bytes.pop();
        let read: Vec<_> = changes(&encoded.bytes).collect();
        assert_eq!(read, [None]);
        let none = TopicPartition { topic: Topic::Inbound, partition: 0 };
        assert_eq!(records(&encoded.bytes, none).collect::<Vec<_>>(), [None]);
    }
}
