//! The end of a pull: the statement runs on the rows that were brought together, and the client gets
//! its answer.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, sleep_until};

use super::cancel::pass_on;
use super::merge_session::{MergeSession, names_stand_in, of_row_type};
use super::pull::{Gathered, PullMode, PullRun};
use super::pump::{Verdict, pump};
use super::run::query_message;
use super::{Client, Engine, Fault};
use crate::wire::{ServerError, SqlState, put_frame, put_parse};

/// What stands before the format codes of the result in a `Bind` of nothing: tag and length, the
/// unnamed portal and statement, no formats and no values.
const BARE_HEAD: usize = 5 + 2 + 2 + 2;

/// How the statement on the rows ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client has its answer.
    Done,
    /// The client was told of an error.
    Failed,
    /// It took too long, of which the client does not know yet.
    Late,
}

/// Runs the statement on the rows and relays its answer. At the deadline it is cancelled, never cut
/// off: the client gets whole messages only.
pub(super) async fn finish_on(
    merge: &mut MergeSession,
    (gathered, run): (&Gathered, &PullRun<'_>),
    (engine, deadline): (&Engine, Instant),
    client: &mut Client,
) -> Result<Ending, Fault> {
    merge.guard.send(&messages(gathered, run)).await?;
    let (mut ending, ended) = (Ending::Done, AtomicBool::new(false));
    let mut of_row = false;
    let (node, key) = (merge.guard.node, merge.guard.key);
    let late = async {
        sleep_until(deadline).await;
        if !ended.load(Ordering::Relaxed) {
            Box::pin(pass_on(engine, node, key)).await;
        }
    };
    let pumping = Box::pin(pump(&mut merge.guard, client, |tag, frame| match tag {
        b'D' | b'N' | b'H' | b'd' | b'c' => Verdict::Forward,
        b'E' | b'C' | b's' if Instant::now() >= deadline => {
            ending = Ending::Late;
            Verdict::Drop
        }
        b'E' | b'C' | b's' => {
            ended.store(true, Ordering::Relaxed);
            if tag == b'E' {
                ending = Ending::Failed;
                of_row = names_stand_in(frame);
            }
            if of_row { Verdict::Drop } else { Verdict::Forward }
        }
        b'Z' => Verdict::DropLast,
        _ => Verdict::Drop,
    }));
    until(pumping, late).await?;
    if of_row {
        client.put_error(&of_row_type());
    }
    Ok(ending)
}

/// Awaits `work`, and does `late` meanwhile.
async fn until<T>(work: impl Future<Output = T>, late: impl Future<Output = ()>) -> T {
    let (mut work, mut late) = (pin!(work), pin!(late));
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = &mut late => {}
    }
    work.await
}

/// The messages that run the statement on the rows.
fn messages(Gathered { plan, few }: &Gathered, run: &PullRun<'_>) -> BytesMut {
    let mut out = BytesMut::new();
    match (few, &run.bind) {
        (None, None) => return query_message(&plan.text),
        (None, Some(bind)) => {
            let types = if plan.has_params { run.params.types } else { &[] };
            put_parse(b"", plan.text.as_bytes(), types, &mut out);
            out.extend_from_slice(if plan.has_params { &bind.full } else { &bind.bare });
        }
        (Some(few), bind) => {
            let (text, types) = (few.in_place.text(few.rows), few.in_place.types(few.rows));
            put_parse(b"", text.as_bytes(), &types, &mut out);
            let bare = bind.as_ref().and_then(|bind| bind.bare.get(BARE_HEAD..));
            few.put_bind(bare.unwrap_or(&[0, 0]), &mut out);
        }
    }
    let limit = if let PullMode::First(limit) = run.mode { limit } else { 0 };
    put_frame(b'E', &mut out, |out| {
        out.extend_from_slice(b"\0");
        out.extend_from_slice(&limit.to_be_bytes());
    });
    put_frame(b'S', &mut out, |_| ());
    out
}

pub(super) fn too_slow(limit: Duration) -> ServerError {
    let message = format!("bringing rows of several nodes together took over {limit:?}");
    ServerError::new(SqlState::QUERY_CANCELED, message)
        .with_hint("Restrict the statement, or raise executor.pull_timeout_ms.")
}
