//! Simulated customers: each asks its questions in bursts of lines and waits for the answers.
//!
//! A customer has a phone number, or hides it and has only a business-scoped id. Besides questions it
//! sends stickers and pictures (within a burst) and reactions. It runs outside the process under
//! test, so its records can be trusted: whatever happens to the engine, a question stays open until
//! the simulated API accepts its answer, or the customer's patience ends.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heddle_schemas::id::AccountId;
use heddle_schemas::ports::clock::Clock;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::Error;
use crate::dice::Dice;
use crate::graph::GraphApi;
use crate::ledger::Taken;
use crate::record::Record;
use crate::report::{Latency, Report};
use crate::wamid;
use crate::webhooks::Webhooks;

/// Question: its lines, and the text that its answer must contain.
#[derive(Clone, PartialEq, Eq)]
pub struct Question {
    /// Lines of the burst, usually 1 to 3. Not empty. `{n}` is replaced by a number unique in the run: 0, 1 and so on
    /// for the first customer's questions, then those of the second.
    pub lines: Vec<String>,
    /// Words that the correct answer contains; `None` accepts any answer.
    pub expect: Option<String>,
}

impl Question {
    /// Creates a question of these lines that accepts any answer.
    #[must_use]
    pub fn new<const N: usize>(lines: [&str; N]) -> Self {
        Self { lines: lines.map(Into::into).to_vec(), expect: None }
    }

    /// Returns the question, answered only by a text with these words.
    #[must_use]
    pub fn expecting(mut self, words: &str) -> Self {
        self.expect = Some(words.to_owned());
        self
    }
}

/// Options of the customers.
#[derive(Clone)]
pub struct Options {
    /// Number of customers. Default 3.
    pub customers: NonZeroUsize,
    /// Business numbers to write to, in turn. Not empty.
    pub accounts: Vec<AccountId>,
    /// Questions to choose from; each customer starts at a different one. Not empty.
    pub script: Vec<Question>,
    /// Number of questions per customer. Default 3.
    pub questions: NonZeroUsize,
    /// Time within which the customers begin. Default 200 ms.
    pub start: Duration,
    /// Pause between two lines of a burst. Default 5 ms to 50 ms.
    pub gap: Range<Duration>,
    /// Pause after an answer. Default 20 ms to 200 ms.
    pub think: Range<Duration>,
    /// Time to wait for an answer before the next question; `None` does not wait. Default 30 s.
    pub patience: Option<Duration>,
    /// Share of the customers that have only a business-scoped id. Default 0.1.
    pub scoped: f64,
    /// Share of the bursts with a sticker or a picture, and of the answers with a reaction.
    /// Default 0.1.
    pub extras: f64,
    /// Seed of every random choice.
    pub seed: u64,
}

impl Options {
    /// Creates default options with these questions to these numbers.
    #[must_use]
    pub fn new(accounts: Vec<AccountId>, script: Vec<Question>) -> Self {
        Self {
            customers: const { NonZeroUsize::new(3).unwrap() },
            accounts,
            script,
            questions: const { NonZeroUsize::new(3).unwrap() },
            start: Duration::from_millis(200),
            gap: Duration::from_millis(5)..Duration::from_millis(50),
            think: Duration::from_millis(20)..Duration::from_millis(200),
            patience: Some(Duration::from_secs(30)),
            scoped: 0.1,
            extras: 0.1,
            seed: 0,
        }
    }
}

/// Event to display as it happens. The people and texts are invented; still, they are never logged.
#[derive(Clone, PartialEq, Eq)]
pub enum Scene {
    /// A customer sent a line.
    Said {
        /// Index of the customer, from 0.
        customer: usize,
        /// Text of the message.
        text: String,
    },
    /// A customer received a message.
    Heard {
        /// Index of the customer, from 0.
        customer: usize,
        /// Text of the message.
        text: String,
        /// Latency of the answer, where the message answers a question.
        latency: Option<Duration>,
    },
}

/// Question that has no answer yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Index of the customer, from 0.
    pub customer: usize,
    /// Business number that was written to.
    pub account: AccountId,
    /// The customer's number as `+15550000001`, or its business-scoped id as `whatsapp:US.1`.
    pub contact: String,
    /// Index of the question among the customer's own, from 0.
    pub question: usize,
    /// Time since its last line.
    pub since: Duration,
}

