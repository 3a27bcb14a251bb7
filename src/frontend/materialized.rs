//! Materialized views of rows of several nodes: the home node keeps them
//! ([`planner::KeptView`]). They are filled by the same statements as a table that is made of a query.

use super::select::values;
use super::session::ClientSession;
use super::simple::Way;
use crate::executor::{Bound, Cost, Fault};
use crate::load::Access;
use crate::planner::{self, KeptView};
use crate::sql::{Materialized, MaterializedQuery};
use crate::wire::{Reply, ServerError, Severity, SqlState};

/// A kept view, and who asks.
struct Found {
    kept: KeptView,
    /// All that stands behind it, and the view, are his who asks.
    owned: bool,
    /// He may act as its owner.
    may: bool,
    /// A REFRESH past the proxy fails.
    guarded: bool,
}

impl ClientSession {
    /// Runs a statement about materialized views; leaves `ReadyForQuery` to the caller.
    pub(super) async fn materialized(
        &mut self,
        made: &Materialized,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        let work = async |session: &mut Self| Box::pin(session.run_materialized(made, bound)).await;
        if !matches!(made, Materialized::Refresh { .. }) {
            return self.defining(work).await;
        }
        let in_block = self.session.in_transaction();
        let done = work(self).await;
        if in_block {
            self.session.note_locked();
        }
        done
    }

    /// Runs what defines things on the home node: in a block its later statements know of it, as others
    /// would wait for its locks; what it fills them with it reads as before.
    pub(super) async fn defining(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let in_block = self.session.in_transaction();
        if !in_block {
            self.session.note_definitions();
        }
        let done = work(self).await;
        if in_block {
            self.session.note_definitions();
        }
        done
    }

    async fn run_materialized(
        &mut self,
        made: &Materialized,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        match made {
            Materialized::Create(made) => self.make_kept(made).await,
            Materialized::Refresh { name, text } => match self.find_kept(name).await? {
                Some(found) => self.refresh_kept(name, text, &found).await,
                None => self.native(text, bound).await,
            },
            Materialized::Drop { names, text } => {
                let mut plan = planner::at_home(text);
                for name in names {
                    if let Some(found) = self.find_kept(name).await? {
                        plan = plan.then(found.kept.drop());
                    }
                }
                self.planned(plan, text, bound).await
            }
            Materialized::Owner { name, owner, text } => {
                if let Some(found) = self.find_kept(name).await? {
                    let plan = planner::at_home(text).then(found.kept.give_to(owner));
                    return self.planned(plan, text, bound).await;
                }
                if !self.row_of_home(&planner::is_sequence(name)).await?.is_empty() {
                    let plan = planner::sequence_owner(text, name, owner);
                    return self.session.run_ddl(&plan, &mut self.client).await;
                }
                self.native(text, bound).await
            }
        }
    }

    /// The home node's own statement, where nothing stands behind the views.
    async fn planned(
        &mut self,
        plan: planner::DdlPlan,
        text: &str,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        if plan.views.is_empty() {
            return self.native(text, bound).await;
        }
        self.session.run_ddl(&plan, &mut self.client).await
    }

    /// Sends the home node the statement as it is.
    async fn native(&mut self, text: &str, bound: Option<&Bound<'_, '_>>) -> Result<(), Fault> {
        let home = self.worker.engine.live_map.load().home();
        if bound.is_none() {
            return self.session.run_text(home, text, &mut self.client).await;
        }
        let run = async |session: &mut Self| {
            session.session.run_text(home, text, &mut session.client).await
        };
        let answer = self.capture(run).await?;
        for notice in &answer.notices {
            self.client.relay(notice).await?;
        }
        self.client.put(Reply::CommandComplete(&answer.tag));
        Ok(())
    }

    /// What stands behind a materialized view, if it is a kept one.
    async fn find_kept(&mut self, name: &str) -> Result<Option<Found>, Fault> {
        let row = self.row_of_home(&planner::kept_view(name)).await?;
        let [Some(number), owned, may, guarded] = row.as_slice() else { return Ok(None) };
        let is = |value: &Option<String>| value.as_deref() == Some("t");
        let kept = KeptView::new(number.clone());
        Ok(Some(Found { kept, owned: is(owned), may: is(may), guarded: is(guarded) }))
    }

