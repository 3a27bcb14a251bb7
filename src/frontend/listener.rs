//! Accepts clients and deals them out to the workers, one after the other.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::admission::Admission;
use super::cancel::Cancels;
use super::console::ConsoleSlot;
use super::directory::Directory;
use super::login::turn_away;
use super::pools::Pools;
use super::roles::{MockSecret, Roles};
use super::seats::Seats;
use super::socket::{Arrival, Door};
use super::worker::{Handover, Worker, start_worker};
use crate::backend::{self, DefaultsOf, Login, NodeLimit, Permits, Pool, PoolOf};
use crate::executor::Engine;
use crate::runtime::Tasks;

/// Connections that wait for their worker to take them.
const HANDOVER: usize = 1_024;
/// Connections of a worker to the home node for looking roles up.
const LOOKUP_CONNECTIONS: u32 = 2;
/// How long a client that comes during the stop may take to say what it wants.
const TURN_AWAY: Duration = Duration::from_secs(2);

/// The clients' side of the proxy.
#[derive(Debug)]
pub struct Frontend {
    /// What all sessions share.
    pub engine: Arc<Engine>,
    /// Who is let in; what is stored here later holds for those who come later.
    pub admission: Arc<ArcSwap<Admission>>,
    /// Limits of the connections to the nodes.
    pub backend: backend::LiveConfig,
    /// Known to this proxy alone.
    pub secret: MockSecret,
}

/// A listener and its workers at work.
#[derive(Debug)]
pub struct Listening {
    /// The address that clients connect to.
    pub address: SocketAddr,
    workers: Vec<JoinHandle<()>>,
    open: Vec<Arc<Door>>,
    /// Who is connected, and how the pools are filled.
    pub directory: Directory,
    /// Answers those who connect to the console, once it is there.
    pub console: ConsoleSlot,
    /// Go on while the workers stop, to tell those who come that it is too late.
    doors: Tasks,
}

impl Frontend {
    /// Listens, and serves clients until `tasks` is stopped.
    /// `inherited` are the sockets that another process has left open, if one did.
    pub async fn listen(self, inherited: Vec<OwnedFd>, tasks: &Tasks) -> io::Result<Listening> {
        let limits = self.admission.load().limits.clone();
        let folder = limits.unix_socket_folder.as_deref();
        let mut doors = Door::inherited(inherited, folder)?;
        if doors.is_empty() {
            doors.push(Door::tcp(limits.listen).await?);
        }
        let address = doors.first().and_then(Door::address).unwrap_or(limits.listen);
        if let (Some(folder), 1) = (folder, doors.len()) {
            doors.push(Door::unix(folder, address.port())?);
        }
        let doors: Vec<_> = doors.into_iter().map(Arc::new).collect();
        let (connections, door_tasks) = (Seats::default(), Tasks::new());
        let console = ConsoleSlot::default();
        let count = limits.worker_count();
        let (queues, workers, directory) =
            self.start_workers(count, (tasks, &door_tasks), &console)?;
        for door in &doors {
            let door = Arc::clone(door);
            let hall = Hall {
                queues: queues.clone(),
                connections: connections.clone(),
                admission: Arc::clone(&self.admission),
                stop: tasks.clone(),
                doors: door_tasks.clone(),
            };
            door_tasks.spawn("listener", async move { hall.receive(&door).await });
        }
        Ok(Listening { address, workers, open: doors, directory, console, doors: door_tasks })
    }