/// The running customers. Dropping it stops them.
pub struct Customers {
    shared: Arc<Shared>,
    living: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

struct Shared {
    options: Options,
    graph: GraphApi,
    webhooks: Webhooks,
    clock: Arc<dyn Clock>,
    dice: Dice,
    crowd: Arc<Crowd>,
    sent: Mutex<Vec<String>>,
}

/// The people, by the addresses that the API knows.
struct Crowd {
    people: Vec<Person>,
    by_address: HashMap<String, usize>,
    scenes: Option<mpsc::UnboundedSender<Scene>>,
    strangers: AtomicU64,
    answered: AtomicUsize,
}

struct Person {
    number: usize,
    account: AccountId,
    phone: Option<String>,
    user_id: String,
    record: Mutex<Record>,
    heard: Notify,
}

impl Customers {
    /// Starts the customers. `scenes` receives each event as it happens.
    ///
    /// # Errors
    /// [`Error::Script`] without numbers or questions.
    pub fn start(
        options: Options,
        graph: &GraphApi,
        webhooks: &Webhooks,
        clock: Arc<dyn Clock>,
        scenes: Option<mpsc::UnboundedSender<Scene>>,
    ) -> Result<Self, Error> {
        if options.accounts.is_empty() {
            return Err(Error::Script("number"));
        }
        if options.script.iter().all(|question| question.lines.is_empty()) {
            return Err(Error::Script("question"));
        }
        let dice = Dice::new(options.seed, 3);
        let crowd = Arc::new(Crowd::new(&options, &dice, scenes));
        let listening = crowd.clone();
        graph.on_taken(move |taken| listening.hear(taken));
        let shared = Arc::new(Shared {
            graph: graph.clone(),
            webhooks: webhooks.clone(),
            clock,
            dice,
            crowd,
            sent: Mutex::default(),
            options,
        });
        let (alive, living) = watch::channel(shared.crowd.people.len());
        let mut tasks = JoinSet::new();
        for number in 0..shared.crowd.people.len() {
            let (shared, alive) = (shared.clone(), alive.clone());
            tasks.spawn(async move {
                shared.live(&shared.crowd.people[number]).await;
                alive.send_modify(|alive| *alive -= 1);
            });
        }
        Ok(Self { shared, living, _tasks: tasks })
    }

    /// Waits until every customer has asked all its questions and has its answers or has lost patience.
    pub async fn done(&self) {
        // Fails only when the tasks have ended without counting down.
        let _ = self.living.clone().wait_for(|alive| *alive == 0).await;
    }

    /// Returns the number of answered questions, and the number of all that will be asked.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        let options = &self.shared.options;
        let all = options.customers.get() * options.questions.get();
        (self.shared.crowd.answered.load(Ordering::Relaxed), all)
    }

