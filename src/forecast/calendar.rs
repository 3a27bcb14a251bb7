//! Known events: campaigns, sales, nightly jobs. What is declared shifts the forecast of its time.

use serde::{Deserialize, Serialize};

use super::{Distribution, Forecast, real};

/// A declared factor is believed within these bounds.
const FACTOR_MAX: f64 = 20.0;
/// What a client announces of itself changes a forecast by no more than this.
const ANNOUNCED_MAX: f64 = 1.1;
/// Past times of an event that its effect is learned from, at the most.
const LEARNED_FROM: u64 = 5;
const MINUTE_MS: u64 = 60_000;

/// A time in which the load differs from what the past would say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Names it; unique among those of the API.
    pub name: String,
    /// When it begins for the first time, in UTC: `2026-11-27 08:00`.
    pub begins: String,
    /// How long it lasts.
    pub lasts_minutes: u64,
    /// After how long it comes again; never, if that is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats_minutes: Option<u64>,
    /// How many times the usual load is expected. Without it the effect is learned from the last
    /// times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// The tables that it touches, as the policy names them; all, if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// Whether a client says it of itself: its effect is bounded then.
    #[serde(default)]
    pub announced: bool,
}

impl Event {
    /// What is wrong with it.
    pub fn fault(&self) -> Option<String> {
        let factor = self.factor.unwrap_or(1.0);
        if parse_time(&self.begins).is_none() {
            Some(format!("{:?} is no time; write it as 2026-11-27 08:00, in UTC", self.begins))
        } else if self.name.is_empty() || self.name.len() > 100 {
            Some("name must have 1 to 100 bytes".to_owned())
        } else if self.lasts_minutes == 0 {
            Some("lasts_minutes must be at least 1".to_owned())
        } else if self.repeats_minutes.is_some_and(|repeats| repeats < self.lasts_minutes) {
            Some("repeats_minutes must be at least lasts_minutes".to_owned())
        } else if !(0.0..=FACTOR_MAX).contains(&factor) {
            Some(format!("factor must be from 0 to {FACTOR_MAX}"))
        } else if self.factor.is_none() && self.repeats_minutes.is_none() {
            Some("an event that comes once needs a factor".to_owned())
        } else {
            None
        }
    }

    /// Whether it never comes again after this time.
    pub fn is_over(&self, now_unix_ms: u64) -> bool {
        let Some(begin) = self.begin_unix_ms() else { return true };
        self.repeats_minutes.is_none() && begin + self.lasts_minutes * MINUTE_MS < now_unix_ms
    }

    fn begin_unix_ms(&self) -> Option<u64> {
        u64::try_from(parse_time(&self.begins)?).ok()?.checked_mul(1000)
    }

    /// Whether a time lies in it.
    fn covers(&self, unix_ms: u64) -> bool {
        let since = self.begin_unix_ms().and_then(|begin| unix_ms.checked_sub(begin));
        let Some(since) = since else { return false };
        let repeats = self.repeats_minutes.map(|minutes| minutes.saturating_mul(MINUTE_MS));
        let since = repeats.map_or(since, |repeats| since % repeats.max(1));
        since < self.lasts_minutes.saturating_mul(MINUTE_MS)
    }

    /// The factor that was declared, or that its last times had on this load.
    fn factor_on(&self, past: &Timeline<'_>) -> f64 {
        let factor = self.factor.unwrap_or_else(|| self.learned(past));
        if self.announced {
            factor.clamp(1.0 / ANNOUNCED_MAX, ANNOUNCED_MAX)
        } else {
            factor.clamp(0.0, FACTOR_MAX)
        }
    }

    /// The load in its last times relative to that of a day before, shrunk to 1.
    fn learned(&self, past: &Timeline<'_>) -> f64 {
        let repeats = self.repeats_minutes.unwrap_or(u64::MAX).saturating_mul(MINUTE_MS);
        let since = past.end_step.saturating_mul(past.step_ms);
        let oldest = since.saturating_sub(repeats.saturating_mul(LEARNED_FROM));
        let (mut during, mut before, mut steps) = (0.0, 0.0, 0u32);
        for (index, value) in past.values.iter().enumerate().skip(past.day) {
            let at = past.unix_ms(index);
            // A day on which it was too says nothing about its effect.
            let day_ago = past.unix_ms(index - past.day);
            if at >= oldest && self.covers(at) && !self.covers(day_ago) {
                during += value;
                before += past.values[index - past.day];
                steps += 1;
            }
        }
        let weight = f64::from(steps) / (f64::from(steps) + 10.0);
        let ratio = if before > 0.0 { (during / before).clamp(0.1, FACTOR_MAX) } else { 1.0 };
        1.0 + (ratio - 1.0) * weight
    }
}

/// The past of one load, with its times.
#[derive(Debug, Clone, Copy)]
pub struct Timeline<'a> {
    /// Oldest first.
    pub values: &'a [f64],
    /// The number of the step after the last one.
    pub end_step: u64,
    /// The length of a step.
    pub step_ms: u64,
    /// Steps in a day.
    pub day: usize,
}

impl Timeline<'_> {
    fn unix_ms(&self, index: usize) -> u64 {
        let back = u64::try_from(self.values.len() - index).unwrap_or(u64::MAX);
        self.end_step.saturating_sub(back).saturating_mul(self.step_ms)
    }
}

