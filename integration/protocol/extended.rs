//! The extended protocol and COPY.

use super::*;

#[tokio::test]
async fn the_extended_protocol_in_every_legal_order() {
    let one = vec![
        parse("", "SELECT id, note FROM t WHERE id = $1"),
        describe_statement(""),
        bind("", "", &[Some("3")]),
        describe_portal(""),
        execute("", 0),
        sync(),
    ];
    let named = vec![
        parse("a", "SELECT $1::int + $2::int"),
        parse("b", "SELECT note FROM t WHERE id <= $1 ORDER BY id"),
        bind("pa", "a", &[Some("1"), Some("2")]),
        bind("pb", "b", &[Some("4")]),
        execute("pb", 2),
        execute("pa", 0),
        execute("pb", 1),
        execute("pb", 0),
        execute("pb", 0),
        close_portal("pb"),
        sync(),
        bind("", "b", &[Some("2")]),
        execute("", 0),
        sync(),
    ];
    let portals_in_a_block = vec![
        (vec![query("BEGIN")], 1),
        (vec![bind("c", "b", &[Some("9")]), execute("c", 2), sync()], 1),
        (vec![execute("c", 3), sync()], 1),
        (vec![query("FETCH 2 FROM c")], 1),
        (vec![execute("c", 0), sync()], 1),
        (vec![query("COMMIT")], 1),
        (vec![execute("c", 0), sync()], 1),
    ];
    let mut script = vec![
        (one, 1),
        (named, 2),
        (vec![sync(), sync()], 2),
        (vec![flush(), sync()], 1),
        (vec![describe_statement("b"), sync()], 1),
        (vec![close_statement("b"), close_statement("none"), close_portal("none"), sync()], 1),
        (vec![bind("", "b", &[Some("2")]), execute("", 0), sync()], 1),
        (vec![parse("b", "SELECT note FROM t WHERE id <= $1 ORDER BY id"), sync()], 1),
        (vec![parse("b", "SELECT 1"), sync()], 1),
        (
            vec![
                close_statement("b"),
                parse("b", "SELECT id FROM t WHERE id <= $1 ORDER BY id"),
                sync(),
            ],
            1,
        ),
    ];
    script.extend(portals_in_a_block);
    same(script).await;
}

#[tokio::test]
async fn statements_of_the_protocol_and_of_sql_share_their_names() {
    let one = |sql: &str| {
        vec![parse("", sql), bind("", "", &[]), describe_portal(""), execute("", 0), sync()]
    };
    same(vec![
        (vec![parse("a", "SELECT id, note FROM t WHERE id = $1"), sync()], 1),
        (vec![query("EXECUTE a(3)")], 1),
        (vec![query("EXECUTE a(1 + 1)")], 1),
        (vec![query("EXECUTE a")], 1),
        (one("EXECUTE a(4)"), 1),
        (vec![parse("", "EXECUTE a(5)"), describe_statement(""), sync()], 1),
        (vec![parse("", "EXECUTE none"), describe_statement(""), sync()], 1),
        (vec![parse("", "EXECUTE a(5)"), bind("", "", &[Some("1")]), execute("", 0), sync()], 1),
        (vec![query("PREPARE a AS SELECT 1")], 1),
        (vec![query("DEALLOCATE a")], 1),
        (vec![bind("", "a", &[Some("3")]), execute("", 0), sync()], 1),
        (vec![query("DEALLOCATE a")], 1),
        (vec![parse("b", "SELECT 1"), parse("c", "SELECT note FROM t LIMIT $1"), sync()], 1),
        (one("DEALLOCATE b"), 1),
        (vec![bind("", "c", &[Some("3")]), execute("", 0), sync()], 1),
        (one("DEALLOCATE ALL"), 1),
        (vec![bind("", "c", &[Some("3")]), execute("", 0), sync()], 1),
        (vec![parse("c", "SELECT note FROM t LIMIT $1"), sync()], 1),
        (vec![bind("", "c", &[Some("3")]), execute("", 0), sync()], 1),
        (vec![query("BEGIN")], 1),
        (vec![query("PREPARE d AS SELECT 1; DEALLOCATE ALL")], 1),
        (vec![parse("c", "SELECT note FROM t LIMIT $1"), sync()], 1),
        (vec![bind("", "c", &[Some("3")]), execute("", 0), sync()], 1),
        (vec![query("COMMIT")], 1),
        (vec![query("EXECUTE c(2)")], 1),
    ])
    .await;
}

