//! The engine: configuration, wiring, intake, HTTP and shutdown of the binary `heddle`.

pub mod simulator;
