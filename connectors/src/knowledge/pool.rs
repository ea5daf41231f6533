//! A bounded number of threads for work that would block other tasks.
//!
//! They are tokio's blocking threads. Work that has begun goes on when its caller cancels,
//! and holds its slot until it ends, so the number at work never exceeds the bound.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::Semaphore;

#[derive(Debug, Clone)]
pub(super) struct Pool {
    places: Arc<Semaphore>,
}

impl Pool {
    pub(super) fn new(places: NonZeroUsize) -> Self {
        Self { places: Arc::new(Semaphore::new(places.get())) }
    }

    /// Does the work on a thread of its own, once there is a place.
    ///
    /// # Errors
    /// The panic of the work.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let place = self.places.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        let placed = move || {
            let _place = place;
            work()
        };
        tokio::task::spawn_blocking(placed).await.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_more_are_at_work_than_places() {
        let pool = Pool::new(NonZeroUsize::new(2).unwrap());
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = (0..32).map(|_| {
            let (now, most) = (now.clone(), most.clone());
            pool.run(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
            })
        });
        futures::future::join_all(work).await;
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    }

    #[tokio::test]
    async fn a_panic_is_reported_and_frees_its_place() {
        let pool = Pool::new(NonZeroUsize::MIN);
        let panicked = pool.run(|| panic!("of its own")).await;
        assert!(panicked.is_err_and(|why: String| why.contains("of its own")));
        assert_eq!(pool.run(|| 1).await, Ok(1));
    }
}
