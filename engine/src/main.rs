//! The binary `heddle`.

fn main() {}
