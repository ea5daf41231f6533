//! Retention of dead letters: a tenant's own retention may end before the topic's.
//!
//! The bytes are deleted with the topic's segments, within the bound of every tenant's retention
//! (`Tenants::limit_retention`). Until then an expired dead letter is neither listed nor shown nor replayed.

use heddle_actors::tenant::configuration::Tenants;
use heddle_schemas::retention::Kind;
use heddle_schemas::time::Timestamp;

use super::letter::Found;

/// Retention at a point in time.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    pub(super) tenants: &'a Tenants,
    pub(super) now: Timestamp,
}

impl Kept<'_> {
    /// Returns whether the dead letter is not expired. One of no known tenant is kept as long as its topic's records.
    pub(super) fn holds(&self, found: &Found) -> bool {
        let tenant = found.tenant().and_then(|tenant| self.tenants.get(&tenant));
        tenant.is_none_or(|tenant| self.now < found.order().0.after(tenant.retention.of(Kind::Dlq)))
    }
}
