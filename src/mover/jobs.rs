//! The loop over the stored jobs: what an operator asks for beside moves.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::audit;
use super::context::{MoverContext, now_unix_ms};
use super::error::MoveError;
use super::session::Session;
use super::{drain, import, join, reshard};
use crate::catalog::{Catalog, CatalogError, Change, Expect, Record, Versioned, numbered};
use crate::executor::Engine;
use crate::ids::{JobId, NodeId};
use crate::placement;
use crate::runtime::Tasks;
use crate::shard_move::{Errand, Job};

/// How long the catalog is left alone after it failed.
const CATALOG_RETRY: Duration = Duration::from_secs(1);
/// How many finished jobs are kept.
const KEPT: usize = 100;
/// How often a job looks whether it is its turn.
const TURN: Duration = Duration::from_millis(200);
/// How often the next free id is looked for.
const TRIES: u32 = 20;

/// Writes the record of a job; [`run_jobs`] takes it up.
pub async fn request_job(
    catalog: &Catalog,
    errand: Errand,
    now_unix_ms: u64,
) -> Result<JobId, CatalogError> {
    let mut conflict = CatalogError::Conflict("jobs/".to_owned());
    for _ in 0..TRIES {
        let jobs = catalog.list::<Job>().await?;
        let id = JobId(jobs.last().map_or(1, |last| last.record.id.0 + 1));
        let job = Job::requested(id, errand.clone(), now_unix_ms);
        // Old ones go: what they found was told.
        let finished = jobs.iter().filter(|job| job.record.is_finished());
        let mut change = Change::new().put(&job, Expect::Absent)?;
        for old in finished.rev().skip(KEPT) {
            change = change.delete(&old.record, Expect::At(old.revision));
        }
        match catalog.commit(change).await {
            Ok(_) => return Ok(id),
            Err(error @ CatalogError::Conflict(_)) => conflict = error,
            Err(error) => return Err(error),
        }
    }
    Err(conflict)
}

/// What jobs work with.
#[derive(Debug, Clone)]
pub struct JobParts {
    /// What moves work with.
    pub context: Arc<MoverContext>,
    /// Locks, and commits in two phases.
    pub engine: Arc<Engine>,
    /// What each node can bear, as the policy says now.
    pub placement: Arc<ArcSwap<placement::Config>>,
}

/// Takes up every unfinished job, new or left by a crash, until the tasks are stopped. A job that is
/// stopped begins anew at the next start.
pub async fn run_jobs(parts: JobParts, tasks: Tasks) {
    let context = Arc::clone(&parts.context);
    let stopping = tasks.token().clone();
    let mut commits = context.catalog.watch::<Job>();
    let mut under_way = HashSet::new();
    let mut workers = FuturesUnordered::new();
    loop {
        commits.mark_unchanged();
        match context.catalog.list::<Job>().await {
            Ok(jobs) => {
                let new = |job: &Versioned<Job>| {
                    !job.record.is_finished() && !under_way.contains(&job.record.id)
                };
                for job in jobs.into_iter().filter(new).collect::<Vec<_>>() {
                    under_way.insert(job.record.id);
                    let work = worked(parts.clone(), job, tasks.clone());
                    workers.push(tasks.spawn("job", work));
                }
            }
            Err(error) => {
                tracing::error!(%error, "the stored jobs can't be read");
                if timeout(CATALOG_RETRY, stopping.cancelled()).await.is_ok() {
                    break;
                }
                continue;
            }
        }
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(ended) = workers.next() => match ended {
                Ok(id) => drop(under_way.remove(&id)),
                Err(error) => tracing::error!(%error, "the task of a job ended"),
            },
            changed = commits.changed() => {
                if changed.is_err() {
                    break;
                }
            }
        }
    }
    while workers.next().await.is_some() {}
}

async fn worked(parts: JobParts, job: Versioned<Job>, tasks: Tasks) -> JobId {
    let id = job.record.id;
    let span = tracing::info_span!("job", %id, errand = job.record.errand.word());
    let JobParts { context, engine, placement } = parts;
    let placement = placement::Config::clone(&placement.load());
    let called_off = CancellationToken::new();
    let desk = Desk { context: &context, engine, placement, job, called_off: called_off.clone() };
    let work = Box::pin(desk.work()).instrument(span);
    tokio::pin!(work);
    tokio::select! {
        () = tasks.token().cancelled() => {}
        () = &mut work => {}
        () = until_called_off(&context, id) => {
            called_off.cancel();
            tokio::select! {
                () = tasks.token().cancelled() => {}
                () = work => {}
            }
        }
    }
    id
}

