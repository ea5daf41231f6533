//! A serving node, asked as a provider, its customers, an operator and a stranger would.

mod admin;
mod audit;
mod channels;
mod contacts;
mod conversations;
mod dead_letters;
mod departure;
mod isolation;
mod llm;
mod regions;
mod rights;
mod site;
mod webhooks;
