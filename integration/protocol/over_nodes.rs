//! What is executed up to Sync is one transaction, also over several nodes.

use super::*;

/// Parse to Execute of a text without parameters.
fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[]), describe_portal(""), execute("", 0)].concat()
}

fn insert(id: &str) -> Vec<u8> {
    [bind("", "insert", &[Some(id)]), execute("", 0)].concat()
}

const ALL: &str = "SELECT id, note FROM t ORDER BY id";

#[tokio::test]
async fn rows_of_several_nodes_between_two_syncs_come_all_or_not_at_all() {
    let prepared = vec![parse("insert", "INSERT INTO t VALUES ($1::int, 'many')"), sync()];
    let ids: Vec<String> = (20..60).map(|id: i32| id.to_string()).collect();
    let many: Vec<_> = ids.iter().map(|id| insert(id)).chain([sync()]).collect();
    let fails = run("SELECT 1/0");
    same_over_two_nodes(vec![
        (prepared, 1),
        (many, 1),
        (vec![query(ALL)], 1),
        (
            vec![insert("100"), insert("101"), insert("102"), fails.clone(), insert("103"), sync()],
            1,
        ),
        (vec![insert("110"), insert("x"), insert("111"), insert("112"), sync()], 1),
        (vec![query(ALL)], 1),
        (vec![insert("120"), insert("121"), insert("122"), flush(), insert("123"), sync()], 1),
        (vec![insert("130"), insert("131"), insert("132"), flush(), fails, sync()], 1),
        (vec![insert("140"), sync(), insert("141"), insert("142"), sync()], 2),
        (vec![query(ALL)], 1),
    ])
    .await;
}

#[tokio::test]
async fn statements_of_one_node_and_of_all_share_the_transaction_up_to_sync() {
    let change = || run("UPDATE t SET note = note || '+' WHERE id < 9");
    let count = || run("SELECT count(*), max(note) FROM t WHERE note LIKE '%+'");
    let one = |id: i32| run(&format!("DELETE FROM t WHERE id = {id}"));
    let fails = || run("SELECT 1/0");
    same_over_two_nodes(vec![
        (vec![change(), count(), one(1), one(2), one(3), count(), sync()], 1),
        (vec![query(ALL)], 1),
        (vec![one(4), one(5), change(), count(), fails(), sync()], 1),
        (vec![change(), one(4), fails(), sync()], 1),
        (vec![change(), fails(), one(4), sync(), count(), sync()], 2),
        (vec![query(ALL)], 1),
        (vec![one(6), run("SET work_mem = '3MB'"), count(), run("SHOW work_mem"), sync()], 1),
        (vec![query("SHOW work_mem")], 1),
        (vec![run("BEGIN"), one(7), change(), run("COMMIT"), count(), sync()], 1),
        (
            vec![
                run("BEGIN"),
                one(21),
                run("COMMIT"),
                run("BEGIN"),
                one(22),
                one(23),
                run("COMMIT"),
                sync(),
            ],
            1,
        ),
        (vec![run("VACUUM t"), close_portal(""), sync()], 1),
        (vec![run("BEGIN"), one(8), change(), sync()], 1),
        (vec![count(), one(9), run("ROLLBACK"), count(), one(10), sync()], 1),
        (vec![query(ALL)], 1),
        (
            vec![
                run("CREATE TABLE other (x int)"),
                one(5),
                run("INSERT INTO other VALUES (1)"),
                sync(),
            ],
            1,
        ),
        (vec![run("SELECT x FROM other"), run("DROP TABLE other"), fails(), sync()], 1),
        (vec![run("SELECT x FROM other"), count(), sync()], 1),
    ])
    .await;
}

