//! Holidays of the policy: days on which the load is not that of their weekday.
//!
//! What they do is a factor for each hour, by the curve of the Prophet-like model. It is taken out of
//! the past that everything else learns from, so that a holiday does not come back a day and a week
//! later, and put on what is expected of holidays to come. Only what proves right on holidays that
//! were left out is used; what only one holiday has shown is half believed.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Timeline;
use super::calendar::parse_time;
use super::config::Config;
use super::members::{Task, holiday_factors};

const DAY_MS: u64 = 86_400_000;
const HOUR_MS: u64 = DAY_MS / 24;
/// Kinds of holidays of a policy, and days of a kind, at the most.
const KINDS_MAX: usize = 8;
const DAYS_MAX: usize = 1_000;
/// A factor is believed within these bounds.
const FACTOR: (f64, f64) = (0.1, 5.0);
/// With it, the error on holidays that were left out must be this much smaller.
const GAIN: f64 = 0.95;
/// Steps of the past that it is learned from, at the most.
const STEPS_MAX: usize = 10_000;

/// Holidays that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holidays {
    /// What they are called.
    pub name: String,
    /// The days, those that are over too: `2026-12-25`.
    pub days: Vec<String>,
    /// The weekday whose load they have. Without it what they do is learned from those that are over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<Weekday>,
    /// How much earlier their days begin than those of UTC.
    #[serde(default)]
    pub utc_offset_minutes: i32,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Weekday {
    /// How many days after a day of this number since 1970 the next such weekday is, from 0 to 6.
    fn after(self, day: u64) -> usize {
        let wanted = match self {
            Self::Monday => 0,
            Self::Tuesday => 1,
            Self::Wednesday => 2,
            Self::Thursday => 3,
            Self::Friday => 4,
            Self::Saturday => 5,
            Self::Sunday => 6,
        };
        // 1970 began on a Thursday.
        let is = usize::try_from((day + 3) % 7).unwrap_or_default();
        (wanted + 7 - is) % 7
    }
}

impl Holidays {
    /// What is wrong with it.
    pub fn fault(&self) -> Option<String> {
        if self.name.is_empty() {
            return Some("a name is missing".to_owned());
        }
        if self.days.len() > DAYS_MAX {
            return Some(format!("at most {DAYS_MAX} days"));
        }
        if self.utc_offset_minutes.abs() > 14 * 60 {
            return Some("utc_offset_minutes must be from -840 to 840".to_owned());
        }
        let no_day = |day: &&String| {
            day.len() != 10 || day.as_bytes().get(4) != Some(&b'-') || parse_time(day).is_none()
        };
        let wrong = self.days.iter().find(no_day)?;
        Some(format!("{wrong:?} is no day; write it as 2026-12-25"))
    }

    /// What is wrong with all holidays of a policy: whose, and why.
    pub fn faults(all: &[Self]) -> Vec<String> {
        let mut faults: Vec<String> = all
            .iter()
            .filter_map(|one| Some(format!("{:?}: {}", one.name, one.fault()?)))
            .collect();
        if all.len() > KINDS_MAX {
            faults.push(format!("at most {KINDS_MAX} kinds of holidays"));
        }
        faults
    }

    /// When each of them begins, in ms since 1970.
    fn begins(&self) -> impl Iterator<Item = u64> + '_ {
        let offset = i64::from(self.utc_offset_minutes) * 60;
        let begin = move |day: &String| u64::try_from((parse_time(day)? - offset) * 1_000).ok();
        self.days.iter().filter_map(begin)
    }
}

/// What is known of the day of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing special.
    Usual,
    /// A holiday of this kind, from 0, whose effect is learned.
    Kind(usize),
    /// As so many days later.
    Like(usize),
}

impl Mark {
    /// How many kinds there are at least.
    pub(super) fn kinds(self) -> usize {
        if let Self::Kind(kind) = self { kind + 1 } else { 0 }
    }
}

/// What holidays do, hour by hour: the begin of each in ms since 1970, and its factors.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Effects(BTreeMap<u64, [f64; 24]>);

impl Effects {
    /// Learns from the past what the holidays do that begin in `wanted`, in ms since 1970.
    pub(super) fn learn(past: &Timeline<'_>, config: &Config, wanted: &Range<u64>) -> Self {
        let real_days = config.day_ms == DAY_MS && past.step_ms > 0 && past.step_ms <= HOUR_MS;
        if config.holidays.is_empty() || !real_days {
            return Self::default();
        }
        let seen = past.values.len().min(STEPS_MAX);
        let past = Timeline { values: &past.values[past.values.len() - seen..], ..*past };
        let ahead = wanted.end.saturating_sub(past.end_step * past.step_ms) / past.step_ms;
        let lesson = Lesson {
            first_unix_ms: past.unix_ms(0),
            steps: seen + usize::try_from(ahead).unwrap_or_default().min(STEPS_MAX),
            wanted: wanted.clone(),
            step_ms: past.step_ms,
            task: Task {
                history: past.values,
                horizon: 0,
                day: past.day,
                week: config.week_ms.map(|_| 7 * past.day),
            },
        };
        let mut effects = Self::default();
        for holidays in config.holidays.iter().take(KINDS_MAX) {
            effects.0.extend(lesson.learn(holidays));
        }
        effects
    }