#[tokio::test]
async fn an_error_skips_to_sync_and_rolls_back_what_was_pipelined() {
    let insert = |id: &str| {
        [
            parse("", "INSERT INTO t VALUES ($1, 'p')"),
            bind("", "", &[Some(id)]),
            describe_portal(""),
            execute("", 0),
        ]
        .concat()
    };
    same(vec![
        (vec![insert("40"), insert("1"), insert("41"), sync(), insert("42"), sync()], 2),
        (vec![query("SELECT id FROM t WHERE id > 30")], 1),
        (vec![parse("", "SELEC"), bind("", "", &[]), execute("", 0), sync()], 1),
        (vec![bind("", "none", &[]), execute("", 0), sync()], 1),
        (vec![execute("none", 0), parse("x", "SELECT 1"), sync()], 1),
        (vec![describe_statement("x"), sync()], 1),
        (vec![describe_portal("none"), sync()], 1),
        (vec![parse("y", "SELECT $1::int"), bind("", "y", &[]), sync()], 1),
        (vec![bind("", "y", &[Some("one")]), execute("", 0), sync()], 1),
        (vec![bind("", "y", &[Some("1")]), execute("", 0), sync()], 1),
        (vec![bind("", "y", &[None]), execute("", 0), execute("", 0), sync()], 1),
        (vec![parse("", "SELECT 1; SELECT 2"), sync()], 1),
        (vec![parse("", "BEGIN"), bind("", "", &[]), execute("", 0), sync()], 1),
        (vec![insert("43"), insert("1"), sync()], 1),
        (vec![insert("44"), sync()], 1),
        (vec![parse("", "ROLLBACK"), bind("", "", &[]), execute("", 0), sync()], 1),
        (vec![query("SELECT id FROM t WHERE id > 30")], 1),
        (vec![insert("45"), query("SELECT count(*) FROM t"), sync()], 2),
        (vec![insert("1"), query("SELECT count(*) FROM t"), sync()], 1),
        (vec![parse("", ""), bind("", "", &[]), describe_portal(""), execute("", 0), sync()], 1),
        (vec![parse("", "SELECT 1 WHERE false"), bind("", "", &[]), execute("", 0), sync()], 1),
    ])
    .await;
}

#[tokio::test]
async fn control_statements_and_ddl_in_the_extended_protocol() {
    let run = |sql: &str| {
        (
            vec![
                parse("", sql),
                describe_statement(""),
                bind("", "", &[]),
                describe_portal(""),
                execute("", 0),
                sync(),
            ],
            1,
        )
    };
    let pipelined = |texts: &[&str]| {
        let mut messages = Vec::new();
        for sql in texts {
            messages.extend([
                parse("", sql),
                bind("", "", &[]),
                describe_portal(""),
                execute("", 0),
            ]);
        }
        messages.push(sync());
        (messages, 1)
    };
    let mut script: Script = [
        "BEGIN",
        "SAVEPOINT s",
        "SELECT 1/0",
        "SELECT 1",
        "ROLLBACK TO s",
        "SET LOCAL DateStyle = German",
        "SHOW DateStyle",
        "COMMIT",
        "SHOW DateStyle",
        "SET DateStyle = German",
        "SHOW DateStyle",
        "RESET DateStyle",
        "CREATE TABLE u (x int)",
        "INSERT INTO u VALUES (1), (2)",
        "DELETE FROM u RETURNING x",
        "TRUNCATE u",
        "VACUUM u",
        "DISCARD ALL",
        "COMMIT",
        "SET no_such_setting = 1",
    ]
    .map(run)
    .into();
    script.push(pipelined(&["BEGIN", "INSERT INTO t VALUES (50, 'x')", "COMMIT"]));
    script.push(pipelined(&["BEGIN", "INSERT INTO t VALUES (51, 'x')", "SELECT 1/0", "COMMIT"]));
    script.push(pipelined(&["ROLLBACK"]));
    script.push(pipelined(&["SELECT 1", "SET work_mem = '2MB'", "SHOW work_mem", "SELECT 2"]));
    script.push(pipelined(&["SELECT count(*) FROM t"]));
    script.push(pipelined(&["INSERT INTO t VALUES (52, 'x')", "BEGIN", "SELECT 1"]));
    script.push(pipelined(&["COMMIT"]));
    same(script).await;
}

