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
use super::inflow::{Budget, FewRows, Inflow};
use super::learned::Asked;
use super::merge_session::{COPY_HEADER, COPY_TRAILER, Described, MergeSession, drain};
use super::reduce::Question;
use super::run::{Cost, query_message};
use super::stand_in::explained;
use super::{Client, Fault, OpenPull, Session};
use crate::ids::{Epoch, NodeId};
use crate::load::Access;
use crate::planner::{self, PullInput, PullPlan};
use crate::router::{Params, Pull};
use crate::shard_map::ShardMap;
use crate::sql::asks_settings;
use crate::wire::{Bind, TransactionStatus, put_query};

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
    /// Whether the client gets the description of its columns.
    pub describe: bool,
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
    /// A statement around it takes them: DECLARE of a cursor, or EXPLAIN ANALYZE.
    Within,
}

impl PullRun<'_> {
    /// The statement with the queries of its views.
    pub(super) fn expanded_text(&self) -> &str {
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

impl BindFrames {
    /// Of this one.
    pub fn of(bind: &Bind<'_>) -> Self {
        let mut frames = Self::default();
        bind.put_unnamed(&mut frames.full);
        bind.put_part(&[], None, &mut frames.bare);
        frames
    }
}

/// A pull that is ready to be done.
pub(super) struct Prepared {
    pub(super) described: Described,
    pub(super) plan: PullPlan,
    /// The merge session sees nothing of the client's transaction.
    pub(super) all: bool,
}

/// What was brought together.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) plan: PullPlan,
    /// All rows of the plan's one input, if they are few: then they are in no table.
    pub(super) few: Option<FewRows>,
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
    /// Its transaction is begun, and is to be ended behind the last input.
    open: bool,
    bytes: u64,
}

impl Session {
    /// Runs a SELECT by a merge session, or by merging what the nodes give in its order. Leaves `ReadyForQuery` to the caller.
    pub async fn pull(&mut self, run: &PullRun<'_>, client: &mut Client) -> Result<(), Fault> {
        if self.run_sorted(run, client).await? {
            return Ok(());
        }
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
        let mut merge = MergeSession::begin(self).await?;
        let ending = self.pull_on(run, &mut merge, client).await;
        self.take_back(&mut merge, ending.as_ref().ok().copied()).await?;
        match ending {
            Ok(Ending::Done) => Ok(Some(OpenPull::new(merge))),
            Ok(Ending::Failed) => {
                self.fail();
                merge.end().await?;
                Ok(None)
            }
            // The request to cancel it may still be on its way: its connection goes.
            Ok(Ending::Late) => Err(too_slow(self.engine.config().pull_timeout()).into()),
            Err(fault) => {
                if merge.guard.status.is_some() {
                    merge.end().await?;
                }
                Err(fault)
            }
        }
    }

    async fn pull_on(
        &mut self,
        run: &PullRun<'_>,
        merge: &mut MergeSession,
        client: &mut Client,
    ) -> Result<Ending, Fault> {
        let limit = self.engine.config().pull_timeout();
        let deadline = Instant::now() + limit;
        // Nothing of this reaches the client, so that it may be cut off anywhere.
        let Ok(gathered) = timeout_at(deadline, Box::pin(self.bring_together(run, merge))).await
        else {
            self.exchange_back(merge);
            self.lose_busy();
            self.lose_unended();
            return Err(too_slow(limit).into());
        };
        let (described, gathered) = gathered?;
        if run.describe && run.mode != PullMode::Within {
            client.relay(&described.columns).await?;
        }
        finish_on(merge, (&gathered, run), (&*self.engine, deadline), client).await
    }

    /// What a pull would do; nothing of it is done.
    pub async fn plan_pull(&mut self, run: &PullRun<'_>) -> Result<PullPlan, Fault> {
        let mut merge = MergeSession::begin(self).await?;
        let prepared = self.prepare(run, &mut merge).await;
        self.take_back(&mut merge, prepared.as_ref().ok().map(|_| Ending::Done)).await?;
        merge.end().await?;
        Ok(prepared?.plan)
    }

    /// Plans, and brings the rows together in the merge session.
    async fn bring_together(
        &mut self,
        run: &PullRun<'_>,
        merge: &mut MergeSession,
    ) -> Result<(Described, Gathered), Fault> {
        let Prepared { described, mut plan, all } = self.prepare(run, merge).await?;
        let map = self.engine.live_map.snapshot();
        let few = self.gather(&plan, &map, all, merge).await?;
        Box::pin(self.give_modes(&mut plan, merge)).await?;
        if run.mode == PullMode::Within && !plan.has_params {
            let head = run.expanded_text().get(..run.start).unwrap_or_default();
            plan.text = format!("{head}{}", plan.text);
        }
        if run.pull.groups_rows && plan.has_params {
            merge.give_keys(&plan, run.params.types).await?;
        }
        Ok((described, Gathered { plan, few }))
    }