#[tokio::test]
async fn one_text_may_end_and_begin_blocks_behind_others() {
    let texts = [
        "DELETE FROM t WHERE id < 3; COMMIT; DELETE FROM t WHERE id < 5; COMMIT AND CHAIN",
        "DELETE FROM t WHERE id < 5; ROLLBACK; SELECT count(*) FROM t; ROLLBACK AND CHAIN",
        "DELETE FROM t WHERE id < 5; COMMIT AND CHAIN; DELETE FROM t; COMMIT",
        "SET TRANSACTION READ ONLY; COMMIT AND CHAIN",
        "SHOW transaction_read_only",
        "DELETE FROM t WHERE id < 5; BEGIN; DELETE FROM t WHERE id < 7; COMMIT; SELECT 1; SELECT 1/0",
        "SELECT count(*) FROM t; BEGIN READ ONLY; DELETE FROM t",
        "ROLLBACK; SELECT count(*) FROM t",
        "START TRANSACTION ISOLATION LEVEL REPEATABLE READ; DELETE FROM t WHERE id = 8; COMMIT AND CHAIN",
        "SHOW transaction_isolation",
        "COMMIT",
        "BEGIN",
        "SELECT 1/0",
        "PREPARE TRANSACTION 'none'",
        "BEGIN; SELECT note FROM t WHERE id = 9; SELECT 1/0",
        "PREPARE TRANSACTION 'none'; SELECT count(*) FROM t",
        ALL,
    ];
    let mut steps: Vec<_> = texts.iter().map(|text| (vec![query(text)], 1)).collect();
    let delete = || run("DELETE FROM t WHERE id < 12");
    steps.push((vec![delete(), run("COMMIT AND CHAIN"), sync()], 1));
    steps.push((vec![delete(), run("ROLLBACK"), delete(), run("ROLLBACK AND CHAIN"), sync()], 1));
    steps.push((vec![query(ALL)], 1));
    same_over_two_nodes(steps).await;
}

#[tokio::test]
async fn texts_that_came_before_an_error_of_the_proxy_are_parsed() {
    let found = || [bind("", "found", &[Some("3")]), execute("", 0)].concat();
    let read = "SELECT note FROM t WHERE id = $1::int";
    same_over_two_nodes(vec![
        (vec![parse("one", "SELECT 1"), parse("one", "SELECT 2"), sync()], 1),
        (vec![parse("found", read), bind("", "none", &[]), execute("", 0), sync()], 1),
        (vec![bind("", "one", &[]), execute("", 0), found(), sync()], 1),
        (vec![parse("bad", "SELECT none"), parse("one", "SELECT 2"), sync()], 1),
        (vec![parse("bad", "SELECT 5"), sync()], 1),
        (vec![query("BEGIN"), query("SELECT 1/0")], 2),
        (vec![parse("late", "SELECT 6"), bind("", "none", &[]), sync()], 1),
        (vec![query("ROLLBACK"), query(ALL)], 2),
    ])
    .await;
}

#[tokio::test]
async fn errors_about_rows_name_the_tables() {
    let define = "ALTER TABLE t ADD UNIQUE (id, note), ALTER note SET NOT NULL, \
                  ADD CONSTRAINT short CHECK (note NOT LIKE '%\"t_s1\"%')";
    let check = "INSERT INTO t SELECT id + 50, '\"t_s1\"' FROM t WHERE id = 1";
    same_over_two_nodes(vec![
        (vec![query(define)], 1),
        (vec![query("INSERT INTO t VALUES (1, 'again')")], 1),
        (vec![query("INSERT INTO t VALUES (2, 'again'), (3, 'again')")], 1),
        (vec![query("INSERT INTO t VALUES (4)")], 1),
        (vec![query("UPDATE t SET note = NULL WHERE id = 5")], 1),
        (vec![query(check)], 1),
        (vec![run("INSERT INTO t VALUES (6, 'x')"), sync()], 1),
        (vec![parse("p", "UPDATE t SET note = $2 WHERE id = $1"), sync()], 1),
        (vec![bind("", "p", &[Some("7"), None]), execute("", 0), sync()], 1),
        (vec![bind("", "p", &[Some("7"), None]), execute("", 0), sync()], 1),
    ])
    .await;
}

