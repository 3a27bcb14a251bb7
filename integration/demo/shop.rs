//! The shop: its tables, made and filled through the proxy as an application would.

use std::collections::BTreeMap;

use anyhow::Context;
use bytes::Bytes;
use futures_util::{SinkExt, pin_mut, stream};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::proxy::{self, Foreshard, Node};
use crate::rows;
use crate::screen::{grouped, say};

const SCHEMA: [&str; 6] = [
    "CREATE TABLE plans (id int PRIMARY KEY, name text NOT NULL)",
    "CREATE TABLE tenants (
        id bigint PRIMARY KEY,
        name text NOT NULL,
        plan_id int NOT NULL REFERENCES plans (id))",
    "CREATE TABLE orders (
        tenant_id bigint NOT NULL REFERENCES tenants (id),
        id bigint NOT NULL,
        customer text NOT NULL,
        status text NOT NULL,
        amount_cents bigint NOT NULL,
        placed_at timestamptz NOT NULL,
        version int NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant_id, id)) WITH (fillfactor = 90)",
    "CREATE TABLE order_items (
        tenant_id bigint NOT NULL,
        id bigint NOT NULL,
        order_id bigint NOT NULL,
        product text NOT NULL,
        quantity int NOT NULL,
        price_cents bigint NOT NULL,
        PRIMARY KEY (tenant_id, id),
        FOREIGN KEY (tenant_id, order_id) REFERENCES orders (tenant_id, id))",
    "CREATE TABLE audit_log (at timestamptz NOT NULL DEFAULT now(), event text NOT NULL)",
    "INSERT INTO plans VALUES (1, 'free'), (2, 'team'), (3, 'company')",
];

/// Makes all tables through the proxy, and fills them with COPY.
pub(crate) async fn build(foreshard: &Foreshard) -> anyhow::Result<()> {
    let client = foreshard.connect().await?;
    say("making the tables through the proxy, with ordinary DDL");
    for statement in SCHEMA {
        let first = statement.lines().next().unwrap_or_default();
        client.batch_execute(statement).await.with_context(|| first.to_owned())?;
    }
    let began = Instant::now();
    say(format!("loading {} rows through the proxy, with COPY", grouped(rows::total())));
    copy(&client, "tenants (id, name, plan_id)", rows::tenants()).await?;
    let columns = "orders (tenant_id, id, customer, status, amount_cents, placed_at)";
    copy(&client, columns, rows::orders()).await?;
    let columns = "order_items (tenant_id, id, order_id, product, quantity, price_cents)";
    copy(&client, columns, rows::order_items()).await?;
    for table in ["plans", "tenants", "orders", "order_items"] {
        let analyze = format!("ANALYZE {table}");
        client.batch_execute(&analyze).await.with_context(|| analyze.clone())?;
    }
    client.batch_execute("INSERT INTO audit_log (event) VALUES ('the shop is open')").await?;
    say(format!("  loaded in {:.1} s", began.elapsed().as_secs_f64()));
    Ok(())
}

async fn copy(
    client: &Client,
    target: &str,
    chunks: impl Iterator<Item = Bytes>,
) -> anyhow::Result<()> {
    let table = target.split(' ').next().unwrap_or(target);
    let load = async {
        let sink = client.copy_in(&format!("COPY {target} FROM STDIN")).await?;
        pin_mut!(sink);
        let mut chunks = stream::iter(chunks.map(Ok));
        sink.send_all(&mut chunks).await?;
        sink.finish().await
    };
    let count = load.await.with_context(|| format!("COPY {table}"))?;
    say(format!("  {:>9} {table}", grouped(count)));
    Ok(())
}

/// The tenants of some shards of one node, which will be hot in the rush: those of the shards with
/// the most tenants, asked from the node itself.
pub(crate) async fn tenants_to_heat(node: &Node, shards: usize) -> anyhow::Result<Vec<i64>> {
    let client = proxy::connect(node.port).await?;
    let query = "SELECT tableoid::bigint, id FROM tenants ORDER BY id";
    let mut by_shard: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for row in client.query(query, &[]).await? {
        by_shard.entry(row.get(0)).or_default().push(row.get(1));
    }
    let mut tenants: Vec<Vec<i64>> = by_shard.into_values().collect();
    tenants.sort_by_key(|tenants| std::cmp::Reverse(tenants.len()));
    tenants.truncate(shards);
    // As many of each, so that the shards are equally hot.
    let fewest = tenants.iter().map(Vec::len).min().unwrap_or_default();
    Ok(tenants.into_iter().flat_map(|tenants| tenants.into_iter().take(fewest)).collect())
}
