//! A table made of a query's rows, where these are on several nodes: the home node makes it empty, by
//! the query's columns, and it is filled.

use super::session::ClientSession;
use super::simple::Way;
use crate::executor::{Bound, Cost, Fault};
use crate::load::Access;
use crate::sql::{Literal, TableAs};
use crate::wire::Reply;

impl ClientSession {
    /// Runs CREATE TABLE AS or SELECT INTO; leaves `ReadyForQuery` to the caller.
    pub(super) async fn table_as(
        &mut self,
        made: &TableAs,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        if made.temporary {
            return self.make_table(made, bound).await;
        }
        let work = async |session: &mut Self| Box::pin(session.make_table(made, bound)).await;
        self.defining(work).await
    }

    async fn make_table(
        &mut self,
        made: &TableAs,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        let types = self.types_in(&made.query, bound).await?;
        let typed = bound.map(|bound| Bound { types: &types, bind: bound.bind });
        if made.no_data || made.if_not_exists && self.is_there(&made.name, made.temporary).await? {
            if typed.is_none() {
                let home = self.worker.engine.live_map.load().home();
                let template = self.template(&made.empty);
                self.prepare_node(&template, home).await?;
                return self.session.run_text(home, &made.empty, &mut self.client).await;
            }
            let empty = async |session: &mut Self| session.make_empty(made, typed.as_ref()).await;
            self.capture(empty).await?;
            self.client.put(Reply::CommandComplete("CREATE TABLE AS"));
            return Ok(());
        }
        let work = async |session: &mut Self| {
            let empty = async |session: &mut Self| session.make_empty(made, typed.as_ref()).await;
            session.capture(empty).await?;
            Box::pin(session.fill(&made.name, &made.query, typed.as_ref())).await
        };
        self.in_one_block("SELECT", work).await
    }

    async fn make_empty(
        &mut self,
        made: &TableAs,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        let home = self.worker.engine.live_map.load().home();
        let way = Way::Node(home, Cost::none(Access::Write));
        self.write_way(way, &made.empty, bound).await
    }

    /// Whether there is something of this name where a new table would be made.
    pub(super) async fn is_there(&mut self, name: &str, temporary: bool) -> Result<bool, Fault> {
        let schema = if temporary { "'pg_temp'" } else { "pg_catalog.current_schema()" };
        let name = Literal(name);
        let text = format!(
            "SELECT pg_catalog.to_regclass(CASE WHEN pg_catalog.cardinality(\
             pg_catalog.parse_ident({name})) > 1 THEN '' \
             ELSE pg_catalog.quote_ident({schema}) || '.' END || {name}) IS NOT NULL"
        );
        let found = self.row_of_home(&text).await?;
        Ok(found.first().is_some_and(|value| value.as_deref() == Some("t")))
    }
}
