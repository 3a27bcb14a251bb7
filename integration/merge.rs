//! MERGE through the proxy and on one PostgreSQL server: the same statements, the same answers, the
//! same rows afterwards.
#![allow(clippy::print_stdout, reason = "the counts are for whoever runs the test")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;
mod write_support;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use write_support::Pair;

/// Rows on all nodes, of sharded tables, a reference table and a home table.
const ROWS: [&str; 5] = [
    "INSERT INTO plans (id, name) VALUES (1, 'free'), (2, 'paid'), (3, 'gold'), (7, 'old')",
    "INSERT INTO tenants (id, name, plan) SELECT i, 'tenant ' || i, i % 4 FROM generate_series(1, 24) i",
    "INSERT INTO orders (tenant_id, id, note, total) SELECT i, n, 'o' || i, i * n \
     FROM generate_series(1, 16) i, generate_series(1, 2) n",
    "INSERT INTO notes (tenant_id, at, body) SELECT i, '2024-01-01', 'note ' || i \
     FROM generate_series(4, 20) i",
    "INSERT INTO journal (id, what) SELECT i, 'entry ' || i FROM generate_series(1, 12) i",
];

async fn filled() -> Pair {
    let pair = Pair::start().await;
    pair.all_same(&ROWS).await;
    pair
}

/// Whether EXPLAIN gives one node's plan.
async fn is_of_one_node(pair: &Pair, sql: &str) -> bool {
    let lines = support::rows(&pair.shop, &format!("EXPLAIN {sql}")).await;
    lines[0] == "Way: one node" || !lines[0].starts_with("Way: ")
}

#[tokio::test]
async fn a_merge_with_one_key_runs_on_its_node() {
    let pair = filled().await;
    let statements = [
        "MERGE INTO tenants t USING (VALUES (5, 'five')) s (id, name) ON t.id = s.id \
         WHEN MATCHED THEN UPDATE SET name = s.name \
         WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name)",
        "MERGE INTO tenants AS t USING (SELECT 105 AS id, 'new' AS name) AS s ON s.id = t.id \
         WHEN MATCHED THEN UPDATE SET name = s.name \
         WHEN NOT MATCHED THEN INSERT (name, id) VALUES (s.name || '!', s.id)",
        "MERGE INTO tenants t USING (SELECT 105::bigint AS id) s ON t.id = s.id \
         WHEN MATCHED AND t.name LIKE 'new%' THEN DELETE WHEN MATCHED THEN DO NOTHING",
        "MERGE INTO orders USING plans p ON tenant_id = 3 AND orders.id = p.id \
         WHEN MATCHED THEN UPDATE SET note = p.name \
         WHEN NOT MATCHED THEN INSERT (tenant_id, id, note) VALUES (3, p.id, p.name)",
        "MERGE INTO orders o USING (SELECT id, name FROM tenants WHERE id = 7) t \
         ON o.tenant_id = t.id AND o.id = 1 \
         WHEN MATCHED THEN UPDATE SET note = t.name \
         WHEN NOT MATCHED THEN INSERT (tenant_id, id) VALUES (t.id, 9)",
        "MERGE INTO tenants t USING (VALUES (NULL::bigint)) s (id) ON t.id = s.id \
         WHEN MATCHED THEN DELETE",
    ];
    for sql in statements {
        assert!(is_of_one_node(&pair, sql).await, "{sql}");
        pair.all_same(&[sql]).await;
    }
    pair.all_same(&[
        // Errors are PostgreSQL's.
        "MERGE INTO tenants t USING (VALUES (5, 'a'), (5, 'b')) s (id, name) ON t.id = s.id \
         WHEN MATCHED THEN UPDATE SET name = s.name",
        "MERGE INTO tenants t USING (VALUES (200), (200)) s (id) ON t.id = s.id \
         WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)",
        "MERGE INTO tenants t USING (VALUES ('5')) s (id) ON t.id = s.id WHEN MATCHED THEN DELETE",
        "MERGE INTO tenants t USING (VALUES (NULL::bigint)) s (id) ON t.id = s.id \
         WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)",
        "MERGE INTO tenants t USING (SELECT 5 AS id) s ON t.id = s.id \
         WHEN MATCHED THEN DO NOTHING WHEN MATCHED THEN DELETE",
        "MERGE INTO tenants t USING (SELECT 5 AS id) s ON t.id = s.nope WHEN MATCHED THEN DELETE",
        "MERGE INTO tenants t USING (SELECT 5 AS id) s ON t.id = s.id \
         WHEN NOT MATCHED THEN INSERT (id, nope) VALUES (s.id, 1)",
    ])
    .await;
}

