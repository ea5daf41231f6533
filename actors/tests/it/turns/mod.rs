//! Turns: what the model is asked, what the store gets wrong meanwhile, and which rows are damaged.

mod content;
mod faults;
mod node;
