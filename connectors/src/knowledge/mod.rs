//! Tenants' documents: kept sealed in the state store, searched with Tantivy in memory.
//!
//! The state store is the source of truth: a row a document, sealed under the tenant's key. The searched index
//! is derived from it: one Tantivy index a tenant, in memory only, built from the rows at the first
//! search and closed again when others are used more. An index consists of the words of its
//! documents in the clear; on disk it would be a copy that no erased key makes unreadable. In memory
//! it costs a build at the first search after a start or a closing, and nothing else: no file to
//! repair, to migrate or to erase. On two shared cores that build took 15 ms for 20
//! passages, 55 ms for 200, 150 ms for 2,000 and 1.6 s for 20,000, and a change of an open index 20
//! to 30 ms; a search then takes 0.2 to 0.4 ms.
//!
//! Every change of a tenant's documents changes the version beside them, and every search reads it
//! first. So a search sees each change that was finished before it began, on any node, and an index
//! that another node's change has outdated is built anew. A change that failed half-way is seen by
//! its own node; others see it with the next one, at the latest when it is tried again.
//!
//! # Layout
//! - [`crawl`]: the pages of a site.
//! - [`document`]: limits of documents, and their construction from files.
//! - [`extract`]: text out of files, each read by a process of its own.
//! - `markdown`, `passages`: a document cut into passages.
//! - `index`: one tenant's index. `typos`: words that stand in for misspelt ones.
//! - `indexes`: the open ones, the least recently used of which close.
//! - `rows`: documents and their version in the state store.
//! - `pool`: threads for work that would block other tasks.
//! - [`tantivy`]: the port over all of these.

pub mod crawl;
pub mod document;
pub mod extract;
mod index;
mod indexes;
mod markdown;
mod passages;
mod pool;
mod rows;
pub mod tantivy;
mod typos;

pub use tantivy::{Bound, Bounds, Languages, Options, TantivyKnowledge, passages_of};
