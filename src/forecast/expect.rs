//! What known events and announcements of clients do to a forecast.

use std::collections::BTreeMap;

use super::announce::{Credit, together};
use super::calendar::{Aspect, Event, FACTOR_MAX};
use super::{Distribution, Forecast, LEVELS, real};

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
    pub(super) fn unix_ms(&self, index: usize) -> u64 {
        let back = u64::try_from(self.values.len() - index).unwrap_or(u64::MAX);
        self.end_step.saturating_sub(back).saturating_mul(self.step_ms)
    }

    pub(super) fn step_minutes(&self) -> f64 {
        std::time::Duration::from_millis(self.step_ms).as_secs_f64() / 60.0
    }
}

/// An event, and which of the steps to come lie in it.
#[derive(Debug, Clone)]
pub struct Ahead<'a> {
    /// The event.
    pub event: &'a Event,
    /// For each step.
    pub covered: Vec<bool>,
}

impl<'a> Ahead<'a> {
    /// The events that cover any of `horizon` steps from the step `first` on.
    pub fn of(events: &'a [Event], first: u64, step_ms: u64, horizon: usize) -> Vec<Self> {
        let steps = || (first..).take(horizon);
        let at = |event: &Event| -> Vec<bool> {
            steps().map(|step| event.covers(step.saturating_mul(step_ms))).collect()
        };
        let all = events.iter().map(|event| Ahead { event, covered: at(event) });
        all.filter(|ahead| ahead.covered.contains(&true)).collect()
    }
}

/// What is known beside the past.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Events that touch this load.
    pub ahead: &'a [&'a Ahead<'a>],
    /// How right clients have been, by name.
    pub credits: &'a BTreeMap<String, Credit>,
    /// The past that effects are learned from.
    pub past: Timeline<'a>,
    /// The same in coarser steps, for longer.
    pub coarse: Option<Timeline<'a>>,
}

impl Forecast {
    /// Shifts what is expected in the times of the events. What is below the median goes half the
    /// way only: an event may stay away.
    pub fn expect(&mut self, known: &Known<'_>, aspect: Aspect) {
        if known.ahead.is_empty() {
            return;
        }
        let factors = known.factors(self.ensemble.steps().len(), aspect);
        for distribution in [&mut self.ensemble, &mut self.persistence] {
            *distribution = shifted(distribution, &factors);
        }
    }
}

impl Known<'_> {
    /// The factor of each step: of all declared events, times that of all announcements together,
    /// which is bounded.
    fn factors(&self, horizon: usize, aspect: Aspect) -> Vec<f64> {
        let mut factors = vec![1.0; horizon];
        let (announced, declared): (Vec<&Ahead<'_>>, Vec<_>) =
            self.ahead.iter().copied().partition(|ahead| ahead.event.client.is_some());
        for ahead in declared {
            let factor = ahead.event.declared(aspect);
            let factor =
                factor.unwrap_or_else(|| ahead.event.learned(&self.past, self.coarse.as_ref()));
            let covered = factors.iter_mut().zip(&ahead.covered).filter(|(_, covered)| **covered);
            covered.for_each(|(all, _)| *all *= factor.clamp(0.0, FACTOR_MAX));
        }
        for (step, all) in factors.iter_mut().enumerate() {
            let now = announced.iter().filter(|a| a.covered.get(step) == Some(&true));
            let said = now.filter_map(|ahead| {
                Some((ahead.event.client.as_deref()?, ahead.event.declared(aspect)?))
            });
            *all *= together(said, self.credits);
        }
        factors
    }
}

fn shifted(before: &Distribution, factors: &[f64]) -> Distribution {
    let middle = real(LEVELS.len() / 2);
    let steps = before.steps().iter().zip(factors).map(|(quantiles, factor)| {
        let mut level = 0.0;
        quantiles.map(|quantile| {
            let whole = if level >= middle { *factor } else { f64::midpoint(1.0, *factor) };
            level += 1.0;
            quantile * whole
        })
    });
    Distribution::new(steps.collect(), f64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::calendar::{Aspect, Repeats};
    use super::super::{Config, forecast};
    use super::{Ahead, Event, Known, Timeline};

    const HOUR_MS: u64 = 3_600_000;

    fn daily(factor: f64, client: Option<&str>) -> Event {
        Event {
            name: "sale".to_owned(),
            begins: "1970-01-01 02:00".to_owned(),
            lasts_minutes: 120,
            repeats: Some(Repeats::Daily),
            factor: Some(factor),
            client: client.map(str::to_owned),
            ..Event::default()
        }
    }

    /// The medians of 48 hours after ten days of a load of 1.
    fn medians(events: &[Event]) -> Vec<f64> {
        let values = vec![1.0; 240];
        let config = Config { step_ms: 1, day_ms: 24, horizon_ms: 48, ..Config::default() };
        let mut said = forecast(&values, &config);
        let ahead = Ahead::of(events, 240, HOUR_MS, 48);
        let ahead: Vec<&Ahead<'_>> = ahead.iter().collect();
        let past = Timeline { values: &values, end_step: 240, step_ms: HOUR_MS, day: 24 };
        let known = Known { ahead: &ahead, credits: &BTreeMap::new(), past, coarse: None };
        said.expect(&known, Aspect::Busy { writes_share: 0.0 });
        said.ensemble.median().collect()
    }

    #[test]
    fn a_declared_factor_shifts_the_hours_of_the_event_and_no_others() {
        for (hour, median) in medians(&[daily(3.0, None)]).iter().enumerate() {
            let expected = if (2..4).contains(&(hour % 24)) { 3.0 } else { 1.0 };
            assert!((median - expected).abs() < 0.01, "hour {hour}: {median}");
        }
    }

    #[test]
    fn what_many_clients_announce_changes_little_however_much_they_say() {
        let names: Vec<String> = (0..50).map(|client| format!("client {client}")).collect();
        for factor in [20.0, 0.0] {
            let all: Vec<Event> = names.iter().map(|name| daily(factor, Some(name))).collect();
            let said = medians(&all);
            assert!(said.iter().all(|median| (0.99..1.101).contains(median)), "{said:?}");
        }
    }
}
