//! The rates of every shard and node, step by step, without gaps, and its chunks for the catalog.

use serde::{Deserialize, Serialize};

use super::recorder::{Rates, ShardRates};
use crate::ids::ShardId;

/// Steps of a chunk.
pub const CHUNK_STEPS: u64 = 60;

/// The past of every shard and node. A step's number is its begin since 1970 over its length, so
/// that the same time of day is always a whole number of days apart.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    step_ms: u64,
    day_steps: usize,
    steps_max: usize,
    first_step: u64,
    length: usize,
    shards: Vec<Columns>,
    nodes: Vec<Vec<f32>>,
}

/// The rates of one shard, a value a step, oldest first. Single precision: it halves the memory, and
/// no load is known better than that.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Columns {
    /// Reads a second.
    pub reads: Vec<f32>,
    /// Writes a second.
    pub writes: Vec<f32>,
    /// Rows a second.
    #[serde(default)]
    pub rows: Vec<f32>,
    /// Bytes a second.
    pub bytes: Vec<f32>,
    /// Busy seconds a second.
    pub busy: Vec<f32>,
}

/// A part of the history, as the catalog stores it under `history/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// The number of its first possible step over [`CHUNK_STEPS`].
    pub number: u64,
    /// The length of a step.
    pub step_ms: u64,
    /// The number of the first step that it holds.
    pub first_step: u64,
    /// By shard id.
    pub shards: Vec<Columns>,
    /// The busy time of no shard, by node id.
    pub nodes: Vec<Vec<f32>>,
}

impl Columns {
    fn all(&self) -> [&Vec<f32>; 5] {
        [&self.reads, &self.writes, &self.rows, &self.bytes, &self.busy]
    }

    fn all_mut(&mut self) -> [&mut Vec<f32>; 5] {
        [&mut self.reads, &mut self.writes, &mut self.rows, &mut self.bytes, &mut self.busy]
    }
}