#[tokio::test]
async fn binary_and_text_formats_pass_as_they_are() {
    let four = 4_i32.to_be_bytes();
    same(vec![
        (
            vec![
                parse_typed(
                    "s",
                    "SELECT $1, $2, now() IS NULL, ARRAY[$1, 2], 1.5::numeric",
                    &[23, 25],
                ),
                describe_statement("s"),
                bind_formats("", "s", &[Some(&four), Some(b"x")], (&[1, 0], &[1])),
                describe_portal(""),
                execute("", 0),
                bind_formats("", "s", &[Some(&four), None], (&[1, 0], &[1, 0, 1, 0, 1])),
                execute("", 0),
                bind_formats("", "s", &[Some(b"4"), Some(b"x")], (&[0], &[0])),
                execute("", 0),
                sync(),
            ],
            1,
        ),
        (vec![bind_formats("", "s", &[Some(&four[..3]), None], (&[1], &[])), sync()], 1),
        (vec![bind_formats("", "s", &[Some(b"4"), None], (&[0, 0, 0], &[])), sync()], 1),
        (vec![bind_formats("", "s", &[Some(b"4"), None], (&[7], &[])), sync()], 1),
    ])
    .await;
}

#[tokio::test]
async fn copy_passes_in_both_directions_and_protocols() {
    let start = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
    let copy_in = "COPY t FROM STDIN";
    same(vec![
        (vec![query("COPY t TO STDOUT")], 1),
        (vec![query("COPY (SELECT 1) TO STDOUT (FORMAT binary)")], 1),
        (
            vec![
                query("COPY t FROM STDIN"),
                copy_data(b"60\tx\n61"),
                copy_data(b"\ty\n"),
                copy_done(),
            ],
            1,
        ),
        (vec![query("COPY t FROM STDIN"), copy_data(b"62\tx\n"), copy_fail("changed my mind")], 1),
        (vec![query("COPY t FROM STDIN"), copy_data(b"1\tx\n"), copy_done()], 1),
        (
            vec![
                query("COPY t FROM STDIN"),
                copy_data(b"a\tx\n"),
                copy_data(b"63\tx\n"),
                copy_done(),
            ],
            1,
        ),
        (
            vec![
                query("SELECT 5; COPY t FROM STDIN; SELECT 6"),
                copy_data(b"64\tx\n"),
                copy_done(),
            ],
            1,
        ),
        (vec![start(copy_in), copy_data(b"65\tx\n"), copy_done(), sync()], 1),
        (vec![start(copy_in), copy_data(b"66\tx\n"), copy_fail("no"), sync()], 1),
        (vec![start(copy_in), copy_data(b"1\tx\n"), copy_done(), sync()], 1),
        (vec![start(copy_in), copy_data(b"b\tx\n"), copy_data(b"67\tx\n"), copy_done(), sync()], 1),
        (vec![start("COPY t TO STDOUT"), sync()], 1),
        (vec![start(copy_in), sync(), copy_data(b"68\tx\n"), flush(), copy_done(), sync()], 1),
        (vec![query("SELECT count(*) FROM t")], 1),
        (vec![copy_data(b"stray"), copy_done(), copy_fail("stray"), query("SELECT 1")], 1),
        (vec![query("BEGIN")], 1),
        (vec![query("COPY t FROM STDIN"), copy_fail("no")], 1),
        (vec![query("SELECT 1")], 1),
        (vec![query("ROLLBACK")], 1),
        (vec![query("COPY nothing FROM STDIN")], 1),
    ])
    .await;
}
