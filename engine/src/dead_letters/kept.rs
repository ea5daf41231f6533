//! Which letters are still kept: a tenant's own time to live of them may end before the topic's.
//!
//! The bytes go with the topic's segments, which is bounded by every tenant's time (`Tenants::limit_retention`); until
//! then a letter that is over is as one that is gone: neither listed nor shown nor replayed.

use heddle_actors::tenant::configuration::Tenants;
use heddle_schemas::retention::Kind;
use heddle_schemas::time::Timestamp;

use super::letter::Found;

/// What is kept at a moment.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    pub(super) tenants: &'a Tenants,
    pub(super) now: Timestamp,
}

impl Kept<'_> {
    /// Whether the letter's time is not over. One that is no known tenant's lives as long as its topic.
    pub(super) fn holds(&self, found: &Found) -> bool {
        let tenant = found.tenant().and_then(|tenant| self.tenants.get(&tenant));
        tenant.is_none_or(|tenant| self.now < found.order().0.after(tenant.retention.of(Kind::Dlq)))
    }
}
