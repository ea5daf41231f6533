//! Envelope encryption over any state store: a master key wraps tenants' keys, and these wrap the keys of contacts and
//! channel accounts.
//!
//! Contract: a key is created once, by conditional write, and of two concurrent creators the second
//! uses the first one's. Nothing is ever written under a master key unless the one that the store began
//! with, or was rotated to, is known too. An erased key is refused at once by this process, also by ciphers handed out
//! before; another process may use it for at most twice [`Options::cache_for`], provided that it takes
//! its ciphers from here and does not keep them.
//!
//! | key | source | wrapped or derived by | number in its ciphertexts |
//! |---|---|---|---|
//! | master | file or environment; or it stays in Vault | | its id: 32 bits derived from it, or from its address |
//! | tenant | random, row `key/t` | master | 1 |
//! | tenant's log key of a day | HKDF of the tenant's | | the day |
//! | tenant's key for hashes of a domain | HKDF of the tenant's | | |
//! | contact | random, row `key/c` | tenant | 1 |
//! | channel account | random, row `key/a` | tenant | 1 |
//!
//! The numbers allow rotation of keys: a new master key or a second tenant key gets
//! another number, and older ciphertexts still name the key that opens them. [`rotation`] wraps tenants'
//! keys by another master key, or by the newest version of one in Vault.
//!
//! # Layout
//! - [`envelope`]: the port.
//! - [`wrapper`]: the interface of a key that wraps tenants' keys, and the format of wrapped keys. Behind it [`local`],
//!   a [`master`] key that was read or generated; `heddle-connectors` adds HashiCorp Vault's transit engine.
//! - [`masters`]: the master key that wraps, and the previous ones that still open.
//! - [`rotation`]: wraps keys anew.
//! - [`entropy`]: the source of keys and nonces; [`SeededEntropy`] for simulations that replay.
//! - `contact`: the row of a contact's key, before and after an erasure; a channel account's row is like the first.
//! - `cipher`: AES-256-GCM under one key.
//! - `derive`: HKDF-SHA-256 and HMAC-SHA-256, and every label in use.
//! - [`private_file`]: files of keys and tokens, for their owner only.
//! - `cache`: opened keys, for a short time; `opened`: tenants' keys that Vault opened, kept as long as their rows
//!   are unchanged.

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
pub mod private_file;
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
