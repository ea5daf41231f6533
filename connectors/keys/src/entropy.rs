//! Source of keys and nonces, injected like time: a simulation that replays a seed needs the
//! same tenant key to get the same hashes, ids and partitions.

use rand::Rng as _;

/// A source of random bytes.
pub trait Entropy: Send + Sync + 'static {
    /// Bytes for a key that lives long.
    fn key(&self, bytes: &mut [u8]);

    /// Bytes for a nonce: up to 400,000 times a second.
    fn nonce(&self, bytes: &mut [u8]);
}

/// The operating system's: the only one that protects anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn key(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system has random bytes");
    }

    fn nonce(&self, bytes: &mut [u8]) {
        // ChaCha12, a generator a thread, seeded and after each 64 KiB seeded anew from the
        // operating system.
        rand::rng().fill_bytes(bytes);
    }
}