    /// Has the statement checked by PostgreSQL, and plans.
    async fn prepare(
        &mut self,
        run: &PullRun<'_>,
        merge: &mut MergeSession,
    ) -> Result<Prepared, Fault> {
        if self.has_redefined_for(&run.pull) {
            return self.prepare_redefined(run, merge).await;
        }
        let text = run.expanded_text();
        let map = self.engine.live_map.load();
        let (home, epoch) = (map.home(), map.epoch());
        drop(map);
        let home_is_pinned = self.held(home).is_some_and(|member| member.is_pinned());
        let all = self.in_transaction() || home_is_pinned;
        let temporary = self.may_have_temporary(home);
        let stand_ins = if temporary { self.stand_ins(home, run).await? } else { Vec::new() };
        // They may be others in another session.
        let asked = self.asked(run, epoch).filter(|_| stand_ins.is_empty());
        let mut keep = None;
        if let (Some(asked), Some(reduction)) = (asked, &run.pull.reduction) {
            match self.engine.learned.find(&asked) {
                Ok(learned) => {
                    if let Some(plan) = learned.plan(text, reduction, &run.params) {
                        return Ok(Prepared { described: learned.described.clone(), plan, all });
                    }
                }
                Err(generation) => keep = Some((asked, (generation, Instant::now()))),
            }
        }
        let statement = text.get(run.start..).unwrap_or_default();
        merge.make_stand_ins(&stand_ins).await?;
        let described = merge.describe(statement, run.params.types).await;
        let described = described.map_err(|fault| explained(fault, temporary))?;
        merge.check_functions(&run.pull.unknown_functions).await?;
        if let Some(expanded) = &run.pull.expanded {
            merge.check_views(run, expanded, &described).await?;
        }
        if let Some(reduction) = &run.pull.reduction {
            let question = Question {
                text,
                reduction,
                params: &run.params,
                described: &described,
                // What a cursor is declared for has no parameters.
                may_be_given: run.mode != PullMode::Within,
            };
            if let Some((plan, learned)) = merge.reduced(&question).await? {
                if let (Some(learned), Some((asked, at))) = (learned, keep) {
                    self.engine.learned.keep(asked, Arc::new(learned), at);
                }
                return Ok(Prepared { described, plan, all });
            }
        }
        let plan = planner::pull(text, &run.pull, &run.params, all);
        Ok(Prepared { described, plan, all })
    }

    /// What PostgreSQL is asked of the statement, if the answer may be kept: it rests on the
    /// definitions of tables alone.
    pub(super) fn asked(&self, run: &PullRun<'_>, epoch: Epoch) -> Option<Asked> {
        let (pull, begun) = (&run.pull, self.has_redefined_for(&run.pull));
        let alone = pull.expanded.is_none() && pull.unknown_functions.is_empty();
        let alone = alone && !asks_settings(run.text);
        (alone && !begun && run.start == 0 && run.mode != PullMode::Within).then(|| Asked {
            text: run.text.to_owned(),
            types: run.params.types.to_vec(),
            search_path: self.search_path.clone(),
            epoch,
        })
    }

