//! What the commands say. The one place that writes to standard output.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Writes a line. A reader that has gone away is no error.
pub(super) fn say(line: impl Display) {
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// Writes a line to standard error.
pub(super) fn complain(line: impl Display) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Writes over what stands on the screen.
pub(super) fn redraw(frame: &str) {
    let mut out = io::stdout().lock();
    // Home, each line cleared to its end, and all below the last one.
    let frame = frame.replace('\n', "\x1b[K\n");
    drop(write!(out, "\x1b[H{frame}\x1b[J").and_then(|()| out.flush()));
}

/// Empties the screen.
pub(super) fn clear() {
    drop(write!(io::stdout().lock(), "\x1b[2J"));
}

/// Whether a person looks at standard output.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// An error and its causes, each once, with colons between them.
pub(super) fn story(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
