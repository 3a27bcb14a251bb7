//! From one stored stage to the next, up to the last step: what is there is not made again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::super::copy::copy_rest;
use super::super::error::MoveError;
use super::super::jobs::unless;
use super::super::lane::{Sessions, streams};
use super::super::position;
use super::super::prepare::{LEAF_LOCK, publish};
use super::super::room::shown;
use super::super::session::jitter;
use super::{Plan, Resharder, move_id, swap, twins};
use crate::ids::NodeId;
use crate::shard_map::ShardMap;
use crate::shard_move::{Cause, Move, MovedTable, Object, ObjectKind, Resharding, Stage};

/// How long definitions under way may take.
const DDL: Duration = Duration::from_mins(1);

impl Resharder<'_, '_> {
    /// From the check to the new map. What fails and may pass is tried again from its stage.
    pub(super) async fn bring(&mut self) -> Result<(), MoveError> {
        let lock = self.desk.engine.ddl_lock.clone();
        let busy = || MoveError::Busy("a definition is being changed".to_owned());
        let _no_ddl = timeout(DDL, lock.shared()).await.map_err(|_| busy())?;
        let config = self.desk.context.config();
        let (mut failures, mut failed_at, mut reason) = (0, None, String::new());
        loop {
            let Err(error) = Box::pin(self.go_on()).await else { return Ok(()) };
            let done = self.is_done(&self.desk.context.live_map.snapshot());
            if done || !error.is_passing() || error.ends_the_driver() {
                return Err(error);
            }
            failures = if self.stage() == failed_at { failures + 1 } else { 1 };
            failed_at = self.stage();
            if failures > config.failures_max {
                return Err(error);
            }
            let why = error.story();
            tracing::warn!(error = why, failures, "a change of the shard key is in trouble");
            if why != reason {
                drop(self.desk.tell(format!("waiting: {why}")).await);
                reason = why;
            }
            self.desk.rest(jitter(config.backoff(config.switch_backoff_ms, failures))).await?;
            if let MoveError::Anew(_) = error {
                self.start_anew().await?;
            }
        }
    }

    fn stage(&self) -> Option<Stage> {
        self.desk.job.record.resharding.as_ref().map(|resharding| resharding.stage)
    }

    pub(super) fn is_verified(&self) -> bool {
        self.desk.job.record.resharding.as_ref().is_some_and(|resharding| resharding.verified)
    }

    /// All that is left to do, once.
    async fn go_on(&mut self) -> Result<(), MoveError> {
        self.wait_for_moves().await?;
        let map = self.desk.context.live_map.snapshot();
        let plan = if let Some(plan) = self.begun(&map).await? {
            plan
        } else {
            if self.stage().is_some() {
                self.start_anew().await?;
            }
            let plan = self.plan(&map).await?;
            self.begin(&plan).await?;
            plan
        };
        let called_off = self.desk.called_off.clone();
        Box::pin(unless(&called_off, self.fill(&plan))).await?;
        self.follow(&plan).await
    }

    /// What an earlier try or process has begun, if that can be gone on with: the map and the tables are
    /// what they were.
    async fn begun(&self, map: &ShardMap) -> Result<Option<Plan>, MoveError> {
        let Some(begun) = self.desk.job.record.resharding.as_deref() else { return Ok(None) };
        match self.as_begun(map, begun.clone()).await {
            // The check before it begins anew says what is in the way.
            Err(MoveError::Refused(why)) => {
                tracing::info!(why, "what was begun can't be gone on with");
                Ok(None)
            }
            found => found,
        }
    }

    async fn as_begun(&self, map: &ShardMap, begun: Resharding) -> Result<Option<Plan>, MoveError> {
        let Resharding { members, sources, targets, shapes, .. } = begun;
        let asked = self.desk.job.record.requested_unix_ms;
        let bare = Move::of_lanes(move_id(self.job()), Vec::new(), Cause::Operator, asked);
        let mut plan = Plan { mv: bare, members, sources, targets, tables: Vec::new(), shapes };
        if self.next(&plan, map).is_none() {
            return Ok(None);
        }
        let mut sessions = BTreeMap::new();
        for node in &plan.members {
            sessions.insert(*node, self.desk.session(*node).await?);
        }
        plan.tables = self.existing(map, &sessions).await?;
        for (session, shape) in sessions.values().zip(&plan.shapes) {
            if swap::shape(session, &plan.tables).await? != *shape {
                return Ok(None);
            }
        }
        let parts = (plan.sources.as_slice(), plan.targets.as_slice());
        let lanes = self.lanes(map, &sessions, parts, &plan.tables).await?;
        plan.mv = Move::of_lanes(plan.mv.id, lanes, Cause::Operator, asked);
        plan.mv.job = Some(self.job());
        Ok(Some(plan))
    }

    /// A partition of which only the change of the key logs whole rows, as it was before.
    pub(super) fn as_before(&self, node: NodeId, table: MovedTable) -> MovedTable {
        let object = Object { node, kind: ObjectKind::FullIdentity(table.leaf.clone()) };
        if table.identity == "f" && self.desk.job.record.objects.contains(&object) {
            return MovedTable { identity: "d".to_owned(), whole_row_identity: true, ..table };
        }
        table
    }

