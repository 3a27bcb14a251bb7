//! The catalog of several proxies, of which one leads: in etcd.
//!
//! Every commit is one transaction of etcd. An answer that is lost does not say whether it was
//! applied, so each commit also writes an entry of its own, its *slot*, on the condition that
//! nobody has written it since: of all attempts at a commit one at the most is ever applied, and
//! what stands in the slot says whether one was. A commit whose outcome can't be learned in time is
//! settled before anything else is read or written.
//!
//! A proxy commits only while the entry that it [holds](super::Kv::hold) is its own: one that was
//! replaced changes nothing, whatever it still believes.

mod commit;
mod follow;
mod gateway;
mod lead;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::commit::{Sent, Slot};
use self::gateway::{Failure, Gateway, decoded, encoded, number};
pub use self::lead::{Lead, Leader, Present};
use super::kv::{CatalogError, Entry, Kv, Op, Revision, Still};
use crate::backend::{Password, TlsFiles, TlsMode};

/// How long the cluster may take to answer, whichever member does.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long to wait before another member is asked.
const PAUSE: Duration = Duration::from_millis(100);
/// Entries of one answer.
const PAGE: u64 = 500;
/// Where the slots of all processes are.
const SLOTS: &str = "etcd/slots/";

/// Where an etcd cluster is, and how it is spoken to.
#[derive(Clone)]
pub struct EtcdConfig {
    /// Its members, each `http://host:port` or `https://host:port`; not empty.
    pub endpoints: Vec<String>,
    /// What all keys of this catalog begin with; ends in `/`.
    pub prefix: String,
    /// Who to log in as.
    pub user: Option<(String, Password)>,
    /// How long a proxy that is not heard of is thought to be there.
    pub lease: Duration,
    /// All proxies of this catalog serve, not only the one that leads.
    pub all_serve: bool,
    /// How members are known by their certificates, and how this proxy is known.
    files: TlsFiles,
    tls: Arc<rustls::ClientConfig>,
}

impl EtcdConfig {
    /// The same with TLS by these files; why they are of no use.
    pub fn with_tls(mut self, files: TlsFiles) -> Result<Self, String> {
        self.tls = Arc::new(files.client_config(TlsMode::VerifyFull)?);
        self.files = files;
        Ok(self)
    }

    /// A cluster without TLS.
    ///
    /// # Errors
    /// That TLS can't be set up at all.
    pub fn new(endpoints: Vec<String>, prefix: String, lease: Duration) -> Result<Self, String> {
        let files = TlsFiles::default();
        let tls = Arc::new(files.client_config(TlsMode::Require)?);
        let (user, all_serve) = (None, false);
        Ok(Self { endpoints, prefix, user, lease, all_serve, files, tls })
    }
}

impl PartialEq for EtcdConfig {
    fn eq(&self, other: &Self) -> bool {
        let parts = |it: &Self| {
            let etcd = (it.endpoints.clone(), it.prefix.clone(), it.user.clone());
            (etcd, it.lease, it.all_serve, it.files.clone())
        };
        parts(self) == parts(other)
    }
}

impl std::fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("EtcdConfig");
        shown.field("endpoints", &self.endpoints).field("prefix", &self.prefix);
        shown.finish_non_exhaustive()
    }
}

/// A catalog in etcd, of the proxy that leads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EtcdKv {
    gateway: Arc<Gateway>,
    prefix: Arc<str>,
    /// The folder of its slots.
    slots: Arc<str>,
    state: Arc<Mutex<State>>,
    /// Another proxy leads.
    replaced: CancellationToken,
}

/// What is known of the slots.
#[derive(Debug, Default)]
struct State {
    free: Vec<Slot>,
    /// How many there are.
    made: usize,
    /// Commits whose outcome is not known.
    unsettled: Vec<Sent>,
    /// The entry that makes this proxy one that may commit.
    held: Option<Held>,
}

