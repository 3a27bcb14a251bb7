//! What the demo says: plain lines, or a screen that is drawn anew.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stdout};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Writes a line. A reader that has gone away is no error.
pub(crate) fn say(line: impl Display) {
    let mut out = stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// Where the live part goes.
pub(crate) struct Screen {
    redraws: bool,
    began: Instant,
}

impl Screen {
    /// A person's terminal is redrawn; anything else gets lines.
    pub(crate) fn new() -> Self {
        let redraws = stdout().is_terminal();
        if redraws {
            drop(write!(stdout().lock(), "\x1b[2J"));
        }
        Self { redraws, began: Instant::now() }
    }

    /// Whether [`Self::draw`] is wanted, and not [`Self::line`].
    pub(crate) fn redraws(&self) -> bool {
        self.redraws
    }

    /// Draws over what stands there.
    pub(crate) fn draw(frame: &str) {
        let mut out = stdout().lock();
        // Home, each line cleared to its end, and all below the last one.
        let frame = frame.replace('\n', "\x1b[K\n");
        drop(write!(out, "\x1b[H{frame}\x1b[J").and_then(|()| out.flush()));
    }

    /// Writes a line with the seconds since the load began.
    pub(crate) fn line(&self, line: impl Display) {
        say(format!("{:>4} s  {line}", self.began.elapsed().as_secs()));
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A time span of milliseconds in seconds.
pub(crate) fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

/// A number with spaces between its thousands.
pub(crate) fn grouped(number: impl Display) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
