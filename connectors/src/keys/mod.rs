//! Envelope encryption ([`heddle_keys`]), and [`vault`]: HashiCorp Vault's transit engine as one of its wrappers.

pub mod vault;

pub use heddle_keys::*;
pub use vault::Vault;
