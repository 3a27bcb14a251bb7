//! A year's hours with holidays in them.

use std::f64::consts::TAU;

use super::super::{Config, Forecast, Model, Study, Timeline, forecast_with, study};
use super::{Holidays, Weekday};

const HOUR_MS: u64 = 3_600_000;
const DAY: u32 = 24;
const DAYS: u32 = 73;
/// 2026-01-05, a Monday, in days since 1970.
const FIRST_DAY: u64 = 20_458;
/// Days after the first on which nobody works: four weekdays that are over, and one to come.
const OFF: [u32; 5] = [9, 24, 39, 52, DAYS];

/// The load of an hour: a day's wave, less at weekends, and a third of it on a day off.
fn load(hour: u32, off: &[u32]) -> f64 {
    let (day, of_day) = (hour / DAY, f64::from(hour % DAY));
    let wave = 10.0 + 6.0 * (TAU * (of_day - 9.0) / 24.0).sin();
    let weekend = if day % 7 >= 5 { 0.5 } else { 1.0 };
    let noise = 1.0 + 0.04 * f64::from(hour * 7_919 % 101) / 101.0;
    let off = if off.contains(&day) { 0.33 } else { 1.0 };
    wave * weekend * noise * off
}

fn date(day: u32) -> String {
    let begin = (FIRST_DAY + u64::from(day)) * 86_400;
    let (year, month, day) = crate::forecast::calendar::date(begin * 1_000).0;
    format!("{year}-{month:02}-{day:02}")
}

fn holidays(days: &[u32], like: Option<Weekday>) -> Vec<Holidays> {
    let days = days.iter().map(|day| date(*day)).collect();
    vec![Holidays { name: "closed".to_owned(), days, like, utc_offset_minutes: 0 }]
}

/// What is said of the day after so many days of such a load.
fn said(days: u32, off: &[u32], holidays: Vec<Holidays>) -> Forecast {
    let values: Vec<f64> = (0..days * DAY).map(|hour| load(hour, off)).collect();
    let config = Config {
        step_ms: HOUR_MS,
        horizon_ms: 24 * HOUR_MS,
        models: vec![Model::Prophet],
        holidays,
        ..Config::default()
    };
    let end_step = FIRST_DAY * 24 + u64::try_from(values.len()).unwrap();
    let past = Timeline { values: &values, end_step, step_ms: HOUR_MS, day: 24 };
    let study = study(&past, None, &config, 0, None);
    forecast_with(&values, &config, (&study, 0))
}

/// The mean error of what is said of the day after so many days.
fn error(days: u32, off: &[u32], holidays: Vec<Holidays>) -> f64 {
    let forecast = said(days, off, holidays);
    let came = (days * DAY..).map(|hour| load(hour, off));
    forecast.ensemble.median().zip(came).map(|(said, came)| (said - came).abs()).sum::<f64>() / 24.0
}

#[test]
fn a_holiday_of_the_policy_is_foreseen_and_does_not_come_back_a_day_and_a_week_later() {
    assert_eq!(date(0), "2026-01-05");
    let (with, without) = (error(DAYS, &OFF, holidays(&OFF, None)), error(DAYS, &OFF, Vec::new()));
    assert!(with < 0.35 * without, "{with}, and {without} without");
    for later in [1, 7] {
        let days = DAYS + later;
        let (with, without) =
            (error(days, &OFF, holidays(&OFF, None)), error(days, &OFF, Vec::new()));
        assert!(with < 0.8 * without, "{later} days later: {with}, and {without} without");
    }
}

#[test]
fn days_on_which_nothing_was_different_change_nothing() {
    let nothing = said(DAYS, &[], Vec::new());
    let claimed = said(DAYS, &[], holidays(&OFF, None));
    for (claimed, nothing) in claimed.ensemble.median().zip(nothing.ensemble.median()) {
        assert!((claimed - nothing).abs() < 0.05 * nothing, "{claimed} instead of {nothing}");
    }
}

#[test]
fn a_first_holiday_is_foreseen_if_the_policy_says_what_it_is_like() {
    // A Monday that is as a Sunday, and no holiday before it.
    let monday = 77;
    let usual = said(monday, &[], Vec::new());
    let like = said(monday, &[], holidays(&[monday], Some(Weekday::Sunday)));
    let total = |forecast: &Forecast| forecast.ensemble.median().sum::<f64>();
    let ratio = total(&like) / total(&usual);
    assert!((0.42..0.6).contains(&ratio), "{ratio}");
    // Mondays that were as always show that it is not so.
    let wrong = holidays(&[56, 63, 70, monday], Some(Weekday::Sunday));
    let ratio = total(&said(monday, &[], wrong)) / total(&usual);
    assert!((0.95..1.05).contains(&ratio), "{ratio}");
}

#[test]
fn without_holidays_near_or_without_the_model_nothing_is_learned() {
    let far = holidays(&[DAYS + 40], None);
    assert_eq!(said(DAYS, &OFF, far).ensemble, said(DAYS, &OFF, Vec::new()).ensemble);
    assert_eq!(Study::default().effects, super::Effects::default());
}

#[test]
fn what_is_no_day_is_a_fault() {
    let with = |day: &str| {
        let days = vec![day.to_owned()];
        Holidays { name: "a".to_owned(), days, ..Holidays::default() }.fault()
    };
    assert_eq!(with("2026-12-25"), None);
    for wrong in ["25.12.2026", "1234567890", "2026-13-01", "2026-12-25 08:00", ""] {
        assert!(with(wrong).unwrap().contains("is no day"), "{wrong}");
    }
    assert!(Holidays::default().fault().unwrap().contains("name"));
    let many = vec![holidays(&[1], None).remove(0); 9];
    assert_eq!(Holidays::faults(&many), ["at most 8 kinds of holidays"]);
}