    /// Returns the questions that were asked and have no answer yet, the oldest first.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        let now = self.shared.clock.elapsed();
        let mut waiting = Vec::new();
        for person in &self.shared.crowd.people {
            let record = lock(&person.record);
            let open = record.asked().iter().enumerate().filter(|(_, asked)| asked.answered.is_none());
            waiting.extend(open.map(|(question, asked)| Waiting {
                customer: person.number,
                account: person.account.clone(),
                contact: match &person.phone {
                    Some(phone) => format!("+{phone}"),
                    None => format!("whatsapp:{}", person.user_id),
                },
                question,
                since: now.saturating_sub(asked.at),
            }));
        }
        waiting.sort_by_key(|one| std::cmp::Reverse(one.since));
        waiting
    }

    /// Returns the ids of all sent messages.
    #[must_use]
    pub fn sent(&self) -> Vec<String> {
        lock(&self.shared.sent).clone()
    }

    /// Returns the messages that each customer received, in order.
    #[must_use]
    pub fn replies(&self) -> Vec<Vec<Arc<Taken>>> {
        self.shared.crowd.people.iter().map(|person| lock(&person.record).replies().to_vec()).collect()
    }

    /// Returns the report so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let crowd = &self.shared.crowd;
        let sent = lock(&self.shared.sent);
        let acknowledged = self.shared.webhooks.acknowledged();
        let webhooks = self.shared.webhooks.counts();
        let mut report = Report {
            customers: crowd.people.len(),
            messages: sent.len() as u64,
            acknowledged: sent.iter().filter(|id| acknowledged.contains(*id)).count() as u64,
            duplicates: webhooks.duplicate_messages,
            strangers: crowd.strangers.load(Ordering::Relaxed),
            webhooks,
            graph: self.shared.graph.counts(),
            ..Report::default()
        };
        let mut latencies = Vec::new();
        for person in &crowd.people {
            let record = lock(&person.record);
            let answers = record.asked().iter().filter_map(|asked| asked.answered);
            let before = latencies.len();
            latencies.extend(answers);
            report.questions += record.asked().len() as u64;
            report.answered += (latencies.len() - before) as u64;
            report.replies += record.replies().len() as u64;
            report.doubled += record.doubled;
            report.out_of_order += record.out_of_order;
            report.unmatched += record.unmatched;
        }
        report.unanswered = report.questions - report.answered;
        report.latency = Latency::of(latencies);
        report
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crowd {
    fn new(options: &Options, dice: &Dice, scenes: Option<mpsc::UnboundedSender<Scene>>) -> Self {
        let people: Vec<Person> = (0..options.customers.get())
            .map(|number| Person {
                number,
                account: options.accounts[number % options.accounts.len()].clone(),
                // 555 is not an area code, so these numbers are unassigned.
                phone: (!dice.hits(options.scoped)).then(|| format!("1555{number:07}")),
                user_id: format!("US.{}", 13_491_208_655_000_000_000_u64 + number as u64),
                record: Mutex::default(),
                heard: Notify::new(),
            })
            .collect();
        let addresses = |person: &Person| [person.phone.clone(), Some(person.user_id.clone())];
        let by_address = people
            .iter()
            .flat_map(|person| {
                addresses(person).into_iter().flatten().map(|address| (address, person.number))
            })
            .collect();
        Self { people, by_address, scenes, strangers: AtomicU64::new(0), answered: AtomicUsize::new(0) }
    }

    /// Delivers an accepted message to its customer.
    fn hear(&self, taken: &Arc<Taken>) {
        let person = self.by_address.get(&taken.to).map(|number| &self.people[*number]);
        let Some(person) = person.filter(|person| person.account == taken.account) else {
            self.strangers.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let latency = {
            let mut record = lock(&person.record);
            let question = record.receive(taken);
            question.and_then(|question| record.asked()[question].answered)
        };
        if latency.is_some() {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        person.heard.notify_one();
        self.show(|| Scene::Heard { customer: person.number, text: taken.text.clone(), latency });
    }

    fn show(&self, scene: impl FnOnce() -> Scene) {
        if let Some(scenes) = &self.scenes {
            // Fails only without a receiver: then no event is displayed.
            let _ = scenes.send(scene());
        }
    }
}

impl Shared {
    async fn live(&self, person: &Person) {
        tokio::time::sleep(self.dice.within(&(Duration::ZERO..self.options.start))).await;
        let first = self.dice.below(self.options.script.len());
        for turn in 0..self.options.questions.get() {
            let question = &self.options.script[(first + turn) % self.options.script.len()];
            let number = lock(&person.record).ask(question.expect.clone(), self.clock.elapsed());
            let all_before = person.number * self.options.questions.get();
            self.ask(person, number, question, all_before + turn).await;
            self.await_answer(person, number).await;
            if self.dice.hits(self.options.extras) {
                self.react(person);
            }
            tokio::time::sleep(self.dice.within(&self.options.think)).await;
        }
    }

    async fn ask(&self, person: &Person, number: usize, question: &Question, of_all: usize) {
        if self.dice.hits(self.options.extras) {
            self.send(person, self.extra());
        }
        for (place, line) in question.lines.iter().enumerate() {
            if place > 0 {
                tokio::time::sleep(self.dice.within(&self.options.gap)).await;
            }
            let line = line.replace("{n}", &of_all.to_string());
            lock(&person.record).extend(number, self.clock.elapsed());
            self.crowd.show(|| Scene::Said { customer: person.number, text: line.clone() });
            self.send(person, json!({ "type": "text", "text": { "body": line } }));
        }
    }

    async fn await_answer(&self, person: &Person, number: usize) {
        let Some(patience) = self.options.patience else { return };
        let answered = async {
            while !lock(&person.record).is_answered(number) {
                // `Notify` keeps a permit for a reply that arrives before the wait.
                person.heard.notified().await;
            }
        };
        // On timeout the question stays unanswered, unless its answer still arrives.
        let _ = tokio::time::timeout(patience, answered).await;
    }

    fn react(&self, person: &Person) {
        let last = lock(&person.record).replies().last().map(|reply| reply.wamid.clone());
        if let Some(wamid) = last {
            self.send(
                person,
                json!({ "type": "reaction", "reaction": { "message_id": wamid, "emoji": "👍" } }),
            );
        }
    }

    fn extra(&self) -> Value {
        let id = self.dice.below(usize::MAX).to_string();
        let sha256 = "SfInY0gGKTsJlUWbwxC1k+FAD0FZHvzwfpvO0zX0GUI=";
        if self.dice.hits(0.5) {
            json!({ "type": "sticker", "sticker": {
                "id": id, "mime_type": "image/webp", "sha256": sha256, "animated": false } })
        } else {
            json!({ "type": "image", "image": { "id": id, "mime_type": "image/jpeg", "sha256": sha256 } })
        }
    }

    /// Passes a message to the webhooks, with sender, id and time.
    fn send(&self, person: &Person, mut message: Value) {
        let known_as = person.phone.as_deref().unwrap_or(&person.user_id);
        let id = wamid::new(known_as, wamid::From::Customer, &self.dice);
        let secs = self.clock.now().as_micros() / 1_000_000;
        message["id"] = json!(id);
        message["timestamp"] = json!(secs.to_string());
        message["from_user_id"] = json!(person.user_id);
        let mut contact = json!({ "profile": { "name": format!("Customer {}", person.number + 1) }, "user_id": person.user_id });
        match &person.phone {
            Some(phone) => {
                message["from"] = json!(phone);
                contact["wa_id"] = json!(phone);
            }
            None => contact["profile"]["username"] = json!(format!("@customer{}", person.number + 1)),
        }
        lock(&self.sent).push(id.clone());
        self.graph.count_in(&person.account);
        self.webhooks.message(&person.account, &id, contact, message);
    }
}
