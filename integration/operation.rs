//! Reload, stop and hand-over of a process that serves; and what its log must not hold.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod process_support;
mod support;

use std::time::Duration;

use nix::sys::signal::Signal;
use process_support::{Deployment, Serving, connect, said};
use support::{eventually, rows};
use tokio_postgres::{Client, NoTls};

const LIMIT: Duration = Duration::from_secs(20);

/// Trusts postgres; asks everybody else for the password.
const RULES: &str = "authentication:
  - { type: host, user: postgres, method: trust }
  - { type: host, method: scram-sha-256 }
";

/// A client under this name, or the SQLSTATE of why not.
async fn log_in(deployment: &Deployment, user: &str, password: &str) -> Result<Client, String> {
    let mut config = deployment.driver();
    config.user(user).password(password);
    connect(&config).await.map_err(|error| match error.code() {
        Some(code) => code.code().to_owned(),
        None => format!("{error:?}"),
    })
}

/// A deployment whose nodes know the role `app`.
async fn deployment() -> Deployment {
    let deployment = Deployment::new(1).await;
    let node = deployment.database.client(0).await;
    let role = "DO $$ BEGIN CREATE ROLE app LOGIN PASSWORD 'stored-secret'; \
                EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";
    node.batch_execute(role).await.unwrap();
    deployment.configure(RULES);
    deployment
}

#[tokio::test]
async fn a_reload_changes_who_is_let_in_and_drops_nobody() {
    let deployment = deployment().await;
    let serving = deployment.serve().await;
    let before = log_in(&deployment, "app", "stored-secret").await.unwrap();
    before.batch_execute("BEGIN; SET LOCAL work_mem = '7MB'").await.unwrap();

    let given = format!("{RULES}users: {{ app: {{ password: given-secret }} }}\n");
    deployment.configure(&given);
    serving.signal(Signal::SIGHUP);
    eventually("the new password is in force", LIMIT, || async {
        log_in(&deployment, "app", "given-secret").await.ok()
    })
    .await;
    assert_eq!(
        log_in(&deployment, "app", "stored-secret").await.map(drop),
        Err("28P01".to_owned())
    );
    assert_eq!(rows(&before, "SHOW work_mem").await, ["7MB"], "its transaction goes on");

    let text = std::fs::read_to_string(&deployment.config).unwrap();
    let wider = text.replace("workers: 2", "workers: 3, max_clients: 9");
    std::fs::write(&deployment.config, wider.replace("users: { app", "users: { other")).unwrap();
    let output = deployment.run(&["reload"]).await;
    let expected = "in force now: users, frontend\n\
                    needs a restart: frontend.listen, workers or unix_socket_folder\n";
    assert_eq!(said(&output), expected);
    log_in(&deployment, "app", "stored-secret").await.unwrap();

    std::fs::write(&deployment.config, "authentication: everybody\n").unwrap();
    let output = deployment.run(&["reload"]).await;
    assert!(!output.status.success());
    let told = said(&output);
    assert!(told.contains("authentication: \"everybody\" is neither"), "{told}");
    assert!(told.contains("nothing was changed"), "{told}");
    log_in(&deployment, "app", "stored-secret").await.unwrap();
    before.batch_execute("COMMIT").await.unwrap();
    serving.stop(&deployment).await;
}

/// How many of the clients can have a transaction with a connection to a node at the same time.
async fn served_at_once(clients: &[Client]) -> usize {
    let begin = clients.iter().map(|client| async {
        let begun = client.batch_execute("BEGIN; SELECT count(*) FROM pg_class").await;
        begun.map_err(|error| error.code().unwrap().code().to_owned())
    });
    let begun = futures_util::future::join_all(begin).await;
    for (client, begun) in clients.iter().zip(&begun) {
        client.batch_execute("ROLLBACK").await.unwrap();
        if let Err(code) = begun {
            assert_eq!(code, "53300");
        }
    }
    begun.iter().filter(|begun| begun.is_ok()).count()
}