    #[expect(clippy::type_complexity, reason = "two lists and who looks into them")]
    fn start_workers(
        &self,
        count: usize,
        (tasks, doors): (&Tasks, &Tasks),
        console: &ConsoleSlot,
    ) -> io::Result<(Vec<mpsc::Sender<Handover>>, Vec<JoinHandle<()>>, Directory)> {
        let roles = Arc::new(Roles::new(self.secret.clone()));
        let (cancels, seats) = (Arc::new(Cancels::new(self.engine.number)), Seats::default());
        let (mut queues, mut workers, mut all_pools) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..count {
            let pools = Pools::new(&self.engine, Arc::clone(&self.backend), (index, count));
            let pools = Arc::new(pools);
            all_pools.push(Arc::clone(&pools));
            let worker = Worker {
                engine: Arc::clone(&self.engine),
                admission: Arc::clone(&self.admission),
                roles: Arc::clone(&roles),
                cancels: Arc::clone(&cancels),
                seats: seats.clone(),
                home: self.home_pool(),
                pools,
                console: console.clone(),
                statements: super::statements::AllStatements::default(),
                templates: super::templates::AllTemplates::default(),
                tasks: tasks.child(),
                doors: doors.clone(),
            };
            let (queue, clients) = mpsc::channel(HANDOVER);
            queues.push(queue);
            workers.push(start_worker(index, worker, clients)?);
        }
        let names = self.engine.nodes.iter().map(|node| node.name.clone()).collect();
        let directory = Directory::new(names, cancels, all_pools);
        Ok((queues, workers, directory))
    }

    /// Service connections to the home node.
    fn home_pool(&self) -> Arc<Pool> {
        let map = self.engine.live_map.snapshot();
        let home = self.engine.nodes[map.home().index()].clone();
        let login = Login {
            user: home.user.clone(),
            database: map.database().to_owned(),
            credential: home.password.clone().into(),
        };
        let all = Permits::new(LOOKUP_CONNECTIONS);
        let limits = (LOOKUP_CONNECTIONS, NodeLimit::new(LOOKUP_CONNECTIONS, all));
        let of = PoolOf { node: map.home(), address: home, oids: None, defaults: DefaultsOf::Node };
        Pool::new(of, login, Arc::clone(&self.backend), limits)
    }
}

impl Listening {
    /// The sockets for another process, which keeps them open; this one goes on accepting until
    /// [`Listening::leave`].
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        self.open.iter().map(|door| door.leave_open()).collect()
    }

    /// Stops accepting: another process has the sockets.
    pub fn leave(&self) {
        self.doors.token().cancel();
    }

    /// Waits for the workers, once their tasks were stopped.
    pub fn join(self) {
        for worker in self.workers {
            if worker.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        self.doors.token().cancel();
    }
}

/// What is behind a door.
struct Hall {
    queues: Vec<mpsc::Sender<Handover>>,
    connections: Seats,
    admission: Arc<ArcSwap<Admission>>,
    /// Stopped: clients are no longer served.
    stop: Tasks,
    /// Stopped: the doors close.
    doors: Tasks,
}

impl Hall {
    /// Receives clients until the workers have ended.
    async fn receive(&self, door: &Door) {
        let mut next = 0;
        loop {
            let accepted = tokio::select! {
                () = self.doors.token().cancelled() => return,
                accepted = door.accept() => accepted,
            };
            match accepted {
                Ok(arrival) => self.deal_out(arrival, &mut next).await,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    async fn deal_out(&self, arrival: Arrival, next: &mut usize) {
        let admission = self.admission.load_full();
        // Beside the clients: those who log in, and requests to cancel.
        let limit = 2 * admission.limits.max_clients + HANDOVER;
        let Some(seat) = self.connections.take(limit, None) else {
            tracing::warn!(limit, "a connection was closed: there are too many");
            return;
        };
        if self.stop.token().is_cancelled() {
            self.doors.spawn("turned away", async move {
                let told = timeout(TURN_AWAY, turn_away(&admission, arrival)).await;
                if !matches!(told, Ok(Ok(()))) {
                    tracing::debug!("a client that came too late did not wait for the reason");
                }
                drop(seat);
            });
            return;
        }
        *next = (*next + 1) % self.queues.len();
        if let Err(error) = self.queues[*next].send((arrival, seat)).await {
            tracing::debug!(%error, "a client came when its worker had ended");
        }
    }
}
