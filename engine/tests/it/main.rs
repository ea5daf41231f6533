//! The engine as a whole: nodes in this process and as processes of their own, over files and over real servers.
//!
//! One binary, so that the crate's tests are linked once. Tests that load the whole machine take turns
//! ([`whole_machine`]).

#![expect(clippy::unwrap_used, reason = "a fault of the harness is a fault of the test")]
#![expect(clippy::print_stdout, reason = "tables of a test are a result")]

mod audiences;
mod documents;
mod limits;
mod load;
mod on_services;
mod process;
mod serving;
mod stage;
mod whole_machine;
