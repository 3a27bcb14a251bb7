//! Decisions in words.

use super::decide::Outlook;
use super::decision::{Action, Basis, Candidate, Decision};

impl Outlook<'_> {
    /// What is expected of the node.
    pub(super) fn describe(&self, decision: &Decision) -> String {
        let Decision { node_name: name, capacity, probability, peak, .. } = decision;
        let when = match decision.predicted_crossing_unix_ms {
            Some(at) if at <= decision.at_unix_ms => "exceeds its capacity".to_owned(),
            Some(_) => "will exceed its capacity".to_owned(),
            None => "may exceed its capacity".to_owned(),
        };
        let wait = match decision.predicted_crossing_unix_ms {
            Some(at) if at <= decision.at_unix_ms => " now".to_owned(),
            Some(at) => format!(" in {}", duration(at - decision.at_unix_ms)),
            None => format!(" within {}", duration(self.horizon_ms())),
        };
        let basis = match decision.basis {
            Basis::Forecast => "forecast",
            Basis::Persistence => "by persistence, as no forecast is trusted:",
        };
        format!(
            "node {name} {when} of {capacity:.2} busy-s/s{wait} (p={probability:.2}, {basis} {peak:.2})"
        )
    }

    pub(super) fn describe_candidate(&self, candidate: &Candidate) -> String {
        let Candidate { shard, action, to, share, gain, cost } = candidate;
        let to = &self.scene.nodes[to.index()].name;
        let (gain, percent) = (gain.max(0.0), 100.0 * share);
        let division =
            self.scene.shards.get(shard.index()).and_then(|shard| shard.division.as_ref());
        let halves = division.and_then(|division| division.halves.as_ref());
        let told = match halves {
            Some(halves) if halves.sampled => "by its sampled keys",
            _ => "its keys taken to be even",
        };
        let what = match action {
            Action::Move => format!("moving shard {shard} to {to}"),
            Action::Split { .. } => format!(
                "splitting shard {shard} in two and moving a half ({percent:.0} % of its load, \
                 {told}) to {to}"
            ),
            Action::Isolate { .. } => {
                let hot =
                    division.and_then(|d| d.hot.as_ref()).map_or(0.0, |hot| 100.0 * hot.share);
                format!(
                    "setting the hottest key of shard {shard} apart ({hot:.0} % of its load) and \
                     moving the rest ({percent:.0} %) to {to}"
                )
            }
            Action::Merge { with } => format!("merging shard {shard} with {with} on {to}"),
        };
        format!("{what} avoids {gain:.1} overload-seconds for a cost of {cost:.1}")
    }
}

/// A duration as people say it.
fn duration(ms: u64) -> String {
    match ms.div_ceil(1000) {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}
