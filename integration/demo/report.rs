//! What the run has shown, in numbers, and whether that is what it should show.

use serde_json::Value;

use crate::census::Census;
use crate::loads::Loads;
use crate::pgbench::{Outcome, Transaction};
use crate::screen::{grouped, say, seconds};

/// Transactions this long before and after a closed gate count as around the switch.
const AROUND_MS: u64 = 1_000;

/// All that is known at the end.
pub(crate) struct Report {
    pub(crate) before: Census,
    pub(crate) after: Census,
    pub(crate) outcome: Outcome,
    /// Oldest first.
    pub(crate) moves: Vec<Value>,
    pub(crate) loads: Loads,
}

impl Report {
    /// Says all of it. Whether every check holds.
    pub(crate) fn tell(&self) -> bool {
        self.tell_moves();
        self.tell_loads();
        self.tell_clients();
        self.tell_rows();
        say("\nCHECKS");
        let checks = self.checks();
        for (holds, what) in &checks {
            say(format!("  {}  {what}", if *holds { "ok    " } else { "FAILED" }));
        }
        let good = checks.iter().all(|(holds, _)| *holds);
        say(if good { "\nPASS" } else { "\nFAIL" });
        good
    }

    fn tell_moves(&self) {
        say("\nMOVES");
        if self.moves.is_empty() {
            say("  none: the controller predicted no overload that was worth a move");
        }
        for mv in &self.moves {
            let word = |key: &str| mv[key].as_str().unwrap_or("?").to_owned();
            let (from, to) = (word("from_node"), word("to_node"));
            say(format!("  move {}: shard {} from {from} to {to}", mv["id"], mv["shard"]));
            if let Some(reason) = mv["cause"]["controller"]["reason"].as_str() {
                say(format!("    why      {reason}"));
            }
            say(format!("    phases   {}", phases(mv)));
            let rows = grouped(mv["rows_copied"].as_u64().unwrap_or_default());
            let changes = grouped(mv["changes_applied"].as_u64().unwrap_or_default());
            say(format!(
                "    moved    {rows} rows copied, {changes} changes streamed, all verified"
            ));
            if let Some(pause_ms) = mv["pause_ms"].as_f64() {
                say(format!("    pause    {pause_ms:.1} ms"));
            }
            match lead_seconds(mv) {
                Some(lead) if lead > 0.0 => {
                    say(format!("    switched {lead:.1} s before the predicted crossing"));
                }
                Some(late) => {
                    say(format!("    switched {:.1} s after the predicted crossing", -late));
                }
                None => say(format!("    {}: not ahead of a predicted crossing", word("state"))),
            }
            for trouble in ["error", "trouble"] {
                if let Some(text) = mv[trouble].as_str() {
                    say(format!("    {trouble}    {text}"));
                }
            }
        }
    }

    fn tell_loads(&self) {
        let capacity = self.loads.capacity;
        say(format!(
            "\nLOAD  (highest mean of 5 s in busy seconds a second; a node can bear {capacity})"
        ));
        self.loads.lines().iter().for_each(|line| say(format!("  {line}")));
    }

    fn tell_clients(&self) {
        let Outcome { committed, failed, transactions, complaints, .. } = &self.outcome;
        say("\nCLIENTS");
        say(format!("  {} transactions committed, {failed} failed", grouped(committed)));
        let mut latencies: Vec<f64> = transactions.iter().map(|t| t.latency_ms).collect();
        latencies.sort_by(f64::total_cmp);
        let quantile = |per_mille: usize| {
            latencies.get(latencies.len() * per_mille / 1_000).copied().unwrap_or(f64::NAN)
        };
        say(format!(
            "  a transaction took {:.1} ms (median), {:.1} ms (99 %), {:.1} ms (longest)",
            quantile(500),
            quantile(990),
            latencies.last().copied().unwrap_or(f64::NAN)
        ));
        for mv in &self.moves {
            let Some(longest) = longest_around(mv, transactions) else { continue };
            let pause = mv["pause_ms"].as_f64().unwrap_or(f64::NAN);
            say(format!(
                "  switch of shard {}: gate closed for {pause:.1} ms; longest transaction within \
                 {} s of it {longest:.1} ms",
                mv["shard"],
                AROUND_MS / 1_000
            ));
        }
        complaints.iter().take(10).for_each(|line| say(format!("  pgbench: {line}")));
    }

