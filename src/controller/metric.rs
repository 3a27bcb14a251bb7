//! How good the forecasts are, for Prometheus.

use std::time::Duration;

use super::planning::Picture;
use crate::forecast::Scorecard;
use crate::ids::ShardId;

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

/// Counts that a shard's forecasts were found bad and persistence is planned with instead.
pub(super) fn fallback(shard: ShardId) {
    metrics::counter!("foreshard_forecast_fallbacks_total", "shard" => shard.to_string())
        .increment(1);
}

/// Publishes how good each shard's forecasts were when their time had come.
pub(super) fn accuracy(cards: &[Scorecard]) {
    for (shard, card) in cards.iter().enumerate() {
        for score in card.scores() {
            let labels = |name: &'static str, value: &str| {
                let steps = score.steps.to_string();
                [("shard", shard.to_string()), ("steps", steps), (name, value.to_owned())]
            };
            for (baseline, error) in [
                ("persistence", score.relative_to_persistence),
                ("seasonal_naive", score.relative_to_seasonal_naive),
            ] {
                let labels = labels("baseline", baseline);
                metrics::gauge!("foreshard_forecast_past_relative_error_ratio", &labels).set(error);
            }
            for (level, held) in [("0.8", score.coverage_80), ("0.95", score.coverage_95)] {
                let labels = labels("level", level);
                metrics::gauge!("foreshard_forecast_coverage_ratio", &labels).set(held);
            }
            let labels = [("shard", shard.to_string()), ("steps", score.steps.to_string())];
            metrics::gauge!("foreshard_forecast_bias_ratio", &labels).set(score.bias);
            if let Some(recall) = score.peak_recall {
                metrics::gauge!("foreshard_forecast_peak_recall_ratio", &labels).set(recall);
            }
        }
    }
}