#[tokio::test]
async fn a_reload_changes_limits_and_deadlines_and_drops_nobody() {
    let deployment = Deployment::new(2).await;
    let serving = deployment.serve().await;
    deployment.load().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(deployment.client().await);
    }
    let started_with = std::fs::read_to_string(&deployment.config).unwrap();
    let reload = async |changes: &[(&str, &str)]| {
        let change = |text: String, (old, new): &(&str, &str)| {
            assert!(text.contains(old), "{old}");
            text.replace(old, new)
        };
        let text = changes.iter().fold(started_with.clone(), change);
        std::fs::write(&deployment.config, text).unwrap();
        said(&deployment.run(&["reload"]).await)
    };
    let brought =
        "SELECT count(*) FROM accounts a JOIN accounts b ON a.tenant_id + 1 = b.tenant_id";
    assert_eq!(rows(&clients[0], brought).await, ["159"]);
    assert_eq!(served_at_once(&clients).await, 4);
    let block = deployment.client().await;
    block
        .batch_execute("BEGIN; UPDATE accounts SET version = 7 WHERE tenant_id = 1")
        .await
        .unwrap();

    let node = &deployment.other_node(0).await;
    let full = format!("mover: {{ node_bytes_max: {{ {node}: 1000 }},");
    let executor = "executor: { pull_rows_max: 5,";
    let backend = "backend: { pool_size: 2, checkout_timeout_ms: 300 }\npolicy:";
    let changes = [("mover: {", full.as_str()), ("executor: {", executor), ("policy:", backend)];
    let told = reload(&changes).await;
    assert_eq!(told, "in force now: backend, executor, policy.mover\nneeds a restart: nothing\n");
    let error = clients[0].batch_execute(brought).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "53400", "{error:?}");
    let output = deployment.run(&["move", "0", node, "--wait"]).await;
    assert!(said(&output).contains("lacks room"), "{}", said(&output));
    block.batch_execute("COMMIT").await.unwrap();
    let fewer = || async { (served_at_once(&clients).await <= 2).then_some(()) };
    eventually("there are fewer connections", LIMIT, fewer).await;
    assert!(served_at_once(&clients).await > 0);

    reload(&[]).await;
    assert_eq!(rows(&clients[0], brought).await, ["159"]);
    let all = || async { (served_at_once(&clients).await == 4).then_some(()) };
    eventually("there are as many as before", LIMIT, all).await;
    let kept = rows(&block, "SELECT version FROM accounts WHERE tenant_id = 1").await;
    assert_eq!(kept, ["7"]);
    deployment.move_shard(0, node).await;
    drop((clients, block));
    serving.stop(&deployment).await;
}

#[tokio::test]
async fn a_reload_shards_new_tables_steers_the_controller_and_disturbs_nobody() {
    let deployment = Deployment::new(2).await;
    let serving = deployment.serve().await;
    let before = deployment.client().await;
    before.batch_execute("CREATE TABLE plain (id bigint PRIMARY KEY)").await.unwrap();
    before.batch_execute("BEGIN; INSERT INTO plain VALUES (1)").await.unwrap();
    let started_with = std::fs::read_to_string(&deployment.config).unwrap();
    let reload = async |old: &str, new: &str| {
        std::fs::write(&deployment.config, started_with.replace(old, new)).unwrap();
        said(&deployment.run(&["reload"]).await)
    };

    let told = reload("entries: tenant_id", "entries: tenant_id, plain: id").await;
    assert!(told.contains("waits for foreshard import: shop"), "{told}");
    let plain = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'plain'::regclass";
    assert_eq!(rows(&before, plain).await, ["0"], "it stays as it is until then");
    let told = reload("key: bigint", "key: integer").await;
    assert!(told.contains("waits for foreshard reshard: shop"), "{told}");

    let more = "  placement: { mode: advise }\n  reference_tables: [plans]\n";
    let placed = started_with.replace("  placement: { mode: 'off' }\n", more);
    let tabled = placed.replace("entries: tenant_id", "entries: tenant_id, carts: tenant");
    std::fs::write(&deployment.config, tabled).unwrap();
    let told = said(&deployment.run(&["reload"]).await);
    let expected =
        "in force now: policy: what is sharded, policy.placement\nneeds a restart: nothing\n";
    assert_eq!(told, expected, "{}", deployment.log_tail());
    before.batch_execute("INSERT INTO plain VALUES (2); COMMIT").await.unwrap();
    before.batch_execute("CREATE TABLE carts (tenant bigint PRIMARY KEY)").await.unwrap();
    before.batch_execute("CREATE TABLE plans (name text PRIMARY KEY)").await.unwrap();
    before.batch_execute("INSERT INTO carts SELECT generate_series(1, 100)").await.unwrap();
    before.batch_execute("INSERT INTO plans VALUES ('free')").await.unwrap();
    assert_eq!(
        rows(&before, "SELECT count(*), min(tenant), max(tenant) FROM carts").await,
        ["100|1|100"]
    );
    let mut carts = 0;
    for node in 0..2 {
        let node = deployment.database.client(node).await;
        assert_eq!(rows(&node, "SELECT name FROM plans").await, ["free"]);
        let here: i64 = node.query_one("SELECT count(*) FROM carts", &[]).await.unwrap().get(0);
        assert!(here > 0, "all carts are on one node");
        carts += here;
    }
    assert_eq!(carts, 100);
    let mode = || async {
        (deployment.admin("/api/v1/status").await["controller"]["mode"] == "advise").then_some(())
    };
    eventually("the controller works in the new mode", LIMIT, mode).await;
    // The next start finds the map that the policy now makes.
    serving.stop(&deployment).await;
    let serving = deployment.serve().await;
    assert_eq!(rows(&deployment.client().await, "SELECT count(*) FROM carts").await, ["100"]);
    serving.stop(&deployment).await;
}

