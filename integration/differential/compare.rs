//! Runs a statement on both sides and says whether the answers are the same.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::wire::{Outcome, Wire};

/// The two sides: through the proxy, and one PostgreSQL.
pub struct Pair {
    /// Through the proxy.
    pub proxy: Wire,
    /// One PostgreSQL with the same rows.
    pub single: Wire,
}

/// One statement of a file.
pub struct Statement {
    /// Its text, without the semicolon.
    pub sql: String,
    /// The rows may come in any order though ORDER BY is written.
    pub unordered: bool,
    /// Parameters, as text, for the extended protocol; such a statement is run by that only.
    pub parameters: Option<Vec<Option<String>>>,
}

/// What came of the statements of one file.
#[expect(clippy::struct_excessive_bools, reason = "a set of independent marks")]
pub struct Report {
    name: String,
    ways: BTreeMap<String, usize>,
    /// How many gave the same on both sides.
    pub right: usize,
    /// The extended protocol is not tried where there are no parameters.
    pub text_only: bool,
    /// Only the extended protocol is.
    pub binary_only: bool,
    /// The statements hang together: each is run once on each side.
    pub script: bool,
    in_block: bool,
    /// How long each statement took: through the proxy, on the single PostgreSQL.
    pub took: Vec<(Duration, Duration)>,
    /// The statements that were refused, each with the message.
    pub refused: Vec<String>,
    /// The statements with wrong answers, each with what differs.
    pub wrong: Vec<String>,
}

/// The statements of a file: each ends with a semicolon at the end of a line. Lines of comment
/// before it may say `unordered` or `parameters: a | b | NULL`.
pub fn statements(text: &str) -> Vec<Statement> {
    let mut found = Vec::new();
    let (mut sql, mut unordered, mut parameters) = (String::new(), false, None);
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("-- ") {
            unordered |= comment == "unordered";
            if let Some(values) = comment.strip_prefix("parameters: ") {
                let value = |v: &str| (v.trim() != "NULL").then(|| v.trim().to_owned());
                parameters = Some(values.split('|').map(value).collect());
            }
            continue;
        }
        sql.push_str(line);
        if let Some(whole) = sql.trim().strip_suffix(';') {
            let sql = whole.to_owned();
            found.push(Statement { sql, unordered, parameters: parameters.take() });
            unordered = false;
        } else {
            sql.push('\n');
            continue;
        }
        sql.clear();
    }
    assert!(sql.trim().is_empty(), "the file ends inside of a statement: {sql}");
    found
}

/// Whether the rows' order is part of the answer: ORDER BY stands in no parentheses.
pub fn is_ordered(sql: &str) -> bool {
    let (mut depth, lower) = (0, sql.to_lowercase());
    let order = |(at, byte): (usize, u8)| {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        depth == 0 && lower[at..].starts_with("order by")
    };
    lower.bytes().enumerate().filter(|(at, _)| lower.is_char_boundary(*at)).any(order)
}

/// The first OID of types that an installation makes itself: they differ from server to server.
const FIRST_OWN_OID: u32 = 16_384;
/// `record`, `record[]`: their binary form holds OIDs.
const RECORDS: [u32; 2] = [2249, 2287];

impl Outcome {
    pub fn normal(mut self, ordered: bool) -> Self {
        for column in &mut self.columns {
            if column.1 >= FIRST_OWN_OID {
                column.1 = FIRST_OWN_OID;
            }
        }
        if !ordered {
            self.rows.sort();
        }
        if self.error.is_some() {
            // How far a statement came before its error is not part of the answer.
            self.rows.clear();
            self.columns.clear();
        }
        self
    }

    pub fn refused(&self) -> Option<&str> {
        self.error.as_ref().filter(|(code, _)| code == "0A000").map(|(_, message)| &**message)
    }

    /// The places of columns that may hold OIDs.
    pub fn with_oids(&self) -> Vec<usize> {
        let oids = self.columns.iter().map(|(_, oid, _)| *oid);
        let holds = |oid: &u32| *oid >= FIRST_OWN_OID || RECORDS.contains(oid);
        oids.enumerate().filter(|(_, oid)| holds(oid)).map(|(at, _)| at).collect()
    }

    pub fn hide(&mut self, columns: &[usize]) {
        for row in &mut self.rows {
            for at in columns {
                if let Some(Some(value)) = row.get_mut(*at) {
                    value.clear();
                }
            }
        }
    }
}

impl Report {
    /// An empty one.
    pub fn new(name: &str) -> Self {
        let name = name.to_owned();
        Self {
            name,
            ways: BTreeMap::new(),
            right: 0,
            text_only: false,
            binary_only: false,
            script: false,
            in_block: false,
            took: Vec::new(),
            refused: Vec::new(),
            wrong: Vec::new(),
        }
    }

