//! What the forecast promises.

use std::f64::consts::TAU;

use proptest::prelude::*;

use super::{
    Config, Distribution, Forecast, LEVELS, Model, Study, Timeline, forecast, forecast_with,
};

fn config(day: u64, horizon: u64) -> Config {
    Config {
        step_ms: 1,
        day_ms: day,
        week_ms: None,
        horizon_ms: horizon,
        history_ms: 100 * day,
        trusted_relative_error_max: 1.0,
        models: Vec::new(),
        study_interval_ms: 100,
        events: Vec::new(),
        holidays: Vec::new(),
    }
}

/// What the slow models say of a history whose steps are a millisecond.
fn study(history: &[f64], config: &Config, slack: usize) -> Study {
    let end_step = u64::try_from(history.len()).unwrap();
    let past = Timeline { values: history, end_step, step_ms: 1, day: config.day_steps() };
    super::study(&past, None, config, slack, None)
}

/// A number from -1 to 1 that depends on `seed` alone.
fn noise(seed: u64) -> f64 {
    let mut x = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    f64::from(u32::try_from((x ^ (x >> 31)) >> 32).unwrap()) / f64::from(u32::MAX) * 2.0 - 1.0
}

/// A day of `day` steps with a wave in it and 10 % noise.
fn wave(days: u32, day: u32) -> Vec<f64> {
    (0..days * day)
        .map(|t| {
            let level = 1.0 + 0.8 * (TAU * f64::from(t) / f64::from(day)).sin();
            level * (1.0 + 0.1 * noise(u64::from(t)))
        })
        .collect()
}

fn assert_sound(forecast: &Forecast, horizon: usize) {
    for distribution in [&forecast.ensemble, &forecast.persistence] {
        assert_eq!(distribution.steps().len(), horizon);
        for quantiles in distribution.steps() {
            assert!(quantiles.iter().all(|q| q.is_finite() && *q >= 0.0), "{quantiles:?}");
            assert!(quantiles.is_sorted(), "{quantiles:?}");
        }
    }
}

#[test]
fn a_daily_wave_is_foreseen_after_three_days() {
    let history = wave(4, 40);
    let (past, future) = history.split_at(3 * 40);
    let forecast = forecast(past, &config(40, 30));
    assert!(forecast.trusted);
    let backtest = forecast.backtest.unwrap();
    assert!(backtest.relative_to_persistence < 0.4, "{backtest:?}");
    assert!(backtest.relative_to_seasonal_naive < 1.1, "{backtest:?}");
    let inside = forecast
        .ensemble
        .steps()
        .iter()
        .zip(future)
        .filter(|(q, actual)| q[1] <= **actual && **actual <= q[9])
        .count();
    assert!((18..=30).contains(&inside), "{inside} of 30 in the 80 % interval");
}

#[test]
fn a_short_history_is_persistence_and_says_that_it_is_not_trusted() {
    for length in 0..48 {
        let history = &wave(2, 40)[..length];
        let forecast = forecast(history, &config(40, 30));
        assert_sound(&forecast, 30);
        assert!(!forecast.trusted);
        assert_eq!(forecast.backtest, None);
        assert_eq!(forecast.distribution(), &forecast.persistence);
    }
}

#[test]
fn a_forecast_that_is_worse_than_persistence_is_not_trusted() {
    // Days that are alike for a while, and then a random walk.
    let mut history = wave(6, 40);
    let mut level = 1.0;
    for seed in 0..240 {
        level += 0.3 * noise(seed);
        history.push(level.abs());
    }
    let config = Config { trusted_relative_error_max: 0.2, ..config(40, 30) };
    let forecast = forecast(&history, &config);
    assert!(!forecast.trusted, "{:?}", forecast.backtest);
    assert_eq!(forecast.distribution(), &forecast.persistence);
}

#[test]
fn a_model_that_is_better_takes_part_and_one_that_is_worse_gets_little() {
    // A level that swings round the usual day: what autoregression is for.
    let mut swing = 0.0;
    let history: Vec<f64> = wave(12, 40)
        .iter()
        .zip(0u64..)
        .map(|(value, t)| {
            swing = 0.97 * swing + 0.05 * noise(t + 1_000);
            value + swing + 1.0
        })
        .collect();
    let with = |models: Vec<Model>| Config { models, ..config(40, 30) };
    let all = with(Model::ALL.to_vec());
    let study = study(&history, &all, 5);
    let joined = forecast_with(&history, &all, (&study, 0));
    assert_sound(&joined, 30);
    let sum: f64 = joined.weights.iter().map(|(_, weight)| weight).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{:?}", joined.weights);
    let share = |name: &str| joined.weights.iter().find(|(n, _)| *n == name).unwrap().1;
    assert!(share("arima") > 0.1, "{:?}", joined.weights);
    // A study that is too old says nothing.
    let late = forecast_with(&history, &all, (&study, 6));
    assert_eq!(late, forecast_with(&history, &all, (&Study::default(), 0)));
}

#[test]
fn a_level_that_was_never_seen_is_forecast_to_stay() {
    let mut history = wave(10, 40);
    let end = history.len();
    history.extend((0u64..20).map(|t| 9.0 + 0.2 * noise(t)));
    let forecast = forecast(&history, &config(40, 30));
    assert!(forecast.shifted, "{end}");
    assert!(forecast.ensemble.median().all(|median| median > 4.0));
}

#[test]
fn a_series_of_zeros_is_forecast_as_zero() {
    let forecast = forecast(&[0.0; 300], &config(40, 30));
    assert!(forecast.ensemble.steps().iter().flatten().all(|q| *q == 0.0));
    assert!(forecast.trusted);
}

#[test]
fn moments_are_those_of_the_quantiles() {
    let uniform = LEVELS.map(|level| 4.0 + 2.0 * level);
    let (mean, deviation) = Distribution::new(vec![uniform], 9.0).moments().next().unwrap();
    assert!((mean - 5.0).abs() < 1e-9, "{mean}");
    assert!((deviation - 0.577).abs() < 0.01, "{deviation}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_gives_finite_ordered_quantiles_that_are_not_negative(
        history in prop::collection::vec(
            prop_oneof![
                8 => 0.0..10.0f64,
                1 => Just(0.0),
                1 => any::<f64>(),
            ],
            0..200,
        ),
        day in 1u64..50,
        week in prop::option::of(50u64..100),
        horizon in 1u64..40,
    ) {
        let history: Vec<f64> =
            history.into_iter().map(|v| if v.abs() > 1e12 { 1e12 } else { v }).collect();
        let models = vec![Model::Arima, Model::Lags, Model::Prophet];
        let config = Config { week_ms: week, models, ..config(day, horizon) };
        let study = study(&history, &config, 3);
        for age in [0, 2, 9] {
            let forecast = forecast_with(&history, &config, (&study, age));
            assert_sound(&forecast, config.horizon_steps());
        }
    }
}
