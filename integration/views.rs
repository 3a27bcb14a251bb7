//! Views over sharded tables: where they are, who knows them, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

#[path = "views/carried.rs"]
mod carried;
#[path = "views/code.rs"]
mod code;
mod support;

use support::{TestDatabase, TestProxy, rows};
use tokio_postgres::Client;

const POLICY: &str = "
groups:
  shop:
    key: bigint
    shards: 6
    tables:
      tenants: id
      orders: tenant_id
reference_tables: [plans]
";

const ROWS: &str = "INSERT INTO tenants SELECT i, 'tenant ' || i FROM generate_series(1, 40) i";

async fn shop() -> (TestDatabase, TestProxy, Client) {
    let setup = [
        "CREATE TABLE plans (id int PRIMARY KEY, name text)",
        "CREATE TABLE tenants (id bigint PRIMARY KEY, name text)",
        "CREATE TABLE orders (tenant_id bigint, id bigint, total int, PRIMARY KEY (tenant_id, id))",
        "CREATE TABLE journal (id int)",
        ROWS,
    ];
    TestProxy::over_three(POLICY, &setup).await
}

/// The SQLSTATE of an error.
async fn error(client: &Client, sql: &str) -> String {
    match client.batch_execute(sql).await {
        Ok(()) => panic!("no error: {sql}"),
        Err(error) => {
            let error = error.as_db_error().unwrap();
            if error.code().code() == "0A000" {
                assert!(error.hint().is_some() && error.detail().is_some(), "{sql}: {error:?}");
            }
            error.code().code().to_owned()
        }
    }
}

