//! A database for one test, and clients of it.

use std::sync::atomic::{AtomicU32, Ordering};

use foreshard::backend::NodeAddress;
use foreshard::runtime::Tasks;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::shared_nodes;

/// A database of the same name on each of some shared nodes; empty at first.
#[derive(Clone)]
pub struct TestDatabase {
    /// Its name.
    pub name: String,
    /// How to reach each node.
    pub nodes: Vec<NodeAddress>,
}

impl TestDatabase {
    /// Makes a new database on the first `count` shared nodes.
    pub async fn create(count: usize) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let nodes: Vec<_> = shared_nodes(count).await.iter().map(|node| node.address()).collect();
        for node in &nodes {
            let client = connect(node, "postgres").await;
            client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        }
        Self { name, nodes }
    }

    /// A client of this database on the node with this index, from 0.
    pub async fn client(&self, node: usize) -> Client {
        connect(&self.nodes[node], &self.name).await
    }
}

/// A client of `database` at `address`; its connection ends with it.
pub async fn connect(address: &NodeAddress, database: &str) -> Client {
    let connecting = address.service_config(database).connect(address.tls.clone()).await;
    let (client, connection) =
        connecting.unwrap_or_else(|error| panic!("connecting to {}: {error}", address.name));
    drop(Tasks::new().spawn("client", connection));
    client
}

/// The rows that `sql` gives by the simple protocol, each as its columns with `|` between them,
/// NULL as `∅`.
pub async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let messages =
        client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let columns = (0..row.len()).map(|column| row.get(column).unwrap_or("∅"));
            Some(columns.collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    rows.collect()
}
