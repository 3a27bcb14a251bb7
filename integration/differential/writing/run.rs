//! Runs random writes on both sides, some in a transaction, and compares.

use std::collections::BTreeMap;

use rand::Rng;

use super::shapes::{Generator, Made};
use crate::compare::{Pair, difference, is_ordered};
use crate::fixture::Fixture;
use crate::wire::{Outcome, Wire};

/// What is looked at after each statement.
const TABLES: [&str; 15] = [
    "plans",
    "settings",
    "journal",
    "tenants",
    "orders",
    "items",
    "notes",
    "users",
    "gone",
    "parcels",
    "devices",
    "readings",
    "metrics",
    "users_by_email",
    "users_by_city",
];
/// After so many statements the rows are those of the beginning again.
const FRESH_AFTER: usize = 60;
/// The lookups, and what they should say.
const LOOKUPS: [(&str, &str); 2] = [
    (
        "CREATE TABLE users_by_email (email text PRIMARY KEY, tenant_id bigint NOT NULL)",
        "CREATE VIEW users_by_email AS SELECT email, tenant_id FROM users WHERE email IS NOT NULL",
    ),
    (
        "CREATE TABLE users_by_city (city text, tenant_id bigint, row_count bigint NOT NULL, PRIMARY KEY (city, tenant_id))",
        "CREATE VIEW users_by_city AS SELECT city, tenant_id, count(*) AS row_count FROM users WHERE city IS NOT NULL GROUP BY 1, 2",
    ),
];

/// What has come of the statements so far.
pub struct Run {
    fixture: Fixture,
    pair: Pair,
    generator: Generator,
    count: usize,
    right: usize,
    errors: BTreeMap<String, usize>,
    refused: BTreeMap<String, Vec<String>>,
    /// Those with wrong answers.
    pub wrong: Vec<String>,
    /// Since both sides were last seen to be the same.
    since: Vec<String>,
    until_fresh: usize,
}

impl Run {
    pub async fn start(seed: u64) -> Self {
        let fixture = Fixture::start(include_str!("policy.yaml")).await;
        fixture.define(include_str!("schema.sql")).await;
        fixture.fill(include_str!("rows.sql")).await;
        let (proxy, single) = fixture.clients().await;
        for (table, view) in LOOKUPS {
            proxy.batch_execute(table).await.unwrap();
            single.batch_execute(view).await.unwrap();
        }
        // As a unique lookup is looked at: when the statement is over.
        let unique = "ALTER TABLE users ADD CONSTRAINT email UNIQUE (email) DEFERRABLE";
        single.batch_execute(unique).await.unwrap();
        let pair = fixture.pair().await;
        let generator = Generator::new(seed);
        let (errors, refused) = (BTreeMap::new(), BTreeMap::new());
        let (wrong, since) = (Vec::new(), Vec::new());
        Self {
            fixture,
            pair,
            generator,
            count: 0,
            right: 0,
            errors,
            refused,
            wrong,
            since,
            until_fresh: FRESH_AFTER,
        }
    }

    /// How many statements ran.
    pub fn count(&self) -> u64 {
        self.count as u64
    }

    /// Some statements, as often as not in one transaction.
    pub async fn episode(&mut self) {
        let block = self.generator.words.chance(65);
        let faults = self.wrong.len();
        if block {
            let begin = self.generator.words.pick(&[
                "BEGIN",
                "BEGIN",
                "BEGIN ISOLATION LEVEL REPEATABLE READ",
            ]);
            self.both(begin).await;
            if self.generator.words.chance(50) {
                self.both("CREATE TEMP TABLE scratch (id bigint PRIMARY KEY, name text DEFAULT 'temp', n bigint DEFAULT 2) ON COMMIT DROP").await;
                self.both("INSERT INTO scratch SELECT i, 'tenant ' || i, i % 6 FROM generate_series(1, 12) i").await;
                self.generator.words.scratch = true;
            }
        }
        for _ in 0..self.generator.words.rng.random_range(3..12) {
            self.statement(block).await;
            if self.wrong.len() > faults {
                break;
            }
        }
        self.generator.words.scratch = false;
        if block {
            self.end().await;
        }
        if self.wrong.len() == faults {
            self.compare_tables().await;
        }
        if self.wrong.len() > faults || self.until_fresh == 0 {
            self.refresh().await;
        }
    }

    async fn end(&mut self) {
        let end = self.generator.words.pick(&["ROLLBACK", "COMMIT"]);
        self.since.push(end.to_owned());
        let proxy = self.pair.proxy.simple(end).await;
        if let Some(message) = proxy.refused() {
            self.refused.entry(kind_of(message)).or_default().push(end.to_owned());
            self.pair.single.simple("ROLLBACK").await;
            return;
        }
        let single = self.pair.single.simple(end).await;
        if proxy != single {
            self.wrong.push(format!("{end}\n{}", difference(&proxy, &single)));
        }
    }

    async fn refresh(&mut self) {
        let (proxy, single) = self.fixture.clients().await;
        for client in [&proxy, &single] {
            for tables in [
                "tenants, orders, items, notes, users, gone",
                "parcels",
                "devices, readings",
                "metrics",
                "settings, journal",
            ] {
                client.batch_execute(&format!("TRUNCATE {tables}")).await.unwrap();
            }
            client.batch_execute("DELETE FROM plans").await.unwrap();
        }
        self.fixture.fill(include_str!("rows.sql")).await;
        self.until_fresh = FRESH_AFTER;
        self.since.clear();
    }

