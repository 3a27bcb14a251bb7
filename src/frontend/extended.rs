//! The extended protocol: Parse, Bind, Describe, Execute, Close, Flush, Sync, in any legal order.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::batch::{Due, OUT_BYTES_MAX, Portal};
use super::session::ClientSession;
use super::simple::{Way, utf8};
use super::statements::{Prepared, server_name};
use crate::backend::Given;
use crate::executor::{ClientError, Cost, Fault};
use crate::ids::NodeId;
use crate::load::Access;
use crate::router::{Params, Route, Template};
use crate::wire::{
    Bind, FIRST_USER_OID, Malformed, Parse, Reader, Reply, ServerError, SqlState, Target,
    put_frame, read_target, with_statement,
};

impl ClientSession {
    /// Handles one message. Errors are told at once, and everything up to `Sync` is skipped then.
    pub(super) async fn extended(&mut self, message: &BytesMut) -> Result<(), ClientError> {
        let (tag, body) = (message[0], &message[5..]);
        if tag == b'S' {
            return self.on_sync().await;
        }
        if self.batch.skipping {
            return Ok(());
        }
        let handled = match tag {
            b'P' => self.on_parse(body).await,
            b'B' => self.on_bind(body).await,
            b'D' => self.on_describe(body, message).await,
            b'E' => self.on_execute(body, message).await,
            b'C' => self.on_close(body, message).await,
            _ => self.on_flush().await,
        };
        match handled {
            Ok(()) if self.batch.skipping => {
                self.forget_unsent();
                Ok(())
            }
            Ok(()) if self.batch.out.len() < OUT_BYTES_MAX => Ok(()),
            Ok(()) => match self.flush_batch().await {
                Ok(()) => Ok(()),
                Err(fault) => self.fail_batch(fault).await,
            },
            Err(fault) => self.fail_batch(fault).await,
        }
    }

    async fn on_sync(&mut self) -> Result<(), ClientError> {
        let synced = async {
            if !self.batch.skipping && !self.batch.unparsed.is_empty() {
                let node = self.node_without_params();
                self.go_to(node).await?;
            }
            self.sync_batch().await
        };
        let synced = synced.await;
        if matches!(synced, Ok(false)) {
            return Ok(());
        }
        self.stop_skipping();
        if let Err(fault) = synced {
            self.batch.reset(false);
            self.tell(fault).await?;
        }
        if self.cursors.may_end() {
            self.end_cursors().await;
        }
        self.ready();
        Ok(())
    }

    async fn on_parse(&mut self, body: &[u8]) -> Result<(), Fault> {
        let parse = Parse::read(body).map_err(invalid)?;
        self.check_reading()?;
        let text = utf8(parse.text)?;
        self.check_encoding(parse.text)?;
        let made = self.table_of_executed(text).await?;
        let text = made.as_deref().unwrap_or(text);
        let template = self.template(text);
        let sent = self.shown(&template).await?;
        let prepared = if parse.name.is_empty() {
            Prepared::unnamed(text, sent, &parse.types)
        } else if self.statements.contains_key(parse.name) {
            let name = String::from_utf8_lossy(parse.name);
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(ServerError::new(SqlState::DUPLICATE_PREPARED_STATEMENT, message).into());
        } else {
            let definitions = self.worker.engine.definitions();
            self.worker.statements.named((text, sent), &parse.types, definitions)
        };
        if !parse.name.is_empty() {
            self.batch.unsure.push((parse.name.into(), prepared.number));
        }
        if self.is_done_here(&template) || self.executes(&template).is_some() {
            self.batch.due.push_back(Due::Parsed(prepared.number));
        } else {
            self.batch.unparsed.push(Arc::clone(&prepared));
        }
        self.statements.insert(parse.name.into(), prepared);
        Ok(())
    }

    async fn on_bind(&mut self, body: &[u8]) -> Result<(), Fault> {
        let bind = Bind::read(body).map_err(invalid)?;
        let prepared = self.statement(bind.statement)?;
        let template = self.template(&prepared.text);
        let Some((execute, kept)) = self.executes(&template) else {
            return self.bind_to((prepared, template), &bind, body).await;
        };
        self.session.check_not_failed()?;
        if !bind.values.is_empty() {
            return Err(supplies(&bind).into());
        }
        let made = (bind.portal, bind.results);
        let (kept, body) = self.executed(&execute, &kept, &prepared.text, made).await?;
        let bind = Bind::read(&body).map_err(invalid)?;
        let template = self.template(&kept.text);
        self.bind_to((kept, template), &bind, &body).await
    }

