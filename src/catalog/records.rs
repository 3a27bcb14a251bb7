//! Typed records over the store, and the one place that knows every key.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::kv::{CatalogError, Entry, Expect, Kv, Op, Revision};
use crate::forecast::{Credit, Event};
use crate::load::Chunk;
use crate::placement::Decision;
use crate::shard_map::ShardMap;
use crate::shard_move::{Job, Move};

/// Records that stay with the process, in a file of its own, where several share a catalog: too much
/// for a store that is replicated, and nothing that rows depend on.
const LOCAL: [&str; 4] = ["history/", "accuracy/", "heritage", "process"];

/// Those of them that a proxy which does not lead copies from the one that does, to lead by them.
pub const REPLICATED: &[&str] = &["history/", "accuracy/", "heritage"];

/// Whether what stands at a key, or below it, stays with the process.
pub fn is_local(key: &str) -> bool {
    LOCAL.iter().any(|prefix| key.starts_with(prefix))
}

/// A type that the catalog stores. Keys in use, each in this file:
/// `map`, `moves/`, `jobs/`, `transactions/`, `decisions/`, `events/`, `clients/`, `history/`,
/// `heritage`, `accuracy/`.
pub trait Record: Serialize + DeserializeOwned {
    /// Where records of this type stand: a full key, or a prefix that ends in `/`.
    const PREFIX: &'static str;

    /// The rest of the key; empty where there is only one record of the type. Numbers are padded,
    /// so that keys sort as numbers do.
    fn id(&self) -> String;
}

impl Record for ShardMap {
    const PREFIX: &'static str = "map";

    fn id(&self) -> String {
        String::new()
    }
}

impl Record for Move {
    const PREFIX: &'static str = "moves/";

    fn id(&self) -> String {
        numbered(self.id.0)
    }
}

impl Record for Job {
    const PREFIX: &'static str = "jobs/";

    fn id(&self) -> String {
        numbered(self.id.0)
    }
}

impl Record for Decision {
    const PREFIX: &'static str = "decisions/";

    fn id(&self) -> String {
        numbered(self.id)
    }
}

impl Record for Event {
    const PREFIX: &'static str = "events/";

    fn id(&self) -> String {
        self.name.clone()
    }
}

impl Record for Credit {
    const PREFIX: &'static str = "clients/";

    fn id(&self) -> String {
        self.client.clone()
    }
}

impl Record for Chunk {
    const PREFIX: &'static str = "history/";

    fn id(&self) -> String {
        format!("{:012}/{:020}", self.step_ms, self.number)
    }
}

/// A record and the commit that wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<R> {
    /// The record.
    pub record: R,
    /// For [`Expect::At`].
    pub revision: Revision,
}

/// The changes of one commit, built record by record: all local, or none.
#[derive(Debug, Default)]
pub struct Change {
    ops: Vec<Op>,
    local: bool,
    /// The types of its records, by their prefixes.
    types: Vec<&'static str>,
}

impl Change {
    /// No change yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also writes `record`, if what `expect` says is true of its key.
    pub fn put<R: Record>(mut self, record: &R, expect: Expect) -> Result<Self, CatalogError> {
        let key = key(record);
        let value = serde_json::to_vec(record)
            .map_err(|source| CatalogError::Corrupt { key: key.clone(), source })?;
        self.push::<R>(Op { key, value: Some(value), expect });
        Ok(self)
    }

    /// Also deletes `record`, if what `expect` says is true of its key.
    #[must_use]
    pub fn delete<R: Record>(mut self, record: &R, expect: Expect) -> Self {
        self.push::<R>(Op { key: key(record), value: None, expect });
        self
    }

    fn push<R: Record>(&mut self, op: Op) {
        debug_assert!(
            self.ops.is_empty() || self.local == is_local(R::PREFIX),
            "no commit is in two stores"
        );
        self.local = is_local(R::PREFIX);
        if !self.types.contains(&R::PREFIX) {
            self.types.push(R::PREFIX);
        }
        self.ops.push(op);
    }
}

