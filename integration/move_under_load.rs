//! Moves of shards under pgbench, with the program as its users run it: no client sees an error, no
//! write is lost or doubled.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]
#![allow(clippy::print_stdout, reason = "the measured pauses, for who looks")]

mod process_support;
mod protocol_support;
mod support;

use process_support::{Aftermath, Deployment, Mode, Pgbench, said};
use protocol_support::{RawClient, bind, execute, flush, parse, sync};

/// How long pgbench works, in seconds.
const SECONDS: u32 = 28;

/// A key of a shard, which is on this node.
async fn tenant(deployment: &Deployment, node: usize, shard: u32) -> String {
    let client = deployment.database.client(node).await;
    let sql = format!("SELECT min(tenant_id) FROM accounts_s{shard}");
    support::rows(&client, &sql).await.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_splits_and_merges_under_pgbench_cost_no_error_and_no_write() {
    let deployment = Deployment::new(3).await;
    let serving = deployment.serve().await;
    deployment.load().await;
    let mut simple = Pgbench::start(&deployment, Mode::Simple, 1, SECONDS).await;
    let mut prepared = Pgbench::start(&deployment, Mode::Prepared, 2, SECONDS).await;
    let mut pauses = Vec::new();
    for shard in [0, 3, 5, 0] {
        let node = deployment.other_node(shard).await;
        pauses.push(deployment.move_shard(shard, &node).await);
    }
    // Several at once wait for one another.
    for shard in [6, 7] {
        let node = deployment.other_node(shard).await;
        deployment.ask_for_move(shard, &node).await;
    }
    let moves = deployment.until_moves_are_finished().await;
    pauses.push(deployment.split_shard(2).await);
    pauses.push(deployment.merge_shards(&[8, 9]).await);
    pauses.extend(moves[..2].iter().filter_map(|mv| mv["pause_ms"].as_f64()));
    let working = simple.is_running() && prepared.is_running();
    println!("pauses in ms: {pauses:?}");
    let transactions = simple.finish().await + prepared.finish().await;
    println!("{transactions} transactions");
    assert!(working, "pgbench ended before the last move did");
    assert!(pauses.len() == 8 && pauses.iter().all(|ms| *ms < 2_000.0), "{pauses:?}");
    serving.stop(&deployment).await;

    let after = Aftermath::of(&deployment).await;
    after.assert_in_order().await;
    assert!(after.moves.iter().all(|mv| mv.error.is_none()), "{:#?}", after.moves);
    after.assert_counted(transactions).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn going_back_under_pgbench_costs_no_error_and_no_write_and_ddl_ends_the_keeping() {
    let deployment = Deployment::new(2).await;
    let text = std::fs::read_to_string(&deployment.config).unwrap();
    std::fs::write(&deployment.config, text.replace("reversible_ms: 0", "reversible_ms: 600000"))
        .unwrap();
    let serving = deployment.serve().await;
    deployment.load().await;
    let mut simple = Pgbench::start(&deployment, Mode::Simple, 1, 14).await;
    let mut prepared = Pgbench::start(&deployment, Mode::Prepared, 2, 14).await;
    let run = async |args: &[&str]| {
        let output = deployment.run(args).await;
        (output.status.success(), said(&output))
    };
    let node = deployment.other_node(0).await;
    deployment.move_shard(0, &node).await;
    let (done, text) = run(&["move", "0", "--reverse", "--wait"]).await;
    assert!(done && text.contains("way back of move 1: done"), "{text}");
    let (done, text) = run(&["move", "0", "--confirm", "--wait"]).await;
    assert!(done && text.contains("way back of move 2: lapsed"), "{text}");
    let (done, text) = run(&["move", "0", "--reverse"]).await;
    assert!(!done && text.contains("nothing is kept of the last switch of shard 0"), "{text}");
    deployment.split_shard(2).await;
    let (done, text) = run(&["move", "8", "--reverse", "--wait"]).await;
    assert!(done && text.contains("way back of move 4: done"), "{text}");
    // The halves are kept now; what is kept is nothing that is left over, and DDL ends it.
    let (well, text) = run(&["verify"]).await;
    assert!(well && text.contains("all as it should be"), "{text}");
    let client = deployment.client().await;
    client.batch_execute("ALTER TABLE entries ADD COLUMN more int").await.unwrap();
    let moves = deployment.until_moves_are_finished().await;
    assert_eq!(moves[0]["trouble"], "a definition was changed", "{:?}", moves[0]);
    let working = simple.is_running() && prepared.is_running();
    let transactions = simple.finish().await + prepared.finish().await;
    println!("{transactions} transactions; went on while it was looked at: {working}");
    serving.stop(&deployment).await;
    let after = Aftermath::of(&deployment).await;
    after.assert_in_order().await;
    assert!(after.moves.iter().all(|mv| mv.error.is_none()), "{:#?}", after.moves);
    after.assert_counted(transactions).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_from_before_a_switch_gets_40001_and_read_committed_goes_on() {
    let deployment = Deployment::new(2).await;
    let serving = deployment.serve().await;
    deployment.load().await;
    // Shards 0 and 2 are on the first node; 0 leaves it.
    let (leaves, stays) = (tenant(&deployment, 0, 0).await, tenant(&deployment, 0, 2).await);
    let there = tenant(&deployment, 1, 1).await;
    let of = |tenant: &str| format!("SELECT version FROM accounts WHERE tenant_id = {tenant}");
    let (old, new) = (deployment.client().await, deployment.client().await);
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    new.batch_execute("BEGIN").await.unwrap();
    for client in [&old, &new] {
        assert_eq!(client.query(&of(&stays), &[]).await.unwrap().len(), 1);
    }
    // A transaction that has used the table on the node that the shard goes to.
    let writer = deployment.client().await;
    let sql = "UPDATE accounts SET version = version + 1 WHERE tenant_id = $1";
    let update = writer.prepare(sql).await.unwrap();
    let count_up = async |tenant: &String| {
        let tenant: i64 = tenant.parse().unwrap();
        assert_eq!(writer.execute(&update, &[&tenant]).await.unwrap(), 1, "{tenant}");
    };
    writer.batch_execute("BEGIN").await.unwrap();
    // So often that the server keeps its plan.
    for _ in 0..8 {
        count_up(&there).await;
    }
    let to = deployment.other_node(0).await;
    deployment.ask_for_move(0, &to).await;
    let switched = async || {
        let moves = deployment.admin("/api/v1/moves").await;
        (!moves["moves"][0]["switched_unix_ms"].is_null()).then_some(())
    };
    support::eventually("switched", std::time::Duration::from_mins(1), switched).await;
    let error = old.query(&of(&leaves), &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "40001", "{error:?}");
    for tenant in [&leaves, &stays] {
        assert_eq!(new.query(&of(tenant), &[]).await.unwrap().len(), 1);
    }
    for tenant in [&leaves, &there, &stays] {
        count_up(tenant).await;
    }
    writer.batch_execute("COMMIT").await.unwrap();
    old.batch_execute("ROLLBACK").await.unwrap();
    new.batch_execute("COMMIT").await.unwrap();
    assert_eq!(old.query(&of(&leaves), &[]).await.unwrap().len(), 1);
    deployment.until_moves_are_finished().await;
    // A shard that comes back is a newer copy.
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    support::rows(&old, "SELECT count(*) FROM pg_class").await;
    for _ in 0..2 {
        let node = deployment.other_node(2).await;
        deployment.move_shard(2, &node).await;
    }
    let error = old.query(&of(&stays), &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "40001", "{error:?}");
    drop((old, new, writer));
    serving.stop(&deployment).await;
    Aftermath::of(&deployment).await.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_a_text_began_sees_a_shard_that_arrives_or_gets_40001() {
    let deployment = Deployment::new(2).await;
    let serving = deployment.serve().await;
    deployment.load().await;
    let (moves, there) = (tenant(&deployment, 0, 0).await, tenant(&deployment, 1, 1).await);
    let of = |tenant: &str| format!("SELECT version FROM accounts WHERE tenant_id = {tenant}");
    let (old, new) = (deployment.client().await, deployment.client().await);
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {}", of(&there));
    old.batch_execute(&begin).await.unwrap();
    new.batch_execute(&format!("BEGIN; {}", of(&there))).await.unwrap();
    deployment.move_shard(0, &deployment.other_node(0).await).await;
    assert_eq!(support::rows(&new, &of(&moves)).await, ["0"]);
    let error = old.batch_execute(&of(&moves)).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "40001", "{error:?}");
    old.batch_execute("ROLLBACK").await.unwrap();
    new.batch_execute("COMMIT").await.unwrap();
    serving.stop(&deployment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_sees_a_shard_that_arrives_before_its_sync_and_stays_one_transaction() {
    let deployment = Deployment::new(2).await;
    deployment.without_leaf_plans();
    let serving = deployment.serve().await;
    deployment.load().await;
    let (moves, there) = (tenant(&deployment, 0, 0).await, tenant(&deployment, 1, 1).await);
    let node = deployment.other_node(0).await;
    let database = &deployment.database.name;
    let mut pipeline = RawClient::connect(deployment.port, database, &[]).await;
    let sql = "UPDATE accounts SET version = version + 1 WHERE tenant_id = $1";
    let run = |tenant: &str| [bind("", "", &[Some(tenant)]), execute("", 0)].concat();
    let first = [parse("", sql), run(&there), flush()].concat();
    pipeline.send(&first).await;
    let update = ["1 ", "2 ", "C UPDATE 1\\x00"];
    assert_eq!(pipeline.next_answers(3).await, update);
    deployment.move_shard(0, &node).await;
    // Of the statement without a name, and by the plan that the server may have kept.
    let fails = parse("", "UPDATE accounts SET version = version / 0 WHERE tenant_id = $1");
    pipeline.send(&[run(&moves), fails, run(&moves), sync()].concat()).await;
    let answers = pipeline.until_ready(1).await;
    assert_eq!(answers[..2], update[1..], "{answers:?}");
    assert!(answers.iter().any(|it| it.contains("C22012")), "{answers:?}");
    let sql = "SELECT count(*) FROM accounts WHERE version <> 0";
    assert_eq!(support::rows(&deployment.client().await, sql).await, ["0"]);
    drop(pipeline);
    serving.stop(&deployment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_there_is_no_move_and_one_under_way_tells_how_long_it_takes() {
    let deployment = Deployment::new(2).await;
    let text = std::fs::read_to_string(&deployment.config).unwrap();
    let nodes = &deployment.database.nodes;
    let mover = format!(
        "mover: {{ node_bytes_max: {{ {}: 1000 }}, copy_bytes_per_second: 20000,",
        nodes[1].name
    );
    std::fs::write(&deployment.config, text.replace("mover: {", &mover)).unwrap();
    let serving = deployment.serve().await;
    deployment.load().await;
    let client = deployment.client().await;
    let filler = "INSERT INTO entries (tenant_id, writer, n, note) \
         SELECT tenant_id, 0, n, repeat('x', 500) FROM accounts, generate_series(1, 6) n";
    client.batch_execute(filler).await.unwrap();
    let output = deployment.run(&["move", "0", &nodes[1].name, "--wait"]).await;
    let said = said(&output);
    assert!(!output.status.success(), "{said}");
    let why = format!("node {} lacks room: about", nodes[1].name);
    assert!(said.contains(&why) && said.contains("allows 1000 bytes (mover.node_bytes"), "{said}");
    // The other node has no limit, and df says that its disk has room.
    deployment.ask_for_move(1, &nodes[0].name).await;
    let told = async || {
        let moves = deployment.admin("/api/v1/moves").await;
        let progress = moves["moves"][0]["progress"].clone();
        let left = progress["copy_left_seconds"].as_f64()?;
        let copied = progress["rows_copied"].as_u64()?;
        (copied > 0 && left > 0.0 && progress["rows_expected"].as_u64()? > 0).then_some(progress)
    };
    support::eventually("progress", std::time::Duration::from_mins(1), told).await;
    let moves = deployment.until_moves_are_finished().await;
    assert_eq!(moves[0]["state"], "done", "{moves:#?}");
    assert!(moves[0]["progress"].is_null());
    serving.stop(&deployment).await;
}
