//! Walks over whole tables.
//!
//! Rows in memory lie by partition, in no order a walk could follow. So it begins with a checkpoint, goes through
//! the store, and takes later changes from memory.

use std::ops::Bound;

use bytes::Bytes;
use heddle_schemas::ports::state::{Row, StoreError, Walk, Walked};
use heddle_schemas::table::{Key, Table};

use super::Embedded;
use super::merge::successor;

impl Embedded {
    #[expect(clippy::disallowed_methods, reason = "a store reads back the keys that it was given")]
    pub(super) async fn walk_page(&self, walk: &Walk) -> Result<Walked, StoreError> {
        if walk.after.is_none() {
            self.checkpoint().await?;
        }
        let mut tables: Vec<Table> = walk.tables.clone();
        tables.sort_unstable();
        tables.dedup();
        let mut walked = Walked::default();
        for table in tables {
            let prefix = table.prefix(walk.tenant.as_ref());
            let end = successor(&prefix);
            let from = match &walk.after {
                Some(after) if *after >= end => continue,
                Some(after) if *after >= prefix => Bound::Excluded(after.clone()),
                _ => Bound::Included(prefix),
            };
            for stored in self.store.range((from, Bound::Excluded(end)))? {
                let (bytes, stored) = stored?;
                if walked.rows.len() == walk.limit {
                    walked.next = walked.rows.last().map(|row| row.key.as_bytes().clone());
                    return Ok(walked);
                }
                let slot = self.view.open()?.row(&bytes).cloned().unwrap_or(stored);
                // A deleted row is none.
                let row =
                    |value: Bytes| Some(Row { key: Key::from_bytes(bytes)?, value, expires: slot.expires });
                walked.rows.extend(slot.value.and_then(row));
            }
        }
        Ok(walked)
    }
}
