//! Turns: the model's input, the store's faults meanwhile, and damaged rows.

mod content;
mod faults;
mod node;
