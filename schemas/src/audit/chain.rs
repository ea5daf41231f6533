//! How entries are chained, written and verified. Pure.
//!
//! A row holds one byte version (1), the hash (32), the mark (16) and the body as JSON. The head's row holds
//! one byte version, a mark of its own and a copy of the newest row. The head moves on first, and its entry is
//! put in its place after that: whoever moves the head, with one conditional write, has decided which entry is the
//! next, and a crash in between loses nothing, since the head has it. So every row up to the one before the head
//! is there, and the head's own row is missing only in between.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Act, Body, Digest, Entry};
use crate::id::{MessageKey, TenantId};
use crate::ports::keys::TenantCipher;
use crate::record::{V, encode};
use crate::time::Timestamp;

/// The version of a row.
const VERSION: u8 = 1;
const LABEL: &[u8] = b"heddle/audit/1";
/// The domain of the marks of entries, see [`TenantCipher::hash`].
const ENTRIES: &str = "audit";
/// The domain of the marks of heads.
const HEADS: &str = "audit-head";
const HASH: usize = 32;
const MARK: usize = 16;
/// Faults that are told one by one; the others are counted.
const TOLD: usize = 100;

/// An entry, and the row that it is stored as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it says.
    pub entry: Entry,
    /// As it is stored.
    pub bytes: Bytes,
}

impl Row {
    /// The next entry of a chain; `before` is the newest one, of whose mark nothing is taken for granted.
    #[must_use]
    pub fn after(
        before: Option<&Entry>,
        tenant: Option<&TenantId>,
        cipher: &dyn TenantCipher,
        (id, at): (MessageKey, Timestamp),
        act: Act,
    ) -> Self {
        let number = before.map_or(1, |before| before.body.number + 1);
        let previous = before.map_or(Digest::NONE, |before| before.hash);
        Self::write((number, previous), tenant, cipher, (id, at), act)
    }

