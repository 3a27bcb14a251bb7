//! The load of each node over the run, as the proxy measured it.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use crate::day::Day;

/// A peak is the highest mean of so many samples, of a second each.
const SAMPLES: usize = 5;

/// The highest load of each node, day by day.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    last_unix_ms: u64,
    /// Day, node → busy seconds a second.
    peaks: BTreeMap<u64, BTreeMap<String, f64>>,
    recent: BTreeMap<String, VecDeque<f64>>,
    /// What a node can bear.
    pub(crate) capacity: f64,
}

impl Loads {
    /// Takes note of the controller's status, if it is a new one.
    pub(crate) fn note(&mut self, controller: &Value, day: &Day, first_unix_ms: u64) {
        let Some(at) = controller["at_unix_ms"].as_u64().filter(|at| *at > self.last_unix_ms)
        else {
            return;
        };
        self.last_unix_ms = at;
        let (number, _) = day.at(at, first_unix_ms);
        for node in controller["nodes"].as_array().into_iter().flatten() {
            let (Some(name), Some(busy)) = (node["name"].as_str(), node["busy"].as_f64()) else {
                continue;
            };
            self.capacity = node["capacity"].as_f64().unwrap_or(self.capacity);
            let recent = self.recent.entry(name.to_owned()).or_default();
            recent.push_back(busy);
            if recent.len() > SAMPLES {
                recent.pop_front();
            }
            let mean = recent.iter().sum::<f64>() / [1.0, 2.0, 3.0, 4.0, 5.0][recent.len() - 1];
            let peaks = self.peaks.entry(number).or_default();
            let peak = peaks.entry(name.to_owned()).or_default();
            *peak = peak.max(mean);
        }
    }

    /// The highest load of a node on any day.
    pub(crate) fn peak(&self, node: &str) -> Option<f64> {
        self.peaks.values().filter_map(|peaks| peaks.get(node)).copied().max_by(f64::total_cmp)
    }

    /// A line a day.
    pub(crate) fn lines(&self) -> Vec<String> {
        let nodes = |peaks: &BTreeMap<String, f64>| {
            let of = |(name, peak): (&String, &f64)| {
                let over = if *peak > self.capacity { "!" } else { " " };
                format!("{name} {peak:.2}{over}")
            };
            peaks.iter().map(of).collect::<Vec<_>>().join("   ")
        };
        self.peaks.iter().map(|(day, peaks)| format!("day {day}:  {}", nodes(peaks))).collect()
    }
}
