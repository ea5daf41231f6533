//! Tests of a serving node, called as a provider, its customers, an operator and an unauthorised client would.

mod admin;
mod alerts;
mod audit;
mod channels;
mod contacts;
mod conversations;
mod dead_letters;
mod edges;
mod isolation;
mod llm;
mod regions;
mod rights;
pub(crate) mod site;
mod tenant_changes;
mod tenant_deletion;
mod webhooks;
