//! The past from Prometheus, at the first start: what other proxies, or this one before its data
//! folder was lost, have counted and Prometheus still has.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;

use crate::load::{self, FetchError, Ladder, Rates, ShardRates};

/// How long all of it may take.
const DEADLINE: Duration = Duration::from_mins(1);
/// Steps of one query: Prometheus gives no more than 11,000 points of a series.
const STEPS_MAX: u64 = 5_000;
/// Bytes of one answer.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// Shards and nodes with a higher number are not ours.
const INDEX_MAX: usize = 100_000;

/// Why there is no past from there.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    /// It does not answer.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It answers something else.
    #[error("Prometheus answered what can't be read: {0}")]
    Answer(#[from] serde_json::Error),
    /// It takes too long.
    #[error("Prometheus took longer than {} s", DEADLINE.as_secs())]
    Timeout,
}

#[derive(Debug, Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Debug, Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Debug, Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

impl Series {
    /// Its values by step, as far as they are asked for.
    fn steps(&self, wanted: Range<u64>, step_ms: u64) -> impl Iterator<Item = (u64, f64)> + '_ {
        let known = self.values.iter().filter_map(move |(at, value)| {
            Some((step_of(*at, step_ms)?, value.parse::<f64>().ok().filter(|v| v.is_finite())?))
        });
        known
            .filter(move |(step, _)| wanted.contains(step))
            .map(|(step, value)| (step, value.max(0.0)))
    }
}

/// Puts a value into its place in the rates of a step.
type Put = fn(&mut Rates, usize, f64);

/// What is asked for, and where it goes. `W` stands for the window.
const QUERIES: [(&str, &str, Put); 6] = [
    ("shard", "sum by (shard) (avg_over_time(foreshard_load_busy_ratio[W]))", |r, at, v| {
        shard(r, at).busy = v;
    }),
    (
        "shard",
        "sum by (shard) (rate(foreshard_load_statements_total{access=\"read\"}[W]))",
        |r, at, v| shard(r, at).reads = v,
    ),
    (
        "shard",
        "sum by (shard) (rate(foreshard_load_statements_total{access=\"write\"}[W]))",
        |r, at, v| shard(r, at).writes = v,
    ),
    ("shard", "sum by (shard) (rate(foreshard_load_rows_total[W]))", |r, at, v| {
        shard(r, at).rows = v;
    }),
    ("shard", "sum by (shard) (rate(foreshard_load_bytes_total[W]))", |r, at, v| {
        shard(r, at).bytes = v;
    }),
    ("node", "sum by (node) (avg_over_time(foreshard_load_node_busy_ratio[W]))", |r, at, v| {
        if r.nodes.len() <= at {
            r.nodes.resize(at + 1, 0.0);
        }
        r.nodes[at] = v;
    }),
];

fn shard(rates: &mut Rates, at: usize) -> &mut ShardRates {
    if rates.shards.len() <= at {
        rates.shards.resize(at + 1, ShardRates::default());
    }
    &mut rates.shards[at]
}

/// Fills a ladder that has no past yet with that of the last `steps` steps. How many there were.
///
/// # Errors
/// Nothing was imported.
pub(super) async fn import(
    ladder: &mut Ladder,
    url: &str,
    steps: usize,
    now_unix_ms: u64,
) -> Result<usize, ImportError> {
    let step_ms = ladder.base().step_ms();
    let end = now_unix_ms / step_ms;
    let first = end.saturating_sub(u64::try_from(steps).unwrap_or(u64::MAX));
    let found = timeout(DEADLINE, fetch(url, first..end, step_ms));
    let found = found.await.map_err(|_| ImportError::Timeout)??;
    for (step, rates) in &found {
        ladder.import(*step, rates);
    }
    Ok(found.len())
}

async fn fetch(
    url: &str,
    steps: Range<u64>,
    step_ms: u64,
) -> Result<BTreeMap<u64, Rates>, ImportError> {
    let mut found: BTreeMap<u64, Rates> = BTreeMap::new();
    let mut from = steps.start;
    while from < steps.end {
        let to = steps.end.min(from + STEPS_MAX);
        for (label, query, put) in QUERIES {
            let page =
                load::get(&range_url(url, query, from..to, step_ms), ANSWER_BYTES_MAX).await?;
            let answer: Answer = serde_json::from_str(&page)?;
            for series in answer.data.result {
                let index = series.metric.get(label).and_then(|index| index.parse().ok());
                let Some(index) = index.filter(|index: &usize| *index < INDEX_MAX) else {
                    continue;
                };
                for (step, value) in series.steps(from..to, step_ms) {
                    put(found.entry(step).or_default(), index, value);
                }
            }
        }
        from = to;
    }
    Ok(found)
}

