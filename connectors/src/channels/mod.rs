//! Channels: how messages leave and how webhooks are read, one folder a channel.

pub mod whatsapp;
