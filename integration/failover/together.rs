//! Both proxies serve: one leads, and moves shards while clients of either write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

use crate::pair::{Pair, share, stopped};
use crate::process_support::{Deployment, Serving, Writers};
use crate::support::gap::Gap;
use crate::support::{self, eventually, rows};

/// How long a statement may take that must not hang.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_move_while_clients_of_both_write() {
    let pair = Pair::that_both_serve().await;
    let (first, second) = pair.serve_both().await;
    let writers = pair.writers();
    for shard in 0..4 {
        let node = pair.first.other_node(shard).await;
        let pause = pair.first.move_shard(shard, &node).await;
        assert!(pause < 1_000.0, "{pause}");
    }
    // Whoever is asked.
    let node = pair.second.other_node(5).await;
    pair.second.ask_for_move(5, &node).await;
    pair.first.until_moves_are_finished().await;
    pair.first.split_shard(6).await;
    let written = stopped(writers).await;
    let sql = "SELECT count(*), sum(version) FROM accounts";
    let seen = [pair.first.client().await, pair.second.client().await];
    assert_eq!(rows(&seen[0], sql).await, rows(&seen[1], sql).await);
    drop(seen);
    second.stop(&pair.second).await;
    first.stop(&pair.first).await;
    let aftermath = pair.aftermath().await;
    aftermath.assert_in_order().await;
    aftermath.assert_written(&written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_the_other_notice_nothing_when_the_one_that_leads_is_killed() {
    let pair = Pair::that_both_serve().await;
    let (first, second) = pair.serve_both().await;
    let [ours, theirs] = pair.writers();
    let node = pair.first.other_node(0).await;
    sleep(Duration::from_millis(500)).await;
    pair.first.ask_for_move(0, &node).await;
    first.kill(&pair.first).await;
    pair.leads(&pair.second).await;
    let first = pair.first.serve().await;
    pair.second.until_moves_are_finished().await;
    let node = pair.second.other_node(1).await;
    pair.second.move_shard(1, &node).await;
    let written = stopped([ours, theirs]).await;
    second.stop(&pair.second).await;
    pair.leads(&pair.first).await;
    first.stop(&pair.first).await;
    let aftermath = pair.aftermath().await;
    aftermath.assert_in_order().await;
    aftermath.assert_written(&written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_a_killed_leader_has_begun_is_ended_by_the_other() {
    for failpoint in ["drained", "detached", "attached"] {
        let pair = Pair::that_both_serve().await;
        let first = pair.first.serve_until(failpoint).await;
        pair.first.load().await;
        let second = pair.second.serve().await;
        let theirs = Writers::start(&pair.second, 10..13);
        let node = pair.first.other_node(0).await;
        pair.first.ask_for_move(0, &node).await;
        first.died(&pair.first).await;
        pair.leads(&pair.second).await;
        pair.second.until_moves_are_finished().await;
        sleep(Duration::from_millis(500)).await;
        let written = theirs.stop().await;
        second.stop(&pair.second).await;
        let aftermath = pair.aftermath().await;
        aftermath.assert_in_order().await;
        aftermath.assert_written(&written).await;
    }
}

/// PostgreSQL does not tell a transaction that has used a partitioned table of a partition that comes
/// back to it meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_was_given_back_is_there_for_who_used_its_table_meanwhile() {
    let pair = Pair::that_both_serve().await;
    pair.second.without_leaf_plans();
    let first = pair.first.serve_until("detached").await;
    pair.first.load().await;
    let second = pair.second.serve().await;
    let node = pair.second.database.client(0).await;
    let tenant = async |shard: u32| -> i64 {
        let sql = format!("SELECT min(tenant_id) FROM accounts_s{shard}");
        rows(&node, &sql).await.remove(0).parse().unwrap()
    };
    // Both on the first node.
    let (leaves, stays) = (tenant(0).await, tenant(3).await);
    let (writer, reader) = (pair.second.client().await, pair.second.client().await);
    let sql = "UPDATE accounts SET version = version + 1 WHERE tenant_id = $1";
    let update = writer.prepare(sql).await.unwrap();
    let read = reader.prepare("SELECT version FROM accounts WHERE tenant_id = $1").await.unwrap();
    let to = pair.first.other_node(0).await;
    pair.first.ask_for_move(0, &to).await;
    first.died(&pair.first).await;
    writer.batch_execute("BEGIN").await.unwrap();
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    assert_eq!(writer.execute(&update, &[&stays]).await.unwrap(), 1);
    assert_eq!(reader.query(&read, &[&stays]).await.unwrap().len(), 1);
    let attached = "SELECT count(*) FROM pg_inherits WHERE inhrelid = 'accounts_s0'::regclass";
    assert_eq!(rows(&node, attached).await, ["0"]);
    // They wait until the other proxy has taken over, and has given the shard back.
    let key: [&(dyn ToSql + Sync); 1] = [&leaves];
    let (written, seen) = tokio::join!(writer.execute(&update, &key), reader.query(&read, &key));
    assert_eq!((written.unwrap(), seen.unwrap().len()), (1, 1));
    for client in [&writer, &reader] {
        client.batch_execute("COMMIT").await.unwrap();
    }
    pair.leads(&pair.second).await;
    pair.second.until_moves_are_finished().await;
    assert_eq!(reader.query(&read, &[&leaves]).await.unwrap()[0].get::<_, i64>(0), 1);
    drop((writer, reader));
    second.stop(&pair.second).await;
    pair.aftermath().await.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_stopped_keeps_no_shard_from_moving_and_touches_nothing_when_it_wakes_up() {
    let pair = Pair::that_both_serve().await;
    let (first, mut second) = pair.serve_both().await;
    let (idle, busy) = (pair.second.client().await, pair.second.client().await);
    let write = |of: i64, version: u32| {
        format!("UPDATE accounts SET version = {version} WHERE tenant_id = {of}")
    };
    let node = pair.second.database.client(0).await;
    let tenant = rows(&node, "SELECT min(tenant_id) FROM accounts_s0").await.remove(0);
    let tenant: i64 = tenant.parse().unwrap();
    idle.batch_execute(&write(tenant, 1)).await.unwrap();
    busy.batch_execute(&format!("BEGIN; {}", write(tenant, 100))).await.unwrap();
    second.signal(Signal::SIGSTOP);
    let node = pair.first.other_node(0).await;
    pair.first.move_shard(0, &node).await;
    let client = pair.first.client().await;
    assert_eq!(client.execute(&write(tenant, 7), &[]).await.unwrap(), 1);
    second.signal(Signal::SIGCONT);
    for (client, sql) in [(&busy, "COMMIT".to_owned()), (&idle, write(tenant, 200))] {
        let done = timeout(SOON, client.simple_query(&sql)).await;
        assert!(done.unwrap_or_else(|_| panic!("{sql} is stuck")).is_err(), "{sql} was done");
    }
    let status = second.ended(&pair.second).await;
    assert_eq!(status.code(), Some(1), "{status}");
    let read = format!("SELECT version FROM accounts WHERE tenant_id = {tenant}");
    assert_eq!(rows(&client, &read).await, ["7"]);
    // Started again it serves.
    let second: Serving = pair.second.serve().await;
    assert_eq!(rows(&pair.second.client().await, &read).await, ["7"]);
    drop(client);
    second.stop(&pair.second).await;
    first.stop(&pair.first).await;
    pair.aftermath().await.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_defines_the_other_knows_at_once_also_while_shards_move() {
    let pair = Pair::that_both_serve().await;
    let (first, second) = pair.serve_both().await;
    let writers = pair.writers();
    let (ours, theirs) = (pair.first.client().await, pair.second.client().await);
    let moving = async {
        for shard in 0..3 {
            let node = pair.first.other_node(shard).await;
            pair.first.move_shard(shard, &node).await;
        }
    };
    let defining = async {
        for n in 0..6 {
            let (one, other) = if n % 2 == 0 { (&theirs, &ours) } else { (&ours, &theirs) };
            let sql = format!("CREATE VIEW v{n} AS SELECT tenant_id, {n} AS c FROM accounts");
            one.batch_execute(&sql).await.unwrap();
            let sql = format!("SELECT count(*), sum(c) FROM v{n}");
            assert_eq!(rows(other, &sql).await, [format!("160|{}", n * 160)]);
            let sql = format!(
                "CREATE OR REPLACE VIEW v{n} AS SELECT tenant_id, 1 + {n} AS c FROM accounts WHERE tenant_id > 80"
            );
            one.batch_execute(&sql).await.unwrap();
            let sql = format!("SELECT count(*), sum(c) FROM v{n}");
            assert_eq!(rows(other, &sql).await, [format!("80|{}", (n + 1) * 80)]);
        }
    };
    tokio::join!(moving, defining);
    let written = stopped(writers).await;
    for n in 0..4 {
        let (one, other) = if n % 2 == 0 { (&theirs, &ours) } else { (&ours, &theirs) };
        let sql = format!("ALTER TABLE accounts ADD COLUMN c{n} int DEFAULT {n}");
        one.batch_execute(&sql).await.unwrap();
        let sql = format!("SELECT DISTINCT c{n} FROM accounts");
        assert_eq!(rows(other, &sql).await, [n.to_string()]);
    }
    // What is kept of rows of all nodes.
    let made = "CREATE MATERIALIZED VIEW kept AS SELECT tenant_id FROM accounts";
    ours.batch_execute(made).await.unwrap();
    theirs.batch_execute("INSERT INTO accounts (tenant_id) VALUES (9161)").await.unwrap();
    let count = "SELECT count(*) FROM kept k JOIN accounts a USING (tenant_id)";
    let refresh = "REFRESH MATERIALIZED VIEW kept";
    let (one, other) = tokio::join!(ours.batch_execute(refresh), theirs.batch_execute(refresh));
    one.unwrap();
    other.unwrap();
    for client in [&ours, &theirs] {
        assert_eq!(rows(client, count).await, ["161"]);
        assert_eq!(rows(client, "SELECT count(*) FROM kept").await, ["161"]);
    }
    theirs.batch_execute("DELETE FROM accounts WHERE tenant_id = 9161").await.unwrap();
    theirs.batch_execute("DROP MATERIALIZED VIEW kept").await.unwrap();
    assert!(ours.batch_execute("SELECT * FROM kept").await.is_err());
    // A home table that comes before a sharded one in the search path, and goes again.
    for client in [&ours, &theirs] {
        client.batch_execute("CREATE SCHEMA IF NOT EXISTS nearer").await.unwrap();
        client.batch_execute("SET search_path = nearer, public").await.unwrap();
    }
    let count = "SELECT count(*) FROM accounts";
    for (one, other) in [(&theirs, &ours), (&ours, &theirs)] {
        assert_eq!(rows(other, count).await, ["160"]);
        one.batch_execute("CREATE TABLE nearer.accounts (tenant_id bigint)").await.unwrap();
        assert_eq!(rows(other, count).await, ["0"]);
        one.batch_execute("BEGIN; DROP TABLE nearer.accounts; COMMIT").await.unwrap();
        assert_eq!(rows(other, count).await, ["160"]);
    }
    drop((ours, theirs));
    second.stop(&pair.second).await;
    first.stop(&pair.first).await;
    let aftermath = pair.aftermath().await;
    aftermath.assert_in_order().await;
    aftermath.assert_written(&written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_proxy_has_decided_is_committed_by_the_one_that_leads() {
    for (failpoint, version) in [("all_prepared", 0), ("decided", 1)] {
        let pair = Pair::that_both_serve().await;
        let first = pair.first.serve().await;
        pair.first.load().await;
        let second = pair.second.serve_until(failpoint).await;
        let client = pair.second.client().await;
        assert!(client.batch_execute("UPDATE accounts SET version = 1").await.is_err());
        second.died(&pair.second).await;
        let ours = pair.first.client().await;
        // No lock of it is left.
        let update = ours.execute("UPDATE accounts SET version = version + 10", &[]);
        assert_eq!(timeout(SOON, update).await.unwrap().unwrap(), 160);
        let read = "SELECT version, count(*) FROM accounts GROUP BY 1";
        assert_eq!(rows(&ours, read).await, [format!("{}|160", version + 10)]);
        drop(ours);
        first.stop(&pair.first).await;
        pair.aftermath().await.assert_in_order().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_of_both_that_wait_for_each_other_end_by_40p01() {
    let pair = Pair::that_both_serve().await;
    let (first, second) = pair.serve_both().await;
    let (ours, theirs) = (pair.first.client().await, pair.second.client().await);
    let sql = "SELECT min(tenant_id) FROM accounts GROUP BY tableoid::regclass::text ORDER BY 1";
    let mut of_nodes = Vec::new();
    for node in 0..2 {
        let node = pair.first.database.client(node).await;
        of_nodes.push(rows(&node, sql).await.remove(0));
    }
    let (a, b) = (&of_nodes[0], &of_nodes[1]);
    let add =
        |id: &str| format!("UPDATE accounts SET version = version + 1 WHERE tenant_id = {id}");
    for (client, sql) in [(&ours, add(a)), (&theirs, add(b))] {
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute(&sql).await.unwrap();
    }
    let (one, other) = (add(b), add(a));
    let end = async |client: &Client, sql: &str| {
        let done = client.batch_execute(sql).await;
        client.batch_execute(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
        done
    };
    let both = async { tokio::join!(end(&ours, &one), end(&theirs, &other)) };
    let (one, other) = timeout(SOON, both).await.unwrap();
    let failed = [&one, &other].into_iter().filter_map(|done| done.as_ref().err());
    let codes: Vec<_> = failed.map(|error| error.code().unwrap().code().to_owned()).collect();
    assert_eq!(codes, ["40P01"], "{one:?} {other:?}");
    let sum = format!("SELECT sum(version) FROM accounts WHERE tenant_id IN ({a}, {b})");
    assert_eq!(rows(&ours, &sum).await, ["2"]);
    drop((ours, theirs));
    second.stop(&pair.second).await;
    first.stop(&pair.first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_request_may_reach_the_other_one() {
    let pair = Pair::that_both_serve().await;
    let (first, second) = pair.serve_both().await;
    let theirs = pair.second.client().await;
    // As a load balancer would: the request comes to the proxy that has no such session.
    let token = theirs.cancel_token();
    let sleeping = async {
        let sql = "SELECT pg_sleep(60) FROM accounts WHERE tenant_id = 1";
        timeout(SOON, theirs.batch_execute(sql)).await.unwrap().unwrap_err()
    };
    let cancelling = async {
        sleep(Duration::from_millis(500)).await;
        let stream = TcpStream::connect(("127.0.0.1", pair.first.port)).await.unwrap();
        token.cancel_query_raw(stream, NoTls).await.unwrap();
    };
    let (error, ()) = tokio::join!(sleeping, cancelling);
    assert_eq!(error.code().unwrap().code(), "57014");
    drop(theirs);
    // With the long key of protocol 3.2 too.
    let (mut sleeping, key) = asleep_by_3_2(&pair.second).await;
    let mut request = (u32::try_from(key.len()).unwrap() + 8).to_be_bytes().to_vec();
    request.extend_from_slice(&80_877_102_u32.to_be_bytes());
    request.extend_from_slice(&key);
    let mut stream = TcpStream::connect(("127.0.0.1", pair.first.port)).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let error = loop {
        let (tag, body) = timeout(SOON, frame(&mut sleeping)).await.unwrap();
        if tag == b'E' {
            break foreshard::wire::read_error(&body);
        }
    };
    assert_eq!(error.code, "57014");
    drop(sleeping);
    second.stop(&pair.second).await;
    first.stop(&pair.first).await;
}

/// The next frame of a server: its tag and its body.
async fn frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let tag = stream.read_u8().await.unwrap();
    let len = usize::try_from(stream.read_u32().await.unwrap()).unwrap();
    let mut body = vec![0; len - 4];
    stream.read_exact(&mut body).await.unwrap();
    (tag, body)
}

/// A session that speaks protocol 3.2 and is asleep on a node, and its key.
async fn asleep_by_3_2(deployment: &Deployment) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", deployment.port)).await.unwrap();
    let mut out = bytes::BytesMut::new();
    let parameters = [("user", "postgres"), ("database", deployment.database.name.as_str())];
    foreshard::wire::put_startup(&parameters, &mut out);
    out[7] = 2;
    stream.write_all(&out).await.unwrap();
    let mut key = Vec::new();
    loop {
        match timeout(SOON, frame(&mut stream)).await.unwrap() {
            (b'K', body) => key = body,
            (b'Z', _) => break,
            _ => {}
        }
    }
    assert_eq!(key.len(), 36);
    out.clear();
    let sql = "SELECT pg_sleep(60) FROM accounts WHERE tenant_id = 1";
    foreshard::wire::put_query(sql, &mut out);
    stream.write_all(&out).await.unwrap();
    let asleep = || async {
        for address in &deployment.database.nodes {
            let node = support::connect(address, &deployment.database.name).await;
            let sql = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
                       AND datname = current_database()";
            if !rows(&node, sql).await.is_empty() {
                return Some(());
            }
        }
        None
    };
    eventually("it sleeps", SOON, asleep).await;
    (stream, key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "the test waits for its writers")]
async fn definitions_at_one_end_in_no_deadlock_with_writers_of_the_other() {
    let pair = Pair::that_both_serve().await;
    let (first, second) = pair.serve_both().await;
    let (written, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let mut writers = Vec::new();
    for number in 0..4_i64 {
        let client = pair.second.client().await;
        let (written, stop) = (Arc::clone(&written), Arc::clone(&stop));
        writers.push(tokio::spawn(async move {
            let sql = "UPDATE accounts SET version = version + 1 WHERE tenant_id = $1";
            let add = client.prepare(sql).await.unwrap();
            let id = number + 1;
            let read = format!("SELECT max(version) FROM accounts WHERE tenant_id = {id}");
            while stop.load(Ordering::Relaxed) == 0 {
                client.execute(&add, &[&id]).await.unwrap();
                client.batch_execute("BEGIN").await.unwrap();
                client.execute(&add, &[&id]).await.unwrap();
                client.batch_execute(&read).await.unwrap();
                client.batch_execute("COMMIT").await.unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    // Each of them defines something, while the clients of the second one write.
    for (round, deployment) in [&pair.first, &pair.second].into_iter().cycle().take(12).enumerate()
    {
        let client = deployment.client().await;
        for verb in ["ADD COLUMN extra int DEFAULT 1", "DROP COLUMN extra"] {
            let before = written.load(Ordering::Relaxed);
            let more = || async {
                let ended = writers.iter().any(tokio::task::JoinHandle::is_finished);
                (ended || written.load(Ordering::Relaxed) > before + 60).then_some(())
            };
            eventually("they write", SOON, more).await;
            let sql = format!("ALTER TABLE accounts {verb}");
            let defined = timeout(SOON, client.batch_execute(&sql)).await.unwrap();
            defined.unwrap_or_else(|error| panic!("round {round}, {sql}: {error:?}"));
        }
    }
    stop.store(1, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    second.stop(&pair.second).await;
    first.stop(&pair.first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_both_serve_is_one_load_and_the_next_leader_knows_its_past() {
    let pair = Pair::that_both_serve().await;
    for deployment in [&pair.first, &pair.second] {
        let config = std::fs::read_to_string(&deployment.config).unwrap();
        let more = "\n  load: { sample_interval_ms: 1000, store_interval_ms: 1000 }\n";
        std::fs::write(&deployment.config, config + more).unwrap();
    }
    let (first, second) = pair.serve_both().await;
    // Only the one that does not lead is used.
    let theirs = Writers::start(&pair.second, 10..13);
    let reads = async |deployment: &Deployment| {
        let page = deployment.admin("/api/v1/heatmap?quantity=writes&resolution=sample").await;
        let all = page["shards"].as_array()?.iter().flat_map(|shard| {
            shard["past"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_f64)
        });
        let sum: f64 = all.sum();
        (sum > 50.0).then_some(sum)
    };
    let seen = eventually("it is counted", SOON, async || reads(&pair.first).await).await;
    // Whoever is asked says the same.
    assert!(reads(&pair.second).await.unwrap() >= seen);
    let copied = async || pair.second.log_tail().contains("the past is copied").then_some(());
    eventually("the past is copied", Duration::from_mins(1), copied).await;
    let written = theirs.stop().await;
    assert!(written.acknowledged.len() > 50);
    first.kill(&pair.first).await;
    pair.leads(&pair.second).await;
    let known = async || reads(&pair.second).await.filter(|sum| *sum >= seen);
    eventually("the next leader knows it", SOON, known).await;
    second.stop(&pair.second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_has_committed_the_other_shows_though_a_node_missed_its_end() {
    let mut pair = Pair::that_both_serve().await;
    let gap = Gap::before(pair.second.database.nodes[1].port).await;
    pair.second.database.nodes[1].port = gap.port;
    share(&pair.second, &pair.etcd.endpoint(), ", serve: all");
    // Its resolver alone would come too late.
    let config = std::fs::read_to_string(&pair.second.config).unwrap();
    let late = config.replace("resolve_interval_s: 1", "resolve_interval_s: 3600");
    std::fs::write(&pair.second.config, late).unwrap();
    let (first, second) = pair.serve_both().await;
    let (ours, theirs) = (pair.first.client().await, pair.second.client().await);
    for version in 1..=20 {
        gap.arm("COMMIT PREPARED");
        let update = format!("UPDATE accounts SET version = {version}");
        theirs.batch_execute(&update).await.unwrap();
        assert!(!gap.is_armed(), "the connection was broken");
        let seen = "SELECT DISTINCT version FROM accounts";
        assert_eq!(rows(&ours, seen).await, [version.to_string()]);
    }
    drop((ours, theirs));
    second.stop(&pair.second).await;
    first.stop(&pair.first).await;
    pair.aftermath().await.assert_in_order().await;
}
