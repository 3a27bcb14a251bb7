//! A wire between the proxy and a node that can be cut, stalled, refused and torn in mid-message.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use foreshard::runtime::Tasks;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It passes.
    Flow,
    /// It waits; connections stay open.
    Stall,
    /// It passes, but nobody new gets in.
    Refuse,
}

/// No connection is to be torn.
const UNARMED: i64 = i64::MIN;

/// One wire.
#[derive(Clone)]
pub struct Link {
    /// Where it is entered.
    pub port: u16,
    state: Arc<State>,
    tasks: Tasks,
}

struct State {
    target: u16,
    mode: watch::Sender<Mode>,
    cuts: watch::Sender<u64>,
    /// How many more bytes pass before the connection that sends the next one is torn.
    budget: AtomicI64,
}

/// How a direction ended.
enum End {
    Closed,
    Torn,
}

impl Link {
    /// A wire to a port of this machine.
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let state = Arc::new(State {
            target,
            mode: watch::Sender::new(Mode::Flow),
            cuts: watch::Sender::new(0),
            budget: AtomicI64::new(UNARMED),
        });
        let port = listener.local_addr().unwrap().port();
        let tasks = Tasks::new();
        drop(tasks.spawn("link", accept(listener, Arc::clone(&state), tasks.clone())));
        Self { port, state, tasks }
    }

    /// Resets every connection that is open.
    pub fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What happens from now on.
    pub fn set(&self, mode: Mode) {
        self.state.mode.send_replace(mode);
    }

    /// Tears the connection that sends the byte after so many, in the middle of whatever it sends.
    pub fn tear_after(&self, bytes: u16) {
        self.state.budget.store(i64::from(bytes), Ordering::Relaxed);
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.state.budget.store(UNARMED, Ordering::Relaxed);
        self.set(Mode::Flow);
    }

    /// Ends it.
    pub async fn stop(&self) {
        self.tasks.stop(Duration::from_secs(5)).await;
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, tasks: Tasks) {
    loop {
        let client = tokio::select! {
            () = tasks.token().cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((client, _)) = client else { continue };
        if *state.mode.borrow() == Mode::Refuse {
            continue;
        }
        let connection = connection(client, Arc::clone(&state), tasks.clone());
        drop(tasks.spawn("link connection", connection));
    }
}

/// Carries one connection until an end closes it or the wire is cut.
async fn connection(client: TcpStream, state: Arc<State>, tasks: Tasks) {
    let mut cuts = state.cuts.subscribe();
    cuts.mark_unchanged();
    let Ok(server) = TcpStream::connect(("127.0.0.1", state.target)).await else { return };
    for stream in [&client, &server] {
        let _unset = stream.set_nodelay(true);
    }
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let end = tokio::select! {
        end = carry(&state, &mut from_client, &mut to_server) => end,
        end = carry(&state, &mut from_server, &mut to_client) => end,
        _ = cuts.changed() => End::Torn,
        () = tasks.token().cancelled() => End::Closed,
    };
    if matches!(end, End::Torn) {
        for half in [&to_client, &to_server] {
            let _unset = SockRef::from(half.as_ref()).set_linger(Some(Duration::ZERO));
        }
    }
}

async fn carry(state: &State, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> End {
    let mut buffer = vec![0; 16 << 10];
    let mut mode = state.mode.subscribe();
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return End::Closed };
        if mode.wait_for(|mode| *mode != Mode::Stall).await.is_err() {
            return End::Closed;
        }
        let passing = state.budget.load(Ordering::Relaxed);
        let len = i64::try_from(count).unwrap();
        if passing != UNARMED && state.budget.fetch_sub(len, Ordering::Relaxed) < len {
            state.budget.store(UNARMED, Ordering::Relaxed);
            let rest = usize::try_from(passing.clamp(0, len)).unwrap();
            let _gone = to.write_all(&buffer[..rest]).await;
            return End::Torn;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return End::Closed;
        }
    }
}
