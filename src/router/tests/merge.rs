//! MERGE: where it runs, or how.

use super::check;

#[test]
fn one_key_on_both_sides_is_one_node() {
    check(&[
        (
            "MERGE INTO orders o USING (VALUES (5, 1)) s (t, id) ON o.tenant_id = s.t AND o.id = s.id \
             WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (tenant_id, id) VALUES (s.t, s.id)",
            "t5",
        ),
        (
            "MERGE INTO orders o USING (SELECT 5 AS t) s ON o.tenant_id = s.t \
             WHEN NOT MATCHED THEN INSERT (tenant_id) VALUES (5)",
            "t5",
        ),
        (
            "MERGE INTO orders o USING countries c ON o.tenant_id = 6 AND o.id = c.id \
             WHEN NOT MATCHED THEN INSERT VALUES (c.id, 6, 1)",
            "t6",
        ),
        (
            "MERGE INTO orders o USING items i ON o.tenant_id = i.tenant_id AND i.tenant_id = 5 \
             WHEN MATCHED THEN DELETE",
            "t5",
        ),
        (
            "MERGE INTO orders o USING (SELECT tenant_id AS t FROM items WHERE tenant_id = 7) i \
             ON o.tenant_id = i.t WHEN NOT MATCHED THEN INSERT (tenant_id) VALUES (i.t)",
            "t7",
        ),
        (
            "MERGE INTO orders o USING items i JOIN countries c USING (id) \
             ON o.tenant_id = i.tenant_id AND i.tenant_id = 5 WHEN MATCHED THEN DELETE",
            "t5",
        ),
    ]);
}

#[test]
fn a_source_that_stands_beside_its_target_is_merged_there() {
    check(&[
        (
            "MERGE INTO orders o USING items i ON o.tenant_id = i.tenant_id AND o.id = 1 \
             WHEN MATCHED THEN DELETE \
             WHEN NOT MATCHED THEN INSERT (tenant_id) VALUES (i.tenant_id)",
            "write s0 s1 s2 s3",
        ),
        (
            "MERGE INTO orders o USING countries c ON o.id = c.id WHEN MATCHED THEN DELETE",
            "write s0 s1 s2 s3",
        ),
        (
            "MERGE INTO orders o USING items i JOIN countries c ON c.id = i.id \
             ON o.tenant_id = i.tenant_id WHEN MATCHED THEN DELETE \
             WHEN NOT MATCHED THEN INSERT (tenant_id) VALUES (i.tenant_id)",
            "write s0 s1 s2 s3",
        ),
        // What the source has more than ON says stays for INSERT.
        (
            "MERGE INTO orders o USING items i ON o.tenant_id = i.tenant_id AND i.tenant_id = 5 \
             WHEN NOT MATCHED THEN INSERT (tenant_id) VALUES (i.tenant_id)",
            "write s0 s1 s2 s3",
        ),
    ]);
}

#[test]
fn other_sources_are_read_first() {
    let insert = "WHEN NOT MATCHED THEN INSERT (tenant_id) VALUES (s.id)";
    for source in [
        "countries",
        "somewhere",
        "docs",
        "(SELECT max(id) AS id FROM items)",
        "(SELECT random()::bigint AS id)",
        "(SELECT i.id FROM items i LIMIT 3)",
        "f(1)",
    ] {
        let sql = format!("MERGE INTO orders o USING {source} s ON o.tenant_id = s.id {insert}");
        check(&[(&*sql, "merge with rows")]);
    }
    check(&[
        ("MERGE INTO orders USING home h ON id = h.x WHEN MATCHED THEN DELETE", "merge with rows"),
        (
            "MERGE INTO home h USING orders o ON h.id = o.id WHEN MATCHED THEN DELETE",
            "merge with rows",
        ),
        ("MERGE INTO home h USING countries c ON h.id = c.id WHEN MATCHED THEN DELETE", "home"),
        (
            "MERGE INTO countries c USING (SELECT 1 AS id) s ON c.id = s.id WHEN MATCHED THEN DELETE",
            "every node",
        ),
        (
            "MERGE INTO countries c USING home h ON c.id = h.id WHEN MATCHED THEN DELETE",
            "merge with rows",
        ),
        (
            "MERGE INTO home h USING x ON h.id = x.id WHEN NOT MATCHED THEN INSERT DEFAULT VALUES",
            "home",
        ),
    ]);
}

#[test]
fn a_key_that_goes_elsewhere_is_refused() {
    check(&[
        (
            "MERGE INTO orders o USING countries c ON o.tenant_id = c.id \
             WHEN NOT MATCHED THEN INSERT (tenant_id) VALUES (c.other)",
            "refused: this MERGE into",
        ),
        (
            "MERGE INTO orders o USING countries c ON o.id = c.id \
             WHEN NOT MATCHED THEN INSERT (tenant_id) VALUES (c.id)",
            "refused: this MERGE into",
        ),
        (
            "MERGE INTO orders o USING countries c ON o.tenant_id = c.id OR true \
             WHEN NOT MATCHED THEN INSERT (tenant_id) VALUES (c.id)",
            "refused: this MERGE into",
        ),
        (
            "MERGE INTO orders o USING countries c ON o.tenant_id = c.id \
             WHEN NOT MATCHED THEN INSERT (id) VALUES (c.id)",
            "refused: this MERGE into",
        ),
        (
            "MERGE INTO orders o USING countries c ON o.tenant_id = c.id \
             WHEN MATCHED THEN UPDATE SET tenant_id = 5",
            "refused: this MERGE into",
        ),
        (
            "MERGE INTO docs d USING countries c ON d.owner = c.owner \
             WHEN NOT MATCHED THEN INSERT (owner, id) VALUES (c.owner, c.id)",
            "refused: this MERGE into",
        ),
    ]);
}
