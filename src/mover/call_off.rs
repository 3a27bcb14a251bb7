//! Calling off a move or a job before its last step: who drives it sees the record and undoes what was
//! made.

use std::time::Duration;

use tokio::time::sleep;

use super::error::MoveError;
use super::request::RequestError;
use crate::catalog::{Catalog, CatalogError, Expect, Versioned, numbered};
use crate::ids::{JobId, MoveId};
use crate::shard_move::{Event, Job, Move, State};

/// How often a record is tried that its driver writes, too.
const TRIES: u32 = 40;
/// How long a switch is waited for that may be put off, between two of them.
const AGAIN: Duration = Duration::from_millis(100);

/// What is called off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderWay {
    /// A move, a split, a merge, or a way back that is being gone.
    Move(MoveId),
    /// What was asked for beside moves.
    Job(JobId),
}

impl std::fmt::Display for UnderWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Move(id) => write!(f, "move {id}"),
            Self::Job(id) => write!(f, "job {id}"),
        }
    }
}

/// Calls a move or a job off; what it has made is taken away by whoever drives it.
///
/// # Errors
/// It is not there, or beyond being called off.
pub async fn call_off(
    catalog: &Catalog,
    what: UnderWay,
    now_unix_ms: u64,
) -> Result<(), RequestError> {
    let mut result = Err(RequestError::NotUnderWay(what));
    for _ in 0..TRIES {
        result = match what {
            UnderWay::Move(id) => call_off_move(catalog, id, now_unix_ms).await,
            UnderWay::Job(id) => call_off_job(catalog, id).await,
        };
        match &result {
            Err(RequestError::Catalog(CatalogError::Conflict(_)) | RequestError::InLastStep(_)) => {
                sleep(AGAIN).await;
            }
            _ => return result,
        }
    }
    result
}

async fn call_off_move(
    catalog: &Catalog,
    id: MoveId,
    now_unix_ms: u64,
) -> Result<(), RequestError> {
    let what = UnderWay::Move(id);
    let beyond = |why| Err(RequestError::NotToCallOff { what, why });
    let found = catalog.get::<Move>(&numbered(id.0)).await?;
    let Some(Versioned { record, revision }) = found else {
        return Err(RequestError::NotUnderWay(what));
    };
    match record.state {
        State::Keeping => return beyond("only keeps old copies; foreshard move --confirm ends it"),
        State::Switching => return Err(RequestError::InLastStep(what)),
        State::Switched => return beyond("has switched; foreshard move --reverse goes back"),
        State::Undoing => return beyond("is being undone already"),
        _ if record.is_finished() => return beyond("is finished"),
        _ => {}
    }
    let error = MoveError::CalledOff.to_string();
    let called_off = record.on_event(Event::Failed { error }, now_unix_ms);
    let called_off = called_off.map_err(|_| RequestError::NotUnderWay(what))?;
    catalog.put(&called_off, Expect::At(revision)).await?;
    Ok(())
}

async fn call_off_job(catalog: &Catalog, id: JobId) -> Result<(), RequestError> {
    let what = UnderWay::Job(id);
    let Some(found) = catalog.get::<Job>(&numbered(id.0)).await? else {
        return Err(RequestError::NotUnderWay(what));
    };
    if found.record.is_finished() {
        return Err(RequestError::NotToCallOff { what, why: "is finished" });
    }
    let called_off = Job { called_off: true, ..found.record };
    catalog.put(&called_off, Expect::At(found.revision)).await?;
    Ok(())
}
