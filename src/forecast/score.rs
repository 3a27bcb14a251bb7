//! What forecasts said beside what came: errors against the naive forecasts, coverage, bias, peaks.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Forecast, real};

/// Each older outcome counts this much less: the last two hundred are what matters.
const MEMORY: f64 = 0.995;
/// Fewer outcomes than this are no ground for a judgement.
const JUDGED_MIN: u64 = 150;
/// A forecast whose error is above this multiple of persistence's is not used.
const RELATIVE_MAX: f64 = 1.1;
/// A forecast whose 80 % interval held less than this is not used.
const COVERAGE_MIN: f64 = 0.5;
/// Outcomes that are kept beside what was said.
const KEPT: usize = 180;
/// Of the levels of a distribution: 2.5 %, 10 %, 50 %, 90 %, 97.5 %.
const SAID: [usize; 5] = [0, 1, 5, 9, 10];

/// What was said of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Promise {
    step: u64,
    said: [f64; SAID.len()],
    persistence: f64,
    season_ago: f64,
    peak: f64,
}

/// What was said of one step, and what came.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The number of the step.
    pub step: u64,
    /// 10 % quantile.
    pub said_p10: f64,
    /// Median.
    pub said_median: f64,
    /// 90 % quantile.
    pub said_p90: f64,
    /// What it was.
    pub came: f64,
}

/// How good forecasts of so many steps ahead were of late. Shares are from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// Steps ahead.
    pub steps: usize,
    /// Outcomes ever seen.
    pub resolved: u64,
    /// Mean absolute error, in the unit of the series.
    pub mean_absolute_error: f64,
    /// Relative to persistence: below 1 is better than it.
    pub relative_to_persistence: f64,
    /// Relative to the value of a season ago.
    pub relative_to_seasonal_naive: f64,
    /// How often the 80 % interval held the outcome.
    pub coverage_80: f64,
    /// How often the 95 % interval did.
    pub coverage_95: f64,
    /// Forecast minus outcome on average, in units of the mean absolute error.
    pub bias: f64,
    /// Of the outcomes among the highest 5 %, the share whose 90 % quantile said so; `None` without.
    pub peak_recall: Option<f64>,
}

/// Sums that forget slowly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Sums {
    resolved: u64,
    weight: f64,
    error: f64,
    persistence: f64,
    season_ago: f64,
    signed: f64,
    inside_80: f64,
    inside_95: f64,
    peaks: f64,
    foreseen: f64,
}

impl Sums {
    fn take(&mut self, promise: &Promise, came: f64) {
        let [lowest, low, median, high, highest] = promise.said;
        let peak = came > promise.peak;
        let parts: [(&mut f64, f64); 9] = [
            (&mut self.weight, 1.0),
            (&mut self.error, (came - median).abs()),
            (&mut self.persistence, (came - promise.persistence).abs()),
            (&mut self.season_ago, (came - promise.season_ago).abs()),
            (&mut self.signed, median - came),
            (&mut self.inside_80, one_if((low..=high).contains(&came))),
            (&mut self.inside_95, one_if((lowest..=highest).contains(&came))),
            (&mut self.peaks, one_if(peak)),
            (&mut self.foreseen, one_if(peak && high > promise.peak)),
        ];
        for (sum, value) in parts {
            *sum = *sum * MEMORY + value;
        }
        self.resolved += 1;
    }

    fn score(&self, steps: usize) -> Score {
        let weight = self.weight.max(1e-12);
        let relative = |to: f64| (self.error + 1e-9) / (to + 1e-9);
        Score {
            steps,
            resolved: self.resolved,
            mean_absolute_error: self.error / weight,
            relative_to_persistence: relative(self.persistence),
            relative_to_seasonal_naive: relative(self.season_ago),
            coverage_80: self.inside_80 / weight,
            coverage_95: self.inside_95 / weight,
            bias: self.signed / self.error.max(1e-9),
            peak_recall: (self.peaks > 0.5).then(|| self.foreseen / self.peaks),
        }
    }
}

/// What was said of one series, and how good that was. What waits for its outcome is left out where
/// it is written down.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scorecard {
    horizons: Vec<Horizon>,
}

/// What was said so many steps ahead.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Horizon {
    steps: usize,
    #[serde(skip)]
    promises: VecDeque<Promise>,
    sums: Sums,
    /// Only of the middle one.
    #[serde(with = "written")]
    outcomes: VecDeque<Outcome>,
}

/// Outcomes as they are written down: short, in single precision.
mod written {
    use std::collections::VecDeque;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Outcome;

    type Row = (u64, f32, f32, f32, f32);

