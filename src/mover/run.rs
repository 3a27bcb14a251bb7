//! The loop over the stored moves, and what must happen before the proxy serves.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;
use tracing::Instrument;

use super::context::{MoverContext, now_unix_ms};
use super::drive::drive;
use super::error::MoveError;
use super::open::OpenMoves;
use super::recall;
use super::switch::{self, Switched};
use crate::catalog::{Expect, Versioned};
use crate::ids::{MoveId, ShardId};
use crate::runtime::Tasks;
use crate::shard_move::{Event, Move, State};

/// How long the catalog is left alone after it failed.
const CATALOG_RETRY: Duration = Duration::from_secs(1);

/// Takes up every unfinished move, new or left by a crash, until the tasks are stopped; then leaves
/// each at a stored state.
pub async fn run(context: Arc<MoverContext>, tasks: Tasks) {
    let stopping = tasks.token().clone();
    let mut commits = context.catalog.watch::<Move>();
    let (mut open, mut under_way) = (OpenMoves::default(), HashSet::new());
    let mut drivers = FuturesUnordered::new();
    loop {
        commits.mark_unchanged();
        let wanted = match open.look(&context.catalog).await {
            Ok(moves) => moves,
            Err(error) => {
                tracing::error!(%error, "the stored moves can't be read");
                if timeout(CATALOG_RETRY, stopping.cancelled()).await.is_ok() {
                    break;
                }
                continue;
            }
        };
        wanted.iter().for_each(|mv| context.saw(mv.record.id));
        // A move that only has to tidy up makes room: it may wait long for a node that is down.
        let tidies =
            |mv: &Move| matches!(mv.state, State::Keeping | State::Switched | State::Undoing);
        let at_work =
            |mv: &&Versioned<Move>| under_way.contains(&mv.record.id) && !tidies(&mv.record);
        let mut room = context
            .config()
            .concurrent_moves
            .max(1)
            .saturating_sub(wanted.iter().filter(at_work).count());
        let aside: Vec<_> = wanted.iter().filter(|mv| mv.record.is_aside()).cloned().collect();
        for mv in wanted {
            let (id, is_new) = (mv.record.id, mv.record.state == State::Requested);
            if under_way.contains(&id) || (is_new && room == 0) {
                continue;
            }
            if is_new && make_way(&context, &aside, &mv).await {
                continue;
            }
            if !tidies(&mv.record) {
                room = room.saturating_sub(1);
            }
            under_way.insert(id);
            drivers.push(tasks.spawn("move", driven(Arc::clone(&context), mv, tasks.clone())));
        }
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(ended) = drivers.next() => match ended {
                Ok((id, Ok(()) | Err(MoveError::Stopped))) => {
                    under_way.remove(&id);
                }
                Ok((_, Err(error))) => {
                    tracing::error!(error = error.story(), "the mover ends");
                    return;
                }
                Err(error) => tracing::error!(%error, "the task of a move ended"),
            },
            changed = commits.changed() => {
                if changed.is_err() {
                    break;
                }
            }
        }
    }
    while drivers.next().await.is_some() {}
}

/// Ends what keeps old copies of the shards of `wanted`. Whether one of them is not gone yet: then it
/// has to wait.
async fn make_way(
    context: &MoverContext,
    aside: &[Versioned<Move>],
    wanted: &Versioned<Move>,
) -> bool {
    let of_wanted = |mv: &Move| {
        let touches = |shard| mv.touches(shard);
        let mut lanes = wanted.record.lanes.iter();
        lanes.any(|lane| touches(lane.source.shard) || touches(lane.target.shard))
    };
    let mut waits = false;
    for mv in aside.iter().filter(|mv| of_wanted(&mv.record)) {
        waits = true;
        tell_waiting(context, wanted, mv.record.id).await;
        let reason = format!("move {} was asked for", wanted.record.id);
        if let Err(error) = recall::let_lapse(&context.catalog, mv, reason).await {
            tracing::warn!(error = error.story(), "old copies could not be given up");
        }
    }
    waits
}

/// Says in the record why a move does not begin, if it does not say so yet.
async fn tell_waiting(context: &MoverContext, wanted: &Versioned<Move>, kept: MoveId) {
    let error = format!("it waits until the old copies that move {kept} keeps are taken away");
    if wanted.record.trouble.as_ref() == Some(&error) {
        return;
    }
    let told = wanted.record.clone().on_event(Event::Troubled { error }, now_unix_ms());
    let Ok(told) = told else { return };
    if let Err(error) = context.catalog.put(&told, Expect::At(wanted.revision)).await {
        tracing::info!(%error, "why a move waits was not stored");
    }
}

async fn driven(
    context: Arc<MoverContext>,
    mv: Versioned<Move>,
    tasks: Tasks,
) -> (MoveId, Result<(), MoveError>) {
    let Move { id, shard, from, to, .. } = mv.record;
    let span = tracing::info_span!("move", %id, %shard, %from, %to);
    let result = Box::pin(drive(&context, mv, tasks.token())).instrument(span).await;
    (id, result)
}

/// Finishes or undoes every switch that a crash cut off. To be called before the listener opens.
/// A shard whose nodes can't be asked in time stays behind its closed gate until [`run`] has asked
/// them: those shards are the answer.
pub async fn recover_before_serving(context: &MoverContext) -> Result<Vec<ShardId>, MoveError> {
    let mut unsettled = Vec::new();
    for mv in OpenMoves::default().look(&context.catalog).await? {
        if mv.record.state != State::Switching {
            continue;
        }
        let shards: Vec<_> = mv.record.sources().iter().map(|source| source.shard).collect();
        drop(context.hold_all(&mv.record));
        let deadline = Duration::from_millis(context.config().recovery_deadline_ms);
        let recovered = timeout(deadline, recover(context, &mv)).await;
        match recovered.unwrap_or(Err(MoveError::Timeout("settling a switch that was cut off"))) {
            Ok(()) => {
                context.release_all(&mv.record);
            }
            Err(error) if error.ends_the_driver() => return Err(error),
            Err(error) => {
                let error = error.story();
                tracing::error!(error, id = %mv.record.id, "who owns the shard is not known yet");
                // What the process that has ended closed elsewhere opens soon.
                context.close_elsewhere(&shards).await?;
                unsettled.extend(shards);
            }
        }
    }
    Ok(unsettled)
}

async fn recover(context: &MoverContext, mv: &Versioned<Move>) -> Result<(), MoveError> {
    let reason = "the proxy ended in the middle of the switch".to_owned();
    match Box::pin(switch::resume(context, mv, reason)).await? {
        Switched::Yes(stored, _) => {
            tracing::info!(id = %stored.record.id, "switch finished at the start");
        }
        Switched::Later(event) | Switched::Undone(event) => {
            let undone = mv.record.clone().on_event(event, now_unix_ms())?;
            context.catalog.put(&undone, Expect::At(mv.revision)).await?;
            tracing::info!(id = %mv.record.id, "switch undone at the start");
        }
    }
    Ok(())
}