#[tokio::test]
async fn parameters_say_where_a_merge_runs() {
    let pair = filled().await;
    for client in [&pair.shop, &pair.plain] {
        let sql = "MERGE INTO tenants t USING (SELECT $1::bigint AS id, $2::text AS name) s \
            ON t.id = s.id WHEN MATCHED THEN UPDATE SET name = s.name || $3 \
            WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, $3)";
        let merge = client.prepare(sql).await.unwrap();
        for id in [1_i64, 2, 3, 50, 51, 52] {
            assert_eq!(client.execute(&merge, &[&id, &"x", &"y"]).await.unwrap(), 1);
        }
        let sql = "MERGE INTO tenants t USING (VALUES ($1::bigint, $2::text), ($3, $4), ($5, $4)) \
            s (id, name) ON t.id = s.id WHEN MATCHED THEN UPDATE SET name = s.name, plan = $6 \
            WHEN NOT MATCHED THEN INSERT (id, name, plan) VALUES (s.id, s.name, $6)";
        let merge = client.prepare(sql).await.unwrap();
        for ids in [[1_i64, 2, 3], [60, 61, 62], [4, 63, 64]] {
            let done =
                client.execute(&merge, &[&ids[0], &"p", &ids[1], &"q", &ids[2], &8_i32]).await;
            assert_eq!(done.unwrap(), 3);
        }
        let sql = "MERGE INTO notes n USING tenants t ON n.tenant_id = t.id AND t.plan = $1 \
            WHEN MATCHED THEN UPDATE SET body = $2 || t.name";
        assert_eq!(client.execute(sql, &[&2_i32, &"a "]).await.unwrap(), 4);
    }
    pair.same_tables().await;
}

#[tokio::test]
async fn a_merge_of_tables_that_stand_together_runs_on_each_node() {
    let pair = filled().await;
    pair.all_same(&[
        "MERGE INTO notes n USING tenants t ON n.tenant_id = t.id \
         WHEN MATCHED AND t.plan = 0 THEN DELETE \
         WHEN MATCHED THEN UPDATE SET body = n.body || ' of ' || t.name \
         WHEN NOT MATCHED AND t.plan = 1 THEN INSERT (tenant_id, at, body) \
         VALUES (t.id, '2025-01-01', t.name)",
        "MERGE INTO orders AS o USING (SELECT t.id AS tenant, n.body FROM tenants t \
         JOIN notes n ON n.tenant_id = t.id WHERE t.plan > 1) AS s \
         ON o.tenant_id = s.tenant AND o.id = 2 \
         WHEN MATCHED THEN UPDATE SET note = s.body, total = o.total + 1 \
         WHEN NOT MATCHED THEN INSERT VALUES (s.tenant, 2, s.body, 0)",
        "MERGE INTO orders o USING plans p ON o.id = p.id AND o.total > 5 \
         WHEN MATCHED THEN UPDATE SET note = p.name",
        "MERGE INTO orders o USING tenants t ON o.tenant_id = t.id \
         WHEN MATCHED THEN UPDATE SET note = now()::date::text WHEN NOT MATCHED THEN DO NOTHING",
        "UPDATE orders SET note = 'n'",
        // Nothing stays of what fails on one node.
        "MERGE INTO orders o USING tenants t ON o.tenant_id = t.id \
         WHEN MATCHED AND o.tenant_id = 9 THEN UPDATE SET total = -1 WHEN MATCHED THEN DELETE",
        "MERGE INTO tenants t USING orders o ON o.tenant_id = t.id \
         WHEN MATCHED THEN UPDATE SET name = o.note",
        "MERGE INTO tenants t USING orders o ON o.tenant_id = t.id AND o.id = 1 \
         WHEN MATCHED AND EXISTS (SELECT 1 FROM notes n WHERE n.tenant_id = t.id) \
         THEN UPDATE SET name = 'noted' WHEN MATCHED THEN UPDATE SET name = 'not noted'",
    ])
    .await;
}