    /// Brings the rows of all inputs together.
    async fn gather(
        &mut self,
        plan: &PullPlan,
        map: &ShardMap,
        all: bool,
        merge: &mut MergeSession,
    ) -> Result<Option<FewRows>, Fault> {
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
                if lane.open {
                    member.guard.send(&query_message("COMMIT")).await?;
                    drain(&mut member.guard, 1).await?;
                }
            }
            let shards = plan.inputs.iter().filter_map(|input| input.group);
            let shards = shards.flat_map(|group| map.shards_on(lane.node, group)).collect();
            let cost = Cost::of(shards, Access::Read);
            self.record(lane.node, &cost, started.elapsed(), lane.bytes);
        }
        gathered
    }

    /// Outside of a transaction block no connection stays in a transaction of the pull's own.
    fn lose_unended(&mut self) {
        if self.in_transaction() {
            return;
        }
        for node in self.nodes() {
            let status = self.held(node).and_then(|member| member.guard.status);
            if status != Some(TransactionStatus::Idle) {
                self.lose(node);
            }
        }
    }

    /// Asks every node for what it is to give whatever others have.
    async fn start(&mut self, lanes: &mut [Lane], plan: &PullPlan, all: bool) -> Result<(), Fault> {
        for lane in lanes.iter() {
            self.member(lane.node).await?;
        }
        for lane in lanes {
            let mut out = BytesMut::new();
            // In a transaction block it is the merge session that has the home node's own.
            if !all && !self.in_transaction() {
                put_query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", &mut out);
                (lane.before, lane.outstanding, lane.open) = (1, 1, true);
            }
            let of_lane = lane.inputs.clone();
            for input in of_lane.iter().map(|input| &plan.inputs[*input]) {
                if input.keys.is_none() {
                    put_copy(input, &mut out);
                    lane.outstanding += 1;
                }
            }
            if of_lane.iter().all(|input| plan.inputs[*input].keys.is_none()) {
                lane.end(&mut out);
            }
            self.member(lane.node).await?.send(&out).await?;
        }
        Ok(())
    }

    /// Asks for an input's rows with the values that another has by now: the input as it is asked for.
    async fn ask_with_keys(
        &mut self,
        index: usize,
        plan: &PullPlan,
        lanes: &mut [Lane],
        merge: &mut MergeSession,
    ) -> Result<Option<PullInput>, Fault> {
        let mut input = plan.inputs[index].clone();
        let Some(keys) = &input.keys else { return Ok(None) };
        let values = match plan.inputs.get(keys.of) {
            Some(other) => merge.values_of(&other.name, keys).await?,
            None => None,
        };
        if let Some(values) = values {
            input.select = input.select_with(keys, &values);
        }
        for lane in lanes.iter_mut().filter(|lane| lane.inputs.contains(&index)) {
            let mut out = BytesMut::new();
            put_copy(&input, &mut out);
            lane.outstanding += 1;
            if lane.inputs.last() == Some(&index) {
                lane.end(&mut out);
            }
            self.member(lane.node).await?.send(&out).await?;
        }
        Ok(Some(input))
    }

    /// Takes the inputs one after the other, each from its nodes one after the other; the others
    /// work meanwhile until their sockets are full.
    async fn take(
        &mut self,
        lanes: &mut [Lane],
        plan: &PullPlan,
        all: bool,
        merge: &mut MergeSession,
    ) -> Result<Option<FewRows>, Fault> {
        let home = self.engine.live_map.load().home();
        let mut budget = Budget::new(&self.engine.config());
        for lane in lanes.iter() {
            self.member(lane.node).await?;
        }
        let mut few = None;
        for (index, input) in plan.inputs.iter().enumerate() {
            let with_keys = self.ask_with_keys(index, plan, lanes, merge).await?;
            let input = with_keys.as_ref().unwrap_or(input);
            let own = !all && input.group.is_some();
            let from: SmallVec<[usize; 4]> =
                (0..lanes.len()).filter(|lane| lanes[*lane].inputs.contains(&index)).collect();
            let mut inflow = match Inflow::begin(merge, input, own).await {
                Ok(inflow) => inflow,
                Err(fault) => {
                    self.engine.forget_learned();
                    return Err(fault);
                }
            };
            if !from.is_empty() {
                debug_assert!(all || lanes.iter().all(|lane| lane.node != home));
                inflow.open().await?;
            }
            for lane in &from {
                let lane = &mut lanes[*lane];
                let member = self.member(lane.node).await?;
                let before = std::mem::take(&mut lane.before);
                drain(&mut member.guard, before).await?;
                lane.outstanding -= before;
                let to = (&mut inflow, input.binary);
                relay(lane, &mut member.guard, to, &mut budget).await?;
            }
            let (rows, kept) = inflow.close().await?;
            few = few.or(kept);
            if rows > MANY_ROWS && few.is_none() {
                if plan.inputs.len() > 1 {
                    merge.give_key(input).await?;
                }
                merge.analyze(&input.name).await?;
            }
        }
        Ok(few)
    }
}

impl Lane {
    /// Ends its transaction, if it has one of the pull's own.
    fn end(&mut self, out: &mut BytesMut) {
        if std::mem::take(&mut self.open) {
            put_query("COMMIT", out);
            self.outstanding += 1;
        }
    }
}

fn put_copy(input: &PullInput, out: &mut BytesMut) {
    let format = if input.binary { " (FORMAT binary)" } else { "" };
    put_query(&format!("COPY ({}) TO STDOUT{format}", input.select), out);
}

/// The nodes that have rows, with the inputs that they give.
fn lanes(plan: &PullPlan, map: &ShardMap, all: bool) -> Vec<Lane> {
    let gives = |node, input: &PullInput| match input.group {
        Some(group) => map.shards_on(node, group).next().is_some(),
        None => node == map.home(),
    };
    let lane = |node| {
        let inputs = (0..plan.inputs.len()).filter(|at| gives(node, &plan.inputs[*at])).collect();
        Lane { node, inputs, outstanding: 0, before: 0, open: false, bytes: 0 }
    };
    let nodes = map.nodes().map(|(node, _)| node).filter(|node| all || *node != map.home());
    nodes.map(lane).filter(|lane| !lane.inputs.is_empty()).collect()
}

/// Passes one node's rows of one input on.
async fn relay(
    lane: &mut Lane,
    node: &mut crate::backend::Connection,
    (inflow, binary): (&mut Inflow<'_>, bool),
    budget: &mut Budget,
) -> Result<(), Fault> {
    let (mut first, mut error) = (binary, None);
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
                lane.bytes += data.len() as u64;
                inflow.row(data).await?;
            }
            b'E' => error = error.or(Some(frame)),
            b'Z' => break,
            _ => {}
        }
    }
    lane.outstanding -= 1;
    error.map_or(Ok(()), |frame| Err(Fault::Reported(frame)))
}
