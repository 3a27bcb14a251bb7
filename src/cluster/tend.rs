//! Takes away what is not needed any more: level by level, so that nothing is left whatever was lost.

use std::time::Duration;

use super::records::{Barrier, Grant, Holding, Passed, Request};
use super::{Cluster, Shared};
use crate::catalog::{CatalogError, Change, Expect, Record};
use crate::runtime::Tasks;

/// How often it is looked at least.
const INTERVAL: Duration = Duration::from_secs(2);

impl Cluster {
    /// Takes away what has ended, until the tasks are stopped; what this proxy needs no more goes at
    /// the stop.
    pub async fn tend_forever(self, tasks: Tasks) {
        let Some(shared) = &self.shared else { return };
        let mut changes = shared.mirror.watch();
        loop {
            changes.mark_unchanged();
            if let Err(error) = self.tend(shared).await {
                tracing::debug!(%error, "what has ended is taken away later");
            }
            tokio::select! {
                () = tasks.token().cancelled() => break,
                () = shared.ended.notified() => {}
                changed = changes.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
        drop(self.tend(shared).await);
    }

    async fn tend(&self, shared: &Shared) -> Result<(), CatalogError> {
        let mut change = None;
        let mut delete = |grown: &mut dyn FnMut(Change) -> Change| {
            change = Some(grown(change.take().unwrap_or_default()));
        };
        let barriers = shared.mirror.list::<Barrier>();
        let (live, took_over, wants) = {
            let live = shared.live.lock();
            (live.barriers.clone(), live.took_over, live.definitions)
        };
        let ended = |barrier: &Barrier| {
            let mine = barrier.by == shared.me;
            mine && !live.contains(&barrier.id())
                || !mine && took_over && !self.is_enrolled(barrier.by)
        };
        for barrier in barriers.iter().filter(|barrier| ended(&barrier.record)) {
            delete(&mut |change| change.delete(&barrier.record, Expect::Anything));
        }
        for passed in shared.mirror.list::<Passed>() {
            let passed = passed.record;
            let of = barriers.iter().find(|barrier| barrier.record.id() == passed.barrier);
            let whose = passed.proxy == shared.me
                || self.leads() && !self.is_enrolled(passed.proxy)
                || of.is_some_and(|barrier| barrier.record.by == shared.me);
            if whose && of.is_none_or(|barrier| ended(&barrier.record)) {
                delete(&mut |change| change.delete(&passed, Expect::Anything));
            }
        }
        for request in shared.mirror.list::<Request>() {
            let request = request.record;
            let mine = request.proxy == shared.me && wants != Some(request.number);
            if mine || self.leads() && !self.is_enrolled(request.proxy) {
                delete(&mut |change| change.delete(&request, Expect::Anything));
            }
        }
        for holding in shared.mirror.list::<Holding>() {
            if self.leads() && !self.is_enrolled(holding.record.proxy) {
                delete(&mut |change| change.delete(&holding.record, Expect::Anything));
            }
        }
        if self.leads() {
            let requests = shared.mirror.list::<Request>();
            for grant in shared.mirror.list::<Grant>() {
                let grant = grant.record;
                let stands = requests.iter().any(|request| {
                    (request.record.proxy, request.record.number) == (grant.proxy, grant.number)
                });
                if !stands {
                    delete(&mut |change| change.delete(&grant, Expect::Anything));
                }
            }
        }
        match change {
            Some(change) => self.catalog.commit(change).await.map(drop),
            None => Ok(()),
        }
    }
}
