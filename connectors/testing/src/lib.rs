//! Real servers and stand-ins for tests: Kafka and CQL from `deploy/local`, Vault's transit engine on loopback.

#![expect(clippy::unwrap_used, reason = "a fault of the harness is a fault of the test")]

pub mod services;
pub mod topics;
pub mod vault;
