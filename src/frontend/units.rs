//! Portals that the proxy runs in steps of its own: control statements, scatters, broadcasts.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::batch::Due;
use super::cursors::frames;
use super::extended::invalid;
use super::look_up::Led;
use super::select::is_write;
use super::session::ClientSession;
use super::simple::{Way, is_ours};
use super::statements::Prepared;
use super::writes::params_of;
use crate::executor::{Bound, Fault, PullMode, PullRun, Scatter};
use crate::router::{Params, Route};
use crate::wire::{Bind, Reply, ServerError, put_frame, put_parse};

impl ClientSession {
    /// Describes such a portal: by a node, where it has rows.
    pub(super) async fn describe_ours(
        &mut self,
        prepared: &Arc<Prepared>,
        bind: &Bytes,
    ) -> Result<(), Fault> {
        if self.is_done_here(&self.template(&prepared.text)) {
            self.answer(&Reply::NoData);
            return Ok(());
        }
        let template = self.template(&prepared.text);
        if let Some(used) = self.cursors.of(&template) {
            return self.describe_cursor(&used, prepared, Some(bind)).await;
        }
        let node = self.node_of(prepared);
        self.go_to(node).await?;
        put_parse(b"", prepared.text.as_bytes(), &prepared.types_of_all(), &mut self.batch.out);
        Bind::read(bind).map_err(invalid)?.put_unnamed(&mut self.batch.out);
        put_frame(b'D', &mut self.batch.out, |out| out.extend_from_slice(b"P\0"));
        let described = self.batch.described();
        self.batch.due.extend([Due::unseen(b'P'), Due::unseen(b'B'), described]);
        self.batch.unnamed = None;
        Ok(())
    }

    /// Runs such a portal.
    pub(super) async fn execute_ours(
        &mut self,
        prepared: &Arc<Prepared>,
        (portal, bind): (&[u8], &Bytes),
        limit: i32,
    ) -> Result<(), Fault> {
        let text = &*prepared.text;
        let template = self.template(text);
        if self.moves_widened(&template.control, text).await? {
            return Ok(());
        }
        self.widen_for_steps(&template.control).await?;
        self.end_exchange().await?;
        if self.batch.skipping {
            return Ok(());
        }
        if template.statement_count == 0 {
            self.client.put(Reply::EmptyQuery);
            return Ok(());
        }
        if is_ours(&template.control) {
            self.control(&template.control, text).await?;
            // What came before a COMMIT has ended with it.
            self.batch.executed &= self.session.in_transaction();
            return Ok(());
        }
        self.session.check_not_failed()?;
        if self.next_rows(portal, limit).await? {
            return Ok(());
        }
        let bind = Bind::read(bind).map_err(invalid)?;
        let params = Params {
            types: &prepared.types,
            formats: &bind.formats,
            values: &bind.values,
            looked_up: None,
            literals: &[],
        };
        let (mut way, _) = self.way(text, params, template).await?;
        if limit > 0 && matches!(way, Way::Steps(Route::LookUp(_))) {
            let types = prepared.types_of_all();
            let bound = Bound { types: &types, bind: &bind };
            (way, _) = self.without_lookups(text, Some(&bound)).await?;
        }
        if limit > 0 && matches!(way, Way::Scatter(_) | Way::Pull(_)) {
            return self.first_rows(portal, prepared, &bind, limit).await;
        }
        let written = matches!(&way, Way::Steps(route) if is_write(route));
        if let (true, true, Way::Steps(route)) = (written, limit > 0, &way) {
            let types = prepared.types_of_all();
            let bound = Bound { types: &types, bind: &bind };
            return self.first_written((portal, limit), (route.clone(), text), &bound).await;
        }
        self.execute_way(way, prepared, &bind, limit).await
    }

    async fn execute_way(
        &mut self,
        way: Way,
        prepared: &Arc<Prepared>,
        bind: &Bind<'_>,
        limit: i32,
    ) -> Result<(), Fault> {
        let text = &*prepared.text;
        let messages = execute_messages(prepared, bind, limit);
        let types = prepared.types_of_all();
        let bound = Bound { types: &types, bind };
        match way {
            Way::Scatter(nodes) => {
                let scatter = Scatter::one_by_one(&nodes, &messages, false);
                self.session.scatter(&scatter, &mut self.client).await
            }
            Way::Pull(pull) => {
                let (params, bind) = (params_of(Some(&bound)), Some(frames(bind)));
                let run = PullRun {
                    pull,
                    text,
                    start: 0,
                    params,
                    bind,
                    describe: false,
                    mode: PullMode::All,
                };
                self.session.pull(&run, &mut self.client).await
            }
            Way::Steps(Route::EveryNode) => {
                self.check_lock(text)?;
                self.session.run_on_every_node(&messages, false, &mut self.client).await
            }
            Way::Steps(route) if is_write(&route) => self.write(route, text, Some(&bound)).await,
            Way::Steps(Route::LookUp(look)) => {
                match self.look_up(&look, (text, Some(&bound)), false).await? {
                    Led::Done => Ok(()),
                    Led::Otherwise(way, _) => {
                        Box::pin(self.execute_way(way, prepared, bind, limit)).await
                    }
                }
            }
            Way::Steps(Route::Declare(declared)) => {
                self.declare(&declared, text, Some(&bound)).await
            }
            Way::Steps(Route::Cursor(used)) => self.use_cursor(&used, &messages, false).await,
            Way::Steps(Route::Explain(explained)) => {
                self.explain(&explained, (text, Some(&bound)), false).await
            }
            Way::Steps(route) => self.steps(&route, text, None).await,
            Way::Node(node, cost) => {
                // The map has changed since Bind: one node is enough now.
                let nodes = [(node, cost)];
                let scatter = Scatter::one_by_one(&nodes, &messages, false);
                self.session.scatter(&scatter, &mut self.client).await
            }
        }
    }

    /// Ends the exchange with the batch's node, so that the proxy can run statements of its own.
    pub(super) async fn end_exchange(&mut self) -> Result<(), Fault> {
        self.flush_unparsed().await?;
        if self.batch.in_exchange || !self.batch.out.is_empty() {
            put_frame(b'S', &mut self.batch.out, |_| ());
            self.batch.due.push_back(Due::unseen(b'S'));
        }
        self.drain().await?;
        self.batch.in_exchange = false;
        self.batch.node = None;
        self.batch.unnamed = None;
        Ok(())
    }
}

pub(super) fn limited() -> Fault {
    ServerError::refused(
        "a row limit on a portal over several nodes is not supported",
        "Its rows would have to be kept between two fetches.",
        "Fetch all rows at once, or add the shard key to the statement.",
    )
    .into()
}

/// The messages that run a portal on a node in an exchange of its own.
pub(super) fn execute_messages(prepared: &Prepared, bind: &Bind<'_>, limit: i32) -> BytesMut {
    let mut out = BytesMut::new();
    put_parse(b"", prepared.text.as_bytes(), &prepared.types_of_all(), &mut out);
    bind.put_unnamed(&mut out);
    put_frame(b'E', &mut out, |out| {
        out.extend_from_slice(b"\0");
        out.extend_from_slice(&limit.to_be_bytes());
    });
    put_frame(b'S', &mut out, |_| ());
    out
}
