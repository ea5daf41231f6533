//! The responder: repeats what it is asked, sometimes late, sometimes never, and counts its calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use heddle_schemas::id::{TenantId, TurnId};
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, Knowledge, KnowledgeError, Passage};
use heddle_schemas::ports::responder::{Answer, Question, Responder, ResponderError, Usage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(crate) struct Repeats {
    outside: bool,
    inner: Mutex<(StdRng, BTreeMap<TurnId, u32>, u32)>,
}

impl Repeats {
    pub(crate) fn new(seed: u64, outside: bool, fails: u32) -> Arc<Self> {
        let rng = StdRng::seed_from_u64(seed ^ 0x72_65_73_70);
        Arc::new(Self { outside, inner: Mutex::new((rng, BTreeMap::new(), fails)) })
    }

    pub(crate) fn calm(&self) {
        self.inner.lock().expect("no test panics while holding it").2 = 0;
    }

    /// How often each turn was asked about.
    pub(crate) fn calls(&self) -> BTreeMap<TurnId, u32> {
        self.inner.lock().expect("no test panics while holding it").1.clone()
    }
}

#[async_trait]
impl Responder for Repeats {
    fn calls_outside(&self) -> bool {
        self.outside
    }

    fn reads_passages(&self) -> bool {
        false
    }

    async fn answer(&self, question: Question) -> Result<Answer, ResponderError> {
        let (latency, dice) = {
            let (rng, calls, fails) = &mut *self.inner.lock().expect("no test panics while holding it");
            *calls.entry(question.turn).or_default() += 1;
            let dice = rng.random_range(0..100);
            let latency = if self.outside { rng.random_range(0..800) } else { 0 };
            (Duration::from_millis(latency), if dice < *fails { dice % 3 } else { 9 })
        };
        tokio::time::sleep(latency).await;
        match dice {
            0 => return Err(ResponderError::Failed { detail: "simulated".into() }),
            1 => panic!("a simulated panic of a responder"),
            2 if self.outside => std::future::pending().await,
            _ => {}
        }
        let text = Some(question.messages.join("|"));
        Ok(Answer { text, sources: Vec::new(), usage: Usage::default() })
    }
}

/// Knowledge of nothing: these responders never ask.
pub(crate) struct NoDocuments;

#[async_trait]
impl Knowledge for NoDocuments {
    async fn put(&self, _: &TenantId, _: Document) -> Result<DocumentSummary, KnowledgeError> {
        unreachable!("the simulation keeps no documents")
    }

    async fn remove(&self, _: &TenantId, document: &str) -> Result<(), KnowledgeError> {
        Err(KnowledgeError::Unknown { document: document.to_owned() })
    }

    async fn list(&self, _: &TenantId) -> Result<Vec<DocumentSummary>, KnowledgeError> {
        Ok(Vec::new())
    }

    async fn search(&self, _: &TenantId, _: &str, _: usize) -> Result<Vec<Passage>, KnowledgeError> {
        Ok(Vec::new())
    }

    async fn erase(&self, _: &TenantId) -> Result<(), KnowledgeError> {
        Ok(())
    }
}
