//! Pages of a scan, one after the other, however long the store is away.

use bytes::Bytes;
use heddle_schemas::ports::state::{Scan, State, StoreError};
use heddle_schemas::table::Key;

use super::retry::read;
use crate::metrics::Metrics;
use crate::ports::Ports;

/// The pages of a scan. Rows of a page may be deleted before the next is read: it begins behind the last of them.
pub(crate) struct Pages<'p> {
    state: &'p dyn State,
    metrics: &'p Metrics,
    next: Option<Scan>,
}

impl<'p> Pages<'p> {
    /// Pages from the beginning of a scan, each of at most its limit.
    pub(crate) fn new(ports: &'p Ports, scan: Scan) -> Self {
        Self { state: &*ports.state, metrics: &ports.metrics, next: Some(scan) }
    }

    /// Reads the next page; `None` when that was all. The last one may be empty.
    ///
    /// # Errors
    /// Errors of the store that a retry does not fix.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<(Key, Bytes)>>, StoreError> {
        let Some(scan) = self.next.take() else { return Ok(None) };
        let page = read(self.metrics, || self.state.scan(&scan)).await?;
        self.next = scan.next(&page);
        Ok(Some(page))
    }
}

/// Page of a scan, and the position to go on from: for readers that ask for one page at a time.
#[derive(Debug)]
pub struct Page<T> {
    /// In order.
    pub items: Vec<T>,
    /// The last row that was read, where there may be more.
    pub after: Option<Key>,
}

impl<T> Page<T> {
    /// Reads a page of a scan behind a row, or from its beginning. `open` makes an item of a row, or leaves it out.
    ///
    /// # Errors
    /// The errors of `open`, and errors of the store that a retry does not fix.
    pub(crate) async fn read<E: From<StoreError>>(
        ports: &Ports,
        scan: Scan,
        after: Option<&Key>,
        open: impl Fn(&Key, &[u8]) -> Result<Option<T>, E>,
    ) -> Result<Self, E> {
        let scan = match after {
            Some(row) => scan.behind(row),
            None => scan,
        };
        let rows = read(&ports.metrics, || ports.state.scan(&scan)).await?;
        let mut items = Vec::new();
        for (key, stored) in &rows {
            items.extend(open(key, stored)?);
        }
        let full = rows.len() >= scan.limit;
        Ok(Self { items, after: rows.into_iter().last().map(|(key, _)| key).filter(|_| full) })
    }
}
