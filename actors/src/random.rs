//! Randomness, injected: production draws from the system, tests from a seed.

use std::sync::Arc;

/// Sixteen random bytes, from a source that tests seed.
pub type Random = Arc<dyn Fn() -> [u8; 16] + Send + Sync>;