/// An entry that commits hang on.
#[derive(Clone)]
struct Held {
    key: String,
    revision: Revision,
    /// Whether a later one is as good.
    still: Still,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Held");
        shown.field("key", &self.key).field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl EtcdKv {
    /// For a process of this name, which no other has.
    fn new(gateway: Arc<Gateway>, prefix: &str, name: &str) -> Self {
        let (state, replaced) = (Arc::default(), CancellationToken::new());
        Self { gateway, prefix: prefix.into(), slots: name.into(), state, replaced }
    }

    fn key(&self, key: &str) -> String {
        encoded(format!("{}{key}", self.prefix))
    }

    /// Reads, at whichever member answers.
    async fn ask(&self, path: &str, body: &Value) -> Result<Value, CatalogError> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.gateway.call(path, body).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::NotReached { .. } | Failure::NoAnswer { .. })
                    if Instant::now() < deadline => {}
                Err(failure) => return Err(store("reading", failure)),
            }
            sleep(PAUSE).await;
        }
    }

    async fn read(&self, key: &str) -> Result<Option<Entry>, CatalogError> {
        self.settle().await?;
        let answer = self.ask("kv/range", &json!({ "key": self.key(key) })).await?;
        self.entries(&answer).map(|mut found| found.pop())
    }

    /// All of a prefix as they are at one moment.
    async fn scan(&self, prefix: &str) -> Result<Vec<Entry>, CatalogError> {
        self.settle().await?;
        let end = encoded(end_of(format!("{}{prefix}", self.prefix).into_bytes()));
        self.all_between(self.key(prefix), &end).await.map(|(entries, _)| entries)
    }

    /// What stands between two keys, in the gateway's words, as it is at one moment; and at which.
    async fn all_between(
        &self,
        mut from: String,
        end: &str,
    ) -> Result<(Vec<Entry>, u64), CatalogError> {
        let (mut at, mut all) = (0, Vec::new());
        loop {
            let request = json!({
                "key": from, "range_end": end, "limit": PAGE.to_string(), "revision": at.to_string(),
            });
            let answer = self.ask("kv/range", &request).await?;
            let page = self.entries(&answer)?;
            if let Some(last) = page.last() {
                from = self.key(&format!("{}\0", last.key));
            }
            all.extend(page);
            if at == 0 {
                at = number(&answer["header"]["revision"]);
            }
            if answer["more"] != true {
                return Ok((all, at));
            }
        }
    }

    fn entries(&self, answer: &Value) -> Result<Vec<Entry>, CatalogError> {
        let found = answer["kvs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let entries: Option<Vec<Entry>> = found.iter().map(|found| self.entry(found)).collect();
        entries.ok_or_else(|| store("reading", std::io::Error::other("its answer is not valid")))
    }

    fn entry(&self, found: &Value) -> Option<Entry> {
        let key = String::from_utf8(decoded(&found["key"])?).ok()?;
        Some(Entry {
            key: key.strip_prefix(&*self.prefix)?.to_owned(),
            value: decoded(&found["value"])?,
            revision: Revision(number(&found["mod_revision"])),
        })
    }
}

impl Kv for EtcdKv {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, CatalogError>> {
        let key = key.to_owned();
        Box::pin(async move { self.read(&key).await })
    }

    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<Entry>, CatalogError>> {
        let prefix = prefix.to_owned();
        Box::pin(async move { self.scan(&prefix).await })
    }

    fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Revision, CatalogError>> {
        Box::pin(async move {
            let committed = self.apply(&ops).await;
            if matches!(committed, Err(CatalogError::Replaced)) {
                self.replaced.cancel();
            }
            committed
        })
    }

    fn is_away(&self) -> bool {
        self.gateway.is_away()
    }

    fn hold(&self, key: &str, revision: Revision, still: Still) {
        self.state.lock().held = Some(Held { key: key.to_owned(), revision, still });
    }
}

/// Wraps an error with what was tried.
fn store<E: std::error::Error + Send + Sync + 'static>(
    doing: &'static str,
    source: E,
) -> CatalogError {
    CatalogError::Store { doing, source: Box::new(source) }
}

/// The first key after all that begin with this one.
fn end_of(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < 0xff {
            prefix.push(last + 1);
            return prefix;
        }
    }
    vec![0]
}
