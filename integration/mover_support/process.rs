//! A proxy in a process of its own, that really dies: this test binary, started again for one test.

use std::process::Command;

use foreshard::backend::NodeAddress;
use foreshard::runtime::Failpoints;

use super::{Shop, open};
use crate::support::TestDatabase;

/// The test that is the process, when it is told so.
pub const PROCESS_TEST: &str = "the_process_that_dies";

impl Shop {
    /// Runs the mover in another process until that is killed at `failpoint`. Writers wait
    /// meanwhile, as clients of a dead proxy do.
    pub async fn die_elsewhere(&mut self, failpoint: &str) {
        // The catalog's file is locked by whoever has it open.
        let copy = self.catalog_file.with_extension(failpoint);
        std::fs::copy(&self.catalog_file, &copy).unwrap();
        let nodes: Vec<_> =
            self.database.nodes.iter().map(|n| format!("{} {}", n.name, n.port)).collect();
        let mut process = Command::new(std::env::current_exe().unwrap());
        process
            .args([PROCESS_TEST, "--exact", "--nocapture"])
            .env("FORESHARD_FAILPOINT", failpoint)
            .env("SHOP_DATABASE", &self.database.name)
            .env("SHOP_NODES", nodes.join(","))
            .env("SHOP_CATALOG", &copy);
        let output = tokio::task::spawn_blocking(move || process.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        assert_eq!(signal, Some(6), "{failpoint}: {:?} {said}", output.status);
        self.catalog = open(&copy);
        self.catalog_file = copy;
    }

    /// The shop of the parent process, from the environment; `None` if this is no child.
    pub fn of_parent() -> Option<Self> {
        let name = std::env::var("SHOP_DATABASE").ok()?;
        let nodes = std::env::var("SHOP_NODES").unwrap();
        let nodes = nodes.split(',').map(|node| {
            let (name, port) = node.split_once(' ').unwrap();
            NodeAddress {
                name: name.to_owned(),
                host: "127.0.0.1".to_owned(),
                port: port.parse().unwrap(),
                user: "postgres".to_owned(),
                password: None,
                tls: foreshard::backend::NodeTls::default(),
                fence: None,
            }
        });
        let catalog_file = std::path::PathBuf::from(std::env::var("SHOP_CATALOG").unwrap());
        Some(Self {
            database: TestDatabase { name, nodes: nodes.collect() },
            catalog: open(&catalog_file),
            catalog_file,
            serving: std::sync::Arc::default(),
            tenants: Vec::new(),
        })
    }

    /// What the child does: its mover goes on until the failpoint of the environment kills it.
    pub async fn live_until_killed(&self) {
        let proxy = self.proxy(Failpoints::from_env()).await;
        let mv = proxy.until_finished().await;
        panic!("outlived its failpoint: {mv:?}");
    }
}
