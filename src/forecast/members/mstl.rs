//! MSTL (seasonal decomposition by loess) with ETS for the rest, from `augurs`.
//!
//! It takes a hundred milliseconds and more. The crate does its sums in single precision and may
//! panic on odd series: then there is no forecast.

use std::panic::{AssertUnwindSafe, catch_unwind};

use augurs::ets::AutoETS;
use augurs::mstl::MSTLModel;
use augurs::prelude::{Fit, Predict};

use super::Task;

/// It sees no more than this much of the past, but at least so many of the season.
const STEPS_MAX: usize = 4_032;
const SEASONS_SEEN: usize = 4;

/// Its point forecast.
pub(super) fn predict(task: Task<'_>) -> Option<Vec<f64>> {
    let seen = STEPS_MAX.max(SEASONS_SEEN * task.day);
    let recent = &task.history[task.history.len().saturating_sub(seen)..];
    let seasons: Vec<usize> = [task.day]
        .into_iter()
        .chain(task.week)
        .filter(|season| recent.len() > 2 * season)
        .collect();
    if seasons.is_empty() {
        return None;
    }
    let work = || {
        let trend = AutoETS::non_seasonal().into_trend_model();
        let fitted = MSTLModel::new(seasons, trend).fit(recent).ok()?;
        fitted.predict(task.horizon, None).ok()
    };
    let forecast = catch_unwind(AssertUnwindSafe(work)).ok().flatten()?;
    Some(forecast.point)
}