    fn tell_rows(&self) {
        say("\nROWS  (counted on every node directly)");
        let pairs = self.before.loaded.iter().zip(&self.after.loaded);
        for ((table, before), (_, after)) in pairs {
            say(format!(
                "  {table:<12} before {:>9}  checksum {}",
                grouped(before.rows),
                before.checksum
            ));
            say(format!(
                "  {:<12} after  {:>9}  checksum {}",
                "",
                grouped(after.rows),
                after.checksum
            ));
        }
    }

    fn checks(&self) -> Vec<(bool, String)> {
        let Self { before, after, outcome, moves, .. } = self;
        let switched = moves.iter().filter(|mv| mv["state"] == "done").count();
        let ahead = moves.iter().filter_map(lead_seconds).filter(|lead| *lead > 0.0).count();
        let committed = i64::try_from(outcome.committed).unwrap_or(i64::MAX);
        let logged = u64::try_from(outcome.transactions.len()).unwrap_or(u64::MAX);
        let mut checks = vec![
            (
                ahead > 0,
                format!("{ahead} of {} moves switched before the predicted crossing", moves.len()),
            ),
            (
                switched == moves.len(),
                format!("{switched} of {} moves are done, none was undone", moves.len()),
            ),
            (
                outcome.failed == 0 && outcome.status.success() && outcome.complaints.is_empty(),
                format!("clients saw {} errors (pgbench: {})", outcome.failed, outcome.status),
            ),
            (
                after.updates - before.updates == committed
                    && after.inserts - before.inserts == committed,
                format!(
                    "{} transactions were acknowledged, and the nodes have {} updates and {} inserts",
                    grouped(committed),
                    grouped(after.updates - before.updates),
                    grouped(after.inserts - before.inserts)
                ),
            ),
            (logged == outcome.committed, format!("pgbench logged {} of them", grouped(logged))),
            (
                before.loaded == after.loaded,
                format!("{} loaded rows have the checksums of before", grouped(after.rows())),
            ),
            (after.misplaced == 0, format!("{} rows are on a wrong shard", after.misplaced)),
            (
                after.faults.is_empty(),
                "every shard is attached on its owner and nowhere else".to_owned(),
            ),
            (after.left_over == 0, format!("{} slots or publications are left", after.left_over)),
        ];
        checks.extend(after.faults.iter().map(|fault| (false, fault.clone())));
        checks
    }
}

/// The seconds from a move's switch to the crossing that it was to avoid.
fn lead_seconds(mv: &Value) -> Option<f64> {
    let switched = mv["switched_unix_ms"].as_u64()?;
    let crossing = mv["cause"]["controller"]["predicted_crossing_unix_ms"].as_u64()?;
    let lead = seconds(crossing.abs_diff(switched));
    Some(if crossing > switched { lead } else { -lead })
}

/// The states of a move, with the seconds since it was asked for.
fn phases(mv: &Value) -> String {
    let since = mv["requested_unix_ms"].as_u64().unwrap_or_default();
    let steps = mv["history"].as_array().into_iter().flatten().map(|step| {
        let at = step["at_unix_ms"].as_u64().unwrap_or_default();
        let state = step["state"].as_str().unwrap_or("?");
        format!("{state} {:.1}", seconds(at.saturating_sub(since)))
    });
    format!("{} s", steps.collect::<Vec<_>>().join(", "))
}

/// The longest transaction that was under way around a switch.
fn longest_around(mv: &Value, transactions: &[Transaction]) -> Option<f64> {
    let switched = mv["switched_unix_ms"].as_u64()?;
    let closed = mv["history"].as_array()?.iter().rfind(|step| step["state"] == "switching")?;
    let from = closed["at_unix_ms"].as_u64()?.saturating_sub(AROUND_MS);
    let until = switched + AROUND_MS;
    let near = transactions.iter().filter(|transaction| {
        let end = std::time::Duration::from_millis(transaction.end_unix_ms).as_secs_f64() * 1_000.0;
        transaction.end_unix_ms >= from && end - transaction.latency_ms <= seconds(until) * 1_000.0
    });
    near.map(|transaction| transaction.latency_ms).max_by(f64::total_cmp)
}
