//! The ports through which actors reach everything outside: log, state, keys, channels, models, time.

use std::collections::BTreeMap;
use std::sync::Arc;

use heddle_schemas::id::ChannelKind;
use heddle_schemas::ports::calendar::Calendar;
use heddle_schemas::ports::channel::{Channel, ChannelProfile};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::keys::Keys;
use heddle_schemas::ports::knowledge::Knowledge;
use heddle_schemas::ports::log::Log;
use heddle_schemas::ports::responder::Responder;
use heddle_schemas::ports::state::State;
use heddle_schemas::record::Versions;
use heddle_schemas::tenant::Tenant;

use crate::metrics::Metrics;
use crate::privacy::security::Security;
use crate::random::Random;

/// Chooses the responder of a tenant.
pub type Responders = Arc<dyn Fn(&Tenant) -> Arc<dyn Responder> + Send + Sync>;

/// Ports through which the actors reach the outside. Cheap to clone.
#[derive(Clone)]
pub struct Ports {
    /// Topics.
    pub log: Arc<dyn Log>,
    /// Rows.
    pub state: Arc<dyn State>,
    /// Keys.
    pub keys: Arc<dyn Keys>,
    /// Documents.
    pub knowledge: Arc<dyn Knowledge>,
    /// Responders that answer.
    pub responders: Responders,
    /// Appointments.
    pub calendar: Arc<dyn Calendar>,
    /// Channels by kind.
    pub channels: Arc<BTreeMap<ChannelKind, Arc<dyn Channel>>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Random,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Security signals.
    pub security: Arc<Security>,
    /// The versions of records that are read and written.
    pub versions: Versions,
}

impl Ports {
    /// Profile of a channel, where this node has it. Without one nothing is sent.
    #[must_use]
    pub fn profile(&self, kind: ChannelKind) -> Option<&'static ChannelProfile> {
        self.channels.get(&kind).map(|channel| channel.profile())
    }
}
