//! Walks over whole tables, page by page, a partition after the other in the order of their tokens.
//!
//! The database has no index of a tenant's partitions: a walk over them reads the partitions of all tenants and skips
//! the others. It requests one page at a time, whatever is in it, since a filter of the database's own searches until
//! it has a full page, and times out when that takes too long.

use bytes::Bytes;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::ports::state::{Row, Walk, Walked};
use heddle_schemas::time::Timestamp;
use scylla::response::PagingState;
use scylla::value;

use super::place::Stored;
use super::rows::{self, PAGE, PAGE_OF_DOCUMENTS};
use super::{Cql, fault};

/// Position at which a walk continues: the table, and the database's paging state.
struct Cursor {
    at: Stored,
    state: PagingState,
}

impl Cursor {
    fn read(bytes: &Bytes) -> Option<Self> {
        let (&at, state) = bytes.split_first()?;
        let at = *Stored::ALL.get(usize::from(at))?;
        let state =
            if state.is_empty() { PagingState::start() } else { PagingState::new_from_raw_bytes(state) };
        Some(Self { at, state })
    }

    fn written(&self) -> Bytes {
        let state = self.state.as_bytes_slice().map_or(&[][..], |state| state);
        [&[self.at as u8], state].concat().into()
    }
}

impl Cql {
    /// A page of a walk.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn walk(&self, walk: &Walk) -> Result<Walked, StoreError> {
        let mut stored: Vec<_> = walk.tables.iter().map(|&table| Stored::of(table)).collect();
        stored.retain(|&stored| stored != Stored::Agenda);
        stored.sort_unstable();
        stored.dedup();
        let cursor = match &walk.after {
            Some(after) => Cursor::read(after)
                .filter(|cursor| stored.contains(&cursor.at))
                .ok_or_else(|| fault::corrupt("walk", "it cannot go on from there; begin it again"))?,
            None => match stored.first() {
                Some(&at) => Cursor { at, state: PagingState::start() },
                None => return Ok(Walked::default()),
            },
        };
        let Cursor { at, state } = cursor;
        let statement = &self.table(at).walk;
        let what = &statement.what;
        let largest = if at == Stored::Document { PAGE_OF_DOCUMENTS } else { PAGE };
        let mut prepared = statement.prepared.clone();
        prepared.set_page_size(i32::try_from(walk.limit).map_or(largest, |limit| limit.clamp(1, largest)));
        let page = self.session.execute_single_page(&prepared, (), state);
        let (answer, next) = self.run(what, page).await?;
        let answer = answer.into_rows_result().map_err(|error| fault::corrupt(what, error))?;
        let mut rows = Vec::new();
        for row in answer.rows::<value::Row>().map_err(|error| fault::corrupt(what, error))? {
            let row = row.map_err(|error| fault::corrupt(what, error))?;
            rows.extend(read(what, at, row)?.filter(|row| {
                let of_tenant = walk.tenant.as_ref().is_none_or(|tenant| row.key.tenant() == tenant.as_str());
                of_tenant && walk.tables.contains(&row.key.table())
            }));
        }
        let next = match next.into_paging_control_flow() {
            std::ops::ControlFlow::Continue(state) => Some(Cursor { at, state }),
            std::ops::ControlFlow::Break(()) => stored
                .into_iter()
                .find(|&stored| stored > at)
                .map(|at| Cursor { at, state: PagingState::start() }),
        };
        Ok(Walked { rows, next: next.as_ref().map(Cursor::written) })
    }
}

fn read(what: &str, at: Stored, row: value::Row) -> Result<Option<Row>, StoreError> {
    let mut columns = row.columns.into_iter();
    let key = at.key(&mut columns).ok_or_else(|| fault::corrupt(what, "a row has no key of this build"))?;
    let value = columns.next().flatten().and_then(value::CqlValue::into_blob).map(Bytes::from);
    let expires = columns.next().flatten().and_then(|expires| expires.as_bigint());
    let found = rows::found(what, value, expires)?;
    Ok(found.map(|found| {
        let expires = Some(found.expires).filter(|&at| at != i64::MAX).map(Timestamp::from_micros);
        Row { key, value: found.value, expires }
    }))
}
