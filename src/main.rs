//! The `foreshard` program.

fn main() {}
