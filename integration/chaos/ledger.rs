//! What the clients know: which transactions must be there, which must not, what nobody may ever
//! have seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::RwLock;
use tokio_postgres::Error;
use tokio_util::sync::CancellationToken;

/// Tenants 1 to this many have an account and a purse of two slots.
pub const TENANTS: i64 = 48;
/// What is in the two slots of every purse together.
pub const PURSE: i64 = 1_000;

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// COMMIT was answered.
    Acknowledged,
    /// COMMIT was sent and not answered.
    Unknown,
    /// It failed before.
    Failed,
}

/// A transaction that wrote an entry for each of these tenants, and counted each of their accounts
/// up.
#[derive(Debug, Clone)]
pub struct Written {
    pub tenants: Vec<i64>,
    pub outcome: Outcome,
}

/// SQLSTATEs, or classes of them, that a client may get when nodes and proxies die: not reachable,
/// cut off, cancelled, serialization and deadlock, no resources, lock timeout.
const EXPECTED: [&str; 7] = ["08", "40", "53", "55P03", "57", "58", "25P03"];

/// What all clients know together.
pub struct Ledger {
    /// Held shared by each transaction; the audit takes it for itself.
    pub turn: RwLock<()>,
    pub stop: CancellationToken,
    written: Mutex<BTreeMap<(i32, i64), Written>>,
    /// The version that somebody has seen of each account, or was told of.
    floors: Vec<AtomicI64>,
    violations: Mutex<Vec<String>>,
    errors: Mutex<BTreeMap<String, (u64, String)>>,
    transactions: AtomicU64,
    longest: Mutex<Duration>,
}

impl Ledger {
    pub fn new() -> Self {
        Self {
            turn: RwLock::new(()),
            stop: CancellationToken::new(),
            written: Mutex::default(),
            floors: (0..=TENANTS).map(|_| AtomicI64::new(0)).collect(),
            violations: Mutex::default(),
            errors: Mutex::default(),
            transactions: AtomicU64::new(0),
            longest: Mutex::default(),
        }
    }

    /// Notes what became of a transaction.
    pub fn wrote(&self, id: (i32, i64), tenants: Vec<i64>, outcome: Outcome) {
        if outcome == Outcome::Acknowledged {
            self.transactions.fetch_add(1, Ordering::Relaxed);
        }
        self.written.lock().insert(id, Written { tenants, outcome });
    }

    /// What was written since it was last taken; all accounts begin at 0 again.
    pub fn take_written(&self) -> BTreeMap<(i32, i64), Written> {
        for floor in &self.floors {
            floor.store(0, Ordering::Relaxed);
        }
        std::mem::take(&mut *self.written.lock())
    }

    /// The version that an account has at least.
    pub fn floor(&self, tenant: i64) -> i64 {
        self.floor_of(tenant).load(Ordering::Relaxed)
    }

    /// Somebody has seen this version of an account, committed.
    pub fn raise(&self, tenant: i64, version: i64) {
        self.floor_of(tenant).fetch_max(version, Ordering::Relaxed);
    }

    fn floor_of(&self, tenant: i64) -> &AtomicI64 {
        &self.floors[usize::try_from(tenant).unwrap()]
    }

    /// Something that must never be.
    pub fn violation(&self, what: String) {
        println!("VIOLATION: {what}");
        self.violations.lock().push(what);
    }

    /// All that must never be and was.
    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    /// Notes an error that a client got; it is a violation unless a fault explains it.
    pub fn error(&self, doing: &str, error: &Error) {
        let code = error.code().map_or("closed", |code| code.code());
        let text = format!("{doing}: {error:?}");
        let mut errors = self.errors.lock();
        let (count, _) = errors.entry(code.to_owned()).or_insert_with(|| (0, text.clone()));
        *count += 1;
        drop(errors);
        let expected =
            error.code().is_none() || EXPECTED.iter().any(|class| code.starts_with(class));
        if !expected {
            self.violation(text);
        }
    }

    /// A transaction took so long.
    pub fn took(&self, long: Duration) {
        let mut longest = self.longest.lock();
        *longest = longest.max(long);
    }

    /// In words.
    pub fn summary(&self) -> String {
        let errors = self.errors.lock();
        let errors: Vec<String> =
            errors.iter().map(|(code, (count, _))| format!("{code} {count}")).collect();
        format!(
            "{} transactions acknowledged, longest {:?}, errors: {}",
            self.transactions.load(Ordering::Relaxed),
            *self.longest.lock(),
            errors.join(", ")
        )
    }
}
