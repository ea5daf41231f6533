//! Conditional update that waits for the store; see [`heddle_schemas::ports::update`] for its contract.

use bytes::Bytes;
use heddle_schemas::ports::state::StoreError;
use heddle_schemas::ports::update::{self, Change};
use heddle_schemas::table::Key;
use heddle_schemas::time::LogThrottle;

use super::retry::Retrying;
use crate::ports::Ports;

/// Changes a row until the change holds or leaves the row as it is, however long the store is away.
///
/// # Errors
/// The errors of `change`, and errors of the store that a retry does not fix.
pub(crate) async fn update<T: Send, E: From<StoreError>>(
    ports: &Ports,
    key: &Key,
    change: impl FnMut(Option<&Bytes>) -> Result<Change<T>, E> + Send,
) -> Result<T, E> {
    static LOG: LogThrottle = LogThrottle::new();
    let retrying = Retrying::new(&ports.metrics, "conditional update", &LOG);
    update::update(&*ports.state, key, retrying, change).await
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use heddle_schemas::ports::state::{Batch, Scan, State, Swap, Walk, Walked};
    use heddle_schemas::ports::update::Impatient;
    use heddle_schemas::time::Timestamp;
    use prometheus::Registry;

    use super::*;
    use crate::metrics::Metrics;

    /// Effect of the double's conditional write in place of the requested one.
    enum Instead {
        /// Fails, and writes nothing.
        Fails,
        /// Writes, and fails.
        LosesAnswer,
        /// Finds the value of another writer.
        Overtaken(&'static str),
    }

    /// One row, whose writes go as scripted and then as they should.
    #[derive(Default)]
    struct Row {
        value: Mutex<Option<Bytes>>,
        script: Mutex<VecDeque<Instead>>,
    }

    impl Row {
        fn of(script: impl IntoIterator<Item = Instead>) -> Self {
            Self { script: Mutex::new(script.into_iter().collect()), ..Self::default() }
        }

        fn text(&self) -> String {
            let value = self.value.lock().unwrap().clone().unwrap_or_default();
            String::from_utf8(value.to_vec()).unwrap()
        }
    }

    fn away() -> StoreError {
        StoreError::Unavailable { detail: "away".into() }
    }

    #[async_trait]
    impl State for Row {
        async fn get(&self, _: &Key) -> Result<Option<Bytes>, StoreError> {
            Ok(self.value.lock().unwrap().clone())
        }

        async fn scan(&self, _: &Scan) -> Result<Vec<(Key, Bytes)>, StoreError> {
            Err(StoreError::Closed)
        }

        async fn walk(&self, _: &Walk) -> Result<Walked, StoreError> {
            Err(StoreError::Closed)
        }

        async fn commit(&self, _: Batch) -> Result<(), StoreError> {
            Err(StoreError::Closed)
        }

        async fn compare_and_set(
            &self,
            _: &Key,
            expected: Option<Bytes>,
            new: Option<Bytes>,
            _: Option<Timestamp>,
        ) -> Result<Swap, StoreError> {
            let mut value = self.value.lock().unwrap();
            let instead = self.script.lock().unwrap().pop_front();
            match instead {
                Some(Instead::Fails) => return Err(away()),
                Some(Instead::LosesAnswer) => {
                    *value = new;
                    return Err(away());
                }
                Some(Instead::Overtaken(other)) => *value = Some(Bytes::from_static(other.as_bytes())),
                None => {}
            }
            if *value != expected {
                return Ok(Swap::Found(value.clone()));
            }
            *value = new;
            Ok(Swap::Done)
        }
    }

    fn key() -> Key {
        Key::quota(&"acme".parse().unwrap(), "2026-11")
    }

    /// Adds a character, unless it is there.
    fn adds(found: Option<&Bytes>) -> Result<Change<bool>, StoreError> {
        let found = found.map_or(&b""[..], |found| &found[..]);
        Ok(match found.contains(&b'a') {
            true => Change::Keep(false),
            false => Change::put([found, b"a"].concat().into(), true),
        })
    }

    async fn patient(row: &Row) -> Result<bool, StoreError> {
        static LOG: LogThrottle = LogThrottle::new();
        let metrics = Metrics::register(&Registry::new());
        update::update(row, &key(), Retrying::new(&metrics, "test", &LOG), adds).await
    }

    #[tokio::test]
    async fn a_change_holds_once_though_the_store_fails_or_its_answer_is_lost() {
        let row = Row::of([Instead::Fails, Instead::LosesAnswer]);
        assert!(!patient(&row).await.unwrap(), "it finds its own effect");
        assert_eq!(row.text(), "a");
    }

    #[tokio::test]
    async fn a_lost_race_is_computed_again_on_what_is_there() {
        let row = Row::of([Instead::Overtaken("x"), Instead::Overtaken("xy")]);
        assert!(patient(&row).await.unwrap());
        assert_eq!(row.text(), "xya");
    }

    #[tokio::test]
    async fn who_is_not_patient_gets_the_failure() {
        let row = Row::of([Instead::Fails]);
        let failed = update::update(&row, &key(), Impatient, adds).await;
        assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
        assert_eq!(row.text(), "");
    }
}
