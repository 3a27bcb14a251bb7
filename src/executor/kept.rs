//! What materialized views over sharded tables need: their schema on the home node, and the lock that
//! keeps moves away before the first of their rows is read.

use tokio_postgres::Client;

use super::columns::ask;
use super::{Fault, Session};
use crate::planner::KEPT_SET_UP;
use crate::wire::ServerError;

impl Session {
    /// Gives the home node the schema in which kept views stand.
    ///
    /// # Errors
    /// It can't be made, or what is left over there can't be removed now.
    pub async fn set_up_kept_views(&self) -> Result<(), Fault> {
        let map = self.engine.live_map.snapshot();
        let home = &self.engine.nodes[map.home().index()];
        let set_up = async |client: &Client| client.batch_execute(KEPT_SET_UP).await;
        ask(home, &map, set_up).await.map_err(|error| {
            tracing::warn!(%error, "the schema of materialized views could not be made");
            ServerError::refused(
                "materialized views over sharded tables can't be made now",
                "The home node did not make the schema foreshard_kept for them.",
                "Try again, and see to it that the proxy's own role may create schemas there.",
            )
            .into()
        })
    }

    /// Definitions follow in this transaction: waits for moves under way now, not with rows in hand.
    ///
    /// # Errors
    /// 55000: they last too long.
    pub async fn reserve_definitions(&mut self) -> Result<(), Fault> {
        if self.transaction.ddl.is_none() && self.transaction.reserved.is_none() {
            self.transaction.reserved = Some(self.no_moves().await?);
        }
        Ok(())
    }
}
