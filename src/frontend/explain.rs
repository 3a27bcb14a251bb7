//! EXPLAIN of a statement that one node is not enough for: how the proxy would run it, and with ANALYZE
//! how each node and the merge session have run their parts.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::select::values;
use super::session::ClientSession;
use super::writes::{of_fragment, params_of, part, whole};
use crate::executor::{BindFrames, Bound, Cost, Fault, PullMode, PullRun, Spread};
use crate::ids::{NodeId, ShardId};
use crate::load::Access;
use crate::planner::{self, ExplainedStep, StepPlan};
use crate::router::{Explained, InsertRows, Route};
use crate::sql::PlanForm;
use crate::wire::Reply;

impl ClientSession {
    /// Tells how a statement runs; with ANALYZE it does. Leaves `ReadyForQuery` to the caller.
    pub(super) fn explain<'a, 'b: 'a>(
        &'a mut self,
        explained: &'a Explained,
        of: (&'a str, Option<&'a Bound<'a, 'b>>),
        describe: bool,
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(self.explain_it(explained, of, describe))
    }

    async fn explain_it(
        &mut self,
        explained: &Explained,
        (text, bound): (&str, Option<&Bound<'_, '_>>),
        describe: bool,
    ) -> Result<(), Fault> {
        let run = match &explained.route {
            Route::Pull(pull) => Some(PullRun {
                pull: Arc::clone(pull),
                text,
                start: explained.start,
                params: params_of(bound),
                bind: bound.map(|bound| BindFrames::of(bound.bind)),
                describe: false,
                mode: PullMode::Within,
            }),
            _ => None,
        };
        let (steps, merged) = self.steps_of(explained, text, run.as_ref()).await?;
        let mut shown = match &explained.route {
            Route::Write(shards) if explained.analyzes => {
                self.analyze_write(steps, shards, (text, bound)).await?
            }
            Route::Insert(rows, shards) if explained.analyzes => {
                self.analyze_rows(steps, (rows, shards), bound).await?
            }
            _ => {
                let head = text.get(..explained.start).unwrap_or_default();
                let head = explained.asks_nodes().then_some(head);
                self.plans_of(steps, head, bound).await?
            }
        };
        if let (true, true, Some(run), Some(last)) =
            (explained.analyzes, merged, &run, shown.last_mut())
        {
            let pull =
                async |session: &mut Self| session.session.pull(run, &mut session.client).await;
            let mut plan = Vec::new();
            for row in self.capture(pull).await?.rows {
                plan.extend(values(&row)?.into_iter().flatten());
            }
            last.plans.push((String::new(), plan));
        }
        if explained.asks_nodes() && !self.session.in_transaction() {
            self.session.finish().await?;
        }
        if describe {
            let oid = match explained.form {
                PlanForm::Json => 114,
                PlanForm::Xml => 142,
                _ => 25,
            };
            self.client.put(Reply::Column("QUERY PLAN", oid));
        }
        for row in planner::explained(&shown, explained.form) {
            self.client.put(Reply::TextRow(&row));
        }
        self.client.put(Reply::CommandComplete("EXPLAIN"));
        Ok(())
    }

    /// The steps, and whether rows are brought together behind them.
    async fn steps_of(
        &mut self,
        explained: &Explained,
        text: &str,
        run: Option<&PullRun<'_>>,
    ) -> Result<(Vec<ExplainedStep>, bool), Fault> {
        let map = self.worker.engine.live_map.snapshot();
        let Some(run) = run else { return Ok((planner::explain(text, explained, &map), false)) };
        if let Some(select) = self.session.explain_sorted(run).await? {
            return Ok((planner::explain_sorted(&select, &run.pull, &map), false));
        }
        let plan = self.session.plan_pull(run).await?;
        Ok((planner::explain_pull(&plan, explained.start, &map), true))
    }

    /// Has the steps' nodes run their parts behind `head`, which is EXPLAIN with its options; nobody, if it is
    /// none.
    async fn plans_of(
        &mut self,
        steps: Vec<ExplainedStep>,
        head: Option<&str>,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<Vec<StepPlan>, Fault> {
        let mut shown = Vec::with_capacity(steps.len());
        for step in steps {
            let mut plans = Vec::new();
            if let Some(head) = head {
                let messages = whole(&format!("{head}{}", step.select), bound);
                for node in &step.nodes {
                    let plan = self.session.lines_of(*node, &messages).await?;
                    plans.push((self.name_of(*node), plan));
                }
            }
            shown.push(StepPlan { line: step.line, plans });
        }
        Ok(shown)
    }

    /// Runs a write on its nodes, in one transaction, each behind EXPLAIN ANALYZE.
    async fn analyze_write(
        &mut self,
        steps: Vec<ExplainedStep>,
        shards: &[ShardId],
        (text, bound): (&str, Option<&Bound<'_, '_>>),
    ) -> Result<Vec<StepPlan>, Fault> {
        let map = self.worker.engine.live_map.snapshot();
        let nodes = steps.iter().filter_map(|step| step.nodes.first());
        let part = |node: &NodeId| {
            let mut cost = Cost::none(Access::Write);
            cost.shards = shards.iter().copied().filter(|at| map.node_of(*at) == *node).collect();
            part(*node, cost, whole(text, bound))
        };
        let spread = Spread { parts: nodes.map(part).collect(), describe: false, at_once: false };
        let plans = self.session.run_analyzed(&spread, &mut self.client).await?;
        let mut plans = plans.into_iter();
        let shown = steps.into_iter().map(|step| {
            let node = step.nodes.first().map(|node| self.name_of(*node));
            let plan = node.and_then(|node| Some((node, plans.next()?)));
            StepPlan { line: step.line, plans: plan.into_iter().collect() }
        });
        Ok(shown.collect())
    }

    /// The same of an INSERT, each node its rows.
    async fn analyze_rows(
        &mut self,
        steps: Vec<ExplainedStep>,
        (rows, shards): (&InsertRows, &[ShardId]),
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<Vec<StepPlan>, Fault> {
        let fragments = planner::insert(rows, shards, &self.worker.engine.live_map.snapshot());
        self.check_leaves(rows, &fragments).await?;
        let parts = fragments.into_iter().map(|fragment| of_fragment(fragment, bound)).collect();
        let spread = Spread { parts, describe: false, at_once: false };
        let plans = self.session.run_analyzed(&spread, &mut self.client).await?;
        let plans = spread.parts.iter().zip(plans);
        let mut plans = plans.map(|(part, plan)| vec![(self.name_of(part.node), plan)]);
        let shown = steps.into_iter().enumerate().map(|(at, step)| {
            let plans = if at > 0 { plans.next() } else { None };
            StepPlan { line: step.line, plans: plans.unwrap_or_default() }
        });
        Ok(shown.collect())
    }

    fn name_of(&self, node: NodeId) -> String {
        self.worker.engine.live_map.snapshot().node(node).name.clone()
    }
}
