//! End of the last read of older records of each partition.
//!
//! A reader that lags continues where it stopped. Without this, each read would begin at a place that the index
//! noted for the partition, which may be megabytes before.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use heddle_schemas::topic::{Offset, TopicPartition};

use super::catalog::Place;

/// The places, one a partition.
#[derive(Debug, Default)]
pub(super) struct Resumes(Mutex<HashMap<TopicPartition, (Offset, Place)>>);

impl Resumes {
    /// A frame at or before the record: where the last read ended, if that is nearer than `place`.
    #[must_use]
    pub(super) fn after(&self, partition: TopicPartition, from: Offset, place: Place) -> Place {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match places.get(&partition) {
            Some(&(next, last)) if next <= from && last > place => last,
            _ => place,
        }
    }

    /// Records that a read ended in the frame at `last`, and continues with `next`.
    pub(super) fn note(&self, partition: TopicPartition, next: Offset, last: Place) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, (next, last));
    }
}
