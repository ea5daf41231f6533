//! Conditional writes.
//!
//! The condition covers the value and the expiry of a row, so that an expired row counts as absent. An
//! answer is read by the names of its columns: Apache Cassandra returns the row only when the condition did
//! not hold, ScyllaDB always, and in another order.
//!
//! A conditional write with an unknown outcome may be completed later, by the next request that touches the row.
//! So this process remembers such rows, and reads them through Paxos, which completes the write first: the value
//! read is then the final one.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::ports::state::Swap;
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;
use scylla::response::query_result::QueryResult;
use scylla::value::{CqlValue, Row};

use super::place::{Few, NONE, Place, Value, Values};
use super::rows::{Found, found};
use super::statements::{Conditional, Statement};
use super::writes::{stored_end, time_to_live};
use super::{Cql, MAX_VALUE, fault};

/// Number of attempts to replace an expired row when concurrent writers win.
const ATTEMPTS: usize = 16;

/// Maximum number of remembered rows; further ones are read like any other, and may show an older value.
const REMEMBERED: usize = 65_536;

/// Rows with a conditional write under way, or one of unknown outcome.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    keys: Mutex<HashSet<Key>>,
    /// Number of keys, so that reads take no lock while there is none.
    count: AtomicUsize,
}

impl Unsettled {
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.keys().contains(key)
    }

    pub(super) fn remove(&self, key: &Key) {
        let mut keys = self.keys();
        keys.remove(key);
        self.count.store(keys.len(), Ordering::Release);
    }

    fn insert(&self, key: &Key) {
        let mut keys = self.keys();
        if keys.len() < REMEMBERED {
            keys.insert(key.clone());
        }
        self.count.store(keys.len(), Ordering::Release);
    }

    fn keys(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A row that is to be set.
#[derive(Clone, Copy)]
struct New<'v> {
    value: &'v [u8],
    expires: i64,
    live: i32,
}

impl<'v> New<'v> {
    fn columns(&self) -> Few<'v> {
        [Some(Value::Int(self.live)), Some(Value::Blob(Some(self.value))), Some(Value::Long(self.expires))]
    }
}

/// Result of a conditional statement: `None` if it was applied, else the row that was there.
type Refused = Option<Option<Found>>;