#[tokio::test]
async fn errors_about_rows_name_constraints_and_indexes_as_they_were_named() {
    let define =
        "ALTER TABLE t ADD CONSTRAINT \"My uq\" UNIQUE (id, note), ALTER note SET NOT NULL";
    let again = || query("INSERT INTO t SELECT id, note FROM t WHERE id = 2");
    let other = "INSERT INTO t SELECT id + 100, lower(note) FROM t WHERE id = 3";
    same_over_two_nodes(vec![
        (vec![query("ALTER TABLE t RENAME CONSTRAINT t_pkey TO t_one")], 1),
        (vec![query("INSERT INTO t VALUES (1, 'again')")], 1),
        (vec![query("INSERT INTO t VALUES (2, 'again'), (3, 'again')")], 1),
        (vec![query("ALTER TABLE t DROP CONSTRAINT t_one"), query(define)], 2),
        (vec![again()], 1),
        (vec![query("BEGIN"), again(), query("ROLLBACK")], 3),
        (vec![query("ALTER TABLE t RENAME CONSTRAINT \"My uq\" TO other_uq")], 1),
        (vec![again()], 1),
        (vec![run("INSERT INTO t SELECT id, note FROM t"), sync()], 1),
        (vec![query("ALTER TABLE t DROP CONSTRAINT other_uq")], 1),
        (vec![query("CREATE UNIQUE INDEX lowered ON t (id, lower(note)) WHERE id < 1000")], 1),
        (vec![query(other), query(other)], 2),
        (vec![query("ALTER INDEX lowered RENAME TO lowered_again")], 1),
        (vec![again()], 1),
    ])
    .await;
}

#[tokio::test]
async fn portals_live_up_to_sync() {
    let rows = || parse("rows", "SELECT id FROM t WHERE id <> $1 ORDER BY id");
    let add = |id: i32| run(&format!("INSERT INTO t VALUES ({id}, 'new')"));
    same_over_two_nodes(vec![
        (
            vec![
                rows(),
                bind("p", "rows", &[Some("3")]),
                execute("p", 2),
                add(11),
                execute("p", 3),
                add(12),
                add(13),
                execute("p", 0),
                sync(),
            ],
            1,
        ),
        (vec![execute("p", 0), sync()], 1),
        (vec![query(ALL)], 1),
    ])
    .await;
}

#[tokio::test]
async fn settings_that_come_first_are_those_of_the_transaction_up_to_sync() {
    let show = || query("SHOW work_mem");
    let count = || run("SELECT count(*) FROM t");
    let fails = || run("SELECT 1/0");
    let one = || run("DELETE FROM t WHERE id = 1");
    same_over_two_nodes(vec![
        (vec![run("SET work_mem = '3MB'"), count(), fails(), sync()], 1),
        (vec![show()], 1),
        (vec![run("SET work_mem = '4MB'"), one(), run("SHOW work_mem"), sync()], 1),
        (vec![show()], 1),
        (vec![run("RESET work_mem"), run("SHOW work_mem"), fails(), sync()], 1),
        (vec![show()], 1),
        (vec![run("SET work_mem = '5MB'"), sync(), fails(), sync()], 2),
        (vec![show()], 1),
        (vec![run("SET work_mem = '6MB'"), flush(), fails(), sync()], 1),
        (vec![show()], 1),
        (vec![run("SET work_mem = '7MB'"), run("BEGIN"), one(), run("ROLLBACK"), sync()], 1),
        (vec![show()], 1),
        (vec![run("SET LOCAL work_mem = '8MB'"), run("SHOW work_mem"), count(), sync()], 1),
        (vec![show()], 1),
        (vec![run("SET nonsense = 1"), count(), sync(), count(), sync()], 2),
    ])
    .await;
}

