//! Reading rows.
//!
//! A row ends at the time that it was written with, by the caller's clock; the server's own time to live
//! only takes the bytes away some time after.

use bytes::Bytes;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::ports::state::Scan;
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;
use scylla::deserialize::row::DeserializeRow;
use scylla::response::PagingState;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;

use super::place::{NONE, Place, Stored, Value, Values};
use super::statements::Statement;
use super::{Cql, fault};

/// Rows of a page at most. A page is in memory at once, here and in the server.
pub(super) const PAGE: i32 = 256;
/// Rows of a page of documents, which are large.
pub(super) const PAGE_OF_DOCUMENTS: i32 = 16;

/// A row as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) value: Bytes,
    /// Microseconds after 1970; `i64::MAX` for never.
    pub(super) expires: i64,
}

impl Found {
    pub(super) fn lives(&self, now: Timestamp) -> bool {
        self.expires > now.as_micros()
    }
}

impl Cql {
    /// The value of a row, unless it has ended.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn get(&self, key: &Key, now: Timestamp) -> Result<Option<Bytes>, StoreError> {
        let place = Place::of(key);
        let table = self.table(place.stored);
        let found = match &table.conditional {
            Some(conditional) if self.unsettled.holds(key) => {
                let found = self.find(&conditional.read, place).await?;
                self.unsettled.remove(key);
                found
            }
            _ => self.find(&table.get, place).await?,
        };
        Ok(found.filter(|found| found.lives(now)).map(|found| found.value))
    }

    pub(super) async fn find(
        &self,
        statement: &Statement,
        place: Place<'_>,
    ) -> Result<Option<Found>, StoreError> {
        let what = &statement.what;
        let values = Values { before: NONE, place, after: NONE };
        let answer = self.run(what, self.session.execute_unpaged(&statement.prepared, values)).await?;
        let rows = answer.into_rows_result().map_err(|error| fault::corrupt(what, error))?;
        let row = rows.maybe_first_row::<(Option<Bytes>, Option<i64>)>();
        let Some((value, expires)) = row.map_err(|error| fault::corrupt(what, error))? else {
            return Ok(None);
        };
        found(what, value, expires)
    }

    /// Rows of a partition that have not ended.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn scan(&self, scan: &Scan, now: Timestamp) -> Result<Vec<(Key, Bytes)>, StoreError> {
        if scan.limit == 0 || scan.to.as_ref().is_some_and(|to| *to <= scan.from) {
            return Ok(Vec::new());
        }
        match scan.partition.of_agenda() {
            Some(partition) => self.scan_agenda(partition, scan, now).await,
            None => self.scan_within(Place::within(&scan.partition), scan, now).await,
        }
    }

    /// Rows of one CQL partition.
    pub(super) async fn scan_within(
        &self,
        place: Place<'_>,
        scan: &Scan,
        now: Timestamp,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let Some(scans) = &self.table(place.stored).scans else {
            let detail =
                format!("{} is not scanned: its rows are found by their whole key only", place.stored.name());
            return Err(StoreError::Corrupt { detail });
        };
        let statement = scans.statement(scan.reverse, scan.to.is_some());
        let largest = if place.stored == Stored::Document { PAGE_OF_DOCUMENTS } else { PAGE };
        let mut prepared = statement.prepared.clone();
        prepared.set_page_size(i32::try_from(scan.limit).map_or(largest, |limit| limit.clamp(1, largest)));
        let bound = |bound| Some(Value::Blob(Some(bound)));
        let after = [bound(&scan.from), scan.to.as_deref().and_then(bound), None];
        let mut rows = Vec::new();
        let mut fault = None;
        self.pages(
            &statement.what,
            &prepared,
            &Values { before: NONE, place, after },
            |(row, value, expires): (Bytes, Option<Bytes>, Option<i64>)| {
                match found(&statement.what, value, expires) {
                    // A copy: a row that is kept must not keep its whole page.
                    Ok(Some(found)) if found.lives(now) => {
                        rows.push((scan.partition.row(&row), Bytes::copy_from_slice(&found.value)));
                    }
                    Ok(_) => {}
                    Err(error) => fault = Some(error),
                }
                fault.is_none() && rows.len() < scan.limit
            },
        )
        .await?;
        fault.map_or(Ok(rows), Err)
    }

    /// Reads page after page until `each` has enough.
    pub(super) async fn pages<R>(
        &self,
        what: &str,
        prepared: &PreparedStatement,
        values: &(impl SerializeRow + Sync),
        mut each: impl FnMut(R) -> bool,
    ) -> Result<(), StoreError>
    where
        R: for<'f> DeserializeRow<'f, 'f>,
    {
        let mut from = PagingState::start();
        loop {
            let page = self.session.execute_single_page(prepared, values, from);
            let (answer, next) = self.run(what, page).await?;
            let rows = answer.into_rows_result().map_err(|error| fault::corrupt(what, error))?;
            for row in rows.rows::<R>().map_err(|error| fault::corrupt(what, error))? {
                if !each(row.map_err(|error| fault::corrupt(what, error))?) {
                    return Ok(());
                }
            }
            match next.into_paging_control_flow() {
                std::ops::ControlFlow::Break(()) => return Ok(()),
                std::ops::ControlFlow::Continue(next) => from = next,
            }
        }
    }
}

/// Both columns of a row are there, or it isn't.
pub(super) fn found(
    what: &str,
    value: Option<Bytes>,
    expires: Option<i64>,
) -> Result<Option<Found>, StoreError> {
    match (value, expires) {
        (None, None) => Ok(None),
        (Some(value), Some(expires)) => Ok(Some(Found { value, expires })),
        (Some(_), None) => Err(fault::corrupt(what, "a row has a value and no end")),
        (None, Some(_)) => Err(fault::corrupt(what, "a row has an end and no value")),
    }
}
