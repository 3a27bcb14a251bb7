//! Known events: campaigns, sales, nightly jobs. Once or recurring, on tables or keys, with a factor
//! that is declared or learned from the last times.

use serde::{Deserialize, Serialize};

use super::Timeline;

/// A declared factor is believed within these bounds.
pub(super) const FACTOR_MAX: f64 = 20.0;
/// Past times of an event that its effect is learned from, at the most.
const LEARNED_FROM: u64 = 5;
/// Minutes of past times after which half of the effect is believed.
const LEARNED_MINUTES: f64 = 10.0;
const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
const TEXT_MAX: usize = 100;
const LISTED_MAX: usize = 1_000;

/// A time in which the load differs from what the past would say.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
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
    /// The same by the calendar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<Repeats>,
    /// How many times the usual load is expected. Without it the effect is learned from the last
    /// times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// The same of the statements that only read, instead of `factor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<f64>,
    /// The same of those that may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<f64>,
    /// The tables that it touches, as the policy names them; all, if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// The shard keys that it touches, as text; all, if there are none. Only of one-column keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// The client that says it of itself: its effect is bounded then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Where that client is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// How an event recurs: at the same time of day, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Repeats {
    /// Each day.
    Daily,
    /// On the same day of the week.
    Weekly,
    /// On the same day of the month; months without that day are left out.
    Monthly,
    /// On the same day of the year.
    Yearly,
}

/// What of the load a factor is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aspect {
    /// Busy time, of which writes have this share.
    Busy {
        /// From 0 to 1.
        writes_share: f64,
    },
    /// Statements that only read.
    Reads,
    /// Statements that may write.
    Writes,
}

impl Event {
    /// What is wrong with it.
    pub fn fault(&self) -> Option<String> {
        let unreal = |factor: &f64| !(0.0..=FACTOR_MAX).contains(factor);
        let declared = [self.factor, self.reads, self.writes];
        let texts = self.tables.iter().chain(&self.keys).chain(&self.client).chain(&self.location);
        if parse_time(&self.begins).is_none() {
            Some(format!("{:?} is no time; write it as 2026-11-27 08:00, in UTC", self.begins))
        } else if self.name.is_empty() || self.name.len() > TEXT_MAX {
            Some(format!("name must have 1 to {TEXT_MAX} bytes"))
        } else if self.lasts_minutes == 0 {
            Some("lasts_minutes must be at least 1".to_owned())
        } else if self.repeats_minutes.is_some_and(|repeats| repeats < self.lasts_minutes) {
            Some("repeats_minutes must be at least lasts_minutes".to_owned())
        } else if self.repeats_minutes.is_some() && self.repeats.is_some() {
            Some("give repeats or repeats_minutes, not both".to_owned())
        } else if declared.iter().flatten().any(unreal) {
            Some(format!("factor, reads and writes must be from 0 to {FACTOR_MAX}"))
        } else if self.is_learned() && !self.recurs() {
            Some("an event that comes once needs a factor".to_owned())
        } else if self.tables.len() + self.keys.len() > LISTED_MAX {
            Some(format!("at most {LISTED_MAX} tables and keys"))
        } else if texts.into_iter().any(|text| text.len() > 8 * TEXT_MAX) {
            Some("a table, key, client or location is too long".to_owned())
        } else {
            None
        }
    }

    /// Whether its effect is learned: nobody declared it.
    pub fn is_learned(&self) -> bool {
        [self.factor, self.reads, self.writes] == [None; 3]
    }

    fn recurs(&self) -> bool {
        self.repeats_minutes.is_some() || self.repeats.is_some()
    }

    /// Whether it never comes again after this time.
    pub fn is_over(&self, now_unix_ms: u64) -> bool {
        let Some(begin) = self.begin_unix_ms() else { return true };
        !self.recurs() && begin + self.lasts_minutes * MINUTE_MS < now_unix_ms
    }

    fn begin_unix_ms(&self) -> Option<u64> {
        u64::try_from(parse_time(&self.begins)?).ok()?.checked_mul(1000)
    }