impl Forecast {
    /// Shifts what is expected in the times of the events. What is below the median goes half the
    /// way only: an event may stay away.
    pub fn expect<'e>(&mut self, events: impl Iterator<Item = &'e Event>, past: &Timeline<'_>) {
        for event in events {
            let factor = event.factor_on(past);
            let in_event = |step: usize| {
                let step = past.end_step + u64::try_from(step).unwrap_or_default();
                event.covers(step.saturating_mul(past.step_ms))
            };
            for distribution in [&mut self.ensemble, &mut self.persistence] {
                *distribution = shifted(distribution, factor, &in_event);
            }
        }
    }
}

fn shifted(before: &Distribution, factor: f64, at: &dyn Fn(usize) -> bool) -> Distribution {
    let middle = real(super::LEVELS.len() / 2);
    let steps = before.steps().iter().enumerate().map(|(step, quantiles)| {
        if !at(step) {
            return *quantiles;
        }
        let mut level = 0.0;
        quantiles.map(|quantile| {
            let whole = if level >= middle { factor } else { f64::midpoint(1.0, factor) };
            level += 1.0;
            quantile * whole
        })
    });
    Distribution::new(steps.collect(), f64::MAX)
}

/// A time in seconds since 1970: as such, in milliseconds, or as `2026-11-21 15:04[:05]` in UTC,
/// with a T or a space, and a Z or nothing after it.
pub fn parse_time(text: &str) -> Option<i64> {
    /// Seconds of this size are milliseconds.
    const MILLISECONDS_FROM: i64 = 100_000_000_000;
    if let Ok(number) = text.parse::<i64>() {
        return Some(if number >= MILLISECONDS_FROM { number / 1000 } else { number });
    }
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let clock = time.trim_end_matches('Z').split('.').next()?;
    let mut clock = clock.splitn(3, ':').map(str::parse::<i64>);
    let (hour, minute) = (clock.next()?.ok()?, clock.next()?.ok()?);
    let second = clock.next().unwrap_or(Ok(0)).ok()?;
    let valid = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..61).contains(&second);
    valid.then(|| ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1970-01-01 in the Gregorian calendar (Hinnant, "chrono-compatible low-level date
/// algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::super::{Config, forecast};
    use super::{Event, Timeline, parse_time};

    const HOUR_MS: u64 = 3_600_000;

    fn event(factor: Option<f64>, repeats: Option<u64>) -> Event {
        Event {
            name: "sale".to_owned(),
            begins: "1970-01-01 02:00".to_owned(),
            lasts_minutes: 120,
            repeats_minutes: repeats,
            factor,
            tables: Vec::new(),
            announced: false,
        }
    }

    /// A load of 1, and of `during` while the event lasts, by the hour.
    fn timeline(event: &Event, during: f64, hours: u32) -> Vec<f64> {
        let at = |hour: u32| event.covers(u64::from(hour) * HOUR_MS);
        (0..hours).map(|hour| if at(hour) { during } else { 1.0 }).collect()
    }

    /// The medians of 48 hours after this past.
    fn medians(event: &Event, values: &[f64]) -> Vec<f64> {
        let end_step = u64::try_from(values.len()).unwrap();
        let config = Config { step_ms: 1, day_ms: 24, horizon_ms: 48, ..Config::default() };
        let mut said = forecast(&vec![1.0; values.len()], &config);
        let past = Timeline { values, end_step, step_ms: HOUR_MS, day: 24 };
        said.expect([event].into_iter(), &past);
        said.ensemble.median().collect()
    }

    #[test]
    fn a_declared_factor_shifts_the_hours_of_the_event_and_no_others() {
        let daily = event(Some(3.0), Some(24 * 60));
        let said = medians(&daily, &[1.0; 240]);
        for (hour, median) in said.iter().enumerate() {
            let expected = if (2..4).contains(&(hour % 24)) { 3.0 } else { 1.0 };
            assert!((median - expected).abs() < 0.01, "hour {hour}: {median}");
        }
    }

    #[test]
    fn the_effect_of_a_weekly_event_is_learned_from_its_last_times() {
        let weekly = event(None, Some(7 * 24 * 60));
        let past = timeline(&weekly, 4.0, 14 * 168);
        let said = medians(&weekly, &past);
        assert!(said[2] > 2.0 && said[2] < 4.1, "{}", said[2]);
        assert!((said[5] - 1.0).abs() < 0.01);
    }

    #[test]
    fn what_a_client_announces_changes_little_however_much_it_says() {
        let bold = Event { announced: true, ..event(Some(20.0), Some(24 * 60)) };
        let said = medians(&bold, &[1.0; 240]);
        assert!(said.iter().all(|median| *median < 1.101), "{said:?}");
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(event(Some(2.0), None).fault(), None);
        assert!(event(None, None).fault().unwrap().contains("needs a factor"));
        let bad = Event { begins: "tomorrow".to_owned(), ..event(Some(2.0), None) };
        assert!(bad.fault().unwrap().contains("no time"));
        assert!(event(Some(2.0), None).is_over(5 * HOUR_MS));
        assert!(!event(Some(2.0), Some(24 * 60)).is_over(5 * HOUR_MS));
    }

    #[test]
    fn times_are_read_in_every_form() {
        for (text, expected) in [
            ("1763737445", Some(1_763_737_445)),
            ("1763737445000", Some(1_763_737_445)),
            ("2025-11-21T15:04:05Z", Some(1_763_737_445)),
            ("2025-11-21 15:04", Some(1_763_737_440)),
            ("2024-02-29", Some(1_709_164_800)),
            ("yesterday", None),
            ("2025-13-01 00:00", None),
        ] {
            assert_eq!(parse_time(text), expected, "{text}");
        }
    }
}