    /// The factor of each of `count` steps from the step `first` on; `None` if all are 1.
    pub(super) fn factors(&self, first: u64, step_ms: u64, count: usize) -> Option<Vec<f64>> {
        let from = first.saturating_mul(step_ms);
        let end = from + u64::try_from(count).unwrap_or_default().saturating_mul(step_ms);
        self.0.range(from.saturating_sub(DAY_MS)..end).next()?;
        let factor = |step: u64| {
            let at = (first + step).saturating_mul(step_ms);
            let (begin, hours) = self.0.range(..=at).next_back()?;
            hours.get(usize::try_from((at - begin) / HOUR_MS).ok()?).copied()
        };
        Some((0..).take(count).map(|step| factor(step).unwrap_or(1.0)).collect())
    }
}

/// The past that is learned from.
struct Lesson<'a> {
    first_unix_ms: u64,
    /// In which days may begin.
    steps: usize,
    /// In which the days begin whose factors are wanted.
    wanted: Range<u64>,
    step_ms: u64,
    task: Task<'a>,
}

impl Lesson<'_> {
    /// The factors of the days of one kind; nothing if they do not prove right.
    fn learn(&self, holidays: &Holidays) -> Vec<(u64, [f64; 24])> {
        let mut days: Vec<(u64, Range<usize>)> =
            holidays.begins().filter_map(|begin| Some((begin, self.steps_of(begin)?))).collect();
        days.sort_by_key(|(begin, _)| *begin);
        days.dedup();
        if !days.iter().any(|(begin, _)| self.wanted.contains(begin)) {
            return Vec::new();
        }
        let mut marks = vec![Mark::Usual; self.steps + self.task.day];
        let offset_ms = i64::from(holidays.utc_offset_minutes) * 60_000;
        for (begin, steps) in &days {
            let local = begin.checked_add_signed(offset_ms).unwrap_or(*begin);
            let like = |weekday: Weekday| Mark::Like(weekday.after(local / DAY_MS));
            marks[steps.clone()].fill(holidays.like.map_or(Mark::Kind(0), like));
        }
        let known = self.task.history.len();
        let over: Vec<Range<usize>> = days
            .iter()
            .map(|(_, steps)| steps.clone())
            .filter(|steps| steps.end <= known)
            .collect();
        let belief = self.belief(&marks, &over, holidays.like.is_some());
        if belief == 0.0 {
            return Vec::new();
        }
        let Some(factors) = holiday_factors(self.task, &marks, &|_| true) else {
            return Vec::new();
        };
        let hour = |steps: &Range<usize>, hour: usize| {
            let at = |hour: usize| steps.start + steps.len() * hour / 24;
            let of = &factors[at(hour)..at(hour + 1)];
            let sum: f64 = of.iter().map(|factor| factor.clamp(FACTOR.0, FACTOR.1).ln()).sum();
            (belief * sum / super::real(of.len().max(1))).exp()
        };
        let wanted = days.iter().filter(|(begin, _)| self.wanted.contains(begin));
        wanted.map(|(begin, steps)| (*begin, std::array::from_fn(|h| hour(steps, h)))).collect()
    }

    /// The steps of a day, if it is looked at.
    fn steps_of(&self, begin_unix_ms: u64) -> Option<Range<usize>> {
        let first = begin_unix_ms.checked_sub(self.first_unix_ms)?.div_ceil(self.step_ms);
        let first = usize::try_from(first).ok()?;
        (first < self.steps).then(|| first..first + self.task.day)
    }

    /// How far the effect is believed, from 0 to 1, by what it would have been worth on the days that
    /// are over: each was left out of what it was learned from.
    fn belief(&self, marks: &[Mark], over: &[Range<usize>], like: bool) -> f64 {
        if over.len() < 2 && !like {
            return if over.is_empty() { 0.0 } else { 0.5 };
        }
        let (mut with, mut without, mut compared) = (0.0, 0.0, false);
        for fold in 0..2 {
            let left_out: Vec<&Range<usize>> = over.iter().skip(fold).step_by(2).collect();
            let seen = |step: usize| left_out.iter().all(|steps| !steps.contains(&step));
            let Some(factors) = holiday_factors(self.task, marks, &seen) else { return 0.0 };
            for step in left_out.iter().flat_map(|steps| (*steps).clone()) {
                // A week before is what a usual day would have been.
                let week = 7 * self.task.day;
                let usual = step.checked_sub(week).filter(|at| marks[*at] == Mark::Usual);
                let Some(usual) = usual.map(|at| self.task.history[at]) else { continue };
                let came = self.task.history[step];
                let factor = factors[step].clamp(FACTOR.0, FACTOR.1);
                with += (came - factor * usual).abs();
                without += (came - usual).abs();
                compared = true;
            }
        }
        match (compared, like) {
            (true, _) => f64::from(u8::from(with <= GAIN * without)),
            (false, true) => 1.0,
            (false, false) => 0.5,
        }
    }
}

#[cfg(test)]
mod tests;
