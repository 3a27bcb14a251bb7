//! PREPARE and EXECUTE of statements on sharded tables: they go where their arguments say, and keep
//! the session on no connection. What they answer is compared in `differential/`.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::time::Duration;

use support::{TestDatabase, TestProxy, rows};
use tokio_postgres::Client;

const POLICY: &str = "
groups:
  shop:
    key: bigint
    shards: 6
    tables:
      tenants: id
";

async fn shop() -> (TestDatabase, TestProxy, Client) {
    let setup = [
        "CREATE TABLE tenants (id bigint PRIMARY KEY, name text)",
        "CREATE TABLE journal (id int)",
        "CREATE SEQUENCE numbers",
        "INSERT INTO tenants SELECT i, 'tenant ' || i FROM generate_series(1, 100) i",
    ];
    TestProxy::over_three(POLICY, &setup).await
}

/// How many connections to the nodes sessions are kept on.
async fn pinned(client: &Client) -> Vec<String> {
    let sql = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_statements WHERE from_sql";
    rows(client, sql).await
}

#[tokio::test]
async fn an_execute_goes_where_its_arguments_say() {
    let (_database, _proxy, client) = shop().await;
    client.batch_execute("PREPARE one AS SELECT name FROM tenants WHERE id = $1").await.unwrap();
    client
        .batch_execute("PREPARE most AS SELECT max(id) FROM tenants WHERE id < $1")
        .await
        .unwrap();
    // None of them waits for more of the client.
    let all = async {
        for id in 1..20 {
            let one = rows(&client, &format!("EXECUTE one({id})")).await;
            assert_eq!(one, [format!("tenant {id}")]);
            let most = rows(&client, &format!("EXECUTE most({id} + 1)")).await;
            assert_eq!(most, [id.to_string()]);
        }
    };
    tokio::time::timeout(Duration::from_secs(15), all).await.unwrap();
    let plan = rows(&client, "EXPLAIN (COSTS off) EXECUTE one(5)").await.join("\n");
    assert!(plan.contains("tenants_s"), "{plan}");
    let plan = rows(&client, "EXPLAIN EXECUTE most(5)").await.join("\n");
    assert!(plan.contains("n1") && plan.contains("n2") && plan.contains("n3"), "{plan}");
    let analyzed = rows(&client, "EXPLAIN ANALYZE EXECUTE one(5)").await.join("\n");
    assert!(analyzed.contains("actual time"), "{analyzed}");
}

#[tokio::test]
async fn explain_names_the_node_and_the_shard_of_a_statement_of_one_node() {
    let (_database, _proxy, client) = shop().await;
    let lines = rows(&client, "EXPLAIN (COSTS off) SELECT name FROM tenants WHERE id = 5").await;
    assert_eq!(lines[0], "Way: one node");
    let shard = lines[1].split(&['(', ')'][..]).nth(1).unwrap();
    assert!(lines[1].starts_with("  On n") && lines[1].ends_with("):"), "{lines:?}");
    assert!(lines[2].ends_with(&format!(" on tenants_{shard} tenants")), "{lines:?}");
    let with_parameter = "EXPLAIN (COSTS off) SELECT name FROM tenants WHERE id = $1";
    client.batch_execute("BEGIN").await.unwrap();
    let prepared = client.query(with_parameter, &[&5_i64]).await.unwrap();
    let prepared: Vec<String> = prepared.iter().map(|row| row.get(0)).collect();
    assert_eq!(prepared[..3], lines[..3]);
    for write in ["UPDATE tenants SET name = 'x' WHERE id = 5", "INSERT INTO tenants VALUES (505)"]
    {
        let lines = rows(&client, &format!("EXPLAIN {write}")).await;
        assert_eq!(lines[0], "Way: one node", "{lines:?}");
    }
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(rows(&client, "SELECT count(*), max(name) FROM tenants").await, ["100|tenant 99"]);
    let read = "SELECT name FROM tenants WHERE id = 5";
    for (explain, first) in [("EXPLAIN (FORMAT json)", "["), ("EXPLAIN ANALYZE", "Index Scan")] {
        let lines = rows(&client, &format!("{explain} {read}")).await;
        assert!(lines[0].starts_with(first), "{lines:?}");
    }
    let of_home = rows(&client, "EXPLAIN SELECT * FROM journal").await;
    assert!(of_home[0].starts_with("Seq Scan on journal"), "{of_home:?}");
}

/// Rows that the lines with a plan's first node say were found, one a node of `plans`.
fn found(lines: &[String], plan: &str) -> Vec<u64> {
    let rows = |line: &String| line.split("rows=").last()?.split(' ').next()?.parse().ok();
    lines.iter().filter(|line| line.trim_start().starts_with(plan)).filter_map(rows).collect()
}

