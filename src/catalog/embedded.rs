//! The store of one proxy: a file, no other service.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::kv::{CatalogError, Entry, Expect, Kv, Op, Revision};

/// Key → (revision, value).
const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
/// The newest revision, under the empty key.
const NEWEST: TableDefinition<'_, &str, u64> = TableDefinition::new("newest");

/// A catalog in one file, locked by the process that has it open.
#[derive(Debug, Clone)]
pub struct EmbeddedKv {
    database: Arc<Database>,
}

impl EmbeddedKv {
    /// Opens the file at `path`, or makes it. Fails if another process has it open.
    pub fn open(path: &Path) -> Result<Self, CatalogError> {
        let database = Database::create(path).map_err(store("opening the file"))?;
        prepare(&database).map_err(store("opening the file"))?;
        Ok(Self { database: Arc::new(database) })
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
        Box::pin(self.blocking("committing", move |db| write(db, &ops)))
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
