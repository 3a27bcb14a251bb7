//! Connections to nodes: how many there are, who waits for one, when they go, and whose they are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use std::time::Duration;

use foreshard::backend::{Config, PoolMode};
use futures_util::future::{join_all, try_join_all};
use support::{TestDatabase, TestProxy, eventually, rows};
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

const LIMIT: Duration = Duration::from_secs(40);

/// A proxy in front of one node, and a role of its own on it, whose connections are those of the
/// proxy's clients alone.
struct Scene {
    database: TestDatabase,
    proxy: TestProxy,
    /// Looks at the node.
    node: Client,
}

impl Scene {
    async fn new(config: Config) -> Self {
        let database = TestDatabase::create(1).await;
        let node = database.client(0).await;
        for user in ["a", "b"] {
            let role = format!("CREATE ROLE {}_{user} LOGIN", database.name);
            node.batch_execute(&role).await.unwrap();
        }
        let proxy = TestProxy::start_pooling(&database, "", config).await;
        Self { database, proxy, node }
    }

    fn user(&self, user: &str) -> String {
        format!("{}_{user}", self.database.name)
    }

    async fn client(&self, user: &str) -> Client {
        let mut config = self.proxy.config();
        let (client, connection) = config.user(self.user(user)).connect(NoTls).await.unwrap();
        drop(foreshard::runtime::Tasks::new().spawn("client", connection));
        client
    }

    /// How many connections a user of the proxy has to the node.
    async fn connections(&self, user: &str) -> usize {
        let user = self.user(user);
        let sql = format!("SELECT pid FROM pg_stat_activity WHERE usename = '{user}'");
        rows(&self.node, &sql).await.len()
    }

    /// Ends the server's processes of a user, as an administrator does.
    async fn terminate(&self, user: &str) {
        let user = self.user(user);
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'"
        );
        rows(&self.node, &sql).await;
    }

    async fn end(self) {
        let users = ["a", "b"].map(|user| self.user(user));
        self.proxy.proxy.stop().await;
        for user in users {
            self.node.batch_execute(&format!("DROP ROLE {user}")).await.unwrap();
        }
    }
}

async fn pid(client: &Client) -> String {
    rows(client, "SELECT pg_backend_pid()").await.remove(0)
}

#[tokio::test]
async fn many_clients_share_few_connections() {
    let config = Config { pool_size: 4, ..Config::default() };
    let scene = Scene::new(config).await;
    let clients = join_all((0..60).map(|_| scene.client("a"))).await;
    let work = clients.iter().map(async |client| {
        for n in 0..10 {
            let row = client.query_one("SELECT $1::int + 1, pg_sleep(0.001)", &[&n]).await?;
            assert_eq!(row.get::<_, i32>(0), n + 1);
        }
        Ok::<_, tokio_postgres::Error>(())
    });
    let (worked, seen) = tokio::join!(try_join_all(work), async {
        let mut most = 0;
        for _ in 0..20 {
            most = scene.connections("a").await.max(most);
        }
        most
    });
    worked.unwrap();
    assert!((1..=4).contains(&seen), "{seen} connections");
    scene.end().await;
}

#[tokio::test]
async fn who_finds_all_connections_busy_waits_and_is_told_in_the_end() {
    let config = Config { pool_size: 2, checkout_timeout_ms: 700, ..Config::default() };
    let scene = Scene::new(config).await;
    // Two workers have one connection each.
    let (first, second) = (scene.client("a").await, scene.client("a").await);
    let (third, fourth) = (scene.client("a").await, scene.client("a").await);
    for holder in [&first, &second] {
        holder.batch_execute("BEGIN; SELECT 1").await.unwrap();
    }
    let began = Instant::now();
    let refused = third.simple_query("SELECT 1").await.unwrap_err();
    assert!(began.elapsed() >= Duration::from_millis(650), "{:?}", began.elapsed());
    let refused = refused.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "53300");
    assert!(refused.hint().unwrap().contains("pool_size"), "{refused:?}");
    // Who waits gets the connection when it is free, in the same transaction's order.
    let (waited, ()) = tokio::join!(fourth.simple_query("SELECT 2"), async {
        for holder in [&first, &second] {
            holder.batch_execute("COMMIT").await.unwrap();
        }
    });
    waited.unwrap();
    third.simple_query("SELECT 3").await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn a_user_gets_room_that_another_leaves_idle() {
    let config = Config { node_connections_max: 2, ..Config::default() };
    let scene = Scene::new(config).await;
    for user in ["a", "b", "a", "b", "a", "b"] {
        // Both workers in turn, each with room for one connection to the node.
        let clients = [scene.client(user).await, scene.client(user).await];
        for client in &clients {
            client.batch_execute("BEGIN; SELECT 1; COMMIT").await.unwrap();
        }
        let open = scene.connections("a").await + scene.connections("b").await;
        assert!(open <= 2, "{open} connections");
    }
    scene.end().await;
}

#[tokio::test]
async fn idle_and_old_connections_are_closed() {
    for config in [
        Config { idle_timeout_s: 1, ..Config::default() },
        Config { lifetime_s: 1, ..Config::default() },
    ] {
        let scene = Scene::new(config.clone()).await;
        let client = scene.client("a").await;
        client.batch_execute("SELECT 1").await.unwrap();
        assert_eq!(scene.connections("a").await, 1);
        let gone = async || (scene.connections("a").await == 0).then_some(());
        eventually(&format!("the connection is closed {config:?}"), LIMIT, gone).await;
        client.batch_execute("SELECT 1").await.unwrap();
        scene.end().await;
    }
}

#[tokio::test]
async fn a_connection_that_ended_while_it_was_idle_is_given_to_nobody() {
    let scene = Scene::new(Config { check_after_ms: 0, ..Config::default() }).await;
    let client = scene.client("a").await;
    for _ in 0..5 {
        client.batch_execute("SELECT 1").await.unwrap();
        scene.terminate("a").await;
        let gone = async || (scene.connections("a").await == 0).then_some(());
        eventually("the server's process has ended", LIMIT, gone).await;
    }
    client.batch_execute("SELECT 1").await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn in_session_mode_a_client_keeps_its_connection_to_its_end() {
    let scene =
        Scene::new(Config { pool_mode: PoolMode::Session, pool_size: 4, ..Config::default() })
            .await;
    let (one, two) = (scene.client("a").await, scene.client("a").await);
    let (first, second) = (pid(&one).await, pid(&two).await);
    assert_ne!(first, second);
    one.batch_execute("CREATE FUNCTION pg_temp.three() RETURNS int LANGUAGE sql AS 'SELECT 3'")
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!((pid(&one).await, pid(&two).await), (first.clone(), second.clone()));
    }
    assert_eq!(rows(&one, "SELECT pg_temp.three()").await, ["3"]);
    drop((one, two));
    let next = scene.client("a").await;
    let gone = next.simple_query("SELECT pg_temp.three()").await.unwrap_err();
    assert_eq!(
        gone.code().unwrap().code(),
        "3F000",
        "what a session left is not there for the next"
    );
    scene.end().await;
}
