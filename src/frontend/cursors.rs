//! Cursors, and portals whose rows are taken in portions, where several nodes have the rows: they
//! stand where the rows were brought together.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::batch::{Due, Portal};
use super::extended::invalid;
use super::savepoints::Savepoints;
use super::session::ClientSession;
use super::simple::Way;
use super::statements::Prepared;
use super::units::execute_messages;
use crate::executor::{
    BindFrames, Bound, Cost, Fault, OpenPull, Portion, PullMode, PullRun, query_message,
};
use crate::ids::NodeId;
use crate::load::Access;
use crate::router::{Declared, Params, Pull, Route, Template};
use crate::sql::{Literal, UseCursor};
use crate::wire::{Bind, Reply, ServerError, SqlState, put_frame, put_parse};

/// Most cursors of a session over several nodes: each has a connection of its own.
const CURSORS_MAX: usize = 16;

/// The cursors of a session by name, and its portals whose rows are not all taken.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    declared: HashMap<String, Kept>,
    portals: HashMap<Vec<u8>, OpenPull>,
    /// What portals of writes have still to give.
    rests: HashMap<Vec<u8>, Rest>,
    /// Those of the block.
    pub(super) savepoints: Savepoints,
}

/// Rows of a write that has run, and its command tag.
#[derive(Debug)]
struct Rest {
    rows: std::vec::IntoIter<Bytes>,
    tag: String,
}

#[derive(Debug)]
struct Kept {
    hold: bool,
    /// Behind how many savepoints of the block it was declared; `None` if in a transaction before.
    depth: Option<usize>,
    place: Place,
}

/// Where a cursor stands.
#[derive(Debug)]
enum Place {
    Node(NodeId),
    Merge(Box<OpenPull>),
}

impl Cursors {
    /// The node that a cursor stands on; `None` if it is not known or stands on none.
    pub(super) fn node_of(&self, name: &str) -> Option<NodeId> {
        match &self.declared.get(name)?.place {
            Place::Node(node) => Some(*node),
            Place::Merge(_) => None,
        }
    }

    /// A cursor, which clients may describe, take rows from and close as a portal.
    pub(super) fn portal(&self, name: &[u8]) -> Option<Portal> {
        let name = std::str::from_utf8(name).ok()?;
        Some(match &self.declared.get(name)?.place {
            Place::Node(node) => Portal::Native(*node),
            Place::Merge(_) => Portal::Declared(name.to_owned()),
        })
    }

    /// Forgets a cursor that is closed on its node as a portal.
    pub(super) fn forget(&mut self, name: &[u8]) {
        if let Ok(name) = std::str::from_utf8(name) {
            self.declared.remove(name);
        }
    }

    /// The pull that the cursor of this name stands on.
    fn merge(&mut self, name: Option<&str>) -> Option<&mut OpenPull> {
        match &mut self.declared.get_mut(name?)?.place {
            Place::Merge(open) => Some(open),
            Place::Node(_) => None,
        }
    }

    /// The cursor that a text uses, if the proxy itself has to do it.
    pub(super) fn of(&self, template: &Template) -> Option<Arc<UseCursor>> {
        match template.route(&Params::default()) {
            Ok(Route::Cursor(used)) if self.is_ours(&used) => Some(used),
            _ => None,
        }
    }

