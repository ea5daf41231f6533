//! Documents in memory, searched by the words they share with the query.
//!
//! A passage is a paragraph; its headings are those of CommonMark's `#` form above it. The score is
//! the number of different words of the query that occur in the passage or its headings; equal
//! scores are ordered by document and place, so a search always answers alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::knowledge::{
    Document, DocumentFormat, DocumentSummary, Knowledge, KnowledgeError, Passage,
};

/// Documents of all tenants.
#[derive(Debug, Default)]
pub struct MemoryKnowledge {
    tenants: Mutex<BTreeMap<TenantId, Documents>>,
}

type Documents = BTreeMap<String, Document>;

impl MemoryKnowledge {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantId, Documents>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Knowledge for MemoryKnowledge {
    async fn put(&self, tenant: &TenantId, document: Document) -> Result<DocumentSummary, KnowledgeError> {
        if !(1..=512).contains(&document.id.len()) {
            let why = format!("its id has {} bytes, 1 to 512 are accepted", document.id.len());
            return Err(KnowledgeError::Refused { document: document.id, why });
        }
        let summary = summary(&document);
        self.lock().entry(tenant.clone()).or_default().insert(document.id.clone(), document);
        Ok(summary)
    }

    async fn remove(&self, tenant: &TenantId, document: &str) -> Result<(), KnowledgeError> {
        let removed = self.lock().get_mut(tenant).and_then(|documents| documents.remove(document));
        removed.map(drop).ok_or_else(|| KnowledgeError::Unknown { document: document.into() })
    }

    async fn list(&self, tenant: &TenantId) -> Result<Vec<DocumentSummary>, KnowledgeError> {
        Ok(self.lock().get(tenant).into_iter().flat_map(BTreeMap::values).map(summary).collect())
    }

    async fn documents(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Document>, KnowledgeError> {
        let tenants = self.lock();
        let all = tenants.get(tenant).into_iter().flat_map(BTreeMap::values);
        let behind = all.filter(|document| after.is_none_or(|after| document.id.as_str() > after));
        Ok(behind.take(limit).cloned().collect())
    }

    async fn search(
        &self,
        tenant: &TenantId,
        query: &str,
        limit: usize,
    ) -> Result<Vec<Passage>, KnowledgeError> {
        let query = words(query);
        let tenants = self.lock();
        let documents = tenants.get(tenant).into_iter().flat_map(BTreeMap::values);
        let mut found: Vec<_> = documents
            .flat_map(passages)
            .map(|passage| scored(passage, &query))
            .filter(|p| p.score > 0.0)
            .collect();
        // Stable: equal scores stay in the order of documents and places.
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(limit);
        Ok(found)
    }

    async fn erase(&self, tenant: &TenantId) -> Result<(), KnowledgeError> {
        self.lock().remove(tenant);
        Ok(())
    }
}

fn summary(document: &Document) -> DocumentSummary {
    DocumentSummary {
        id: document.id.clone(),
        title: document.title.clone(),
        format: document.format,
        bytes: document.text.len() as u64,
        passages: passages(document).len() as u64,
    }
}

fn passages(document: &Document) -> Vec<Passage> {
    let mut headings: Vec<(usize, &str)> = Vec::new();
    let mut passages = Vec::new();
    for block in document.text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        match heading(document.format, block) {
            Some((level, title)) => {
                headings.retain(|(above, _)| *above < level);
                headings.push((level, title));
            }
            None => passages.push(Passage {
                document: document.id.clone(),
                title: document.title.clone(),
                headings: headings.iter().map(|&(_, title)| title.to_owned()).collect(),
                text: block.to_owned(),
                score: 0.0,
            }),
        }
    }
    passages
}

fn heading(format: DocumentFormat, block: &str) -> Option<(usize, &str)> {
    let title = block.trim_start_matches('#');
    let level = block.len() - title.len();
    let is_heading = format == DocumentFormat::Markdown && level > 0 && !block.contains('\n');
    is_heading.then(|| (level, title.trim()))
}

fn scored(passage: Passage, query: &BTreeSet<String>) -> Passage {
    let mut words = words(&passage.text);
    words.extend(passage.headings.iter().flat_map(|heading| self::words(heading)));
    // Queries have far fewer words than an f32 counts exactly.
    let score = query.intersection(&words).count() as f32;
    Passage { score, ..passage }
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_passage_carries_the_headings_above_it_and_is_found_by_them() {
        let knowledge = MemoryKnowledge::default();
        let tenant = "acme".parse().unwrap();
        let text = "# Clinic\n\n## Hours\n\nNine to five.\n\n## Prices\n\nA visit is 40 euros.";
        let document = Document {
            id: "faq".into(),
            title: "FAQ".into(),
            format: DocumentFormat::Markdown,
            text: text.into(),
        };
        assert_eq!(knowledge.put(&tenant, document).await.unwrap().passages, 2);
        let found = knowledge.search(&tenant, "What are your hours?", 5).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].headings, ["Clinic", "Hours"]);
        assert_eq!((found[0].text.as_str(), found[0].score), ("Nine to five.", 1.0));
    }
}
