//! The services of a node that its entities share, beside the ports.

use std::sync::Arc;

use heddle_schemas::time::Timestamp;

use crate::intake::gate::IntakeGate;
use crate::intake::identity::Identity;
use crate::options::Options;
use crate::ports::Ports;
use crate::tenant::configuration::Tenants;
use crate::tenant::quota::Quotas;
use crate::tenant::turns::TenantTurns;

/// Dependencies of an entity on its node. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The ports.
    pub ports: Ports,
    /// The options.
    pub options: Arc<Options>,
    /// The tenants.
    pub tenants: Arc<Tenants>,
    /// Permits for the tenants' turns.
    pub turns: Arc<TenantTurns>,
    /// Since when the node runs.
    pub started: Timestamp,
    /// Quotas of the tenants.
    pub quotas: Arc<Quotas>,
    /// Ids and the contacts that they lead to.
    pub identity: Arc<Identity>,
    /// Time for which webhooks have been accepted, and the messages that each account received.
    pub intake_gate: Arc<IntakeGate>,
}