/// Waits until nobody wants the job any more.
async fn until_called_off(context: &MoverContext, id: JobId) {
    let mut commits = context.catalog.watch::<Job>();
    loop {
        commits.mark_unchanged();
        let found = context.catalog.get::<Job>(&numbered(id.0)).await;
        if found.is_ok_and(|found| found.is_some_and(|it| it.record.called_off)) {
            return;
        }
        if commits.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Does work that can be dropped anywhere, but no longer than until the job is called off.
pub(super) async fn unless<T>(
    called_off: &CancellationToken,
    work: impl Future<Output = Result<T, MoveError>>,
) -> Result<T, MoveError> {
    tokio::select! {
        biased;
        () = called_off.cancelled() => Err(MoveError::CalledOff),
        done = work => done,
    }
}

/// One job at work.
pub(super) struct Desk<'a> {
    pub(super) context: &'a MoverContext,
    pub(super) engine: Arc<Engine>,
    pub(super) placement: placement::Config,
    pub(super) job: Versioned<Job>,
    /// Once nobody wants the job any more.
    pub(super) called_off: CancellationToken,
}

impl Desk<'_> {
    async fn work(mut self) {
        tracing::info!("job begins");
        if self.job.record.called_off {
            self.called_off.cancel();
        }
        let result = match self.job.record.errand.clone() {
            Errand::Verify { shards } => audit::audit(&mut self, &shards).await,
            Errand::AddNode { node } => Box::pin(join::join(&mut self, node)).await,
            Errand::DrainNode { node } => drain::drain(&mut self, node).await,
            Errand::Import(wanted) => Box::pin(import::import(&mut self, &wanted)).await,
            Errand::Reshard(wanted) => Box::pin(reshard::reshard(&mut self, &wanted)).await,
        };
        let error = result.err();
        tracing::info!(error = error.as_ref().map(MoveError::story), "job ends");
        let error = error.map(|error| error.confidential_story());
        let finished = self.job.record.clone().finished(error, now_unix_ms());
        if let Err(error) = self.store(finished).await {
            tracing::error!(error = error.story(), "the end of a job was not stored");
        }
    }

    /// Stores how far the job is. Nobody else writes its record but to call it off.
    pub(super) async fn store(&mut self, mut job: Job) -> Result<(), MoveError> {
        let catalog = &self.context.catalog;
        let revision = loop {
            match catalog.put(&job, Expect::At(self.job.revision)).await {
                Ok(revision) => break revision,
                Err(error @ CatalogError::Conflict(_)) => {
                    let stored = catalog.get::<Job>(&job.id()).await?;
                    let Some(stored) = stored.filter(|it| it.revision != self.job.revision) else {
                        return Err(error.into());
                    };
                    job.called_off = stored.record.called_off;
                    self.job.revision = stored.revision;
                }
                Err(error) => return Err(error.into()),
            }
        };
        self.job = Versioned { record: job, revision };
        Ok(())
    }

    /// Rests for a while, unless the job is called off.
    pub(super) async fn rest(&self, time: Duration) -> Result<(), MoveError> {
        unless(&self.called_off, async {
            sleep(time).await;
            Ok(())
        })
        .await
    }

    /// Stores another step, for the job's user.
    pub(super) async fn tell(&mut self, step: String) -> Result<(), MoveError> {
        tracing::info!(step, "job goes on");
        let mut job = self.job.record.clone();
        job.steps.push(step);
        self.store(job).await
    }

    /// One after the other: waits until no import or change of a shard key that was asked for before is
    /// at work.
    pub(super) async fn wait_turn(&self) -> Result<(), MoveError> {
        loop {
            let jobs = self.context.catalog.list::<Job>().await?;
            let earlier = |job: &Job| {
                let changes = match &job.errand {
                    Errand::Import(it) | Errand::Reshard(it) => !it.check_only,
                    _ => false,
                };
                changes && !job.is_finished() && job.id < self.job.record.id
            };
            if !jobs.iter().any(|job| earlier(&job.record)) {
                return Ok(());
            }
            self.rest(TURN).await?;
        }
    }

    /// A connection of the job.
    pub(super) async fn session(&self, node: NodeId) -> Result<Session, MoveError> {
        Session::open_as(self.context, self.session_name(), node).await
    }

    /// The name of the job's sessions.
    pub(super) fn session_name(&self) -> String {
        format!("foreshard job {}", self.job.record.id)
    }
}
