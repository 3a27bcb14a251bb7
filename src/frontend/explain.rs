//! EXPLAIN of a statement that one node is not enough for: how the proxy would run it, and with ANALYZE
//! how each node and the merge session have run their parts.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::select::values;
use super::session::ClientSession;
use super::writes::{params_of, part, whole};
use crate::executor::{BindFrames, Bound, Cost, Fault, PullMode, PullRun, Spread, put_plan};
use crate::ids::ShardId;
use crate::load::Access;
use crate::planner::{self, ExplainedStep};
use crate::router::{Explained, Route};
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
        if describe {
            self.client.put(Reply::TextColumns(&["QUERY PLAN"]));
        }
        if let (true, Route::Write(shards)) = (explained.analyzes, &explained.route) {
            return self.analyze_write(&steps, shards, (text, bound)).await;
        }
        let head = text.get(..explained.start).unwrap_or_default();
        for step in &steps {
            self.client.put(Reply::TextRow(&step.line));
            if explained.analyzes {
                self.run_step(step, head, bound).await?;
            }
        }
        if let (true, true, Some(run)) = (explained.analyzes, merged, &run) {
            let pull =
                async |session: &mut Self| session.session.pull(run, &mut session.client).await;
            for row in self.capture(pull).await?.rows {
                put_plan(&mut self.client, "    ", values(&row)?);
            }
        }
        if explained.analyzes && !self.session.in_transaction() {
            self.session.finish().await?;
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

    /// Has the step's nodes run their part behind `head`, which is EXPLAIN ANALYZE, and shows their plans.
    async fn run_step(
        &mut self,
        step: &ExplainedStep,
        head: &str,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        let messages = whole(&format!("{head}{}", step.select), bound);
        for node in &step.nodes {
            let mut indent = "    ";
            if step.nodes.len() > 1 {
                let map = self.worker.engine.live_map.snapshot();
                self.client.put(Reply::TextRow(&format!("    On {}:", map.node(*node).name)));
                indent = "      ";
            }
            for row in self.session.rows_of(*node, &messages).await? {
                put_plan(&mut self.client, indent, row);
            }
        }
        Ok(())
    }

    /// Runs a write on its nodes, in one transaction, each behind EXPLAIN ANALYZE.
    async fn analyze_write(
        &mut self,
        steps: &[ExplainedStep],
        shards: &[ShardId],
        (text, bound): (&str, Option<&Bound<'_, '_>>),
    ) -> Result<(), Fault> {
        let map = self.worker.engine.live_map.snapshot();
        let (mut parts, mut lines) = (Vec::new(), Vec::new());
        for step in steps {
            let Some(node) = step.nodes.first() else {
                self.client.put(Reply::TextRow(&step.line));
                continue;
            };
            let mut cost = Cost::none(Access::Write);
            cost.shards = shards.iter().copied().filter(|at| map.node_of(*at) == *node).collect();
            parts.push(part(*node, cost, whole(text, bound)));
            lines.push(step.line.clone());
        }
        let spread = Spread { parts, describe: false, at_once: false };
        self.session.run_analyzed(&spread, &lines, &mut self.client).await
    }
}