    /// Whether the proxy itself has to do what a statement asks of a cursor.
    pub(super) fn is_ours(&self, used: &UseCursor) -> bool {
        let merged = |kept: &Kept| matches!(kept.place, Place::Merge(_));
        match &used.name {
            Some(name) => self.declared.get(name).is_some_and(merged),
            None => self.declared.values().any(merged),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.declared.is_empty() && self.portals.is_empty() && self.rests.is_empty()
    }

    /// Whether there is anything that may end with a transaction.
    pub(super) fn may_end(&self) -> bool {
        !self.is_empty() || !self.savepoints.is_empty()
    }

    /// Forgets a portal; what it stands on.
    pub(super) fn close_portal(&mut self, name: &[u8]) -> Option<OpenPull> {
        self.rests.remove(name);
        self.portals.remove(name)
    }

    fn keep(&mut self, declared: &Declared, place: Place) {
        let depth = Some(self.savepoints.depth());
        let kept = Kept { hold: declared.hold, depth, place };
        self.declared.insert(declared.name.clone(), kept);
    }

    /// What was declared behind more than `depth` savepoints is now behind so many.
    pub(super) fn raise_to(&mut self, depth: usize) {
        for kept in self.declared.values_mut() {
            kept.depth = kept.depth.map(|own| own.min(depth));
        }
    }

    /// Forgets what was declared behind more than `depth` savepoints; what it stands on.
    pub(super) fn end_behind(&mut self, depth: usize) -> Vec<OpenPull> {
        let behind = |kept: &Kept| kept.depth.is_some_and(|own| own > depth);
        self.take(|kept| behind(kept))
    }

    /// Forgets cursors; what they stand on.
    fn take(&mut self, which: impl Fn(&Kept) -> bool) -> Vec<OpenPull> {
        let taken = self.declared.extract_if(|_, kept| which(kept));
        let open = |(_, kept): (String, Kept)| match kept.place {
            Place::Merge(open) => Some(*open),
            Place::Node(_) => None,
        };
        taken.filter_map(open).collect()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl ClientSession {
    /// Outside of a transaction block only what was declared WITH HOLD lives on.
    pub(super) async fn end_cursors(&mut self) {
        if !self.session.in_transaction() {
            self.transaction_ended(true).await;
        }
    }

    /// What a transaction that was rolled back has declared is gone, WITH HOLD too.
    pub(super) async fn transaction_ended(&mut self, committed: bool) {
        let cursors = &mut self.cursors;
        cursors.rests.clear();
        cursors.savepoints.clear();
        let mut ended: Vec<OpenPull> = cursors.portals.drain().map(|(_, open)| open).collect();
        ended.extend(cursors.take(|kept| !kept.hold || !committed && kept.depth.is_some()));
        for kept in cursors.declared.values_mut() {
            kept.depth = None;
        }
        Self::end_pulls(ended).await;
    }

    /// Gives the connections of cursors back.
    pub(super) async fn end_pulls(ended: Vec<OpenPull>) {
        for open in ended {
            if let Err(error) = open.end().await {
                tracing::warn!(%error, "a connection of a cursor could not be cleaned");
            }
        }
    }

    /// DECLARE; leaves `ReadyForQuery` to the caller.
    pub(super) async fn declare(
        &mut self,
        declared: &Declared,
        text: &str,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        if self.has_cursor(&declared.name).await? {
            let message = format!("cursor \"{}\" already exists", declared.name);
            return Err(ServerError::new(SqlState("42P03"), message).into());
        }
        let node = match &declared.route {
            Route::Pull(pull) => {
                let pull = Arc::clone(pull);
                return self.declare_merged(declared, pull, text, bound).await;
            }
            Route::Shards(shards) => self.worker.engine.live_map.load().node_of(shards[0]),
            _ => self.worker.engine.live_map.load().home(),
        };
        let template = self.template(text);
        self.prepare_node(&template, node).await?;
        let messages = match bound {
            None => query_message(text),
            Some(bound) => bound.described(text),
        };
        let cost = Cost::none(Access::Read);
        if self.session.run_one(node, &messages, &cost, &mut self.client).await? {
            self.cursors.keep(declared, Place::Node(node));
        }
        Ok(())
    }

    /// Whether there is a cursor of this name. One on a node may have been closed there.
    async fn has_cursor(&mut self, name: &str) -> Result<bool, Fault> {
        let Some(kept) = self.cursors.declared.get(name) else { return Ok(false) };
        let Place::Node(node) = kept.place else { return Ok(true) };
        let cursor = Literal(name);
        let sql = format!("SELECT FROM pg_catalog.pg_cursors WHERE name = {cursor}");
        Ok(!self.session.rows_of(node, &query_message(&sql)).await?.is_empty())
    }

    async fn declare_merged(
        &mut self,
        declared: &Declared,
        pull: Arc<Pull>,
        text: &str,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        if !declared.hold && !self.session.in_transaction() {
            let message = "DECLARE CURSOR can only be used in transaction blocks";
            return Err(ServerError::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, message).into());
        }
        if self.cursors.declared.len() >= CURSORS_MAX {
            return Err(too_many());
        }
        let params = super::writes::params_of(bound);
        let bind = bound.map(|bound| frames(bound.bind));
        let run = PullRun {
            pull,
            text,
            start: declared.start,
            params,
            bind,
            describe: false,
            mode: PullMode::Within,
        };
        if let Some(open) = self.session.open_pull(&run, &mut self.client).await? {
            self.cursors.keep(declared, Place::Merge(Box::new(open)));
        }
        if self.session.in_transaction() { Ok(()) } else { self.session.finish().await }
    }

    /// FETCH, MOVE or CLOSE of a cursor that stands where rows were brought together; leaves
    /// `ReadyForQuery` to the caller.
    pub(super) async fn use_cursor(
        &mut self,
        used: &UseCursor,
        messages: &[u8],
        describe: bool,
    ) -> Result<(), Fault> {
        let Some(name) = &used.name else {
            Self::end_pulls(self.cursors.take(|_| true)).await;
            let node = self.session.any_node();
            return self.session.run_text(node, "CLOSE ALL", &mut self.client).await;
        };
        let Some(open) = self.cursors.merge(used.name.as_deref()) else {
            let message = format!("cursor \"{name}\" does not exist");
            return Err(ServerError::new(SqlState::INVALID_CURSOR_NAME, message).into());
        };
        let portion = open.run(messages, describe, &mut self.client).await?;
        if portion == Portion::Failed {
            self.session.fail();
        }
        if (used.closes || portion == Portion::Failed)
            && let Some(Kept { place: Place::Merge(open), .. }) = self.cursors.declared.remove(name)
        {
            open.end().await?;
        }
        Ok(())
    }

    /// Describes FETCH of such a cursor: the portal, or without `bind` the statement.
    pub(super) async fn describe_cursor(
        &mut self,
        used: &UseCursor,
        prepared: &Arc<Prepared>,
        bind: Option<&Bytes>,
    ) -> Result<(), Fault> {
        self.end_exchange().await?;
        let mut out = BytesMut::new();
        put_parse(b"", prepared.text.as_bytes(), &prepared.types_of_all(), &mut out);
        if let Some(bind) = bind {
            Bind::read(bind).map_err(invalid)?.put_unnamed(&mut out);
        }
        let what: &[u8] = if bind.is_some() { b"P\0" } else { b"S\0" };
        put_frame(b'D', &mut out, |out| out.extend_from_slice(what));
        put_frame(b'S', &mut out, |_| ());
        if let Some(open) = self.cursors.merge(used.name.as_deref()) {
            let described = open.describe(&out).await?;
            self.batch.due.push_back(Due::Ours(described));
        }
        Ok(())
    }

    /// Describe of such a cursor as a portal; `message` is the client's.
    pub(super) async fn describe_declared(
        &mut self,
        cursor: &str,
        message: &[u8],
    ) -> Result<(), Fault> {
        self.end_exchange().await?;
        let messages = with_sync(message);
        if let Some(open) = self.cursors.merge(Some(cursor)) {
            let described = open.describe(&messages).await?;
            self.batch.due.push_back(Due::Ours(described));
        }
        Ok(())
    }

    /// Execute of such a cursor as a portal.
    pub(super) async fn execute_declared(
        &mut self,
        cursor: &str,
        message: &[u8],
    ) -> Result<(), Fault> {
        self.end_exchange().await?;
        if self.batch.skipping {
            return Ok(());
        }
        let messages = with_sync(message);
        if let Some(open) = self.cursors.merge(Some(cursor))
            && open.run(&messages, false, &mut self.client).await? == Portion::Failed
        {
            self.batch.skipping = true;
            self.session.fail();
        }
        Ok(())
    }

    /// Close of a portal, or of a cursor as one; `message` is the client's.
    pub(super) async fn close_portal(&mut self, name: &[u8], message: &[u8]) -> Result<(), Fault> {
        Self::end_pulls(self.cursors.close_portal(name).into_iter().collect()).await;
        let portal = match self.batch.portals.remove(name) {
            Some(portal) => Some(portal),
            None => self.cursors.portal(name),
        };
        match portal {
            Some(Portal::Native(node)) => {
                self.cursors.forget(name);
                self.go_to(node).await?;
                self.batch.out.extend_from_slice(message);
                self.batch.due.push_back(Due::seen(b'C'));
                return Ok(());
            }
            Some(Portal::Declared(cursor)) => {
                self.end_exchange().await?;
                let kept = self.cursors.declared.remove(&cursor);
                if let Some(Kept { place: Place::Merge(open), .. }) = kept {
                    open.end().await?;
                }
            }
            Some(Portal::Ours { .. }) | None => {}
        }
        self.answer(&Reply::CloseComplete);
        Ok(())
    }

    /// The first rows of a portal over several nodes; the others live on inside of a transaction
    /// block.
    pub(super) async fn first_rows(
        &mut self,
        portal: &[u8],
        prepared: &Arc<Prepared>,
        bind: &Bind<'_>,
        limit: i32,
    ) -> Result<(), Fault> {
        let text = &*prepared.text;
        let params = Params {
            types: &prepared.types,
            formats: &bind.formats,
            values: &bind.values,
            looked_up: None,
            literals: &[],
        };
        let template = self.templates.together(text, &self.map());
        let (way, _) = self.way_together(text, params, template).await?;
        match way {
            Way::Pull(pull) => {
                let mode = PullMode::First(limit);
                let bind = Some(frames(bind));
                let run = PullRun { pull, text, start: 0, params, bind, describe: false, mode };
                if let Some(open) = self.session.open_pull(&run, &mut self.client).await? {
                    if self.cursors.portals.len() >= CURSORS_MAX {
                        return Err(too_many());
                    }
                    self.cursors.portals.insert(portal.to_vec(), open);
                }
                Ok(())
            }
            Way::Node(node, cost) => {
                // The map has changed since Bind: one node is enough now.
                let messages = execute_messages(prepared, bind, limit);
                self.session.run_one(node, &messages, &cost, &mut self.client).await.map(drop)
            }
            _ => Err(super::units::limited()),
        }
    }

    /// Runs a write whose rows are taken in portions: all of it runs now.
    pub(super) async fn first_written(
        &mut self,
        (portal, limit): (&[u8], i32),
        (route, text): (Route, &str),
        bound: &Bound<'_, '_>,
    ) -> Result<(), Fault> {
        let write = async |session: &mut Self| session.write(route, text, Some(bound)).await;
        let answer = self.capture(write).await?;
        let rest = Rest { rows: answer.rows.into_iter(), tag: answer.tag };
        self.cursors.rests.insert(portal.to_vec(), rest);
        self.next_rows(portal, limit).await.map(drop)
    }

    /// The next rows of a portal; `false` if it is not one of which rows were taken.
    pub(super) async fn next_rows(&mut self, portal: &[u8], limit: i32) -> Result<bool, Fault> {
        if let Some(rest) = self.cursors.rests.get_mut(portal) {
            let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
            let mut count = 0;
            while limit.is_none_or(|limit| count < limit)
                && let Some(row) = rest.rows.next()
            {
                self.client.relay(&row).await?;
                count += 1;
            }
            if limit == Some(count) {
                let mut suspended = BytesMut::new();
                put_frame(b's', &mut suspended, |_| ());
                self.client.relay(&suspended).await?;
            } else {
                self.client.put(Reply::CommandComplete(&rest.tag));
            }
            return Ok(true);
        }
        let Some(open) = self.cursors.portals.get_mut(portal) else { return Ok(false) };
        let mut out = BytesMut::new();
        put_frame(b'E', &mut out, |out| {
            out.extend_from_slice(b"\0");
            out.extend_from_slice(&limit.to_be_bytes());
        });
        put_frame(b'S', &mut out, |_| ());
        if open.run(&out, false, &mut self.client).await? == Portion::Failed {
            self.session.fail();
            self.cursors.portals.remove(portal);
        }
        Ok(true)
    }
}

/// A message, and the Sync that has it answered.
fn with_sync(message: &[u8]) -> BytesMut {
    let mut messages = BytesMut::from(message);
    put_frame(b'S', &mut messages, |_| ());
    messages
}

/// A `Bind` for a merge session.
pub(super) fn frames(bind: &Bind<'_>) -> BindFrames {
    let mut frames = BindFrames::default();
    bind.put_unnamed(&mut frames.full);
    bind.put_part(&[], None, &mut frames.bare);
    frames
}

fn too_many() -> Fault {
    ServerError::new(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        format!("a session may have {CURSORS_MAX} cursors over several nodes"),
    )
    .with_hint("Close those that are read.")
    .into()
}