#[tokio::test]
async fn explain_analyze_over_nodes_shows_what_each_of_them_did() {
    let (_database, proxy, client) = shop().await;
    let analyze = "EXPLAIN (ANALYZE, COSTS off, TIMING off)";
    let lines = rows(&client, &format!("{analyze} SELECT * FROM tenants")).await;
    assert_eq!(lines[0], "Way: scatter, rows concatenated as they come");
    let of_nodes = found(&lines, "Append ");
    assert_eq!((of_nodes.len(), of_nodes.iter().sum::<u64>()), (3, 100), "{lines:#?}");

    let lines =
        rows(&client, &format!("{analyze} SELECT id FROM tenants ORDER BY id LIMIT 7")).await;
    assert!(lines[0].starts_with("Way: merge"), "{lines:#?}");
    assert_eq!(found(&lines, "Limit "), [7, 7, 7], "{lines:#?}");

    for outside in [true, false] {
        if !outside {
            client.batch_execute("BEGIN; INSERT INTO tenants VALUES (101, 'new')").await.unwrap();
        }
        let sql = format!("{analyze} SELECT left(name, 7), count(*) FROM tenants GROUP BY 1");
        let lines = rows(&client, &sql).await;
        assert!(lines[0].starts_with("Way: reduce"), "{lines:#?}");
        let seen: u64 = found(&lines, "->  Append ").iter().sum();
        assert_eq!(seen, if outside { 100 } else { 101 }, "{lines:#?}");
        // What is left of the nodes' parts meets on the home node.
        let merged = lines.iter().position(|line| line.contains("Merge by PostgreSQL on n1"));
        assert_eq!(found(&lines[merged.unwrap()..], "HashAggregate ").len(), 1, "{lines:#?}");
    }
    client.batch_execute("ROLLBACK").await.unwrap();

    let sql = format!("{analyze} SELECT max(name) FROM tenants WHERE id < $1");
    let lines = client.query(&sql, &[&41_i64]).await.unwrap();
    let lines: Vec<String> = lines.iter().map(|row| row.get(0)).collect();
    assert_eq!(found(&lines, "->  Append ").iter().sum::<u64>(), 40, "{lines:#?}");

    client.batch_execute("BEGIN").await.unwrap();
    let lines = rows(&client, &format!("{analyze} DELETE FROM tenants WHERE id > 40")).await;
    assert!(lines[0].starts_with("Way: write"), "{lines:#?}");
    assert_eq!(found(&lines, "->  Append ").iter().sum::<u64>(), 60, "{lines:#?}");
    assert_eq!(rows(&client, "SELECT count(*) FROM tenants").await, ["40"]);
    client.batch_execute("ROLLBACK").await.unwrap();
    let update = format!("{analyze} UPDATE tenants SET name = upper(name) WHERE name < $1");
    client.execute(&update, &[&"tenant 2"]).await.unwrap();
    let changed = "SELECT count(*) FROM tenants WHERE name LIKE 'TENANT%'";
    assert_eq!(rows(&proxy.client().await, changed).await, ["12"]);

    client.batch_execute("BEGIN").await.unwrap();
    let three = "INSERT INTO tenants VALUES (201, 'a'), (202, 'b'), (203, 'c'), (204, 'd')";
    let told = rows(&client, &format!("EXPLAIN {three}")).await;
    let lines = rows(&client, &format!("{analyze} {three}")).await;
    assert_eq!(lines[0], "Way: rows, each to its shard, in one transaction");
    assert!(told.len() > 2 && told.iter().all(|line| lines.contains(line)), "{told:#?} {lines:#?}");
    let given: u64 = found(&lines, "->  Values Scan ").iter().sum();
    let alone = lines.iter().filter(|line| line.trim_start().starts_with("->  Result ")).count();
    assert_eq!(given + u64::try_from(alone).unwrap(), 4, "{lines:#?}");
    let upsert = "INSERT INTO tenants VALUES ($1, 'e'), ($2, 'f'), ($3, 'g') \
                  ON CONFLICT (id) DO UPDATE SET name = excluded.name";
    let sql = format!("{analyze} {upsert}");
    let plan = client.query(&sql, &[&201_i64, &205_i64, &206_i64]).await.unwrap();
    let conflicts = plan.iter().map(|row| row.get::<_, String>(0));
    assert!(conflicts.filter(|line| line.contains("Conflicting Tuples: 1")).count() == 1);
    let sql = format!("EXPLAIN (ANALYZE, FORMAT json) {three}").replace("(20", "(21");
    let plan: serde_json::Value =
        serde_json::from_str(&rows(&client, &sql).await.join("\n")).unwrap();
    assert!(plan.to_string().matches("\"Actual Rows\"").count() > 3, "{plan:#}");
    let names = "SELECT string_agg(name, ',' ORDER BY id) FROM tenants WHERE id > 200";
    assert_eq!(rows(&client, names).await, ["e,b,c,d,f,g,a,b,c,d"]);
    client.batch_execute("ROLLBACK").await.unwrap();

    let into = "EXPLAIN ANALYZE INSERT INTO tenants SELECT id + 200 FROM tenants";
    for (wrong, code) in [(into, "0A000"), ("EXPLAIN (FORMAT csv) TABLE tenants", "22023")] {
        let error = client.batch_execute(wrong).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), code, "{wrong}");
    }
    let error = client.batch_execute("EXPLAIN ANALYZE SELECT 1 / (id - 50) FROM tenants").await;
    assert_eq!(error.unwrap_err().code().unwrap().code(), "22012");
    let other = proxy.client().await;
    assert_eq!(rows(&other, "SELECT count(*) FROM tenants").await, ["100"]);
}

