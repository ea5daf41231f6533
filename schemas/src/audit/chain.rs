//! Chain of audit entries: layout, writing and verification. Pure.
//!
//! A row holds one byte version (1), the hash (32), the MAC (16) and the body as JSON. The head's row holds one byte
//! version, a MAC of its own and a copy of the newest row. A writer first moves the head, with one conditional write,
//! and then puts its entry in place. The write of the head decides which entry is the next, and a crash in between
//! loses nothing, since the head has the entry. So every row before the head is there, and the head's own row is
//! missing only in between.

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
/// The domain of the MACs of entries, see [`TenantCipher::hash`].
const ENTRIES: &str = "audit";
/// The domain of the MACs of heads.
const HEADS: &str = "audit-head";
const HASH: usize = 32;
const MAC: usize = 16;
/// Bound of the faults that a verdict lists; further ones are only counted.
const LISTED: usize = 100;

/// An entry, and the row that it is stored as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The entry.
    pub entry: Entry,
    /// The bytes of the row.
    pub bytes: Bytes,
}

impl Row {
    /// Returns the next entry of a chain. `before` is the newest one; its MAC is not trusted.
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

    /// Returns an entry behind a break, with this number and this previous hash, whatever stands before it.
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
        let mac = cipher.hash(ENTRIES, hash.as_bytes());
        let mut bytes = Vec::with_capacity(1 + HASH + MAC + text.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(hash.as_bytes());
        bytes.extend_from_slice(&mac.to_bytes());
        bytes.extend_from_slice(&text);
        Self { entry: Entry { body, hash, mark: mac }, bytes: bytes.into() }
    }

    /// Reads a stored row without checking it; `None` where it is no entry at all.
    #[must_use]
    pub fn read(bytes: &Bytes) -> Option<Self> {
        let (&[version], rest) = bytes.split_first_chunk()?;
        let (hash, rest) = rest.split_first_chunk::<HASH>()?;
        let (mac, text) = rest.split_first_chunk::<MAC>()?;
        if version != VERSION {
            return None;
        }
        let body = serde_json::from_slice(text).ok()?;
        let (hash, mac) = (Digest::from_bytes(*hash), MessageKey::from_bytes(*mac));
        Some(Self { entry: Entry { body, hash, mark: mac }, bytes: bytes.clone() })
    }

    /// Returns the row of the head that names this entry as the newest.
    #[must_use]
    pub fn head(&self, cipher: &dyn TenantCipher) -> Bytes {
        let mac = cipher.hash(HEADS, self.entry.hash.as_bytes());
        [&[VERSION][..], &mac.to_bytes(), &self.bytes].concat().into()
    }

    /// Returns the newest entry, as the head's row has it, and the head's MAC.
    #[must_use]
    pub fn of_head(head: &Bytes) -> Option<(Self, MessageKey)> {
        let (&[version], rest) = head.split_first_chunk()?;
        let (mac, _) = rest.split_first_chunk::<MAC>()?;
        if version != VERSION {
            return None;
        }
        Some((Self::read(&head.slice(1 + MAC..))?, MessageKey::from_bytes(*mac)))
    }

    /// Returns the newest entry if the head and the entry were written with the key.
    #[must_use]
    pub fn of_trusted_head(
        head: &Bytes,
        tenant: Option<&TenantId>,
        cipher: &dyn TenantCipher,
    ) -> Option<Self> {
        let (row, mac) = Self::of_head(head)?;
        let ours = cipher.hash(HEADS, row.entry.hash.as_bytes()) == mac;
        (ours && row.check(tenant, Some(cipher)).is_none()).then_some(row)
    }

