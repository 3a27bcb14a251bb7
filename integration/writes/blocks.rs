//! Transaction blocks that begin inside of a text of several statements.

use crate::write_support::Pair;

#[tokio::test]
async fn other_nodes_join_a_block_that_a_text_of_several_statements_has_begun() {
    let pair = Pair::start().await;
    let insert = "INSERT INTO tenants (id, name) SELECT g, 'x' FROM generate_series(1, 8) g";
    let mut texts = vec![insert.to_owned()];
    for (begin, end) in [
        ("BEGIN", "COMMIT"),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ", "COMMIT"),
        ("SELECT 1; BEGIN", "ROLLBACK"),
        ("BEGIN READ ONLY; SELECT 1", "ROLLBACK"),
    ] {
        texts.push(format!("{begin}; UPDATE tenants SET name = name || '!' WHERE id = 1"));
        for tenant in 2..=8 {
            texts.push(format!("UPDATE tenants SET name = name || '?' WHERE id = {tenant}"));
        }
        texts.push("SHOW transaction_isolation".to_owned());
        texts.push(end.to_owned());
        texts.push("SELECT id, name FROM tenants ORDER BY id".to_owned());
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    pair.all_same(&texts).await;
}

#[tokio::test]
async fn a_reference_table_gets_the_same_rows_on_all_nodes_in_the_block_that_makes_it() {
    let pair = Pair::start().await;
    let made = "CREATE TABLE plans (id serial PRIMARY KEY, name text, \
        made timestamptz DEFAULT clock_timestamp(), tag uuid DEFAULT gen_random_uuid())";
    pair.all_same(&[
        "BEGIN",
        "DROP TABLE plans",
        made,
        "INSERT INTO plans (id, name) VALUES (10, 'a'), (11, 'b')",
        "INSERT INTO plans (name) VALUES ('c'), ('d')",
        "INSERT INTO plans (name) SELECT 'e' || n FROM generate_series(1, 3) n ORDER BY n",
        "ALTER TABLE plans ALTER COLUMN made SET DEFAULT now() - interval '1 day'",
        "INSERT INTO plans DEFAULT VALUES",
        "UPDATE plans SET name = name || '!' WHERE id < 4",
        "SELECT id, name FROM plans",
        "COMMIT",
        "INSERT INTO plans (name) VALUES ('f')",
    ])
    .await;
    let (drop, insert) = ("DROP TABLE plans", "INSERT INTO plans (name) VALUES ('x'), ('y')");
    pair.all_same(&[&format!("{drop}; {made}; {insert}"), insert]).await;
    let identity = "CREATE TABLE plans (id int GENERATED ALWAYS AS IDENTITY, name text)";
    pair.all_same(&["BEGIN", drop, identity, insert, insert, "COMMIT", insert]).await;
}

#[tokio::test]
async fn children_of_a_home_table_stay_out_of_only_inside_of_a_block_too() {
    let pair = Pair::start().await;
    pair.all_same(&[
        "CREATE TABLE old_journal () INHERITS (journal)",
        "INSERT INTO journal (what) VALUES ('a'), ('b')",
        "INSERT INTO old_journal (what) VALUES ('c')",
        "INSERT INTO tenants (id, name) SELECT g, 'x' FROM generate_series(1, 8) g",
    ])
    .await;
    let queries = [
        "SELECT j.what, t.id FROM ONLY journal j, tenants t WHERE t.id < 5",
        "SELECT count(*) FROM tenants t JOIN only /* its own */ journal USING (id)",
        "SELECT a.what, b.what, t.id FROM journal a JOIN ONLY -- its own\n journal b ON a.id = b.id \
         JOIN tenants t ON t.id = a.id",
        "SELECT id FROM tenants WHERE id IN (SELECT id FROM ONLY journal)",
        "SELECT only.what, t.id FROM journal only, tenants t WHERE only.id = t.id",
    ];
    pair.all_same(&queries).await;
    pair.same("BEGIN").await;
    for sql in queries {
        pair.same(sql).await;
    }
    pair.same("COMMIT").await;
}