/// Reads and writes typed records. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    kv: Arc<dyn Kv>,
    /// Of what [`is_local`].
    local: Arc<dyn Kv>,
    /// Who waits for changes of a type of record, by its prefix.
    watched: Arc<Mutex<BTreeMap<&'static str, watch::Sender<()>>>>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").finish_non_exhaustive()
    }
}

impl Catalog {
    /// A catalog in `kv`.
    pub fn new(kv: Arc<dyn Kv>) -> Self {
        Self::beside(Arc::clone(&kv), kv)
    }

    /// A catalog in `kv`, and in `local` what is of this process.
    pub fn beside(kv: Arc<dyn Kv>, local: Arc<dyn Kv>) -> Self {
        Self { kv, local, watched: Arc::default() }
    }

    fn store_of<R: Record>(&self) -> &dyn Kv {
        if is_local(R::PREFIX) { &*self.local } else { &*self.kv }
    }

    /// The record with this id; the id is empty for a type with one record.
    pub async fn get<R: Record>(&self, id: &str) -> Result<Option<Versioned<R>>, CatalogError> {
        let entry = self.store_of::<R>().get(&format!("{}{id}", R::PREFIX)).await?;
        entry.map(read).transpose()
    }

    /// All records of a type, in the order of their ids.
    pub async fn list<R: Record>(&self) -> Result<Vec<Versioned<R>>, CatalogError> {
        self.store_of::<R>().range(R::PREFIX).await?.into_iter().map(read).collect()
    }

    /// Applies all of a change or nothing; durable when it returns.
    pub async fn commit(&self, change: Change) -> Result<Revision, CatalogError> {
        let store = if change.local { &self.local } else { &self.kv };
        let committed = store.commit(change.ops).await;
        // Also what failed may have been stored: who looks sees.
        let watched = self.watched.lock();
        for watch in change.types.iter().filter_map(|prefix| watched.get(prefix)) {
            watch.send_replace(());
        }
        committed
    }

    /// Writes one record.
    pub async fn put<R: Record>(
        &self,
        record: &R,
        expect: Expect,
    ) -> Result<Revision, CatalogError> {
        self.commit(Change::new().put(record, expect)?).await
    }

    /// From now on changes are stored only while the one record of a type is the one of this revision,
    /// or a later one of which `still` is true.
    pub fn hold<R: Record>(
        &self,
        revision: Revision,
        still: impl Fn(&R) -> bool + Send + Sync + 'static,
    ) {
        let read = move |value: &[u8]| serde_json::from_slice(value).is_ok_and(|it| still(&it));
        self.kv.hold(R::PREFIX, revision, Arc::new(read));
    }

    /// Whether a change is better not tried: nobody answers.
    pub fn is_away(&self) -> bool {
        self.kv.is_away()
    }

    /// Wakes those who wait for changes of what stands at this key: another process has changed it.
    pub fn heard(&self, key: &str) {
        let watched = self.watched.lock();
        for (_, watch) in watched.iter().filter(|(prefix, _)| key.starts_with(**prefix)) {
            watch.send_replace(());
        }
    }

    /// Changes with each commit of records of a type that goes through this catalog, or is
    /// [`Self::heard`] of.
    pub fn watch<R: Record>(&self) -> watch::Receiver<()> {
        self.watched.lock().entry(R::PREFIX).or_default().subscribe()
    }
}

/// The id of a record that has a number: in the order of the numbers.
pub fn numbered(number: u64) -> String {
    format!("{number:020}")
}

fn key<R: Record>(record: &R) -> String {
    format!("{}{}", R::PREFIX, record.id())
}

pub(super) fn read<R: Record>(entry: Entry) -> Result<Versioned<R>, CatalogError> {
    let record = serde_json::from_slice(&entry.value)
        .map_err(|source| CatalogError::Corrupt { key: entry.key, source })?;
    Ok(Versioned { record, revision: entry.revision })
}
