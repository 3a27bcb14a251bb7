//! Writes that the proxy spreads over nodes or completes first.

use std::sync::Arc;

use bytes::BytesMut;

use super::look_up::Led;
use super::session::ClientSession;
use super::simple::Way;
use crate::executor::{
    BindFrames, Bound, Cost, Fault, PullMode, PullRun, Spread, SpreadPart, query_message,
};
use crate::ids::NodeId;
use crate::planner::{self, Fragment};
use crate::router::{Evaluation, Params, Route};
use crate::wire::{ServerError, SqlState};

/// How often a statement may be completed before it is given up.
const ROUNDS_MAX: usize = 4;

/// Types whose text is their value whatever the settings are, among those that are often evaluated.
const EXACT: [&str; 15] = [
    "bigint",
    "boolean",
    "bytea",
    "character",
    "character varying",
    "date",
    "integer",
    "numeric",
    "smallint",
    "text",
    "time without time zone",
    "timestamp with time zone",
    "timestamp without time zone",
    "unknown",
    "uuid",
];

impl ClientSession {
    /// Runs a write of several nodes, or one whose parts are evaluated first; leaves
    /// `ReadyForQuery` to the caller.
    pub(super) async fn write(
        &mut self,
        route: Route,
        text: &str,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        let mut route = route;
        let mut text = std::borrow::Cow::Borrowed(text);
        for _ in 0..ROUNDS_MAX {
            if let Route::Select(insert) = &route {
                return Box::pin(self.insert_selected(&Arc::clone(insert), bound)).await;
            }
            if let Route::Rekey(rekey) = &route {
                return Box::pin(self.rekey(&Arc::clone(rekey), bound)).await;
            }
            if let Route::First(first) = &route {
                return Box::pin(self.run_first(&Arc::clone(first), bound)).await;
            }
            if let Route::TableAs(made) = &route {
                return Box::pin(self.table_as(&Arc::clone(made), bound)).await;
            }
            if let Route::Materialized(made) = &route {
                return Box::pin(self.materialized(&Arc::clone(made), bound)).await;
            }
            if let Route::Merge(merge) = &route {
                return Box::pin(self.merge(&Arc::clone(merge), bound)).await;
            }
            if let Route::LookUp(look) = &route {
                let look = Arc::clone(look);
                let led = self.look_up(&look, (&text, bound), bound.is_none());
                match Box::pin(led).await? {
                    Led::Done => return Ok(()),
                    Led::Otherwise(Way::Steps(next), _) => route = next,
                    Led::Otherwise(way, _) => return self.write_way(way, &text, bound).await,
                }
                continue;
            }
            let Route::Evaluate(first) = &route else {
                let way = Way::Steps(route);
                return self.write_way(way, &text, bound).await;
            };
            let completed = Box::pin(self.complete(first, bound)).await?;
            let template = self.template(&completed);
            let params = params_of(bound);
            let (way, _) = self.way(&completed, params, template).await?;
            match way {
                Way::Steps(
                    next @ (Route::Evaluate(_)
                    | Route::Rekey(_)
                    | Route::Merge(_)
                    | Route::LookUp(_)
                    | Route::First(_)),
                ) => {
                    route = next;
                }
                way => return self.write_way(way, &completed, bound).await,
            }
            text = completed.into();
        }
        Err(ServerError::new(SqlState::INTERNAL_ERROR, "a statement could not be completed").into())
    }

