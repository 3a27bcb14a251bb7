//! From the admin API's JSON to lines for people. No I/O.
//!
//! Whatever is missing in the JSON is left out: a proxy of another version may answer.

use std::collections::BTreeMap;

use serde_json::Value;

/// How wide a bar of load is, in characters.
const BAR: usize = 24;
/// How many characters a forecast is drawn in.
const SPARK: usize = 24;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What the admin API said at one time.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) now_unix_ms: u64,
    pub(super) status: Value,
    pub(super) nodes: Value,
    pub(super) moves: Value,
    pub(super) decisions: Value,
}

impl Snapshot {
    fn moves(&self) -> &[Value] {
        list(&self.moves["moves"])
    }

    fn decisions(&self) -> &[Value] {
        list(&self.decisions["decisions"])
    }

    /// `12 s ago`, of a time in ms since 1970.
    fn ago(&self, unix_ms: &Value) -> String {
        let seconds = self.now_unix_ms.saturating_sub(unix_ms.as_u64().unwrap_or_default()) / 1_000;
        match seconds {
            0..=119 => format!("{seconds} s ago"),
            120..=7_199 => format!("{} min ago", seconds / 60),
            _ => format!("{} h ago", seconds / 3_600),
        }
    }
}

/// All of it, as a screen.
pub(super) fn frame(now: &Snapshot) -> String {
    let controller = &now.status["controller"];
    let ready = if now.status["ready"] == true { "ready" } else { "not ready" };
    let mode = controller["mode"].as_str().map(|mode| format!("   mode {mode}"));
    let mut text = format!(
        "foreshard   {ready}   epoch {}{}\n\n",
        now.status["epoch"],
        mode.unwrap_or_default()
    );
    text += "NODE     SHARDS  LOAD NOW (busy seconds a second)          FORECAST\n";
    for node in list(&now.nodes["nodes"]) {
        let load = list(&controller["nodes"]).iter().find(|load| load["name"] == node["node"]);
        text += &node_line(node, load, now.now_unix_ms);
    }
    text += "\nMOVES\n";
    if now.moves().is_empty() {
        text += "  none yet\n";
    }
    for mv in now.moves() {
        push_line(&mut text, &format!("  {}", move_line(mv)));
        if mv["finished"] != true {
            push_line(&mut text, &format!("      {}", phases(mv).join(" → ")));
            if let Some(line) = progress_line(&mv["progress"]) {
                push_line(&mut text, &format!("      {line}"));
            }
        }
    }
    text += "\nDECISIONS\n";
    if now.decisions().is_empty() {
        text += "  none yet\n";
    }
    for decision in now.decisions() {
        let ago = now.ago(&decision["at_unix_ms"]);
        push_line(&mut text, &format!("  {ago:>10}  {}", decision_line(decision)));
    }
    text
}

/// What is new, a line each.
pub(super) fn changes(before: Option<&Snapshot>, now: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    let known = |list: fn(&Snapshot) -> &[Value], id: &Value| {
        before.and_then(|before| list(before).iter().find(|item| item["id"] == *id))
    };
    for decision in now.decisions().iter().rev() {
        if known(Snapshot::decisions, &decision["id"]).is_none() {
            lines.push(format!("decision: {}", decision_line(decision)));
        }
    }
    for mv in now.moves().iter().rev() {
        if known(Snapshot::moves, &mv["id"]).map(|old| &old["state"]) != Some(&mv["state"]) {
            lines.push(move_line(mv));
        }
    }
    lines.extend(load_line(before, now));
    lines
}

/// The load of each node, at every fifth second.
fn load_line(before: Option<&Snapshot>, now: &Snapshot) -> Option<String> {
    let period = |snapshot: &Snapshot| snapshot.now_unix_ms / 5_000;
    if before.is_some_and(|before| period(before) == period(now)) {
        return None;
    }
    let nodes = list(&now.status["controller"]["nodes"]).iter().map(|node| {
        let (name, busy) = (node["name"].as_str()?, node["busy"].as_f64()?);
        let peak = peak(&node["forecast_median"]).map(|(peak, _)| format!(" (soon {peak:.2})"));
        let capacity = node["capacity"].as_f64()?;
        Some(format!("{name} {busy:.2}/{capacity:.2}{}", peak.unwrap_or_default()))
    });
    let nodes: Vec<_> = nodes.flatten().collect();
    (!nodes.is_empty()).then(|| format!("load: {}", nodes.join("   ")))
}