#[tokio::test]
async fn a_source_of_any_kind_is_brought_to_the_nodes_of_its_keys() {
    let pair = filled().await;
    pair.all_same(&[
        "MERGE INTO tenants t USING (VALUES (1, 'a', 1.5), (2, 'b', 2), (3, NULL, NULL), \
         (101, 'c', 4), (102, 'it''s', 7)) AS s (id, name, n) ON t.id = s.id \
         WHEN MATCHED AND s.name IS NULL THEN DELETE \
         WHEN MATCHED THEN UPDATE SET name = s.name || s.n / 2 \
         WHEN NOT MATCHED THEN INSERT (id, name, plan) VALUES (s.id, s.name, s.n / 2)",
        // A reference table, a home table, other groups' and functions' rows.
        "MERGE INTO tenants t USING plans p ON t.id = p.id \
         WHEN MATCHED THEN UPDATE SET name = p.name, plan = p.id \
         WHEN NOT MATCHED THEN INSERT (id, name) VALUES (p.id, p.name)",
        "MERGE INTO notes n USING journal j ON n.tenant_id = j.id \
         WHEN MATCHED THEN UPDATE SET body = j.what \
         WHEN NOT MATCHED AND j.id % 2 = 0 THEN INSERT (tenant_id, at, body) \
         VALUES (j.id, '2024-02-02', j.what)",
        "MERGE INTO tenants t USING generate_series(18, 30) AS s (id) ON t.id = s.id \
         WHEN MATCHED THEN UPDATE SET name = 'series' \
         WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, 'made')",
        "MERGE INTO tenants t USING (SELECT id, count(*) AS n, max(total) AS most FROM orders \
         GROUP BY id) s ON t.id = s.id \
         WHEN MATCHED THEN UPDATE SET name = s.n || ' ' || s.most",
        "MERGE INTO tenants t USING (SELECT id + 1 AS id, name FROM tenants ORDER BY id LIMIT 9) s \
         ON t.id = s.id WHEN MATCHED THEN UPDATE SET name = s.name \
         WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name)",
        "MERGE INTO orders o USING (SELECT t.id AS t, p.id AS p, p.name FROM tenants t, plans p) s \
         ON o.tenant_id = s.t AND o.id = s.p WHEN MATCHED THEN DELETE \
         WHEN NOT MATCHED THEN INSERT (tenant_id, id, note) VALUES (s.t, s.p, s.name)",
        "MERGE INTO orders o USING (VALUES ('o3', 'three'), ('o4', 'four')) s (a, b) \
         ON o.note = s.a WHEN MATCHED THEN UPDATE SET note = s.b",
        // Without rows.
        "MERGE INTO tenants t USING (SELECT * FROM journal WHERE false) s ON t.id = s.id \
         WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.what)",
        // Errors, and nothing stays.
        "MERGE INTO tenants t USING (VALUES (1, 'a'), (2, 'b'), (1, 'c')) s (id, name) \
         ON t.id = s.id WHEN MATCHED THEN UPDATE SET name = s.name",
        "MERGE INTO tenants t USING (VALUES (4, 0), (5, 1), (6, 2)) s (id, n) ON t.id = s.id \
         WHEN MATCHED THEN UPDATE SET plan = 1 / s.n",
        "MERGE INTO tenants t USING (VALUES (301, 'x'), (302, 'y'), (301, 'z')) s (id, name) \
         ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name)",
        "MERGE INTO orders o USING (VALUES (901, 1), (902, 1), (1, 77)) s (t, id) \
         ON o.tenant_id = s.t AND o.id = s.id \
         WHEN NOT MATCHED THEN INSERT (tenant_id, id) VALUES (s.t, s.id)",
        "MERGE INTO notes n USING (VALUES (400::bigint, 'x'), (NULL, 'y'), (401, 'z')) s (id, b) \
         ON n.tenant_id = s.id WHEN NOT MATCHED AND s.id IS NOT NULL \
         THEN INSERT (tenant_id, body) VALUES (s.id, s.b)",
        "MERGE INTO tenants t USING nowhere s ON t.id = s.id WHEN MATCHED THEN DELETE",
        "MERGE INTO tenants t USING (VALUES (1, 2), (3, 4)) s (id, x) ON t.id = s.id \
         WHEN MATCHED THEN UPDATE SET plan = s.y",
    ])
    .await;
}

