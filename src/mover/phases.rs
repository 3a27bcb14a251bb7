//! Where the time of a switch goes while its gates are closed.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The phases of one try, each with its end.
#[derive(Debug, Default)]
pub(super) struct Phases(Mutex<Vec<(&'static str, Instant)>>);

impl Phases {
    /// The gates are closed.
    pub(super) fn begin(&self) {
        *self.0.lock() = vec![("closed", Instant::now())];
    }

    /// A phase has ended.
    pub(super) fn reached(&self, phase: &'static str) {
        self.0.lock().push((phase, Instant::now()));
    }

    /// Tells how long each took.
    pub(super) fn tell(&self) {
        let ends = self.0.lock();
        let took: Vec<(&str, Duration)> = ends
            .windows(2)
            .map(|pair| (pair[1].0, pair[1].1.saturating_duration_since(pair[0].1)))
            .collect();
        for (phase, took) in &took {
            metrics::histogram!("foreshard_mover_switch_phase_seconds", "phase" => *phase)
                .record(took.as_secs_f64());
        }
        let told: Vec<String> = took
            .iter()
            .map(|(phase, took)| format!("{phase} {:.1}", took.as_secs_f64() * 1e3))
            .collect();
        tracing::info!(phases_ms = told.join(", "), "phases of the switch");
    }
}