/// A client of the console.
async fn console(deployment: &Deployment, user: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config = deployment.driver();
    config.user(user).dbname("foreshard").password("stored-secret");
    connect(&config).await
}

#[tokio::test]
async fn the_console_shows_and_does_what_operators_need_and_lets_nobody_else_in() {
    let deployment = Deployment::new(2).await;
    let serving = deployment.serve().await;
    deployment.load().await;
    let app = format!("{}_app", deployment.database.name);
    let node = deployment.database.client(0).await;
    node.batch_execute(&format!("CREATE ROLE {app} LOGIN")).await.unwrap();
    let refused = console(&deployment, &app).await.map(drop).unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "42501", "{refused:?}");

    let console = console(&deployment, "postgres").await.unwrap();
    let [first, second] = [0, 1].map(|at: usize| deployment.database.nodes[at].name.clone());
    let nodes = rows(&console, "SHOW NODES").await;
    assert!(nodes[0].starts_with(&format!("{first}|127.0.0.1|")), "{nodes:?}");
    assert!(nodes[0].contains("|true|member|0, 2, 4"), "{nodes:?}");
    let pinned = deployment.client().await;
    pinned.batch_execute("CREATE TEMP TABLE mine (id int)").await.unwrap();
    let clients = rows(&console, "SHOW CLIENTS").await;
    let found = clients.iter().find(|line| line.contains("|pinned|")).unwrap();
    assert!(found.contains(&format!("|pinned|{first}:")), "{clients:?}");
    let pools = rows(&console, "SHOW POOLS").await;
    assert!(pools.iter().any(|pool| pool.starts_with(&format!("{first}|postgres|"))), "{pools:?}");

    assert_eq!(rows(&console, &format!("MOVE SHARD 0 TO {second}")).await.len(), 1);
    let finished = async || {
        let moves = rows(&console, "SHOW MOVES").await;
        moves.iter().any(|mv| mv.contains("|done|")).then_some(())
    };
    eventually("the move is done", LIMIT, finished).await;
    let shards = rows(&console, "SHOW shards;").await;
    let moved = format!("0|shop|Hash modulus 8, remainder 0|{second}|public.accounts_s0");
    assert!(shards[0].starts_with(&moved), "{shards:?}");
    for (statement, code) in [
        ("MOVE SHARD 0 TO nowhere", "22023"),
        ("MOVE SHARD zero TO n1", "42601"),
        ("SELECT 1", "42601"),
        ("SHOW secrets", "42601"),
    ] {
        let error = console.simple_query(statement).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), code, "{statement}");
        assert!(error.hint().is_some(), "{statement}: {error:?}");
    }
    let prepared = console.query("SHOW NODES", &[]).await.unwrap_err();
    assert_eq!(prepared.code().unwrap().code(), "0A000");
    assert!(!rows(&console, "SHOW HELP").await.is_empty(), "it goes on");
    node.batch_execute(&format!("DROP ROLE {app}")).await.unwrap();
    serving.stop(&deployment).await;
}

