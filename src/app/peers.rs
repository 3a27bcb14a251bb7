//! What proxies of one catalog get from each other's admin API: the one that leads adds up what all
//! have counted, and the others copy its past, to go on with it when they lead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::sleep;

use super::http::{AdminClient, HttpError};
use super::terminal::story;
use crate::admin::Share;
use crate::catalog::{CatalogError, Expect, Kv, Lead, Op, Page, REPLICATED};
use crate::cluster::Presence;
use crate::executor::Engine;
use crate::load::Snapshot;
use crate::runtime::{Tasks, now_unix_ms};

/// How long before a sample of the load is taken the others are asked.
const AHEAD_MS: u64 = 400;
/// How often the past is copied.
const COPIES: Duration = Duration::from_secs(20);

/// The admin API at an address.
fn admin_at(place: &str) -> Result<AdminClient, HttpError> {
    AdminClient::new(&format!("http://{place}"))
}

/// Adds what the other proxies that serve have counted to what this one counts, while it leads, until
/// the tasks end. What one of them counted before this one asked it first is nobody's.
pub(super) async fn add_up(engine: Arc<Engine>, interval_ms: u64, tasks: Tasks) {
    if engine.cluster.mirror().is_none() {
        return;
    }
    let mut before: BTreeMap<String, Snapshot> = BTreeMap::new();
    let mut silent = BTreeSet::new();
    loop {
        let now = now_unix_ms() + AHEAD_MS;
        let wait = interval_ms - now % interval_ms.max(1);
        tokio::select! {
            () = tasks.token().cancelled() => return,
            () = sleep(Duration::from_millis(wait)) => {}
        }
        if !engine.cluster.leads() {
            before.clear();
            continue;
        }
        let others = engine.cluster.serving_elsewhere();
        before.retain(|id, _| others.iter().any(|(_, presence)| presence.id == *id));
        for (_, other) in others {
            match share_of(&other).await {
                Ok(share) => {
                    silent.remove(&other.id);
                    if let Some(then) = before.get(&other.id) {
                        engine.counters.add(then, &share.counted);
                        engine.samples.add(share.samples);
                    }
                    before.insert(other.id, share.counted);
                }
                Err(error) => {
                    metrics::counter!("foreshard_cluster_uncounted_total").increment(1);
                    if silent.insert(other.id.clone()) {
                        let (proxy, error) = (other.host, story(&error));
                        tracing::warn!(proxy, error, "what a proxy serves is not counted");
                    }
                }
            }
        }
    }
}

async fn share_of(other: &Presence) -> Result<Share, HttpError> {
    let admin = admin_at(&other.reached_at(&other.admin))?;
    let share = admin.post("/api/v1/load/share", &serde_json::json!({})).await?;
    serde_json::from_value(share).map_err(|error| HttpError::Refused(error.to_string()))
}

/// Why the past was not copied.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("the answer of the proxy that leads can't be read")]
    Answer,
}

/// Copies the past of whoever leads to this process's own store, until this one leads or the tasks end.
pub(super) async fn copy_past(lead: Lead, local: Arc<dyn Kv>, tasks: Tasks) {
    // Of whom, and until which commit.
    let mut copied: Option<(String, u64)> = None;
    let mut failing = false;
    loop {
        tokio::select! {
            () = tasks.token().cancelled() => return,
            () = sleep(COPIES) => {}
        }
        if lead.leads() {
            return;
        }
        let outcome = async {
            let Some(leader) = lead.other_leader().await? else { return Ok(()) };
            if leader.admin.is_empty() {
                return Ok(());
            }
            let of = format!("{} {}", leader.id, leader.since_unix_ms);
            let after = copied.as_ref().filter(|(known, _)| *known == of).map_or(0, |it| it.1);
            let there = Presence { host: leader.host, ..Presence::default() };
            let admin = admin_at(&there.reached_at(&leader.admin))?;
            let newest = copy(&admin, &*local, after, || lead.leads()).await?;
            if after == 0 && newest.is_some() {
                tracing::info!(of = leader.id, "the past is copied from now on");
            }
            copied = newest.map(|newest| (of, newest));
            Ok::<_, CopyError>(())
        };
        match outcome.await {
            Ok(()) => failing = false,
            Err(error) if !std::mem::replace(&mut failing, true) => {
                let error = story(&error);
                tracing::warn!(error, "the past of the proxy that leads is not copied");
            }
            Err(_) => {}
        }
    }
}

/// Copies what has changed after a commit; until which one. `None` if this process leads meanwhile: then
/// it writes there itself.
async fn copy(
    admin: &AdminClient,
    local: &dyn Kv,
    after: u64,
    leads: impl Fn() -> bool,
) -> Result<Option<u64>, CopyError> {
    let (mut from, mut newest, mut seen) = (String::new(), None, BTreeSet::new());
    loop {
        let path = format!("/api/v1/past?after={after}&from={from}");
        let page: Page =
            serde_json::from_value(admin.get(&path).await?).map_err(|_| CopyError::Answer)?;
        // The first page was the oldest look.
        let until = *newest.get_or_insert(page.newest);
        let mut ops = Vec::new();
        for (key, value) in page.entries {
            if !REPLICATED.iter().any(|prefix| key.starts_with(prefix)) {
                return Err(CopyError::Answer);
            }
            let value = value.map(|value| STANDARD.decode(value)).transpose();
            let value = value.map_err(|_| CopyError::Answer)?;
            seen.insert(key.clone());
            ops.push(Op { key, value, expect: Expect::Anything });
        }
        if leads() {
            return Ok(None);
        }
        if !ops.is_empty() {
            local.commit(ops).await?;
        }
        match page.next {
            Some(next) => from = next,
            None if page.whole => {
                for prefix in REPLICATED {
                    let known = local.range(prefix).await?.into_iter().map(|entry| entry.key);
                    let gone = known.filter(|key| !seen.contains(key));
                    let delete = |key| Op { key, value: None, expect: Expect::Anything };
                    let ops: Vec<Op> = gone.map(delete).collect();
                    if !ops.is_empty() && !leads() {
                        local.commit(ops).await?;
                    }
                }
                return Ok(Some(until));
            }
            None => return Ok(Some(until)),
        }
    }
}
