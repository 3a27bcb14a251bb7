//! `foreshard check`: all that is wrong with a file.

use std::path::Path;
use std::process::ExitCode;

use super::cli;
use super::terminal::{complain, say};
use crate::config::{Faults, Policy, Serve};

/// Reads what is given; prints all faults.
pub(super) fn check(args: &cli::Check) -> ExitCode {
    let config = args.config.as_deref().map(|file| told(file, Serve::load(file).err().as_ref()));
    let policy =
        args.policy.as_deref().map(|file| told(file, Policy::load(file, None).err().as_ref()));
    if [config, policy].contains(&Some(false)) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Says what was found; whether it was nothing.
fn told(file: &Path, faults: Option<&Faults>) -> bool {
    match faults {
        None => say(format!("{}: ok", file.display())),
        Some(faults) => complain(faults),
    }
    faults.is_none()
}
