//! How good the forecasts are, for Prometheus.

use std::time::Duration;

use super::planning::Picture;

/// Publishes the error of each shard's forecast, and how long they all took.
pub(super) fn forecasts(picture: &Picture, took: Duration) {
    metrics::histogram!("foreshard_forecast_duration_seconds").record(took.as_secs_f64());
    for (shard, forecast) in picture.shards.iter().enumerate() {
        let shard = shard.to_string();
        let trusted = if forecast.trusted { 1.0 } else { 0.0 };
        metrics::gauge!("foreshard_forecast_trusted", "shard" => shard.clone()).set(trusted);
        let Some(backtest) = forecast.backtest else { continue };
        let errors = [
            ("persistence", backtest.relative_to_persistence),
            ("seasonal_naive", backtest.relative_to_seasonal_naive),
        ];
        for (baseline, error) in errors {
            let labels = [("shard", shard.clone()), ("baseline", baseline.to_owned())];
            metrics::gauge!("foreshard_forecast_relative_error_ratio", &labels).set(error);
        }
    }
}
