//! The forecast that needs no model: it stays as it is, give or take its past changes.

use super::distribution::{Distribution, LEVELS, weighted_quantiles};
use super::real;

/// Past changes looked at, for each step ahead.
const CHANGES_MAX: usize = 400;
/// Fewer past changes than this say nothing about the spread of a step.
const CHANGES_MIN: usize = 8;

/// The last value with the spread of past changes over as many steps. Steps that are further ahead
/// than the history can tell spread as a random walk does.
pub(super) fn persistence(history: &[f64], horizon: usize) -> Distribution {
    let Some(last) = history.last().copied() else {
        return Distribution::new(vec![[0.0; LEVELS.len()]; horizon], 0.0);
    };
    let mut steps = Vec::with_capacity(horizon);
    let mut known: Option<(usize, [f64; LEVELS.len()])> = None;
    for step in 1..=horizon {
        if let Some(changes) = changes(history, step) {
            known = Some((step, changes));
        }
        let changes = known.map_or_else(
            || LEVELS.map(|level| (2.0 * level - 1.0) * last),
            |(at, changes)| changes.map(|change| change * (real(step) / real(at)).sqrt()),
        );
        steps.push(changes.map(|change| last + change));
    }
    let highest = history.iter().copied().fold(0.0, f64::max);
    Distribution::new(steps, 3.0 * highest)
}

/// Quantiles of the recent changes over `step` steps; `None` where there are too few.
fn changes(history: &[f64], step: usize) -> Option<[f64; LEVELS.len()]> {
    let count = history.len().saturating_sub(step).min(CHANGES_MAX);
    if count < CHANGES_MIN {
        return None;
    }
    let mut changes: Vec<(f64, f64)> = (0..count)
        .map(|back| {
            let end = history.len() - 1 - back;
            (history[end] - history[end - step], 1.0)
        })
        .collect();
    changes.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    Some(weighted_quantiles(&changes))
}
