//! Faults of an operation, and their consequences: a retry, setting the record or turn aside, or the end of the
//! ownership.

use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::state::StoreError;
use heddle_schemas::record::dlq::DeadReason;

use super::thread::ThreadError;

/// Why a record or a turn cannot be dealt with now or ever.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The contact's key has been destroyed meanwhile, by another of its conversations: everything is read again.
    #[error("{0}")]
    Forgotten(String),
    /// A fault that a retry does not fix.
    #[error("{detail}")]
    Dead { reason: DeadReason, detail: String },
    /// A later build wrote what it needs: it waits for a node of such a build.
    #[error("{0}")]
    Newer(String),
}

/// Consequence of a fault.
#[derive(Debug)]
pub(super) enum Remedy {
    /// The ownership or the store is over: stop.
    Stop(StoreError),
    /// The store is away: the same again.
    Retry(StoreError),
    /// The contact's key was destroyed: load again.
    Reload(String),
    /// A stored or received value cannot be read or written. That concerns this conversation or its tenant alone, so
    /// this record or turn is set aside and all other work goes on.
    SetAside(DeadReason, String),
    /// Only a node of a later build can go on: it waits for one.
    Park(String),
}

impl Fault {
    /// Returns the consequence of the fault.
    pub(super) fn remedy(self) -> Remedy {
        match self {
            Self::Store(error) if error.is_transient() => Remedy::Retry(error),
            Self::Store(error) if is_over(&error) => Remedy::Stop(error),
            Self::Store(error) => {
                let reason = match error {
                    StoreError::TooLarge { .. } => DeadReason::TooLarge,
                    _ => DeadReason::Unreadable,
                };
                Remedy::SetAside(reason, error.to_string())
            }
            Self::Forgotten(detail) => Remedy::Reload(detail),
            Self::Dead { reason, detail } => Remedy::SetAside(reason, detail),
            Self::Newer(detail) => Remedy::Park(detail),
        }
    }
}

/// Returns true when no further work is possible under this ownership.
pub(super) fn is_over(error: &StoreError) -> bool {
    matches!(error, StoreError::Closed | StoreError::Fenced { .. })
}

/// Describes why something stored does not parse, without repeating any of it.
pub(super) fn unparsed(error: &serde_json::Error) -> String {
    format!("it does not parse: {:?} at column {}", error.classify(), error.column())
}

impl From<KeysError> for Fault {
    fn from(error: KeysError) -> Self {
        match error.passing() {
            Ok(error) => Self::Store(error),
            Err(KeysError::Gone { detail }) => Self::Forgotten(detail),
            Err(other) => Self::Dead { reason: DeadReason::Unreadable, detail: other.to_string() },
        }
    }
}

impl From<ThreadError> for Fault {
    fn from(error: ThreadError) -> Self {
        match error {
            ThreadError::Store(error) => Self::Store(error),
            ThreadError::Keys(error) => error.into(),
            row @ ThreadError::Row { .. } => {
                Self::Dead { reason: DeadReason::Unreadable, detail: row.to_string() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use heddle_schemas::topic::{Topic, TopicPartition};

    use super::*;

    #[test]
    fn a_parse_error_repeats_nothing_of_the_value() {
        let error = serde_json::from_str::<u8>("\"Ann Miller\"").unwrap_err();
        assert!(error.to_string().contains("Ann"));
        assert_eq!(unparsed(&error), "it does not parse: Data at column 12");
    }

    #[test]
    fn only_a_lost_ownership_stops_a_conversation() {
        let partition = TopicPartition { topic: Topic::Inbound, partition: 0 };
        let detail = String::new;
        let remedy = |error: StoreError| Fault::Store(error).remedy();
        assert!(matches!(remedy(StoreError::Closed), Remedy::Stop(_)));
        assert!(matches!(
            remedy(StoreError::Fenced { partition, epoch: heddle_schemas::topic::Epoch(1) }),
            Remedy::Stop(_)
        ));
        assert!(matches!(remedy(StoreError::Full { detail: detail() }), Remedy::Retry(_)));
        assert!(matches!(remedy(StoreError::Unavailable { detail: detail() }), Remedy::Retry(_)));
        let corrupt = remedy(StoreError::Corrupt { detail: detail() });
        assert!(matches!(corrupt, Remedy::SetAside(DeadReason::Unreadable, _)));
        let large = remedy(StoreError::TooLarge { bytes: 2, limit: 1 });
        assert!(matches!(large, Remedy::SetAside(DeadReason::TooLarge, _)));
    }
}
