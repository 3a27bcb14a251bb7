//! What can be set about measuring load.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How often load is sampled and stored. The length of a step of history is the forecast's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Time between two samples.
    pub sample_interval_ms: u64,
    /// Time between two writes of history to the catalog: what a crash loses at the most.
    pub store_interval_ms: u64,
    /// How long every sample is kept.
    pub samples_kept_hours: u64,
    /// How long steps of ten minutes are kept.
    pub ten_minutes_kept_days: u64,
    /// How long hours are kept.
    pub hours_kept_days: u64,
    /// Time between two looks at what a node says of itself.
    pub probe_interval_ms: u64,
    /// The pages of node exporters, by the node's name: `http://n1:9100/metrics`.
    pub node_exporters: BTreeMap<String, String>,
    /// A Prometheus that has scraped this proxy, or others of the same catalog: at a start without
    /// any history the past is taken from there.
    pub import_from_prometheus: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sample_interval_ms: 5_000,
            store_interval_ms: 10_000,
            samples_kept_hours: 1,
            ten_minutes_kept_days: 35,
            hours_kept_days: 400,
            probe_interval_ms: 15_000,
            node_exporters: BTreeMap::new(),
            import_from_prometheus: None,
        }
    }
}

impl Config {
    /// What is wrong with it: the key and why.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if !(100..=3_600_000).contains(&self.sample_interval_ms) {
            faults.push(("sample_interval_ms", "must be 100 to 3600000".to_owned()));
        }
        if !(1_000..=3_600_000).contains(&self.store_interval_ms) {
            faults.push(("store_interval_ms", "must be 1000 to 3600000".to_owned()));
        }
        if !(500..=3_600_000).contains(&self.probe_interval_ms) {
            faults.push(("probe_interval_ms", "must be 500 to 3600000".to_owned()));
        }
        for (node, url) in &self.node_exporters {
            if let Err(error) = super::parts(url) {
                faults.push(("node_exporters", format!("{node}: {error}")));
            }
        }
        if let Some(Err(error)) = self.import_from_prometheus.as_deref().map(super::parts) {
            faults.push(("import_from_prometheus", error.to_string()));
        }
        for (key, kept, most) in [
            ("samples_kept_hours", self.samples_kept_hours, 48),
            ("ten_minutes_kept_days", self.ten_minutes_kept_days, 400),
            ("hours_kept_days", self.hours_kept_days, 4_000),
        ] {
            if !(1..=most).contains(&kept) {
                faults.push((key, format!("must be 1 to {most}")));
            }
        }
        faults
    }
}
