//! How Heddle reaches the outside: logs, state stores, keys, knowledge, responders and channels.

pub mod channels;
