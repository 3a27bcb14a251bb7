//! The simple protocol: one text, routed and run.

use std::sync::Arc;

use bytes::BytesMut;
use smallvec::SmallVec;

use super::look_up::Led;
use super::select::is_write;
use super::session::ClientSession;
use crate::executor::{Cost, Entered, Fault, PullMode, PullRun, Scatter, query_message};
use crate::ids::{GroupId, NodeId, ShardId};
use crate::load;
use crate::planner;
use crate::router::{Access, Control, Leaves, Params, Pull, Route, Template};
use crate::shard_map::ShardMap;
use crate::wire::{Reply, ServerError, SqlState, read_query};

/// A route whose shards' gates were passed.
#[derive(Debug)]
pub(super) enum Way {
    /// All of it on this node.
    Node(NodeId, Cost),
    /// On these nodes, concatenated.
    Scatter(Vec<(NodeId, Cost)>),
    /// On all nodes, brought together.
    Pull(Arc<Pull>),
    /// Something that the proxy does in steps of its own.
    Steps(Route),
}

impl ClientSession {
    /// Where a `Query` goes that is one plain statement of one key, where nothing else is under way. Its
    /// gate was passed. `None` says nothing: [`ClientSession::query`] looks at it.
    pub(super) fn point_query(&mut self, message: &[u8]) -> Option<(NodeId, Cost)> {
        if self.session.check_not_failed().is_err() {
            return None;
        }
        let text = utf8(read_query(&message[5..]).ok()?).ok()?;
        let literals = self.shape.read(text)?;
        let template = self.template(self.shape.text());
        if !template.serves_shape() || !template.is_plain() || is_ours(&template.control) {
            return None;
        }
        let params = Params { literals: &literals, ..Params::default() };
        match self.way_of_point(text, &params, &template)? {
            Way::Node(node, cost) => Some((node, cost)),
            _ => None,
        }
    }

    /// Runs the text of a `Query` message and answers it, `ReadyForQuery` included. On an error that
    /// is the caller's.
    pub(super) async fn simple(&mut self, text: &[u8], message: &BytesMut) -> Result<(), Fault> {
        let text = utf8(text)?;
        let literals = self.shape.read(text);
        if literals.is_none() {
            self.check_encoding(text.as_bytes())?;
        }
        let literals = literals.unwrap_or_default();
        let shared = (!literals.is_empty()).then(|| self.template(self.shape.text()));
        let (template, params) = match shared.filter(|shared| shared.serves_shape()) {
            Some(shared) => (shared, Params { literals: &literals, ..Params::default() }),
            None => (self.template(text), Params::default()),
        };
        if template.statement_count == 0 {
            self.client.put(Reply::EmptyQuery);
        } else if is_ours(&template.control) {
            self.control(&template.control, text).await?;
        } else if template.moves_transaction
            && template.statement_count > 1
            && self.parts_of_block()
        {
            self.each_of_several(text).await?;
        } else if let Some(node) = self.session.failed_node() {
            let cost = Cost::none(load::Access::Read);
            return self.session.run_query(node, message, &mut self.client, &cost).await;
        } else if let Some(made) = self.table_of_executed(text).await? {
            self.session.check_not_failed()?;
            let template = self.template(&made);
            match self.way(&made, Params::default(), template).await? {
                (Way::Node(node, _), template) => {
                    self.prepare_node(&template, node).await?;
                    self.session.run_text(node, &made, &mut self.client).await?;
                    self.after_statement(&template).await?;
                }
                (way, _) => self.run_ways(way, &made, &query_message(&made)).await?,
            }
        } else {
            self.session.check_not_failed()?;
            match self.way(text, params, template).await? {
                (Way::Node(node, cost), template) => {
                    let mut shown = None;
                    if !template.is_plain() {
                        self.prepare_node(&template, node).await?;
                        shown = self.shown(&template).await?.map(query_message);
                    }
                    let message = shown.as_ref().unwrap_or(message);
                    self.session.run_query(node, message, &mut self.client, &cost).await?;
                    if !template.is_plain() {
                        self.after_statement(&template).await?;
                    }
                    return Ok(());
                }
                (Way::Steps(Route::Several(spans)), _) => self.several(text, &spans).await?,
                (way, _) => self.run_ways(way, text, message).await?,
            }
        }
        self.ready();
        Ok(())
    }

    /// Whether texts that begin or end parts of a transaction block run one statement at a time: nodes
    /// that join it later have to know of each.
    fn parts_of_block(&self) -> bool {
        let failed = self.session.check_not_failed().is_err();
        failed || self.session.in_transaction() && !self.is_plain()
    }

