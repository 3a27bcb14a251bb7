//! The same statements through the proxy, over three nodes, and against one PostgreSQL that holds
//! the same rows: names, types, rows, command tags and SQLSTATEs must be equal, in text and binary.
//! A refusal (0A000) is counted apart; a wrong answer fails the test.
#![allow(clippy::print_stdout, reason = "the shares are for whoever runs the test")]
#![allow(unreachable_pub, reason = "the parts of one test binary")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod app;
mod chains;
mod clinic;
mod compare;
mod fixture;
mod random;
mod reduced;
mod saas;
#[path = "../support/mod.rs"]
mod support;
mod tpch;
mod wire;
mod writing;

use compare::{Report, statements};
use fixture::Fixture;
use foreshard::executor;

/// Runs every statement of a file and prints the shares.
async fn run(fixture: &Fixture, name: &str, text: &str) -> Report {
    let mut report = Report::new(name);
    let mut pair = fixture.pair().await;
    for statement in statements(text) {
        report.add(&mut pair, &statement).await;
    }
    report.print();
    report
}

#[tokio::test]
async fn ordinary_queries_give_what_one_postgresql_gives() {
    let fixture = Fixture::shop().await;
    fixture.define(include_str!("shop/views.sql")).await;
    let mut wrong = Vec::new();
    for (name, text) in [
        ("plain", include_str!("statements/plain.sql")),
        ("aggregates", include_str!("statements/aggregates.sql")),
        ("order", include_str!("statements/order.sql")),
        ("joins", include_str!("statements/joins.sql")),
        ("subqueries", include_str!("statements/subqueries.sql")),
        ("sets", include_str!("statements/sets.sql")),
        ("types", include_str!("statements/types.sql")),
        ("errors", include_str!("statements/errors.sql")),
        ("views", include_str!("statements/views.sql")),
    ] {
        wrong.extend(run(&fixture, name, text).await.wrong);
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn all_22_queries_of_tpc_h_give_what_one_postgresql_gives() {
    let fixture = tpch::fixture().await;
    let mut report = Report::new("tpc-h");
    report.text_only = true;
    let mut pair = fixture.pair().await;
    for statement in statements(include_str!("tpch/queries.sql")) {
        report.add(&mut pair, &statement).await;
    }
    report.print();
    let took = report.took.iter().enumerate();
    let shown = took.map(|(at, (proxy, single))| {
        format!("q{} {}/{}", at + 1, proxy.as_millis(), single.as_millis())
    });
    println!("ms through the proxy / alone: {}", shown.collect::<Vec<_>>().join(", "));
    assert!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
    assert_eq!(report.right, 22);
}

#[tokio::test]
async fn transactions_see_what_they_wrote_on_any_node() {
    let fixture = Fixture::shop().await;
    let mut report = Report::new("transactions");
    (report.text_only, report.script) = (true, true);
    let mut pair = fixture.pair().await;
    for statement in statements(include_str!("statements/transactions.sql")) {
        report.add(&mut pair, &statement).await;
    }
    report.print();
    assert!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
    assert_eq!(report.refused.len(), 0, "{:?}", report.refused);
}

#[tokio::test]
async fn prepare_and_execute_give_what_one_postgresql_gives() {
    let fixture = Fixture::shop().await;
    for (name, text_only, text) in [
        ("prepared", false, include_str!("statements/prepared.sql")),
        ("prepared in blocks", true, include_str!("statements/prepared_in_blocks.sql")),
    ] {
        let mut report = Report::new(name);
        (report.text_only, report.script) = (text_only, true);
        let mut pair = fixture.pair().await;
        for statement in statements(text) {
            report.add(&mut pair, &statement).await;
        }
        report.print();
        assert!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
        assert_eq!(report.refused.len(), 0, "{:?}", report.refused);
    }
}

#[tokio::test]
async fn what_the_connection_that_merges_cannot_see_is_refused() {
    let fixture = Fixture::shop().await;
    let mut pair = fixture.pair().await;
    pair.proxy.simple("BEGIN").await;
    let made =
        "CREATE FUNCTION twice(n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT n * 2'";
    assert_eq!(pair.proxy.simple(made).await.error, None);
    let other = pair.proxy.simple("SELECT sum(id), count(DISTINCT name) FROM tenants").await;
    assert_eq!(other.error, None);
    let cursor = "DECLARE c CURSOR FOR SELECT sum(twice(id)) FROM tenants";
    let refused = pair.proxy.simple(cursor).await;
    assert_eq!(refused.error.unwrap().0, "0A000");
    pair.proxy.simple("ROLLBACK").await;
    pair.proxy.simple("CREATE VIEW named AS SELECT id, name FROM tenants").await;
    pair.proxy.simple("BEGIN").await;
    let renamed = pair.proxy.simple("ALTER TABLE tenants RENAME name TO title").await;
    assert_eq!(renamed.error, None);
    // The view's query is another one now.
    let refused = pair.proxy.simple("SELECT count(DISTINCT name) FROM named").await;
    assert_eq!(refused.error.unwrap().0, "0A000");
    pair.proxy.simple("ROLLBACK").await;
    pair.proxy.simple("CREATE TEMP VIEW picked AS SELECT 5::bigint AS id").await;
    let joined = "SELECT t.id FROM tenants t JOIN picked p ON p.id = t.id";
    let refused = pair.proxy.simple(joined).await;
    assert_eq!(refused.error.unwrap().0, "0A000");
}

#[tokio::test]
async fn a_pull_past_its_limits_ends_with_an_error_and_the_session_goes_on() {
    let limits = executor::Config {
        pull_rows_max: 50,
        pull_timeout_ms: 2_000,
        ..executor::Config::default()
    };
    let fixture = Fixture::shop_limited(limits).await;
    let mut pair = fixture.pair().await;
    // The nodes still do their part after definitions of other tables.
    for sql in [
        "BEGIN",
        "CREATE TABLE of_its_own (id int)",
        "SELECT max(status), count(*) FROM orders GROUP BY status ORDER BY 1",
        "ROLLBACK",
    ] {
        assert_eq!(pair.proxy.simple(sql).await.error, None, "{sql}");
    }
    let joined = "SELECT count(*) FROM tenants t JOIN users u ON u.tenant_id = t.id";
    for _ in 0..3 {
        let over = pair.proxy.simple(joined).await;
        assert_eq!(over.error.unwrap().0, "53400");
        // What the nodes do themselves is not limited.
        let counted = pair.proxy.simple("SELECT count(*) FROM orders").await;
        assert_eq!((counted.error, counted.rows.len()), (None, 1));
    }
    let slow = "SELECT pg_sleep(10), row_number() OVER () FROM tenants WHERE id > 55";
    let over = pair.proxy.simple(slow).await;
    assert_eq!(over.error.unwrap().0, "57014");
    pair.proxy.simple("BEGIN").await;
    assert_eq!(pair.proxy.simple(joined).await.error.unwrap().0, "53400");
    assert_eq!(pair.proxy.simple("SELECT 1").await.error.unwrap().0, "25P02");
    pair.proxy.simple("ROLLBACK").await;
    assert_eq!(pair.proxy.simple("SELECT count(*) FROM orders").await.error, None);
}

#[tokio::test]
async fn only_rows_that_can_have_a_partner_are_brought_together() {
    let limits = executor::Config { pull_rows_max: 50, ..executor::Config::default() };
    let fixture = Fixture::shop_limited(limits).await;
    let mut report = Report::new("keys");
    let mut pair = fixture.pair().await;
    for statement in statements(include_str!("statements/keys.sql")) {
        report.add(&mut pair, &statement).await;
    }
    report.print();
    assert!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
    assert_eq!(report.refused.len(), 0, "{:?}", report.refused);
    let joined = "SELECT o.id FROM users u JOIN orders o ON o.tenant_id = u.tenant_id";
    let explained = pair.proxy.simple(&format!("EXPLAIN {joined} WHERE u.score = 5")).await;
    let lines = explained.rows.concat().into_iter().flatten();
    let lines: Vec<_> = lines.map(|line| String::from_utf8(line).unwrap()).collect();
    let keys = "where tenant_id is among tenant_id of \"foreshard 0\"";
    assert!(lines.iter().any(|line| line.ends_with(keys)), "{lines:?}");
}

/// A node that gives no rows of the first table keeps others waiting in their snapshots.
#[tokio::test]
async fn after_a_deadline_no_connection_keeps_its_snapshot() {
    let limits = executor::Config { pull_timeout_ms: 1_000, ..executor::Config::default() };
    let fixture = Fixture::shop_limited(limits).await;
    let mut pair = fixture.pair().await;
    let (other, _) = fixture.clients().await;
    let joined = "SELECT count(*) FROM users u JOIN orders o ON o.tenant_id = u.tenant_id \
        WHERE u.score = 5";
    let count = |rows: Vec<Vec<Option<Vec<u8>>>>| {
        let value = rows.concat().pop().flatten().unwrap();
        String::from_utf8(value).unwrap().parse::<u32>().unwrap()
    };
    let mut before = count(pair.proxy.simple(joined).await.rows);
    for user in 1..=6 {
        let lock = format!(
            "/* foreshard: key(users) = 'locked {user}' */ \
             DO $$ BEGIN LOCK TABLE users IN ACCESS EXCLUSIVE MODE; END $$"
        );
        other.batch_execute("BEGIN").await.unwrap();
        other.batch_execute(&lock).await.unwrap();
        assert_eq!(pair.proxy.simple(joined).await.error.unwrap().0, "57014");
        other.batch_execute("ROLLBACK").await.unwrap();
        // Tenant 5 has one of the users, and tenants' orders are on all nodes.
        for tenant in [5, 25] {
            let sql = format!("INSERT INTO orders (tenant_id, id) VALUES ({tenant}, {user})");
            other.batch_execute(&sql).await.unwrap();
        }
        let after = pair.proxy.simple(joined).await;
        assert_eq!(after.error, None);
        let after = count(after.rows);
        assert!(after > before, "{after} rows after {before}");
        before = after;
    }
}

#[tokio::test]
async fn more_values_than_are_sent_leave_no_row_out() {
    let fixture = Fixture::shop().await;
    let users = "INSERT INTO users (email, tenant_id, score) SELECT 'many' || i, i, 777 \
        FROM generate_series(1, 10001) i";
    let orders =
        "INSERT INTO orders (tenant_id, id) SELECT i, 1 FROM generate_series(9000, 10001) i";
    let mut pair = fixture.pair().await;
    for sql in [users, orders] {
        assert_eq!(pair.proxy.simple(sql).await.error, None);
        assert_eq!(pair.single.simple(sql).await.error, None);
    }
    let mut report = Report::new("many keys");
    report.text_only = true;
    let count = "SELECT count(*), sum(o.id) FROM users u JOIN orders o ON o.tenant_id = u.tenant_id \
        WHERE u.score = 777;\n";
    // One value fewer is sent.
    for text in [count.to_owned(), count.replace("777", "777 AND u.tenant_id > 1")] {
        report.add(&mut pair, &statements(&text)[0]).await;
    }
    assert!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
    assert_eq!(report.right, 2, "{:?}", report.refused);
}

/// `DIFFERENTIAL_SEED` and `DIFFERENTIAL_COUNT` choose others.
#[tokio::test]
async fn random_queries_give_what_one_postgresql_gives() {
    let number = |name, default| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let seed = number("DIFFERENTIAL_SEED", 20_261_121);
    let count = number("DIFFERENTIAL_COUNT", 400);
    println!("seed {seed}, {count} queries");
    let fixture = Fixture::shop().await;
    let mut generator = random::Generator::new(seed);
    let mut report = Report::new("random");
    let mut pair = fixture.pair().await;
    for _ in 0..count {
        report.add(&mut pair, &generator.statement()).await;
    }
    report.print();
    assert!(report.wrong.is_empty(), "{} wrong:\n{}", report.wrong.len(), report.wrong.join("\n"));
}