#[tokio::test]
async fn joins_are_a_source() {
    let pair = filled().await;
    let one = [
        "MERGE INTO notes n USING tenants t JOIN plans p ON p.id = t.plan AND t.id = 5 \
         ON n.tenant_id = t.id WHEN MATCHED THEN UPDATE SET body = p.name || t.name",
        "MERGE INTO notes n USING (tenants t LEFT JOIN orders o ON o.tenant_id = t.id AND o.id = 77) \
         ON n.tenant_id = t.id AND t.id = 6 WHEN MATCHED AND o.id IS NULL THEN DELETE",
    ];
    for sql in one {
        assert!(is_of_one_node(&pair, sql).await, "{sql}");
        pair.all_same(&[sql]).await;
    }
    pair.all_same(&[
        "MERGE INTO notes n USING tenants t JOIN orders o ON o.tenant_id = t.id AND o.id = 1 \
         ON n.tenant_id = t.id WHEN MATCHED AND t.plan = 0 THEN DELETE \
         WHEN MATCHED THEN UPDATE SET body = o.note || t.name WHEN NOT MATCHED \
         THEN INSERT (tenant_id, at, body) VALUES (t.id, '2025-01-01', o.note)",
        "MERGE INTO notes AS n USING orders t LEFT JOIN items o USING (tenant_id) \
         ON n.tenant_id = t.tenant_id WHEN MATCHED THEN DO NOTHING",
        "MERGE INTO notes AS n USING tenants t LEFT JOIN orders o ON o.tenant_id = t.id AND o.id = 2 \
         CROSS JOIN (VALUES ('x')) AS v (x) ON n.tenant_id = t.id \
         WHEN MATCHED THEN UPDATE SET body = coalesce(o.note, 'none') || v.x \
         WHEN NOT MATCHED THEN INSERT (tenant_id, body, at) VALUES (t.id, o.note || v.x, '2025-01-01')",
        "MERGE INTO orders o USING plans p JOIN plans q USING (id) ON o.id = p.id AND o.tenant_id = 9 \
         WHEN MATCHED THEN UPDATE SET note = p.name || q.name",
        "MERGE INTO orders o USING plans p CROSS JOIN plans q ON o.id = p.id AND q.id = 1 \
         WHEN MATCHED THEN DELETE",
        // Named as a whole: its rows go to the nodes of their keys.
        "MERGE INTO tenants t USING (journal a JOIN plans p ON a.id = p.id + 1) AS j (id, what, plan) \
         ON t.id = j.id WHEN MATCHED THEN UPDATE SET name = j.what, plan = j.plan \
         WHEN NOT MATCHED THEN INSERT (id, name) VALUES (j.id, j.what)",
        "MERGE INTO tenants t USING (orders o JOIN plans p USING (id)) AS j ON t.id = j.tenant_id + 1 \
         WHEN MATCHED THEN UPDATE SET name = j.note || j.name",
        "MERGE INTO journal j USING (plans p JOIN plans q ON p.id = q.id) ON j.id = p.id \
         WHEN MATCHED THEN UPDATE SET what = q.name",
        "SELECT * FROM journal",
    ])
    .await;
    for sql in [
        "MERGE INTO tenants t USING journal a JOIN plans p ON a.id = p.id ON t.id = a.id \
         WHEN MATCHED THEN UPDATE SET name = p.name",
        // The key may be NULL, whose shard is on another node.
        "MERGE INTO notes n USING tenants t LEFT JOIN orders o ON o.tenant_id = t.id AND o.id = 2 \
         ON n.tenant_id = t.id WHEN NOT MATCHED THEN INSERT (tenant_id) VALUES (o.tenant_id)",
        "MERGE INTO notes n USING plans p LEFT JOIN tenants t ON p.id = t.plan ON n.tenant_id = t.id \
         WHEN MATCHED THEN DELETE",
        "MERGE INTO notes n USING orders o JOIN tenants t ON o.id = t.id ON n.tenant_id = t.id \
         WHEN MATCHED THEN DELETE",
    ] {
        pair.refused(sql).await;
    }
    pair.same_tables().await;
}