    /// Runs a text that does not go to one node as it is; leaves `ReadyForQuery` to the caller.
    pub(super) async fn run_ways(
        &mut self,
        way: Way,
        text: &str,
        message: &BytesMut,
    ) -> Result<(), Fault> {
        match way {
            Way::Node(..) => {
                let message = "a route to one node with steps";
                Err(ServerError::new(SqlState::INTERNAL_ERROR, message).into())
            }
            Way::Scatter(nodes) => {
                let scatter = Scatter::one_by_one(&nodes, message, true);
                self.session.scatter(&scatter, &mut self.client).await
            }
            Way::Pull(pull) => {
                let params = Params::default();
                let run = PullRun {
                    pull,
                    text,
                    start: 0,
                    params,
                    bind: None,
                    describe: true,
                    mode: PullMode::All,
                };
                self.session.pull(&run, &mut self.client).await
            }
            Way::Steps(Route::Cursor(used)) => self.use_cursor(&used, message, true).await,
            Way::Steps(Route::LookUp(look)) => match self.look_up(&look, (text, None), true).await?
            {
                Led::Done => Ok(()),
                Led::Otherwise(Way::Node(node, _), template) => {
                    self.prepare_node(&template, node).await?;
                    self.session.run_text(node, text, &mut self.client).await
                }
                Led::Otherwise(way, _) => Box::pin(self.run_ways(way, text, message)).await,
            },
            Way::Steps(route) => self.steps(&route, text, Some(message)).await,
        }
    }

    /// The routed text at the epoch in force.
    pub(super) fn template(&self, text: &str) -> Arc<Template> {
        match self.session.own_map() {
            Some(map) => self.templates.seen(text, &map),
            None => self.templates.get(text, &self.worker.engine.live_map),
        }
    }

    /// The map in force, as the session's transaction sees it.
    pub(super) fn map(&self) -> Arc<ShardMap> {
        self.session.own_map().unwrap_or_else(|| self.worker.engine.live_map.snapshot())
    }

