//! A part of the catalog as this process has it in memory, kept current by the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::kv::{Entry, Revision};
use super::records::{Record, Versioned, read};

/// What stands in a part of the catalog. Cheap to clone: all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    entries: Arc<RwLock<BTreeMap<String, Entry>>>,
    /// The newest commit that is in it; 0 before it has anything.
    current: watch::Sender<Revision>,
}

/// A change of one entry; without a value, its end.
#[derive(Debug)]
pub(super) struct Altered {
    pub(super) key: String,
    pub(super) entry: Option<Entry>,
}

impl Mirror {
    /// The records of a type, in the order of their ids. What can't be read is left out.
    pub fn list<R: Record>(&self) -> Vec<Versioned<R>> {
        let entries = self.entries.read();
        let of_type = entries.range(R::PREFIX.to_owned()..);
        let of_type = of_type.take_while(|(key, _)| key.starts_with(R::PREFIX));
        of_type.filter_map(|(_, entry)| read(entry.clone()).ok()).collect()
    }

    /// The one record of a type.
    pub fn get<R: Record>(&self) -> Option<Versioned<R>> {
        self.entries.read().get(R::PREFIX).and_then(|entry| read(entry.clone()).ok())
    }

    /// The commit that wrote the one record of a type; 0 if there is none.
    pub fn revision<R: Record>(&self) -> Revision {
        self.entries.read().get(R::PREFIX).map_or(Revision(0), |entry| entry.revision)
    }

    /// Changes with what is in it.
    pub fn watch(&self) -> watch::Receiver<Revision> {
        self.current.subscribe()
    }

    /// Waits until it has what a commit has written. Cancel safe; give it a deadline.
    pub async fn reached(&self, at: Revision) {
        let mut current = self.current.subscribe();
        drop(current.wait_for(|current| *current >= at).await);
    }

    /// Puts all of it in place, as it was at a commit; the keys that have changed.
    pub(super) fn replace(&self, entries: Vec<Entry>, at: Revision) -> Vec<String> {
        let new: BTreeMap<_, _> =
            entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        let mut known = self.entries.write();
        let gone = known.keys().filter(|key| !new.contains_key(*key)).cloned();
        let come = new.iter().filter(|(key, entry)| known.get(*key) != Some(entry));
        let changed = gone.chain(come.map(|(key, _)| key.clone())).collect();
        *known = new;
        drop(known);
        self.current.send_replace(at);
        changed
    }

    /// Puts what a commit has changed in place.
    pub(super) fn apply(&self, changes: Vec<Altered>, at: Revision) -> Vec<String> {
        let mut known = self.entries.write();
        let mut keys = Vec::new();
        for Altered { key, entry } in changes {
            keys.push(key.clone());
            match entry {
                Some(entry) => known.insert(key, entry),
                None => known.remove(&key),
            };
        }
        drop(known);
        self.current.send_replace(at);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::{Altered, Mirror};
    use crate::catalog::kv::{Entry, Revision};

    fn entry(key: &str, revision: u64) -> Entry {
        Entry { key: key.to_owned(), value: vec![], revision: Revision(revision) }
    }

    #[tokio::test]
    async fn it_is_waited_for_until_it_has_a_commit() {
        let mirror = Mirror::default();
        mirror.replace(vec![entry("a", 4)], Revision(4));
        mirror.reached(Revision(4)).await;
        let (waits, soon) = (mirror.clone(), std::time::Duration::from_millis(20));
        let reached = waits.reached(Revision(6));
        tokio::pin!(reached);
        mirror.apply(vec![], Revision(5));
        assert!(tokio::time::timeout(soon, &mut reached).await.is_err());
        mirror.apply(vec![], Revision(7));
        reached.await;
    }

    #[test]
    fn it_tells_what_has_changed() {
        let mirror = Mirror::default();
        assert_eq!(*mirror.watch().borrow(), Revision(0));
        assert_eq!(mirror.replace(vec![entry("a", 1), entry("b", 2)], Revision(2)), ["a", "b"]);
        let gone = Altered { key: "a".to_owned(), entry: None };
        assert_eq!(mirror.apply(vec![gone], Revision(3)), ["a"]);
        let anew = vec![entry("b", 2), entry("c", 4)];
        assert_eq!(mirror.replace(anew, Revision(4)), ["c"]);
        assert_eq!(mirror.replace(vec![entry("c", 5)], Revision(5)), ["b", "c"]);
        assert_eq!(*mirror.watch().borrow(), Revision(5));
    }
}