/// The step that ends at a time in seconds.
fn step_of(at: f64, step_ms: u64) -> Option<u64> {
    let at = Duration::try_from_secs_f64(at).ok()?;
    let ms = u64::try_from(at.as_millis()).ok()?;
    // The times are those that were asked for, perhaps a little rounded.
    ((ms + step_ms / 2) / step_ms).checked_sub(1)
}

/// The URL of a query over steps, each value at the end of its step.
fn range_url(url: &str, query: &str, steps: Range<u64>, step_ms: u64) -> String {
    let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let window = format!("{}ms", step_ms.max(15_000));
    format!(
        "{}/api/v1/query_range?query={}&start={}&end={}&step={}",
        url.trim_end_matches('/'),
        escaped(&query.replace('W', &window)),
        seconds((steps.start + 1) * step_ms),
        seconds(steps.end * step_ms),
        seconds(step_ms)
    )
}

/// A text as a part of a URL's query.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            escaped.push(char::from(byte));
        } else if write!(escaped, "%{byte:02X}").is_err() {
            break;
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::{escaped, import};
    use crate::load::{Ladder, LadderPlan, Resolution};
    use crate::runtime::Tasks;

    /// Answers every query as Prometheus does: shard 1 is busy 0.5 in each step that is asked for.
    async fn serve(listener: TcpListener) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let part = |name: &str| {
                let (_, after) = request.split_once(name).unwrap();
                after.split(['&', ' ']).next().unwrap().parse::<f64>().unwrap()
            };
            let (mut at, end, step) = (part("start="), part("end="), part("&step="));
            let mut values = Vec::new();
            while at <= end {
                values.push(serde_json::json!([at, "0.5"]));
                at += step;
            }
            let label = if request.contains("by%20%28node") { "node" } else { "shard" };
            let busy = request.contains("busy_ratio") && request.contains("avg_over_time");
            let result = serde_json::json!([{ "metric": { label: "1" }, "values": values }]);
            let result = if busy { result } else { serde_json::json!([]) };
            let body = serde_json::json!({ "status": "success", "data": { "result": result } });
            let answer = format!("HTTP/1.0 200 OK\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    fn ladder() -> Ladder {
        Ladder::new(&LadderPlan {
            step_ms: 60_000,
            steps: 12_960,
            day_ms: 86_400_000,
            sample_ms: 5_000,
            samples_kept_ms: 3_600_000,
            ten_minutes_kept_ms: 864_000_000,
            hours_kept_ms: 864_000_000,
        })
    }

    #[tokio::test]
    async fn the_past_comes_from_prometheus_step_by_step() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let tasks = Tasks::new();
        let token = tasks.token().clone();
        tasks.spawn("prometheus", async move {
            tokio::select! {
                () = serve(listener) => {}
                () = token.cancelled() => {}
            }
        });
        let mut ladder = ladder();
        let now = 20_000 * 60_000 + 1_234;
        assert_eq!(import(&mut ladder, &url, 12_000, now).await.unwrap(), 12_000);
        assert_eq!((ladder.base().first_step(), ladder.base().end_step()), (8_000, 20_000));
        assert_eq!(ladder.base().shards()[1].busy, vec![0.5f32; 12_000]);
        assert_eq!(ladder.base().nodes()[1][7..8], [0.5]);
        let hours = ladder.of(Resolution::Hour).unwrap();
        assert_eq!(hours.shards()[1].busy.last(), Some(&0.5));
        assert!(hours.len() >= 199);
        tasks.stop(std::time::Duration::from_secs(1)).await;
        let error = import(&mut ladder, &url, 10, now).await.unwrap_err().to_string();
        assert!(error.contains("no answer"), "{error}");
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(escaped("a{b=\"c\"}[1m]"), "a%7Bb%3D%22c%22%7D%5B1m%5D");
    }
}