    /// Stores what is going to be made, and which partitions without a primary key are going to log whole
    /// rows.
    async fn begin(&mut self, plan: &Plan) -> Result<(), MoveError> {
        let mut objects: Vec<Object> = Vec::new();
        for lane in &plan.mv.lanes {
            for table in lane.tables.iter().filter(|table| table.whole_row_identity) {
                let kind = ObjectKind::FullIdentity(table.leaf.clone());
                let object = Object { node: lane.source.node, kind };
                if !objects.contains(&object) {
                    objects.push(object);
                }
            }
        }
        let mut job = self.desk.job.record.clone();
        job.objects = objects;
        job.resharding = Some(Box::new(Resharding {
            stage: Stage::Making,
            members: plan.members.clone(),
            sources: plan.sources.clone(),
            targets: plan.targets.clone(),
            shapes: plan.shapes.clone(),
            verified: false,
            error: None,
        }));
        self.desk.store(job).await
    }

    /// Stores how far it is, with a step for the job's user.
    pub(super) async fn store(
        &mut self,
        step: String,
        change: impl FnOnce(&mut Resharding),
    ) -> Result<(), MoveError> {
        let mut job = self.desk.job.record.clone();
        if let Some(resharding) = &mut job.resharding {
            change(resharding);
        }
        if !step.is_empty() {
            tracing::info!(step, "job goes on");
            job.steps.push(step);
        }
        self.desk.store(job).await
    }

    /// Takes away what was made, and forgets it.
    async fn start_anew(&mut self) -> Result<(), MoveError> {
        self.desk.tell("it begins anew".to_owned()).await?;
        self.undo().await?;
        self.forget().await
    }

    /// Nothing that was made is left.
    pub(super) async fn forget(&mut self) -> Result<(), MoveError> {
        let mut job = self.desk.job.record.clone();
        job.resharding = None;
        self.desk.store(job).await
    }

    /// Twins, slots, the copies of all rows, and what is built on them, as far as it is not there.
    async fn fill(&mut self, plan: &Plan) -> Result<(), MoveError> {
        let context = self.desk.context;
        for node in &plan.members {
            // One of an earlier try may be about to commit a segment.
            let session = self.desk.session(*node).await?;
            session.end_earlier_sessions(&plan.mv).await?;
        }
        if self.stage() == Some(Stage::Making) {
            self.make(plan).await?;
            self.store(String::new(), |it| it.stage = Stage::Copying).await?;
        }
        if self.stage() == Some(Stage::Copying) {
            let rows = self.copy(plan).await?;
            context.pass("reshard_copied")?;
            let text = format!("{rows} rows are copied; what was written since follows");
            self.store(text, |it| it.stage = Stage::Building).await?;
        }
        if self.stage() == Some(Stage::Building) {
            twins::build(context, plan, self.job()).await?;
            context.pass("reshard_built")?;
            self.store(String::new(), |it| it.stage = Stage::Following).await?;
        }
        Ok(())
    }

    /// Empty twins, replica identities, publications. There is no slot yet that would miss one.
    async fn make(&mut self, plan: &Plan) -> Result<(), MoveError> {
        let context = self.desk.context;
        twins::make(context, plan, self.job()).await?;
        context.pass("reshard_made")?;
        let sessions = Sessions::open(context, &plan.mv).await?;
        for node in plan.mv.nodes() {
            let session = sessions.on(node)?;
            session.run("making the position table", position::CREATE_TABLE).await?;
        }
        for object in &self.desk.job.record.objects {
            let ObjectKind::FullIdentity(leaf) = &object.kind else { continue };
            let sql = format!("ALTER TABLE {leaf} REPLICA IDENTITY FULL");
            let session = sessions.on(object.node)?;
            session.run_with_locks("setting the replica identity", &sql, LEAF_LOCK).await?;
        }
        for stream in streams(&plan.mv) {
            publish(sessions.on(stream.from())?, &stream).await?;
        }
        context.pass("reshard_published")
    }

    /// The rows that are not copied yet; how many all of them are.
    async fn copy(&mut self, plan: &Plan) -> Result<u64, MoveError> {
        let context = self.desk.context;
        context.progress.forget(plan.mv.id);
        let mut rows = 0;
        for stream in streams(&plan.mv) {
            let (copied, bytes) = copy_rest(context, &stream).await?;
            rows += copied;
            let names = [stream.from(), stream.to()]
                .map(|node| context.address(node).map(|it| it.name.clone()));
            let [from, to] = names;
            let text = format!("{copied} rows ({}) from {} to {}", shown(bytes), from?, to?);
            if !self.desk.job.record.steps.contains(&text) {
                self.desk.tell(text).await?;
            }
        }
        Ok(rows)
    }

    /// Undoes what was made, as often as it takes: a node that is away is waited for. What comes of the
    /// job then.
    pub(super) async fn give_up(&mut self, error: MoveError) -> MoveError {
        let began = self.stage().is_some();
        let text = error.confidential_story();
        let config = self.desk.context.config();
        let (mut tries, mut reason) = (0, String::new());
        loop {
            let undone = self.undo_all(&text).await;
            let Err(trouble) = undone else { return error };
            if trouble.ends_the_driver() {
                return trouble;
            }
            if !began || !trouble.is_passing() {
                self.not_undone(&trouble).await;
                return error;
            }
            tries += 1;
            let why = trouble.story();
            if why != reason {
                let text = format!("{}; it is undone as soon as it can be: {why}", error.story());
                drop(self.desk.tell(text).await);
                reason = why;
            }
            sleep(jitter(config.backoff(config.switch_backoff_ms, tries))).await;
        }
    }

    async fn undo_all(&mut self, error: &str) -> Result<(), MoveError> {
        if self.stage().is_some_and(|stage| stage != Stage::Undoing) {
            let undoing = |it: &mut Resharding| {
                it.stage = Stage::Undoing;
                it.error = Some(error.to_owned());
            };
            self.store(String::new(), undoing).await?;
        }
        self.undo().await?;
        self.set_on_the_way(Vec::new()).await?;
        self.forget().await
    }
}
