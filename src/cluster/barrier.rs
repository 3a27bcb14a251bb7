//! A step that all other proxies have done their part of before this one goes on.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::records::{Barred, Barrier, Passed};
use super::{Cluster, Shared};
use crate::catalog::{CatalogError, Expect, Record, Revision};

/// How often it is looked who has left.
const LOOK: Duration = Duration::from_millis(50);

/// A barrier of this proxy's. It goes when this is dropped.
#[derive(Debug)]
pub struct Closing {
    cluster: Cluster,
    keeps_map: bool,
    /// None where there is no other proxy.
    id: Option<String>,
    /// The commit that put it up: who was enrolled before has to answer, who comes later finds it.
    at: Revision,
}

impl Cluster {
    /// Asks the other proxies to do their part, which [`Closing::passed`] waits for.
    ///
    /// # Errors
    /// The catalog's. Nothing is asked for then.
    pub async fn close(&self, barred: Barred) -> Result<Closing, CatalogError> {
        let keeps_map = barred == Barred::Map;
        self.kept_maps.fetch_add(usize::from(keeps_map), Ordering::SeqCst);
        let (cluster, at) = (self.clone(), Revision::default());
        // From here on it goes whatever happens.
        let mut closing = Closing { cluster, keeps_map, id: None, at };
        let Some(shared) = &self.shared else { return Ok(closing) };
        let number = shared.count.fetch_add(1, Ordering::Relaxed);
        let barrier = Barrier { by: shared.me, number, barred };
        shared.live.lock().barriers.insert(barrier.id());
        closing.id = Some(barrier.id());
        closing.at = self.catalog.put(&barrier, Expect::Absent).await?;
        Ok(closing)
    }

    /// The barriers that other proxies have put up.
    pub fn barriers(&self) -> Vec<Barrier> {
        let Some(shared) = &self.shared else { return Vec::new() };
        let all = shared.mirror.list::<Barrier>().into_iter().map(|barrier| barrier.record);
        all.filter(|barrier| barrier.by != shared.me).collect()
    }

    /// This proxy has done its part.
    ///
    /// # Errors
    /// The catalog's.
    pub async fn pass(&self, barrier: &Barrier) -> Result<(), CatalogError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let passed = Passed { barrier: barrier.id(), proxy: shared.me };
        self.catalog.put(&passed, Expect::Anything).await.map(drop)
    }
}

impl Closing {
    /// Waits until all others have done their part. Cancel safe; give it a deadline.
    pub async fn passed(&self) {
        let (Some(shared), Some(id)) = (&self.cluster.shared, &self.id) else { return };
        let mut changes = shared.mirror.watch();
        loop {
            let seen = *changes.borrow_and_update();
            if seen >= self.at && self.missing(shared, id).is_empty() {
                return;
            }
            // Who has left is looked at now and then.
            drop(timeout(LOOK, changes.changed()).await);
        }
    }

    /// Who has not done its part.
    fn missing(&self, shared: &Shared, id: &str) -> Vec<u64> {
        let passed = shared.mirror.list::<Passed>().into_iter().map(|passed| passed.record);
        let passed: BTreeSet<u64> =
            passed.filter(|passed| passed.barrier == id).map(|passed| passed.proxy).collect();
        let others = self.cluster.others().into_iter();
        others.filter(|other| !passed.contains(other)).collect()
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.cluster.kept_maps.fetch_sub(usize::from(self.keeps_map), Ordering::SeqCst);
        let (Some(shared), Some(id)) = (&self.cluster.shared, &self.id) else { return };
        shared.live.lock().barriers.remove(id);
        shared.ended.notify_one();
    }
}
