//! The store of one proxy: a file, no other service.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use serde::{Deserialize, Serialize};

use super::kv::{CatalogError, Entry, Expect, Kv, Op, Revision};

/// Key → (revision, value).
const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
/// The newest revision, under the empty key.
const NEWEST: TableDefinition<'_, &str, u64> = TableDefinition::new("newest");

/// A catalog in one file, locked by the process that has it open.
#[derive(Debug, Clone)]
pub struct EmbeddedKv {
    database: Arc<Database>,
    /// Which commit has last changed each key since the file was opened.
    touched: Arc<Mutex<BTreeMap<String, u64>>>,
    /// The newest commit when it was opened.
    opened_at: u64,
}

/// A part of what another process copies from a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// All until this commit is in the copy once the last page is.
    pub newest: u64,
    /// It is one of all entries, not only of those that have changed: what is on none of the pages is
    /// gone.
    pub whole: bool,
    /// Keys with their values as base64; without one it is gone.
    pub entries: Vec<(String, Option<String>)>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<String>,
}

impl Page {
    /// Takes what stands at these keys, as long as there is room.
    fn fill(
        &mut self,
        database: &Database,
        keys: impl Iterator<Item = String>,
        bytes_max: usize,
    ) -> Result<(), redb::Error> {
        let table = database.begin_read()?.open_table(ENTRIES)?;
        let mut bytes = 0;
        for key in keys {
            if bytes > bytes_max {
                self.next = Some(key);
                return Ok(());
            }
            let found = table.get(key.as_str())?;
            let value = found.map(|found| STANDARD.encode(found.value().1));
            bytes += value.as_ref().map_or(0, String::len);
            self.entries.push((key, value));
        }
        Ok(())
    }
}

impl EmbeddedKv {
    /// Opens the file at `path`, or makes it. Fails if another process has it open.
    pub fn open(path: &Path) -> Result<Self, CatalogError> {
        let database = Database::create(path).map_err(store("opening the file"))?;
        prepare(&database).map_err(store("opening the file"))?;
        let opened_at = newest(&database).map_err(store("opening the file"))?;
        Ok(Self { database: Arc::new(database), touched: Arc::default(), opened_at })
    }

    /// What stands at keys with these prefixes and was changed after a commit, from a key on; about
    /// `bytes_max` of it.
    ///
    /// # Errors
    /// The file can't be read.
    pub async fn page(
        &self,
        prefixes: &'static [&'static str],
        (after, from): (u64, String),
        bytes_max: usize,
    ) -> Result<Page, CatalogError> {
        let whole = after < self.opened_at;
        let is_meant = move |key: &str| prefixes.iter().any(|prefix| key.starts_with(prefix));
        let changed: Option<Vec<String>> = (!whole).then(|| {
            let touched = self.touched.lock();
            let later = touched.range(from.clone()..).filter(|(_, at)| **at > after);
            later.map(|(key, _)| key.clone()).filter(|key| is_meant(key)).collect()
        });
        let read = move |database: &Database| {
            let mut page = Page { newest: newest(database)?, whole, ..Page::default() };
            let keys = match changed {
                Some(keys) => keys,
                None => keys(database, &from)?.into_iter().filter(|key| is_meant(key)).collect(),
            };
            page.fill(database, keys.into_iter(), bytes_max)?;
            Ok(page)
        };
        let read =
            move |database: &Database| read(database).map_err(store::<redb::Error>("reading"));
        self.blocking("reading", read).await
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Database) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let database = Arc::clone(&self.database);
        tokio::task::spawn_blocking(move || work(&database)).await.map_err(store(doing))?
    }
}

impl Kv for EmbeddedKv {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, CatalogError>> {
        let key = key.to_owned();
        Box::pin(self.blocking("reading", move |db| read(db, &key).map_err(store("reading"))))
    }

    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<Entry>, CatalogError>> {
        let prefix = prefix.to_owned();
        Box::pin(self.blocking("reading", move |db| scan(db, &prefix).map_err(store("reading"))))
    }

    fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Revision, CatalogError>> {
        let touched = Arc::clone(&self.touched);
        Box::pin(self.blocking("committing", move |db| {
            let revision = write(db, &ops)?;
            touched.lock().extend(ops.into_iter().map(|op| (op.key, revision.0)));
            Ok(revision)
        }))
    }
}

/// Wraps a store's error with what was tried.
fn store<E: std::error::Error + Send + Sync + 'static>(
    doing: &'static str,
) -> impl FnOnce(E) -> CatalogError {
    move |source| CatalogError::Store { doing, source: Box::new(source) }
}

/// Makes the tables of a new file.
fn prepare(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(ENTRIES)?;
    write.open_table(NEWEST)?;
    Ok(write.commit()?)
}

/// All keys from one on.
fn keys(database: &Database, from: &str) -> Result<Vec<String>, redb::Error> {
    let table = database.begin_read()?.open_table(ENTRIES)?;
    let mut keys = Vec::new();
    for found in table.range(from..)? {
        keys.push(found?.0.value().to_owned());
    }
    Ok(keys)
}

/// The newest commit.
fn newest(database: &Database) -> Result<u64, redb::Error> {
    let table = database.begin_read()?.open_table(NEWEST)?;
    Ok(table.get("")?.map_or(0, |value| value.value()))
}

fn read(database: &Database, key: &str) -> Result<Option<Entry>, redb::Error> {
    let table = database.begin_read()?.open_table(ENTRIES)?;
    Ok(table.get(key)?.map(|found| entry(key, found.value())))
}

fn scan(database: &Database, prefix: &str) -> Result<Vec<Entry>, redb::Error> {
    let table = database.begin_read()?.open_table(ENTRIES)?;
    let mut entries = Vec::new();
    for found in table.range(prefix..)? {
        let (key, value) = found?;
        if !key.value().starts_with(prefix) {
            break;
        }
        entries.push(entry(key.value(), value.value()));
    }
    Ok(entries)
}

fn entry(key: &str, (revision, value): (u64, &[u8])) -> Entry {
    Entry { key: key.to_owned(), value: value.to_vec(), revision: Revision(revision) }
}

fn write(database: &Database, ops: &[Op]) -> Result<Revision, CatalogError> {
    let doing = "committing";
    let transaction = database.begin_write().map_err(store(doing))?;
    if let Some(op) = unmet(&transaction, ops).map_err(store(doing))? {
        return Err(CatalogError::Conflict(op.key.clone()));
    }
    let revision = apply(&transaction, ops).map_err(store(doing))?;
    transaction.commit().map_err(store(doing))?;
    Ok(revision)
}

/// The first of `ops` whose condition does not hold.
fn unmet<'a>(
    transaction: &redb::WriteTransaction,
    ops: &'a [Op],
) -> Result<Option<&'a Op>, redb::Error> {
    let entries = transaction.open_table(ENTRIES)?;
    for op in ops {
        let stored = entries.get(op.key.as_str())?.map(|found| Revision(found.value().0));
        let met = match op.expect {
            Expect::Anything => true,
            Expect::Absent => stored.is_none(),
            Expect::At(revision) => stored == Some(revision),
        };
        if !met {
            return Ok(Some(op));
        }
    }
    Ok(None)
}

fn apply(transaction: &redb::WriteTransaction, ops: &[Op]) -> Result<Revision, redb::Error> {
    let mut newest = transaction.open_table(NEWEST)?;
    let revision = newest.get("")?.map_or(0, |value| value.value()) + 1;
    newest.insert("", revision)?;
    let mut entries = transaction.open_table(ENTRIES)?;
    for op in ops {
        match &op.value {
            Some(value) => entries.insert(op.key.as_str(), (revision, value.as_slice()))?,
            None => entries.remove(op.key.as_str())?,
        };
    }
    Ok(Revision(revision))
}
