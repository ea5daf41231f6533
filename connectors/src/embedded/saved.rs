//! Content of a checkpoint.

use std::sync::Arc;

use heddle_schemas::ledger::Position;
use heddle_schemas::topic::{Epoch, Offset, TopicPartition};
use serde::{Deserialize, Serialize};

use super::catalog::{Place, SegmentInfo};
use super::rows::Rows;

/// Rows of a checkpoint in progress, with the metadata that is saved beside them.
#[derive(Debug, Clone)]
pub(super) struct Frozen {
    /// The rows.
    pub(super) rows: Arc<Rows>,
    /// Metadata saved with the rows.
    pub(super) saved: Arc<Saved>,
    /// Changes of segment entries since the last checkpoint; `None`: the segment was removed.
    pub(super) segments: Arc<Vec<(u64, Option<SegmentInfo>)>>,
}

/// Metadata that a checkpoint saves beside the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// Number of partitions that the folder was made with.
    pub(super) partitions: u32,
    /// Everything before it is in the checkpoint.
    pub(super) replay_from: Option<Place>,
    /// The epoch that was running.
    pub(super) epoch: Epoch,
    /// Each partition's end and position.
    pub(super) tails: Vec<(TopicPartition, Offset, Position)>,
}
