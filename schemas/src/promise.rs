//! Promises to tenants and to the people who write to them, and the results of their verification.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::TenantId;
use crate::time::Timestamp;

/// A promise of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// Messages and contact details are stored only encrypted.
    Encryption,
    /// Credentials are stored only encrypted.
    Credentials,
    /// No tenant reads another's data: stored data opens at its place only, and under its tenant's keys only.
    Isolation,
    /// Nothing outlives its time.
    Retention,
    /// Erased data cannot be read any more, and an erasure is complete by its deadline.
    Erasure,
    /// Spending of the quota equals usage, and stays within the quota.
    Quota,
    /// Contacts who have opted out get nothing but replies.
    Consent,
    /// Outside the customer-service window only templates are sent.
    Window,
    /// Data stays in its tenant's region.
    Region,
    /// No topic keeps records for longer than the engine promises.
    Topics,
    /// The audit log names the caller of every operation, and is unchanged since.
    AuditLog,
}

impl Promise {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 11] = [
        Self::Encryption,
        Self::Credentials,
        Self::Isolation,
        Self::Retention,
        Self::Erasure,
        Self::Quota,
        Self::Consent,
        Self::Window,
        Self::Region,
        Self::Topics,
        Self::AuditLog,
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Encryption => "encryption",
            Self::Credentials => "credentials",
            Self::Isolation => "isolation",
            Self::Retention => "retention",
            Self::Erasure => "erasure",
            Self::Quota => "quota",
            Self::Consent => "consent",
            Self::Window => "window",
            Self::Region => "region",
            Self::Topics => "topics",
            Self::AuditLog => "audit_log",
        }
    }

    /// Returns the promise in one line.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Encryption => "messages and contacts are stored only encrypted",
            Self::Credentials => "credentials are stored only encrypted",
            Self::Isolation => "stored data opens at its place and under its tenant's keys only",
            Self::Retention => "nothing outlives its time",
            Self::Erasure => "erased data cannot be read, by the deadline",
            Self::Quota => "spending equals usage, and stays within the quota",
            Self::Consent => "contacts who have opted out get nothing but replies",
            Self::Window => "outside 24 hours only templates are sent",
            Self::Region => "data stays in its tenant's region",
            Self::Topics => "no topic keeps records for too long",
            Self::AuditLog => "the caller of every operation is recorded, and unchanged since",
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Bound of the faults that the result of a check names.
const NAMED: usize = 20;

/// Result of the check of one promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Proof {
    /// The promise.
    pub promise: Promise,
    /// True where no fault was found.
    pub kept: bool,
    /// The parts that were checked, and those that were not.
    pub evidence: String,
    /// The number of things that were checked; with none, nothing is known.
    #[serde(default)]
    pub checked: u64,
    /// The first twenty faults. They name rows and records, and nothing of their contents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// The number of further faults.
    #[serde(default)]
    pub more_faults: u64,
}

impl Proof {
    /// Creates the result of a check that has found nothing yet.
    #[must_use]
    pub fn new(promise: Promise) -> Self {
        Self { promise, kept: true, evidence: String::new(), checked: 0, faults: Vec::new(), more_faults: 0 }
    }

    /// Adds a fault.
    pub fn fault(&mut self, fault: impl Into<String>) {
        self.kept = false;
        if self.faults.len() < NAMED {
            self.faults.push(fault.into());
        } else {
            self.more_faults += 1;
        }
    }

    /// Counts things that were checked.
    pub fn count(&mut self, checked: u64) {
        self.checked = self.checked.saturating_add(checked);
    }

    /// Returns the result in a word or two.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match (self.kept, self.checked) {
            (false, _) => "BROKEN",
            (true, 0) => "nothing to check",
            (true, _) => "kept",
        }
    }

    /// Adds a part that was checked.
    pub fn saw(&mut self, evidence: impl AsRef<str>) {
        if !self.evidence.is_empty() {
            self.evidence += "; ";
        }
        self.evidence += evidence.as_ref();
    }
}

/// Results of the checks of every promise to a tenant, or about data of no tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Proofs {
    /// The tenant; none for data of no tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Time of the beginning, microseconds since 1970.
    pub at: Timestamp,
    /// The results, a promise each.
    pub proofs: Vec<Proof>,
}

impl Proofs {
    /// Returns whether all promises are kept.
    #[must_use]
    pub fn hold(&self) -> bool {
        self.proofs.iter().all(|proof| proof.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_without_anything_to_check_is_not_called_kept() {
        let mut proof = Proof::new(Promise::Consent);
        assert_eq!(proof.verdict(), "nothing to check");
        proof.count(2);
        assert_eq!(proof.verdict(), "kept");
        proof.fault("a fault");
        assert_eq!(proof.verdict(), "BROKEN");
    }

    #[test]
    fn one_fault_breaks_a_promise_and_many_are_counted() {
        let mut proof = Proof::new(Promise::Quota);
        assert!(proof.kept);
        for n in 0..25 {
            proof.fault(format!("fault {n}"));
        }
        assert!(!proof.kept);
        assert_eq!((proof.faults.len(), proof.more_faults), (20, 5));
    }
}
