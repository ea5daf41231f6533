//! A serving node, asked as a provider, its customers, an operator and a stranger would.

#![expect(clippy::unwrap_used, reason = "a fault of the harness is a fault of the test")]

mod admin;
mod audit;
mod channels;
mod contacts;
mod conversations;
mod dead_letters;
mod departure;
mod llm;
mod regions;
mod rights;
mod site;
mod webhooks;
