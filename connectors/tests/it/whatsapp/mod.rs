//! The WhatsApp channel: what it reads in webhooks, and what it sends.

mod send;
mod webhook;
