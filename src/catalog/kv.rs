//! The interface that a store has to offer.

use std::sync::Arc;

use futures_util::future::BoxFuture;

/// The number of the commit that wrote an entry; grows with each commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

/// A stored value and the commit that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The full key.
    pub key: String,
    /// The bytes as they were put.
    pub value: Vec<u8>,
    /// The commit that wrote it.
    pub revision: Revision,
}

/// What must be true of a key for a commit to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Anything,
    /// The key does not exist.
    Absent,
    /// The key was last written by this commit.
    At(Revision),
}

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// The key to write.
    pub key: String,
    /// The new value; `None` deletes.
    pub value: Option<Vec<u8>>,
    /// The condition; if one of a commit fails, none of its changes is applied.
    pub expect: Expect,
}

/// Why the catalog did not do it.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Somebody else wrote the key first: read again and decide anew.
    #[error("the catalog's entry {0:?} was changed by another writer")]
    Conflict(String),
    /// The store can't be read or written.
    #[error("the catalog's store failed while {doing}")]
    Store {
        /// What was tried.
        doing: &'static str,
        /// The store's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store did not answer in time: the change was applied, or will never be. The next that is
    /// read says which.
    #[error("the catalog's store did not say in time whether a change was stored")]
    Unknown,
    /// Nobody of the store answers now.
    #[error("the catalog's store is not reached")]
    Away,
    /// Another proxy leads: this one changes nothing any more.
    #[error("another proxy has taken over the catalog")]
    Replaced,
    /// An entry is not what its key says it is.
    #[error("the catalog's entry {key:?} can't be read")]
    Corrupt {
        /// The entry's key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// Whether the one who commits may still do so, by the value of the entry that it holds.
pub type Still = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// A small ordered key-value store with atomic, conditional commits.
pub trait Kv: Send + Sync {
    /// The entry at `key`.
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, CatalogError>>;

    /// All entries whose key starts with `prefix`, in order.
    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<Entry>, CatalogError>>;

    /// Applies all of `ops` or none; durable when it returns. A commit that is dropped midway is
    /// still applied or not as a whole.
    fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Revision, CatalogError>>;

    /// Whether nobody answers now, so that a commit is better not tried.
    fn is_away(&self) -> bool {
        false
    }

    /// From now on a commit is applied only while the entry at `key` is the one of this revision, or a
    /// later one of which `still` is true. A store that only one process can have open needs none of
    /// that.
    fn hold(&self, _key: &str, _revision: Revision, _still: Still) {}
}
