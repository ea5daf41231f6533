//! The binary `heddle`.

use std::process::ExitCode;

// A turn allocates on one thread and frees on another (writer, announcer, checkpoint), which costs the system's
// allocator locks: see deploy/decisions/0002-embedded-turn.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    heddle_engine::cli::main()
}
