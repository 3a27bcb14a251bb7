//! Who may serve from a catalog: each change of that begins a term, which the nodes are told of.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::proxy::identity;
use super::terminal::story;
use crate::backend::{Fence, NodeAddress, Term};
use crate::catalog::{Catalog, CatalogError, Change, Expect, Mirror, Revision, Versioned};
use crate::cluster::{Enrolled, Presence, Roll};
use crate::shard_map::ShardMap;

/// How long a process may take to hear of its own commit.
const HEARS: Duration = Duration::from_secs(10);

/// How a process comes to serve.
#[derive(Debug, Clone)]
pub enum Turn {
    /// Nobody else does.
    Alone,
    /// It leads those that do.
    Leads {
        /// What they tell each other.
        mirror: Mirror,
        /// Its own.
        presence: Presence,
    },
    /// Another one leads.
    Enrolled {
        /// What they tell each other.
        mirror: Mirror,
        /// Its number.
        number: u64,
    },
}

impl Turn {
    /// Whether another one leads.
    pub(super) fn is_enrolled(&self) -> bool {
        matches!(self, Self::Enrolled { .. })
    }

    /// What those that serve tell each other, if several may.
    pub(super) fn mirror(&self) -> Option<&Mirror> {
        match self {
            Self::Alone => None,
            Self::Leads { mirror, .. } | Self::Enrolled { mirror, .. } => Some(mirror),
        }
    }
}

impl From<&Roll> for Term {
    fn from(roll: &Roll) -> Self {
        Self { number: roll.number, proxies: roll.numbers() }
    }
}

/// Begins a new term on the catalog in which this process leads, and keeps those that may not serve in
/// it from the nodes. A node that does not answer is told when it is first connected to.
pub(super) async fn fence_off(
    catalog: &Catalog,
    map: &ShardMap,
    nodes: &mut [NodeAddress],
    turn: &Turn,
) -> Result<Arc<Fence>, CatalogError> {
    let (roll, me, revision) = match turn {
        Turn::Enrolled { mirror, number } => {
            let Versioned { record, revision } =
                mirror.get::<Roll>().ok_or(CatalogError::Replaced)?;
            (record, *number, revision)
        }
        _ => begin(catalog, turn).await?,
    };
    hold(catalog, revision, me);
    let name = identity(catalog).await?.name;
    let fence = Arc::new(Fence::new(name, me, map.database().to_owned(), Term::from(&roll)));
    for node in nodes.iter_mut() {
        node.fence = Some(Arc::clone(&fence));
    }
    if !turn.is_enrolled() {
        tell(&fence, nodes).await;
    }
    Ok(fence)
}

/// Waits until this process goes by what a commit of its own has said. One that leads and takes who was
/// on the roll before for who is there now finishes nothing of those that died.
async fn reached(mirror: &Mirror, at: Revision) -> Result<(), CatalogError> {
    timeout(HEARS, mirror.reached(at)).await.map_err(|_| CatalogError::Away)
}

/// From now on this process changes the catalog only while it is enrolled.
pub(super) fn hold(catalog: &Catalog, revision: Revision, me: u64) {
    catalog.hold::<Roll>(revision, move |roll| roll.has(me));
}

/// Tells the nodes of the term; whether all that are asked were told.
pub(super) async fn tell(fence: &Fence, nodes: &[NodeAddress]) -> bool {
    let raised = join_all(nodes.iter().map(|node| fence.raise(node))).await;
    let mut all = true;
    for (node, raised) in nodes.iter().zip(raised) {
        if let Err(error) = raised {
            let error = story(&error);
            tracing::warn!(node = node.name, error, "a node was not told who may serve yet");
            all = false;
        }
    }
    all
}

/// The first term of a process that leads: those that served go on, as far as they are there.
async fn begin(catalog: &Catalog, turn: &Turn) -> Result<(Roll, u64, Revision), CatalogError> {
    let stored = catalog.get::<Roll>("").await?;
    let before = stored.as_ref().map(|stored| stored.record.clone()).unwrap_or_default();
    let number = before.number + 1;
    let (mut proxies, mut id) = (Vec::new(), String::new());
    if let Turn::Leads { presence, .. } = turn {
        let there = catalog.list::<Presence>().await?;
        let is_there = |proxy: &Enrolled| {
            let found = there.iter().find(|it| it.record.id == proxy.id);
            found.is_some_and(|it| it.record.folder != presence.folder)
        };
        proxies.extend(before.proxies.into_iter().filter(is_there));
        id.clone_from(&presence.id);
    }
    proxies.push(Enrolled { number, id });
    let roll = Roll { number, proxies, leader: number };
    let expect = stored.map_or(Expect::Absent, |stored| Expect::At(stored.revision));
    let revision = catalog.put(&roll, expect).await?;
    if let Some(mirror) = turn.mirror() {
        reached(mirror, revision).await?;
    }
    Ok((roll, number, revision))
}

