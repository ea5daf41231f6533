//! Envelope encryption over any state store: a master key wraps tenants' keys, which wrap contacts' keys.
//!
//! Contract: a key is made once, by conditional write, and of two makers at the same time the second
//! uses the first one's. Nothing is ever written under another master key than the one that the
//! store began with. What is erased is refused at once by this process, also by ciphers handed out
//! before; another process may go on for twice [`Options::cache_for`] at most, as long as it takes
//! its ciphers from here and does not keep them.
//!
//! | key | where from | wrapped or derived by | number in what it seals |
//! |---|---|---|---|
//! | master | file or environment | | its id: 32 bits derived from it |
//! | tenant | random, row `key/t` | master | 1 |
//! | tenant's log key of a day | HKDF of the tenant's | | the day |
//! | tenant's key for hashes of a domain | HKDF of the tenant's | | |
//! | contact | random, row `key/c` | tenant | 1 |
//!
//! The numbers are there so that keys can be rotated: a new master key or a second tenant key gets
//! another number, and what was sealed before still says which key opens it.
//!
//! # Layout
//! - [`envelope`]: the port.
//! - [`master`]: the master key, read or made.
//! - [`entropy`]: where keys and nonces come from.
//! - `contact`: the row of a contact's key, before and after an erasure.
//! - `cipher`: AES-256-GCM under one key.
//! - `derive`: HKDF-SHA-256 and HMAC-SHA-256, and every label in use.
//! - `cache`: opened keys, for a short time.

mod cache;
mod cipher;
mod contact;
mod derive;
pub mod entropy;
pub mod envelope;
pub mod master;

pub use entropy::{Entropy, SystemEntropy};
pub use envelope::{EnvelopeKeys, Options};
pub use master::{MasterKey, MasterKeyError};