    /// Makes a portal of a statement.
    pub(super) async fn bind_to(
        &mut self,
        (mut prepared, template): (Arc<Prepared>, Arc<Template>),
        bind: &Bind<'_>,
        body: &[u8],
    ) -> Result<(), Fault> {
        let text = &*Arc::clone(&prepared).text;
        for bytes in bind.values.iter().flatten().copied().chain([text.as_bytes()]) {
            self.check_encoding(bytes)?;
        }
        if self.is_done_here(&template) {
            self.answer(&Reply::BindComplete);
            self.keep_portal(bind, prepared, body);
            return Ok(());
        }
        self.check_reading()?;
        let (way, template) = if let Some(node) = self.session.failed_node() {
            (Way::Node(node, Cost::none(Access::Read)), template)
        } else {
            self.session.check_not_failed()?;
            let routed = self.way(text, bound(&prepared, bind), Arc::clone(&template)).await;
            match routed {
                Err(Fault::Refused(_)) if self.may_declare(&prepared, bind) => {
                    prepared = self.declare_types(&prepared, bind.statement).await?;
                    if self.batch.skipping {
                        return Ok(());
                    }
                    self.way(text, bound(&prepared, bind), template).await?
                }
                routed => routed?,
            }
        };
        let Way::Node(node, cost) = way else {
            self.flush_unparsed().await?;
            self.answer(&Reply::BindComplete);
            self.keep_portal(bind, prepared, body);
            return Ok(());
        };
        // A statement of no particular node goes where the batch goes.
        let anywhere = cost.shards.is_empty()
            && matches!(template.route(&bound(&prepared, bind)), Ok(Route::Anywhere));
        let node = if anywhere { self.batch.node.unwrap_or(node) } else { node };
        self.at(node).await?;
        if !template.is_plain() {
            self.prepare_node(&template, node).await?;
            self.note_control(&template);
        }
        let prepared = self.on_leaf(node, prepared, &template, &cost).await?;
        self.give(node, &prepared).await?;
        bind.put_as(prepared.server_name.as_bytes(), &mut self.batch.out);
        self.batch.due.push_back(Due::Node { message: b'B', seen: !self.batch.quiet, number: 0 });
        self.batch.portals.insert(bind.portal.into(), Portal::Native(node));
        self.batch.add_cost(cost);
        Ok(())
    }

    /// Whether PostgreSQL may be asked for types that the client has left to it: that ends an exchange, and
    /// what was executed must not be committed by it.
    fn may_declare(&self, prepared: &Prepared, bind: &Bind<'_>) -> bool {
        let count = bind.values.len();
        let all = prepared.types.len() >= count && !prepared.types.contains(&0);
        !all && (!self.batch.executed || self.session.in_transaction())
    }

    /// The statement with the types of all its parameters, as the home node infers them: it is that from
    /// now on, as if the client had declared them.
    async fn declare_types(
        &mut self,
        prepared: &Arc<Prepared>,
        name: &[u8],
    ) -> Result<Arc<Prepared>, Fault> {
        let types = self.all_types(prepared).await?;
        let definitions = self.worker.engine.definitions();
        let declared = self.worker.statements.declared(prepared, &types, definitions);
        if let Some(known) = self.statements.get_mut(name)
            && Arc::ptr_eq(known, prepared)
        {
            *known = Arc::clone(&declared);
        }
        Ok(declared)
    }

    /// Keeps a portal that the proxy runs in steps of its own.
    fn keep_portal(&mut self, bind: &Bind<'_>, prepared: Arc<Prepared>, body: &[u8]) {
        self.cursors.close_portal(bind.portal);
        let (bind_body, depth) = (Bytes::copy_from_slice(body), self.cursors.savepoints.depth());
        let portal = Portal::Ours { prepared, bind: bind_body, depth };
        self.batch.portals.insert(bind.portal.into(), portal);
    }

    pub(super) async fn on_describe(&mut self, body: &[u8], message: &[u8]) -> Result<(), Fault> {
        match read_target(body).map_err(invalid)? {
            Target::Statement(name) => {
                let prepared = self.statement(name)?;
                let template = self.template(&prepared.text);
                if self.is_done_here(&template) {
                    self.answer(&Reply::NoParameters);
                    self.answer(&Reply::NoData);
                    return Ok(());
                }
                if let Some((execute, kept)) = self.executes(&template) {
                    return self.describe_executed(&execute, &kept, &prepared.text).await;
                }
                if let Some(used) = self.cursors.of(&template) {
                    return self.describe_cursor(&used, &prepared, None).await;
                }
                let node = self.node_of(&prepared);
                self.go_to(node).await?;
                self.give(node, &prepared).await?;
                with_statement(b'D', prepared.server_name.as_bytes(), &mut self.batch.out);
                self.batch.due.push_back(Due::seen(b'd'));
                Ok(())
            }
            Target::Portal(name) => match self.portal(name)? {
                Portal::Native(node) => {
                    self.at(node).await?;
                    self.batch.out.extend_from_slice(message);
                    self.batch.due.push_back(self.batch.described());
                    Ok(())
                }
                Portal::Ours { prepared, bind, .. } => self.describe_ours(&prepared, &bind).await,
                Portal::Declared(cursor) => self.describe_declared(&cursor, message).await,
            },
        }
    }

