//! A long short-term memory cell (Hochreiter and Schmidhuber, 1997), forward and backward.

/// Where a cell's weights stand: for each of four gates and each unit, of the inputs, of the units'
/// last outputs, and a bias.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) inputs: usize,
    pub(super) units: usize,
}

/// The state that goes from step to step.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) output: Vec<f32>,
    memory: Vec<f32>,
}

/// What one step was computed from, for the way back.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// Inputs, last outputs, and 1 for the bias.
    row: Vec<f32>,
    /// After their activation: input, forget and output gates, and the candidate.
    gates: [Vec<f32>; 4],
    memory_before: Vec<f32>,
    memory: Vec<f32>,
}

impl State {
    pub(super) fn new(units: usize) -> Self {
        Self { output: vec![0.0; units], memory: vec![0.0; units] }
    }
}

impl Cell {
    /// Weights of a row.
    fn width(self) -> usize {
        self.inputs + self.units + 1
    }

    /// How many weights it has.
    pub(super) fn size(self) -> usize {
        4 * self.units * self.width()
    }

    /// One step forward.
    pub(super) fn forward(self, weights: &[f32], inputs: &[f32], state: &mut State) -> Step {
        let mut row = Vec::with_capacity(self.width());
        row.extend_from_slice(inputs);
        row.extend_from_slice(&state.output);
        row.push(1.0);
        let mut rows = weights.chunks_exact(self.width());
        let mut gate = |activate: fn(f32) -> f32| -> Vec<f32> {
            rows.by_ref().take(self.units).map(|weights| activate(dot(weights, &row))).collect()
        };
        let gates = [gate(sigmoid), gate(|x| sigmoid(x + 1.0)), gate(sigmoid), gate(f32::tanh)];
        let memory_before = state.memory.clone();
        for unit in 0..self.units {
            let [input, forget, output, candidate] = gates.each_ref().map(|gate| gate[unit]);
            let memory = forget * state.memory[unit] + input * candidate;
            state.memory[unit] = memory;
            state.output[unit] = output * memory.tanh();
        }
        Step { row, gates, memory_before, memory: state.memory.clone() }
    }

    /// One step back: takes the slopes of the error by the state after it, adds those by the
    /// weights, leaves those by the state before it.
    pub(super) fn backward(
        self,
        weights: &[f32],
        step: &Step,
        slopes: &mut State,
        of_weights: &mut [f32],
    ) {
        let mut of_row = vec![0.0; self.width()];
        let mut of_memory_before = vec![0.0; self.units];
        for unit in 0..self.units {
            let [input, forget, output, candidate] = step.gates.each_ref().map(|gate| gate[unit]);
            let squashed = step.memory[unit].tanh();
            let of_output = slopes.output[unit];
            let of_memory = slopes.memory[unit] + of_output * output * (1.0 - squashed * squashed);
            of_memory_before[unit] = of_memory * forget;
            let of_gates = [
                of_memory * candidate * input * (1.0 - input),
                of_memory * step.memory_before[unit] * forget * (1.0 - forget),
                of_output * squashed * output * (1.0 - output),
                of_memory * input * (1.0 - candidate * candidate),
            ];
            for (gate, slope) in of_gates.into_iter().enumerate() {
                let start = (gate * self.units + unit) * self.width();
                let range = start..start + self.width();
                add(&mut of_weights[range.clone()], &step.row, slope);
                add(&mut of_row, &weights[range], slope);
            }
        }
        slopes.output.copy_from_slice(&of_row[self.inputs..self.inputs + self.units]);
        slopes.memory = of_memory_before;
    }
}

/// Adds a multiple of `values` to `sums`.
pub(super) fn add(sums: &mut [f32], values: &[f32], factor: f32) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += factor * value;
    }
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::{Cell, State};

    #[test]
    fn slopes_are_those_of_finite_differences() {
        let cell = Cell { inputs: 2, units: 3 };
        let mut weights: Vec<f32> =
            (0u16..72).map(|i| f32::from(i * 37 % 19) / 19.0 - 0.5).collect();
        assert_eq!(weights.len(), cell.size());
        let inputs = [[0.3, -0.7], [0.9, 0.1]];
        let run = |weights: &[f32]| {
            let mut state = State::new(3);
            let steps = inputs.map(|inputs| cell.forward(weights, &inputs, &mut state));
            (state.output.iter().sum::<f32>(), steps)
        };
        let (_, steps) = run(&weights);
        let mut slopes = State::new(3);
        slopes.output.fill(1.0);
        let mut found = vec![0.0; weights.len()];
        for step in steps.iter().rev() {
            cell.backward(&weights, step, &mut slopes, &mut found);
        }
        for at in 0..weights.len() {
            let before = weights[at];
            weights[at] = before + 0.01;
            let above = run(&weights).0;
            weights[at] = before - 0.01;
            let below = run(&weights).0;
            weights[at] = before;
            let expected = (above - below) / 0.02;
            assert!((found[at] - expected).abs() < 2e-3, "{at}: {} {expected}", found[at]);
        }
    }
}
