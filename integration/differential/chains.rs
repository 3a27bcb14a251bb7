//! Blocks that end with `AND CHAIN`: with all kinds of modes, on no node, one or several, after failures
//! that a node has seen or the proxy alone, and behind savepoints.

use super::app::{APP, assert_all_right};
use super::compare::{Report, Statement};

const BEGINS: [&[&str]; 8] = [
    &["BEGIN"],
    &["BEGIN ISOLATION LEVEL REPEATABLE READ"],
    &["BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"],
    &["BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"],
    &["BEGIN", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"],
    &["BEGIN ISOLATION LEVEL SERIALIZABLE", "SET transaction_read_only = on"],
    &["BEGIN", "SET LOCAL transaction_isolation = serializable"],
    &["BEGIN ISOLATION LEVEL REPEATABLE READ", "COMMIT AND CHAIN"],
];
const USES: [&[&str]; 12] = [
    &[],
    &["SELECT count(*) FROM tasks WHERE account_id = 1"],
    &["SELECT count(*) FROM tasks"],
    &["SELECT 1 / (account_id - account_id) FROM tasks WHERE account_id = 2"],
    &["SELECT 1 / (account_id - account_id) FROM tasks"],
    &["SELECTT"],
    &["SAVEPOINT a", "SELECT count(*) FROM tasks", "ROLLBACK TO a"],
    &["SAVEPOINT a", "SELECT 1 / (account_id - account_id) FROM tasks", "ROLLBACK TO a"],
    &["SAVEPOINT a", "SET TRANSACTION READ ONLY", "SELECTT"],
    &["SAVEPOINT a", "SET TRANSACTION READ ONLY", "RELEASE a"],
    &["ROLLBACK TO nowhere"],
    &["SELECT count(*) FROM flags", "SAVEPOINT b", "RELEASE nowhere"],
];
const ENDS: [&str; 3] = ["COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "COMMIT; BEGIN READ ONLY"];
const AFTER: [&str; 4] = [
    "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'), \
     current_setting('transaction_deferrable')",
    "SELECT count(*) FROM tasks",
    "UPDATE tasks SET title = title WHERE id = -5",
    "ROLLBACK",
];

#[tokio::test]
async fn blocks_that_are_chained_have_the_modes_that_one_postgresql_gives_them() {
    let fixture = APP.fixture().await;
    let mut pair = fixture.pair().await;
    let mut report = Report::new("chains");
    (report.script, report.text_only) = (true, true);
    let ends = |first| ENDS.map(|end| (first, end));
    let uses = |begin| USES.into_iter().flat_map(ends).map(move |(first, end)| (begin, first, end));
    for (step, (begin, first, end)) in BEGINS.into_iter().flat_map(uses).enumerate() {
        let (second, again) = (USES[(step + 1) % USES.len()], ENDS[(step + 1) % 2]);
        let parts = [begin, first, &[end], second, &[again], &AFTER];
        for sql in parts.into_iter().flatten() {
            let sql = (*sql).to_owned();
            let statement = Statement { sql, unordered: true, parameters: None };
            report.add(&mut pair, &statement).await;
        }
    }
    report.print();
    assert_all_right(&[report]);
}
