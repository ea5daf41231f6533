//! Every port in memory, with injectable faults, for tests and the seeded simulation.
//!
//! Nothing here starts a thread, blocks or reads the machine's time: all waiting is tokio's, so
//! under paused time the same seed gives the same run.
//!
//! # Layout
//! - [`clock`]: clocks that follow tokio's paused time or are set by hand.
//! - [`faults`]: faults of an operation, decided by the test.
//! - [`disk`]: the data that survives a crash.
//! - [`store`]: log and state over a disk, one incarnation at a time.
//! - [`knowledge`]: documents, searched by shared words.
//! - [`responder`], [`channel`], [`calendar`]: scripted by a test, with counts of their calls and results.

pub mod calendar;
pub mod channel;
pub mod clock;
pub mod disk;
pub mod faults;
pub mod knowledge;
mod log;
pub mod responder;
mod state;
pub mod store;

pub use calendar::MemoryCalendar;
pub use channel::ScriptedChannel;
pub use clock::{ManualClock, TokioClock};
pub use disk::MemoryDisk;
pub use faults::{Fault, Faults, Operation, Outcome};
pub use knowledge::MemoryKnowledge;
pub use responder::ScriptedResponder;
pub use store::{MemoryStore, Options};
