//! A SELECT that the merge session runs: the nodes' rows are streamed into temporary tables of it,
//! then it runs the client's statement on them.
//!
//! Outside of a transaction block each node gives its rows in one snapshot, and the home node's own
//! rows, home and reference tables are read where they are. Inside of one every table is read by the
//! client's own transaction on each node, so that it sees what it has written.

use std::sync::Arc;

use bytes::BytesMut;
use smallvec::SmallVec;
use tokio::time::{Instant, timeout_at};

use super::finish::{Ending, finish_on, too_slow};
use super::merge_session::{
    COPY_HEADER, COPY_TRAILER, Described, MergeSession, drain, is_unknown_table,
};
use super::reduce::Question;
use super::run::Cost;
use super::{Client, Fault, OpenPull, Session};
use crate::ids::NodeId;
use crate::load::Access;
use crate::planner::{self, PullInput, PullPlan};
use crate::router::{Params, Pull};
use crate::shard_map::ShardMap;
use crate::wire::{ServerError, SqlState, put_frame, put_query};

/// Rows for the merge session are sent once they are this many bytes.
const ROWS_BYTES: usize = 64 * 1024;
/// Tables with more rows than this get statistics before the statement runs, and an index where they
/// may be joined.
const MANY_ROWS: u64 = 500;

/// One SELECT to be pulled.
#[derive(Debug)]
pub struct PullRun<'a> {
    /// What it reads.
    pub pull: Arc<Pull>,
    /// The statement as the client wrote it.
    pub text: &'a str,
    /// Where it starts in the text.
    pub start: usize,
    /// Its parameters.
    pub params: Params<'a>,
    /// In the extended protocol its `Bind`; without it, results are text and described.
    pub bind: Option<BindFrames>,
    /// What is done with its rows.
    pub mode: PullMode,
}

/// What a pull does with the rows of its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullMode {
    /// The client gets all.
    All,
    /// It gets so many, the others later.
    First(i32),
    /// They are those of a cursor, which the statement declares.
    Declare,
}

impl PullRun<'_> {
    /// The statement with the queries of its views.
    fn expanded_text(&self) -> &str {
        self.pull.expanded.as_ref().map_or(self.text, |expanded| &expanded.text)
    }
}

/// A `Bind` of the unnamed statement as frames.
#[derive(Debug, Default)]
pub struct BindFrames {
    /// As it is.
    pub full: BytesMut,
    /// Without its parameters.
    pub bare: BytesMut,
}

/// A pull that is ready to be done.
struct Prepared {
    described: Described,
    plan: PullPlan,
    /// The merge session sees nothing of the client's transaction.
    all: bool,
}

/// One node's part.
#[derive(Debug)]
struct Lane {
    node: NodeId,
    /// The inputs that it gives rows of, by index.
    inputs: SmallVec<[usize; 4]>,
    /// Commands whose end it has not told yet.
    outstanding: usize,
    /// Commands to be ended before the next input's.
    before: usize,
    bytes: u64,
}

impl Session {
    /// Runs a SELECT by a merge session. Leaves `ReadyForQuery` to the caller.
    pub async fn pull(&mut self, run: &PullRun<'_>, client: &mut Client) -> Result<(), Fault> {
        if let Some(open) = self.open_pull(run, client).await? {
            open.end().await?;
        }
        if self.in_transaction() { Ok(()) } else { self.finish().await }
    }

    /// The same, but what it leaves open lives on: the other rows, or a cursor. `None` if it failed
    /// and the client was told.
    pub async fn open_pull(
        &mut self,
        run: &PullRun<'_>,
        client: &mut Client,
    ) -> Result<Option<OpenPull>, Fault> {
        self.check_definitions()?;
        let limit = self.engine.config.pull_timeout();
        let deadline = Instant::now() + limit;
        let mut merge = MergeSession::begin(self).await?;
        // Nothing of this reaches the client, so that it may be cut off anywhere.
        let Ok(gathered) = timeout_at(deadline, self.bring_together(run, &mut merge)).await else {
            self.lose_busy();
            return Err(too_slow(limit).into());
        };
        let (described, plan) = match gathered {
            Ok(gathered) => gathered,
            Err(fault) => {
                if merge.guard.status.is_some() {
                    merge.end().await?;
                }
                return Err(fault);
            }
        };
        if run.bind.is_none() && run.mode != PullMode::Declare {
            client.relay(&described.columns).await?;
        }
        match finish_on(&mut merge, (&plan, run), (&*self.engine, deadline), client).await? {
            Ending::Done => Ok(Some(OpenPull::new(merge))),
            Ending::Failed => {
                self.fail();
                merge.end().await?;
                Ok(None)
            }
            // The request to cancel it may still be on its way: its connection goes.
            Ending::Late => Err(too_slow(limit).into()),
        }
    }