/// Which shards each node holds.
pub(super) fn placement(shards: &Value) -> String {
    let mut by_node: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for shard in list(&shards["shards"]) {
        let node = shard["node"].as_str().unwrap_or("?");
        by_node.entry(node).or_default().push(shard["shard"].to_string());
    }
    let mut text = "SHARDS".to_owned();
    if by_node.is_empty() {
        text += "\n  none: every table lives on the home node";
    }
    for (node, shards) in by_node {
        text += &format!("\n  {node}: {}", shards.join(" "));
    }
    text
}

/// A move in a line: what, where, how far, why.
pub(super) fn move_line(mv: &Value) -> String {
    let (from, to) = (word(&mv["from_node"]), word(&mv["to_node"]));
    let (id, shard, state) = (&mv["id"], &mv["shard"], word(&mv["state"]));
    let new: Vec<String> = list(&mv["new_shards"]).iter().map(ToString::to_string).collect();
    let new = new.join(" ");
    let mut line = match mv["kind"].as_str() {
        _ if mv["reverses"].is_object() => {
            format!("move {id}, way back of move {}: {state}", mv["reverses"]["id"])
        }
        Some("split") => format!("move {id}, split of shard {shard} on {from} into {new}: {state}"),
        Some("batch") => format!("move {id} of shards {new} from {from} to {to}: {state}"),
        Some("merge") => format!("move {id}, merge into shard {new} on {to}: {state}"),
        _ => format!("move {id} of shard {shard} from {from} to {to}: {state}"),
    };
    if let Some(seconds) = seconds_taken(mv) {
        line += &format!(", {seconds:.1} s");
    }
    if mv["rows_copied"].as_u64().is_some_and(|rows| rows > 0) {
        line += &format!(", {} rows copied", mv["rows_copied"]);
    }
    if let Some(pause_ms) = mv["pause_ms"].as_f64() {
        line += &format!(", pause {pause_ms:.1} ms");
    }
    for trouble in ["error", "trouble"] {
        if let Some(text) = mv[trouble].as_str() {
            line += &format!(" ({text})");
        }
    }
    if let Some(why) = mv["irreversible"].as_str() {
        line += &format!(" (no way back: {why})");
    }
    line
}

/// How far a move under way is: while it copies the share, the rate and the time that is left;
/// then what was applied of the stream and what is left of it.
fn progress_line(progress: &Value) -> Option<String> {
    let (rows, expected) = (progress["rows_copied"].as_u64()?, progress["rows_expected"].as_u64()?);
    let rate = progress["bytes_per_second"].as_f64()? / 1e6;
    if let Some(left) = progress["copy_left_seconds"].as_f64() {
        let percent = rows.saturating_mul(100).checked_div(expected).unwrap_or(100).min(99);
        return Some(format!(
            "{rows} of about {expected} rows copied ({percent} %), {rate:.1} MB/s, about {left:.0} s \
             left"
        ));
    }
    let (changes, lag) = (progress["changes_applied"].as_u64()?, progress["lag_bytes"].as_u64()?);
    (rows > 0 || changes > 0).then(|| {
        format!(
            "copied at {rate:.1} MB/s, {changes} changes applied, {} kB of WAL left",
            lag / 1_000
        )
    })
}

/// The states that a move was in, with the seconds since it was asked for.
pub(super) fn phases(mv: &Value) -> Vec<String> {
    let history = list(&mv["history"]);
    let since = mv["requested_unix_ms"].as_u64().unwrap_or_default();
    let phase = |step: &Value| {
        let at = step["at_unix_ms"].as_u64()?;
        let state = word(&step["state"]);
        Some(format!("{state} at {:.1} s", seconds(at.saturating_sub(since))))
    };
    history.iter().filter_map(phase).collect()
}

