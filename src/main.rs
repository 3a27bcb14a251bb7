//! The `foreshard` program.

use std::process::ExitCode;

use clap::Parser;
use foreshard::app::{self, Cli};

fn main() -> ExitCode {
    app::run(Cli::parse())
}
