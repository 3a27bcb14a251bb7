//! The HTTP server, on a thread of its own.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use axum::Router;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::console::{ApiConsole, Question, answer, console};
use super::routes::{router, standby_router};
use super::{Metrics, Service};

/// How often what was recorded is moved into the histograms.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long answers under way may take when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Why the admin server does not run.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address can't be listened on.
    #[error("the admin address {address} can't be listened on: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No thread or runtime.
    #[error("the admin server can't be started")]
    Start(#[source] io::Error),
}

/// A running admin server; stops when it is dropped.
#[derive(Debug)]
pub struct AdminServer {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl AdminServer {
    /// Listens on `address` and serves on a new thread, also what the console asks.
    pub fn start(
        address: SocketAddr,
        service: Service,
        metrics: Metrics,
    ) -> Result<(Self, ApiConsole), AdminError> {
        let (console, questions) = console();
        let routes = router(service, metrics.clone());
        let server = Self::spawn(address, routes, Some(questions), metrics)?;
        Ok((server, console))
    }

    /// Serves the health and metrics of a proxy that waits for its turn, and what it waits for.
    pub fn start_standby(
        address: SocketAddr,
        waits: watch::Receiver<String>,
        metrics: Metrics,
    ) -> Result<Self, AdminError> {
        Self::spawn(address, standby_router(waits, metrics.clone()), None, metrics)
    }

    fn spawn(
        address: SocketAddr,
        routes: Router,
        questions: Option<mpsc::Receiver<Question>>,
        metrics: Metrics,
    ) -> Result<Self, AdminError> {
        let bound = TcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = bound.map_err(|source| AdminError::Listen { address, source })?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .build()
            .map_err(AdminError::Start)?;
        let stop = CancellationToken::new();
        let token = stop.clone();
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || run(runtime, (listener, questions), routes, metrics, token))
            .map_err(AdminError::Start)?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens: the port that was chosen, if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminServer {
    /// Waits for answers under way, a second at the most.
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin server's thread panicked");
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the thread's own values")]
fn run(
    runtime: Runtime,
    (listener, questions): (TcpListener, Option<mpsc::Receiver<Question>>),
    router: Router,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let serve = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let stopping = stop.clone().cancelled_owned();
        let serve = axum::serve(listener, router.clone()).with_graceful_shutdown(stopping);
        tokio::join!(serve.into_future(), async {
            let Some(questions) = questions else { return };
            tokio::select! {
                () = answer(router, questions) => {}
                () = stop.cancelled() => {}
            }
        })
        .0
    };
    runtime.block_on(async {
        let served = tokio::select! {
            served = serve => served,
            () = upkeep_until(&metrics, &stop) => Ok(()),
        };
        if let Err(error) = served {
            tracing::error!(%error, "the admin server ended");
        }
    });
    runtime.shutdown_timeout(STOP_GRACE);
}

/// Keeps the histograms up to date; ends a while after the stop, whoever still is connected.
async fn upkeep_until(metrics: &Metrics, stop: &CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => metrics.upkeep(),
            () = stop.cancelled() => return tokio::time::sleep(STOP_GRACE).await,
        }
    }
}