    /// LOCK outside of a transaction block would hold nothing.
    pub(super) fn check_lock(&self, text: &str) -> Result<(), ServerError> {
        let locks = text.split_ascii_whitespace().next();
        if self.session.in_transaction() || !locks.is_some_and(|w| w.eq_ignore_ascii_case("lock")) {
            return Ok(());
        }
        let message = "LOCK TABLE can only be used in transaction blocks";
        Err(ServerError::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, message))
    }

    /// What the home node is sent instead of a text, if that is not as it was written.
    pub(super) async fn shown<'a>(&self, template: &'a Template) -> Result<Option<&'a str>, Fault> {
        match template.shown.as_deref() {
            Some(shown) if self.worker.engine.has_catalog_views().await? => Ok(Some(shown)),
            _ => Ok(None),
        }
    }

    /// The same as [`ClientSession::way`] for rows that are taken in portions.
    pub(super) async fn way_together(
        &mut self,
        text: &str,
        params: Params<'_>,
        mut template: Arc<Template>,
    ) -> Result<(Way, Arc<Template>), Fault> {
        loop {
            let epoch = self.worker.engine.live_map.load().epoch();
            if template.epoch == epoch {
                let route = template.route(&params)?;
                if let Some(way) = self.enter_route(route, &template).await? {
                    return Ok((way, template));
                }
            }
            template = self.templates.together(text, &self.map());
        }
    }

    /// Routes a text and passes the gates of its shards; again if the map changes meanwhile. A shape
    /// that does not lead to shards of one node is not relied on: its text is routed as it is.
    pub(super) async fn way(
        &mut self,
        text: &str,
        mut params: Params<'_>,
        mut template: Arc<Template>,
    ) -> Result<(Way, Arc<Template>), Fault> {
        if let Some(way) = self.way_of_point(text, &params, &template) {
            return Ok((way, template));
        }
        loop {
            self.session.check_relations(&template).await?;
            let map = self.worker.engine.live_map.snapshot();
            let current = template.epoch == map.epoch();
            let route = match template.route(&params) {
                Ok(route @ Route::Shards(_)) if current => route,
                route if current && params.literals.is_empty() => route?,
                _ => {
                    template = self.template(text);
                    params.literals = &[];
                    continue;
                }
            };
            let picked = self.sieve.picks().then(|| (route.clone(), shards_of(&route, &map)));
            if let Some(way) = self.enter_route(route, &template).await? {
                if let Some((route, shards)) = picked {
                    self.look_at(text, &template, &params, &route, &shards);
                }
                return Ok((way, template));
            }
            template = self.template(text);
            params.literals = &[];
        }
    }

    /// The way of a statement of one key, where the gate of its shard is open: of most.
    pub(super) fn way_of_point(
        &mut self,
        text: &str,
        params: &Params<'_>,
        template: &Template,
    ) -> Option<Way> {
        let (shard, node) = template.point(params)?;
        if !self.session.enter_one(shard, template.epoch) {
            return None;
        }
        if self.sieve.picks() {
            let route = Route::Shards(SmallVec::from_slice(&[shard]));
            self.look_at(text, template, params, &route, &[shard]);
        }
        let shards = SmallVec::from_slice(&[shard]);
        let brief = template.leaf.as_ref().is_some_and(|leaf| leaf.brief);
        let access = access(template.access);
        Some(Way::Node(node, Cost { shards, access, brief }))
    }

    /// Passes the gates of a route's shards; `None` if the map has changed meanwhile.
    pub(super) async fn enter_route(
        &mut self,
        route: Route,
        template: &Template,
    ) -> Result<Option<Way>, Fault> {
        let map = self.worker.engine.live_map.snapshot();
        let shards = shards_of(&route, &map);
        if self.session.enter(&shards, template.epoch).await? == Entered::Stale {
            return Ok(None);
        }
        if template.moves_transaction {
            // It may begin a block that the proxy sees only afterwards.
            self.session.note_outset();
        }
        if template.defines_imported
            && self.session.keep_definitions(template.epoch).await? == Entered::Stale
        {
            return Ok(None);
        }
        if template.defines_at_home && matches!(route, Route::Home) {
            self.session.note_definitions();
        }
        let access = access(template.access);
        let way = match route {
            Route::Anywhere => Way::Node(self.session.any_node(), Cost::none(access)),
            Route::Home => Way::Node(map.home(), Cost::none(access)),
            Route::Shards(shards) if template.keeps_lookups => Way::Steps(Route::Keep(shards)),
            Route::Shards(shards) => {
                let node = map.node_of(shards[0]);
                Way::Node(node, Cost::of(shards, access))
            }
            Route::Scatter(group) => Way::Scatter(scatter_nodes(&map, group, access)),
            Route::ScatterOver(shards) => Way::Scatter(nodes_of(&map, &shards, access)),
            Route::Pull(pull) => Way::Pull(pull),
            Route::Cursor(used) if !self.cursors.is_ours(&used) => {
                let known = used.name.as_deref().and_then(|name| self.cursors.node_of(name));
                Way::Node(known.unwrap_or_else(|| map.home()), Cost::none(access))
            }
            steps => Way::Steps(steps),
        };
        Ok(Some(way))
    }

    /// Does what must come before a statement on its node: keeps the session there if it leaves
    /// state.
    pub(super) async fn prepare_node(
        &mut self,
        template: &Template,
        node: NodeId,
    ) -> Result<(), Fault> {
        if template.moves_transaction && self.session.begun_nodes().iter().any(|n| *n != node) {
            return Err(ServerError::refused(
                "cannot end a transaction of several nodes in this way",
                "The text would end it on one node only.",
                "Send COMMIT or ROLLBACK as a statement of its own.",
            )
            .into());
        }
        let sets_path = template.changes_reading && template.leaves >= Leaves::State;
        if sets_path && self.session.in_transaction() && !self.is_plain() {
            return Err(ServerError::refused(
                "set_config can't change the search path inside a transaction block",
                "The transaction may have other nodes, or get them later.",
                "Use SET, or set_config outside of the transaction block.",
            )
            .into());
        }
        if template.leaves != Leaves::Nothing {
            self.session.member(node).await?;
            self.session.will_leave(node, template.leaves, &template.custom_settings);
        }
        Ok(())
    }

    /// Does what must come after a statement that ran.
    pub(super) async fn after_statement(&mut self, template: &Template) -> Result<(), Fault> {
        if template.closes_cursors {
            self.cursors.clear();
        }
        if template.changes_reading || template.leaves >= Leaves::Unknown {
            if self.session.in_transaction() && template.changes_reading {
                self.session.refresh_search_path().await?;
            }
            self.renew_templates();
        }
        Ok(())
    }

    /// Runs what the proxy does in steps of its own; leaves `ReadyForQuery` to the caller. The
    /// message is the `Query` of the simple protocol.
    pub(super) async fn steps(
        &mut self,
        route: &Route,
        text: &str,
        query: Option<&[u8]>,
    ) -> Result<(), Fault> {
        let map = self.worker.engine.live_map.snapshot();
        match route {
            Route::Explain(explained) => {
                self.explain(explained, (text, None), query.is_some()).await
            }
            Route::EveryNode => {
                self.check_lock(text)?;
                let made = query_message(text);
                let messages = query.unwrap_or(&made);
                self.session.run_on_every_node(messages, true, &mut self.client).await
            }
            route if is_write(route) => self.write(route.clone(), text, None).await,
            Route::Declare(declared) => self.declare(declared, text, None).await,
            Route::Ddl(ddl) => {
                let plan = planner::ddl(ddl, &map)?;
                self.session.run_ddl(&plan, &mut self.client).await
            }
            Route::CopyOut(copy) => {
                let nodes = scatter_nodes(&map, copy.group, load::Access::Read);
                self.session.run_copy_out(copy, &nodes, &mut self.client).await
            }
            Route::CopyIn(copy) => {
                self.check_utf8_session()?;
                let plan = planner::copy_in(copy, &self.map())?;
                self.session.run_copy_in(&plan, &mut self.client).await
            }
            _ => Err(ServerError::new(SqlState::INTERNAL_ERROR, "a route without steps").into()),
        }
    }
}

