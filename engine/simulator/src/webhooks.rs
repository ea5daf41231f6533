//! Webhooks of the simulated provider: signed, at least once, out of order, retried until accepted.
//!
//! One task, the courier, batches waiting orders into bodies (as the provider does under load, one
//! body may carry messages of several customers, or statuses of several messages) and starts one
//! delivery for each. A delivery retries its body with growing pauses until the target answers 200,
//! so that the target may be killed and restarted. Each accepted message gets three statuses, each in a
//! webhook of its own and with a small random delay, so that they overtake one another.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/overview>.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::id::AccountId;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::sealed::Secret;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::Error;
use crate::dice::Dice;
use crate::graph::GraphApi;
use crate::ledger::Taken;

/// Statuses of a message, in the order in which they become true.
const STATUSES: [&str; 3] = ["sent", "delivered", "read"];

/// Options of the webhooks.
#[derive(Debug, Clone)]
pub struct Options {
    /// Base addresses of the engine, such as `http://127.0.0.1:8080`: one, or several behind a round-robin
    /// balancer, which sends each attempt to the next.
    pub targets: Vec<String>,
    /// App secrets that sign the webhooks, by number.
    pub secrets: HashMap<AccountId, Secret>,
    /// Maximum deliveries in flight. Default 64.
    pub concurrency: NonZeroUsize,
    /// Pause after the first failure; doubles each time. Default 50 ms.
    pub first_pause: Duration,
    /// Maximum pause. Default 2 s.
    pub longest_pause: Duration,
    /// Timeout for the target's answer. Default 10 s.
    pub timeout: Duration,
    /// Maximum random delay of a status, which makes statuses overtake one another. Default 20 ms.
    pub lateness: Duration,
    /// Share of the webhooks that are sent twice although they were accepted. Default 0.05.
    pub duplicate: f64,
    /// Maximum messages or statuses in one body. Default 20.
    pub batch: NonZeroUsize,
    /// Sends statuses for accepted messages. Default yes.
    pub statuses: bool,
    /// Seed of every random choice.
    pub seed: u64,
}

impl Options {
    /// Creates default options for this target.
    #[must_use]
    pub fn new(target: impl Into<String>, secrets: HashMap<AccountId, Secret>) -> Self {
        Self {
            targets: vec![target.into()],
            secrets,
            concurrency: const { NonZeroUsize::new(64).unwrap() },
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(2),
            timeout: Duration::from_secs(10),
            lateness: Duration::from_millis(20),
            duplicate: 0.05,
            batch: const { NonZeroUsize::new(20).unwrap() },
            statuses: true,
            seed: 0,
        }
    }
}

/// Counts of the webhooks sent so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Webhooks to deliver, duplicates not counted.
    pub webhooks: u64,
    /// Of those and their duplicates, answered with 200.
    pub acknowledged: u64,
    /// Webhooks sent twice on purpose.
    pub duplicates: u64,
    /// Failed attempts that were retried.
    pub retried: u64,
    /// Customers' messages in webhooks, duplicates not counted.
    pub messages: u64,
    /// Customers' messages in duplicated webhooks.
    pub duplicate_messages: u64,
    /// Statuses in webhooks, duplicates not counted.
    pub statuses: u64,
}

#[derive(Default)]
struct Meters {
    webhooks: AtomicU64,
    acknowledged: AtomicU64,
    duplicates: AtomicU64,
    retried: AtomicU64,
    messages: AtomicU64,
    duplicate_messages: AtomicU64,
    statuses: AtomicU64,
}

fn add(meter: &AtomicU64, more: usize) {
    meter.fetch_add(more as u64, Ordering::Relaxed);
}

/// The running webhooks. Clones share them; dropping the last one stops them.
#[derive(Clone)]
pub struct Webhooks {
    shared: Arc<Shared>,
    orders: mpsc::UnboundedSender<Order>,
    _courier: Arc<StopOnDrop>,
}

