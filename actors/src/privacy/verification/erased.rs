//! Verification of erasures: tries the keys they destroyed, and looks for rows that should be gone.

use std::collections::BTreeMap;

use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{ContactId, TenantId};
use heddle_schemas::ports::keys::{Keys, KeysError, Missing};
use heddle_schemas::ports::state::{Row, StoreError};
use heddle_schemas::promise::{Promise, Proof};
use heddle_schemas::table::ContactErasure;
use heddle_schemas::time::Timestamp;

use super::ProveError;
use super::form::{Holds, is_from_before};
use crate::ports::Ports;
use crate::privacy::erasure;

/// Contacts whose rows do not open that are remembered.
const CONTACTS: usize = 1_000;

/// Check of the rows that erasures were to remove.
pub(super) struct Erased {
    proof: Proof,
    tenant: TenantId,
    began: Timestamp,
    erasures: Vec<Erasure>,
    /// Time up to which each contact was erased.
    done: BTreeMap<ContactId, Timestamp>,
    /// Rows that are there of contacts whose key is destroyed.
    left: BTreeMap<ContactId, (u64, String)>,
}

impl Erased {
    pub(super) async fn begin(ports: &Ports, tenant: &TenantId) -> Result<Self, StoreError> {
        let began = ports.clock.now();
        let erasures = erasure::list(ports, tenant).await?;
        let mut done = BTreeMap::new();
        for erasure in erasures.iter().filter(|erasure| erasure.is_complete()) {
            for contact in erasure.contacts() {
                let until = done.entry(contact).or_insert(erasure.at);
                *until = erasure.at.max(*until);
            }
        }
        let proof = Proof::new(Promise::Erasure);
        Ok(Self { proof, tenant: tenant.clone(), began, erasures, done, left: BTreeMap::new() })
    }

    /// Checks a row that can be read. Returns its contact where the row should have been erased with it and does not
    /// carry its time of writing: it is left over, if the contact has no key by now.
    pub(super) fn readable(&mut self, row: &Row, holds: &Holds) -> Option<ContactId> {
        if row.key.table().descriptor().contact_erasure != ContactErasure::Removed {
            return None;
        }
        let contact = match holds {
            Holds::Backlog(record) => Some(record.conversation.contact),
            _ => row.key.about(),
        };
        let contact = contact?;
        let erased_at = self.done.get(&contact)?;
        match is_from_before(holds, *erased_at) {
            Some(false) => None,
            Some(true) => {
                self.proof
                    .fault(format!("{:?}: it is from before its contact was erased at {erased_at}", row.key));
                None
            }
            None => Some(contact),
        }
    }

    /// Takes a row that is left over of a contact whose key is destroyed.
    pub(super) fn left(&mut self, row: &Row, contact: ContactId) {
        if self.left.len() < CONTACTS || self.left.contains_key(&contact) {
            self.left.entry(contact).or_insert_with(|| (0, format!("{:?}", row.key))).0 += 1;
        }
    }

    pub(super) async fn prove(mut self, ports: &Ports, keys: &dyn Keys) -> Result<Proof, ProveError> {
        let now = ports.clock.now();
        let (mut unreadable, mut back) = (0_u64, 0_u64);
        for (contact, erased_at) in &self.done {
            match keys.contact(&self.tenant, *contact, Missing::Fail).await {
                Err(KeysError::Gone { .. }) => unreadable += 1,
                Ok(cipher) if cipher.erased_at().is_some_and(|at| at >= *erased_at) => back += 1,
                Ok(_) => self.proof.fault(format!(
                    "contact {contact}: the key that was to be destroyed at {erased_at} is still there"
                )),
                Err(error) => return Err(error.into()),
            }
        }
        // A contact of a request made meanwhile is being erased at this moment.
        let meanwhile = erasure::list(ports, &self.tenant).await?;
        for (contact, (rows, first)) in std::mem::take(&mut self.left) {
            let under_way = |erasure: &&Erasure| {
                erasure.contacts().any(|erased| erased == contact)
                    && erasure.completed_at.is_none_or(|completed_at| completed_at >= self.began)
            };
            if meanwhile.iter().find(under_way).is_none() {
                self.proof.fault(format!(
                    "contact {contact}: its key is gone, and {rows} rows are there, such as {first}"
                ));
            }
        }
        let open: Vec<_> = meanwhile.iter().filter(|erasure| !erasure.is_complete()).collect();
        for erasure in open.iter().filter(|erasure| erasure.deadline < now) {
            self.proof
                .fault(format!("erasure {}: it was to be complete at {}", erasure.id, erasure.deadline));
        }
        self.proof.count(self.erasures.len() as u64);
        self.proof.saw(format!(
            "{} erasures, {} under way; {} contacts tried: {unreadable} without any key, {back} back under another",
            self.erasures.len(),
            open.len(),
            self.done.len(),
        ));
        Ok(self.proof)
    }
}