    /// Runs a statement on both sides in both protocols.
    pub async fn add(&mut self, pair: &mut Pair, statement: &Statement) {
        let ordered = !statement.unordered && is_ordered(&statement.sql);
        let mut binary = true;
        if statement.parameters.is_none() && !self.binary_only {
            let started = Instant::now();
            let single = pair.single.simple(&statement.sql).await;
            let single_took = started.elapsed();
            binary = !self.text_only;
            let proxy = pair.proxy.simple(&statement.sql).await;
            self.took.push((started.elapsed().saturating_sub(single_took), single_took));
            if !self.judge("text", statement, &proxy.normal(ordered), &single.normal(ordered)) {
                return;
            }
        }
        if binary {
            let parameters = statement.parameters.clone().unwrap_or_default();
            let mut single = pair.single.binary(&statement.sql, &parameters).await;
            let mut proxy = pair.proxy.binary(&statement.sql, &parameters).await;
            let oids = single.with_oids();
            for outcome in [&mut single, &mut proxy] {
                outcome.hide(&oids);
            }
            let (single, proxy) = (single.normal(ordered), proxy.normal(ordered));
            if !self.judge("binary", statement, &proxy, &single) {
                return;
            }
        }
        self.right += 1;
        let read = ["SELECT", "WITH", "INSERT", "UPDATE", "DELETE", "MERGE", "TABLE", "("];
        let upper = statement.sql.to_uppercase();
        // An error of EXPLAIN would end a block.
        self.in_block = match upper.split([' ', ';']).next() {
            Some("BEGIN") => true,
            Some("COMMIT" | "ROLLBACK") if !upper.contains(" TO ") => false,
            _ => self.in_block,
        };
        let skipped = self.binary_only || self.in_block;
        if self.script && (skipped || !read.iter().any(|word| upper.starts_with(word))) {
            return;
        }
        let way = way(&mut pair.proxy, statement).await;
        *self.ways.entry(way).or_default() += 1;
    }

    /// Whether the answers are the same. With 0A000 on the other side, too, they are.
    fn judge(&mut self, form: &str, of: &Statement, proxy: &Outcome, single: &Outcome) -> bool {
        let same_error = match (&proxy.error, &single.error) {
            (Some((proxy, _)), Some((single, _))) => proxy == single,
            _ => false,
        };
        if same_error || proxy == single {
            return true;
        }
        if let Some(message) = proxy.refused() {
            self.refused.push(format!("{}\n      {message}", of.sql));
        } else {
            self.wrong.push(format!("[{form}] {}\n{}", of.sql, difference(proxy, single)));
        }
        false
    }

    /// Prints the shares, and what was refused.
    pub fn print(&self) {
        let all = self.right + self.refused.len() + self.wrong.len();
        let (refused, wrong) = (self.refused.len(), self.wrong.len());
        let ways: Vec<_> = self.ways.iter().map(|(way, count)| format!("{way} {count}")).collect();
        println!(
            "{}: {all} statements, {} right ({}), {refused} refused, {wrong} wrong",
            self.name,
            self.right,
            ways.join(", ")
        );
        for refused in &self.refused {
            println!("  refused: {refused}");
        }
    }
}

/// The way of a statement, as EXPLAIN through the proxy says.
async fn way(proxy: &mut Wire, statement: &Statement) -> String {
    let sql = format!("EXPLAIN (COSTS OFF) {}", statement.sql);
    let parameters = statement.parameters.clone().unwrap_or_default();
    let explained = proxy.binary(&sql, &parameters).await;
    let first = explained.rows.first().and_then(|row| row.first()).cloned().flatten();
    let first = String::from_utf8(first.unwrap_or_default()).unwrap();
    match first.strip_prefix("Way: ") {
        Some("one node") | None => "node".to_owned(),
        Some(way) => way.split(&[' ', ',', ';'][..]).next().unwrap_or_default().to_owned(),
    }
}

/// Both, for whoever reads the failure.
pub fn difference(proxy: &Outcome, single: &Outcome) -> String {
    let show = |outcome: &Outcome| {
        let rows = outcome.rows.iter().map(|row| {
            let value = |value: &Option<Vec<u8>>| {
                value.as_ref().map_or("∅".into(), |v| String::from_utf8_lossy(v).into_owned())
            };
            row.iter().map(value).collect::<Vec<_>>().join("|")
        });
        let shown: Vec<_> = rows.take(12).collect();
        format!(
            "{:?} {:?} {:?} {} rows:\n        {}",
            outcome.error,
            outcome.columns,
            outcome.tags,
            outcome.rows.len(),
            shown.join("\n        ")
        )
    };
    format!("   proxy:  {}\n   single: {}", show(proxy), show(single))
}