    /// An entry behind a break: of this number and on from this hash, whatever stands before it.
    #[must_use]
    pub fn write(
        (number, previous): (u64, Digest),
        tenant: Option<&TenantId>,
        cipher: &dyn TenantCipher,
        (id, at): (MessageKey, Timestamp),
        act: Act,
    ) -> Self {
        let body = Body { v: V, number, id, at, act, previous };
        let text = encode(&body);
        let hash = hash(tenant, &text);
        let mark = cipher.hash(ENTRIES, hash.as_bytes());
        let mut bytes = Vec::with_capacity(1 + HASH + MARK + text.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(hash.as_bytes());
        bytes.extend_from_slice(&mark.to_bytes());
        bytes.extend_from_slice(&text);
        Self { entry: Entry { body, hash, mark }, bytes: bytes.into() }
    }

    /// What is stored, whether or not it is what was written; `None` when it is no entry at all.
    #[must_use]
    pub fn read(bytes: &Bytes) -> Option<Self> {
        let (&[version], rest) = bytes.split_first_chunk()?;
        let (hash, rest) = rest.split_first_chunk::<HASH>()?;
        let (mark, text) = rest.split_first_chunk::<MARK>()?;
        if version != VERSION {
            return None;
        }
        let body = serde_json::from_slice(text).ok()?;
        let (hash, mark) = (Digest::from_bytes(*hash), MessageKey::from_bytes(*mark));
        Some(Self { entry: Entry { body, hash, mark }, bytes: bytes.clone() })
    }

    /// The row of the head that says that this is the newest.
    #[must_use]
    pub fn head(&self, cipher: &dyn TenantCipher) -> Bytes {
        let mark = cipher.hash(HEADS, self.entry.hash.as_bytes());
        [&[VERSION][..], &mark.to_bytes(), &self.bytes].concat().into()
    }

    /// The newest entry, as the head's row has it, and the head's mark.
    #[must_use]
    pub fn of_head(head: &Bytes) -> Option<(Self, MessageKey)> {
        let (&[version], rest) = head.split_first_chunk()?;
        let (mark, _) = rest.split_first_chunk::<MARK>()?;
        if version != VERSION {
            return None;
        }
        Some((Self::read(&head.slice(1 + MARK..))?, MessageKey::from_bytes(*mark)))
    }

    /// The newest entry, if the head and it were written with the key.
    #[must_use]
    pub fn of_trusted_head(
        head: &Bytes,
        tenant: Option<&TenantId>,
        cipher: &dyn TenantCipher,
    ) -> Option<Self> {
        let (row, mark) = Self::of_head(head)?;
        let ours = cipher.hash(HEADS, row.entry.hash.as_bytes()) == mark;
        (ours && row.check(tenant, Some(cipher)).is_none()).then_some(row)
    }

    /// Whether hash and mark are those of the body; without a cipher, whether the hash is.
    fn check(&self, tenant: Option<&TenantId>, cipher: Option<&dyn TenantCipher>) -> Option<Fault> {
        let Entry { body: Body { number, .. }, hash: stored, mark } = &self.entry;
        if hash(tenant, &self.bytes[1 + HASH + MARK..]) != *stored {
            return Some(Fault::Changed { number: *number });
        }
        let forged = cipher.is_some_and(|cipher| cipher.hash(ENTRIES, stored.as_bytes()) != *mark);
        forged.then_some(Fault::Forged { number: *number })
    }
}

fn hash(tenant: Option<&TenantId>, body: &[u8]) -> Digest {
    let tenant = tenant.map_or("", TenantId::as_str);
    let mut hash = Sha256::new();
    for part in [LABEL, b"\0", tenant.as_bytes(), b"\0", body] {
        hash.update(part);
    }
    Digest::from_bytes(hash.finalize().into())
}

/// Where a chain is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// Entries are missing in the middle.
    Missing {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// The end was cut: the head, or somebody who noted it, knows of later entries.
    Cut {
        /// The first that is missing.
        from: u64,
        /// The last that is known of.
        to: u64,
    },
    /// A row is no entry.
    Unreadable {
        /// Its number.
        number: u64,
    },
    /// An entry's hash is not that of what it says.
    Changed {
        /// Its number.
        number: u64,
    },
    /// An entry's hash is right and its mark is not: whoever wrote it had no key.
    Forged {
        /// Its number.
        number: u64,
    },
    /// A row holds another one's entry.
    Misplaced {
        /// The row's number.
        number: u64,
        /// The entry's.
        holds: u64,
    },
    /// An entry does not go on from the one before.
    Unlinked {
        /// Its number.
        number: u64,
    },
    /// An entry is another one than somebody noted.
    Replaced {
        /// Its number.
        number: u64,
    },
    /// There are entries and no head.
    NoHead,
    /// The head is no entry, or whoever wrote it had no key.
    ForgedHead,
    /// The head was set back: there are later entries, or others.
    OldHead {
        /// The number that it names.
        names: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { from, to } if from == to => write!(f, "entry {from} is missing"),
            Self::Missing { from, to } => write!(f, "entries {from} to {to} are missing"),
            Self::Cut { from, to } if from == to => write!(f, "the end was cut: entry {from} is missing"),
            Self::Cut { from, to } => write!(f, "the end was cut: entries {from} to {to} are missing"),
            Self::Unreadable { number } => write!(f, "row {number} is no entry"),
            Self::Changed { number } => {
                write!(f, "entry {number} was changed: its hash is not that of what it says")
            }
            Self::Forged { number } => {
                write!(f, "entry {number} was forged: its mark is not of the tenant's key")
            }
            Self::Misplaced { number, holds } => write!(f, "row {number} holds entry {holds}"),
            Self::Unlinked { number } => write!(f, "entry {number} does not go on from the one before"),
            Self::Replaced { number } => write!(f, "entry {number} is another one than was noted"),
            Self::NoHead => f.write_str("the head is missing, so nobody knows where the chain ends"),
            Self::ForgedHead => f.write_str("the head was forged: its mark is not of the tenant's key"),
            Self::OldHead { names } => write!(f, "the head was set back: it names entry {names}"),
        }
    }
}

/// An entry that somebody noted, such as the newest one of an earlier verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Noted {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: Digest,
}

impl fmt::Display for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

impl std::str::FromStr for Noted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (number, hash) = text.split_once(':')?;
            Some(Self { number: number.parse().ok()?, hash: hash.parse().ok()? })
        };
        read().ok_or_else(|| format!("{text:?} is no NUMBER:HASH as `heddle audit log --verify` prints it"))
    }
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Whose chain; none for that of no tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Entries that were read.
    pub entries: u64,
    /// The newest of them: note it, and a later verification can be told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Noted>,
    /// Whether marks were checked: not without the key, which is gone with an erased tenant.
    pub keyed: bool,
    /// Where it breaks, from the beginning on; the first hundred.
    pub faults: Vec<Fault>,
    /// Further faults.
    pub more_faults: u64,
}

impl Verdict {
    /// Whether the chain is as it was written, as far as it could be checked.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Reads a chain from its first row to its last.
pub struct Verifier<'a> {
    tenant: Option<&'a TenantId>,
    cipher: Option<&'a dyn TenantCipher>,
    noted: BTreeMap<u64, Digest>,
    next: u64,
    before: Option<Digest>,
    newest: Option<Noted>,
    entries: u64,
    faults: Vec<Fault>,
    more: u64,
}

