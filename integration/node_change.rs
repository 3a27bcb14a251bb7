//! Nodes join and leave while clients write, with the program as its users run it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod process_support;
mod support;

use std::time::Duration;

use foreshard::runtime::Tasks;
use process_support::{Deployment, Serving, Writers, said};
use support::{TestDatabase, eventually, rows};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Roles are those of a whole server, which both tests share.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const DEFINITIONS: [&str; 10] = [
    "CREATE TYPE size AS ENUM ('small', 'large')",
    "CREATE TABLE plans (id serial PRIMARY KEY, name text NOT NULL, price numeric(9,2), size size, \
     twice numeric GENERATED ALWAYS AS (price * 2) STORED)",
    "CREATE INDEX plans_name ON plans (lower(name))",
    "CREATE FUNCTION tax(price numeric) RETURNS numeric LANGUAGE sql IMMUTABLE \
     AS $$ SELECT price * 0.2 $$",
    "CREATE ROLE clerk LOGIN PASSWORD 'a clerk''s password' CONNECTION LIMIT 7",
    "CREATE ROLE readers",
    "GRANT readers TO clerk",
    "GRANT SELECT ON accounts, plans TO readers",
    "CREATE TABLE at_home (id int)",
    "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM entries",
];

/// A deployment on some of its nodes, with a reference table.
fn deployment(database: &TestDatabase, nodes: &[usize]) -> Deployment {
    let deployment = Deployment::over(database.clone());
    configure(&deployment, database, nodes);
    deployment
}

/// Writes the configuration with these nodes.
fn configure(deployment: &Deployment, database: &TestDatabase, nodes: &[usize]) {
    let mut some = deployment.clone();
    some.database.nodes = nodes.iter().map(|node| database.nodes[*node].clone()).collect();
    some.configure("authentication: trust\n");
    let text = std::fs::read_to_string(&deployment.config).unwrap();
    let text = text.replace("  placement:", "  reference_tables: [plans]\n  placement:");
    std::fs::write(&deployment.config, text).unwrap();
}

/// The same where old copies are kept after moves.
fn configure_reversible(deployment: &Deployment, database: &TestDatabase, nodes: &[usize]) {
    configure(deployment, database, nodes);
    let text = std::fs::read_to_string(&deployment.config).unwrap();
    let text = text.replace("reversible_ms: 0", "reversible_ms: 600000");
    std::fs::write(&deployment.config, text).unwrap();
}

/// Roles are those of a whole server: each deployment has its own.
fn named(sql: &str, database: &TestDatabase) -> String {
    sql.replace("clerk", &format!("clerk_{}", database.name))
        .replace("readers", &format!("readers_{}", database.name))
}

/// So many servers, of which two are nodes, and a proxy that serves what [`define`] makes.
async fn defined(servers: usize) -> (TestDatabase, Deployment, Serving) {
    let database = TestDatabase::create(servers).await;
    let deployment = deployment(&database, &[0, 1]);
    let serving = deployment.serve().await;
    define(&deployment).await;
    (database, deployment, serving)
}