/// What tools ask for.
#[tokio::test]
async fn explain_over_nodes_gives_documents_with_the_plans_of_the_nodes() {
    let (database, _proxy, client) = shop().await;
    let home = database.client(0).await;
    let json = async |sql: String| -> serde_json::Value {
        let lines = rows(&client, &sql).await;
        assert_eq!(lines.len(), 1, "{lines:#?}");
        serde_json::from_str(&lines[0]).unwrap_or_else(|error| panic!("{error}: {}", lines[0]))
    };
    // What pgAdmin sends, and its Explain Analyze.
    let plain = "EXPLAIN (FORMAT JSON, ANALYZE FALSE, VERBOSE FALSE, COSTS FALSE, BUFFERS FALSE, \
        TIMING FALSE, SUMMARY FALSE, SETTINGS FALSE, WAL FALSE)";
    let analyze = "EXPLAIN (ANALYZE, BUFFERS, FORMAT json)";
    for head in [plain, analyze] {
        let read = json(format!("{head} SELECT * FROM tenants")).await;
        let plans = read[0]["Plan"]["Plans"].as_array().unwrap();
        assert_eq!(plans.len(), 3, "{read:#}");
        let of = |plan: &serde_json::Value| plan["Plans"][0]["Actual Rows"].as_u64();
        let found: Option<Vec<u64>> = plans.iter().map(of).collect();
        let found = found.map(|found| found.into_iter().sum::<u64>());
        assert_eq!(found, (head == analyze).then_some(100), "{read:#}");
        for plan in plans {
            assert_eq!(plan["Plans"][0]["Node Type"], "Append", "{read:#}");
        }
        let read = json(format!("{head} SELECT left(name, 7), count(*) FROM tenants GROUP BY 1"));
        let read = read.await;
        let steps = read[0]["Plan"]["Plans"].as_array().unwrap();
        let merged = steps.last().unwrap();
        assert!(merged["Step"].as_str().unwrap().starts_with("Merge by PostgreSQL on n1"));
        assert_eq!(merged["Plans"][0].is_object(), head == analyze, "{read:#}");
        assert_eq!(steps[0]["Plans"].as_array().unwrap().len(), 3, "{read:#}");

        let read = json(format!("{head} UPDATE tenants SET name = name || '\"<' WHERE id > 90"));
        let read = read.await;
        let updated = &read[0]["Plan"]["Plans"][0]["Plans"][0];
        assert_eq!(updated["Operation"], "Update", "{read:#}");
        let changed = rows(&client, "SELECT count(*) FROM tenants WHERE name LIKE '%<'").await;
        assert_eq!(changed, [if head == analyze { "10" } else { "0" }]);

        let head = head.replace("JSON", "xml").replace("json", "xml");
        let lines =
            rows(&client, &format!("{head} SELECT '<' || name FROM tenants WHERE name > '&'"))
                .await;
        assert_eq!(lines.len(), 1);
        let well_formed = home.query_one("SELECT $1::text::xml IS DOCUMENT", &[&lines[0]]).await;
        assert!(well_formed.unwrap().get::<_, bool>(0), "{}", lines[0]);
        assert_eq!(lines[0].matches("<Node-Type>Append<").count(), 3, "{}", lines[0]);
        let head = head.replace("xml", "yaml");
        let lines = rows(&client, &format!("{head} SELECT * FROM tenants")).await;
        assert_eq!(lines.concat().matches("          - Node Type: \"Append\"").count(), 3);
    }
    let sql = "EXPLAIN (FORMAT JSON) INSERT INTO tenants SELECT id + 200 FROM tenants";
    assert!(
        json(sql.to_owned()).await[0]["Plan"]["Way"].as_str().unwrap().starts_with("query, then")
    );
    // With a parameter, and its type as PostgreSQL gives it.
    let typed = client.prepare("EXPLAIN (FORMAT json) SELECT * FROM tenants WHERE id < $1").await;
    let typed = typed.unwrap();
    assert_eq!(typed.columns()[0].type_(), &tokio_postgres::types::Type::JSON);
}

