//! Dead-lettering of a record that cannot be processed: its dead letter and its offset in one batch.

use heddle_schemas::ports::log::{NewRecord, Record, StoreError};
use heddle_schemas::ports::state::{Batch, Fence};
use heddle_schemas::record::dlq::DeadReason;

use super::commit::commit;
use super::publish;
use crate::ports::Ports;

/// Dead-letters a record. Where the dead letter is larger than the log accepts, since it holds the record in another
/// form, it is kept without the record: better than a partition that never gets past it.
///
/// # Errors
/// As [`commit`].
pub(crate) async fn dead_letter(
    ports: &Ports,
    fence: Fence,
    record: &Record,
    reason: DeadReason,
    detail: String,
    attempts: u32,
) -> Result<(), StoreError> {
    let letter = publish::dead_letter(ports, record, reason, detail, attempts);
    let settle = |letter: NewRecord| {
        commit(&*ports.state, &ports.metrics, move |_| Batch {
            fence: Some(fence),
            outputs: vec![letter.clone()],
            consumed: vec![(record.partition, record.offset)],
            ..Batch::default()
        })
    };
    match settle(letter.clone()).await {
        Err(StoreError::TooLarge { .. }) => settle(publish::without_original(&letter)).await,
        settled => settled,
    }
}