impl History {
    /// No history yet. Keeps `steps_max` steps; fills gaps from `day_steps` before.
    pub fn new(step_ms: u64, day_steps: usize, steps_max: usize) -> Self {
        Self {
            step_ms: step_ms.max(1),
            day_steps,
            steps_max: steps_max.max(1),
            first_step: 0,
            length: 0,
            shards: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// The length of a step.
    pub fn step_ms(&self) -> u64 {
        self.step_ms
    }

    /// How many steps it has.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The number of its first step.
    pub fn first_step(&self) -> u64 {
        self.first_step
    }

    /// The number of the step after its last one.
    pub fn end_step(&self) -> u64 {
        self.first_step + u64::try_from(self.length).unwrap_or(u64::MAX)
    }

    /// The rates of each shard.
    pub fn shards(&self) -> &[Columns] {
        &self.shards
    }

    /// The busy time of no shard, of each node.
    pub fn nodes(&self) -> &[Vec<f32>] {
        &self.nodes
    }

    /// Appends the rates of a step. Steps missing in between are filled from a day before, else
    /// with the last values; a step that is there already is left alone.
    pub fn push(&mut self, step: u64, rates: &Rates) {
        if self.is_empty() {
            self.first_step = step;
        }
        let Some(missing) = step.checked_sub(self.end_step()) else { return };
        if usize::try_from(missing).map_or(true, |missing| missing >= self.steps_max) {
            *self = Self::new(self.step_ms, self.day_steps, self.steps_max);
            self.first_step = step;
        } else {
            (0..missing).for_each(|_| self.fill_one());
        }
        self.widen(rates.shards.len(), rates.nodes.len());
        for (index, columns) in self.shards.iter_mut().enumerate() {
            let rates = rates.shards.get(index).copied().unwrap_or_default();
            let values = [rates.reads, rates.writes, rates.rows, rates.bytes, rates.busy];
            for (column, value) in columns.all_mut().into_iter().zip(values) {
                column.push(rounded(value));
            }
        }
        for (index, column) in self.nodes.iter_mut().enumerate() {
            column.push(rounded(rates.nodes.get(index).copied().unwrap_or_default()));
        }
        self.length += 1;
        self.cut();
    }

    /// The chunk of this number, if the history has any of it.
    pub fn chunk(&self, number: u64) -> Option<Chunk> {
        let first_step = (number * CHUNK_STEPS).max(self.first_step);
        let end_step = ((number + 1) * CHUNK_STEPS).min(self.end_step());
        if first_step >= end_step {
            return None;
        }
        let start = usize::try_from(first_step - self.first_step).ok()?;
        let end = usize::try_from(end_step - self.first_step).ok()?;
        let shard = |columns: &Columns| Columns {
            reads: columns.reads[start..end].to_vec(),
            writes: columns.writes[start..end].to_vec(),
            rows: columns.rows[start..end].to_vec(),
            bytes: columns.bytes[start..end].to_vec(),
            busy: columns.busy[start..end].to_vec(),
        };
        Some(Chunk {
            number,
            step_ms: self.step_ms,
            first_step,
            shards: self.shards.iter().map(shard).collect(),
            nodes: self.nodes.iter().map(|column| column[start..end].to_vec()).collect(),
        })
    }

    /// The numbers of the chunks that have steps from `step` on.
    pub fn chunks_from(&self, step: u64) -> std::ops::Range<u64> {
        if self.is_empty() {
            return 0..0;
        }
        step.max(self.first_step) / CHUNK_STEPS..self.end_step().div_ceil(CHUNK_STEPS)
    }

    /// The rates of one step; `None` if it is not there.
    pub fn rates(&self, step: u64) -> Option<Rates> {
        let at = usize::try_from(step.checked_sub(self.first_step)?).ok()?;
        let value = |column: &Vec<f32>| column.get(at).copied().map_or(0.0, f64::from);
        let shard = |columns: &Columns| {
            let [reads, writes, rows, bytes, busy] = columns.all().map(value);
            ShardRates { reads, writes, rows, bytes, busy }
        };
        (at < self.length).then(|| Rates {
            shards: self.shards.iter().map(shard).collect(),
            nodes: self.nodes.iter().map(value).collect(),
        })
    }

    /// The highest busy time of each shard over the last `steps`.
    pub fn peaks(&self, steps: usize) -> Vec<f64> {
        let of = |columns: &Columns| {
            columns.busy.iter().rev().take(steps).copied().map(f64::from).fold(0.0, f64::max)
        };
        self.shards.iter().map(of).collect()
    }

    /// Gives a shard the past of others, by their shares, up to and without the step `before`.
    pub fn inherit(&mut self, heir: ShardId, from: &[(ShardId, f64)], before: u64) {
        self.widen(heir.index() + 1, 0);
        let known = before.saturating_sub(self.first_step);
        let end = usize::try_from(known).map_or(self.length, |known| known.min(self.length));
        let mut past = vec![vec![0.0; end]; 5];
        for (shard, share) in from {
            let Some(columns) = self.shards.get(shard.index()) else { continue };
            for (sums, column) in past.iter_mut().zip(columns.all()) {
                let values = column.iter().map(|value| share * f64::from(*value));
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
        let columns = self.shards[heir.index()].all_mut();
        for (column, sums) in columns.into_iter().zip(&past) {
            column.iter_mut().zip(sums).for_each(|(value, sum)| *value = rounded(*sum));
        }
    }

    /// Appends a stored chunk; chunks come in the order of their numbers. One of another step
    /// length is left out: whether it was taken.
    pub fn restore(&mut self, chunk: &Chunk) -> bool {
        if chunk.step_ms != self.step_ms {
            return false;
        }
        for (offset, step) in (chunk.first_step..chunk.end_step()).enumerate() {
            self.push(step, &chunk.rates(offset));
        }
        true
    }

    /// Appends a step as it was a day before, else as the last one.
    fn fill_one(&mut self) {
        let from = self.length.saturating_sub(self.day_steps.max(1));
        let from = if self.length < self.day_steps { self.length - 1 } else { from };
        for column in self.shards.iter_mut().flat_map(Columns::all_mut).chain(&mut self.nodes) {
            column.push(column[from]);
        }
        self.length += 1;
    }

    /// Makes room for shards and nodes that came to be; they did nothing before.
    fn widen(&mut self, shards: usize, nodes: usize) {
        let zeros = vec![0.0f32; self.length];
        let new = || Columns {
            reads: zeros.clone(),
            writes: zeros.clone(),
            rows: zeros.clone(),
            bytes: zeros.clone(),
            busy: zeros.clone(),
        };
        let shards = shards.max(self.shards.len());
        self.shards.resize_with(shards, new);
        let nodes = nodes.max(self.nodes.len());
        self.nodes.resize_with(nodes, || zeros.clone());
    }

    /// Drops the oldest steps, many at a time, so that each push stays cheap.
    fn cut(&mut self) {
        if self.length <= self.steps_max + self.steps_max / 8 {
            return;
        }
        let surplus = self.length - self.steps_max;
        for column in self.shards.iter_mut().flat_map(Columns::all_mut).chain(&mut self.nodes) {
            column.drain(..surplus);
        }
        self.length -= surplus;
        self.first_step += u64::try_from(surplus).unwrap_or_default();
    }
}

impl Chunk {
    /// The number of the step after its last one.
    pub fn end_step(&self) -> u64 {
        let longest = self.shards.first().map(|columns| &columns.busy).or(self.nodes.first());
        self.first_step + longest.map_or(0, |column| u64::try_from(column.len()).unwrap_or(0))
    }

    /// The rates at this offset; zeros where there is nothing.
    fn rates(&self, offset: usize) -> Rates {
        let value = |column: &Vec<f32>| column.get(offset).copied().map_or(0.0, f64::from);
        let shard = |columns: &Columns| {
            let [reads, writes, rows, bytes, busy] = columns.all().map(value);
            ShardRates { reads, writes, rows, bytes, busy }
        };
        Rates {
            shards: self.shards.iter().map(shard).collect(),
            nodes: self.nodes.iter().map(value).collect(),
        }
    }
}

/// To a millionth: finer is noise, and costs room in the catalog.
#[expect(clippy::cast_possible_truncation, reason = "to single precision, on purpose")]
fn rounded(value: f64) -> f32 {
    let rounded = ((value * 1e6).round() / 1e6) as f32;
    if rounded.is_finite() { rounded } else { 0.0 }
}
