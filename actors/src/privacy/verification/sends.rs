//! Sends, replayed against the consents of their contacts.

use std::collections::BTreeMap;

use heddle_schemas::consent::{Category, ContactRecord};
use heddle_schemas::id::ContactId;
use heddle_schemas::ports::state::Row;
use heddle_schemas::promise::{Promise, Proof};
use heddle_schemas::time::Timestamp;

use super::form::Holds;
use crate::account::send::{Journal, Taken};

/// Send that needed a consent.
struct Sent {
    category: Category,
    at: Timestamp,
    row: String,
}

/// Check of sends.
#[derive(Default)]
pub(super) struct Sends {
    sends: u64,
    windows: u64,
    over: Vec<String>,
    sent: BTreeMap<ContactId, Vec<Sent>>,
    /// Records of contacts that have one.
    records: BTreeMap<ContactId, ContactRecord>,
}

impl Sends {
    pub(super) fn take(&mut self, row: &Row, holds: &Holds) {
        match (holds, row.key.about()) {
            (Holds::Send(Journal::Taken(Taken { at, category, window_until, .. })), Some(contact)) => {
                self.sends += 1;
                if let Some(until) = window_until {
                    self.windows += 1;
                    if at >= until {
                        self.over.push(format!("{:?}: sent at {at}, allowed until {until}", row.key));
                    }
                }
                if let Some(category) = *category {
                    let sent = Sent { category, at: *at, row: format!("{:?}", row.key) };
                    self.sent.entry(contact).or_default().push(sent);
                }
            }
            (Holds::Contact(record), Some(contact)) => {
                self.records.insert(contact, (**record).clone());
            }
            _ => {}
        }
    }

    /// Returns the record that held for a contact at a time: of the contact that it had turned out to be by then.
    fn record(&self, contact: ContactId, at: Timestamp) -> Option<&ContactRecord> {
        let mut record = self.records.get(&contact)?;
        // Survivors of a merge are smaller, so this ends.
        while let Some(forward) = record.leads_to.filter(|forward| forward.known_at <= at) {
            let Some(next) = self.records.get(&forward.contact) else { break };
            record = next;
        }
        Some(record)
    }

    pub(super) fn prove(mut self) -> (Proof, Proof) {
        let mut consent = Proof::new(Promise::Consent);
        let (mut replayed, mut open) = (0_u64, 0_u64);
        for (contact, sent) in &self.sent {
            for Sent { category, at, row } in sent {
                let record = self.record(*contact, *at);
                match record.map_or(Some(false), |record| record.forbade(*category, *at)) {
                    Some(forbidden) => {
                        replayed += 1;
                        if forbidden {
                            consent.fault(format!("{row}: {category}, sent at {at} after an opt-out"));
                        }
                    }
                    None => open += 1,
                }
            }
        }
        consent.saw(format!(
            "{replayed} sends replayed that need consent, against {} contacts of which something is known",
            self.records.len()
        ));
        consent.count(replayed + open);
        if open > 0 {
            consent.saw(format!("{open} more sends can no longer be checked"));
        }
        let mut window = Proof::new(Promise::Window);
        window.count(self.windows);
        window.saw(format!("{} sends with a window, of {}", self.windows, self.sends));
        std::mem::take(&mut self.over).into_iter().for_each(|over| window.fault(over));
        (consent, window)
    }
}
