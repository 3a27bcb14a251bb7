//! Queries of which the nodes do a part: few rows are given to the merging statement in place, many
//! in a temporary table; either way they give what one PostgreSQL gives.

use super::compare::{Pair, Report, Statement};
use super::fixture::Fixture;

const POLICY: &str = "
groups:
  codes: { key: bigint, shards: 8, tables: { codes: tenant_id } }
  alone: { key: bigint, shards: 1, tables: { alone: id } }
";

const SCHEMA: &str = "
CREATE TABLE codes (tenant_id bigint NOT NULL, id bigint NOT NULL, code char(3), bits bit(4),
  total numeric(6,2), at timestamp(0), name text COLLATE \"C\", size int, PRIMARY KEY (tenant_id, id));
";

const ROWS: &str = "
INSERT INTO codes SELECT i % 40, i, 'a' || i % 10, (i % 16)::bit(4), i / 100.0,
  timestamp '2024-01-01' + i * interval '1 hour', chr(60 + i % 60) || i, i
  FROM generate_series(1, 3000) i
";

/// 9,000 values: more than are given in place.
const MANY: &str = "SELECT id, code, name FROM codes ORDER BY name";

fn statement(sql: &str, parameters: Option<&[&str]>) -> Statement {
    let parameters = parameters.map(|all| all.iter().map(|one| Some((*one).to_owned())).collect());
    Statement { sql: sql.to_owned(), unordered: false, parameters }
}

/// Runs each statement twice: the second time what PostgreSQL said of it is known.
async fn twice(report: &mut Report, pair: &mut Pair, sql: &str, parameters: Option<&[&str]>) {
    for _ in 0..2 {
        report.add(pair, &statement(sql, parameters)).await;
    }
}

fn assert_right(report: &Report) {
    assert!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
    assert!(report.refused.is_empty(), "{}", report.refused.join("\n"));
}

async fn fixture() -> Fixture {
    let fixture = Fixture::start(POLICY).await;
    fixture.define(SCHEMA).await;
    fixture.fill(ROWS).await;
    fixture
}

#[tokio::test]
async fn few_rows_and_many_give_what_one_postgresql_gives() {
    let fixture = fixture().await;
    let mut pair = fixture.pair().await;
    let mut report = Report::new("reduced");
    for sql in [
        "SELECT count(*), sum(total), avg(size), min(at), max(name), max(code) FROM codes",
        "SELECT name, sum(size) FROM codes WHERE id < 99 GROUP BY name ORDER BY name",
        "SELECT * FROM codes ORDER BY name DESC LIMIT 7",
        "SELECT DISTINCT code FROM codes ORDER BY code",
        "SELECT count(*), sum(size), min(name) FROM codes WHERE id < 0",
        "SELECT code, count(*) FROM codes WHERE id < 0 GROUP BY code",
        "SELECT bits, count(*) FROM codes GROUP BY bits HAVING count(*) > 187 ORDER BY bits",
        MANY,
        "SELECT DISTINCT id, code, name FROM codes ORDER BY name, id",
    ] {
        twice(&mut report, &mut pair, sql, None).await;
    }
    for (sql, parameters) in [
        ("SELECT count(*) FROM codes WHERE code = $1", &["a1"][..]),
        ("SELECT count(*) FROM codes WHERE bits = $1", &["1010"]),
        (
            "SELECT max(total), min(at) FROM codes WHERE total < $1 AND at > $2",
            &["7.25", "2024-01-09"],
        ),
        ("SELECT name FROM codes WHERE size > $1 ORDER BY name LIMIT $2", &["20", "3"]),
    ] {
        twice(&mut report, &mut pair, sql, Some(parameters)).await;
    }
    assert_right(&report);
}

/// Of a table on the home node alone no node sends rows.
#[tokio::test]
async fn a_table_of_which_only_the_home_node_has_rows_is_joined() {
    let fixture = fixture().await;
    fixture.define("CREATE TABLE alone (id bigint PRIMARY KEY, size int);").await;
    let mut pair = fixture.pair().await;
    for side in [&mut pair.proxy, &mut pair.single] {
        let filled = side.simple("INSERT INTO alone VALUES (1, 9), (2, 10), (3, 11)").await;
        assert_eq!(filled.error, None);
    }
    let mut report = Report::new("reduced, at home");
    let sql = "SELECT a.id, c.name FROM alone a JOIN codes c ON c.size = a.size ORDER BY a.id";
    twice(&mut report, &mut pair, sql, None).await;
    twice(&mut report, &mut pair, "SELECT count(*) FROM alone", None).await;
    assert_right(&report);
}

#[tokio::test]
async fn definitions_that_change_count_at_once() {
    let fixture = fixture().await;
    let mut pair = fixture.pair().await;
    let mut report = Report::new("reduced, redefined");
    let sql = "SELECT sum(total), max(size), min(name) FROM codes";
    let sorted = "SELECT id, name, size FROM codes ORDER BY name COLLATE \"C\", size, id LIMIT 9";
    for sql in [sql, sorted] {
        twice(&mut report, &mut pair, sql, None).await;
    }
    for change in [
        "ALTER TABLE codes ALTER total TYPE numeric(12,5)",
        "UPDATE codes SET total = total + 0.00123",
        "ALTER TABLE codes ALTER size TYPE bigint",
        "UPDATE codes SET size = size + 3000000000 WHERE tenant_id = 7",
        "ALTER TABLE codes ALTER name TYPE varchar(20) COLLATE \"und-x-icu\"",
    ] {
        for side in [&mut pair.proxy, &mut pair.single] {
            assert_eq!(side.simple(change).await.error, None, "{change}");
        }
        for sql in [sql, sorted] {
            twice(&mut report, &mut pair, sql, None).await;
        }
    }
    assert_right(&report);
}

#[tokio::test]
async fn few_rows_need_no_temporary_table() {
    let fixture = fixture().await;
    let (proxy, _) = fixture.clients().await;
    let database: String = proxy.query_one("SELECT current_database()", &[]).await.unwrap().get(0);
    let role = format!("reader_{database}");
    for sql in [
        format!("REVOKE TEMPORARY ON DATABASE \"{database}\" FROM PUBLIC"),
        format!("CREATE ROLE \"{role}\""),
        format!("GRANT SELECT ON codes TO \"{role}\""),
        format!("SET ROLE \"{role}\""),
    ] {
        let done = proxy.batch_execute(&sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    for _ in 0..2 {
        let counted = proxy.query_one("SELECT count(*) FROM codes", &[]).await.unwrap();
        assert_eq!(counted.get::<_, i64>(0), 3_000);
        let first = proxy.query("SELECT name FROM codes ORDER BY name LIMIT 5", &[]).await;
        assert_eq!(first.unwrap().len(), 5);
    }
    // Rows in an order are merged by the proxy, however many they are.
    assert_eq!(proxy.query(MANY, &[]).await.unwrap().len(), 3_000);
    let many = MANY.replacen("SELECT", "SELECT DISTINCT", 1);
    let refused = proxy.query(&many, &[]).await.err().unwrap();
    assert_eq!(refused.as_db_error().unwrap().code().code(), "42501");
    proxy.batch_execute("RESET ROLE").await.unwrap();
    assert_eq!(proxy.query(&many, &[]).await.unwrap().len(), 3_000);
    let drop = format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"");
    proxy.batch_execute(&drop).await.unwrap();
}
