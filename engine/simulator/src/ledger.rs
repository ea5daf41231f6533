//! What the simulated API has taken: every message, in the order of taking, however its answer fared.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use heddle_schemas::id::{AccountId, OutboundId};

/// A message that was taken. It will reach the person, whether or not the sender got to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its place among all, from 0.
    pub order: usize,
    /// The number it was sent from.
    pub account: AccountId,
    /// To whom: a phone number or a scoped id.
    pub to: String,
    /// Its text.
    pub text: String,
    /// Its `biz_opaque_callback_data`.
    pub callback: Option<String>,
    /// The same as the engine's id; `None` when it is none.
    pub outbound: Option<OutboundId>,
    /// The provider's id of it.
    pub wamid: String,
    /// When, by the simulator's clock.
    pub at: Duration,
}

impl Taken {
    /// Whether it was sent to a phone number; otherwise it was to a scoped id.
    #[must_use]
    pub fn is_to_phone(&self) -> bool {
        self.to.bytes().all(|c| c.is_ascii_digit())
    }
}

/// All of them, or only how many.
#[derive(Debug)]
pub(crate) struct Ledger {
    keeps: bool,
    count: usize,
    taken: Vec<Arc<Taken>>,
    times: HashMap<String, u32>,
}

impl Ledger {
    /// An empty one that keeps what it takes, or only counts it.
    pub(crate) fn new(keeps: bool) -> Self {
        Self { keeps, count: 0, taken: Vec::new(), times: HashMap::new() }
    }

    /// Takes a message; `order` is set here.
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
