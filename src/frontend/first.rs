//! A write of which parts run first: each is run like any statement, its rows are put in its place,
//! and the statement is routed anew, until it can run. All of it is one transaction.

use std::sync::Arc;

use super::capture::Answer;
use super::select::{described_columns, types_of, values};
use super::session::ClientSession;
use super::simple::Way;
use super::writes::{params_of, part, whole};
use crate::executor::{Bound, Cost, Fault, Spread};
use crate::ids::NodeId;
use crate::load::Access;
use crate::planner::{self, given_list, given_rows, obstacles, replaced, table_rows};
use crate::router::{Before, First, Once, Route};
use crate::sql::{Early, EarlyUse, EarlyWith, Verb};
use crate::wire::{ServerError, SqlState};

/// How many parts may run before a statement.
const STEPS_MAX: usize = 64;
/// How deep such statements may stand in parts of others.
const DEPTH_MAX: usize = 4;
/// The most rows of a part: they become part of the statement.
const ROWS_MAX: usize = 100_000;

/// Rows as SQL.
struct Given {
    names: Vec<String>,
    kinds: Vec<String>,
    rows: Vec<String>,
}

impl ClientSession {
    /// Runs a statement after parts of it; leaves `ReadyForQuery` to the caller.
    pub(super) async fn run_first(
        &mut self,
        first: &Arc<First>,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        let types = self.types_in(&first.text, bound).await?;
        let typed = bound.map(|bound| Bound { types: &types, bind: bound.bind });
        let tag = match first.verb {
            Verb::Select => "SELECT",
            Verb::Insert => "INSERT 0",
            Verb::Update => "UPDATE",
            Verb::Delete => "DELETE",
            Verb::Merge => "MERGE",
        };
        if self.steps_deep >= DEPTH_MAX {
            return Err(first.refusal.clone().into());
        }
        self.steps_deep += 1;
        let work = async |session: &mut Self| session.run_steps(first, typed.as_ref()).await;
        let ran = self.in_one_block(tag, work).await;
        self.steps_deep -= 1;
        ran
    }

