//! Several proxies that serve at once: who they are, and what each has to have heard before another
//! one goes on.
//!
//! All of it is records of the catalog, which each proxy has a current copy of ([`Mirror`]). One of
//! them leads: it says who is *enrolled*, moves shards and forecasts. What must not happen on one proxy
//! while something goes on at another one is kept apart by *barriers*: a record that every other proxy
//! answers, once it has done its part, by a record of its own. A proxy that dies keeps nobody waiting:
//! it is struck off the roll, and the nodes let it in no more.

mod barrier;
mod definitions;
mod holding;
mod records;
mod tend;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

pub use self::barrier::Closing;
pub use self::definitions::Definitions;
pub use self::records::{Barred, Barrier, Enrolled, Holding, HoldingSession, Presence, Roll};
use crate::catalog::{Catalog, Mirror};

/// This proxy among those that serve from one catalog. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cluster {
    catalog: Catalog,
    /// Newer maps of this proxy's own making that are not to be put in force yet.
    kept_maps: Arc<AtomicUsize>,
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    mirror: Mirror,
    me: u64,
    leads: AtomicBool,
    /// Numbers barriers and requests.
    count: AtomicU64,
    live: Mutex<Live>,
    /// Something of this proxy's own has ended.
    ended: Notify,
}

/// What this proxy has written and still needs.
#[derive(Debug, Default)]
struct Live {
    barriers: BTreeSet<String>,
    /// Its request to change definitions.
    definitions: Option<u64>,
    /// Who is struck off the roll, and may still have sessions on nodes.
    leaving: BTreeSet<u64>,
    /// What older leaders have left is taken over: it can go.
    took_over: bool,
}

impl Cluster {
    /// One proxy, and no other.
    pub fn alone(catalog: Catalog) -> Self {
        Self { catalog, kept_maps: Arc::default(), shared: None }
    }

    /// One of several, enrolled by this number.
    pub fn shared(catalog: Catalog, mirror: Mirror, me: u64) -> Self {
        let shared = Shared {
            mirror,
            me,
            leads: AtomicBool::new(false),
            count: AtomicU64::new(0),
            live: Mutex::default(),
            ended: Notify::new(),
        };
        Self { catalog, kept_maps: Arc::default(), shared: Some(Arc::new(shared)) }
    }

    /// What all of them tell each other, if there may be several.
    pub fn mirror(&self) -> Option<&Mirror> {
        self.shared.as_ref().map(|shared| &shared.mirror)
    }

    /// Whether what the newest map says is still being committed, here or by another proxy: it is not to
    /// be put in force before that is done. Look at it after the map was read.
    pub fn keeps_map(&self) -> bool {
        let elsewhere = || self.barriers().iter().any(|it| it.barred == Barred::Map);
        self.kept_maps.load(Ordering::SeqCst) > 0 || elsewhere()
    }

    /// This proxy's number, if there may be several.
    pub fn me(&self) -> Option<u64> {
        self.shared.as_ref().map(|shared| shared.me)
    }

    /// Whether this one moves shards and finishes what dead ones left.
    pub fn leads(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.leads.load(Ordering::SeqCst))
    }

    /// From now on this one leads.
    pub fn lead(&self) {
        if let Some(shared) = &self.shared {
            shared.leads.store(true, Ordering::SeqCst);
            shared.ended.notify_one();
        }
    }

    /// This one leads, and has finished or undone what others had begun.
    pub fn took_over(&self) {
        if let Some(shared) = &self.shared {
            shared.live.lock().took_over = true;
            shared.ended.notify_one();
        }
    }

    /// Whether a proxy with this number may serve.
    pub fn is_enrolled(&self, number: u64) -> bool {
        self.shared.as_ref().is_some_and(|shared| {
            let roll = shared.mirror.get::<Roll>();
            roll.is_some_and(|roll| roll.record.has(number))
                || shared.live.lock().leaving.contains(&number)
        })
    }

    /// The numbers of those that are on the roll, and of those that were struck off it and may still
    /// have sessions on nodes.
    pub fn enrolled_and_leaving(&self) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let Some(shared) = &self.shared else { return (BTreeSet::new(), BTreeSet::new()) };
        // In this order: who is struck off is leaving before.
        let roll = shared.mirror.get::<Roll>();
        let enrolled = roll.into_iter().flat_map(|roll| roll.record.numbers()).collect();
        (enrolled, shared.live.lock().leaving.clone())
    }

    /// Who is struck off the roll now is waited for until [`Self::all_left`].
    pub fn leaving(&self, numbers: &[u64]) {
        if let Some(shared) = &self.shared {
            shared.live.lock().leaving.extend(numbers);
        }
    }

    /// They stay, or nobody waits for them any more.
    pub fn left(&self, numbers: &[u64]) {
        if let Some(shared) = &self.shared {
            shared.live.lock().leaving.retain(|number| !numbers.contains(number));
        }
    }

    /// No node lets any of them in any more, and none of their sessions is left.
    pub fn all_left(&self) {
        if let Some(shared) = &self.shared {
            shared.live.lock().leaving.clear();
        }
    }

    /// Whether somebody is waited for who was struck off the roll.
    pub fn are_leaving(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| !shared.live.lock().leaving.is_empty())
    }

    /// The other proxies that serve and are there, by their numbers.
    pub fn serving_elsewhere(&self) -> Vec<(u64, Presence)> {
        let Some(shared) = &self.shared else { return Vec::new() };
        let roll = shared.mirror.get::<Roll>().map(|roll| roll.record).unwrap_or_default();
        let there = shared.mirror.list::<Presence>().into_iter().map(|presence| presence.record);
        let number = |presence: &Presence| {
            let enrolled = roll.proxies.iter().find(|proxy| proxy.id == presence.id);
            enrolled.map(|proxy| proxy.number).filter(|number| *number != shared.me)
        };
        there.filter_map(|presence| Some((number(&presence)?, presence))).collect()
    }

    /// The one that leads, if it is another one and there.
    pub fn leader(&self) -> Option<Presence> {
        let leader = self.shared.as_ref().filter(|_| !self.leads())?.mirror.get::<Roll>()?;
        let others = self.serving_elsewhere().into_iter();
        let mut leaders = others.filter(|(number, _)| *number == leader.record.leader);
        leaders.next().map(|(_, presence)| presence)
    }

    /// The others that serve: their numbers.
    fn others(&self) -> Vec<u64> {
        let Some(shared) = &self.shared else { return Vec::new() };
        let roll = shared.mirror.get::<Roll>();
        let enrolled = roll.into_iter().flat_map(|roll| roll.record.proxies);
        let mut others: Vec<u64> = enrolled.map(|proxy| proxy.number).collect();
        others.extend(&shared.live.lock().leaving);
        others.retain(|number| *number != shared.me);
        others
    }
}
