//! Decoded record of dlq: its dead letter, its line in a list, and the viewable part of its original.

use bytes::Bytes;
use heddle_api::dead_letters::{Letter, LetterId, OriginalState, Summary};
use heddle_schemas::id::{AccountKey, ConversationId, TenantId};
use heddle_schemas::ports::log::Record;
use heddle_schemas::record::decode;
use heddle_schemas::record::dlq::{DeadLetter, DeadReason};
use heddle_schemas::time::Timestamp;

/// Record of dlq, decoded as far as possible.
pub(super) struct Found {
    pub(super) id: LetterId,
    pub(super) key: Bytes,
    pub(super) letter: Result<DeadLetter, String>,
    at: Timestamp,
    bytes: usize,
}

impl Found {
    pub(super) fn read(record: &Record) -> Self {
        // The decoder's error can quote the record, so it is not repeated.
        let letter = decode(&record.value).map_err(|_| {
            "this build cannot read the dead letter; a newer one may have written it".to_owned()
        });
        let bytes = record.value.len();
        Self { id: LetterId::of(record), key: record.key.clone(), letter, at: record.at, bytes }
    }

    /// Returns its approximate size in memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.bytes
    }

    /// Returns its sort key: the time of dead-lettering, then its id.
    pub(super) fn order(&self) -> (Timestamp, LetterId) {
        (self.letter.as_ref().map_or(self.at, |letter| letter.at), self.id)
    }

    /// Returns the entity concerned: only keys of the engine's own records, since any other may be a phone number.
    fn about(&self) -> Option<(TenantId, String)> {
        let key = std::str::from_utf8(&self.key).ok()?;
        let conversation = key.parse::<ConversationId>().map(|conversation| conversation.tenant);
        let tenant =
            conversation.or_else(|_| key.parse::<AccountKey>().map(|account| account.tenant)).ok()?;
        Some((tenant, key.to_owned()))
    }

    /// Returns its tenant, where it is known.
    pub(super) fn tenant(&self) -> Option<TenantId> {
        let named = self.letter.as_ref().ok().and_then(|letter| letter.tenant.clone());
        named.or_else(|| self.about().map(|(tenant, _)| tenant))
    }

    pub(super) fn summary(&self) -> Summary {
        let (tenant, about) = self.about().unzip();
        match &self.letter {
            Ok(letter) => Summary {
                id: self.id,
                at: letter.at,
                from: Some(letter.from),
                offset: Some(letter.offset),
                reason: Some(letter.reason.clone()),
                detail: letter.detail.clone(),
                attempts: letter.attempts,
                bytes: letter.bytes,
                tenant: letter.tenant.clone().or(tenant),
                about,
                kept: letter.original.is_some(),
            },
            Err(fault) => Summary {
                id: self.id,
                at: self.at,
                from: None,
                offset: None,
                reason: None,
                detail: fault.clone(),
                attempts: 0,
                bytes: self.bytes as u64,
                tenant,
                about,
                kept: false,
            },
        }
    }

    pub(super) fn matches(&self, reason: Option<DeadReason>, tenant: Option<&TenantId>) -> bool {
        reason.is_none_or(|reason| self.letter.as_ref().is_ok_and(|letter| letter.reason == reason.into()))
            && tenant.is_none_or(|tenant| self.tenant().as_ref() == Some(tenant))
    }

    pub(super) fn shown(&self) -> Letter {
        let original = self.letter.as_ref().ok().and_then(|letter| letter.original.as_ref());
        let sealed = self.letter.as_ref().is_ok_and(|letter| letter.tenant.is_some());
        let (state, original) = match original {
            None => (OriginalState::NotKept, None),
            Some(_) if sealed => (OriginalState::Sealed, None),
            Some(original) => match serde_json::from_slice(original.as_bytes()) {
                Ok(json) => (OriginalState::Shown, Some(json)),
                Err(_) => (OriginalState::NoJson, None),
            },
        };
        Letter { summary: self.summary(), state, original }
    }
}