    async fn both(&mut self, sql: &str) {
        self.since.push(sql.to_owned());
        let (proxy, single) =
            (self.pair.proxy.simple(sql).await, self.pair.single.simple(sql).await);
        if proxy != single {
            self.wrong.push(format!("{sql}\n{}", difference(&proxy, &single)));
        }
    }

    async fn statement(&mut self, block: bool) {
        let made = self.generator.statement();
        self.count += 1;
        self.until_fresh = self.until_fresh.saturating_sub(1);
        // A statement that fails may have taken numbers, or none.
        let number = 1_000 + self.count * 10;
        self.both(&format!(
            "SELECT setval('journal_id_seq', {number}), setval('parcels_id_seq', {number})"
        ))
        .await;
        if block {
            self.both("SAVEPOINT before").await;
        }
        self.since.push(format!("{} {:?}", made.sql, made.parameters));
        let proxy = outcome(&mut self.pair.proxy, &made).await;
        if let Some(message) = proxy.refused() {
            let kind = kind_of(message);
            self.refused.entry(kind).or_default().push(made.sql);
            self.since.push("-- refused".to_owned());
        } else {
            let single = outcome(&mut self.pair.single, &made).await;
            self.judge(&made, &proxy, &single);
        }
        if block {
            let end = if proxy.error.is_some() || self.generator.words.chance(15) {
                "ROLLBACK TO before"
            } else {
                "RELEASE before"
            };
            self.both(end).await;
        }
        if self.generator.words.chance(60) {
            self.compare_tables().await;
        }
    }

    fn judge(&mut self, made: &Made, proxy: &Outcome, single: &Outcome) {
        let same = match (&proxy.error, &single.error) {
            // Of several that rows fail any may be the first to be met.
            (Some((a, _)), Some((b, _))) => a == b || by_row(a) && by_row(b),
            _ => proxy == single,
        };
        if !same {
            let given = &made.parameters;
            self.wrong.push(format!("{} {given:?}\n{}", made.sql, difference(proxy, single)));
            return;
        }
        self.right += 1;
        if let Some((code, message)) = &single.error {
            *self.errors.entry(format!("{code} {}", kind_of(message))).or_default() += 1;
        }
    }

    /// All tables hold the same rows on both sides.
    async fn compare_tables(&mut self) {
        let mut different = Vec::new();
        let all = TABLES.map(|table| format!("SELECT '{table}', x.* FROM {table} x"));
        let all = all.join("; ");
        let proxy = self.pair.proxy.simple(&all).await.normal(false);
        let single = self.pair.single.simple(&all).await.normal(false);
        if proxy.error.is_some() || single.error.is_some() {
            different.push(difference(&proxy, &single));
        } else if proxy.rows != single.rows {
            let only = |some: &Outcome, others: &Outcome| {
                let rows = some.rows.iter().filter(|row| !others.rows.contains(row)).cloned();
                Outcome { rows: rows.collect(), ..Outcome::default() }
            };
            different.push(format!("{} rows and {} rows", proxy.rows.len(), single.rows.len()));
            different.push(difference(&only(&proxy, &single), &only(&single, &proxy)));
        }
        if !different.is_empty() {
            let since = self.since.join("\n   ");
            self.wrong.push(format!("other rows after\n   {since}\n{}", different.join("\n")));
        }
        self.since.clear();
    }

    /// Prints the shares, and what was refused why.
    pub fn print(&self) {
        let refused: usize = self.refused.values().map(Vec::len).sum();
        let failed: usize = self.errors.values().sum();
        println!(
            "{} statements: {} right ({failed} of them errors), {refused} refused, {} wrong",
            self.count,
            self.right,
            self.wrong.len()
        );
        let show = std::env::var("WRITES_SHOW").is_ok();
        let mut kinds: Vec<_> = self.refused.iter().collect();
        kinds.sort_by_key(|(_, statements)| std::cmp::Reverse(statements.len()));
        for (kind, statements) in kinds {
            println!("{:5} {kind}", statements.len());
            for sql in statements.iter().take(if show { 40 } else { 0 }) {
                println!("          {sql}");
            }
        }
        if show {
            println!("{:#?}", self.errors);
        }
    }
}

/// Whether it is an error of single rows: a constraint, or a row that ON CONFLICT meets twice.
fn by_row(code: &str) -> bool {
    code.starts_with("23") || code == "21000"
}

async fn outcome(wire: &mut Wire, made: &Made) -> Outcome {
    let outcome = match &made.parameters {
        Some(parameters) => wire.binary(&made.sql, parameters).await,
        None => wire.simple(&made.sql).await,
    };
    // Those of a query come in its order.
    let ordered = made.sql.starts_with("SELECT") && is_ordered(&made.sql);
    outcome.normal(ordered)
}

/// A message without the names and numbers in it.
fn kind_of(message: &str) -> String {
    let mut kind = String::new();
    for (at, part) in message.split('"').enumerate() {
        kind.push_str(if at % 2 == 0 { part } else { "…" });
    }
    kind.chars().filter(|c| !c.is_ascii_digit()).take(200).collect()
}
