//! Responder: repeats the question, sometimes late, sometimes never, and counts its calls; and the documents it reads,
//! which cannot always be searched.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use heddle_schemas::id::{TenantId, TurnId};
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, Knowledge, KnowledgeError, Passage};
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::ports::responder::{Answer, Question, Responder, ResponderError, Usage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

pub(crate) struct Repeats {
    outside: bool,
    reads: bool,
    inner: Mutex<Inner>,
}

struct Inner {
    rng: StdRng,
    /// When each turn was asked about.
    calls: BTreeMap<TurnId, Vec<Instant>>,
    /// Of a hundred answers and searches.
    fails: u32,
    /// Questions that came without passages of the documents.
    blind: u32,
}

impl Repeats {
    pub(crate) fn new(seed: u64, outside: bool, fails: u32) -> Arc<Self> {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x72_65_73_70);
        let reads = rng.random_bool(0.5);
        let inner = Inner { rng, calls: BTreeMap::new(), fails, blind: 0 };
        Arc::new(Self { outside, reads, inner: Mutex::new(inner) })
    }

    fn with<T>(&self, with: impl FnOnce(&mut Inner) -> T) -> T {
        with(&mut self.inner.lock().expect("no test panics while holding it"))
    }

    pub(crate) fn calm(&self) {
        self.with(|inner| inner.fails = 0);
    }

    /// Questions that came without passages of the documents, though every question has some.
    pub(crate) fn blind(&self) -> u32 {
        self.with(|inner| inner.blind)
    }

    /// When each turn was asked about.
    pub(crate) fn calls(&self) -> BTreeMap<TurnId, Vec<Instant>> {
        self.with(|inner| inner.calls.clone())
    }
}

#[async_trait]
impl Responder for Repeats {
    fn calls_outside(&self) -> bool {
        self.outside
    }

    fn reads_passages(&self) -> bool {
        self.reads
    }

    async fn answer(&self, question: Question) -> Result<Answer, ResponderError> {
        let (latency, dice) = self.with(|Inner { rng, calls, fails, blind }| {
            calls.entry(question.turn).or_default().push(Instant::now());
            *blind += u32::from(self.reads && question.passages.is_empty());
            let dice = rng.random_range(0..100);
            let latency = if self.outside { rng.random_range(0..800) } else { 0 };
            (Duration::from_millis(latency), if dice < *fails { dice % 3 } else { 9 })
        });
        tokio::time::sleep(latency).await;
        match dice {
            0 => return Err(ResponderError::Failed { detail: "simulated".into(), usage: Usage::default() }),
            1 => panic!("a simulated panic of a responder"),
            2 if self.outside => std::future::pending().await,
            _ => {}
        }
        let text = Some(question.messages.join("|"));
        Ok(Answer { text, ..Answer::none(Usage::default()) })
    }
}

/// Documents that say the same about everything, where their store can be read.
pub(crate) struct OnePassage(pub(crate) Arc<Repeats>);

#[async_trait]
impl Knowledge for OnePassage {
    async fn put(&self, _: &TenantId, _: Document) -> Result<DocumentSummary, KnowledgeError> {
        unreachable!("the simulation keeps no documents")
    }

    async fn remove(&self, _: &TenantId, document: &str) -> Result<(), KnowledgeError> {
        Err(KnowledgeError::Unknown { document: document.to_owned() })
    }

    async fn list(&self, _: &TenantId) -> Result<Vec<DocumentSummary>, KnowledgeError> {
        Ok(Vec::new())
    }

    async fn documents(
        &self,
        _: &TenantId,
        _: Option<&str>,
        _: usize,
    ) -> Result<Vec<Document>, KnowledgeError> {
        Ok(Vec::new())
    }

    async fn search(&self, _: &TenantId, _: &str, _: usize) -> Result<Vec<Passage>, KnowledgeError> {
        let (takes, fails) = self
            .0
            .with(|Inner { rng, fails, .. }| (rng.random_range(0..20), rng.random_range(0..100) < *fails));
        tokio::time::sleep(Duration::from_millis(takes)).await;
        if fails {
            return Err(StoreError::Unavailable { detail: "simulated".into() }.into());
        }
        Ok(vec![Passage {
            document: "all".into(),
            title: "All".into(),
            headings: Vec::new(),
            text: "It is so.".into(),
            score: 1.0,
        }])
    }

    async fn erase(&self, _: &TenantId) -> Result<(), KnowledgeError> {
        Ok(())
    }
}
