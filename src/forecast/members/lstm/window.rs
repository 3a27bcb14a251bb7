//! What the network is shown of a history at an origin, in units of the series.

use super::super::super::real;
use super::super::Task;

/// The last values that it reads.
pub(super) const SEEN: usize = 32;
/// Blocks that the steps ahead are divided into.
pub(super) const BLOCKS: usize = 16;
/// What it knows of each block.
pub(super) const DECODER_INPUTS: usize = 4;
/// Days that the usual load is the mean of.
const DAYS: usize = 3;
/// No value is further out than this.
const OUT_MAX: f64 = 10.0;

/// One origin.
#[derive(Debug, Clone)]
pub(in super::super) struct Window {
    /// The last values.
    pub(super) seen: Vec<f32>,
    /// For each block: the usual load, that of a week before, how far the last value is from the
    /// usual one, and how far ahead it is.
    pub(super) ahead: Vec<[f32; DECODER_INPUTS]>,
    /// How far the load was from the usual one in each block; zeros if that is not known yet.
    pub(super) target: [f32; BLOCKS],
    /// The usual load of each step.
    usual: Vec<f64>,
    /// The unit.
    spread: f64,
}

impl Window {
    /// What is known at the origin `at`; `None` if that is too little.
    pub(in super::super) fn at(task: Task<'_>, at: usize) -> Option<Self> {
        let day = task.day;
        if at < (DAYS * day).max(SEEN) || at < 2 * day || task.horizon == 0 {
            return None;
        }
        let y = task.history;
        let level = y[at - day..at].iter().sum::<f64>() / real(day);
        let spread = y[at - 2 * day..at].iter().map(|value| (value - level).abs()).sum::<f64>();
        let spread = (spread / real(2 * day)).max(1e-3 * level.abs()).max(1e-9);
        let unit = |value: f64| single((value / spread).clamp(-OUT_MAX, OUT_MAX));
        let usual_at = |at: usize, step: usize| {
            let back = |days: usize| at + step - day * (step / day + days);
            // Where the first of the days would begin before the history there are fewer.
            let days = (1..=DAYS).filter(|days| at + step >= day * (step / day + days));
            let (sum, count) = days.fold((0.0, 0), |(sum, n), days| (sum + y[back(days)], n + 1));
            sum / real(count.max(1))
        };
        let usual: Vec<f64> = (0..task.horizon).map(|step| usual_at(at, step)).collect();
        let week_ago: Vec<f64> = (0..task.horizon)
            .map(|step| {
                let back = task.week.map(|week| week * (1 + step / week));
                back.and_then(|back| (at + step).checked_sub(back)).map_or(usual[step], |i| y[i])
            })
            .collect();
        let off = unit(y[at - 1] - usual_at(at - 1, 0));
        let ahead = (0..BLOCKS).map(|block| {
            let steps = block_of(block, task.horizon);
            let mean = |curve: &[f64]| curve[steps.clone()].iter().sum::<f64>() / real(steps.len());
            let far = single(real(block) / real(BLOCKS));
            [unit(mean(&usual) - level), unit(mean(&week_ago) - level), off, far]
        });
        Some(Self {
            seen: y[at - SEEN..at].iter().map(|value| unit(value - level)).collect(),
            ahead: ahead.collect(),
            target: [0.0; BLOCKS],
            usual,
            spread,
        })
    }

    /// With what came after it.
    pub(super) fn with_outcome(mut self, task: Task<'_>, at: usize) -> Option<Self> {
        let came = task.history.get(at..at + task.horizon)?;
        for (block, target) in self.target.iter_mut().enumerate() {
            let steps = block_of(block, task.horizon);
            let count = real(steps.len());
            let off: f64 = steps.map(|step| came[step] - self.usual[step]).sum();
            *target = single((off / count / self.spread).clamp(-OUT_MAX, OUT_MAX));
        }
        Some(self)
    }

    /// What the network's answer means: the usual load, and the offsets of the blocks with straight
    /// lines between their middles.
    pub(super) fn forecast(&self, said: &[f32; BLOCKS]) -> Vec<f64> {
        let horizon = self.usual.len();
        let step = |(step, usual): (usize, &f64)| {
            let place = (real(step) + 0.5) / real(horizon) * real(BLOCKS) - 0.5;
            let place = place.clamp(0.0, real(BLOCKS - 1));
            let mut offset = f64::from(said[BLOCKS - 1]);
            for block in 0..BLOCKS - 1 {
                let part = place - real(block);
                if (0.0..1.0).contains(&part) {
                    let (a, b) = (f64::from(said[block]), f64::from(said[block + 1]));
                    offset = a + part * (b - a);
                }
            }
            usual + self.spread * offset
        };
        self.usual.iter().enumerate().map(step).collect()
    }
}

/// The steps of a block; at least one.
fn block_of(block: usize, horizon: usize) -> std::ops::Range<usize> {
    let start = (block * horizon / BLOCKS).min(horizon - 1);
    let end = ((block + 1) * horizon / BLOCKS).clamp(start + 1, horizon);
    start..end
}

#[expect(clippy::cast_possible_truncation, reason = "the network has single precision")]
fn single(value: f64) -> f32 {
    value as f32
}
