//! Keeps the old copies current after a switch, until somebody goes back or nobody may any more.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::apply::Applier;
use super::catch_up::care;
use super::context::{MoverContext, now_unix_ms};
use super::error::MoveError;
use crate::catalog::{Catalog, Record, Versioned, numbered};
use crate::shard_move::{Event, Move};

/// How it goes on.
pub(super) enum Kept {
    /// To be stored.
    Event(Event),
    /// Somebody else has written the record.
    Changed,
}

/// Waits until the move that is reversed has released the old copies; an answer if it is not to be
/// waited for.
pub(super) async fn wait_for_release(
    context: &MoverContext,
    mv: &Versioned<Move>,
) -> Result<Option<Kept>, MoveError> {
    let Some(reversed) = mv.record.reverses else { return Ok(None) };
    let released = async {
        let mut commits = context.catalog.watch::<Move>();
        let key = numbered(reversed.id.0);
        loop {
            commits.mark_unchanged();
            let found = context.catalog.get::<Move>(&key).await?;
            if found.is_none_or(|found| found.record.is_finished()) {
                return Ok(());
            }
            next(&mut commits).await?;
        }
    };
    tokio::select! {
        released = released => released.map(|()| None),
        end = end(context, mv) => end.map(Some),
    }
}

/// Applies the streams until there is an answer.
pub(super) async fn keep(
    context: &MoverContext,
    mv: &Versioned<Move>,
    appliers: &mut [Applier<'_>],
) -> Result<Kept, MoveError> {
    let ended = CancellationToken::new();
    let end = async {
        let kept = end(context, mv).await;
        ended.cancel();
        kept
    };
    let (kept, ()) = tokio::try_join!(end, care(appliers, || ended.cancelled()))?;
    Ok(kept)
}

/// Waits until the old copies are not to be kept any longer, or the record was changed.
async fn end(context: &MoverContext, mv: &Versioned<Move>) -> Result<Kept, MoveError> {
    let left_ms = mv.record.kept_until_unix_ms.unwrap_or_default().saturating_sub(now_unix_ms());
    let lapsed = |reason: &str| Ok(Kept::Event(Event::Lapsed { reason: reason.to_owned() }));
    tokio::select! {
        () = sleep(Duration::from_millis(left_ms)) => lapsed("its time was over"),
        () = context.ddl_lock.wanted() => lapsed("a definition was changed"),
        changed = changed(&context.catalog, mv) => changed.map(|()| Kept::Changed),
    }
}

/// Waits until somebody else has written the record.
pub(super) async fn changed(catalog: &Catalog, mv: &Versioned<Move>) -> Result<(), MoveError> {
    let mut commits = catalog.watch::<Move>();
    loop {
        commits.mark_unchanged();
        let found = catalog.get::<Move>(&mv.record.id()).await?;
        if found.is_none_or(|found| found.revision != mv.revision) {
            return Ok(());
        }
        next(&mut commits).await?;
    }
}

async fn next(commits: &mut watch::Receiver<()>) -> Result<(), MoveError> {
    commits.changed().await.map_err(|_| MoveError::Stopped)
}
