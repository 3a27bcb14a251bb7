//! MSTL (seasonal decomposition by loess) with ETS for the rest, from `augurs`: a member that has
//! to earn its place by backtest.
//!
//! It is 10 to 100 times as slow as the ensemble. The crate does its sums in single precision and
//! may panic on odd series: whatever goes wrong means that the member is not admitted.

use std::panic::{AssertUnwindSafe, catch_unwind};

use augurs::ets::AutoETS;
use augurs::mstl::MSTLModel;
use augurs::prelude::{Fit, Predict};

use super::components::Shape;
use super::ensemble::Ensemble;

/// Past origins at which it is compared with the ensemble.
const TRIALS: usize = 4;
/// It sees no more than this much of the past.
const STEPS_MAX: usize = 8_064;

/// Its forecast, if its error at recent origins is below the ensemble's.
pub(super) fn admitted(history: &[f64], shape: &Shape, seasons: &[usize]) -> Option<Vec<f64>> {
    let horizon = shape.horizon;
    let (mut ours, mut members) = (0.0, 0.0);
    for trial in 1..=TRIALS {
        let end = history.len().checked_sub(horizon + (trial - 1) * horizon.div_ceil(2))?;
        let (past, future) = (&history[..end], &history[end..end + horizon]);
        let shape = Shape::fit(past.len(), horizon, seasons[0], seasons.get(1).copied())?;
        let ensemble = Ensemble::fit(past, shape).distribution();
        ours += error(ensemble.median(), future);
        members += error(predict(past, horizon, seasons)?.into_iter(), future);
    }
    if members < ours { predict(history, horizon, seasons) } else { None }
}

fn error(forecast: impl Iterator<Item = f64>, actual: &[f64]) -> f64 {
    forecast.zip(actual).map(|(forecast, actual)| (forecast - actual).abs()).sum()
}

/// The member's point forecast; `None` if it can't make one.
fn predict(history: &[f64], horizon: usize, seasons: &[usize]) -> Option<Vec<f64>> {
    let recent = &history[history.len().saturating_sub(STEPS_MAX)..];
    let seasons: Vec<usize> =
        seasons.iter().copied().filter(|season| recent.len() > 2 * season).collect();
    if seasons.is_empty() {
        return None;
    }
    let work = || {
        let trend = AutoETS::non_seasonal().into_trend_model();
        let fitted = MSTLModel::new(seasons, trend).fit(recent).ok()?;
        fitted.predict(horizon, None).ok()
    };
    let forecast = catch_unwind(AssertUnwindSafe(work)).ok().flatten()?;
    let sound = forecast.point.len() == horizon && forecast.point.iter().all(|v| v.is_finite());
    sound.then(|| forecast.point.iter().map(|value| value.max(0.0)).collect())
}
