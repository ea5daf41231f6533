//! Seeded randomness shared by tasks: the same seed yields the same draws in the same order.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Stream of draws.
pub struct Dice(Mutex<SmallRng>);

impl Dice {
    /// Creates the stream of this seed; `stream` separates the users of one seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        // Any fixed odd factor spreads the streams over the seeds.
        Self(Mutex::new(SmallRng::seed_from_u64(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns true with probability `share`; never below 0, always above 1.
    pub fn hits(&self, share: f64) -> bool {
        share > 0.0 && self.unit() < share
    }

    /// Returns a number from 0 to 1, 1 excluded.
    pub fn unit(&self) -> f64 {
        self.with(|rng| rng.random())
    }

    /// Returns a number below `end`, 0 where `end` is 0.
    pub fn below(&self, end: usize) -> usize {
        if end == 0 { 0 } else { self.with(|rng| rng.random_range(0..end)) }
    }

    /// Returns a time within the range; its start where the range is empty.
    pub fn within(&self, range: &Range<Duration>) -> Duration {
        if range.is_empty() { range.start } else { self.with(|rng| rng.random_range(range.clone())) }
    }

    /// Returns `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        self.with(|rng| rng.random())
    }
}
