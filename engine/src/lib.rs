//! The engine: configuration, wiring, intake, HTTP and shutdown of the binary `heddle`.
//!
//! # Layout
//! - [`cli`]: the command line, one command a file.
//! - [`configuration`]: `heddle.toml`, the environment, secrets; read once.
//! - [`consents`]: consents of contacts, as operators see and enter them.
//! - [`stores`]: log and state; [`node`]: the wiring; [`service`]: a node that serves; [`operations`]: the operations of the admin API.
//! - [`masters`]: master keys as the configuration names them; [`rotation`]: from one to another, while everything runs.
//! - [`usage`]: what a tenant has used in a month, as it is shown.
//! - [`dead_letters`]: what could not be processed, listed, shown and replayed.
//! - [`http`]: webhooks, admin API, console, metrics, health.
//! - [`metrics`], [`telemetry`]: what the process tells of itself.
//!
//! Crates of their own beside it: `heddle-simulator` (a provider, its customers, a provider of language models),
//! `heddle-load` and `heddle-demo`, what the commands of these names do. None of them knows the engine.

pub mod cli;
pub mod configuration;
pub mod consents;
pub mod dead_letters;
pub mod http;
pub mod masters;
pub mod metrics;
pub mod node;
pub mod operations;
pub mod region;
pub mod rotation;
pub mod service;
pub mod stores;
pub mod telemetry;
pub mod usage;