#[tokio::test]
async fn blocks_begin_and_end_behind_others_as_in_postgresql() {
    let count = || run("SELECT count(*) FROM t");
    let one = |id: i32| run(&format!("DELETE FROM t WHERE id = {id}"));
    let both = || run("DELETE FROM t WHERE id IN (3, 4)");
    let fails = || run("SELECT 1/0");
    let rows = || (vec![query(ALL)], 1);
    same_over_two_nodes(vec![
        (vec![one(1), run("BEGIN"), one(2), sync()], 1),
        (vec![run("ROLLBACK"), sync()], 1),
        rows(),
        (vec![both(), run("START TRANSACTION"), one(2), run("COMMIT"), sync()], 1),
        rows(),
        (vec![one(5), run("COMMIT"), one(6), fails(), sync()], 1),
        rows(),
        (vec![one(6), one(7), run("ROLLBACK"), one(8), sync()], 1),
        rows(),
        (vec![one(9), fails(), run("COMMIT"), sync()], 1),
        rows(),
        (
            vec![
                run("SET work_mem = '3MB'"),
                run("BEGIN ISOLATION LEVEL REPEATABLE READ"),
                run("SHOW transaction_isolation"),
                count(),
                sync(),
            ],
            1,
        ),
        (vec![run("ROLLBACK"), run("SHOW work_mem"), sync()], 1),
        (vec![one(10), run("BEGIN READ ONLY"), one(11), sync()], 1),
        (vec![run("COMMIT"), sync()], 1),
        (vec![count(), run("BEGIN ISOLATION LEVEL SERIALIZABLE"), sync()], 1),
        (vec![query("ROLLBACK")], 1),
        rows(),
    ])
    .await;
}

#[tokio::test]
async fn parameters_of_undeclared_types_may_be_used_for_the_key_and_for_more() {
    let text = "INSERT INTO t VALUES ($1, 'n' || $1::int)";
    let wrong = "INSERT INTO t VALUES ($1, $1)";
    let one = |name: &str, id: &str| [bind("", name, &[Some(id)]), execute("", 0)].concat();
    let two = |name: &str, id: &str, note: &str| {
        [bind("", name, &[Some(id), Some(note)]), execute("", 0)].concat()
    };
    let both = "INSERT INTO t VALUES ($1, 'a' || $2::int), ($2, 'b') RETURNING id, note";
    same_over_two_nodes(vec![
        (vec![parse("", text), one("", "61"), sync()], 1),
        (vec![parse("", wrong), one("", "61"), sync()], 1),
        (vec![parse("named", text), describe_statement("named"), sync()], 1),
        (vec![one("named", "62"), one("named", "63"), one("named", "64"), sync()], 1),
        (vec![one("named", " 65 "), one("named", "x"), sync()], 1),
        (vec![describe_statement("named"), sync()], 1),
        (vec![query("BEGIN"), parse("", text), one("", "66"), sync()], 2),
        (vec![one("named", "67"), sync(), query("COMMIT")], 2),
        (vec![parse("both", both), describe_statement("both"), two("both", "68", "69"), sync()], 1),
        (vec![parse("", "INSERT INTO t VALUES ($1, $1 || 'x')"), one("", "70"), sync()], 1),
        (vec![parse("", "DELETE FROM t WHERE id = $1 AND $1 = 61"), one("", "61"), sync()], 1),
        (vec![query(ALL)], 1),
    ])
    .await;
}

#[tokio::test]
async fn a_batch_has_one_error() {
    let two = || run("SET LOCAL work_mem = '3MB'; SELECT 1");
    let unread = || run("SELECT nonsense FROM t");
    same_over_two_nodes(vec![
        (vec![two(), sync()], 1),
        (vec![query("BEGIN"), two(), sync(), query("ROLLBACK")], 3),
        (vec![parse("", "SELECT 1; SELECT 2"), bind("", "", &[]), sync()], 1),
        (vec![run("DELETE FROM t WHERE id = 1"), two(), sync()], 1),
        (vec![run("DELETE FROM t WHERE id = 1"), unread(), unread(), sync()], 1),
        (vec![query(ALL)], 1),
    ])
    .await;
}
