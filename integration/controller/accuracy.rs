//! The accuracy of the forecasts as who runs the proxy sees it, and what it leads to.

use std::sync::Arc;
use std::time::Duration;

use foreshard::catalog::{Catalog, EmbeddedKv, Expect};
use foreshard::load::{History, Rates, ShardRates};
use serde_json::Value;

use crate::load::{Sleepers, configure, now_ms, tenants};
use crate::process_support::{Deployment, SHARDS};
use crate::support::eventually;

const LIMIT: Duration = Duration::from_secs(90);
const STEP_MS: u64 = 200;
/// A day of 20 steps, in the first half of which there is load.
const DAY_MS: u64 = 4_000;
/// Days that were seen before the first start.
const DAYS: u64 = 15;

const TIMES: &str = "  controller: { forecast_interval_ms: 200, status_interval_ms: 200 }
  load: { sample_interval_ms: 200, store_interval_ms: 1000 }
  forecast: { step_ms: 200, day_ms: 4000, week_ms: null, horizon_ms: 3200, history_ms: 120000 }
";
const PLACEMENT: &str = "{ mode: advise, node_capacity: 0.3, expected_move_ms: 400, \
     window_ms: 2000, price_overload_seconds: 0.05 }";

fn is_on(unix_ms: u64) -> bool {
    unix_ms % DAY_MS < DAY_MS / 2
}

/// Writes the past of shard 0 into the catalog before anything runs.
async fn learned(deployment: &Deployment) {
    let end = now_ms() / STEP_MS;
    let mut history = History::new(STEP_MS, 20, 600);
    for step in end - DAYS * (DAY_MS / STEP_MS)..end {
        let busy = |shard: u32| match (shard, is_on(step * STEP_MS)) {
            (0, true) => {
                if step % 2 == 0 {
                    0.93
                } else {
                    0.95
                }
            }
            _ => 0.0,
        };
        let rates = |shard| ShardRates { busy: busy(shard), ..ShardRates::default() };
        history
            .push(step, &Rates { shards: (0..SHARDS).map(rates).collect(), nodes: vec![0.0; 2] });
    }
    std::fs::create_dir_all(&deployment.data_folder).unwrap();
    let kv = EmbeddedKv::open(&deployment.data_folder.join("catalog.redb")).unwrap();
    let catalog = Catalog::new(Arc::new(kv));
    for number in history.chunks_from(0) {
        catalog.put(&history.chunk(number).unwrap(), Expect::Absent).await.unwrap();
    }
}

/// What the API says of the forecasts of shard 0.
async fn accuracy(deployment: &Deployment) -> Value {
    deployment.admin("/api/v1/forecasts?shard=0").await["forecasts"][0].clone()
}

/// The score of what was said half the horizon before.
fn middle(accuracy: &Value) -> Option<&Value> {
    accuracy["scores"].as_array()?.iter().find(|score| score["steps"] == 8)
}

/// The value of a metric of shard 0, with these further labels.
async fn metric(deployment: &Deployment, name: &str, labels: &[&str]) -> Option<f64> {
    let page = deployment.page("/metrics").await;
    let of_shard = |line: &&str| {
        line.starts_with(&format!("{name}{{"))
            && line.contains("shard=\"0\"")
            && labels.iter().all(|label| line.contains(label))
    };
    page.lines().find(of_shard)?.rsplit(' ').next()?.parse().ok()
}

/// What was busy of shard 0 in the last steps: the first one's number, and the values. `None` before the
/// controller has begun.
async fn past(deployment: &Deployment, steps: u32) -> Option<(u64, Vec<f64>)> {
    let heatmap = deployment.admin(&format!("/api/v1/heatmap?past={steps}&ahead=0")).await;
    let row = heatmap["shards"].as_array()?.iter().find(|row| row["shard"] == 0)?;
    let values = row["past"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap());
    Some((heatmap["past_unix_ms"].as_u64()? / STEP_MS, values.collect()))
}

/// A decision that rests on this.
async fn decided_by(deployment: &Deployment, basis: &str) -> Value {
    let found = async || {
        let status = deployment.admin("/api/v1/status").await;
        let decisions = status["controller"]["decisions"].as_array()?.clone();
        decisions.into_iter().find(|decision| decision["basis"] == basis)
    };
    eventually(&format!("a decision by {basis}"), LIMIT, found).await
}

/// What was expected and weighed, in words.
fn reason_of(decision: &Value) -> String {
    let chosen = decision["chosen"]["reason"].as_str();
    chosen.or(decision["not_taken_reason"].as_str()).unwrap().to_owned()
}

