//! What is shown between two forecasts.

use super::caught_up;
use crate::forecast::{Distribution, LEVELS};

/// Medians of 10, 11, 12, …, each give or take a tenth.
fn said() -> Distribution {
    let step = |step: u32| LEVELS.map(|level| f64::from(10 + step) * (0.9 + 0.2 * level));
    let steps: Vec<_> = (0..30).map(step).collect();
    serde_json::from_value(serde_json::json!(steps)).unwrap()
}

fn medians(said: &Distribution) -> Vec<f64> {
    said.median().collect()
}

#[test]
fn steps_that_are_over_are_gone_and_what_came_as_said_changes_nothing() {
    let left = medians(&caught_up(&said(), &[10.0, 11.0], 12.0));
    assert_eq!(left.len(), 28);
    assert!((left[0] - 12.0).abs() < 1e-9 && (left[27] - 39.0).abs() < 1e-9, "{left:?}");
    assert!(caught_up(&said(), &[1.0; 40], 1.0).steps().is_empty());
}

#[test]
fn what_came_otherwise_moves_the_next_steps_and_ever_less_the_later_ones() {
    let left = medians(&caught_up(&said(), &[14.0, 15.0], 16.0));
    assert!((left[0] - 16.0).abs() < 0.5, "{left:?}");
    assert!((left[24] - 38.0).abs() < 0.5, "{left:?}");
    let sample = medians(&caught_up(&said(), &[], 14.0));
    assert!((sample[0] - 11.0).abs() < 1e-9, "a sample alone says a quarter: {sample:?}");
    let none = caught_up(&said(), &[0.0, 0.0, 0.0], 0.0);
    assert!(none.steps().iter().flatten().all(|quantile| *quantile >= 0.0));
}
