//! Quality of the search of tenants' documents, beside naive BM25: Tantivy's defaults,
//! one field of title, headings and text, no word forms, no weights.
//!
//! Both search the same passages of `benches/data/handbook` for the questions of `benches/data/questions.tsv`; see
//! `benches/data/README.md` for where these are from. Recall is the share of questions with a passage that answers
//! among the first five; MRR the mean of one over the place of the first such passage, among the first ten.
//!
//! Prints one JSON object. Exits with 1 when Heddle is below the baseline in one of the two.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use heddle_connectors::clock::SystemClock;
use heddle_connectors::keys::{self, EnvelopeKeys, MasterKey};
use heddle_connectors::knowledge::{Options, TantivyKnowledge, passages_of};
use heddle_memory::{MemoryDisk, MemoryStore};
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::knowledge::{Document, DocumentFormat, Knowledge, Passage};
use serde_json::{Value, json};
use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, Occur, Query, TermQuery};
use tantivy::schema::{IndexRecordOption, STORED, Schema, TEXT, Value as _};
use tantivy::tokenizer::TokenStream;
use tantivy::{Index, TantivyDocument, Term, doc};

/// Passages that are compared.
const DEPTH: usize = 10;
/// Passages among which one must answer.
const FIRST: usize = 5;

#[derive(Debug, Parser)]
struct Arguments {
    /// Folder of the pages and the questions.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/data"))]
    data: PathBuf,
    /// Print the questions that Heddle has no answer to among the first five.
    #[arg(long)]
    misses: bool,
}

/// Question, and the markers of a passage that answers it.
struct Question {
    kind: String,
    text: String,
    document: String,
    words: String,
}

impl Question {
    fn is_answered_by(&self, passage: &Passage) -> bool {
        passage.document == self.document && flat(&passage.text).contains(&flat(&self.words))
    }

    /// The place of the first passage that answers, from 1 on.
    fn place(&self, found: &[Passage]) -> Option<usize> {
        found.iter().position(|passage| self.is_answered_by(passage)).map(|at| at + 1)
    }
}

fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let documents = documents(&arguments.data.join("handbook"))?;
    let questions = questions(&arguments.data.join("questions.tsv"))?;
    let passages: Result<Vec<_>, _> = documents.iter().cloned().map(passages_of).collect();
    let passages = passages?.concat();
    for question in &questions {
        let answered = passages.iter().any(|passage| question.is_answered_by(passage));
        ensure!(answered, "no passage answers {:?}; correct questions.tsv", question.text);
    }
    let tenant: TenantId = "acme".parse()?;
    let knowledge = knowledge(&tenant, &documents).await?;
    let naive = Naive::of(&passages)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let clock = SystemClock;
    let mut took = Vec::new();
    for question in &questions {
        let began = clock.now();
        let found = knowledge.search(&tenant, &question.text, DEPTH).await?;
        took.push(clock.now().since(began));
        ours.push(question.place(&found));
        theirs.push(question.place(&naive.search(&question.text)?));
    }
    took.sort_unstable();
    let mut result = json!({
        "bench": "retrieval_quality",
        "documents": documents.len(),
        "passages": passages.len(),
        "questions": questions.len(),
        "heddle": figures(&questions, &ours),
        "naive_bm25": figures(&questions, &theirs),
        "heddle_search_p50_us": took.get(took.len() / 2).map(Duration::as_micros),
    });
    if arguments.misses {
        let missed = questions.iter().zip(ours.iter().zip(&theirs));
        let missed = missed.filter(|(_, (ours, _))| ours.is_none_or(|place| place > FIRST));
        let misses = missed.map(|(question, (ours, theirs))| {
            json!({ "question": question.text, "heddle": ours, "naive_bm25": theirs })
        });
        result["misses"] = misses.collect();
    }
    println!("{}", serde_json::to_string_pretty(&result)?);
    let holds = recall(&ours) >= recall(&theirs) && reciprocal(&ours) >= reciprocal(&theirs);
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn documents(folder: &Path) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let id = entry.file_name().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(entry.path())?;
        let title = text.lines().find_map(|line| line.strip_prefix("title:")).unwrap_or(&id);
        let title = title.trim().trim_matches('"').to_owned();
        documents.push(Document { id, title, format: DocumentFormat::Markdown, text });
    }
    documents.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(documents)
}

