//! A level shift: the load has been, for a while and without a break, further from its last season
//! than it ever was. What was learned before says little now.

use super::real;

/// For how many steps it must last.
const LASTING: usize = 8;
/// How much further it must be than ever before.
const FACTOR: f64 = 1.5;
/// Seasons that the shape is taken from.
const DAYS_MAX: usize = 7;

/// Whether the end of the history is such a shift, in seasons of `day` steps.
pub(super) fn is_shifted(history: &[f64], day: usize) -> bool {
    if history.len() < 3 * day + 2 * LASTING {
        return false;
    }
    let now = sustained(history, history.len() - 1, day);
    if now == 0.0 {
        return false;
    }
    let before = (day + LASTING..history.len() - day).step_by(2);
    now > FACTOR * before.map(|at| sustained(history, at, day)).fold(0.0, f64::max)
}

/// The smallest distance from the season before over the steps up to `at`; 0 if it changes its
/// sign.
fn sustained(history: &[f64], at: usize, day: usize) -> f64 {
    let difference = |back: usize| history[at - back] - history[at - back - day];
    let first = difference(0);
    let mut least = first.abs();
    for back in 1..LASTING {
        let difference = difference(back);
        if difference * first <= 0.0 {
            return 0.0;
        }
        least = least.min(difference.abs());
    }
    least
}

/// What comes after a shift: between the new level and the usual shape scaled to it.
pub(super) fn after(history: &[f64], day: usize, horizon: usize) -> Vec<f64> {
    let end = history.len();
    let days = (end / day).saturating_sub(1).clamp(1, DAYS_MAX);
    let usual_at = |at: usize| {
        let sum: f64 = (1..=days).map(|back| history[at - back * day]).sum();
        sum / real(days)
    };
    let level: f64 = history[end - LASTING..].iter().sum::<f64>() / real(LASTING);
    let usual = (end - LASTING..end).map(usual_at).sum::<f64>() / real(LASTING);
    let ratio = (level / usual.max(1e-9)).clamp(0.0, 10.0);
    let step = |step: usize| usual_at(end + step - day * (step / day)) * ratio;
    (0..horizon).map(|at| f64::midpoint(level, step(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::{after, is_shifted};

    fn days(count: usize) -> Vec<f64> {
        let day = [1.0, 1.0, 2.0, 4.0, 8.0, 8.0, 4.0, 2.0, 1.0, 1.0, 1.0, 1.0];
        (0..count * 12).map(|t| day[t % 12] + if t % 3 == 0 { 0.1 } else { 0.0 }).collect()
    }

    #[test]
    fn a_level_that_was_never_seen_is_a_shift_and_the_usual_day_is_not() {
        let mut history = days(6);
        assert!(!is_shifted(&history, 12));
        for (at, tripled) in history.clone()[..9].iter().map(|v| v * 3.0).enumerate() {
            assert_eq!(is_shifted(&history, 12), at > 7, "after {at} steps");
            history.push(tripled);
        }
        let next = after(&history, 12, 12);
        assert!(next[8] > 8.0, "the peak of a tripled day is tripled: {next:?}");
    }

    #[test]
    fn a_single_burst_is_no_shift() {
        let mut history = days(6);
        history.extend([50.0, 60.0, 1.0]);
        assert!(!is_shifted(&history, 12));
    }
}
