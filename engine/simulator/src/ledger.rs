//! Ledger of the simulated API: every accepted message, in order, whatever became of its answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use heddle_schemas::id::{AccountId, OutboundId};

/// Accepted message. It reaches the person, whether or not the sender received the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its position among all, from 0.
    pub order: usize,
    /// Number that it was sent from.
    pub account: AccountId,
    /// Recipient: a phone number or a scoped id.
    pub to: String,
    /// Its text.
    pub text: String,
    /// Its `biz_opaque_callback_data`.
    pub callback: Option<String>,
    /// The callback data parsed as the engine's id; `None` when it is not one.
    pub outbound: Option<OutboundId>,
    /// The provider's id of the message.
    pub wamid: String,
    /// Time of acceptance, by the simulator's clock.
    pub at: Duration,
}

impl Taken {
    /// Returns whether it was sent to a phone number; otherwise to a scoped id.
    #[must_use]
    pub fn is_to_phone(&self) -> bool {
        self.to.bytes().all(|c| c.is_ascii_digit())
    }
}

/// All accepted messages, or only their number.
#[derive(Debug)]
pub(crate) struct Ledger {
    keeps: bool,
    count: usize,
    taken: Vec<Arc<Taken>>,
    times: HashMap<String, u32>,
}

impl Ledger {
    /// Creates an empty ledger that keeps messages, or only counts them.
    pub(crate) fn new(keeps: bool) -> Self {
        Self { keeps, count: 0, taken: Vec::new(), times: HashMap::new() }
    }

    /// Records an accepted message, and sets its `order`.
    pub(crate) fn take(&mut self, mut message: Taken) -> Arc<Taken> {
        message.order = self.count;
        self.count += 1;
        if !self.keeps {
            return Arc::new(message);
        }
        if let Some(callback) = &message.callback {
            match self.times.get_mut(callback) {
                Some(times) => *times += 1,
                None => drop(self.times.insert(callback.clone(), 1)),
            }
        }
        let message = Arc::new(message);
        self.taken.push(message.clone());
        message
    }

    pub(crate) fn all(&self) -> Vec<Arc<Taken>> {
        self.taken.clone()
    }

    pub(crate) fn to(&self, recipient: &str) -> Vec<Arc<Taken>> {
        self.taken.iter().filter(|message| message.to == recipient).cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn times(&self) -> HashMap<String, u32> {
        self.times.clone()
    }
}
