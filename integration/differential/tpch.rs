//! TPC-H at a small scale: orders and their lines by order, customers by customer, parts and what
//! suppliers ask for them by part, all else on every node.

use std::fmt::Write as _;
use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::Client;
use tpchgen::distribution::Distributions;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};
use tpchgen::text::TextPool;

use super::fixture::Fixture;

const POLICY: &str = "
groups:
  orders:
    key: bigint
    shards: 7
    tables:
      orders: o_orderkey
      lineitem: l_orderkey
  customers:
    key: bigint
    shards: 6
    tables:
      customer: c_custkey
  parts:
    key: bigint
    shards: 6
    tables:
      part: p_partkey
      partsupp: ps_partkey
reference_tables: [region, nation, supplier]
";

/// Of the smallest official size: 60,000 lines. With fewer suppliers keys would not be unique.
const SCALE: f64 = 0.01;
/// How much text comments are cut from.
const TEXT_BYTES: i32 = 2_000_000;

/// Both sides with the same rows.
pub async fn fixture() -> Fixture {
    let fixture = Fixture::start(POLICY).await;
    fixture.define(include_str!("tpch/schema.sql")).await;
    let (proxy, single) = fixture.clients().await;
    let words = Distributions::static_default();
    let text = TextPool::new(TEXT_BYTES, words);
    let (w, t) = (words, &text);
    let tables = [
        ("region", rows(RegionGenerator::new_with_distributions_and_text_pool(w, t).iter())),
        ("nation", rows(NationGenerator::new_with_distributions_and_text_pool(w, t).iter())),
        (
            "supplier",
            rows(SupplierGenerator::new_with_distributions_and_text_pool(SCALE, 1, 1, w, t).iter()),
        ),
        (
            "part",
            rows(PartGenerator::new_with_distributions_and_text_pool(SCALE, 1, 1, w, t).iter()),
        ),
        ("partsupp", rows(PartSuppGenerator::new_with_text_pool(SCALE, 1, 1, t).iter())),
        (
            "customer",
            rows(CustomerGenerator::new_with_distributions_and_text_pool(SCALE, 1, 1, w, t).iter()),
        ),
        (
            "orders",
            rows(OrderGenerator::new_with_distributions_and_text_pool(SCALE, 1, 1, w, t).iter()),
        ),
        (
            "lineitem",
            rows(LineItemGenerator::new_with_distributions_and_text_pool(SCALE, 1, 1, w, t).iter()),
        ),
    ];
    for (table, rows) in &tables {
        copy(&single, table, rows).await;
        copy(&proxy, table, rows).await;
    }
    single.batch_execute("ANALYZE").await.unwrap();
    fixture
}

/// A table's rows, `|` between columns.
fn rows<T: std::fmt::Display>(generated: impl Iterator<Item = T>) -> String {
    let mut text = String::new();
    for row in generated {
        let start = text.len();
        write!(text, "{row}").unwrap();
        if text[start..].ends_with('|') {
            text.pop();
        }
        text.push('\n');
    }
    text
}

async fn copy(client: &Client, table: &str, rows: &str) {
    let sql = format!("COPY {table} FROM STDIN WITH (DELIMITER '|')");
    let sink = client.copy_in(&sql).await;
    let mut sink = pin!(sink.unwrap_or_else(|error| panic!("{table}: {error:?}")));
    for piece in rows.as_bytes().chunks(64 * 1024) {
        sink.send(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    sink.finish().await.unwrap();
}