#[tokio::test]
async fn arguments_are_evaluated_once() {
    let (_database, _proxy, client) = shop().await;
    let sql =
        "PREPARE one (bigint) AS SELECT id, $1 FROM tenants WHERE id IN ($1, $1 + 50) ORDER BY 1";
    client.batch_execute(sql).await.unwrap();
    for id in 1..5 {
        let got = rows(&client, "EXECUTE one(nextval('numbers'))").await;
        assert_eq!(got, [format!("{id}|{id}"), format!("{}|{id}", id + 50)]);
    }
    assert_eq!(rows(&client, "SELECT last_value FROM numbers").await, ["4"]);
}

#[tokio::test]
async fn a_statement_that_the_proxy_keeps_leaves_nothing_on_a_connection() {
    let (_database, _proxy, client) = shop().await;
    for n in 0..5 {
        let sql = format!("PREPARE s{n} AS SELECT name FROM tenants WHERE id = $1");
        client.batch_execute(&sql).await.unwrap();
    }
    assert_eq!(rows(&client, "EXECUTE s4(3)").await, ["tenant 3"]);
    assert_eq!(pinned(&client).await, ["0"]);
    client.batch_execute("PREPARE home AS SELECT count(*) FROM journal").await.unwrap();
    assert_eq!(pinned(&client).await, ["1"]);
    assert_eq!(rows(&client, "EXECUTE home").await, ["0"]);
    client.batch_execute("DEALLOCATE ALL").await.unwrap();
    assert_eq!(pinned(&client).await, ["0"]);
    let error = client.batch_execute("EXECUTE s4(3)").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "26000");
}

#[tokio::test]
async fn what_can_not_be_routed_is_refused_as_it_is_prepared() {
    let (_database, _proxy, client) = shop().await;
    let sql = "PREPARE bad AS UPDATE ONLY tenants SET name = $1 WHERE id = 3";
    let error = client.batch_execute(sql).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "0A000");
    // The hint stands before PREPARE and speaks of EXECUTE's argument.
    let sql = "/* foreshard: key(shop) = $1 */ PREPARE hinted (bigint) AS SELECT max(name) FROM \
               (SELECT * FROM tenants OFFSET 0) t WHERE id = $1";
    client.batch_execute(sql).await.unwrap();
    assert_eq!(rows(&client, "EXECUTE hinted(7)").await, ["tenant 7"]);
}

#[tokio::test]
async fn a_statement_takes_types_that_are_made_anew_under_the_same_name() {
    let (_database, proxy, client) = shop().await;
    let others = "CREATE TYPE other AS ENUM ('x'); CREATE TYPE third AS ENUM ('y')";
    client.batch_execute(others).await.unwrap();
    let text = "UPDATE tenants SET state = ($2::text)::state WHERE id = $1 AND state <= $3";
    for labels in ["'old', 'new'", "'new', 'newer'", "'newest', 'new'"] {
        client.batch_execute(&format!("CREATE TYPE state AS ENUM ({labels})")).await.unwrap();
        let add = "ALTER TABLE tenants ADD COLUMN state state DEFAULT 'new'";
        client.batch_execute(add).await.unwrap();
        // Each client prepares it, on connections that know its text.
        let one = proxy.client().await;
        let statement = one.prepare(text).await.unwrap();
        let given = statement.params()[2].name();
        assert_eq!(given, "state");
        for id in 1..20_i64 {
            let state = Label("new");
            assert_eq!(
                one.execute(&statement, &[&id, &"new", &state]).await.unwrap(),
                1,
                "{labels}"
            );
        }
        client.batch_execute("ALTER TABLE tenants DROP COLUMN state").await.unwrap();
        client.batch_execute("DROP TYPE state").await.unwrap();
    }
}

/// A value of an enum.
#[derive(Debug)]
struct Label(&'static str);

impl tokio_postgres::types::ToSql for Label {
    fn to_sql(
        &self,
        _: &tokio_postgres::types::Type,
        out: &mut bytes::BytesMut,
    ) -> Result<tokio_postgres::types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(tokio_postgres::types::IsNull::No)
    }

    fn accepts(kind: &tokio_postgres::types::Type) -> bool {
        matches!(kind.kind(), tokio_postgres::types::Kind::Enum(_))
    }

    tokio_postgres::types::to_sql_checked!();
}
