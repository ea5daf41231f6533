//! Engine: configuration, wiring, intake, HTTP and shutdown of the binary `heddle`.
//!
//! # Layout
//! - [`cli`]: the command line, one file per command.
//! - [`configuration`]: `heddle.toml`, the environment, secrets; read once.
//! - [`consents`]: conversion of consents for the admin API.
//! - [`stores`]: log and state; [`node`]: the wiring; [`service`]: a serving node; [`operations`]: the operations of
//!   the admin API.
//! - [`masters`]: the configured master keys; [`rotation`]: rotation from one to another on a running node.
//! - [`usage`]: a tenant's usage of a month for the admin API.
//! - [`dead_letters`]: list, show and replay of records that could not be processed.
//! - [`http`]: webhooks on one address; admin API, console, metrics on another; [`admin_token`]: its credential.
//! - [`process`]: limits and protection of the process.
//! - [`metrics`], [`telemetry`]: the process's own metrics and log lines.
//!
//! Separate crates: `heddle-simulator` (a provider, its customers, a provider of language models), and `heddle-load`
//! and `heddle-demo`, which implement the commands of these names. None of them depends on the engine.

pub mod admin_token;
pub mod cli;
pub mod configuration;
pub mod consents;
pub mod dead_letters;
pub mod http;
pub mod masters;
pub mod metrics;
pub mod node;
pub mod operations;
pub mod process;
pub mod region;
pub mod rotation;
pub mod service;
pub mod stores;
pub mod telemetry;
pub mod usage;
