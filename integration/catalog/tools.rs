//! Migration tools see tables, not partitions: what they have made is what they find.

use std::process::Stdio;

use tokio::process::Command;

use super::psql::{of_proxy, run};
use super::support::{TestDatabase, TestProxy};

/// Whether Python is on the machine; installs the tools for it.
pub async fn has_python() -> bool {
    let mut look = Command::new("python3");
    look.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    if look.status().await.is_err() {
        println!("skipped: there is no python3 on this machine");
        return false;
    }
    run("bash", &["integration/setup/install.sh", "python-tools"]).await;
    true
}

/// Runs a program of Python against a proxy whose policy shards its tables.
async fn python(program: &str, policy: &str) {
    if !has_python().await {
        return;
    }
    let database = TestDatabase::create(2).await;
    let proxy = TestProxy::start(&database, policy).await;
    let program = format!("integration/drivers/{program}.py");
    assert_eq!(
        run("target/drivers/tools/bin/python", &[&program, &of_proxy(&proxy)]).await,
        "ok\n"
    );
}

#[tokio::test]
async fn alembic_finds_no_difference_after_a_migration() {
    let policy = "
groups:
  shop: {key: bigint, shards: 4, tables: {tenants: id, orders: tenant_id, items: tenant_id}}
reference_tables: [plans]
";
    python("alembic_test", policy).await;
}

#[tokio::test]
async fn django_migrates_and_inspects() {
    let policy = "
groups:
  shop: {key: bigint, shards: 4, tables: {shop_tenant: id, shop_order: tenant_id}}
reference_tables: [shop_plan]
";
    python("django_test", policy).await;
}
