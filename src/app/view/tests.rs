//! JSON in, lines out.

use serde_json::{Value, json};

use super::{Snapshot, changes, frame, move_line, phases, placement};

fn mv(state: &str) -> Value {
    json!({
        "id": 3, "shard": 5, "from_node": "n1", "to_node": "n2", "state": state,
        "finished": state == "done", "requested_unix_ms": 1_000, "rows_copied": 120,
        "pause_ms": 4.25, "error": null, "trouble": null,
        "history": [
            {"state": "requested", "at_unix_ms": 1_000},
            {"state": state, "at_unix_ms": 3_500},
        ],
    })
}

fn snapshot(moves: &[Value], decisions: &[Value]) -> Snapshot {
    let controller = json!({
        "mode": "auto",
        "nodes": [{
            "name": "n1", "capacity": 1.0, "busy": 0.5,
            "forecast_median": [0.5, 0.75, 1.25], "predicted_crossing_unix_ms": 14_000,
        }],
    });
    Snapshot {
        now_unix_ms: 12_000,
        status: json!({ "ready": true, "epoch": 7, "controller": controller }),
        nodes: json!({ "nodes": [
            {"node": "n1", "home": true, "shards": [0, 5]},
            {"node": "n2", "home": false, "shards": []},
        ] }),
        moves: json!({ "moves": moves }),
        decisions: json!({ "decisions": decisions }),
    }
}

#[test]
fn a_screen_shows_load_forecast_moves_and_decisions() {
    let decision = json!({
        "id": 9, "at_unix_ms": 2_000, "node_name": "n1", "standing": "requested",
        "chosen": {"reason": "shard 5 to n2 avoids 12 overload-seconds"}, "not_taken_reason": null,
    });
    let text = frame(&snapshot(&[mv("copying")], &[decision]));
    let expected = "\
foreshard   ready   epoch 7   mode auto

NODE     SHARDS  LOAD NOW (busy seconds a second)          FORECAST
n1      *     2  ████████████░░░░░░░░░░░░   0.50 of 1.00   ▅▇█  peak 1.25, over in 2 s
n2            0  unknown

MOVES
  move 3 of shard 5 from n1 to n2: copying, 2.5 s, 120 rows copied, pause 4.2 ms
      requested at 0.0 s → copying at 2.5 s

DECISIONS
    10 s ago  n1: shard 5 to n2 avoids 12 overload-seconds [requested]
";
    assert_eq!(text, expected);
}

#[test]
fn only_what_is_new_is_told() {
    let before = snapshot(&[mv("copying")], &[]);
    assert!(changes(Some(&before), &before).is_empty());
    let after = snapshot(&[mv("done")], &[]);
    assert_eq!(changes(Some(&before), &after), [move_line(&mv("done"))]);
    let first = changes(None, &before);
    assert_eq!(first.last().unwrap(), "load: n1 0.50/1.00 (soon 1.25)");
}

#[test]
fn whatever_is_missing_is_left_out() {
    let empty = Snapshot {
        now_unix_ms: 0,
        status: Value::Null,
        nodes: json!({ "nodes": [{}] }),
        moves: json!({ "moves": [{}] }),
        decisions: json!([1]),
    };
    assert!(frame(&empty).contains("not ready"));
    assert!(phases(&Value::Null).is_empty());
    assert!(placement(&Value::Null).contains("none"));
    let shards = json!({ "shards": [{"shard": 1, "node": "n2"}, {"shard": 0, "node": "n1"}] });
    assert_eq!(placement(&shards), "SHARDS\n  n1: 0\n  n2: 1");
}

#[test]
fn a_move_under_way_tells_how_far_it_is() {
    let mut copying = mv("copying");
    copying["progress"] = json!({
        "rows_copied": 250, "bytes_copied": 5_000_000, "rows_expected": 1_000,
        "bytes_per_second": 2_500_000.0, "copy_left_seconds": 6.0, "changes_applied": 0,
        "lag_bytes": 0,
    });
    let text = frame(&snapshot(&[copying.clone()], &[]));
    let line = "250 of about 1000 rows copied (25 %), 2.5 MB/s, about 6 s left";
    assert!(text.contains(line), "{text}");
    copying["progress"]["copy_left_seconds"] = Value::Null;
    copying["progress"]["changes_applied"] = json!(7);
    copying["progress"]["lag_bytes"] = json!(12_345);
    let text = frame(&snapshot(&[copying], &[]));
    assert!(text.contains("copied at 2.5 MB/s, 7 changes applied, 12 kB of WAL left"), "{text}");
}
