//! What is promised to tenants and to the people who write to them, and whether it holds.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::TenantId;
use crate::time::Timestamp;

/// Something that is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// Messages and contact details are stored only encrypted.
    Encryption,
    /// Credentials are stored only encrypted.
    Credentials,
    /// No tenant reads another's: what is stored opens at its place only, and under its tenant's keys only.
    Isolation,
    /// Nothing outlives its time.
    Retention,
    /// Who was erased cannot be read any more, and an erasure is complete by its deadline.
    Erasure,
    /// What is spent of the quota is what was used, and no more than the quota.
    Quota,
    /// Nothing but replies is sent to who has opted out.
    Consent,
    /// Outside the customer-service window only templates are sent.
    Window,
    /// Data stays in its tenant's region.
    Region,
    /// No topic keeps records for longer than the engine promises.
    Topics,
    /// Who did what is written down, and nobody changed it since.
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

    /// What it says, in a line.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Encryption => "messages and contacts are stored only encrypted",
            Self::Credentials => "credentials are stored only encrypted",
            Self::Isolation => "what is stored opens at its place and under its tenant's keys only",
            Self::Retention => "nothing outlives its time",
            Self::Erasure => "who was erased cannot be read, by the deadline",
            Self::Quota => "what is spent is what was used, and within the quota",
            Self::Consent => "who has opted out is sent nothing but replies",
            Self::Window => "outside 24 hours only templates are sent",
            Self::Region => "data stays in its tenant's region",
            Self::Topics => "no topic keeps records for too long",
            Self::AuditLog => "who did what is written down, and unchanged since",
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Faults that a proof names at most.
const NAMED: usize = 20;

/// What was found about a promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Proof {
    /// Which.
    pub promise: Promise,
    /// Whether nothing was found that breaks it.
    pub kept: bool,
    /// What was looked at, and what was not.
    pub evidence: String,
    /// What breaks it, the first twenty. They name rows and records, and tell nothing of what is in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// How many more there are.
    #[serde(default)]
    pub more_faults: u64,
}

impl Proof {
    /// Of a promise about which nothing has been found yet.
    #[must_use]
    pub fn new(promise: Promise) -> Self {
        Self { promise, kept: true, evidence: String::new(), faults: Vec::new(), more_faults: 0 }
    }

    /// Something breaks it.
    pub fn fault(&mut self, fault: impl Into<String>) {
        self.kept = false;
        if self.faults.len() < NAMED {
            self.faults.push(fault.into());
        } else {
            self.more_faults += 1;
        }
    }

    /// Something was looked at.
    pub fn saw(&mut self, evidence: impl AsRef<str>) {
        if !self.evidence.is_empty() {
            self.evidence += "; ";
        }
        self.evidence += evidence.as_ref();
    }
}

/// What was found about every promise to a tenant, or about what is no tenant's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Proofs {
    /// Which; none where it is about what is no tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// When it was begun, microseconds since 1970.
    pub at: Timestamp,
    /// Promise by promise.
    pub proofs: Vec<Proof>,
}

impl Proofs {
    /// Whether all are kept.
    #[must_use]
    pub fn hold(&self) -> bool {
        self.proofs.iter().all(|proof| proof.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