fn questions(file: &Path) -> anyhow::Result<Vec<Question>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let question = |line: &str| {
        let fields: Vec<_> = line.split('\t').map(ToOwned::to_owned).collect();
        let [kind, text, document, words] = fields.try_into().ok().context("a line has four fields")?;
        Ok(Question { kind, text, document, words })
    };
    text.lines().map(question).collect()
}

async fn knowledge(tenant: &TenantId, documents: &[Document]) -> anyhow::Result<TantivyKnowledge> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let state = Arc::new(MemoryStore::open(MemoryDisk::new(NonZeroU32::MIN), clock.clone()));
    // The memory store does not outlive the process, so its key need not be kept.
    let master = MasterKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    let keys = Arc::new(EnvelopeKeys::new(state.clone(), clock, &master, keys::Options::default()));
    let knowledge = TantivyKnowledge::new(state, keys, &Options::default());
    for document in documents {
        knowledge.put(tenant, document.clone()).await?;
    }
    Ok(knowledge)
}

/// Tantivy as it comes.
struct Naive {
    index: Index,
    passages: Vec<Passage>,
}

impl Naive {
    fn of(passages: &[Passage]) -> anyhow::Result<Self> {
        let mut schema = Schema::builder();
        let body = schema.add_text_field("body", TEXT);
        let place = schema.add_u64_field("place", STORED);
        let index = Index::create_in_ram(schema.build());
        let mut writer = index.writer_with_num_threads(1, 20_000_000)?;
        for (at, passage) in (0_u64..).zip(passages) {
            let text =
                [&passage.title, &passage.headings.join("\n"), &passage.text].map(String::as_str).join("\n");
            writer.add_document(doc!(body => text, place => at))?;
        }
        writer.commit()?;
        Ok(Self { index, passages: passages.to_vec() })
    }

    fn search(&self, question: &str) -> anyhow::Result<Vec<Passage>> {
        let schema = self.index.schema();
        let (body, place) = (schema.get_field("body")?, schema.get_field("place")?);
        let mut analyzer = self.index.tokenizer_for_field(body)?;
        let mut words = analyzer.token_stream(question);
        let mut terms: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        while words.advance() {
            let term = Term::from_field_text(body, &words.token().text);
            terms.push((Occur::Should, Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs))));
        }
        let searcher = self.index.reader()?.searcher();
        let found =
            searcher.search(&BooleanQuery::new(terms), &TopDocs::with_limit(DEPTH).order_by_score())?;
        let passage = |(_, at)| {
            let found: TantivyDocument = searcher.doc(at)?;
            let at = found.get_first(place).and_then(|at| at.as_u64()).context("each has its place")?;
            Ok(self.passages[usize::try_from(at)?].clone())
        };
        found.into_iter().map(passage).collect()
    }
}

/// The figures of all questions and of each kind.
fn figures(questions: &[Question], places: &[Option<usize>]) -> Value {
    let mut kinds: BTreeMap<&str, Vec<Option<usize>>> = BTreeMap::new();
    for (question, place) in questions.iter().zip(places) {
        kinds.entry("all").or_default().push(*place);
        kinds.entry(&question.kind).or_default().push(*place);
    }
    let results = kinds.into_iter().map(|(kind, places)| {
        let figures = json!({
            "questions": places.len(),
            "recall_at_5": round(recall(&places)),
            "mrr_at_10": round(reciprocal(&places)),
        });
        (kind.to_owned(), figures)
    });
    Value::Object(results.collect())
}

fn recall(places: &[Option<usize>]) -> f64 {
    let found = places.iter().flatten().filter(|place| **place <= FIRST).count();
    found as f64 / places.len() as f64
}

fn reciprocal(places: &[Option<usize>]) -> f64 {
    places.iter().flatten().map(|place| 1.0 / *place as f64).sum::<f64>() / places.len() as f64
}

fn round(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}