async fn define(deployment: &Deployment) {
    deployment.load().await;
    let client = deployment.client().await;
    for sql in DEFINITIONS {
        let sql = named(sql, &deployment.database);
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    let sql = "INSERT INTO plans (name, price, size) SELECT 'plan ' || g, g, 'small'::size \
         FROM generate_series(1, 3000) g";
    client.batch_execute(sql).await.unwrap();
}

/// Somebody who writes the reference table through whatever proxy serves, until told to stop; how
/// often.
fn write_plans(
    deployment: &Deployment,
    stop: &CancellationToken,
) -> tokio::task::JoinHandle<(u32, u32)> {
    let (driver, stop) = (deployment.driver(), stop.clone());
    Tasks::new().spawn("plans", async move {
        let (mut acknowledged, mut n) = (0, 0);
        while !stop.is_cancelled() {
            let Ok(client) = process_support::connect(&driver).await else { continue };
            while !stop.is_cancelled() {
                n += 1;
                let update = format!("UPDATE plans SET price = {n} WHERE id = {}", n % 40 + 1);
                let insert = format!("INSERT INTO plans (name) VALUES ('w{n}')");
                let written = async {
                    client.batch_execute(&update).await?;
                    client.batch_execute(&insert).await
                };
                if let Err(error) = written.await {
                    let code = error.code().map(tokio_postgres::error::SqlState::code);
                    assert!(matches!(code, None | Some("57P01")), "{error:?}");
                    break;
                }
                acknowledged += 1;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        (acknowledged, n)
    })
}

async fn standing(deployment: &Deployment, name: &str) -> Option<String> {
    let nodes = deployment.admin("/api/v1/nodes").await;
    let node = nodes["nodes"].as_array()?.iter().find(|node| node["node"] == name)?.clone();
    node["standing"].as_str().map(str::to_owned)
}

async fn until_member(deployment: &Deployment, name: &str) {
    let member =
        || async { (standing(deployment, name).await.as_deref() == Some("member")).then_some(()) };
    eventually("the node is a member", Duration::from_mins(1), member).await;
}

async fn succeeds(deployment: &Deployment, args: &[&str]) -> String {
    let output = deployment.run(args).await;
    let said = said(&output);
    assert!(output.status.success(), "{args:?}: {said}\n{}", deployment.log_tail());
    said
}

async fn fails(deployment: &Deployment, args: &[&str], why: &str) {
    let output = deployment.run(args).await;
    let said = said(&output);
    assert!(!output.status.success() && said.contains(why), "{args:?}: {said}");
}

/// The new node has what the others have.
async fn assert_equipped(database: &TestDatabase) {
    let (old, new) = (database.client(1).await, database.client(2).await);
    for sql in [
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' \
         AND indexname !~ '_s[0-9]' ORDER BY 1",
        "SELECT relname, relowner::regrole, relacl FROM pg_class WHERE relname IN \
         ('accounts', 'entries', 'plans') ORDER BY 1",
        "SELECT rolname, rolcanlogin, rolconnlimit, rolpassword FROM pg_authid \
         WHERE rolname IN ('clerk', 'readers') ORDER BY 1",
        "SELECT roleid::regrole, member::regrole FROM pg_auth_members \
         WHERE member = 'clerk'::regrole",
        "SELECT tax(10), enum_range(NULL::size)",
        "SELECT to_regclass('at_home')",
    ] {
        let sql = named(sql, database);
        assert_eq!(rows(&new, &sql).await, rows(&old, &sql).await, "{sql}");
    }
    let sequence = "SELECT last_value FROM plans_id_seq";
    assert_ne!(rows(&new, sequence).await, rows(&old, sequence).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_and_another_leaves_while_clients_write() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (database, deployment, serving) = defined(3).await;
    let stop = CancellationToken::new();
    let writers = Writers::start(&deployment, 0..2);
    let plans = write_plans(&deployment, &stop);
    fails(&deployment, &["move", "0", "n3"], "there is no node \"n3\"").await;
    fails(&deployment, &["node", "drain", "n1"], "n1 is the home node").await;
    serving.stop(&deployment).await;

    configure_reversible(&deployment, &database, &[0, 1, 2]);
    let serving = deployment.serve().await;
    // Definitions change while it joins, or just after.
    let client = deployment.client().await;
    client.batch_execute("CREATE INDEX plans_price ON plans (price)").await.unwrap();
    until_member(&deployment, "n3").await;
    client.batch_execute("ALTER TABLE plans ADD COLUMN note text").await.unwrap();
    assert_equipped(&database).await;
    assert!(succeeds(&deployment, &["node", "add", "n3"]).await.contains("n3 is a member"));
    // One leaves an old copy on the node that stays, the other on the node that is to leave.
    deployment.move_shard(0, "n3").await;
    deployment.move_shard(1, "n3").await;
    succeeds(&deployment, &["verify"]).await;

    let said = succeeds(&deployment, &["node", "drain", "n2"]).await;
    assert!(said.contains("node n2 owns no shard"), "{said}");
    fails(&deployment, &["move", "0", "n2"], "n2 takes no shards: it is being drained").await;
    fails(&deployment, &["move", "1", "--reverse"], "nothing is kept of the last switch").await;
    succeeds(&deployment, &["verify"]).await;
    serving.stop(&deployment).await;

    configure_reversible(&deployment, &database, &[0, 2]);
    let serving = deployment.serve().await;
    assert_eq!(standing(&deployment, "n2").await, None);
    succeeds(&deployment, &["move", "0", "--reverse", "--wait"]).await;
    succeeds(&deployment, &["move", "0", "--confirm", "--wait"]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    succeeds(&deployment, &["verify"]).await;
    stop.cancel();
    let (acknowledged, tried) = plans.await.unwrap();
    assert!(acknowledged > 50, "{acknowledged}");
    let written = writers.stop().await;
    let client = deployment.client().await;
    let found: i64 = client.query_one("SELECT count(*) FROM entries", &[]).await.unwrap().get(0);
    client.batch_execute("REFRESH MATERIALIZED VIEW counted").await.unwrap();
    assert_eq!(rows(&client, "SELECT n FROM counted").await, [found.to_string()]);
    let found = usize::try_from(found).unwrap();
    let most = written.acknowledged.len() + written.unknown.len();
    assert!((written.acknowledged.len()..=most).contains(&found), "{found}");
    let sql = "SELECT count(*) FROM plans WHERE name ~ '^w'";
    let found: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    assert!((i64::from(acknowledged)..=i64::from(tried)).contains(&found), "{found}");
    serving.stop(&deployment).await;
    let said = std::fs::read_to_string(&deployment.log).unwrap();
    assert!(!said.contains("prepared transactions stay"), "the node that left is asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_a_node_joins_is_survived_and_what_can_not_join_is_refused() {
    let _alone = ONE_AT_A_TIME.lock().await;
    for failpoint in foreshard::runtime::JOIN_FAILPOINTS {
        let (database, deployment, serving) = defined(3).await;
        serving.stop(&deployment).await;
        configure(&deployment, &database, &[0, 1, 2]);
        let dying = Serving::spawn(&deployment, Some(("FORESHARD_FAILPOINT", failpoint)));
        dying.died(&deployment).await;
        let new = database.client(2).await;
        if failpoint == "node_prepared" {
            // Somebody else's table: it can't join before that is gone.
            new.batch_execute("CREATE TABLE foreign_body (a int)").await.unwrap();
            let serving = deployment.serve().await;
            let why = "node n3 is not empty: it has public.foreign_body";
            fails(&deployment, &["node", "add", "n3"], why).await;
            fails(&deployment, &["move", "0", "n3"], "it has not joined yet").await;
            new.batch_execute("DROP TABLE foreign_body").await.unwrap();
            succeeds(&deployment, &["node", "add", "n3"]).await;
            serving.stop(&deployment).await;
        }
        let serving = deployment.serve().await;
        until_member(&deployment, "n3").await;
        assert_equipped(&database).await;
        deployment.move_shard(1, "n3").await;
        succeeds(&deployment, &["verify"]).await;
        serving.stop(&deployment).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_takes_part_in_lookups() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let database = TestDatabase::create(3).await;
    let configure = |deployment: &Deployment, nodes: &[usize]| {
        configure(deployment, &database, nodes);
        let text = std::fs::read_to_string(&deployment.config).unwrap();
        let lookups = "  lookups:\n    entries_by_note: \
            { table: entries, column: note, type: text, unique: true, shards: 2 }\n";
        let text = text.replace("  placement:", &format!("{lookups}  placement:"));
        std::fs::write(&deployment.config, text).unwrap();
    };
    let deployment = deployment(&database, &[0, 1]);
    configure(&deployment, &[0, 1]);
    let serving = deployment.serve().await;
    deployment.load().await;
    let client = deployment.client().await;
    let insert = "INSERT INTO entries SELECT tenant_id, 1, 1, 'note ' || tenant_id FROM accounts";
    client.batch_execute(insert).await.unwrap();
    let lookup = "CREATE TABLE entries_by_note (note text PRIMARY KEY, tenant_id bigint NOT NULL)";
    client.batch_execute(lookup).await.unwrap();
    serving.stop(&deployment).await;

    configure(&deployment, &[0, 1, 2]);
    let serving = deployment.serve().await;
    until_member(&deployment, "n3").await;
    // One shard of each goes there.
    deployment.move_shard(0, "n3").await;
    deployment.move_shard(8, "n3").await;
    let client = deployment.client().await;
    client.batch_execute("UPDATE entries SET note = note || '!'").await.unwrap();
    let again = client.batch_execute("INSERT INTO entries VALUES (5, 1, 2, 'note 7!')").await;
    assert_eq!(again.unwrap_err().code().unwrap().code(), "23505");
    for tenant in 1..=20 {
        let sql = format!("SELECT tenant_id FROM entries WHERE note = 'note {tenant}!'");
        assert_eq!(rows(&client, &sql).await, [tenant.to_string()]);
        let plan = rows(&client, &format!("EXPLAIN {sql}")).await;
        assert!(plan[0].starts_with("Way: lookup"), "{plan:?}");
    }
    let node = database.client(2).await;
    assert_ne!(rows(&node, "SELECT count(*) FROM entries").await, ["0"]);
    let past = node.batch_execute("UPDATE entries SET note = 'past the proxy'").await;
    assert_eq!(past.unwrap_err().code().unwrap().code(), "55000");
    succeeds(&deployment, &["verify"]).await;
    serving.stop(&deployment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_is_called_off_and_the_node_takes_shards_again() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (_database, deployment, serving) = defined(2).await;
    let idle = deployment.client().await;
    idle.batch_execute("BEGIN; SELECT count(*) FROM accounts").await.unwrap();
    let (asking, path) = (deployment.clone(), ["node", "drain", "n2"]);
    let drained = Tasks::new().spawn("drain", async move { asking.run(&path).await });
    let put_off = async || {
        let moves = deployment.admin("/api/v1/moves").await;
        (moves["moves"][0]["postponed"].as_u64()? > 0).then(|| moves["moves"][0]["id"].to_string())
    };
    let id = eventually("a move is put off", Duration::from_secs(30), put_off).await;
    let job = deployment.admin("/api/v1/jobs").await["jobs"][0]["id"].to_string();
    succeeds(&deployment, &["cancel", "job", &job]).await;
    let output = drained.await.unwrap();
    assert!(!output.status.success() && said(&output).contains("it was called off"), "{output:?}");
    assert!(said(&output).contains("n2 takes shards again"), "{output:?}");
    assert_eq!(standing(&deployment, "n2").await.as_deref(), Some("member"));
    succeeds(&deployment, &["cancel", "move", &id]).await;
    idle.batch_execute("COMMIT").await.unwrap();
    let moves = deployment.until_moves_are_finished().await;
    assert_eq!(moves[0]["error"], "it was called off");
    fails(&deployment, &["cancel", "move", &id], "is finished").await;
    succeeds(&deployment, &["verify"]).await;
    serving.stop(&deployment).await;
}

/// What was brought to the new node, or is being brought.
const BROUGHT: &str = "SELECT 'table ' || relname FROM pg_class c JOIN pg_namespace n \
     ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND relkind IN ('r', 'p', 'S') \
     UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typname = 'size' \
     UNION ALL SELECT 'prepared ' || gid FROM pg_prepared_xacts \
     WHERE database = current_database() \
     UNION ALL SELECT 'session ' || application_name FROM pg_stat_activity \
     WHERE datname = current_database() AND application_name ~ '^foreshard job'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_is_called_off_leaves_nothing_on_the_node() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (database, deployment, serving) = defined(3).await;
    serving.stop(&deployment).await;
    configure(&deployment, &database, &[0, 1, 2]);
    // It does not join as soon as it is configured.
    let new = database.client(2).await;
    new.batch_execute("CREATE TABLE foreign_body (a int)").await.unwrap();
    let serving = deployment.serve().await;
    fails(&deployment, &["node", "add", "n3"], "it has public.foreign_body").await;
    new.batch_execute("DROP TABLE foreign_body").await.unwrap();
    let writer = deployment.client().await;
    // The job waits for whoever writes a reference table, with all that it has brought.
    writer.batch_execute("BEGIN; UPDATE plans SET price = 1 WHERE id = 1").await.unwrap();
    let (asking, path) = (deployment.clone(), ["node", "add", "n3"]);
    let asked = Tasks::new().spawn("add", async move { asking.run(&path).await });
    let brought = async || {
        let jobs = deployment.admin("/api/v1/jobs").await;
        let job = jobs["jobs"].as_array()?.iter().find(|job| job["state"] == "running")?.clone();
        job["steps"].to_string().contains("3000 rows are brought").then(|| job["id"].to_string())
    };
    let job = eventually("the rows are brought", Duration::from_secs(30), brought).await;
    succeeds(&deployment, &["cancel", "job", &job]).await;
    let output = asked.await.unwrap();
    let told = said(&output);
    assert!(!output.status.success() && told.contains("it was called off"), "{told}");
    assert!(told.contains("nothing was left on node n3"), "{told}");
    let left = rows(&database.client(2).await, BROUGHT).await;
    assert_eq!(left, [] as [&str; 0]);
    assert_eq!(standing(&deployment, "n3").await.as_deref(), Some("joining"));
    fails(&deployment, &["move", "0", "n3"], "it has not joined yet").await;
    // Others write on at once.
    writer.batch_execute("COMMIT").await.unwrap();
    fails(&deployment, &["cancel", "job", &job], "is finished").await;
    succeeds(&deployment, &["node", "add", "n3"]).await;
    assert_equipped(&database).await;
    succeeds(&deployment, &["verify"]).await;
    serving.stop(&deployment).await;
}

/// What rests on home tables, as a database that is there already has it; some of it with a comment.
const AT_HOME: &str = "CREATE TABLE at_home (id int PRIMARY KEY, name text); \
     INSERT INTO at_home VALUES (1, 'one'); \
     CREATE FUNCTION homes() RETURNS SETOF at_home LANGUAGE sql AS 'SELECT * FROM at_home'; \
     COMMENT ON FUNCTION homes() IS 'rows'; GRANT EXECUTE ON FUNCTION homes() TO pg_monitor; \
     CREATE FUNCTION of_home(h at_home) RETURNS int LANGUAGE sql AS 'SELECT h.id'; \
     CREATE CAST (at_home AS int) WITH FUNCTION of_home(at_home); \
     CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM at_home; END; \
     CREATE FUNCTION by_default(n bigint DEFAULT counted()) RETURNS bigint LANGUAGE sql AS 'SELECT n'; \
     CREATE TYPE pair AS (one at_home, n int); \
     CREATE FUNCTION of_pair(p pair) RETURNS int LANGUAGE sql AS 'SELECT 1'; \
     CREATE STATISTICS stood ON id, name FROM at_home; \
     CREATE VIEW seen AS SELECT * FROM at_home; \
     CREATE FUNCTION of_view() RETURNS SETOF seen LANGUAGE sql AS 'SELECT * FROM seen'; \
     CREATE RULE ruled AS ON DELETE TO at_home DO ALSO NOTHING; \
     ALTER TABLE at_home ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON at_home USING (true); \
     CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
     CREATE TRIGGER fired BEFORE INSERT ON at_home FOR EACH ROW EXECUTE FUNCTION fired(); \
     CREATE FUNCTION free(id int) RETURNS int LANGUAGE sql AS 'SELECT id'; \
     COMMENT ON FUNCTION free(int) IS 'free'; CREATE TYPE plain AS (a int, b text)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_a_home_node_whose_functions_rest_on_its_tables() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let database = TestDatabase::create(2).await;
    let deployment = deployment(&database, &[0]);
    database.client(0).await.batch_execute(AT_HOME).await.unwrap();
    let serving = deployment.serve().await;
    deployment.load().await;
    serving.stop(&deployment).await;
    configure(&deployment, &database, &[0, 1]);
    let serving = deployment.serve().await;
    until_member(&deployment, "n2").await;
    let new = database.client(1).await;
    let functions = "SELECT proname || coalesce(obj_description(oid, 'pg_proc'), '') FROM pg_proc \
         WHERE pronamespace = 'public'::regnamespace ORDER BY 1";
    assert_eq!(rows(&new, functions).await, ["fired", "freefree"]);
    let types = "SELECT typname FROM pg_type WHERE typname IN ('pair', 'plain', 'at_home')";
    assert_eq!(rows(&new, types).await, ["plain"]);
    let client = deployment.client().await;
    for (sql, expected) in [
        ("SELECT name FROM homes()", "one"),
        ("SELECT by_default()", "1"),
        ("SELECT free(7)", "7"),
        ("SELECT name FROM of_view()", "one"),
    ] {
        assert_eq!(rows(&client, sql).await, [expected], "{sql}");
    }
    succeeds(&deployment, &["verify"]).await;
    serving.stop(&deployment).await;
}