/// The forecasts follow the load's day: they score well, what was said stands beside what came.
async fn assert_scored(deployment: &Deployment) {
    let scored = async || {
        let accuracy = accuracy(deployment).await;
        let resolved = middle(&accuracy)?["resolved"].as_u64()?;
        (resolved >= 40).then_some(accuracy)
    };
    let good = eventually("40 forecasts are scored", LIMIT, scored).await;
    let score = middle(&good).unwrap();
    assert_eq!(good["trusted"], true, "{good:#}");
    assert!(score["relative_to_persistence"].as_f64().unwrap() < 0.8, "{score:#}");
    assert_eq!(good["outcomes_steps_ahead"], 8);
    let (first, values) = past(deployment, 300).await.unwrap();
    for outcome in good["outcomes"].as_array().unwrap() {
        let at = usize::try_from(outcome["step"].as_u64().unwrap() - first).unwrap();
        let came = outcome["came"].as_f64().unwrap();
        assert!((came - values[at]).abs() < 1e-6, "{outcome:#}: {}", values[at]);
        assert!(outcome["said_p10"].as_f64().unwrap() <= outcome["said_p90"].as_f64().unwrap());
    }
    let name = "foreshard_forecast_past_relative_error_ratio";
    let labels = ["steps=\"8\"", "baseline=\"persistence\""];
    let told = metric(deployment, name, &labels).await.unwrap();
    assert!(told < 0.8, "{told}");
    assert_eq!(metric(deployment, "foreshard_forecast_trusted", &[]).await, Some(1.0));
    let reason = reason_of(&decided_by(deployment, "forecast").await);
    assert!(reason.contains("forecast"), "{reason}");
}

/// The load goes another way: this is noticed, said, counted, and decisions rest on persistence.
async fn assert_distrusted(deployment: &Deployment) {
    let distrusted = async || {
        let accuracy = accuracy(deployment).await;
        (accuracy["trusted"] == false).then_some(accuracy)
    };
    let bad = eventually("the forecast is not trusted", LIMIT, distrusted).await;
    assert!(bad["fallback"].as_str().unwrap().contains("persistence"), "{bad:#}");
    let fallen = async || {
        let fallbacks = metric(deployment, "foreshard_forecast_fallbacks_total", &[]).await;
        fallbacks.filter(|count| *count >= 1.0)
    };
    eventually("it is counted", LIMIT, fallen).await;
    assert_eq!(metric(deployment, "foreshard_forecast_trusted", &[]).await, Some(0.0));
    let log = std::fs::read_to_string(&deployment.log).unwrap();
    assert!(log.contains("it falls back to persistence"), "{log}");
    let reason = reason_of(&decided_by(deployment, "persistence").await);
    assert!(reason.contains("by persistence, as no forecast is trusted"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forecasts_are_scored_distrusted_when_they_are_bad_and_known_again_after_a_crash() {
    let deployment = Deployment::new(2).await;
    configure(&deployment, PLACEMENT, TIMES);
    learned(&deployment).await;
    let serving = deployment.serve().await;
    let started = tokio::time::Instant::now();
    deployment.load().await;
    let of_shard = [tenants(&deployment, SHARDS, 0).await];
    let sleepers = Sleepers::start_while(&deployment, &of_shard, is_on).await;
    assert_scored(&deployment).await;
    sleepers.stop().await;
    let sleepers = Sleepers::start(&deployment, &of_shard).await;
    assert_distrusted(&deployment).await;

    // Scores are stored each thirty seconds, the past each second.
    tokio::time::sleep_until(started + Duration::from_secs(33)).await;
    let resolved = async || {
        let accuracy = accuracy(&deployment).await;
        middle(&accuracy).and_then(|score| score["resolved"].as_u64())
    };
    let resolved_before = resolved().await.unwrap();
    let (first, before) = past(&deployment, 300).await.unwrap();
    sleepers.stop().await;
    serving.kill(&deployment).await;
    let serving = deployment.serve().await;
    let back = async || {
        let (_, values) = past(&deployment, 600).await?;
        (values.len() >= before.len()).then_some(())
    };
    eventually("the past is there again", LIMIT, back).await;
    let (first_again, again) = past(&deployment, 600).await.unwrap();
    let shift = usize::try_from(first - first_again).unwrap();
    // All but what came after the last write, and was filled.
    let kept = before.len() - 15;
    assert_eq!(again[shift..shift + kept], before[..kept]);
    let known = eventually("the scores are there again", LIMIT, resolved).await;
    assert!(known > 0 && known <= resolved_before + 100, "{known}, {resolved_before} before");
    serving.stop(&deployment).await;
}