    /// Checks hash and MAC against the body; without a cipher, the hash only.
    fn check(&self, tenant: Option<&TenantId>, cipher: Option<&dyn TenantCipher>) -> Option<Fault> {
        let Entry { body: Body { number, .. }, hash: stored, mark: mac } = &self.entry;
        if hash(tenant, &self.bytes[1 + HASH + MAC..]) != *stored {
            return Some(Fault::Changed { number: *number });
        }
        let forged = cipher.is_some_and(|cipher| cipher.hash(ENTRIES, stored.as_bytes()) != *mac);
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

/// Place where a chain is not as it was written.
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
    /// The end was cut: the head, or a noted entry, knows of later entries.
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
    /// The hash of an entry is right and its MAC is not: its writer had no key.
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
    /// An entry is another one than was noted.
    Replaced {
        /// Its number.
        number: u64,
    },
    /// There are entries and no head.
    NoHead,
    /// The head is no entry, or its writer had no key.
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

/// Entry that an operator noted, such as the newest one of an earlier verification.
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

/// Result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The tenant of the chain; none for the chain of no tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Entries that were read.
    pub entries: u64,
    /// The newest of them. An operator notes it and passes it to a later verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Noted>,
    /// True where MACs were checked. That needs the key, which an erased tenant no longer has.
    pub keyed: bool,
    /// The first hundred faults, from the beginning of the chain on.
    pub faults: Vec<Fault>,
    /// Further faults.
    pub more_faults: u64,
}

impl Verdict {
    /// Returns whether the chain is as it was written, as far as it could be checked.
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
    /// Creates a verifier of a tenant's chain; without a cipher, MACs are not checked.
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

    /// Returns the number of the row to go on with.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes the next row that exists; its number may be above the expected one.
    pub fn take(&mut self, number: u64, bytes: &Bytes) {
        if number > self.next {
            self.fault(Fault::Missing { from: self.next, to: number - 1 });
            self.before = None;
        }
        self.next = number + 1;
        self.entries += 1;
        let found = Row::read(bytes);
        let hash = found.as_ref().map(|row| row.entry.hash);
        let fault = self.examine(number, found);
        let sound = fault.is_none();
        fault.into_iter().for_each(|fault| self.fault(fault));
        // A row behind a fault is checked by itself, so that one change is reported once.
        self.before = hash.filter(|_| sound);
        self.newest = hash.map(|hash| Noted { number, hash });
    }

    fn examine(&self, number: u64, row: Option<Row>) -> Option<Fault> {
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
        match self.faults.len() < LISTED {
            true => self.faults.push(fault),
            false => self.more += 1,
        }
    }

    /// Ends the verification after the last row: compares the end with the head and with the noted entries.
    #[must_use]
    pub fn end(mut self, head: Option<&Bytes>) -> Verdict {
        match head.map(Row::of_head) {
            None if self.entries == 0 => {}
            None => self.fault(Fault::NoHead),
            Some(None) => self.fault(Fault::ForgedHead),
            Some(Some((row, mac))) => self.end_at(&row, mac),
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

    fn end_at(&mut self, row: &Row, mac: MessageKey) {
        let Entry { body: Body { number, .. }, hash, .. } = &row.entry;
        let (number, hash) = (*number, *hash);
        let forged = self.cipher.is_some_and(|cipher| cipher.hash(HEADS, hash.as_bytes()) != mac);
        if forged || row.check(self.tenant, self.cipher).is_some() {
            return self.fault(Fault::ForgedHead);
        }
        if number == self.next {
            // Its row was about to be written, or is gone; either way nothing is lost, since it stands here.
            self.take(number, &row.bytes);
        } else if number > self.next {
            self.fault(Fault::Cut { from: self.next, to: number });
        } else if number + 1 < self.next || self.newest.is_some_and(|newest| newest.hash != hash) {
            // A fault of the newest row itself has been reported already.
            let reported = self.faults.iter().any(|fault| match fault {
                Fault::Changed { number: at }
                | Fault::Forged { number: at }
                | Fault::Misplaced { number: at, .. }
                | Fault::Unreadable { number: at } => *at == number,
                _ => false,
            });
            if number + 1 < self.next || !reported {
                self.fault(Fault::OldHead { names: number });
            }
        }
    }
}

#[cfg(test)]
mod tests;