    /// The merge session would wait for the locks of definitions that are not committed, or not know
    /// them.
    fn check_definitions(&self) -> Result<(), ServerError> {
        if self.transaction.ddl.is_none() {
            return Ok(());
        }
        Err(ServerError::refused(
            "rows of several nodes can't be brought together after definitions in a transaction",
            "Another connection merges them, to which the definitions are not visible yet.",
            "Commit the definitions first.",
        ))
    }

    /// What a pull would do; nothing of it is done.
    pub async fn plan_pull(&mut self, run: &PullRun<'_>) -> Result<PullPlan, Fault> {
        self.check_definitions()?;
        let mut merge = MergeSession::begin(self).await?;
        let prepared = self.prepare(run, &mut merge).await;
        merge.end().await?;
        Ok(prepared?.plan)
    }

    /// Plans, and brings the rows together in the merge session.
    async fn bring_together(
        &mut self,
        run: &PullRun<'_>,
        merge: &mut MergeSession,
    ) -> Result<(Described, PullPlan), Fault> {
        let Prepared { described, mut plan, all } = self.prepare(run, merge).await?;
        let map = self.engine.live_map.snapshot();
        self.gather(&plan, &map, all, merge).await?;
        if run.mode == PullMode::Declare && !plan.has_params {
            let head = run.expanded_text().get(..run.start).unwrap_or_default();
            plan.text = format!("{head}{}", plan.text);
        }
        if run.pull.groups_rows && plan.has_params {
            merge.give_keys(&plan, run.params.types).await?;
        }
        Ok((described, plan))
    }

    /// Has the statement checked by PostgreSQL, and plans.
    async fn prepare(
        &mut self,
        run: &PullRun<'_>,
        merge: &mut MergeSession,
    ) -> Result<Prepared, Fault> {
        let text = run.expanded_text();
        let statement = text.get(run.start..).unwrap_or_default();
        let home = self.engine.live_map.load().home();
        let home_is_pinned = self.held(home).is_some_and(|member| member.is_pinned());
        let described = match merge.describe(statement, run.params.types).await {
            Err(Fault::Reported(frame)) if home_is_pinned && is_unknown_table(&frame) => {
                return Err(ServerError::refused(
                    "a temporary table can't be used beside rows of several nodes",
                    "Another connection brings them together, to which it is not visible.",
                    "Use an ordinary table.",
                )
                .into());
            }
            described => described?,
        };
        merge.check_functions(&run.pull.unknown_functions).await?;
        if let Some(expanded) = &run.pull.expanded {
            merge.check_views(run, expanded, &described).await?;
        }
        let all = self.in_transaction() || home_is_pinned;
        if let Some(reduction) = &run.pull.reduction {
            let question = Question {
                text,
                reduction,
                params: &run.params,
                param_types: &described.param_types,
                columns: &described.columns,
            };
            if let Some(plan) = merge.reduced(&question).await? {
                return Ok(Prepared { described, plan, all });
            }
        }
        let plan = planner::pull(text, &run.pull, &run.params, all);
        Ok(Prepared { described, plan, all })
    }

    /// Brings the rows of all inputs together.
    async fn gather(
        &mut self,
        plan: &PullPlan,
        map: &ShardMap,
        all: bool,
        merge: &mut MergeSession,
    ) -> Result<(), Fault> {
        let mut lanes = lanes(plan, map, all);
        let started = Instant::now();
        self.start(&mut lanes, plan, all).await?;
        let gathered = self.take(&mut lanes, plan, all, merge).await;
        let over_limit = matches!(&gathered, Err(Fault::Refused(_)));
        for lane in &lanes {
            if over_limit && lane.outstanding > 0 {
                self.lose(lane.node);
            } else if let Some(member) = self.held(lane.node) {
                drain(&mut member.guard, lane.outstanding).await?;
            }
            let shards = plan.inputs.iter().filter_map(|input| input.group);
            let shards = shards.flat_map(|group| map.shards_on(lane.node, group)).collect();
            let cost = Cost { shards, access: Access::Read };
            self.record(lane.node, &cost, started.elapsed(), lane.bytes);
        }
        gathered
    }

    /// Asks every node for all that it is to give.
    async fn start(&mut self, lanes: &mut [Lane], plan: &PullPlan, all: bool) -> Result<(), Fault> {
        for lane in lanes.iter() {
            self.member(lane.node).await?;
        }
        for lane in lanes {
            let mut out = BytesMut::new();
            if !all {
                put_query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", &mut out);
                (lane.before, lane.outstanding) = (1, 2);
            }
            for input in &lane.inputs {
                let input = &plan.inputs[*input];
                let format = if input.binary { " (FORMAT binary)" } else { "" };
                put_query(&format!("COPY ({}) TO STDOUT{format}", input.select), &mut out);
                lane.outstanding += 1;
            }
            if !all {
                put_query("COMMIT", &mut out);
            }
            self.member(lane.node).await?.send(&out).await?;
        }
        Ok(())
    }