    /// The first row that the home node answers with; empty if there is none.
    pub(super) async fn row_of_home(&mut self, text: &str) -> Result<Vec<Option<String>>, Fault> {
        let home = self.worker.engine.live_map.load().home();
        let ask = async |session: &mut Self| {
            session.session.run_text(home, text, &mut session.client).await
        };
        let found = self.capture(ask).await?;
        found.rows.first().map_or(Ok(Vec::new()), |row| values(row))
    }

    async fn make_kept(&mut self, made: &MaterializedQuery) -> Result<(), Fault> {
        if self.is_there(&made.name, false).await? {
            // PostgreSQL says so, as an error or a notice.
            let exists = if made.if_not_exists { "IF NOT EXISTS " } else { "" };
            let text = format!("CREATE MATERIALIZED VIEW {exists}{} AS SELECT 1", made.name);
            return self.session.run_ddl(&planner::at_home(&text), &mut self.client).await;
        }
        self.session.set_up_kept_views().await?;
        let kept = KeptView::new(format!("{:016x}", rand::random::<u64>()));
        let work = async |session: &mut Self| {
            session.session.reserve_definitions().await?;
            session.quietly(&kept.make_rows(made)).await?;
            let mut count = 0;
            if !made.no_data {
                count = session.fill_kept(&kept, &made.query).await?;
            }
            session.quietly(&kept.open()).await?;
            let plan = kept.make(made);
            let make = async |session: &mut Self| {
                session.session.run_ddl(&plan, &mut session.client).await
            };
            session.capture(make).await?;
            session.quietly(KeptView::close()).await?;
            if made.no_data {
                return Ok("CREATE MATERIALIZED VIEW".to_owned());
            }
            session.quietly(&kept.empty()).await?;
            Ok(format!("SELECT {count}"))
        };
        self.as_one(work).await
    }

    async fn refresh_kept(&mut self, name: &str, text: &str, found: &Found) -> Result<(), Fault> {
        if !found.owned {
            return Err(not_owned(name, found.may).into());
        }
        if !found.guarded {
            self.client.put(Reply::Error(&unguarded(name)));
        }
        let kept = &found.kept;
        let work = async |session: &mut Self| {
            // Rows of an earlier query may not stand beside a definition of this transaction.
            let query = session.row_of_home(&kept.query()).await?;
            let query = query.into_iter().flatten().next().unwrap_or_default();
            session.quietly(&kept.lock()).await?;
            session.fill_kept(kept, &query).await?;
            session.quietly(&kept.open()).await?;
            session.quietly(text).await?;
            session.quietly(KeptView::close()).await?;
            session.quietly(&kept.empty()).await?;
            Ok("REFRESH MATERIALIZED VIEW".to_owned())
        };
        self.as_one(work).await
    }

    /// Fills the table behind a kept view with the rows of all nodes; how many there are.
    async fn fill_kept(&mut self, kept: &KeptView, query: &str) -> Result<u64, Fault> {
        Box::pin(self.fill(&kept.rows(), query, None)).await
    }

    /// Runs a statement on the home node, of which the client hears only an error.
    async fn quietly(&mut self, text: &str) -> Result<(), Fault> {
        let home = self.worker.engine.live_map.load().home();
        let run = async |session: &mut Self| {
            let way = Way::Node(home, Cost::none(Access::Write));
            Box::pin(session.write_way(way, text, None)).await
        };
        self.capture(run).await.map(drop)
    }
}

fn unguarded(name: &str) -> ServerError {
    let message = format!("the materialized view {name} was made by an earlier foreshard");
    let detail = "A REFRESH that foreshard does not see, on the node or in a function, empties it.";
    let hint = "DROP it and CREATE it again.";
    ServerError { severity: Severity::Warning, ..ServerError::refused(message, detail, hint) }
}

fn not_owned(name: &str, may: bool) -> ServerError {
    if !may {
        let message = format!("must be owner of materialized view {name}");
        return ServerError::new(SqlState("42501"), message);
    }
    ServerError::refused(
        format!("the materialized view {name} can only be refreshed by its owner"),
        "Its query reads rows of several nodes with the rights of the session's role.",
        "SET ROLE to its owner first.",
    )
}