impl<'a> Verifier<'a> {
    /// Of a tenant's chain; without a cipher, marks are not checked.
    #[must_use]
    pub fn new(
        tenant: Option<&'a TenantId>,
        cipher: Option<&'a dyn TenantCipher>,
        noted: impl IntoIterator<Item = Noted>,
    ) -> Self {
        Self {
            tenant,
            cipher,
            noted: noted.into_iter().map(|noted| (noted.number, noted.hash)).collect(),
            next: 1,
            before: Some(Digest::NONE),
            newest: None,
            entries: 0,
            faults: Vec::new(),
            more: 0,
        }
    }

    /// The number of the row to go on with.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The next row there is, which may be a later one than the next.
    pub fn take(&mut self, number: u64, bytes: &Bytes) {
        if number > self.next {
            self.fault(Fault::Missing { from: self.next, to: number - 1 });
            self.before = None;
        }
        self.next = number + 1;
        self.entries += 1;
        let found = Row::read(bytes);
        let hash = found.as_ref().map(|row| row.entry.hash);
        let fault = self.look(number, found);
        let sound = fault.is_none();
        fault.into_iter().for_each(|fault| self.fault(fault));
        // What follows a fault is looked at by itself: one change is told once.
        self.before = hash.filter(|_| sound);
        self.newest = hash.map(|hash| Noted { number, hash });
    }

    fn look(&self, number: u64, row: Option<Row>) -> Option<Fault> {
        let Some(row) = row else { return Some(Fault::Unreadable { number }) };
        let Entry { body: Body { number: holds, previous, .. }, hash, .. } = row.entry;
        if let Some(fault) = row.check(self.tenant, self.cipher) {
            return Some(match fault {
                Fault::Forged { .. } => Fault::Forged { number },
                _ => Fault::Changed { number },
            });
        }
        if holds != number {
            return Some(Fault::Misplaced { number, holds });
        }
        if self.before.is_some_and(|before| before != previous) {
            return Some(Fault::Unlinked { number });
        }
        let noted = self.noted.get(&number);
        noted.is_some_and(|noted| *noted != hash).then_some(Fault::Replaced { number })
    }

    fn fault(&mut self, fault: Fault) {
        match self.faults.len() < TOLD {
            true => self.faults.push(fault),
            false => self.more += 1,
        }
    }

    /// After the last row: whether that is the end, as the head has it and as was noted.
    #[must_use]
    pub fn end(mut self, head: Option<&Bytes>) -> Verdict {
        match head.map(Row::of_head) {
            None if self.entries == 0 => {}
            None => self.fault(Fault::NoHead),
            Some(None) => self.fault(Fault::ForgedHead),
            Some(Some((row, mark))) => self.end_at(&row, mark),
        }
        if let Some((&to, _)) = self.noted.last_key_value().filter(|(number, _)| **number >= self.next) {
            let from = self.next;
            if !self.faults.iter().any(|fault| matches!(fault, Fault::Cut { to: known, .. } if *known >= to))
            {
                self.fault(Fault::Cut { from, to });
            }
        }
        Verdict {
            tenant: self.tenant.cloned(),
            entries: self.entries,
            newest: self.newest,
            keyed: self.cipher.is_some(),
            faults: self.faults,
            more_faults: self.more,
        }
    }

    fn end_at(&mut self, row: &Row, mark: MessageKey) {
        let Entry { body: Body { number, .. }, hash, .. } = &row.entry;
        let (number, hash) = (*number, *hash);
        let forged = self.cipher.is_some_and(|cipher| cipher.hash(HEADS, hash.as_bytes()) != mark);
        if forged || row.check(self.tenant, self.cipher).is_some() {
            return self.fault(Fault::ForgedHead);
        }
        if number == self.next {
            // Its row was about to be written, or is gone; either way nothing is lost, since it stands here.
            self.take(number, &row.bytes);
        } else if number > self.next {
            self.fault(Fault::Cut { from: self.next, to: number });
        } else if number + 1 < self.next || self.newest.is_some_and(|newest| newest.hash != hash) {
            // Where the newest row itself is wrong, that has been told.
            let told = self.faults.iter().any(|fault| match fault {
                Fault::Changed { number: at }
                | Fault::Forged { number: at }
                | Fault::Misplaced { number: at, .. }
                | Fault::Unreadable { number: at } => *at == number,
                _ => false,
            });
            if number + 1 < self.next || !told {
                self.fault(Fault::OldHead { names: number });
            }
        }
    }
}

#[cfg(test)]
mod tests;
