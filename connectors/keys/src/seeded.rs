//! Keys and nonces from a seed: the same in every run, and therefore no secret to anybody.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::entropy::Entropy;

/// Random bytes from a seed, for a simulation that replays. One instance shared over the restarts of a run never
/// gives the same nonce twice.
pub struct SeededEntropy(Mutex<StdRng>);

impl SeededEntropy {
    /// The bytes of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}

impl Entropy for SeededEntropy {
    fn key(&self, bytes: &mut [u8]) {
        self.fill(bytes);
    }

    fn nonce(&self, bytes: &mut [u8]) {
        self.fill(bytes);
    }
}

impl fmt::Debug for SeededEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededEntropy")
    }
}
