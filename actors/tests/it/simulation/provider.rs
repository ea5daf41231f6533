//! Provider: accepts messages, sometimes without saying so, and reports their statuses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use heddle_schemas::id::{AccountId, OutboundId};
use heddle_schemas::outgoing::OutgoingContent;
use heddle_schemas::ports::channel::{
    Accepted, Channel, ChannelAccount, ChannelEvent, ChannelProfile, FailureClass, OutboundMessage,
    ReceivedStatus, SendError, WebhookError,
};
use heddle_schemas::record::inbound::DeliveryStatus;
use heddle_schemas::sealed::Secret;
use heddle_schemas::time::Timestamp;
use http::HeaderMap;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A message that the provider took.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) id: OutboundId,
    pub(crate) account: String,
    pub(crate) to: String,
    pub(crate) text: String,
}

impl Taken {
    fn of(access: &ChannelAccount, message: &OutboundMessage) -> Self {
        let OutgoingContent::Text { body } = &message.content else { panic!("only text is sent") };
        let to = message.to.user_id.clone().or_else(|| message.to.phone.clone()).expect("an address");
        Self { id: message.id, account: access.account.as_str().to_owned(), to, text: body.clone() }
    }
}

/// What the provider does wrong, in a hundred.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) refuses: u32,
    pub(crate) limits: u32,
    pub(crate) takes_silently: u32,
    pub(crate) loses_silently: u32,
    pub(crate) hangs: u32,
}

pub(crate) struct Provider {
    inner: Mutex<Inner>,
}

struct Inner {
    rng: StdRng,
    faults: Faults,
    taken: Vec<Taken>,
    /// Every call with a valid token, taken or not.
    calls: Vec<Taken>,
    /// Reports to send, each with how long to wait before.
    reports: VecDeque<(Duration, ChannelEvent)>,
    dead_tokens: Vec<String>,
}

enum Fate {
    Take(Duration),
    TakeAndHang,
    Fail(Duration, SendError),
    Hang,
}

impl Provider {
    pub(crate) fn new(seed: u64, faults: Faults) -> Arc<Self> {
        let inner = Inner {
            rng: StdRng::seed_from_u64(seed ^ 0x70_72_6f_76),
            faults,
            taken: Vec::new(),
            calls: Vec::new(),
            reports: VecDeque::new(),
            dead_tokens: Vec::new(),
        };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().expect("no test panics while holding it"))
    }

    pub(crate) fn calm(&self) {
        self.with(|inner| inner.faults = Faults::default());
    }

    pub(crate) fn kill_token(&self, token: &str) {
        self.with(|inner| inner.dead_tokens.push(token.to_owned()));
    }

    /// Messages that were called and never taken, each with its calls.
    pub(crate) fn lost(&self) -> BTreeMap<OutboundId, Vec<Taken>> {
        self.with(|inner| {
            let taken: BTreeSet<_> = inner.taken.iter().map(|taken| taken.id).collect();
            let mut lost = BTreeMap::<_, Vec<_>>::new();
            for call in inner.calls.iter().filter(|call| !taken.contains(&call.id)) {
                lost.entry(call.id).or_default().push(call.clone());
            }
            lost
        })
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.with(|inner| inner.taken.clone())
    }

    pub(crate) fn next_report(&self) -> Option<(Duration, ChannelEvent)> {
        self.with(|inner| inner.reports.pop_front())
    }
}

fn failure(class: FailureClass) -> SendError {
    SendError::new(class, "simulated")
}

impl Inner {
    fn fate(&mut self) -> Fate {
        let latency = Duration::from_millis(self.rng.random_range(1..200));
        let faults = self.faults;
        let mut dice = self.rng.random_range(0..100);
        let mut falls = |share: u32| {
            let hit = dice < share;
            dice = dice.wrapping_sub(share).min(if hit { 0 } else { u32::MAX });
            hit
        };
        if falls(faults.refuses) {
            Fate::Fail(latency, failure(FailureClass::Temporary))
        } else if falls(faults.limits) {
            Fate::Fail(latency, failure(FailureClass::RateLimited))
        } else if falls(faults.takes_silently) {
            Fate::TakeAndHang
        } else if falls(faults.loses_silently) {
            Fate::Fail(latency, failure(FailureClass::Unknown))
        } else if falls(faults.hangs) {
            Fate::Hang
        } else {
            Fate::Take(latency)
        }
    }

    fn take(&mut self, access: &ChannelAccount, message: &OutboundMessage) -> String {
        self.taken.push(Taken::of(access, message));
        let message_id = format!("wamid.{}", self.taken.len());
        for status in [DeliveryStatus::Sent, DeliveryStatus::Delivered, DeliveryStatus::Read] {
            for _ in 0..self.rng.random_range(1..3) {
                let report = ReceivedStatus {
                    account: access.account.clone(),
                    message_id: message_id.clone(),
                    outbound: Some(message.id),
                    status,
                    at: Timestamp::EPOCH,
                    failure: None,
                    pricing: None,
                    recipient: message.to.clone(),
                };
                let delay = Duration::from_millis(self.rng.random_range(1..1500));
                self.reports.push_back((delay, ChannelEvent::Status(report)));
            }
        }
        message_id
    }
}

#[async_trait]
impl Channel for Provider {
    fn profile(&self) -> &'static ChannelProfile {
        &heddle_memory::channel::PROFILE
    }

    fn verify(&self, _: &ChannelAccount, _: &HeaderMap, _: &[u8]) -> Result<(), WebhookError> {
        unreachable!("the simulation hands events over itself")
    }

    fn parse(&self, _: &AccountId, _: &[u8]) -> Result<Vec<ChannelEvent>, WebhookError> {
        unreachable!("the simulation hands events over itself")
    }

    fn is_opt_out(&self, _: i64) -> bool {
        false
    }

    async fn send(&self, access: &ChannelAccount, message: &OutboundMessage) -> Result<Accepted, SendError> {
        let token = access.credential("access_token").map_or("", Secret::expose);
        let dead = self.with(|inner| inner.dead_tokens.iter().any(|dead| dead == token));
        if dead {
            return Err(failure(FailureClass::Unauthorized));
        }
        self.with(|inner| inner.calls.push(Taken::of(access, message)));
        match self.with(Inner::fate) {
            Fate::Take(latency) => {
                // It may be taken before or after the caller dies.
                tokio::time::sleep(latency / 2).await;
                let message_id = self.with(|inner| inner.take(access, message));
                tokio::time::sleep(latency / 2).await;
                Ok(Accepted::new(message_id))
            }
            Fate::TakeAndHang => {
                self.with(|inner| inner.take(access, message));
                std::future::pending().await
            }
            Fate::Fail(latency, error) => {
                tokio::time::sleep(latency).await;
                Err(error)
            }
            Fate::Hang => std::future::pending().await,
        }
    }
}