#[tokio::test]
async fn whole_tables_are_merged_on_every_node_or_at_home() {
    let pair = filled().await;
    pair.all_same(&[
        "MERGE INTO plans p USING (VALUES (1, 'none'), (9, 'nine')) s (id, name) ON p.id = s.id \
         WHEN MATCHED THEN UPDATE SET name = s.name \
         WHEN NOT MATCHED THEN INSERT (id, name, made, tag) VALUES (s.id, s.name, '2024-01-01', NULL)",
        "MERGE INTO plans p USING journal j ON p.id = j.id \
         WHEN MATCHED THEN UPDATE SET name = j.what || 'x' WHEN NOT MATCHED AND j.id > 10 \
         THEN INSERT (id, name, made, tag) VALUES (j.id, j.what, '2024-01-01', NULL)",
        "MERGE INTO plans p USING (SELECT plan, count(*) AS n FROM tenants GROUP BY plan) s \
         ON p.id = s.plan WHEN MATCHED THEN UPDATE SET name = p.name || s.n",
        "MERGE INTO journal j USING tenants t ON j.id = t.id \
         WHEN MATCHED THEN UPDATE SET what = t.name \
         WHEN NOT MATCHED AND t.id > 20 THEN INSERT VALUES (t.id, t.name)",
        "MERGE INTO journal j USING (VALUES (3), (4)) s (id) ON j.id = s.id WHEN MATCHED THEN DELETE",
        "MERGE INTO journal j USING plans p ON j.id = p.id WHEN MATCHED THEN UPDATE SET what = p.name",
        "SELECT * FROM journal",
    ])
    .await;
    for sql in [
        "MERGE INTO plans p USING (SELECT 10 AS id) s ON p.id = s.id \
         WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, 'x')",
        "MERGE INTO plans p USING journal j ON p.id = j.id \
         WHEN MATCHED THEN UPDATE SET name = random()::text",
    ] {
        pair.refused(sql).await;
    }
    pair.same_tables().await;
}

#[tokio::test]
async fn a_merge_that_cannot_be_right_is_refused() {
    let pair = filled().await;
    for sql in [
        // The key is set, or another than the one that is compared.
        "MERGE INTO tenants t USING plans p ON t.id = p.id WHEN MATCHED THEN UPDATE SET id = 5",
        "MERGE INTO tenants t USING plans p ON t.id = p.id \
         WHEN NOT MATCHED THEN INSERT (id) VALUES (p.id + 1)",
        "MERGE INTO orders o USING (SELECT id, id AS other FROM journal) s \
         ON o.tenant_id = s.id AND o.id = 1 \
         WHEN NOT MATCHED THEN INSERT (tenant_id, id) VALUES (s.other, 1)",
        "MERGE INTO orders o USING tenants t ON o.tenant_id = t.id \
         WHEN NOT MATCHED THEN INSERT (tenant_id, id) VALUES (t.plan, t.id)",
        "MERGE INTO orders o USING journal j ON o.note = j.what \
         WHEN NOT MATCHED THEN INSERT (tenant_id, id) VALUES (j.id, 1)",
        "MERGE INTO notes n USING journal j ON n.tenant_id = j.id \
         WHEN NOT MATCHED THEN INSERT (body) VALUES (j.what)",
        // Numbers are given out at home.
        "MERGE INTO tenants t USING plans p ON t.id = p.id \
         WHEN NOT MATCHED THEN INSERT (name) VALUES (p.name)",
        "MERGE INTO items i USING orders o ON i.tenant_id = o.tenant_id \
         WHEN NOT MATCHED THEN INSERT (tenant_id, order_id) VALUES (o.tenant_id, o.id)",
        "MERGE INTO tenants t USING journal j ON t.id = j.id \
         WHEN MATCHED THEN UPDATE SET plan = nextval('journal_id_seq')",
        // Types that compare in another way than the key does.
        "MERGE INTO tenants t USING (VALUES (1.5), (2)) s (id) ON t.id = s.id \
         WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)",
        "MERGE INTO tenants t USING journal j ON t.id = j.id \
         WHEN MATCHED THEN UPDATE SET plan = (SELECT count(*) FROM orders)",
        "MERGE INTO tenants t USING journal j ON t.id = j.id \
         WHEN MATCHED AND t.ctid = '(0,1)' THEN DELETE",
        "MERGE INTO ONLY tenants t USING journal j ON t.id = j.id WHEN MATCHED THEN DELETE",
        "WITH j AS (SELECT * FROM journal) MERGE INTO tenants t USING j ON t.id = j.id \
         WHEN MATCHED THEN DELETE",
        "EXPLAIN ANALYZE MERGE INTO tenants t USING journal j ON t.id = j.id WHEN MATCHED THEN DELETE",
    ] {
        pair.refused(sql).await;
    }
    pair.same_tables().await;
}

