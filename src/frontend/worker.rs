//! A worker: a thread with a runtime of its own, and what its sessions share.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::admission::Admission;
use super::cancel::Cancels;
use super::console::ConsoleSlot;
use super::login::serve;
use super::pools::Pools;
use super::roles::Roles;
use super::seats::{Seat, Seats};
use super::socket::Arrival;
use super::statements::AllStatements;
use super::templates::AllTemplates;
use crate::backend::Pool;
use crate::executor::Engine;
use crate::runtime::Tasks;

/// What the sessions of one worker share.
#[derive(Debug)]
pub(super) struct Worker {
    pub engine: Arc<Engine>,
    pub admission: Arc<ArcSwap<Admission>>,
    pub roles: Arc<Roles>,
    pub cancels: Arc<Cancels>,
    pub seats: Seats,
    /// Service connections to the home node.
    pub home: Arc<Pool>,
    pub pools: Arc<Pools>,
    /// Answers those who connect to the console.
    pub console: ConsoleSlot,
    pub statements: AllStatements,
    pub templates: AllTemplates,
    pub tasks: Tasks,
    /// Those who accept clients. They end before the worker does only where another process takes
    /// over: who was accepted is let in then, as nobody may be refused.
    pub doors: Tasks,
}

/// A client on its way to a worker.
pub(super) type Handover = (Arrival, Seat);

/// Statements run inside of statements (`first`), and futures are large; only what is used is taken.
const STACK_BYTES: usize = 16 << 20;

/// Starts the thread and runtime of a worker.
pub(super) fn start_worker(
    index: usize,
    worker: Worker,
    mut clients: mpsc::Receiver<Handover>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worker = Arc::new(worker);
    let thread = std::thread::Builder::new().name(format!("worker-{index}"));
    thread.stack_size(STACK_BYTES).spawn(move || {
        runtime.block_on(async {
            let (swept, stop) = (Arc::clone(&worker), worker.tasks.clone());
            let sweeping = async move { swept.pools.sweep_forever(&stop).await };
            worker.tasks.spawn("sweeper", sweeping);
            let welcome = |(arrival, seat): Handover| {
                let shared = Arc::clone(&worker);
                worker.tasks.spawn("client", async move { serve(shared, arrival, seat).await });
            };
            loop {
                let arrival = tokio::select! {
                    () = worker.tasks.token().cancelled() => break,
                    arrival = clients.recv() => arrival,
                };
                let Some(arrival) = arrival else { break };
                welcome(arrival);
            }
            // Those on their way when the stop came are told.
            while let Ok(arrival) = clients.try_recv() {
                welcome(arrival);
            }
            let grace = worker.admission.load().limits.shutdown_grace();
            if !worker.tasks.stop(grace).await {
                tracing::warn!("transactions under way were cut off by the stop");
            }
        });
    })
}
