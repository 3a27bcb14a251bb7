//! When events are, and what they did.

use super::{Aspect, Event, Repeats, Timeline, parse_time};

const HOUR_MS: u64 = 3_600_000;

type Change = fn(&mut Event);

fn event(factor: Option<f64>, repeats: Option<Repeats>) -> Event {
    Event {
        name: "sale".to_owned(),
        begins: "1970-01-01 02:00".to_owned(),
        lasts_minutes: 120,
        repeats,
        factor,
        ..Event::default()
    }
}

/// A load of 1, and of `during` while the event lasts, by the hour.
fn hours(event: &Event, during: f64, hours: u32) -> Vec<f64> {
    let at = |hour: u32| event.covers(u64::from(hour) * HOUR_MS);
    (0..hours).map(|hour| if at(hour) { during } else { 1.0 }).collect()
}

fn timeline(values: &[f64]) -> Timeline<'_> {
    let end_step = u64::try_from(values.len()).unwrap();
    Timeline { values, end_step, step_ms: HOUR_MS, day: 24 }
}

#[test]
fn an_event_recurs_by_the_calendar() {
    let at = |text: &str| u64::try_from(parse_time(text).unwrap()).unwrap() * 1000;
    let on = |begins: &str, repeats| Event {
        begins: begins.to_owned(),
        ..event(Some(2.0), Some(repeats))
    };
    let monthly = on("2026-01-31 23:00", Repeats::Monthly);
    for (time, expected) in [
        ("2026-01-31 22:59", false),
        ("2026-01-31 23:00", true),
        ("2026-02-01 00:59", true),
        ("2026-02-28 23:30", false),
        ("2026-03-03 23:30", false),
        ("2026-03-31 23:30", true),
        ("2025-12-31 23:30", false),
        ("2027-01-01 00:30", true),
        ("2027-01-01 01:00", false),
    ] {
        assert_eq!(monthly.covers(at(time)), expected, "{time}");
    }
    let yearly = on("2024-02-29 08:00", Repeats::Yearly);
    assert!(yearly.covers(at("2028-02-29 09:59")) && !yearly.covers(at("2027-03-01 09:00")));
    let weekly = on("2026-11-20 08:00", Repeats::Weekly);
    assert!(weekly.covers(at("2026-11-27 08:00")) && !weekly.covers(at("2026-11-26 08:00")));
    let daily = on("2026-11-20 23:00", Repeats::Daily);
    assert!(daily.covers(at("2026-12-25 00:59")) && !daily.covers(at("2026-12-25 01:00")));
}

#[test]
fn the_effect_is_learned_from_the_last_times() {
    let weekly = event(None, Some(Repeats::Weekly));
    let past = hours(&weekly, 4.0, 14 * 168);
    let learned = weekly.learned(&timeline(&past), None);
    assert!((3.8..4.0).contains(&learned), "{learned}");
    let quiet = vec![1.0; 14 * 168];
    assert!((weekly.learned(&timeline(&quiet), None) - 1.0).abs() < 1e-9);
}

#[test]
fn a_yearly_event_is_learned_from_the_hours_of_the_year_before() {
    let yearly = event(None, Some(Repeats::Yearly));
    let year = hours(&Event { begins: "1970-01-03 02:00".to_owned(), ..yearly }, 3.0, 8760);
    let yearly =
        Event { begins: "1970-01-03 02:00".to_owned(), ..event(None, Some(Repeats::Yearly)) };
    let last_days = Timeline { values: &[1.0; 216], end_step: 8760, step_ms: HOUR_MS, day: 24 };
    assert!((yearly.learned(&last_days, None) - 1.0).abs() < 1e-9);
    let learned = yearly.learned(&last_days, Some(&timeline(&year)));
    assert!((2.7..3.0).contains(&learned), "{learned}");
}

#[test]
fn reads_and_writes_have_factors_of_their_own() {
    let mix = Event { reads: Some(1.0), writes: Some(3.0), ..event(None, None) };
    assert_eq!(mix.fault(), None);
    assert_eq!(mix.declared(Aspect::Reads), Some(1.0));
    assert_eq!(mix.declared(Aspect::Writes), Some(3.0));
    assert_eq!(mix.declared(Aspect::Busy { writes_share: 0.25 }), Some(1.5));
    assert_eq!(event(Some(2.0), None).declared(Aspect::Writes), Some(2.0));
}

#[test]
fn faults_are_named() {
    assert_eq!(event(Some(2.0), None).fault(), None);
    let cases: [(Change, &str); 6] = [
        (|e| e.factor = None, "needs a factor"),
        (|e| e.begins = "tomorrow".to_owned(), "no time"),
        (|e| e.writes = Some(21.0), "from 0 to 20"),
        (|e| e.lasts_minutes = 0, "at least 1"),
        (|e| e.name = String::new(), "name must have"),
        (|e| (e.repeats, e.repeats_minutes) = (Some(Repeats::Daily), Some(200)), "not both"),
    ];
    for (change, expected) in cases {
        let mut bad = event(Some(2.0), None);
        change(&mut bad);
        assert!(bad.fault().is_some_and(|fault| fault.contains(expected)), "{expected}");
    }
    assert!(event(Some(2.0), None).is_over(5 * HOUR_MS));
    assert!(!event(Some(2.0), Some(Repeats::Daily)).is_over(5 * HOUR_MS));
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
