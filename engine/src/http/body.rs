//! Bodies of webhooks, read within limits: nobody has shown a secret yet.
//!
//! A body is read piece by piece. It breaks off when it is over its channel's limit, when no piece comes for
//! [`STALL`], or when the whole takes longer than [`WHOLE`]. All bodies together take at most `http.body_bytes`, and
//! those of one account at most an eighth of that, beyond the first [`SMALL`] bytes of each: a flood to one account
//! refuses that account's large webhooks, and no other's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::StreamExt as _;
use heddle_schemas::id::{AccountId, ChannelKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest wait for the next piece of a body.
const STALL: Duration = Duration::from_secs(5);
/// Longest time that a whole body takes.
const WHOLE: Duration = Duration::from_secs(20);
/// Bytes of a body that do not count towards its account's share: a usual webhook has fewer.
const SMALL: usize = 64 << 10;
/// Share of one account.
const SHARE: usize = 8;

/// Fault of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is over the channel's limit, or broken.
    TooLarge,
    /// It does not arrive in time.
    Slow,
    /// There is no memory for it now.
    Busy,
}

/// Memory for bodies.
pub(super) struct Bodies {
    bytes: Arc<Semaphore>,
    share: usize,
    /// Bytes by account, of those that have any: at most as many as there are connections.
    accounts: Arc<Mutex<HashMap<Account, usize>>>,
}

type Account = (ChannelKind, AccountId);

/// A body, and its place in memory until it is dropped.
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _place: Place,
}

struct Place {
    account: Account,
    counted: usize,
    accounts: Arc<Mutex<HashMap<Account, usize>>>,
    permits: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    /// Creates the memory of this many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        Self { bytes: Arc::new(Semaphore::new(bytes)), share: bytes / SHARE, accounts: Arc::default() }
    }

    /// Reads a body of at most this many bytes.
    pub(super) async fn read(
        &self,
        kind: ChannelKind,
        account: &AccountId,
        body: Body,
        most: usize,
    ) -> Result<Held, BodyError> {
        tokio::time::timeout(WHOLE, self.pieces((kind, account.clone()), body, most))
            .await
            .map_err(|_| BodyError::Slow)?
    }

    async fn pieces(&self, account: Account, body: Body, most: usize) -> Result<Held, BodyError> {
        let mut pieces = body.into_data_stream();
        let mut place = Place { account, counted: 0, accounts: self.accounts.clone(), permits: None };
        let mut bytes = Vec::new();
        while let Some(piece) =
            tokio::time::timeout(STALL, pieces.next()).await.map_err(|_| BodyError::Slow)?
        {
            let piece = piece.map_err(|_| BodyError::TooLarge)?;
            if bytes.len() + piece.len() > most {
                return Err(BodyError::TooLarge);
            }
            self.take(&mut place, bytes.len(), piece.len())?;
            bytes.extend_from_slice(&piece);
        }
        Ok(Held { bytes: bytes.into(), _place: place })
    }

    /// Takes memory for a piece of `more` bytes after `before`.
    fn take(&self, place: &mut Place, before: usize, more: usize) -> Result<(), BodyError> {
        let count = u32::try_from(more).map_err(|_| BodyError::TooLarge)?;
        let taken = self.bytes.clone().try_acquire_many_owned(count).map_err(|_| BodyError::Busy)?;
        match &mut place.permits {
            Some(permits) => permits.merge(taken),
            none => *none = Some(taken),
        }
        let counted = (before + more).saturating_sub(SMALL.max(before));
        if counted > 0 {
            let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
            let held = accounts.entry(place.account.clone()).or_default();
            if *held + counted > self.share {
                return Err(BodyError::Busy);
            }
            *held += counted;
            place.counted += counted;
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = accounts.get_mut(&self.account) {
            *held = held.saturating_sub(self.counted);
            if *held == 0 {
                accounts.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    const MIB: usize = 1 << 20;

    fn pieces(sizes: &[usize]) -> Body {
        let pieces: Vec<_> =
            sizes.iter().map(|size| Ok::<_, std::io::Error>(Bytes::from(vec![0; *size]))).collect();
        Body::from_stream(stream::iter(pieces))
    }

    async fn read(bodies: &Bodies, account: &str, sizes: &[usize]) -> Result<Held, BodyError> {
        bodies.read(ChannelKind::Whatsapp, &account.parse().unwrap(), pieces(sizes), 3 * MIB).await
    }

    #[tokio::test]
    async fn memory_of_bodies_is_bounded_and_comes_back() {
        let large = Bodies::new(64 * MIB);
        assert_eq!(read(&large, "1", &[2 * MIB, MIB, 1]).await.err(), Some(BodyError::TooLarge));
        let bodies = Bodies::new(16 * MIB);
        let first = read(&bodies, "1", &[MIB]).await.unwrap();
        let second = read(&bodies, "1", &[MIB]).await.unwrap();
        assert_eq!(
            read(&bodies, "1", &[MIB]).await.err(),
            Some(BodyError::Busy),
            "an eighth is one account's"
        );
        assert!(read(&bodies, "1", &[SMALL]).await.is_ok(), "a small one has a place");
        assert!(read(&bodies, "2", &[2 * MIB]).await.is_ok(), "another account's is not refused");
        drop((first, second));
        assert_eq!(read(&bodies, "1", &[MIB]).await.unwrap().bytes.len(), MIB);
        assert_eq!(bodies.bytes.available_permits(), 16 * MIB);
        assert!(bodies.accounts.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn all_accounts_together_stay_within_the_limit() {
        let bodies = Bodies::new(16 * MIB);
        let mut held = Vec::new();
        for account in 0..8 {
            held.push(read(&bodies, &account.to_string(), &[MIB + SMALL, MIB - SMALL]).await.unwrap());
        }
        assert_eq!(read(&bodies, "9", &[1]).await.err(), Some(BodyError::Busy));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_or_drips_breaks_off() {
        let bodies = Bodies::new(16 * MIB);
        let account = "1".parse().unwrap();
        let began = tokio::time::Instant::now();
        let stalled = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let read = bodies.read(ChannelKind::Whatsapp, &account, stalled, MIB).await;
        assert_eq!((read.err(), began.elapsed()), (Some(BodyError::Slow), STALL));
        let drips = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b".")), ()))
        });
        let began = tokio::time::Instant::now();
        let read = bodies.read(ChannelKind::Whatsapp, &account, Body::from_stream(drips), MIB).await;
        assert_eq!((read.err(), began.elapsed()), (Some(BodyError::Slow), WHOLE));
        assert_eq!(bodies.bytes.available_permits(), 16 * MIB);
    }
}
