//! A history as the forecasts learn from it: short bursts are cut, so that one of them does not come
//! back tomorrow at the same time. What lasts is left: it may be the new level.

/// A value above all but this share is a candidate for a burst.
const ORDINARY: (usize, usize) = (99, 100);
/// How much further from the median than that it may be.
const FACTOR: f64 = 2.0;
/// What is higher than that for longer than so many steps is no burst.
const BURST_STEPS_MAX: usize = 4;

/// The history without what lies far above nearly all of it.
pub(super) fn without_bursts(history: &[f64]) -> Vec<f64> {
    let Some(last) = history.len().checked_sub(1) else { return Vec::new() };
    let mut sorted = history.to_vec();
    let (_, median, _) = sorted.select_nth_unstable_by(last / 2, f64::total_cmp);
    let median = *median;
    let (_, high, _) =
        sorted.select_nth_unstable_by(last * ORDINARY.0 / ORDINARY.1, f64::total_cmp);
    let highest = median + FACTOR * (*high - median);
    let mut clean = history.to_vec();
    for burst in clean.chunk_by_mut(|a, b| (*a > highest) == (*b > highest)) {
        if burst.len() <= BURST_STEPS_MAX {
            burst.iter_mut().for_each(|value| *value = value.min(highest));
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::without_bursts;

    #[test]
    fn a_burst_is_cut_and_what_comes_often_stays() {
        let mut history: Vec<f64> = (0..400).map(|t| if t % 20 == 0 { 9.0 } else { 1.0 }).collect();
        assert_eq!(without_bursts(&history), history);
        history[7] = 1000.0;
        let clean = without_bursts(&history);
        assert!((clean[7] - 17.0).abs() < 1e-9);
        assert_eq!(clean[8..], history[8..]);
        history.extend([1000.0; 5]);
        assert_eq!(without_bursts(&history)[400..], [1000.0; 5]);
    }
}
