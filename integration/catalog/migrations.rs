//! What migrations do with tables that have rows: Alembic's and Django's own, step by step through the
//! proxy and on one PostgreSQL. Both have the same tables, constraints and rows after each step, and back.

use super::psql::{of_proxy, of_server, run};
use super::support::{TestDatabase, TestProxy};
use super::tools::has_python;

/// Runs a program of Python with the addresses of a proxy with this policy, and of a server.
async fn python(program: &str, policy: &str) {
    if !has_python().await {
        return;
    }
    let (database, plain) = (TestDatabase::create(3).await, TestDatabase::create(1).await);
    let proxy = TestProxy::start(&database, policy).await;
    let program = format!("integration/drivers/migrations/{program}.py");
    let python = "target/drivers/tools/bin/python";
    assert_eq!(run(python, &[&program, &of_proxy(&proxy), &of_server(&plain)]).await, "ok\n");
}

#[tokio::test]
async fn alembic_changes_tables_that_have_rows_and_changes_them_back() {
    let policy = "
groups:
  shop:
    key: bigint
    shards: 6
    tables:
      tenants: id
      orders: tenant_id
      items: tenant_id
      payments: tenant_id
      receipts: tenant_id
reference_tables: [plans, offers]
";
    python("alembic_steps", policy).await;
}

#[tokio::test]
async fn django_changes_tables_that_have_rows_and_changes_them_back() {
    let policy = "
groups:
  shop:
    key: bigint
    shards: 6
    tables: {shop_tenant: id, shop_order: tenant_id, shop_payment: tenant_id}
reference_tables: [shop_plan]
";
    python("django_steps", policy).await;
}
