//! Against the installed PostgreSQL.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_postgres::NoTls;

use super::{LocalNode, LocalNodeError, NodeSpec, free_ports};
use crate::backend::NodeAddress;

/// A node's folder, removed with all that is in it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let name = format!("foreshard-local-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn spec(&self, first_port: u16) -> NodeSpec {
        let port = free_ports(first_port, 1)[0];
        NodeSpec { durable: false, ..NodeSpec::new("n1", self.0.join("n1"), port) }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

async fn ask(address: &NodeAddress, sql: &str) -> Vec<String> {
    let (client, connection) =
        address.service_config("postgres").connect(NoTls).await.expect("connecting");
    let connection = crate::runtime::Tasks::new().spawn("connection", connection);
    let messages = client.simple_query(sql).await.expect(sql);
    drop(client);
    connection.await.unwrap().unwrap();
    let rows = messages.into_iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    rows.collect()
}

#[tokio::test]
async fn a_node_keeps_its_data_over_a_stop_and_over_a_crash() {
    let folder = Folder::new("keeps");
    let spec = folder.spec(21_000);
    let node = LocalNode::start(&spec).await.unwrap();
    ask(&node.address(), "CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await;
    assert_eq!(ask(&node.address(), "SHOW wal_level").await, ["logical"]);
    assert_eq!(ask(&node.address(), "SHOW server_encoding").await, ["UTF8"]);
    let by_socket = node.socket_address().unwrap();
    assert_eq!(ask(&by_socket, "SHOW max_prepared_transactions").await, ["300"]);
    node.stop().await.unwrap();

    let node = LocalNode::start(&spec).await.unwrap();
    ask(&node.address(), "INSERT INTO t VALUES (2)").await;
    node.crash().await.unwrap();

    let node = LocalNode::start(&spec).await.unwrap();
    let log = fs::read_to_string(node.log()).unwrap();
    assert!(log.contains("was not properly shut down"), "{log}");
    assert_eq!(ask(&node.address(), "SELECT a FROM t ORDER BY a").await, ["1", "2"]);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_left_running_is_stopped_and_a_stale_pid_file_removed() {
    let folder = Folder::new("orphan");
    let spec = folder.spec(21_200);
    let orphan = LocalNode::start(&spec).await.unwrap();
    let node = LocalNode::start(&spec).await.unwrap();
    assert_ne!(node.pid(), orphan.pid());
    assert_eq!(ask(&node.address(), "SELECT 1").await, ["1"]);
    drop(orphan);
    node.stop().await.unwrap();

    // A living process that is not a server on this folder: the number was given anew.
    let stale = spec.folder.join("data/postmaster.pid");
    fs::write(&stale, format!("{}\n/elsewhere\n", std::process::id())).unwrap();
    let node = LocalNode::start(&spec).await.unwrap();
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_and_a_broken_setting_are_said_clearly() {
    let folder = Folder::new("errors");
    let spec = folder.spec(21_400);
    let listener = TcpListener::bind(("127.0.0.1", spec.port)).unwrap();
    let error = LocalNode::start(&spec).await.unwrap_err();
    assert!(matches!(error, LocalNodeError::PortInUse { .. }), "{error}");
    drop(listener);

    let auto = spec.folder.join("data/postgresql.auto.conf");
    fs::write(&auto, "no_such_setting = 1\n").unwrap();
    let error = LocalNode::start(&spec).await.unwrap_err().to_string();
    assert!(error.starts_with("node n1 ended while it started"), "{error}");
    assert!(error.contains("unrecognized configuration parameter"), "{error}");
}

#[tokio::test]
async fn a_server_that_ends_by_itself_is_noticed() {
    let folder = Folder::new("ends");
    let mut node = LocalNode::start(&folder.spec(21_600)).await.unwrap();
    assert!(node.is_running());
    kill(Pid::from_raw(i32::try_from(node.pid()).unwrap()), Signal::SIGQUIT).unwrap();
    assert!(node.wait_ended(super::node::STOP_DEADLINE).await);
    node.stop().await.unwrap();
}
