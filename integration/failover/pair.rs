//! Two proxies over the same nodes, on one catalog.

use std::time::Duration;

use foreshard::catalog::Catalog;

use crate::process_support::{Aftermath, Deployment, Serving, Writers, Written};
use crate::support::link::Link;
use crate::support::{TestDatabase, TestEtcd, eventually};

/// How long a proxy that is not heard of stays the leader.
const LEASE_MS: u64 = 3_000;
/// How long it may take until another one serves.
const PATIENCE: Duration = Duration::from_secs(40);

/// The one that leads first, the other one, and their etcd.
pub(crate) struct Pair {
    pub(crate) etcd: TestEtcd,
    /// The wire from the first proxy to etcd.
    pub(crate) wire: Link,
    pub(crate) first: Deployment,
    pub(crate) second: Deployment,
}

impl Pair {
    /// Neither runs yet.
    pub(crate) async fn new() -> Self {
        let etcd = TestEtcd::start().await;
        let wire = Link::to(etcd.port).await;
        let database = TestDatabase::create(3).await;
        let (mut first, second) = (Deployment::over(database.clone()), Deployment::over(database));
        share(&first, &format!("http://127.0.0.1:{}", wire.port), "");
        share(&second, &etcd.endpoint(), "");
        first.other_port = Some(second.port);
        Self { etcd, wire, first, second }
    }

    /// Both are to serve; clients of one know nothing of the other.
    pub(crate) async fn that_both_serve() -> Self {
        let mut pair = Self::new().await;
        share(&pair.first, &format!("http://127.0.0.1:{}", pair.wire.port), ", serve: all");
        share(&pair.second, &pair.etcd.endpoint(), ", serve: all");
        pair.first.other_port = None;
        pair
    }

    /// Both serve tables with rows; the first leads.
    pub(crate) async fn serve_both(&self) -> (Serving, Serving) {
        let first = self.first.serve().await;
        self.first.load().await;
        (first, self.second.serve().await)
    }

    /// Writers by both.
    pub(crate) fn writers(&self) -> [Writers; 2] {
        [Writers::start(&self.first, 0..3), Writers::start(&self.second, 10..13)]
    }

    /// Until a proxy leads.
    pub(crate) async fn leads(&self, deployment: &Deployment) {
        let leads = async || {
            let page = deployment.page_if_there("/metrics").await.ok()?;
            page.contains("foreshard_catalog_leads 1").then_some(())
        };
        let what = format!("it leads: {}", deployment.log_tail());
        eventually(&what, PATIENCE, leads).await;
    }

    /// The first serves tables with rows; the second waits.
    pub(crate) async fn serve(&self) -> (Serving, Serving) {
        let serving = self.first.serve().await;
        self.first.load().await;
        let waiting = Serving::spawn(&self.second, None);
        self.waits(&self.second, &self.first).await;
        (serving, waiting)
    }

    /// Until one proxy waits for the end of another one. It listens for no client.
    pub(crate) async fn waits(&self, waiting: &Deployment, leader: &Deployment) {
        let leads = format!("serves at 127.0.0.1:{}", leader.port);
        let told = async || {
            let said = std::fs::read_to_string(&waiting.log).ok()?;
            said.lines().last()?.contains(&leads).then_some(())
        };
        eventually("the other waits", PATIENCE, told).await;
        assert!(waiting.page("/readyz").await.contains(&leads));
        assert_eq!(waiting.page("/healthz").await, "ok\n");
        assert!(waiting.page("/metrics").await.contains("foreshard_catalog_leads 0"));
        let client = tokio::net::TcpStream::connect(("127.0.0.1", waiting.port)).await;
        assert!(client.is_err(), "it takes clients although it does not serve");
    }

    /// Until a proxy serves.
    pub(crate) async fn serves(&self, deployment: &Deployment) {
        // One that stood by closes its port and opens it again.
        let ready = async || {
            let page = deployment.page_if_there("/readyz").await.ok()?;
            (page == "ready\n").then_some(())
        };
        let what = format!("it serves: {}", deployment.log_tail());
        eventually(&what, PATIENCE, ready).await;
    }

    /// What is there once neither runs.
    pub(crate) async fn aftermath(&self) -> Aftermath {
        Aftermath::by(self.catalog().await, &self.second).await
    }

    /// The catalog, once neither runs.
    pub(crate) async fn catalog(&self) -> Catalog {
        let lead = self.etcd.lead("test/", "test").await;
        Catalog::new(std::sync::Arc::new(lead.kv().clone()))
    }
}

/// Stops writers by both; what they know.
pub(crate) async fn stopped(writers: [Writers; 2]) -> Written {
    let mut all = Written::default();
    for writers in writers {
        let written = writers.stop().await;
        assert!(written.acknowledged.len() > 50, "{}", written.acknowledged.len());
        all.absorb(written);
    }
    all
}

/// Has a proxy keep its catalog in etcd, with `more` keys for that.
pub(crate) fn share(deployment: &Deployment, endpoint: &str, more: &str) {
    deployment.configure(&format!(
        "authentication: trust\ncatalog: {{ etcd: {{ endpoints: ['{endpoint}'], prefix: test, \
         lease_ms: {LEASE_MS}{more} }} }}\n"
    ));
}