impl Cql {
    /// Sets a row to `new` (`None`: deletes it) if it is `expected` (`None`: absent) now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the outcome is unknown; read the row.
    /// [`StoreError::TooLarge`]: nothing was written.
    pub async fn compare_and_set(
        &self,
        key: &Key,
        expected: Option<Bytes>,
        new: Option<Bytes>,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Swap, StoreError> {
        let place = Place::of(key);
        let Some(statements) = &self.table(place.stored).conditional else {
            let detail = format!("{} is not written on a condition", place.stored.name());
            return Err(StoreError::Corrupt { detail });
        };
        let bytes = new.as_ref().map_or(0, Bytes::len);
        if bytes > MAX_VALUE {
            return Err(StoreError::TooLarge { bytes, limit: MAX_VALUE });
        }
        let new = new.as_deref().map(|value| New {
            value,
            expires: stored_end(expires),
            live: time_to_live(expires, now),
        });
        // Also where the caller waits no longer.
        self.unsettled.insert(key);
        let swapped = match (expected, new) {
            (Some(expected), Some(new)) => self.replace(statements, place, &expected, new, now).await,
            (Some(expected), None) => self.remove(statements, place, &expected, now).await,
            (None, Some(new)) => self.insert(statements, place, new, now).await,
            (None, None) => self
                .find(&statements.read, place)
                .await
                .map(|found| live(found, now).map_or(Swap::Done, |found| Swap::Found(Some(found.value)))),
        };
        match swapped {
            Ok(_) => self.unsettled.remove(key),
            Err(_) => self.unsettled.insert(key),
        }
        swapped
    }

    async fn replace(
        &self,
        statements: &Conditional,
        place: Place<'_>,
        expected: &[u8],
        new: New<'_>,
        now: Timestamp,
    ) -> Result<Swap, StoreError> {
        let condition = [Some(Value::Blob(Some(expected))), Some(Value::Long(now.as_micros())), None];
        let values = Values { before: new.columns(), place, after: condition };
        Ok(swap(self.attempt(&statements.set_live, values).await?, now))
    }

    async fn remove(
        &self,
        statements: &Conditional,
        place: Place<'_>,
        expected: &[u8],
        now: Timestamp,
    ) -> Result<Swap, StoreError> {
        let condition = [Some(Value::Blob(Some(expected))), Some(Value::Long(now.as_micros())), None];
        let values = Values { before: NONE, place, after: condition };
        Ok(swap(self.attempt(&statements.delete_live, values).await?, now))
    }

    async fn insert(
        &self,
        statements: &Conditional,
        place: Place<'_>,
        new: New<'_>,
        now: Timestamp,
    ) -> Result<Swap, StoreError> {
        let mut values = Values { before: new.columns(), place, after: NONE };
        let mut refused = self.attempt(&statements.set_absent, values).await?;
        for _ in 0..ATTEMPTS {
            let ended = match &refused {
                Some(Some(found)) if !found.lives(now) => found.clone(),
                // It existed a moment ago, and has expired.
                Some(None) => {
                    values.after = NONE;
                    refused = self.attempt(&statements.set_absent, values).await?;
                    continue;
                }
                _ => return Ok(swap(refused, now)),
            };
            let condition = [Some(Value::Blob(Some(&ended.value))), Some(Value::Long(ended.expires)), None];
            let values = Values { before: new.columns(), place, after: condition };
            refused = self.attempt(&statements.set_ended, values).await?;
        }
        let detail = format!("{}: others were faster {ATTEMPTS} times", statements.set_absent.what);
        Err(StoreError::Unavailable { detail })
    }

    async fn attempt(&self, statement: &Statement, values: Values<'_>) -> Result<Refused, StoreError> {
        let what = &statement.what;
        let answer = self.run(what, self.session.execute_unpaged(&statement.prepared, values)).await?;
        let mut answer = Answer::read(what, answer)?;
        if answer.applied()? {
            return Ok(None);
        }
        let value = match answer.column("value") {
            Some(CqlValue::Blob(value)) => Some(value.into()),
            None => None,
            Some(_) => return Err(fault::corrupt(what, "the answer's value is no blob")),
        };
        let expires = match answer.column("expires") {
            Some(CqlValue::BigInt(expires)) => Some(expires),
            None => None,
            Some(_) => return Err(fault::corrupt(what, "the answer's end is no bigint")),
        };
        found(what, value, expires).map(Some)
    }
}

fn live(found: Option<Found>, now: Timestamp) -> Option<Found> {
    found.filter(|found| found.lives(now))
}

fn swap(refused: Refused, now: Timestamp) -> Swap {
    match refused {
        None => Swap::Done,
        Some(found) => Swap::Found(live(found, now).map(|found| found.value)),
    }
}

/// The answer to a conditional statement, by the names of its columns.
pub(super) struct Answer<'w> {
    what: &'w str,
    columns: Vec<(String, Option<CqlValue>)>,
}

impl<'w> Answer<'w> {
    pub(super) fn read(what: &'w str, answer: QueryResult) -> Result<Self, StoreError> {
        let rows = answer.into_rows_result().map_err(|error| fault::corrupt(what, error))?;
        let row = rows.first_row::<Row>().map_err(|error| fault::corrupt(what, error))?;
        let names = rows.column_specs().iter().map(|column| column.name().to_owned());
        Ok(Self { what, columns: names.zip(row.columns).collect() })
    }

    pub(super) fn applied(&mut self) -> Result<bool, StoreError> {
        match self.column("[applied]") {
            Some(CqlValue::Boolean(applied)) => Ok(applied),
            _ => Err(fault::corrupt(self.what, "the answer does not say whether it was applied")),
        }
    }

    fn column(&mut self, name: &str) -> Option<CqlValue> {
        self.columns.iter_mut().find(|(column, _)| column == name)?.1.take()
    }
}
