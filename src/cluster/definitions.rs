//! Definitions are changed by one proxy at a time, and never while a shard moves: who does not lead
//! asks the one that does.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::Cluster;
use super::records::{Grant, Request};
use crate::catalog::{CatalogError, Change, Expect, Versioned};

/// The right to change definitions, until it is dropped.
#[derive(Debug)]
pub struct Definitions(Cluster);

impl Drop for Definitions {
    fn drop(&mut self) {
        let Some(shared) = &self.0.shared else { return };
        shared.live.lock().definitions = None;
        shared.ended.notify_one();
    }
}

impl Cluster {
    /// Asks the leader to keep moves away, and waits `deadline` at the most until it does; `None` if
    /// it did not. To be called by one at a time.
    ///
    /// # Errors
    /// The catalog's.
    pub async fn ask_for_definitions(
        &self,
        deadline: Duration,
    ) -> Result<Option<Definitions>, CatalogError> {
        let Some(shared) = self.shared.as_ref().filter(|_| !self.leads()) else {
            return Ok(Some(Definitions(Self::alone(self.catalog.clone()))));
        };
        let number = shared.count.fetch_add(1, Ordering::Relaxed);
        shared.live.lock().definitions = Some(number);
        let definitions = Definitions(self.clone());
        let request = Request { proxy: shared.me, number };
        self.catalog.put(&request, Expect::Anything).await?;
        let mut changes = shared.mirror.watch();
        let granted = async {
            loop {
                changes.mark_unchanged();
                let grants = shared.mirror.list::<Grant>();
                let mine = Grant { proxy: shared.me, number };
                if grants.iter().any(|grant| grant.record == mine) {
                    return;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        Ok(timeout(deadline, granted).await.is_ok().then_some(definitions))
    }

    /// The first request that stands, and whether it is granted: its proxy and number.
    pub fn wanted_definitions(&self) -> Option<((u64, u64), bool)> {
        let shared = self.shared.as_ref()?;
        let grants: Vec<Versioned<Grant>> = shared.mirror.list();
        let of = |request: &Request| (request.proxy, request.number);
        let is_granted = |request: &Request| {
            grants.iter().any(|grant| (grant.record.proxy, grant.record.number) == of(request))
        };
        let requests = shared.mirror.list::<Request>().into_iter().map(|request| request.record);
        let enrolled: Vec<Request> =
            requests.filter(|request| self.is_enrolled(request.proxy)).collect();
        let granted = enrolled.iter().find(|request| is_granted(request));
        let first = granted.map(|request| (of(request), true));
        first.or_else(|| enrolled.first().map(|request| (of(request), false)))
    }

    /// Tells a proxy that it may change definitions.
    ///
    /// # Errors
    /// The catalog's.
    pub async fn grant_definitions(&self, (proxy, number): (u64, u64)) -> Result<(), CatalogError> {
        let change = Change::new().put(&Grant { proxy, number }, Expect::Anything)?;
        self.catalog.commit(change).await.map(drop)
    }
}
