//! Conditional update: changes one row of the state store from whatever it is at that moment.
//!
//! Contract: the change is computed anew for each value that is found, and holds exactly once when [`update`] returns
//! its result. After a write without an answer, and after a lost race, it is computed again on what is stored by then;
//! so a change recognises its own effect, and leaves the row as it is when it finds it.

use bytes::Bytes;

use super::state::{State, StoreError, Swap};
use crate::table::Key;
use crate::time::Timestamp;

/// Change of the row that was found.
#[derive(Debug)]
pub enum Change<T> {
    /// Leaves the row as it is.
    Keep(T),
    /// Sets the row.
    Set {
        /// The new value; `None` deletes the row.
        value: Option<Bytes>,
        /// End of the row; `None` for never.
        expires: Option<Timestamp>,
        /// Result of the update once the value is stored.
        result: T,
    },
}

impl<T> Change<T> {
    /// Sets the row to a value that stays.
    pub fn put(value: Bytes, result: T) -> Self {
        Self::Set { value: Some(value), expires: None, result }
    }
}

/// Policy of an update when the store did not do what it asked for.
pub trait Patience: Send {
    /// Waits after a failure of the store, or returns it to end the update.
    fn failed(&mut self, error: StoreError) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Waits after another writer was faster.
    fn lost(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Ends an update at the first failure of the store. The row may have been changed then or not.
#[derive(Debug, Clone, Copy)]
pub struct Impatient;

impl Patience for Impatient {
    async fn failed(&mut self, error: StoreError) -> Result<(), StoreError> {
        Err(error)
    }
}

/// Changes a row until the change holds or leaves the row as it is. Returns the change's result.
///
/// # Errors
/// Errors of `change`, and failures that `patience` does not wait for.
pub async fn update<T: Send, E: From<StoreError>>(
    state: &dyn State,
    key: &Key,
    mut patience: impl Patience,
    mut change: impl FnMut(Option<&Bytes>) -> Result<Change<T>, E> + Send,
) -> Result<T, E> {
    let mut stored = read(state, key, &mut patience).await?;
    loop {
        let (value, expires, result) = match change(stored.as_ref())? {
            Change::Keep(result) => return Ok(result),
            Change::Set { value, expires, result } => (value, expires, result),
        };
        match state.compare_and_set(key, stored, value, expires).await {
            Ok(Swap::Done) => return Ok(result),
            Ok(Swap::Found(found)) => {
                stored = found;
                patience.lost().await;
            }
            Err(error) => {
                patience.failed(error).await?;
                stored = read(state, key, &mut patience).await?;
            }
        }
    }
}

async fn read(
    state: &dyn State,
    key: &Key,
    patience: &mut impl Patience,
) -> Result<Option<Bytes>, StoreError> {
    loop {
        match state.get(key).await {
            Ok(stored) => return Ok(stored),
            Err(error) => patience.failed(error).await?,
        }
    }
}
