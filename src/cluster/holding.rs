//! Which sessions hold connections to several nodes: a circle of transactions that wait for each other
//! may go over several proxies.

use super::Cluster;
use super::records::{Holding, HoldingSession};
use crate::catalog::{CatalogError, Change, Expect, Record};

/// Most sessions that one proxy tells of.
const SESSIONS_MAX: usize = 1_000;

impl Cluster {
    /// Tells the others of these sessions, if there are others and it was not told already.
    ///
    /// # Errors
    /// The catalog's.
    pub async fn tell_holding(
        &self,
        mut sessions: Vec<HoldingSession>,
    ) -> Result<(), CatalogError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        if self.others().is_empty() {
            sessions.clear();
        }
        sessions.truncate(SESSIONS_MAX);
        let holding = Holding { proxy: shared.me, sessions };
        let told = shared.mirror.list::<Holding>().into_iter().map(|told| told.record);
        let told = told.into_iter().find(|told| told.id() == holding.id());
        let change = match told {
            None if holding.sessions.is_empty() => return Ok(()),
            Some(told) if told == holding => return Ok(()),
            Some(_) if holding.sessions.is_empty() => {
                Change::new().delete(&holding, Expect::Anything)
            }
            _ => Change::new().put(&holding, Expect::Anything)?,
        };
        self.catalog.commit(change).await.map(drop)
    }

    /// The same of the other proxies.
    pub fn holding_elsewhere(&self) -> Vec<Holding> {
        let Some(shared) = &self.shared else { return Vec::new() };
        let all = shared.mirror.list::<Holding>().into_iter().map(|holding| holding.record);
        all.filter(|it| it.proxy != shared.me && self.is_enrolled(it.proxy)).collect()
    }
}
