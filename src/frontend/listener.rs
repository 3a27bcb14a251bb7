//! Accepts clients and deals them out to the workers, one after the other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::auth::Users;
use super::cancel::Cancels;
use super::config::Config;
use super::greeting::{Greeting, greet};
use super::pools::Pools;
use super::session::ClientSession;
use super::worker::Worker;
use crate::backend::{self, Stream};
use crate::executor::{Client, ClientError, Engine};
use crate::runtime::Tasks;
use crate::wire::{ServerError, SqlState};

/// Connections that wait for their worker to take them.
const HANDOVER: usize = 1_024;

/// The clients' side of the proxy.
#[derive(Debug)]
pub struct Frontend {
    /// What all sessions share.
    pub engine: Arc<Engine>,
    /// Who may connect.
    pub users: Users,
    /// Where clients connect, and limits on them.
    pub config: Config,
    /// Limits of the connections to the nodes.
    pub backend: backend::Config,
}

/// A listener and its workers at work.
#[derive(Debug)]
pub struct Listening {
    /// The address that clients connect to.
    pub address: SocketAddr,
    workers: Vec<JoinHandle<()>>,
}

/// One of the clients that are connected now.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("foreshard_frontend_clients_count").decrement(1.0);
    }
}

impl Frontend {
    /// Listens, and serves clients until `tasks` is stopped.
    pub async fn listen(self, tasks: &Tasks) -> io::Result<Listening> {
        let listener = TcpListener::bind(self.config.listen).await?;
        let address = listener.local_addr()?;
        let (users, cancels) = (Arc::new(self.users), Arc::new(Cancels::default()));
        let count = self.config.worker_count();
        let (mut queues, mut workers) = (Vec::new(), Vec::new());
        for index in 0..count {
            let worker = Worker {
                engine: Arc::clone(&self.engine),
                users: Arc::clone(&users),
                cancels: Arc::clone(&cancels),
                config: self.config.clone(),
                pools: Pools::new(self.engine.nodes.clone(), self.backend.clone(), (index, count)),
                statements: super::statements::AllStatements::default(),
                templates: super::templates::AllTemplates::default(),
                tasks: tasks.child(),
            };
            let (queue, clients) = mpsc::channel(HANDOVER);
            queues.push(queue);
            workers.push(start_worker(index, worker, clients)?);
        }
        let (stop, limit) = (tasks.clone(), self.config.max_clients);
        tasks.spawn("listener", async move { accept(&listener, &queues, limit, &stop).await });
        Ok(Listening { address, workers })
    }
}

impl Listening {
    /// Waits for the workers, once their tasks were stopped.
    pub fn join(self) {
        for worker in self.workers {
            if worker.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

/// A client on its way to a worker.
type Arrival = (std::net::TcpStream, Seat);

async fn accept(
    listener: &TcpListener,
    queues: &[mpsc::Sender<Arrival>],
    limit: usize,
    tasks: &Tasks,
) {
    let seats = Arc::new(AtomicUsize::new(0));
    let mut next = 0;
    loop {
        let accepted = tokio::select! {
            () = tasks.token().cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                continue;
            }
        };
        if seats.load(Ordering::Relaxed) >= limit {
            tasks.spawn("full", async move { refuse(stream).await });
            continue;
        }
        seats.fetch_add(1, Ordering::Relaxed);
        metrics::gauge!("foreshard_frontend_clients_count").increment(1.0);
        let seat = Seat(Arc::clone(&seats));
        let Ok(stream) = stream.into_std() else { continue };
        next = (next + 1) % queues.len();
        if queues[next].send((stream, seat)).await.is_err() {
            return;
        }
    }
}

async fn refuse(stream: TcpStream) {
    let error =
        ServerError::fatal(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
            .with_hint("The proxy's max_clients is reached.");
    let mut client = Client::new(Stream::Tcp(stream));
    client.put_error(&error);
    let limit = std::time::Duration::from_secs(1);
    if !matches!(timeout(limit, client.flush()).await, Ok(Ok(()))) {
        tracing::debug!("a client that was one too many did not wait for the reason");
    }
}

/// Starts the thread and runtime of a worker.
fn start_worker(
    index: usize,
    worker: Worker,
    mut clients: mpsc::Receiver<Arrival>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worker = Arc::new(worker);
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        runtime.block_on(async {
            let (swept, stop) = (Arc::clone(&worker), worker.tasks.clone());
            let sweeping = async move { swept.pools.sweep_forever(&stop).await };
            worker.tasks.spawn("sweeper", sweeping);
            loop {
                let arrival = tokio::select! {
                    () = worker.tasks.token().cancelled() => break,
                    arrival = clients.recv() => arrival,
                };
                let Some((stream, seat)) = arrival else { break };
                let shared = Arc::clone(&worker);
                worker.tasks.spawn("client", async move { serve(shared, stream, seat).await });
            }
            if !worker.tasks.stop(worker.config.shutdown_grace()).await {
                tracing::warn!("transactions under way were cut off by the stop");
            }
        });
    })
}

/// Serves one client from its first byte to its last.
async fn serve(worker: Arc<Worker>, stream: std::net::TcpStream, _seat: Seat) {
    match Box::pin(serve_client(worker, stream)).await {
        Ok(()) | Err(ClientError::Broken(_)) => {}
        Err(ClientError::Malformed(error)) => {
            tracing::info!(%error, "a client was closed");
        }
    }
}

async fn serve_client(worker: Arc<Worker>, stream: std::net::TcpStream) -> Result<(), ClientError> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let mut client = Client::new(Stream::Tcp(TcpStream::from_std(stream)?));
    let login = timeout(worker.config.login_timeout(), async {
        let greeting = match greet(&mut client).await {
            Ok(greeting) => greeting,
            Err(error) => return tell_malformed(&mut client, error).await.map(|()| None),
        };
        match greeting {
            Ok(Greeting::Session(startup)) => {
                ClientSession::open(Arc::clone(&worker), client, startup).await
            }
            Ok(Greeting::Cancel(key)) => {
                if let Some(target) = worker.cancels.find(key) {
                    target.cancel(&worker.engine).await;
                }
                Ok(None)
            }
            Ok(Greeting::Gone) => Ok(None),
            Err(error) => {
                client.put_error(&error);
                client.flush().await?;
                Ok(None)
            }
        }
    });
    match login.await {
        Ok(Ok(Some(mut session))) => session.serve().await,
        Ok(ended) => ended.map(drop),
        Err(_) => Ok(()),
    }
}

/// Tells a client that sends garbage so, before it is closed.
async fn tell_malformed(client: &mut Client, error: ClientError) -> Result<(), ClientError> {
    if let ClientError::Malformed(fault) = &error {
        let told = ServerError::fatal(SqlState::PROTOCOL_VIOLATION, fault.to_string());
        client.put_error(&told);
        client.flush().await?;
    }
    Err(error)
}