    async fn run_steps(
        &mut self,
        first: &Arc<First>,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<u64, Fault> {
        let mut first = Arc::clone(first);
        for _ in 0..STEPS_MAX {
            if let Some(upsert) = &first.upsert {
                return Box::pin(self.upsert(upsert, bound)).await;
            }
            if let Some(once) = &first.once {
                let answer = Box::pin(self.run_once(&first, once, bound)).await?;
                return self.hand_on(&answer, bound.is_none()).await;
            }
            let text = Box::pin(self.step(&first, bound)).await?;
            let template = self.template(&text);
            let answer = match self.way(&text, params_of(bound), template).await? {
                (Way::Steps(Route::First(next)), _) if next.text != first.text => {
                    first = next;
                    continue;
                }
                (Way::Steps(Route::First(_)), _) => return Err(first.refusal.clone().into()),
                _ if first.verb == Verb::Select => {
                    Box::pin(self.fetch_as(&text, bound, None)).await?
                }
                _ => {
                    let run =
                        async |session: &mut Self| Box::pin(session.rewritten(&text, bound)).await;
                    Box::pin(self.capture(run)).await?
                }
            };
            return self.hand_on(&answer, bound.is_none()).await;
        }
        Err(first.refusal.clone().into())
    }

    /// Runs the statement on every node, if it does the same on each.
    async fn run_once(
        &mut self,
        first: &First,
        once: &Once,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<Answer, Fault> {
        let map = self.worker.engine.live_map.snapshot();
        // The first that writers of reference tables come to.
        let other = map.members().map(|(node, _)| node).find(|node| *node != map.home());
        let node = other.unwrap_or(map.home());
        let at_node = |text: &str| {
            let cost = Cost::none(Access::Write);
            let parts = vec![part(node, cost, whole(text, bound))];
            Spread { parts, describe: true, at_once: true }
        };
        let [lock, unsure] = planner::once(&first.text, once);
        self.captured(&at_node(&lock)).await?;
        if !self.captured(&at_node(&unsure)).await?.rows.is_empty() {
            return Err(first.refusal.clone().into());
        }
        let messages = whole(&first.text, bound);
        let describe = bound.is_none();
        let run = async |session: &mut Self| {
            let run = session.session.run_on_every_node(&messages, describe, &mut session.client);
            run.await
        };
        self.capture(run).await
    }

    async fn hand_on(&mut self, answer: &Answer, describe: bool) -> Result<u64, Fault> {
        if let Some(columns) = answer.columns.as_ref().filter(|_| describe) {
            self.client.relay(columns).await?;
        }
        for row in &answer.rows {
            self.client.relay(row).await?;
        }
        Ok(answer.count())
    }

    /// The statement with the rows of what ran first.
    async fn step(
        &mut self,
        first: &First,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<String, Fault> {
        match &first.early {
            Some(Early::Moved(text)) => return Ok(text.clone()),
            Some(Early::With(with)) => {
                if let Some(before) = &first.before {
                    self.check_before(before).await?;
                }
                return self.with_given(&first.text, with, bound).await;
            }
            _ => {}
        }
        let mut edits = Vec::new();
        if let Some(Early::Inside(queries)) = &first.early {
            for query in queries {
                let text = first.text.get(query.span.clone()).unwrap_or_default();
                let types = bound.map_or(&[][..], |bound| bound.types);
                if self.session.columns_of(text, types).await?.is_none() {
                    continue;
                }
                let given = self.given(text, bound).await?;
                let one = given.kinds.len() == 1 && !given.rows.is_empty();
                let with = if query.list && one {
                    given_list(&given.rows)
                } else {
                    given_rows(&given.names, &given.kinds, &given.rows)
                };
                edits.push((query.span.clone(), with));
            }
        }
        if edits.is_empty() {
            for (used, table) in &first.tables {
                let text = table_rows(&first.text, table, &params_of(bound));
                let given = self.given(&text, None).await?;
                edits.push((used.span.clone(), in_from(used, &given, &[])));
            }
        }
        if edits.is_empty() {
            return Err(first.refusal.clone().into());
        }
        Ok(replaced(&first.text, edits))
    }

    /// Refuses a write before others that would notice, as PostgreSQL's would not.
    async fn check_before(&mut self, before: &Before) -> Result<(), Fault> {
        let map = self.worker.engine.live_map.snapshot();
        let home = map.home();
        let owns = |node: &NodeId, group| map.shards_on(*node, group).next().is_some();
        // Foreign keys of sharded tables stand where both have shards.
        let other = before
            .write
            .group
            .filter(|group| !owns(&home, *group))
            .and_then(|group| map.nodes().map(|(node, _)| node).find(|node| owns(node, group)));
        for node in std::iter::once(home).chain(other) {
            let Some(ask) = obstacles(before, node == home) else { continue };
            let run = async |session: &mut Self| {
                session.session.run_text(node, &ask, &mut session.client).await
            };
            let found = self.capture(run).await?;
            if let Some(row) = found.rows.first() {
                let why = values(row)?.into_iter().flatten().next().unwrap_or_default();
                return Err(noticed(before, &why).into());
            }
        }
        Ok(())
    }

    async fn with_given(
        &mut self,
        text: &str,
        with: &EarlyWith,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<String, Fault> {
        let given = self.given(&with.query, bound).await?;
        let uses = with.used.iter();
        let mut edits: Vec<_> =
            uses.map(|used| (used.span.clone(), in_from(used, &given, &with.columns))).collect();
        edits.push((with.removed.clone(), String::new()));
        Ok(replaced(text, edits))
    }

    /// Runs a part.
    async fn given(&mut self, text: &str, bound: Option<&Bound<'_, '_>>) -> Result<Given, Fault> {
        let mut answer = Box::pin(self.fetch(text, bound)).await?;
        if answer.rows.len() > ROWS_MAX {
            return Err(too_many().into());
        }
        if answer.columns.is_none()
            && let Some(bound) = bound
        {
            // A write by the extended protocol does not say.
            let columns = self.session.columns_here(text, bound.types).await?;
            answer.columns = Some(columns).filter(|columns| !columns.is_empty());
        }
        let columns = answer.columns.as_ref().map_or(Ok(Vec::new()), |c| described_columns(c))?;
        let types = answer.columns.as_ref().map_or(Ok(Vec::new()), |c| types_of(c))?;
        let kinds = self.value_types(&types, true).await?;
        let rows = self.literals(&answer, None).await?;
        let names = columns.into_iter().map(|(name, _)| name).collect();
        Ok(Given { names, kinds, rows })
    }
}

/// Rows in the place of a table.
fn in_from(used: &EarlyUse, given: &Given, columns: &[String]) -> String {
    let mut names = given.names.clone();
    for (name, written) in names.iter_mut().zip(columns) {
        name.clone_from(written);
    }
    let rows = given_rows(&names, &given.kinds, &given.rows);
    match &used.alias {
        Some(alias) => format!("({rows}) AS {}", crate::sql::Ident::new(alias)),
        None => format!("({rows})"),
    }
}

fn noticed(before: &Before, why: &str) -> ServerError {
    ServerError::refused(
        format!("a write to {} in WITH can't run before the rest", before.write.name),
        format!("The statement needs several nodes and would run in steps, and {why}."),
        "Bind the shard key, or use two statements.",
    )
}

fn too_many() -> ServerError {
    let message = format!("a part of the statement has more than {ROWS_MAX} rows");
    ServerError::new(SqlState("54000"), message)
        .with_detail("The statement runs on several nodes, and these rows would go to all of them.")
        .with_hint("Restrict it to fewer rows, or bind the shard key.")
}