#[tokio::test]
async fn a_stop_lets_transactions_end_and_tells_everybody_else() {
    let deployment = deployment().await;
    let mut serving = deployment.serve().await;
    let busy = deployment.client().await;
    let idle = deployment.client().await;
    busy.batch_execute("CREATE TABLE kept (id int)").await.unwrap();
    busy.batch_execute("BEGIN; INSERT INTO kept VALUES (1)").await.unwrap();
    serving.signal(Signal::SIGTERM);
    eventually("the idle client is let go", LIMIT, || async { idle.is_closed().then_some(()) })
        .await;
    let error = deployment.driver().connect(NoTls).await.map(drop).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "57P03", "{error:?}");
    busy.batch_execute("INSERT INTO kept VALUES (2)").await.unwrap();
    busy.batch_execute("COMMIT").await.unwrap();
    assert!(serving.ended(&deployment).await.success(), "{}", deployment.log_tail());
    let node = deployment.database.client(0).await;
    assert_eq!(rows(&node, "SELECT count(*) FROM kept").await, ["2"]);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let deployment = deployment().await;
    let mut serving = deployment.serve().await;
    let endless = deployment.client().await;
    endless.batch_execute("BEGIN; CREATE TABLE lost (id int)").await.unwrap();
    serving.signal(Signal::SIGTERM);
    assert!(serving.ended(&deployment).await.success(), "{}", deployment.log_tail());
    assert!(endless.batch_execute("COMMIT").await.is_err());
    let node = deployment.database.client(0).await;
    let lost = "SELECT to_regclass('lost') IS NULL";
    eventually("it is rolled back", LIMIT, || async {
        (rows(&node, lost).await == ["t"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_secret_gets_into_the_log() {
    let deployment = deployment().await;
    deployment.configure(&format!("{RULES}users: {{ given: {{ password: given-secret }} }}\n"));
    let serving = deployment.serve_talking("trace").await;
    let node = deployment.database.client(0).await;
    let stored = "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'";
    let verifier = rows(&node, stored).await.remove(0);
    let client = log_in(&deployment, "app", "stored-secret").await.unwrap();
    client.execute("SELECT $1::text", &[&"parameter-secret"]).await.unwrap();
    let error = client.batch_execute("ALTER ROLE app PASSWORD 'altered-secret'; SELECT 1/0").await;
    error.unwrap_err();
    log_in(&deployment, "given", "given-secret").await.map(drop).unwrap_err();
    log_in(&deployment, "app", "wrong-secret").await.map(drop).unwrap_err();
    serving.signal(Signal::SIGHUP);
    let log = || std::fs::read_to_string(&deployment.log).unwrap();
    let reloaded = || async { log().contains("the configuration was reloaded").then_some(()) };
    eventually("the reload is told", LIMIT, reloaded).await;
    serving.stop(&deployment).await;
    let log = log();
    assert!(log.contains("task{name=\"client\"}"), "what debug shows is there: {log}");
    let keys: Vec<_> = verifier.split(['$', ':']).filter(|part| part.len() > 20).collect();
    assert!(keys.len() >= 3, "{verifier}");
    for secret in keys.into_iter().chain(["-secret", "SCRAM-SHA-256$"]) {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[tokio::test]
async fn a_hand_over_refuses_nobody_and_ends_no_transaction() {
    let deployment = deployment().await;
    let mut old = deployment.serve().await;
    let busy = deployment.client().await;
    busy.batch_execute("CREATE TABLE kept (id int)").await.unwrap();
    busy.batch_execute("BEGIN; INSERT INTO kept VALUES (1)").await.unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let come_and_go = async {
        let mut served = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let client = deployment.driver().connect(NoTls).await;
            let (client, connection) = client.unwrap_or_else(|error| panic!("{error:?}"));
            drop(foreshard::runtime::Tasks::new().spawn("client", connection));
            // Only one that had logged in just before the old process was told may be let go.
            served += u32::from(client.batch_execute("SELECT 1").await.is_ok());
        }
        served
    };
    let replace = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let commit = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            busy.batch_execute("INSERT INTO kept VALUES (2)").await.unwrap();
            busy.batch_execute("COMMIT").await.unwrap();
        };
        let (new, ()) =
            tokio::join!(Serving::start_with(&deployment, None, &["--take-over"]), commit);
        assert!(old.ended(&deployment).await.success(), "{}", deployment.log_tail());
        let client = deployment.client().await;
        assert_eq!(rows(&client, "SELECT count(*) FROM kept").await, ["2"]);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        new
    };
    let (served, new) = tokio::join!(come_and_go, replace);
    assert!(served > 0, "no client was served meanwhile");
    let log = std::fs::read_to_string(&deployment.log).unwrap();
    assert!(log.contains("another process takes over"), "{log}");
    new.stop(&deployment).await;
    let config = deployment.config.display().to_string();
    let output = deployment.run(&["serve", "--take-over", "--config", &config]).await;
    assert!(!output.status.success() && said(&output).contains("can be taken over from"));
}
