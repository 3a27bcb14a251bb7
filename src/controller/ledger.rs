//! The decisions in the catalog: what is news, what waits for approval, what is old.

use std::collections::{HashMap, VecDeque};

use crate::catalog::{Catalog, CatalogError, Change, Expect, Versioned, numbered};
use crate::ids::NodeId;
use crate::placement::{Basis, Decision, NotTaken, Standing};

/// Decisions that the status shows.
const RECENT_MAX: usize = 20;

/// Writes decisions, and remembers the last ones.
#[derive(Debug)]
pub(super) struct Ledger {
    next_id: u64,
    kept: u64,
    recent: VecDeque<Decision>,
    /// What was last said of each node, and when that was last true.
    said: HashMap<NodeId, (Gist, u64)>,
}

/// What makes two decisions the same news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gist {
    standing: Standing,
    not_taken: Option<NotTaken>,
    basis: Basis,
    crosses: bool,
}

impl Gist {
    fn of(decision: &Decision) -> Self {
        Self {
            standing: decision.standing,
            not_taken: decision.not_taken,
            basis: decision.basis,
            crosses: decision.predicted_crossing_unix_ms.is_some(),
        }
    }
}

impl Ledger {
    /// Reads the decisions that were kept.
    pub(super) async fn open(catalog: &Catalog, kept: u64) -> Result<Self, CatalogError> {
        let stored = catalog.list::<Decision>().await?;
        let surplus = stored.len().saturating_sub(usize::try_from(kept).unwrap_or(usize::MAX));
        if surplus > 0 {
            let delete = |change: Change, old: &Versioned<Decision>| {
                change.delete(&old.record, Expect::Anything)
            };
            catalog.commit(stored[..surplus].iter().fold(Change::new(), delete)).await?;
        }
        let next_id = stored.last().map_or(1, |last| last.record.id + 1);
        let recent = stored.into_iter().rev().take(RECENT_MAX).map(|stored| stored.record);
        Ok(Self { next_id, kept, recent: recent.collect(), said: HashMap::new() })
    }

    /// The last decisions, newest first.
    pub(super) fn recent(&self) -> Vec<Decision> {
        self.recent.iter().cloned().collect()
    }

    /// Whether this was not said of the node yet, or not for `quiet_ms`.
    pub(super) fn is_news(&mut self, decision: &Decision, quiet_ms: u64) -> bool {
        let gist = Gist::of(decision);
        let now = decision.at_unix_ms;
        let said = self.said.insert(decision.node, (gist, now));
        said.is_none_or(|(before, at)| before != gist || now.saturating_sub(at) > quiet_ms)
    }

    /// Whether a decision about the node waits for approval.
    pub(super) fn awaits(&self, node: NodeId) -> bool {
        let waiting = |d: &&Decision| d.standing == Standing::AwaitingApproval;
        self.recent.iter().filter(waiting).any(|decision| decision.node == node)
    }

    /// Writes a new decision, with `change` in the same commit.
    pub(super) async fn record(
        &mut self,
        catalog: &Catalog,
        mut decision: Decision,
        change: Change,
    ) -> Result<(), CatalogError> {
        decision.id = self.next_id;
        // Used up even if the commit fails: it may have been applied all the same.
        self.next_id += 1;
        let mut change = change.put(&decision, Expect::Absent)?;
        if let Some(old) = decision.id.checked_sub(self.kept) {
            change = change.delete(&Decision { id: old, ..decision.clone() }, Expect::Anything);
        }
        catalog.commit(change).await?;
        count(&decision);
        self.recent.push_front(decision);
        self.recent.truncate(RECENT_MAX);
        Ok(())
    }

    /// Those of the recent decisions that waited for approval when they were last read, as they are
    /// now in the catalog.
    pub(super) async fn waiting(
        &mut self,
        catalog: &Catalog,
    ) -> Result<Vec<Versioned<Decision>>, CatalogError> {
        let mut waiting = Vec::new();
        for decision in &mut self.recent {
            if !matches!(decision.standing, Standing::AwaitingApproval | Standing::Approved) {
                continue;
            }
            let id = numbered(decision.id);
            if let Some(stored) = catalog.get::<Decision>(&id).await? {
                decision.standing = stored.record.standing;
                waiting.push(stored);
            }
        }
        Ok(waiting)
    }

    /// Writes a decision anew that somebody else may have changed, with `change` in the same commit.
    pub(super) async fn update(
        &mut self,
        catalog: &Catalog,
        decision: Versioned<Decision>,
        change: Change,
    ) -> Result<(), CatalogError> {
        let Versioned { record, revision } = decision;
        catalog.commit(change.put(&record, Expect::At(revision))?).await?;
        count(&record);
        if let Some(known) = self.recent.iter_mut().find(|known| known.id == record.id) {
            *known = record;
        }
        Ok(())
    }
}

fn count(decision: &Decision) {
    let standing = match decision.standing {
        Standing::NotTaken => "not_taken",
        Standing::Advised => "advised",
        Standing::AwaitingApproval => "awaiting_approval",
        Standing::Approved => "approved",
        Standing::Rejected => "rejected",
        Standing::Expired => "expired",
        Standing::Requested => "requested",
    };
    metrics::counter!("foreshard_placement_decisions_total", "standing" => standing).increment(1);
}