    pub(super) async fn on_execute(&mut self, body: &[u8], message: &[u8]) -> Result<(), Fault> {
        let mut reader = Reader::new(body);
        let name = reader.cstr().map_err(invalid)?;
        let limit = reader.i32().map_err(invalid)?;
        reader.end().map_err(invalid)?;
        match self.portal(name)? {
            Portal::Native(node) => {
                self.at(node).await?;
                self.batch.out.extend_from_slice(message);
                self.batch.due.push_back(Due::seen(b'E'));
                if !self.batch.executed {
                    self.session.note_outset();
                }
                self.batch.executed = true;
                Ok(())
            }
            Portal::Ours { prepared, bind, .. } => {
                let errors = self.client.errors();
                self.execute_ours(&prepared, (name, &bind), limit).await?;
                // A node's error that is passed on among its answers ends the batch like any other.
                self.batch.skipping |= self.client.errors() > errors;
                Ok(())
            }
            Portal::Declared(cursor) => self.execute_declared(&cursor, message).await,
        }
    }

    async fn on_close(&mut self, body: &[u8], message: &[u8]) -> Result<(), Fault> {
        match read_target(body).map_err(invalid)? {
            Target::Statement(name) => {
                self.flush_unparsed().await?;
                self.statements.remove(name);
            }
            Target::Portal(name) => return self.close_portal(name, message).await,
        }
        self.answer(&Reply::CloseComplete);
        Ok(())
    }

    pub(super) async fn on_flush(&mut self) -> Result<(), Fault> {
        self.flush_unparsed().await?;
        self.flush_batch().await
    }

    /// The same as [`ClientSession::go_to`], which most are spared: nothing has to come before.
    async fn at(&mut self, node: NodeId) -> Result<(), Fault> {
        let elsewhere = self.batch.node.is_some_and(|before| before != node);
        if elsewhere || !self.batch.unparsed.is_empty() {
            return self.go_to(node).await;
        }
        self.batch.node = Some(node);
        Ok(())
    }

    /// The batch's messages go to `node` from here on, after the texts that no node has got yet.
    pub(super) async fn go_to(&mut self, node: NodeId) -> Result<(), Fault> {
        if let Some(before) = self.batch.node.filter(|before| *before != node) {
            self.leave(before).await?;
        }
        self.batch.node = Some(node);
        for prepared in std::mem::take(&mut self.batch.unparsed) {
            if prepared.number > 0 && !self.needs(node, prepared.number).await? {
                self.batch.due.push_back(Due::Parsed(prepared.number));
                continue;
            }
            self.put_parse(node, &prepared, true).await?;
        }
        Ok(())
    }

    /// Ends the exchange with a node before one with another begins.
    async fn leave(&mut self, before: NodeId) -> Result<(), Fault> {
        if self.batch.executed && !self.session.in_transaction() {
            return Box::pin(self.widen()).await;
        }
        put_frame(b'S', &mut self.batch.out, |_| ());
        self.batch.due.push_back(Due::unseen(b'S'));
        self.batch.node = Some(before);
        self.drain().await?;
        self.batch.in_exchange = false;
        self.batch.unnamed = None;
        Ok(())
    }

    /// An error came of what was sent: what was to follow on another node does not.
    fn forget_unsent(&mut self) {
        self.batch.out.clear();
        for due in std::mem::take(&mut self.batch.due) {
            if let (Due::Node { message: b'P', number, .. }, Some(node)) = (due, self.batch.node) {
                self.session.forget_given(node, number);
            }
        }
    }

    /// Gives `node` a statement that its connection lacks.
    pub(super) async fn give(
        &mut self,
        node: NodeId,
        prepared: &Arc<Prepared>,
    ) -> Result<(), Fault> {
        let has = if prepared.number == 0 {
            self.batch.unnamed.as_ref().is_some_and(|given| Arc::ptr_eq(given, prepared))
        } else {
            !self.needs(node, prepared.number).await?
        };
        if !has {
            self.put_parse(node, prepared, false).await?;
        }
        Ok(())
    }

    /// Whether the connection lacks the named statement, which it is about to get; one that it has
    /// not used for long goes for it.
    async fn needs(&mut self, node: NodeId, number: u64) -> Result<bool, Fault> {
        let guard = &mut self.session.member(node).await?.guard;
        let max = guard.pool().config().prepared_statements_max;
        let given = guard.prepared.give(number, max);
        if let Given::New(Some(oldest)) = given {
            let name = server_name(oldest);
            with_statement(b'C', name.as_bytes(), &mut self.batch.out);
            self.batch.due.push_back(Due::unseen(b'C'));
        }
        Ok(given != Given::Already)
    }