    /// Takes the inputs one after the other, each from its nodes one after the other; the others
    /// work meanwhile until their sockets are full.
    async fn take(
        &mut self,
        lanes: &mut [Lane],
        plan: &PullPlan,
        all: bool,
        merge: &mut MergeSession,
    ) -> Result<(), Fault> {
        let home = self.engine.live_map.load().home();
        let mut budget = Budget::new(&self.engine.config);
        for lane in lanes.iter() {
            self.member(lane.node).await?;
        }
        for (index, input) in plan.inputs.iter().enumerate() {
            let fill = !all && input.group.is_some();
            match (input.is_made, fill) {
                (false, _) => merge.make(&input.name, &input.select, fill).await?,
                (true, true) => merge.fill(&input.name, &input.select).await?,
                (true, false) => {}
            }
            let from: SmallVec<[usize; 4]> =
                (0..lanes.len()).filter(|lane| lanes[*lane].inputs.contains(&index)).collect();
            if from.is_empty() {
                continue;
            }
            debug_assert!(all || lanes.iter().all(|lane| lane.node != home));
            merge.start_copy(&input.name, input.binary).await?;
            let mut rows = 0;
            for lane in from {
                let lane = &mut lanes[lane];
                let member = self.member(lane.node).await?;
                let before = std::mem::take(&mut lane.before);
                drain(&mut member.guard, before).await?;
                lane.outstanding -= before;
                rows += relay(lane, &mut member.guard, merge, input.binary, &mut budget).await?;
            }
            merge.end_copy(input.binary).await?;
            if rows > MANY_ROWS {
                if plan.inputs.len() > 1 {
                    merge.give_key(input).await?;
                }
                merge.analyze(&input.name).await?;
            }
        }
        Ok(())
    }
}

/// The nodes that have rows, with the inputs that they give.
fn lanes(plan: &PullPlan, map: &ShardMap, all: bool) -> Vec<Lane> {
    let gives = |node, input: &PullInput| match input.group {
        Some(group) => map.shards_on(node, group).next().is_some(),
        None => node == map.home(),
    };
    let lane = |node| {
        let inputs = (0..plan.inputs.len()).filter(|at| gives(node, &plan.inputs[*at])).collect();
        Lane { node, inputs, outstanding: 0, before: 0, bytes: 0 }
    };
    let nodes = map.nodes().map(|(node, _)| node).filter(|node| all || *node != map.home());
    nodes.map(lane).filter(|lane| !lane.inputs.is_empty()).collect()
}

/// What is left of the limits.
struct Budget {
    rows: u64,
    bytes: u64,
    config: super::Config,
}

impl Budget {
    fn new(config: &super::Config) -> Self {
        Self { rows: config.pull_rows_max, bytes: config.pull_bytes_max, config: config.clone() }
    }

    fn spend(&mut self, bytes: u64) -> Result<(), ServerError> {
        match (self.rows.checked_sub(1), self.bytes.checked_sub(bytes)) {
            (Some(rows), Some(bytes)) => {
                (self.rows, self.bytes) = (rows, bytes);
                Ok(())
            }
            _ => Err(ServerError::new(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                "the statement would bring too many rows of several nodes together",
            )
            .with_detail(format!(
                "The limits are {} rows and {} bytes a statement.",
                self.config.pull_rows_max, self.config.pull_bytes_max
            ))
            .with_hint(
                "Restrict each table by WHERE, bind the shard key, or raise executor.pull_rows_max \
                 and executor.pull_bytes_max.",
            )),
        }
    }
}

/// Passes one node's rows of one input on; how many.
async fn relay(
    lane: &mut Lane,
    node: &mut crate::backend::Connection,
    merge: &mut MergeSession,
    binary: bool,
    budget: &mut Budget,
) -> Result<u64, Fault> {
    let mut out = BytesMut::new();
    let (mut rows, mut first, mut error) = (0, binary, None);
    loop {
        let (tag, frame) = node.frame().await?;
        match tag {
            b'd' => {
                let mut data = frame.get(5..).unwrap_or_default();
                if std::mem::take(&mut first) {
                    data = data.get(COPY_HEADER.len()..).unwrap_or_default();
                }
                if data.is_empty() || binary && data == COPY_TRAILER {
                    continue;
                }
                budget.spend(data.len() as u64)?;
                rows += 1;
                lane.bytes += data.len() as u64;
                put_frame(b'd', &mut out, |out| out.extend_from_slice(data));
                if out.len() >= ROWS_BYTES {
                    merge.guard.send_more(&out).await?;
                    out.clear();
                }
            }
            b'E' => error = error.or(Some(frame)),
            b'Z' => break,
            _ => {}
        }
    }
    lane.outstanding -= 1;
    if let Some(frame) = error {
        return Err(Fault::Reported(frame));
    }
    merge.guard.send_more(&out).await?;
    Ok(rows)
}