/// The first term of a proxy that serves already, and leads from now on.
pub(super) async fn begin_to_lead(
    catalog: &Catalog,
    mirror: &Mirror,
    me: u64,
) -> Result<Versioned<Roll>, CatalogError> {
    let stored = catalog.get::<Roll>("").await?.ok_or(CatalogError::Replaced)?;
    let there = catalog.list::<Presence>().await?;
    let mut roll = stored.record;
    if !roll.has(me) {
        return Err(CatalogError::Replaced);
    }
    roll.number += 1;
    roll.leader = me;
    let is_there = |proxy: &Enrolled| there.iter().any(|it| it.record.id == proxy.id);
    roll.proxies.retain(|proxy| proxy.number == me || is_there(proxy));
    let revision = catalog.put(&roll, Expect::At(stored.revision)).await?;
    hold(catalog, revision, me);
    reached(mirror, revision).await?;
    Ok(Versioned { record: roll, revision })
}

/// What the roll becomes by who is there now, and who is struck off it; `None` if it is as it should be.
pub(super) fn revised(
    roll: &Roll,
    there: &[Versioned<Presence>],
    me: u64,
) -> Option<(Roll, Vec<Enrolled>)> {
    let is_there = |proxy: &Enrolled| {
        proxy.number == me || there.iter().any(|presence| presence.record.id == proxy.id)
    };
    let (mut proxies, gone): (Vec<_>, Vec<_>) =
        roll.proxies.iter().cloned().partition(|proxy| is_there(proxy));
    let number = roll.number + 1;
    // One at a time: the term that enrols it is its number.
    let is_unknown = |it: &Versioned<Presence>| proxies.iter().all(|to| to.id != it.record.id);
    // Of a data folder whose process has ended, and was started again, only the newer one is there.
    let is_old = |it: &Versioned<Presence>| {
        let newer = |by: &Versioned<Presence>| {
            by.record.folder == it.record.folder && by.revision > it.revision
        };
        there.iter().any(newer)
    };
    let new = there.iter().find(|it| is_unknown(it) && !is_old(it));
    let new = new.map(|presence| presence.record.id.clone());
    if gone.is_empty() && new.is_none() {
        return None;
    }
    proxies.extend(new.map(|id| Enrolled { number, id }));
    Some((Roll { number, proxies, leader: me }, gone))
}

/// Stores a revised roll. Who is struck off it is really not there any more, or nothing is stored.
pub(super) async fn store(
    catalog: &Catalog,
    roll: &Roll,
    at: Revision,
    gone: &[Enrolled],
) -> Result<Revision, CatalogError> {
    let absent = |change: Change, proxy: &Enrolled| {
        let presence = Presence { id: proxy.id.clone(), ..Presence::default() };
        change.delete(&presence, Expect::Absent)
    };
    let change = gone.iter().fold(Change::new(), absent).put(roll, Expect::At(at))?;
    catalog.commit(change).await
}

#[cfg(test)]
mod tests {
    use super::revised;
    use crate::catalog::{Revision, Versioned};
    use crate::cluster::{Enrolled, Presence, Roll};

    /// Each of a data folder of its own, but `a2` of that of `a`, as it was started after it.
    fn there(ids: &[&str]) -> Vec<Versioned<Presence>> {
        let presence = |(id, revision): (&&str, u64)| {
            let (id, folder) = ((*id).to_owned(), id[..1].to_owned());
            let record = Presence { id, folder, ..Presence::default() };
            Versioned { record, revision: Revision(revision) }
        };
        ids.iter().zip(1..).map(presence).collect()
    }

    fn enrolled(number: u64, id: &str) -> Enrolled {
        Enrolled { number, id: id.to_owned() }
    }

    #[test]
    fn who_comes_is_enrolled_by_the_term_and_who_is_gone_is_struck_off() {
        let of = |number: u64, proxies: &[Enrolled]| Roll {
            number,
            proxies: proxies.to_vec(),
            leader: 3,
        };
        let roll = of(4, &[enrolled(3, "a"), enrolled(4, "b")]);
        assert_eq!(revised(&roll, &there(&["a", "b"]), 3), None);
        // The one that leads knows that it is there.
        assert_eq!(revised(&roll, &there(&["b"]), 3), None);
        let (next, gone) = revised(&roll, &there(&["a", "c", "d"]), 3).unwrap();
        assert_eq!(next, of(5, &[enrolled(3, "a"), enrolled(5, "c")]));
        assert_eq!(gone, [enrolled(4, "b")]);
        let (next, gone) = revised(&next, &there(&["a", "c", "d"]), 3).unwrap();
        assert_eq!(next.proxies, [enrolled(3, "a"), enrolled(5, "c"), enrolled(6, "d")]);
        assert!(gone.is_empty());
    }

    #[test]
    fn a_process_that_has_ended_is_not_enrolled_after_the_one_that_came_in_its_place() {
        let roll = |number: u64, proxies: &[Enrolled]| Roll {
            number,
            proxies: proxies.to_vec(),
            leader: 3,
        };
        let leads = roll(3, &[enrolled(3, "a2")]);
        assert_eq!(revised(&leads, &there(&["a", "a2"]), 3), None);
        let both = there(&["b", "a", "a2"]);
        let (next, _) = revised(&roll(3, &[enrolled(3, "b")]), &both, 3).unwrap();
        assert_eq!(next.proxies, [enrolled(3, "b"), enrolled(4, "a2")]);
        assert_eq!(revised(&next, &both, 3), None);
    }
}
