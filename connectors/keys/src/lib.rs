//! Envelope encryption over any state store: a master key wraps tenants' keys, which wrap those of contacts and channel accounts.
//!
//! Contract: a key is made once, by conditional write, and of two makers at the same time the second
//! uses the first one's. Nothing is ever written under a master key unless the one that the store began
//! with, or was rotated to, is known too. What is erased is refused at once by this process, also by ciphers handed out
//! before; another process may go on for twice [`Options::cache_for`] at most, as long as it takes
//! its ciphers from here and does not keep them.
//!
//! | key | where from | wrapped or derived by | number in what it seals |
//! |---|---|---|---|
//! | master | file or environment; or it stays in Vault | | its id: 32 bits derived from it, or from where it is |
//! | tenant | random, row `key/t` | master | 1 |
//! | tenant's log key of a day | HKDF of the tenant's | | the day |
//! | tenant's key for hashes of a domain | HKDF of the tenant's | | |
//! | contact | random, row `key/c` | tenant | 1 |
//! | channel account | random, row `key/a` | tenant | 1 |
//!
//! The numbers are there so that keys can be rotated: a new master key or a second tenant key gets
//! another number, and what was sealed before still says which key opens it. [`rotation`] wraps tenants'
//! keys by another master key, or by the newest version of one in Vault.
//!
//! # Layout
//! - [`envelope`]: the port.
//! - [`wrapper`]: the seam to whoever wraps tenants' keys, and how that is stored. Behind it [`local`], a
//!   [`master`] key that was read or made; `heddle-connectors` adds HashiCorp Vault's transit engine.
//! - [`masters`]: which of them wraps, and which still open.
//! - [`rotation`]: wraps anew.
//! - [`entropy`]: where keys and nonces come from; [`SeededEntropy`] for simulations that replay.
//! - `contact`: the row of a contact's key, before and after an erasure; that of a channel account's is like the first.
//! - `cipher`: AES-256-GCM under one key.
//! - `derive`: HKDF-SHA-256 and HMAC-SHA-256, and every label in use.
//! - `cache`: opened keys, for a short time; `opened`: tenants' keys that Vault opened, as long as their rows
//!   stay.

mod cache;
mod cipher;
mod contact;
mod derive;
pub mod entropy;
pub mod envelope;
pub mod local;
pub mod master;
pub mod masters;
mod opened;
pub mod rotation;
mod seeded;
pub mod wrapper;

pub use entropy::{Entropy, SystemEntropy};
pub use envelope::{EnvelopeKeys, Options};
pub use local::LocalMaster;
pub use master::{MasterKey, MasterKeyError};
pub use masters::Masters;
pub use rotation::{Rewrapped, WrappedBy};
pub use seeded::SeededEntropy;
pub use wrapper::Wrapper;