#[tokio::test]
async fn a_merge_is_part_of_its_transaction() {
    let pair = filled().await;
    let merge = "MERGE INTO tenants t USING journal j ON t.id = j.id \
        WHEN MATCHED THEN UPDATE SET name = j.what \
        WHEN NOT MATCHED THEN INSERT (id, name) VALUES (j.id, j.what)";
    let spread = "MERGE INTO notes n USING tenants t ON n.tenant_id = t.id \
        WHEN MATCHED THEN UPDATE SET body = t.name";
    let last = [
        "BEGIN",
        "INSERT INTO journal (id, what) VALUES (77, 'new')",
        merge,
        spread,
        "SELECT * FROM tenants",
        "ROLLBACK",
        "SELECT * FROM tenants",
        "BEGIN",
        merge,
        "SAVEPOINT here",
        "MERGE INTO tenants t USING journal j ON t.id = j.id WHEN MATCHED THEN DELETE",
        "ROLLBACK TO here",
        spread,
        "COMMIT",
    ];
    for sql in last {
        pair.same(sql).await;
    }
    pair.same_tables().await;
}

/// `MERGE_SEED` and `MERGE_COUNT` choose others.
#[tokio::test]
async fn random_merges_give_what_one_postgresql_gives() {
    let number = |name, default| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (seed, count) = (number("MERGE_SEED", 20_261_122), number("MERGE_COUNT", 150));
    println!("seed {seed}, {count} statements");
    let pair = filled().await;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut right, mut refused) = (0, 0);
    for _ in 0..count {
        let sql = random_merge(&mut rng);
        if pair.same_or_refused(&sql).await {
            right += 1;
        } else {
            refused += 1;
        }
        pair.same_tables().await;
    }
    println!("{right} right, {refused} refused");
    assert!(right > refused, "{right} right, {refused} refused");
}

fn random_merge(rng: &mut StdRng) -> String {
    let mut pick = |all: &[&str]| (*all.choose(&mut *rng).unwrap()).to_owned();
    let target = pick(&["tenants", "notes"]);
    let key = if target == "tenants" { "id" } else { "tenant_id" };
    let text = if target == "tenants" { "name" } else { "body" };
    let source = pick(&[
        "(SELECT id, name AS v, plan AS n FROM tenants WHERE plan < 3)",
        "(SELECT tenant_id AS id, min(body) AS v, count(*)::int AS n FROM notes GROUP BY 1)",
        "(SELECT id, what AS v, id % 5 AS n FROM journal)",
        "(SELECT id, name AS v, length(name) AS n FROM plans)",
        "(VALUES (1, 'x', 1), (2, 'y', 2), (40, 'z', NULL), (41, NULL, 3))",
        "(VALUES (6, 'one', 1))",
        "(SELECT 44 AS id, 'fix' AS v, 7 AS n)",
        "(SELECT o.tenant_id AS id, o.note AS v, o.id::int AS n FROM orders o WHERE o.id = 1)",
        "(SELECT i, 's' || i, i % 3 FROM generate_series(1, 50, 7) i)",
        "(SELECT DISTINCT tenant_id, 'd', 1 FROM orders)",
        "(plans p JOIN tenants USING (id))",
        "((SELECT tenant_id, note FROM orders WHERE id = 2) o JOIN plans p ON p.id < 2)",
    ]);
    let more = pick(&["", "", " AND s.n < 3", " AND s.v IS NOT NULL", " AND t.#text LIKE '%1%'"]);
    let clauses = [
        "WHEN MATCHED THEN UPDATE SET #text = s.v",
        "WHEN MATCHED AND s.n = 2 THEN DELETE WHEN MATCHED THEN UPDATE SET #text = t.#text || s.n",
        "WHEN MATCHED AND t.#text IS NULL THEN DO NOTHING WHEN MATCHED AND s.n > 1 THEN \
         UPDATE SET #text = coalesce(s.v, 'none')",
        "WHEN MATCHED AND length(t.#text) > 30 THEN UPDATE SET #text = 'short'",
        "",
    ];
    let inserts = [
        "WHEN NOT MATCHED THEN INSERT (#key, #text) VALUES (s.id, s.v)",
        "WHEN NOT MATCHED AND s.n > 0 THEN INSERT (#text, #key) VALUES (upper(s.v), s.id)",
        "WHEN NOT MATCHED AND s.v = 'z' THEN DO NOTHING \
         WHEN NOT MATCHED THEN INSERT (#key, #text) VALUES (s.id, (SELECT max(name) FROM plans))",
        "WHEN NOT MATCHED THEN DO NOTHING",
        "WHEN NOT MATCHED THEN INSERT (#key, #text) VALUES (s.id + 0, s.v)",
    ];
    let (clause, insert) = (pick(&clauses), pick(&inserts));
    let sql = format!(
        "MERGE INTO #target AS t USING {source} AS s (id, v, n) ON t.#key = s.id{more} \
         {clause} {insert}"
    );
    sql.replace("#target", &target).replace("#key", key).replace("#text", text)
}
