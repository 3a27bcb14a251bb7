//! A recurrent network for all series of an installation: it reads the last values, and then says
//! block by block how far the load will be from the mean of the last days.
//!
//! Small, trained on the processor with Adam (Kingma and Ba, 2015) on what the series themselves
//! did; everything is in units of each series' own level and spread.

mod cell;
mod window;

use cell::{Cell, State, Step, add, dot};
pub(super) use window::Window;
use window::{BLOCKS, DECODER_INPUTS, SEEN};

use super::Task;

/// Units of each of the two cells.
const UNITS: usize = 20;
/// Windows of a step of training, and steps.
const BATCH: usize = 16;
const STEPS: u16 = 900;
/// Windows of a series that are looked at.
const WINDOWS: usize = 150;
/// The greatest rate of learning.
const RATE: f32 = 4e-3;
/// Slopes longer than this are shortened.
const SLOPE_MAX: f32 = 1.0;

const ENCODER: Cell = Cell { inputs: 1, units: UNITS };
const DECODER: Cell = Cell { inputs: DECODER_INPUTS, units: UNITS };

/// A trained network.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// The encoder's, the decoder's, and of the output: one of each unit and a bias.
    weights: Vec<f32>,
}

/// The parts of all weights.
fn parts() -> (usize, usize, usize) {
    let (encoder, decoder) = (ENCODER.size(), ENCODER.size() + DECODER.size());
    (encoder, decoder, decoder + UNITS + 1)
}

/// One pass: what it said and how.
struct Pass {
    encoder: Vec<Step>,
    decoder: Vec<Step>,
    outputs: Vec<Vec<f32>>,
    said: [f32; BLOCKS],
}

impl Network {
    fn pass(&self, window: &Window) -> Pass {
        let (encoder_end, decoder_end, _) = parts();
        let (encoder, decoder) =
            (&self.weights[..encoder_end], &self.weights[encoder_end..decoder_end]);
        let of_output = &self.weights[decoder_end..];
        let mut state = State::new(UNITS);
        let seen = window.seen.iter();
        let mut pass = Pass {
            encoder: seen.map(|value| ENCODER.forward(encoder, &[*value], &mut state)).collect(),
            decoder: Vec::with_capacity(BLOCKS),
            outputs: Vec::with_capacity(BLOCKS),
            said: [0.0; BLOCKS],
        };
        for (block, inputs) in window.ahead.iter().enumerate() {
            pass.decoder.push(DECODER.forward(decoder, inputs, &mut state));
            pass.said[block] = dot(&of_output[..UNITS], &state.output) + of_output[UNITS];
            pass.outputs.push(state.output.clone());
        }
        pass
    }

    /// Adds the slopes of the error of one window by all weights.
    fn learn(&self, window: &Window, slopes: &mut [f32]) {
        let (encoder_end, decoder_end, _) = parts();
        let pass = self.pass(window);
        let mut of_state = State::new(UNITS);
        for block in (0..BLOCKS).rev() {
            // Of a Huber loss: the error itself, but no more than one.
            let slope = (pass.said[block] - window.target[block]).clamp(-1.0, 1.0);
            let (_, of_output) = slopes.split_at_mut(decoder_end);
            add(of_output, &pass.outputs[block], slope);
            of_output[UNITS] += slope;
            add(&mut of_state.output, &self.weights[decoder_end..decoder_end + UNITS], slope);
            let range = encoder_end..decoder_end;
            let of_weights = &mut slopes[range.clone()];
            let step = &pass.decoder[block];
            DECODER.backward(&self.weights[range], step, &mut of_state, of_weights);
        }
        for step in pass.encoder.iter().rev() {
            let weights = &self.weights[..encoder_end];
            ENCODER.backward(weights, step, &mut of_state, &mut slopes[..encoder_end]);
        }
    }