/// Whether the proxy does it, not a node.
pub(super) fn is_ours(control: &Control) -> bool {
    !matches!(
        control,
        Control::None | Control::Show { .. } | Control::Listen { .. } | Control::Unlisten { .. }
    )
}

/// SQL as text, or the error that PostgreSQL gives for bytes that are none.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, ServerError> {
    std::str::from_utf8(bytes).map_err(|_| {
        ServerError::new(SqlState("22021"), "invalid byte sequence for encoding \"UTF8\"")
            .with_hint("The proxy reads statements in UTF-8; set client_encoding to UTF8.")
    })
}

/// The shards whose gates a route has to pass.
fn shards_of(route: &Route, map: &ShardMap) -> SmallVec<[ShardId; 2]> {
    let of_group = |group| map.shards().filter(move |(_, s)| s.group == group).map(|(id, _)| id);
    let group = match route {
        Route::Shards(shards) | Route::Write(shards) | Route::ScatterOver(shards) => {
            return shards.clone();
        }
        Route::Insert(_, shards) => {
            let mut shards: SmallVec<[ShardId; 2]> = shards.iter().copied().collect();
            shards.sort_unstable();
            shards.dedup();
            return shards;
        }
        Route::Declare(declared) => return shards_of(&declared.route, map),
        Route::Explain(explained) if explained.asks_nodes() => {
            return shards_of(&explained.route, map);
        }
        Route::Pull(pull) | Route::Lock(pull) => {
            return pull.groups.iter().copied().flat_map(of_group).collect();
        }
        Route::Scatter(group) => Some(*group),
        Route::Rekey(rekey) => Some(rekey.group),
        Route::CopyOut(copy) => Some(copy.group),
        Route::CopyIn(copy) => map.table(&copy.table).and_then(|table| match &table.kind {
            crate::shard_map::TableKind::Sharded { group, .. } => Some(*group),
            crate::shard_map::TableKind::Reference => None,
        }),
        _ => None,
    };
    group.map(of_group).into_iter().flatten().collect()
}

/// The nodes that own shards of a group, each with those.
fn scatter_nodes(map: &ShardMap, group: GroupId, access: load::Access) -> Vec<(NodeId, Cost)> {
    let shards_on = |node| map.shards_on(node, group).collect::<SmallVec<[ShardId; 2]>>();
    map.nodes()
        .map(|(node, _)| (node, Cost::of(shards_on(node), access)))
        .filter(|(_, cost)| !cost.shards.is_empty())
        .collect()
}

/// The nodes of some shards, each with those.
fn nodes_of(map: &ShardMap, shards: &[ShardId], access: load::Access) -> Vec<(NodeId, Cost)> {
    let on = |node| shards.iter().copied().filter(|shard| map.node_of(*shard) == node).collect();
    map.nodes()
        .map(|(node, _)| (node, Cost::of(on(node), access)))
        .filter(|(_, cost)| !cost.shards.is_empty())
        .collect()
}

pub(super) fn access(access: Access) -> load::Access {
    match access {
        Access::Read => load::Access::Read,
        Access::Write | Access::Ddl => load::Access::Write,
    }
}