struct StopOnDrop(AbortHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Shared {
    options: Options,
    clock: Arc<dyn Clock>,
    client: reqwest::Client,
    dice: Dice,
    slots: Semaphore,
    turn: AtomicUsize,
    meters: Meters,
    acknowledged: Mutex<HashSet<String>>,
    /// Number of orders that are not delivered yet.
    open: watch::Sender<usize>,
}

/// Notification for the target.
pub(crate) enum Order {
    /// A customer's message, with its contact.
    Message { account: AccountId, id: String, contact: Value, message: Value },
    /// The statuses of an accepted message.
    Statuses(Arc<Taken>),
}

/// Delivery of one body.
struct Delivery {
    path: String,
    signature: String,
    body: Bytes,
    /// Ids of the messages in the body.
    ids: Vec<String>,
    delay: Duration,
}

impl Webhooks {
    /// Starts to send, and subscribes to the messages that `graph` accepts.
    ///
    /// # Errors
    /// [`Error::Client`].
    pub fn start(options: Options, graph: &GraphApi, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let client = reqwest::Client::builder()
            .timeout(options.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .user_agent("facebookexternalua")
            .pool_max_idle_per_host(options.concurrency.get())
            .build()?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let with_statuses = options.statuses;
        let shared = Arc::new(Shared {
            dice: Dice::new(options.seed, 2),
            slots: Semaphore::new(options.concurrency.get()),
            turn: AtomicUsize::new(0),
            options,
            clock,
            client,
            meters: Meters::default(),
            acknowledged: Mutex::default(),
            open: watch::Sender::new(0),
        });
        let courier = tokio::spawn(courier(shared.clone(), inbox)).abort_handle();
        let this = Self { shared, orders, _courier: Arc::new(StopOnDrop(courier)) };
        if with_statuses {
            // A weak sender, so that the API does not keep the webhooks running.
            let (orders, shared) = (this.orders.downgrade(), this.shared.clone());
            graph.on_taken(move |taken| {
                if let (Some(orders), Some(_)) = (orders.upgrade(), &taken.callback) {
                    shared.order(&orders, Order::Statuses(taken.clone()));
                }
            });
        }
        Ok(this)
    }

    /// Queues a customer's message.
    pub(crate) fn message(&self, account: &AccountId, id: &str, contact: Value, message: Value) {
        let order = Order::Message { account: account.clone(), id: id.to_owned(), contact, message };
        self.shared.order(&self.orders, order);
    }

    /// Waits until every order, including those made meanwhile, is delivered.
    pub async fn idle(&self) {
        // Fails only without a sender, and `shared` holds it.
        let _ = self.shared.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Returns the number of orders that are not completely delivered.
    #[must_use]
    pub fn open(&self) -> usize {
        *self.shared.open.borrow()
    }

    /// Returns the ids of the customers' messages that were answered with 200.
    #[must_use]
    pub fn acknowledged(&self) -> HashSet<String> {
        self.shared.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts of the webhooks sent so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |meter: &AtomicU64| meter.load(Ordering::Relaxed);
        let meters = &self.shared.meters;
        Counts {
            webhooks: read(&meters.webhooks),
            acknowledged: read(&meters.acknowledged),
            duplicates: read(&meters.duplicates),
            retried: read(&meters.retried),
            messages: read(&meters.messages),
            duplicate_messages: read(&meters.duplicate_messages),
            statuses: read(&meters.statuses),
        }
    }
}

/// Batches orders into bodies, and runs a delivery for each.
async fn courier(shared: Arc<Shared>, mut inbox: mpsc::UnboundedReceiver<Order>) {
    let batch = shared.options.batch.get();
    let mut deliveries = JoinSet::new();
    let mut orders = Vec::with_capacity(batch);
    loop {
        tokio::select! {
            received = inbox.recv_many(&mut orders, batch) => match received {
                0 => return,
                _ => for delivery in shared.bodies(&mut orders) {
                    deliveries.spawn(shared.clone().deliver(delivery));
                },
            },
            Some(_) = deliveries.join_next() => {}
        }
    }
}

/// Contents of one body.
#[derive(Default)]
struct Load {
    contacts: Vec<Value>,
    messages: Vec<Value>,
    ids: Vec<String>,
    statuses: [Vec<Value>; STATUSES.len()],
}

impl Shared {
    fn order(&self, orders: &mpsc::UnboundedSender<Order>, order: Order) {
        // A body counts while it is open; until then its order counts instead.
        self.open.send_modify(|open| *open += 1);
        if orders.send(order).is_err() {
            self.open.send_modify(|open| *open -= 1);
        }
    }

    /// Returns the bodies of these orders: one of messages and one of each status for each number.
    fn bodies(&self, orders: &mut Vec<Order>) -> Vec<Delivery> {
        let ordered = orders.len();
        let mut loads: HashMap<AccountId, Load> = HashMap::new();
        for order in orders.drain(..) {
            match order {
                Order::Message { account, id, contact, message } => {
                    let load = loads.entry(account).or_default();
                    load.contacts.push(contact);
                    load.messages.push(message);
                    load.ids.push(id);
                }
                Order::Statuses(taken) => {
                    let load = loads.entry(taken.account.clone()).or_default();
                    let now = self.clock.now().as_micros() / 1_000_000;
                    for (list, status) in load.statuses.iter_mut().zip(STATUSES) {
                        list.push(status_of(&taken, status, now));
                    }
                }
            }
        }
        let mut bodies = Vec::new();
        for (account, load) in loads {
            if !load.messages.is_empty() {
                add(&self.meters.messages, load.messages.len());
                let value = json!({ "contacts": load.contacts, "messages": load.messages });
                self.sign(&account, value, load.ids, Duration::ZERO, &mut bodies);
            }
            for mut statuses in load.statuses.into_iter().filter(|list| !list.is_empty()) {
                add(&self.meters.statuses, statuses.len());
                let first = self.dice.below(statuses.len());
                statuses.rotate_left(first);
                let delay = self.dice.within(&(Duration::ZERO..self.options.lateness));
                self.sign(&account, json!({ "statuses": statuses }), Vec::new(), delay, &mut bodies);
            }
        }
        self.open.send_modify(|open| *open = *open + bodies.len() - ordered);
        bodies
    }

    /// Adds the signed body to `bodies`; sometimes twice, the second with a small delay.
    fn sign(
        &self,
        account: &AccountId,
        mut value: Value,
        ids: Vec<String>,
        delay: Duration,
        bodies: &mut Vec<Delivery>,
    ) {
        value["messaging_product"] = json!("whatsapp");
        value["metadata"] =
            json!({ "display_phone_number": "15550783881", "phone_number_id": account.as_str() });
        let body = json!({
            "object": "whatsapp_business_account",
            "entry": [{ "id": "102290129340398", "changes": [{ "field": "messages", "value": value }] }],
        });
        let body = Bytes::from(body.to_string());
        let path = format!("/webhooks/whatsapp/{account}");
        let secret = self.options.secrets.get(account).map(Secret::expose).unwrap_or_default();
        let signature = signature(secret, &body);
        add(&self.meters.webhooks, 1);
        if self.dice.hits(self.options.duplicate) {
            add(&self.meters.duplicates, 1);
            add(&self.meters.duplicate_messages, ids.len());
            let delay = delay + self.dice.within(&(Duration::ZERO..self.options.lateness));
            let (path, signature, body, ids) = (path.clone(), signature.clone(), body.clone(), ids.clone());
            bodies.push(Delivery { path, signature, body, ids, delay });
        }
        bodies.push(Delivery { path, signature, body, ids, delay });
    }

    async fn deliver(self: Arc<Self>, delivery: Delivery) {
        if !delivery.delay.is_zero() {
            tokio::time::sleep(delivery.delay).await;
        }
        let mut pause = self.options.first_pause;
        while !self.attempt(&delivery).await {
            add(&self.meters.retried, 1);
            // Jitter: between half of the pause and the whole, so that retries do not hit a restarted target at once.
            tokio::time::sleep(pause.mul_f64(0.5 + self.dice.unit() / 2.0)).await;
            pause = (pause * 2).min(self.options.longest_pause);
        }
        add(&self.meters.acknowledged, 1);
        if !delivery.ids.is_empty() {
            self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).extend(delivery.ids);
        }
        self.open.send_modify(|open| *open -= 1);
    }

    /// Sends the body once. Returns whether the target answered with 200.
    async fn attempt(&self, delivery: &Delivery) -> bool {
        let Ok(_slot) = self.slots.acquire().await else { return false };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let target = &self.options.targets[turn % self.options.targets.len()];
        let sent = self
            .client
            .post(format!("{}{}", target.trim_end_matches('/'), delivery.path))
            .header(CONTENT_TYPE, "application/json")
            .header("x-hub-signature-256", &delivery.signature)
            .body(delivery.body.clone())
            .send()
            .await;
        match sent {
            Ok(response) => response.status().as_u16() == 200 && response.bytes().await.is_ok(),
            Err(_) => false,
        }
    }
}

fn status_of(taken: &Taken, status: &str, secs: i64) -> Value {
    let mut value = json!({
        "id": taken.wamid,
        "status": status,
        "timestamp": secs.to_string(),
        "pricing": { "billable": false, "pricing_model": "PMP", "type": "free_customer_service", "category": "service" },
    });
    // A person who hides the number is identified by the scoped id alone.
    let recipient = if taken.is_to_phone() { "recipient_id" } else { "recipient_user_id" };
    value[recipient] = json!(taken.to);
    if let Some(callback) = &taken.callback {
        value["biz_opaque_callback_data"] = json!(callback);
    }
    value
}

/// Returns `sha256=` and the hexadecimal HMAC-SHA256 of the body.
#[must_use]
pub fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_signed_as_rfc_4231_does() {
        // Test case 2.
        assert_eq!(
            signature("Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
