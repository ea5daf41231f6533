//! Search of a tenant's documents.

use std::num::{NonZeroU32, NonZeroU64};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::language::Language;

/// Search of a tenant's documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KnowledgeBase {
    /// The language of most documents, whose word forms match each other. Documents in another one are searched by
    /// their words as they are. A change rebuilds the index at the next search.
    pub language: Language,
    /// Documents at most. Default: 2,000.
    #[serde(skip_serializing_if = "is_max_documents")]
    pub max_documents: NonZeroU32,
    /// Bytes of text of all documents together at most. Default: 64 MiB.
    #[serde(skip_serializing_if = "is_max_bytes")]
    pub max_bytes: NonZeroU64,
}

pub(super) const MAX_DOCUMENTS: NonZeroU32 = NonZeroU32::new(2_000).unwrap();

pub(super) const MAX_BYTES: NonZeroU64 = NonZeroU64::new(64 << 20).unwrap();

pub(super) fn is_max_documents(documents: &NonZeroU32) -> bool {
    *documents == MAX_DOCUMENTS
}

pub(super) fn is_max_bytes(bytes: &NonZeroU64) -> bool {
    *bytes == MAX_BYTES
}

impl Default for KnowledgeBase {
    fn default() -> Self {
        Self { language: Language::default(), max_documents: MAX_DOCUMENTS, max_bytes: MAX_BYTES }
    }
}