    #[expect(clippy::cast_possible_truncation, reason = "to single precision, on purpose")]
    fn row(outcome: &Outcome) -> Row {
        let [a, b, c, d] = [outcome.said_p10, outcome.said_median, outcome.said_p90, outcome.came]
            .map(|v| v as f32);
        (outcome.step, a, b, c, d)
    }

    pub(super) fn serialize<S: Serializer>(
        outcomes: &VecDeque<Outcome>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        outcomes.iter().map(row).collect::<Vec<Row>>().serialize(to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(
        from: D,
    ) -> Result<VecDeque<Outcome>, D::Error> {
        let rows = Vec::<Row>::deserialize(from)?;
        let outcome = |(step, p10, median, p90, came): Row| {
            let [said_p10, said_median, said_p90, came] = [p10, median, p90, came].map(f64::from);
            Outcome { step, said_p10, said_median, said_p90, came }
        };
        Ok(rows.into_iter().map(outcome).collect())
    }
}

impl Horizon {
    /// Scores what was said of this step; what was said of earlier ones has no outcome.
    fn settle(&mut self, step: u64, came: f64, kept: usize) {
        while let Some(promise) = self.promises.pop_front_if(|promise| promise.step <= step) {
            if promise.step < step {
                continue;
            }
            self.sums.take(&promise, came);
            let [_, said_p10, said_median, said_p90, _] = promise.said;
            self.outcomes.push_back(Outcome { step, said_p10, said_median, said_p90, came });
            if self.outcomes.len() > kept {
                self.outcomes.pop_front();
            }
        }
    }
}

impl Scorecard {
    /// Nothing was said yet. Looks at one step ahead, an eighth, a half and the whole of
    /// `horizon_steps`.
    pub fn new(horizon_steps: usize) -> Self {
        let horizon = |steps| Horizon { steps, ..Horizon::default() };
        Self { horizons: steps_scored(horizon_steps).into_iter().map(horizon).collect() }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        for horizon in &mut self.horizons {
            *horizon = Horizon { steps: horizon.steps, ..Horizon::default() };
        }
    }

    /// Whether it is about forecasts of so many steps.
    pub fn is_for(&self, horizon: usize) -> bool {
        self.horizons.iter().map(|horizon| horizon.steps).eq(steps_scored(horizon))
    }

    /// Remembers what a forecast says, which was made at the end of `history`; `first` is the
    /// number of its first step.
    pub fn promise(&mut self, first: u64, forecast: &Forecast, history: &[f64], day: usize) {
        let (Some(_), Some(last)) = (forecast.backtest, history.last()) else { return };
        let peak = high(history);
        for horizon in &mut self.horizons {
            let ahead = horizon.steps - 1;
            let Some(quantiles) = forecast.ensemble.steps().get(ahead) else { continue };
            let back = day * (1 + ahead / day.max(1));
            let season_ago = (history.len() + ahead).checked_sub(back);
            let promise = Promise {
                step: first + u64::try_from(ahead).unwrap_or_default(),
                said: SAID.map(|level| quantiles[level]),
                persistence: *last,
                season_ago: season_ago.and_then(|at| history.get(at)).copied().unwrap_or(*last),
                peak,
            };
            // One for each step: the newest forecast of several counts.
            if horizon.promises.back().is_some_and(|promise_| promise_.step >= promise.step) {
                horizon.promises.pop_back();
            }
            horizon.promises.push_back(promise);
        }
    }

    /// Scores what was said of a step whose load is known now. Steps come in their order.
    pub fn settle(&mut self, step: u64, came: f64) {
        let middle = self.middle_index();
        for (index, horizon) in self.horizons.iter_mut().enumerate() {
            horizon.settle(step, came, if index == middle { KEPT } else { 0 });
        }
    }

    /// How good it was, by steps ahead; only of what was resolved.
    pub fn scores(&self) -> Vec<Score> {
        let resolved = self.horizons.iter().filter(|horizon| horizon.sums.resolved > 0);
        resolved.map(|horizon| horizon.sums.score(horizon.steps)).collect()
    }

    /// What was said half the horizon before, and what came; oldest first. With the steps ahead.
    pub fn outcomes(&self) -> (usize, Vec<Outcome>) {
        let Some(middle) = self.middle() else { return (0, Vec::new()) };
        (middle.steps, middle.outcomes.iter().copied().collect())
    }

    /// Why this series' forecasts should not be used, if they were bad of late.
    pub fn verdict(&self) -> Option<String> {
        let middle = self.middle().filter(|middle| middle.sums.resolved >= JUDGED_MIN)?;
        let score = middle.sums.score(middle.steps);
        let steps = score.steps;
        if score.relative_to_persistence > RELATIVE_MAX {
            let times = score.relative_to_persistence;
            return Some(format!(
                "the error of recent forecasts {steps} steps ahead is {times:.2} times persistence's"
            ));
        }
        (score.coverage_80 < COVERAGE_MIN).then(|| {
            let percent = 100.0 * score.coverage_80;
            format!(
                "the 80 % interval {steps} steps ahead held only {percent:.0} % of recent loads"
            )
        })
    }

    fn middle(&self) -> Option<&Horizon> {
        self.horizons.get(self.middle_index())
    }

    fn middle_index(&self) -> usize {
        self.horizons.len().saturating_sub(2)
    }
}

/// How many steps ahead is scored, of forecasts of so many.
fn steps_scored(horizon: usize) -> Vec<usize> {
    let mut steps = vec![1, horizon / 8, horizon / 2, horizon];
    steps.retain(|steps| *steps > 0);
    steps.sort_unstable();
    steps.dedup();
    steps
}

/// What only the highest 5 % of a history are above.
fn high(history: &[f64]) -> f64 {
    let mut sorted = history.to_vec();
    let place = (sorted.len().saturating_sub(1)) * 95 / 100;
    let (_, value, _) = sorted.select_nth_unstable_by(place, f64::total_cmp);
    *value
}

fn one_if(condition: bool) -> f64 {
    real(usize::from(condition))
}

#[cfg(test)]
mod tests {
    use super::super::{Config, forecast};
    use super::Scorecard;

    fn config() -> Config {
        Config { step_ms: 1, day_ms: 20, week_ms: None, horizon_ms: 16, ..Config::default() }
    }

    /// Plays a history through forecasts; what the card says then.
    fn played(history: &[f64], falsify: f64) -> Scorecard {
        let mut card = Scorecard::new(16);
        for now in 100..history.len() {
            let mut said = forecast(&history[..now], &config());
            let wrong: Vec<f64> = said.ensemble.median().map(|median| median + falsify).collect();
            said.ensemble = said.ensemble.moved_to(&wrong);
            let step = u64::try_from(now).unwrap();
            card.promise(step, &said, &history[..now], 20);
            card.settle(step, history[now]);
        }
        card
    }

    fn history() -> Vec<f64> {
        let day = |t: u32| 2.0 + f64::from(t % 20) / 10.0 + f64::from(t * 7 % 11) / 100.0;
        (0..300).map(day).collect()
    }

    #[test]
    fn good_forecasts_score_well_and_outcomes_stand_beside_what_was_said() {
        let card = played(&history(), 0.0);
        let scores = card.scores();
        assert_eq!(scores.iter().map(|score| score.steps).collect::<Vec<_>>(), [1, 2, 8, 16]);
        for score in &scores {
            assert!(score.relative_to_persistence < 0.9, "{score:?}");
            assert!(score.coverage_95 > 0.7, "{score:?}");
        }
        assert_eq!(card.verdict(), None);
        let (ahead, outcomes) = card.outcomes();
        assert_eq!((ahead, outcomes.last().unwrap().step), (8, 299));
        assert!((outcomes.last().unwrap().came - history()[299]).abs() < 1e-12);
    }

    #[test]
    fn a_card_that_was_written_down_and_read_goes_on_as_it_was() {
        let card = played(&history(), 0.0);
        let text = serde_json::to_string(&card).unwrap();
        let back: Scorecard = serde_json::from_str(&text).unwrap();
        let ((_, back_outcomes), (_, outcomes)) = (back.outcomes(), card.outcomes());
        assert_eq!(back_outcomes.len(), outcomes.len());
        for (back, outcome) in back_outcomes.iter().zip(&outcomes) {
            assert!(back.step == outcome.step && (back.came - outcome.came).abs() < 1e-5);
        }
        for (back, score) in back.scores().iter().zip(card.scores()) {
            assert_eq!((back.steps, back.resolved), (score.steps, score.resolved));
            assert!((back.coverage_80 - score.coverage_80).abs() < 1e-9);
        }
        assert!(back.is_for(16) && !back.is_for(17));
        assert!(text.len() < 12_000, "{} bytes a shard", text.len());
    }

    #[test]
    fn forecasts_that_are_off_lose_their_trust_with_a_reason() {
        let card = played(&history(), 5.0);
        let score = card.scores()[2];
        assert!(score.bias > 0.9, "{score:?}");
        assert!(card.verdict().unwrap().contains("8 steps ahead"), "{:?}", card.verdict());
    }
}