    /// Whether a time lies in it.
    pub fn covers(&self, unix_ms: u64) -> bool {
        let Some(begin) = self.begin_unix_ms() else { return false };
        let Some(since) = unix_ms.checked_sub(begin) else { return false };
        let lasts_ms = self.lasts_minutes.saturating_mul(MINUTE_MS);
        let every = |ms: u64| since % ms.max(1) < lasts_ms;
        match (self.repeats, self.repeats_minutes) {
            (Some(Repeats::Daily), _) => every(DAY_MS),
            (Some(Repeats::Weekly), _) => every(7 * DAY_MS),
            (Some(by_date), _) => covers_by_date(begin, unix_ms, lasts_ms, by_date),
            (None, Some(minutes)) => every(minutes.saturating_mul(MINUTE_MS)),
            (None, None) => since < lasts_ms,
        }
    }

    /// The factor that was declared.
    pub fn declared(&self, aspect: Aspect) -> Option<f64> {
        let of = |own: Option<f64>| own.or(self.factor);
        match aspect {
            Aspect::Reads => of(self.reads),
            Aspect::Writes => of(self.writes),
            Aspect::Busy { .. } if self.reads.or(self.writes).is_none() => self.factor,
            Aspect::Busy { writes_share } => {
                let (reads, writes) =
                    (of(self.reads).unwrap_or(1.0), of(self.writes).unwrap_or(1.0));
                Some(reads + (writes - reads) * writes_share.clamp(0.0, 1.0))
            }
        }
    }

    /// The load in its last times relative to that of a day before, shrunk to 1. The coarser past
    /// goes back further: it is asked where the finer one has seen no time of the event.
    pub(super) fn learned(&self, past: &Timeline<'_>, coarse: Option<&Timeline<'_>>) -> f64 {
        let found = self.ratio(past).or_else(|| self.ratio(coarse?));
        let Some((ratio, minutes)) = found else { return 1.0 };
        1.0 + (ratio - 1.0) * minutes / (minutes + LEARNED_MINUTES)
    }

    /// That ratio, and of how many minutes.
    fn ratio(&self, past: &Timeline<'_>) -> Option<(f64, f64)> {
        let (mut during, mut before, mut steps) = (0.0, 0.0, 0u32);
        let mut times = 0;
        let mut was_in = false;
        for (index, value) in past.values.iter().enumerate().skip(past.day).rev() {
            let is_in = self.covers(past.unix_ms(index));
            times += u64::from(is_in && !was_in);
            was_in = is_in;
            // A day on which it was too says nothing about its effect.
            if times > LEARNED_FROM {
                break;
            }
            if is_in && !self.covers(past.unix_ms(index - past.day)) {
                during += value;
                before += past.values[index - past.day];
                steps += 1;
            }
        }
        let ratio = if before > 0.0 { (during / before).clamp(0.1, FACTOR_MAX) } else { 1.0 };
        let minutes = f64::from(steps) * past.step_minutes();
        (steps > 0).then_some((ratio, minutes))
    }
}

/// Whether one of the times at the same day of the month, or of the year, covers this one.
fn covers_by_date(begin: u64, unix_ms: u64, lasts_ms: u64, repeats: Repeats) -> bool {
    let (begin_date, time) = date(begin);
    let (now, _) = date(unix_ms);
    let months = match repeats {
        Repeats::Yearly => [(now.0, begin_date.1), (now.0 - 1, begin_date.1)],
        _ if now.1 == 1 => [(now.0, now.1), (now.0 - 1, 12)],
        _ => [(now.0, now.1), (now.0, now.1 - 1)],
    };
    months.into_iter().any(|(year, month)| {
        let day = u64::try_from(days(year, month, begin_date.2)).unwrap_or_default();
        let start = day * DAY_MS + time;
        let exists = date(start).0 == (year, month, begin_date.2);
        exists && start >= begin && unix_ms.checked_sub(start).is_some_and(|in_it| in_it < lasts_ms)
    })
}

/// Year, month and day of a time, and the milliseconds of the day.
pub(super) fn date(unix_ms: u64) -> ((i64, i64, i64), u64) {
    // Hinnant's algorithm, the inverse of [`days`].
    let shifted = i64::try_from(unix_ms / DAY_MS).unwrap_or_default() + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    ((year, month, day), unix_ms % DAY_MS)
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
mod tests;