/// What a verification found, a line each, and what it looked at.
pub(super) fn findings(report: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in list(&report["findings"]) {
        let kind = word(&finding["kind"]);
        lines.push(format!("{kind}: node {}: {}", word(&finding["node"]), word(&finding["what"])));
        lines.extend(list(&finding["rows"]).iter().map(|row| format!("    {}", word(row))));
    }
    let count = |what: &str| report[what].as_u64().unwrap_or_default();
    let looked = format!(
        "{} shards, {} tables, {} rows looked at",
        count("shards"),
        count("tables"),
        count("rows")
    );
    lines.push(match list(&report["findings"]).len() {
        0 => format!("{looked}: all as it should be"),
        1 => format!("{looked}: 1 finding"),
        many => format!("{looked}: {many} findings"),
    });
    lines
}

fn decision_line(decision: &Value) -> String {
    let node = word(&decision["node_name"]);
    let chosen = decision["chosen"]["reason"].as_str();
    let standing = decision["standing"].as_str().map(|standing| standing.replace('_', " "));
    match (chosen, decision["not_taken_reason"].as_str()) {
        (Some(reason), None) => format!("{node}: {reason} [{}]", standing.unwrap_or_default()),
        (_, Some(reason)) => format!("{node}: {reason}"),
        (None, None) => format!("{node}: {}", standing.unwrap_or_default()),
    }
}

fn node_line(node: &Value, load: Option<&Value>, now_unix_ms: u64) -> String {
    let home = if node["home"] == true { "*" } else { " " };
    let shards = list(&node["shards"]).len();
    let head = format!("{:<8}{home}{shards:>6}  ", word(&node["node"]));
    let end = match node["standing"].as_str() {
        Some(standing @ ("joining" | "draining")) => format!(", {standing}\n"),
        _ => "\n".to_owned(),
    };
    let known = load.and_then(|load| Some((load["busy"].as_f64()?, load["capacity"].as_f64()?)));
    let (Some(load), Some((busy, capacity))) = (load, known) else {
        return format!("{head}unknown{end}");
    };
    let bar = bar(busy / capacity);
    let mut line = format!("{head}{bar} {busy:>5.2} of {capacity:<5.2}  ");
    let medians: Vec<f64> =
        list(&load["forecast_median"]).iter().filter_map(Value::as_f64).collect();
    line += &spark(&medians, capacity);
    if let Some((peak, _)) = peak(&load["forecast_median"]) {
        line += &format!("  peak {peak:.2}");
    }
    if let Some(crossing) = load["predicted_crossing_unix_ms"].as_u64() {
        let ahead = seconds(crossing.saturating_sub(now_unix_ms));
        line += &format!(", over in {ahead:.0} s");
    }
    line + &end
}

/// A bar of which `share` is filled; `!` at its end if there is more than it can hold.
fn bar(share: f64) -> String {
    let filled = (0..BAR).filter(|cell| share > cell_share(*cell, BAR)).count();
    let end = if share > 1.0 { "!" } else { " " };
    format!("{}{}{end}", "█".repeat(filled), "░".repeat(BAR - filled))
}

/// The middle of a cell, as a share of all cells.
fn cell_share(cell: usize, cells: usize) -> f64 {
    (real(cell) + 0.5) / real(cells)
}

/// The course of a forecast; a full block is the capacity or more.
fn spark(values: &[f64], capacity: f64) -> String {
    let cells = values.len().min(SPARK);
    let cell = |index: usize| {
        let (from, to) = (index * values.len() / cells, (index + 1) * values.len() / cells);
        let highest = values[from..to].iter().copied().fold(0.0, f64::max);
        let level = (1..LEVELS.len()).filter(|level| highest / capacity >= real(*level) / 8.0);
        LEVELS[level.count()]
    };
    (0..cells).map(cell).collect()
}

/// The highest value and its place.
fn peak(values: &Value) -> Option<(f64, usize)> {
    let values =
        list(values).iter().enumerate().filter_map(|(at, value)| Some((value.as_f64()?, at)));
    values.max_by(|a, b| a.0.total_cmp(&b.0))
}

fn seconds_taken(mv: &Value) -> Option<f64> {
    let first = mv["requested_unix_ms"].as_u64()?;
    let last = list(&mv["history"]).last()?["at_unix_ms"].as_u64()?;
    Some(seconds(last.saturating_sub(first)))
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests;
