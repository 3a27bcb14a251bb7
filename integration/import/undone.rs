//! An import that can't be finished leaves everything as it was.

use std::process::Output;

use foreshard::runtime::Tasks;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::process_support::{Aftermath, Deployment, Writers, said};
use super::{import, job_ended, one, plain, told};

/// What an import that is not finished has made.
const LEFT: &str = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^foreshard_import' UNION ALL \
     SELECT conname FROM pg_constraint WHERE conname ~ '^foreshard' UNION ALL \
     SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";

/// An import that waits for a client in a transaction, which is the first of these.
async fn waiting(deployment: &Deployment) -> (Client, JoinHandle<Output>) {
    let idle = deployment.client().await;
    idle.batch_execute("BEGIN; SELECT FROM accounts WHERE tenant_id = 1").await.unwrap();
    let asking = deployment.clone();
    let importing =
        Tasks::new().spawn("import", async move { asking.run(&["import", "shop"]).await });
    told(deployment, "(idle in transaction) uses public.accounts").await;
    (idle, importing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_is_called_off_and_can_be_tried_again() {
    let (deployment, _) = plain().await;
    let serving = deployment.serve().await;
    let home = deployment.database.client(0).await;
    let writers = Writers::start(&deployment, 0..2);
    let (idle, importing) = waiting(&deployment).await;
    let called = deployment.run(&["cancel", "job", "1"]).await;
    assert!(called.status.success(), "{}", said(&called));
    let output = importing.await.unwrap();
    assert!(!output.status.success() && said(&output).contains("it was called off"), "{output:?}");
    assert_eq!(job_ended(&deployment).await["error"], "it was called off");
    idle.batch_execute("COMMIT").await.unwrap();
    assert_eq!(one(&home, LEFT).await, "");
    let called = said(&deployment.run(&["cancel", "job", "1"]).await);
    assert!(called.contains("job 1 is finished"), "{called}");
    import(&deployment, &[]).await;
    let written = writers.stop().await;
    assert!(written.unknown.is_empty(), "a client was cut off");
    serving.stop(&deployment).await;
    let after = Aftermath::of(&deployment).await;
    after.assert_in_order().await;
    after.assert_written(&written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_fails_half_way_is_undone_and_can_be_tried_again() {
    let (deployment, _) = plain().await;
    let serving = deployment.serve().await;
    let home = deployment.database.client(0).await;
    let other = deployment.database.client(1).await;
    let writers = Writers::start(&deployment, 0..2);
    // The twins are made, and nothing spoke against it when that was begun.
    let (idle, importing) = waiting(&deployment).await;
    other.batch_execute("CREATE TABLE entries (id int)").await.unwrap();
    idle.batch_execute("COMMIT").await.unwrap();
    let output = importing.await.unwrap();
    assert!(!output.status.success() && said(&output).contains("already exists"), "{output:?}");
    assert_eq!(job_ended(&deployment).await["state"], "failed");
    assert_eq!(one(&home, LEFT).await, "");
    let kind = "SELECT relkind FROM pg_class WHERE relname = 'entries'";
    assert_eq!(one(&home, kind).await, "r");
    let told = said(&deployment.run(&["import", "shop", "--check"]).await);
    assert!(told.contains("can't have the tables") && told.contains("already exists"), "{told}");

    other.batch_execute("DROP TABLE entries").await.unwrap();
    import(&deployment, &[]).await;
    let written = writers.stop().await;
    assert!(written.unknown.is_empty(), "a client was cut off");
    serving.stop(&deployment).await;
    let after = Aftermath::of(&deployment).await;
    after.assert_in_order().await;
    after.assert_written(&written).await;
}
