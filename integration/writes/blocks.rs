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