#[tokio::test]
async fn a_view_is_made_on_every_node_changed_there_and_known_after_a_restart() {
    let (database, proxy, client) = shop().await;
    client.batch_execute("CREATE VIEW named AS SELECT id, name FROM tenants").await.unwrap();
    let there = "SELECT count(*) FROM pg_views WHERE viewname IN ('named', 'called')";
    for node in 0..3 {
        assert_eq!(rows(&database.client(node).await, there).await, ["1"]);
    }
    let count = "SELECT count(*) FROM named";
    assert_eq!(rows(&client, count).await, ["40"]);
    let proxy = proxy.restart().await;
    let client = proxy.client().await;
    assert_eq!(rows(&client, count).await, ["40"]);
    assert_eq!(rows(&client, "SELECT name FROM named WHERE id = 7").await, ["tenant 7"]);
    for sql in [
        "ALTER VIEW named RENAME TO called",
        "CREATE OR REPLACE VIEW called AS SELECT id, name, id % 2 AS odd FROM tenants",
        "ALTER TABLE tenants RENAME COLUMN name TO title",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let odd = "SELECT odd, count(name) FROM called GROUP BY odd ORDER BY odd";
    assert_eq!(rows(&client, odd).await, ["0|20", "1|20"]);
    assert_eq!(error(&client, count).await, "42P01");
    client.batch_execute("DROP VIEW called").await.unwrap();
    for node in 0..3 {
        assert_eq!(rows(&database.client(node).await, there).await, ["0"]);
    }
    assert_eq!(error(&client, "SELECT * FROM called").await, "42P01");
    // The name is free for something else.
    client.batch_execute("CREATE VIEW called AS SELECT 1 AS one").await.unwrap();
    assert_eq!(rows(&client, "SELECT one FROM called").await, ["1"]);
}

#[tokio::test]
async fn views_that_were_made_on_the_home_node_directly_are_right_at_once() {
    let (database, _proxy, client) = shop().await;
    let home = database.client(0).await;
    for sql in [
        "CREATE VIEW direct AS SELECT id FROM tenants",
        "CREATE VIEW upon AS SELECT count(*) AS n FROM direct",
        "CREATE VIEW of_leaf AS SELECT id FROM tenants_s0",
        "CREATE MATERIALIZED VIEW kept AS SELECT id FROM tenants",
        "CREATE VIEW harmless AS SELECT id FROM journal",
        "CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM tenants'",
        "CREATE FUNCTION other() RETURNS bigint LANGUAGE sql AS 'SELECT 7::bigint'",
        "CREATE VIEW by_function AS SELECT counted() AS n",
        "INSERT INTO journal VALUES (1)",
    ] {
        home.batch_execute(sql).await.unwrap();
    }
    assert_eq!(rows(&client, "SELECT count(*) FROM direct").await, ["40"]);
    assert_eq!(rows(&client, "SELECT n FROM upon").await, ["40"]);
    // Only the home node has the view.
    for id in [1, 2, 3, 4, 5, 6] {
        let sql = format!("SELECT id FROM direct WHERE id = {id}");
        assert_eq!(rows(&client, &sql).await, [id.to_string()]);
    }
    assert_eq!(error(&client, "SELECT * FROM of_leaf").await, "0A000");
    assert_eq!(error(&client, "SELECT * FROM kept").await, "0A000");
    assert_eq!(error(&client, "SELECT counted()").await, "0A000");
    assert_eq!(error(&client, "SELECT n FROM by_function").await, "0A000");
    assert_eq!(rows(&client, "SELECT other()").await, ["7"]);
    assert_eq!(rows(&client, "SELECT id FROM harmless").await, ["1"]);
}

#[tokio::test]
async fn what_a_view_can_t_be_is_refused() {
    let (database, _proxy, client) = shop().await;
    for sql in [
        "CREATE MATERIALIZED VIEW m AS SELECT id FROM tenants_s1",
        "CREATE TEMP VIEW t AS SELECT id FROM tenants",
        "CREATE RECURSIVE VIEW r (n) AS SELECT 1 UNION ALL SELECT id FROM tenants, r",
        "CREATE VIEW s AS SELECT id FROM tenants_s1",
        "CREATE VIEW orders AS SELECT id FROM tenants",
    ] {
        assert_eq!(error(&client, sql).await, "0A000", "{sql}");
    }
    client.batch_execute("CREATE VIEW named AS SELECT id, name FROM tenants").await.unwrap();
    for sql in [
        "UPDATE named SET id = id + 100",
        "WITH gone AS (DELETE FROM orders RETURNING tenant_id) DELETE FROM named",
        "SELECT * FROM named FOR UPDATE",
        "ALTER TABLE ONLY named RENAME TO renamed",
        "CREATE TEMP TABLE named (id int)",
    ] {
        assert_eq!(error(&client, sql).await, "0A000", "{sql}");
    }
    // ALTER TABLE of a view is ALTER VIEW.
    let all = rows(&client, "SELECT id, name FROM named ORDER BY id").await;
    client.batch_execute("ALTER TABLE named RENAME TO renamed").await.unwrap();
    client.batch_execute("ALTER TABLE renamed RENAME COLUMN name TO title").await.unwrap();
    assert_eq!(rows(&client, "SELECT id, title FROM renamed ORDER BY id").await, all);
    assert_eq!(error(&client, "SELECT id FROM named").await, "42P01");
    for node in 0..3 {
        let there = "SELECT count(*) FROM pg_views WHERE viewname IN ('named', 'renamed')";
        assert_eq!(rows(&database.client(node).await, there).await, ["1"], "node {node}");
    }
    // What reads a home table, too, is a view of the home node, and right.
    client.batch_execute("CREATE VIEW mixed AS SELECT t.id FROM tenants t, journal").await.unwrap();
    client.batch_execute("INSERT INTO journal VALUES (1), (2)").await.unwrap();
    assert_eq!(rows(&client, "SELECT count(*) FROM mixed").await, ["80"]);
    let there = "SELECT count(*) FROM pg_views WHERE viewname = 'mixed'";
    assert_eq!(rows(&database.client(1).await, there).await, ["0"]);
    // In the transaction that makes it, nobody knows yet what it reads.
    client.batch_execute("BEGIN").await.unwrap();
    client.batch_execute("CREATE VIEW fresh AS SELECT id FROM tenants").await.unwrap();
    assert_eq!(error(&client, "SELECT count(*) FROM fresh").await, "0A000");
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(error(&client, "SELECT count(*) FROM fresh").await, "42P01");
}

#[tokio::test]
async fn writes_read_views() {
    let (_database, _proxy, client) = shop().await;
    let view = "CREATE VIEW named AS SELECT id, name FROM tenants";
    client.batch_execute(view).await.unwrap();
    let filled = "INSERT INTO orders SELECT id, 1, id * 10 FROM named WHERE id <= 20";
    assert_eq!(client.execute(filled, &[]).await.unwrap(), 20);
    let one = "DELETE FROM orders o USING named n WHERE n.id = o.tenant_id AND o.tenant_id = 5";
    assert_eq!(client.execute(one, &[]).await.unwrap(), 1);
    let all = "DELETE FROM orders WHERE tenant_id IN (SELECT id FROM named)";
    assert_eq!(client.execute(all, &[]).await.unwrap(), 19);
    assert_eq!(rows(&client, "SELECT count(*) FROM orders").await, ["0"]);
}

#[tokio::test]
async fn the_rights_to_a_view_and_row_security_are_those_of_one_postgresql() {
    let (database, proxy, client) = shop().await;
    let role = format!("reader_{}", database.name);
    for sql in [
        "CREATE VIEW named AS SELECT id, name FROM tenants".to_owned(),
        "CREATE VIEW hidden AS SELECT id FROM tenants".to_owned(),
        format!("CREATE ROLE {role} LOGIN"),
        format!("GRANT SELECT ON named TO {role}"),
        format!("GRANT SELECT ON tenants TO {role}"),
    ] {
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    let mut config = proxy.config();
    config.user(&role);
    let (reader, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    drop(foreshard::runtime::Tasks::new().spawn("reader", connection));
    let max = "SELECT id, max(name) OVER () FROM named ORDER BY id LIMIT 1";
    assert_eq!(rows(&reader, max).await, ["1|tenant 9"]);
    for sql in [
        "SELECT id, max(id) OVER () FROM hidden",
        "SELECT id FROM hidden WHERE id = 4",
        "SELECT count(*) FROM hidden",
    ] {
        assert_eq!(error(&reader, sql).await, "42501", "{sql}");
    }
    for sql in [
        "ALTER TABLE tenants ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY few ON tenants USING (id < 10)",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    // The view's owner sees all rows, the reader some.
    assert_eq!(error(&reader, max).await, "0A000");
    assert_eq!(rows(&reader, "SELECT id FROM named WHERE id = 33").await, ["33"]);
    assert_eq!(rows(&reader, "SELECT id FROM tenants WHERE id = 33").await, Vec::<String>::new());
    client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.ok();
}

/// What stands behind materialized views on the home node.
const BEHIND: &str = "SELECT count(*) FROM pg_class WHERE relnamespace = \
    to_regnamespace('foreshard_kept') AND relkind IN ('r', 'v')";

#[tokio::test]
async fn a_materialized_view_is_kept_by_the_home_node_and_goes_with_all_behind_it() {
    let (database, proxy, client) = shop().await;
    let home = database.client(0).await;
    for sql in [
        "CREATE MATERIALIZED VIEW kept AS SELECT id, name FROM tenants",
        "CREATE UNIQUE INDEX ON kept (id)",
        "CREATE MATERIALIZED VIEW other AS SELECT count(*) AS n FROM tenants",
        "DELETE FROM tenants WHERE id > 30",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    assert_eq!(rows(&home, BEHIND).await, ["4"]);
    let proxy = proxy.restart().await;
    let client = proxy.client().await;
    let count = "SELECT count(*) FROM kept";
    assert_eq!(rows(&client, count).await, ["40"]);
    // Both wait for each other, and both fill it.
    let (second, refresh) = (proxy.client().await, "REFRESH MATERIALIZED VIEW CONCURRENTLY kept");
    let (one, two) = tokio::join!(client.batch_execute(refresh), second.batch_execute(refresh));
    one.unwrap();
    two.unwrap();
    assert_eq!(rows(&client, count).await, ["30"]);
    let joined = "SELECT count(*), count(k.id) FROM tenants t LEFT JOIN kept k ON k.name = t.name";
    assert_eq!(rows(&client, joined).await, ["30|30"]);
    client.batch_execute("DROP MATERIALIZED VIEW kept").await.unwrap();
    assert_eq!(rows(&home, BEHIND).await, ["2"]);
    // What went past the proxy is removed with the next view that is made.
    home.batch_execute("DROP MATERIALIZED VIEW other").await.unwrap();
    assert_eq!(rows(&home, BEHIND).await, ["2"]);
    let next = "CREATE MATERIALIZED VIEW next AS SELECT id FROM tenants";
    client.batch_execute(next).await.unwrap();
    assert_eq!(rows(&home, BEHIND).await, ["2"]);
    assert_eq!(error(&client, "DROP TABLE tenants").await, "2BP01");
    client.batch_execute("DROP TABLE tenants CASCADE").await.unwrap();
    assert_eq!(error(&client, "SELECT * FROM next").await, "42P01");
    client
        .batch_execute("CREATE MATERIALIZED VIEW last AS SELECT count(*) AS n FROM orders")
        .await
        .unwrap();
    assert_eq!(rows(&home, BEHIND).await, ["2"]);
}

#[tokio::test]
async fn a_refresh_past_the_proxy_fails_and_changes_nothing() {
    let (database, _proxy, client) = shop().await;
    let home = database.client(0).await;
    let refresh = "REFRESH MATERIALIZED VIEW kept";
    let hidden = "DO $$ BEGIN EXECUTE 'REFRESH MATERIALIZED ' || 'VIEW kept'; END $$";
    for sql in [
        "CREATE MATERIALIZED VIEW kept AS SELECT id, name FROM tenants",
        "CREATE UNIQUE INDEX ON kept (id)",
        "CREATE MATERIALIZED VIEW none AS SELECT id FROM orders",
        "CREATE FUNCTION again() RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN REFRESH MATERIALIZED VIEW kept; END $$",
        "DELETE FROM tenants WHERE id > 30",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let count = "SELECT count(*) FROM kept";
    for sql in [
        refresh,
        "REFRESH MATERIALIZED VIEW CONCURRENTLY kept",
        "REFRESH MATERIALIZED VIEW none",
        hidden,
        "SELECT again()",
    ] {
        assert_eq!(error(&home, sql).await, "0A000", "{sql}");
        assert_eq!(rows(&home, count).await, ["40"]);
    }
    for sql in [hidden, "SELECT again()"] {
        assert_eq!(error(&client, sql).await, "0A000", "{sql}");
        assert_eq!(rows(&client, count).await, ["40"]);
    }
    client.batch_execute(refresh).await.unwrap();
    assert_eq!(rows(&client, count).await, ["30"]);
    // In the transaction of one that is seen, also.
    for first in [refresh, "CREATE MATERIALIZED VIEW more AS SELECT id FROM tenants"] {
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute(first).await.unwrap();
        assert_eq!(error(&client, hidden).await, "0A000");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    // Without data there is nothing to read.
    home.batch_execute("REFRESH MATERIALIZED VIEW kept WITH NO DATA").await.unwrap();
    assert_eq!(error(&home, refresh).await, "0A000");
    assert_eq!(error(&client, count).await, "55000");
    client.batch_execute(refresh).await.unwrap();
    assert_eq!(rows(&client, count).await, ["30"]);
}

#[tokio::test]
async fn of_a_view_that_a_refresh_may_empty_its_owner_is_warned() {
    let (database, proxy, client) = shop().await;
    client.batch_execute("CREATE MATERIALIZED VIEW kept AS SELECT id FROM tenants").await.unwrap();
    let home = database.client(0).await;
    // As earlier versions made them.
    let earlier = "DO $$ DECLARE n text := (SELECT substr(relname, 2) FROM pg_class WHERE \
        relnamespace = 'foreshard_kept'::regnamespace AND relkind = 'r'); BEGIN \
        DROP MATERIALIZED VIEW kept; EXECUTE format('CREATE MATERIALIZED VIEW kept AS SELECT * \
        FROM foreshard_kept.r%1$s UNION ALL SELECT * FROM foreshard_kept.v%1$s WHERE false', n); \
        END $$";
    home.batch_execute(earlier).await.unwrap();
    let (client, mut notices) = heard(&proxy).await;
    client.batch_execute("REFRESH MATERIALIZED VIEW kept").await.unwrap();
    let notice = notices.recv().await.unwrap();
    assert_eq!(notice.severity(), "WARNING");
    assert_eq!(notice.message(), "the materialized view kept was made by an earlier foreshard");
    assert_eq!(rows(&client, "SELECT count(*) FROM kept").await, ["40"]);
    let again = "DROP MATERIALIZED VIEW kept; \
        CREATE MATERIALIZED VIEW kept AS SELECT id FROM tenants; REFRESH MATERIALIZED VIEW kept";
    client.batch_execute(again).await.unwrap();
    assert!(notices.try_recv().is_err());
}

/// A client, and the notices that it gets.
async fn heard(
    proxy: &TestProxy,
) -> (Client, tokio::sync::mpsc::Receiver<tokio_postgres::error::DbError>) {
    let (told, notices) = tokio::sync::mpsc::channel(10);
    let (client, mut connection) = proxy.config().connect(tokio_postgres::NoTls).await.unwrap();
    drop(foreshard::runtime::Tasks::new().spawn("notices", async move {
        let messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
        let mut messages = std::pin::pin!(messages);
        while let Some(Ok(message)) = futures_util::StreamExt::next(&mut messages).await {
            if let tokio_postgres::AsyncMessage::Notice(notice) = message {
                told.send(notice).await.unwrap();
            }
        }
    }));
    (client, notices)
}

#[tokio::test]
async fn who_drops_a_materialized_view_that_is_not_there_is_told_once() {
    let (_database, proxy, client) = shop().await;
    client.batch_execute("CREATE MATERIALIZED VIEW kept AS SELECT id FROM tenants").await.unwrap();
    let (client, mut notices) = heard(&proxy).await;
    let drop = "DROP MATERIALIZED VIEW IF EXISTS kept";
    assert_eq!(client.execute(drop, &[]).await.unwrap(), 0);
    assert!(notices.try_recv().is_err());
    for extended in [true, false] {
        if extended {
            client.execute(drop, &[]).await.unwrap();
        } else {
            client.batch_execute(drop).await.unwrap();
        }
        let heard = tokio::time::timeout(std::time::Duration::from_secs(20), notices.recv()).await;
        let notice = heard.unwrap().unwrap();
        assert_eq!((notice.severity(), notice.code().code()), ("NOTICE", "00000"));
        assert_eq!(notice.message(), "materialized view \"kept\" does not exist, skipping");
        client.batch_execute("SELECT 1").await.unwrap();
        assert!(notices.try_recv().is_err());
    }
}

#[tokio::test]
async fn nobody_who_may_make_things_beside_them_hinders_or_misuses_materialized_views() {
    let (database, _proxy, client) = shop().await;
    let home = database.client(0).await;
    let role = format!("mean_{}", database.name);
    client.batch_execute("CREATE MATERIALIZED VIEW kept AS SELECT id FROM tenants").await.unwrap();
    for sql in [
        format!("CREATE ROLE {role}"),
        format!("SET ROLE {role}"),
        "CREATE TABLE foreshard_kept.wanted (id int PRIMARY KEY)".to_owned(),
        "CREATE TABLE foreshard_kept.keeps (id int REFERENCES foreshard_kept.wanted)".to_owned(),
        "CREATE FUNCTION foreshard_kept.query_of(regclass) RETURNS text LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'misused'; END $$"
            .to_owned(),
        "CREATE FUNCTION foreshard_kept.is_filled(name) RETURNS boolean LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'misused'; END $$"
            .to_owned(),
        "RESET ROLE".to_owned(),
    ] {
        home.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    client.batch_execute("REFRESH MATERIALIZED VIEW kept").await.unwrap();
    client.batch_execute("CREATE MATERIALIZED VIEW more AS SELECT id FROM tenants").await.unwrap();
    home.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

#[tokio::test]
async fn a_materialized_view_is_refreshed_by_its_owner() {
    let (database, proxy, client) = shop().await;
    let role = format!("keeper_{}", database.name);
    for sql in [
        format!("CREATE ROLE {role} LOGIN"),
        format!("GRANT SELECT ON tenants TO {role}"),
        format!("GRANT CREATE ON SCHEMA public TO {role}"),
        "CREATE MATERIALIZED VIEW kept AS SELECT id FROM tenants".to_owned(),
    ] {
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    let mut config = proxy.config();
    config.user(&role);
    let (keeper, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    drop(foreshard::runtime::Tasks::new().spawn("keeper", connection));
    let refresh = "REFRESH MATERIALIZED VIEW kept";
    assert_eq!(error(&keeper, refresh).await, "42501");
    assert_eq!(error(&keeper, "SELECT * FROM kept").await, "42501");
    let give = format!("ALTER MATERIALIZED VIEW kept OWNER TO {role}");
    client.batch_execute(&give).await.unwrap();
    client.batch_execute("INSERT INTO tenants VALUES (41, 'late')").await.unwrap();
    // Somebody else's rights would decide what it reads.
    assert_eq!(error(&client, refresh).await, "0A000");
    keeper.batch_execute(refresh).await.unwrap();
    assert_eq!(rows(&keeper, "SELECT count(*) FROM kept").await, ["41"]);
    client.batch_execute(&format!("REVOKE SELECT ON tenants FROM {role}")).await.unwrap();
    assert_eq!(error(&keeper, refresh).await, "42501");
    keeper.batch_execute("CREATE MATERIALIZED VIEW own AS SELECT 1 AS x").await.unwrap();
    assert_eq!(
        error(&keeper, "CREATE MATERIALIZED VIEW no AS SELECT id FROM tenants").await,
        "42501"
    );
    client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.ok();
}

#[tokio::test]
async fn a_view_of_a_reference_table_is_read_and_not_written() {
    let (database, proxy, client) = shop().await;
    let home = database.client(0).await;
    for sql in [
        "INSERT INTO plans VALUES (1, 'free'), (2, 'paid')",
        "CREATE VIEW offers AS SELECT id, name FROM plans",
        "CREATE VIEW cheap AS SELECT * FROM offers WHERE id = 1",
        "CREATE VIEW entries AS SELECT id FROM journal",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    home.batch_execute("CREATE VIEW direct AS SELECT id, name FROM plans").await.unwrap();
    let writes = [
        "UPDATE offers SET name = 'x' WHERE id = 1",
        "INSERT INTO public.offers VALUES (3, 'x')",
        "DELETE FROM cheap",
        "WITH gone AS (DELETE FROM cheap RETURNING id) INSERT INTO journal SELECT id FROM gone",
        "UPDATE direct SET name = 'x'",
        "DO $$ BEGIN UPDATE offers SET name = 'x'; END $$",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DELETE FROM offers'",
        "BEGIN; CREATE VIEW late AS SELECT * FROM plans",
        "UPDATE late SET name = 'x'",
        "ROLLBACK; BEGIN; CREATE OR REPLACE VIEW entries AS SELECT id FROM plans",
        "DELETE FROM entries",
        "ROLLBACK; BEGIN; ALTER VIEW offers RENAME TO moved",
        "DELETE FROM moved",
        "ROLLBACK",
    ];
    let begins = |sql: &str| sql.contains("BEGIN; ") || sql == "ROLLBACK";
    for sql in writes.into_iter().filter(|sql| !sql.starts_with("DO")) {
        if begins(sql) {
            for sql in sql.split("; ") {
                client.batch_execute(sql).await.unwrap();
            }
        } else {
            assert_eq!(error(&client, sql).await, "0A000", "{sql}");
        }
    }
    assert_eq!(error(&client, writes[5]).await, "0A000");
    let proxy = proxy.restart().await;
    let client = proxy.client().await;
    assert_eq!(error(&client, writes[0]).await, "0A000");
    client.batch_execute("INSERT INTO entries VALUES (7)").await.unwrap();
    assert_eq!(rows(&client, "SELECT o.name FROM offers o JOIN cheap USING (id)").await, ["free"]);
    for node in 0..3 {
        let plans = rows(&database.client(node).await, "SELECT * FROM plans ORDER BY id").await;
        assert_eq!(plans, ["1|free", "2|paid"]);
    }
}