    async fn put_parse(
        &mut self,
        node: NodeId,
        prepared: &Arc<Prepared>,
        seen: bool,
    ) -> Result<(), Fault> {
        if prepared.types.iter().all(|oid| *oid < FIRST_USER_OID) {
            prepared.put_parse(&prepared.types, &mut self.batch.out);
        } else {
            let pool = Arc::clone(self.session.member(node).await?.guard.pool());
            let types = pool.types(&prepared.types).await?;
            prepared.put_parse(&types, &mut self.batch.out);
        }
        self.batch.due.push_back(Due::Node { message: b'P', seen, number: prepared.number });
        if prepared.number == 0 {
            self.batch.unnamed = Some(Arc::clone(prepared));
        }
        Ok(())
    }

    /// Lets a node read the texts that none has got yet.
    pub(super) async fn flush_unparsed(&mut self) -> Result<(), Fault> {
        if self.batch.unparsed.is_empty() {
            return Ok(());
        }
        let node = self.node_without_params();
        self.go_to(node).await
    }

    /// The node to read the texts that none has got yet.
    pub(super) fn node_without_params(&mut self) -> NodeId {
        match self.batch.unparsed.last().cloned() {
            Some(prepared) => self.node_of(&prepared),
            None => self.session.any_node(),
        }
    }

    /// A node that knows the tables of a text: the batch's where all do.
    pub(super) fn node_of(&mut self, prepared: &Prepared) -> NodeId {
        let template = self.template(&prepared.text);
        let map = self.worker.engine.live_map.snapshot();
        match template.route(&Params::default()) {
            Ok(Route::Home | Route::Pull(_)) => map.home(),
            Ok(Route::Cursor(used)) => {
                let known = used.name.as_deref().and_then(|name| self.cursors.node_of(name));
                known.unwrap_or_else(|| map.home())
            }
            _ => self.batch.node.unwrap_or_else(|| self.session.any_node()),
        }
    }

    fn statement(&self, name: &[u8]) -> Result<Arc<Prepared>, ServerError> {
        self.statements.get(name).cloned().ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            let message = format!("prepared statement \"{name}\" does not exist");
            ServerError::new(SqlState::INVALID_SQL_STATEMENT_NAME, message)
        })
    }

    /// A portal by its name, or a cursor that DECLARE made. One that is not known here may be one of
    /// the transaction's node, which then knows better.
    fn portal(&self, name: &[u8]) -> Result<Portal, ServerError> {
        let cursor = || match self.session.begun_nodes().as_slice() {
            [node] if !name.is_empty() => Some(Portal::Native(*node)),
            _ => None,
        };
        let known = self.batch.portals.get(name).cloned();
        known.or_else(|| self.cursors.portal(name)).or_else(cursor).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            let message = format!("portal \"{name}\" does not exist");
            ServerError::new(SqlState::INVALID_CURSOR_NAME, message)
        })
    }

    /// What is read after a change of the search path in the same batch would be read wrongly.
    fn check_reading(&self) -> Result<(), ServerError> {
        if !self.batch.changes_reading || self.is_plain() {
            return Ok(());
        }
        Err(ServerError::refused(
            "this statement can't follow a change of the search path so closely",
            "Which tables it means is known only after that.",
            "Send Sync before it.",
        ))
    }

    /// Adds a reply of the proxy's own to what is due.
    pub(super) fn answer(&mut self, reply: &Reply<'_>) {
        if self.batch.quiet && matches!(reply, Reply::BindComplete | Reply::NoData) {
            return;
        }
        let mut out = BytesMut::new();
        reply.clone().put(&mut out);
        self.batch.due.push_back(Due::Ours(out.freeze()));
    }
}

/// What a statement's parameters are bound to.
fn bound<'a>(prepared: &'a Prepared, bind: &'a Bind<'_>) -> Params<'a> {
    Params {
        types: &prepared.types,
        formats: &bind.formats,
        values: &bind.values,
        looked_up: None,
        literals: &[],
    }
}

/// A message whose body can't be read, though its end is known: the session goes on.
pub(super) fn invalid(_: Malformed) -> ServerError {
    ServerError::new(SqlState::PROTOCOL_VIOLATION, "invalid message format")
}

/// EXECUTE has no parameters of its own.
fn supplies(bind: &Bind<'_>) -> ServerError {
    let (given, name) = (bind.values.len(), String::from_utf8_lossy(bind.statement));
    let message = format!(
        "bind message supplies {given} parameters, but prepared statement \"{name}\" requires 0"
    );
    ServerError::new(SqlState::PROTOCOL_VIOLATION, message)
}