    /// Trains a network on these series; `None` if they are too short. Takes seconds.
    pub(in super::super) fn train(series: &[Task<'_>]) -> Option<Self> {
        Self::train_for(series, STEPS)
    }

    /// The same with so many steps of training.
    fn train_for(series: &[Task<'_>], steps: u16) -> Option<Self> {
        let windows: Vec<Window> = series.iter().flat_map(|task| windows(*task)).collect();
        if windows.len() < BATCH {
            return None;
        }
        let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
        let (.., size) = parts();
        let weights = (0..size).map(|_| 0.2 * chance.signed()).collect();
        let mut network = Self { weights };
        let (mut slopes, mut first, mut second) =
            (vec![0.0; size], vec![0.0f32; size], vec![0.0f32; size]);
        for step in 0..steps {
            slopes.fill(0.0);
            for _ in 0..BATCH {
                network.learn(&windows[chance.below(windows.len())], &mut slopes);
            }
            let length = dot(&slopes, &slopes).sqrt();
            let shorten = (SLOPE_MAX / length.max(1e-9)).min(1.0);
            let done = f32::from(step) / f32::from(steps);
            let rate = RATE * 0.5 * (1.0 + (std::f32::consts::PI * done).cos()) + 1e-5;
            let power = i32::from(step) + 1;
            let (unbias_first, unbias_second) =
                (1.0 - 0.9f32.powi(power), 1.0 - 0.999f32.powi(power));
            for (at, weight) in network.weights.iter_mut().enumerate() {
                let slope = slopes[at] * shorten;
                first[at] = 0.9 * first[at] + 0.1 * slope;
                second[at] = 0.999 * second[at] + 0.001 * slope * slope;
                let size = (second[at] / unbias_second).sqrt() + 1e-8;
                *weight -= rate * (first[at] / unbias_first) / size;
            }
        }
        network.weights.iter().all(|weight| weight.is_finite()).then_some(network)
    }

    /// Its point forecast.
    pub(super) fn predict(&self, task: Task<'_>) -> Option<Vec<f64>> {
        let window = Window::at(task, task.history.len())?;
        Some(window.forecast(&self.pass(&window).said))
    }
}

/// Windows spread over a history.
fn windows(task: Task<'_>) -> Vec<Window> {
    let Some(newest) = task.history.len().checked_sub(task.horizon) else { return Vec::new() };
    let oldest = (3 * task.day).max(SEEN);
    let Some(span) = newest.checked_sub(oldest) else { return Vec::new() };
    let mut origins: Vec<usize> = (0..WINDOWS).map(|i| oldest + span * i / WINDOWS).collect();
    origins.dedup();
    origins.into_iter().filter_map(|at| Window::at(task, at)?.with_outcome(task, at)).collect()
}

/// Numbers that look random; the same each time.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 >> 32).unwrap_or_default()
    }

    fn below(&mut self, limit: usize) -> usize {
        let next = usize::try_from(self.next()).unwrap_or_default();
        next % limit.max(1)
    }

    /// From -1 to 1.
    fn signed(&mut self) -> f32 {
        let next = u16::try_from(self.next() >> 16).unwrap_or_default();
        f32::from(next) / 32_767.5 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::real;
    use super::{Network, Task};

    /// A wave of each day that is twice as high on days after a high evening: what only the last
    /// values tell.
    fn swinging(days: usize, shift: usize) -> Vec<f64> {
        let at = |step: usize| {
            let (day, hour) = (step / 24, step % 24);
            let wave = 2.0 + (std::f64::consts::TAU * real(hour) / 24.0).sin();
            let high = (day * 7 + shift) % 5 < 2;
            // The evening before a high day is high already.
            let next_high = ((day + 1) * 7 + shift) % 5 < 2;
            let scale = if high { 2.0 } else { 1.0 };
            let evening = if hour >= 18 && next_high { 1.5 } else { 0.0 };
            wave * scale + evening
        };
        (0..days * 24).map(at).collect()
    }

    #[test]
    fn it_learns_what_the_usual_day_does_not_tell() {
        let all: Vec<Vec<f64>> = (0..4).map(|shift| swinging(60, shift)).collect();
        let task = |history| Task { history, horizon: 16, day: 24, week: None };
        let series: Vec<Task<'_>> = all.iter().map(|history| task(&history[..40 * 24])).collect();
        let network = Network::train_for(&series, 50).unwrap();
        let (mut error, mut usual_error) = (0.0, 0.0);
        for history in &all {
            for day in 42..58 {
                let origin = day * 24;
                let said = network.predict(task(&history[..origin])).unwrap();
                for (step, said) in said.into_iter().enumerate() {
                    let back = |days: usize| history[origin + step - 24 * days];
                    let usual = (back(1) + back(2) + back(3)) / 3.0;
                    error += (history[origin + step] - said).abs();
                    usual_error += (history[origin + step] - usual).abs();
                }
            }
        }
        assert!(error < 0.8 * usual_error, "{error} of {usual_error}");
        assert_eq!(Network::train_for(&series, 2), Network::train_for(&series, 2));
    }

    #[test]
    fn series_that_are_too_short_train_nothing() {
        let short = vec![1.0; 50];
        let task = Task { history: &short, horizon: 8, day: 24, week: None };
        assert_eq!(Network::train(&[task]), None);
    }
}
