//! Tenants: their configuration, their fair share of turns, and their quota.
//!
//! # Layout
//! - [`configuration`]: the configuration of all tenants, tailed from the log.
//! - [`turns`]: the actor that shares a tenant's turns out.
//! - [`quota`]: quotas of tenants by month.

pub mod configuration;
pub mod quota;
pub mod turns;
