//! An earlier end for a row: the retention sweep finds it, the entity that owns the row writes it.

use bytes::Bytes;
use heddle_schemas::ports::state::Write;
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;

/// A row that is to end earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TtlUpdate {
    /// Key of the row.
    pub key: Key,
    /// Value as it was read.
    pub value: Bytes,
    /// When it is to end.
    pub end: Timestamp,
}

impl TtlUpdate {
    /// The write that has it end then; at once where that is over.
    #[must_use]
    pub fn write(self, now: Timestamp) -> Write {
        if self.end <= now {
            Write::delete(self.key)
        } else {
            Write::put_until(self.key, self.value, self.end)
        }
    }
}
