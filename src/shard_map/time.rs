//! Dates and times in the forms that mean the same whatever `DateStyle` and `TimeZone` are.

const DAY_MICROS: i64 = 86_400_000_000;
/// 2000-01-01 in days since 1970-01-01.
const EPOCH_DAYS: i64 = 10_957;

/// `2026-11-21` or an infinity → days since 2000-01-01.
pub(super) fn date(text: &[u8]) -> Option<i32> {
    match text {
        b"infinity" => Some(i32::MAX),
        b"-infinity" => Some(i32::MIN),
        text => i32::try_from(civil(text)?).ok(),
    }
}

/// `2026-11-21 17:49:06.5+01:30` or an infinity → microseconds since 2000-01-01 00:00 UTC.
pub(super) fn timestamp(text: &[u8]) -> Option<i64> {
    match text {
        b"infinity" => return Some(i64::MAX),
        b"-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (day, rest) = text.split_at_checked(10)?;
    let [b' ' | b'T', rest @ ..] = rest else { return None };
    let sign = rest.iter().position(|byte| matches!(byte, b'+' | b'-' | b'Z'))?;
    let (clock, zone) = rest.split_at(sign);
    let east = match zone {
        b"Z" => 0,
        [sign, offset @ ..] => {
            let offset = offset_seconds(offset)?;
            if *sign == b'-' { -offset } else { offset }
        }
        [] => return None,
    };
    Some(civil(day)? * DAY_MICROS + clock_micros(clock)? - east * 1_000_000)
}

/// `2026-11-21`, with a year of four digits → days since 2000-01-01.
fn civil(text: &[u8]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = number(&[*y1, *y2, *y3, *y4])?;
    let (month, day) = (number(&[*m1, *m2])?, number(&[*d1, *d2])?);
    let days = days_before(year, month) - EPOCH_DAYS;
    let length = days_before(year + month / 12, month % 12 + 1) - days_before(year, month);
    (year > 0 && (1..=12).contains(&month) && (1..=length).contains(&day)).then(|| days + day - 1)
}

/// The first of a month in days since 1970-01-01 (Gregorian, also before there was such a calendar).
fn days_before(year: i64, month: i64) -> i64 {
    // Years that begin in March have the leap day at their end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 - 719_468
}

/// `17:49`, `17:49:06` or `17:49:06.123456`
fn clock_micros(text: &[u8]) -> Option<i64> {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &b""[..]),
    };
    let mut parts = whole.split(|byte| *byte == b':');
    let mut next = |required: bool, below: i64| match parts.next() {
        Some(part) if part.len() == 2 => number(part).filter(|number| *number < below),
        None if !required => Some(0),
        _ => None,
    };
    let (hours, minutes, seconds) = (next(true, 24)?, next(true, 60)?, next(false, 60)?);
    if parts.next().is_some() || fraction.len() > 6 || text.last() == Some(&b'.') {
        return None;
    }
    if !fraction.is_empty() && whole.len() != 8 {
        return None;
    }
    let mut micros = 0;
    for at in 0..6 {
        let digit = fraction.get(at).copied().unwrap_or(b'0');
        micros = micros * 10 + number(&[digit])?;
    }
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// `01`, `01:30` or `01:30:15`
fn offset_seconds(text: &[u8]) -> Option<i64> {
    let mut seconds = 0;
    let mut parts = text.split(|byte| *byte == b':');
    for (unit, below) in [(3600, 16), (60, 60), (1, 60)] {
        match parts.next() {
            Some(part) if part.len() == 2 => {
                seconds += number(part).filter(|number| *number < below)? * unit;
            }
            None if unit < 3600 => {}
            _ => return None,
        }
    }
    parts.next().is_none().then_some(seconds)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
    })
}

/// As PostgreSQL shows it with `DateStyle` ISO.
pub(super) fn date_text(days: i32) -> String {
    match days {
        i32::MAX => "infinity".to_owned(),
        i32::MIN => "-infinity".to_owned(),
        days => {
            let (date, era) = date_parts(i64::from(days));
            date + era
        }
    }
}

/// The same, in the time zone UTC.
pub(super) fn timestamp_text(micros: i64) -> String {
    match micros {
        i64::MAX => return "infinity".to_owned(),
        i64::MIN => return "-infinity".to_owned(),
        _ => {}
    }
    let (date, era) = date_parts(micros.div_euclid(DAY_MICROS));
    let (seconds, fraction) = {
        let rest = micros.rem_euclid(DAY_MICROS);
        (rest / 1_000_000, rest % 1_000_000)
    };
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let fraction = match fraction {
        0 => String::new(),
        fraction => format!(".{fraction:06}").trim_end_matches('0').to_owned(),
    };
    format!("{date} {hours:02}:{minutes:02}:{:02}{fraction}+00{era}", seconds % 60)
}

/// The date, and ` BC` if it is one.
fn date_parts(days: i64) -> (String, &'static str) {
    let days = days + EPOCH_DAYS + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + next;
    let (year, before) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), before)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{date, date_text, timestamp, timestamp_text};

    #[test]
    fn dates_and_times_are_counted_as_postgresql_counts_them() {
        let cases: [(&str, Option<i32>); 10] = [
            ("2000-01-01", Some(0)),
            ("1999-12-31", Some(-1)),
            ("2026-11-21", Some(9_821)),
            ("0001-01-01", Some(-730_119)),
            ("2024-02-29", Some(8_825)),
            ("2023-02-29", None),
            ("2024-13-01", None),
            ("24-01-01", None),
            ("2024-1-1", None),
            ("infinity", Some(i32::MAX)),
        ];
        for (text, days) in cases {
            assert_eq!(date(text.as_bytes()), days, "{text}");
        }
        let cases: [(&str, Option<i64>); 12] = [
            ("2000-01-01 00:00:00+00", Some(0)),
            ("2000-01-01T01:30:00+01:30", Some(0)),
            ("1999-12-31 16:00-08", Some(0)),
            ("2000-01-01 00:00:00.000001Z", Some(1)),
            ("2000-01-01 00:00:01.5+00:00:01", Some(500_000)),
            ("2000-01-01 00:00:00", None),
            ("2000-01-01", None),
            ("2000-01-01 24:00:00+00", None),
            ("2000-01-01 00:00:60+00", None),
            ("2000-01-01 00:00:00.1234567+00", None),
            ("2000-01-01 00:00:00 Europe/Berlin", None),
            ("-infinity", Some(i64::MIN)),
        ];
        for (text, micros) in cases {
            assert_eq!(timestamp(text.as_bytes()), micros, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(days in -730_119..2_921_939, micros in -63_082_281_600_000_000_i64..252_455_615_999_999_999) {
            prop_assert_eq!(date(date_text(days).as_bytes()), Some(days));
            prop_assert_eq!(timestamp(timestamp_text(micros).as_bytes()), Some(micros));
        }
    }
}