    /// The statement with the values of what was evaluated.
    async fn complete(
        &mut self,
        first: &Arc<Evaluation>,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<String, Fault> {
        let values = self.session.evaluate(first, bound).await?;
        let may_round = |kind: &str| !EXACT.contains(&kind);
        if values.iter().flatten().any(|(_, kind)| may_round(kind)) {
            Box::pin(self.check_digits()).await?;
        }
        planner::evaluated(first, &values).ok_or_else(|| {
            ServerError::new(SqlState::INTERNAL_ERROR, "a value was not evaluated").into()
        })
    }

    /// Errors with 0A000 if the session's setting takes digits away from floating-point values.
    pub(super) async fn check_digits(&mut self) -> Result<(), Fault> {
        let digits = "SELECT pg_catalog.current_setting('extra_float_digits')";
        let digits = self.row_of_home(digits).await?.into_iter().flatten().next();
        match digits.and_then(|digits| digits.parse::<i32>().ok()) {
            Some(1..) => Ok(()),
            _ => Err(ServerError::refused(
                "floating-point values would lose digits between nodes",
                "extra_float_digits is 0 or less, so that nodes give them rounded.",
                "SET extra_float_digits = 1, which is PostgreSQL's default.",
            )
            .into()),
        }
    }

    pub(super) async fn write_way(
        &mut self,
        way: Way,
        text: &str,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        let map = self.worker.engine.live_map.snapshot();
        let describe = bound.is_none();
        let (parts, at_once) = match way {
            Way::Node(node, cost) => {
                let template = self.template(text);
                self.prepare_node(&template, node).await?;
                (vec![part(node, cost, whole(text, bound))], true)
            }
            Way::Steps(Route::Keep(shards)) => {
                let node = map.node_of(shards[0]);
                let template = self.template(text);
                self.prepare_node(&template, node).await?;
                let cost = Cost::of(shards, crate::load::Access::Write);
                (vec![part(node, cost, whole(text, bound))], true)
            }
            Way::Steps(Route::Write(shards)) => {
                let mut parts: Vec<SpreadPart> = Vec::new();
                for shard in shards {
                    let node = map.node_of(shard);
                    if let Some(part) = parts.iter_mut().find(|part| part.node == node) {
                        part.cost.shards.push(shard);
                        continue;
                    }
                    let mut cost = Cost::none(crate::load::Access::Write);
                    cost.shards.push(shard);
                    parts.push(part(node, cost, whole(text, bound)));
                }
                // The same order for every statement: see `executor::Spread`.
                parts.sort_by_key(|part| part.node);
                (parts, false)
            }
            Way::Steps(Route::Insert(insert, shards)) => {
                let fragments = planner::insert(&insert, &shards, &map);
                self.check_leaves(&insert, &fragments).await?;
                let at_once = !insert.layout.conflict;
                (fragments.into_iter().map(|f| of_fragment(f, bound)).collect(), at_once)
            }
            Way::Steps(Route::Lock(pull)) => {
                let params = params_of(bound);
                let bind = bound.map(|bound| BindFrames::of(bound.bind));
                let run =
                    PullRun { pull, text, start: 0, params, bind, describe, mode: PullMode::All };
                return self.session.lock_sorted(&run, &mut self.client).await;
            }
            Way::Steps(Route::EveryNode) => {
                let messages = whole(text, bound);
                let run = self.session.run_on_every_node(&messages, describe, &mut self.client);
                return run.await;
            }
            _ => {
                let message = "a completed statement has no route";
                return Err(ServerError::new(SqlState::INTERNAL_ERROR, message).into());
            }
        };
        let spread = Spread { parts, describe, at_once };
        self.session.run_spread(&spread, &mut self.client).await
    }
}

/// The parameters for routing.
pub(super) fn params_of<'a, 'b: 'a>(bound: Option<&'a Bound<'a, 'b>>) -> Params<'a> {
    bound.map_or_else(Params::default, |bound| Params {
        types: bound.types,
        formats: &bound.bind.formats,
        values: &bound.bind.values,
        looked_up: None,
        literals: &[],
    })
}

pub(super) fn part(node: NodeId, cost: Cost, messages: BytesMut) -> SpreadPart {
    SpreadPart { node, cost, messages, rows: Vec::new() }
}

/// The messages that run a whole text, with those parameters that it uses.
pub(super) fn whole(text: &str, bound: Option<&Bound<'_, '_>>) -> BytesMut {
    match bound {
        None => query_message(text),
        Some(bound) => {
            let (text, params) = planner::renumbered(text);
            bound.messages(&text, &params, None)
        }
    }
}

pub(super) fn of_fragment(fragment: Fragment, bound: Option<&Bound<'_, '_>>) -> SpreadPart {
    let Fragment { node, shards, text, params, rows } = fragment;
    let messages = match bound {
        None => query_message(&text),
        Some(bound) => bound.messages(&text, &params, None),
    };
    SpreadPart { node, cost: Cost::of(shards, crate::load::Access::Write), messages, rows }
}
