//! One client from its first byte to its last: greeting, limits, authentication, session.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::admission::Admission;
use super::auth::Checker;
use super::console::{self, Console};
use super::greeting::{Greeted, Greeting, Startup, greet};
use super::rules::Origin;
use super::seats::Seat;
use super::session::ClientSession;
use super::socket::Arrival;
use super::worker::Worker;
use crate::backend::Stream;
use crate::cluster::Presence;
use crate::executor::{Client, ClientError};
use crate::runtime::aside;
use crate::wire::{ClientKey, Malformed, ServerError, SqlState};

/// How long another proxy may take to pass a cancel request on.
const HAND_ON: Duration = Duration::from_secs(5);

/// Serves one client from its first byte to its last.
pub(super) async fn serve(worker: Arc<Worker>, arrival: Arrival, _connection: Seat) {
    match aside(|| serve_client(worker, arrival)).await {
        Ok(()) => {}
        Err(ClientError::Broken(error)) => tracing::debug!(%error, "a client went away"),
        Err(ClientError::Malformed(error)) => tracing::info!(%error, "a client was closed"),
    }
}

async fn serve_client(worker: Arc<Worker>, arrival: Arrival) -> Result<(), ClientError> {
    let (stream, origin) = arrival.open()?;
    let admission = worker.admission.load_full();
    let deadline = Instant::now() + admission.limits.login_timeout();
    let login = aside(|| log_in((&worker, &admission), stream, origin, deadline));
    let logged_in = aside(|| timeout_at(deadline, login)).await;
    let Ok(logged_in) = logged_in else {
        tracing::info!("a client took too long to log in");
        return Ok(());
    };
    match logged_in? {
        None => Ok(()),
        Some((LoggedIn::Console(client, console), _seat)) => {
            aside(|| console::serve(client, &*console, worker.tasks.token())).await
        }
        Some((LoggedIn::Session(mut session), _seat)) => match session.serve().await {
            Err(ClientError::Malformed(fault)) => {
                aside(|| tell_malformed(&mut session.client, fault)).await
            }
            ended => ended,
        },
    }
}

/// What a client that was let in has come for.
enum LoggedIn {
    Session(Box<ClientSession>),
    Console(Client, Arc<dyn Console>),
}

/// Lets a client in; `None` if it is not, or did not want to be. Whoever owes an answer at the
/// deadline is told so.
async fn log_in(
    (worker, admission): (&Arc<Worker>, &Admission),
    stream: Stream,
    origin: Origin,
    deadline: Instant,
) -> Result<Option<(LoggedIn, Seat)>, ClientError> {
    let greeted = greet(stream, origin, admission.tls.as_ref()).await?;
    let Greeted { mut client, origin, greeting } = greeted;
    let startup = match greeting {
        Ok(Greeting::Session(startup)) => startup,
        Ok(Greeting::Cancel(key)) => {
            if let Some(target) = worker.cancels.find(&key) {
                target.cancel(&worker.engine).await;
            } else if let Some(other) =
                worker.cancels.elsewhere(&key, &worker.engine.cluster.serving_elsewhere())
            {
                hand_on(&key, other).await;
            }
            return Ok(None);
        }
        Ok(Greeting::Gone) => return Ok(None),
        Err(error) => return tell(&mut client, &error).await.map(|()| None),
    };
    if worker.tasks.token().is_cancelled() && !worker.doors.token().is_cancelled() {
        return tell(&mut client, &shutting_down()).await.map(|()| None);
    }
    let limit = admission.limits.max_clients;
    let Some(seat) = worker.seats.take(limit, Some("foreshard_frontend_clients_count")) else {
        let message = "sorry, too many clients already";
        let error = ServerError::fatal(SqlState::TOO_MANY_CONNECTIONS, message);
        return tell(&mut client, &error).await.map(|()| None);
    };
    let checker = Checker { admission, roles: &worker.roles, home: &worker.home };
    let checked = timeout_at(deadline, checker.check(&startup, &origin, &mut client)).await;
    let credential = match checked.unwrap_or_else(|_| Ok(Err(late()))) {
        Ok(Ok(credential)) => credential,
        Ok(Err(error)) => {
            tracing::info!(user = startup.user, code = error.code.0, "a client was not let in");
            return tell(&mut client, &error).await.map(|()| None);
        }
        Err(ClientError::Malformed(fault)) => {
            return tell_malformed(&mut client, fault).await.map(|()| None);
        }
        Err(broken) => return Err(broken),
    };
    if let Err(error) = may_take(&seat, worker, admission, &startup).await {
        return tell(&mut client, &error).await.map(|()| None);
    }
    if let Some(console) = worker.console.for_database(worker, &startup.database) {
        if !may_operate(worker, admission, &startup.user).await {
            return tell(&mut client, &console::denied()).await.map(|()| None);
        }
        return Ok(Some((LoggedIn::Console(client, console), seat)));
    }
    let address = origin.addresses.map(|(client, _)| client);
    let opened = ClientSession::open(Arc::clone(worker), client, startup, (credential, address));
    let session = opened.await?;
    Ok(session.map(|session| (LoggedIn::Session(Box::new(session)), seat)))
}

/// Whether a user may use the console: a superuser of the home node, or whom the proxy itself is
/// there.
async fn may_operate(worker: &Worker, admission: &Admission, user: &str) -> bool {
    let home = worker.engine.live_map.load().home();
    worker.engine.nodes[home.index()].user == user
        || worker.roles.is_superuser(user, admission, &worker.home).await
}

/// Whether this client may have one of the last seats.
async fn may_take(
    seat: &Seat,
    worker: &Worker,
    admission: &Admission,
    startup: &Startup,
) -> Result<(), ServerError> {
    let limits = &admission.limits;
    let is_reserved = seat.place + limits.reserved_clients >= limits.max_clients;
    if !is_reserved || admission.lookup.is_none() {
        return Ok(());
    }
    if worker.roles.is_superuser(&startup.user, admission, &worker.home).await {
        return Ok(());
    }
    let message = "remaining connection slots are reserved for non-replication superuser \
                   connections";
    Err(ServerError::fatal(SqlState::TOO_MANY_CONNECTIONS, message))
}

/// Reads what a client wants, only to tell it that it can't be served any more.
pub(super) async fn turn_away(admission: &Admission, arrival: Arrival) -> Result<(), ClientError> {
    let (stream, origin) = arrival.open()?;
    let mut greeted = greet(stream, origin, admission.tls.as_ref()).await?;
    match greeted.greeting {
        Ok(Greeting::Session(_)) => tell(&mut greeted.client, &shutting_down()).await,
        _ => Ok(()),
    }
}

fn late() -> ServerError {
    let message = "canceling authentication due to timeout";
    ServerError::fatal(SqlState::QUERY_CANCELED, message)
        .with_hint("frontend.login_timeout_ms says how long a login may take.")
}

fn shutting_down() -> ServerError {
    ServerError::fatal(SqlState::CANNOT_CONNECT_NOW, "the database system is shutting down")
}

/// Tells a client why its connection ends.
async fn tell(client: &mut Client, error: &ServerError) -> Result<(), ClientError> {
    client.put_error(error);
    Ok(client.finish().await?)
}

/// Tells a client that sends garbage so, before it is closed.
async fn tell_malformed(client: &mut Client, fault: Malformed) -> Result<(), ClientError> {
    tell(client, &ServerError::fatal(SqlState::PROTOCOL_VIOLATION, fault.to_string())).await?;
    Err(fault.into())
}

/// Sends a cancel request to the proxy whose session it means.
async fn hand_on(key: &ClientKey, other: &Presence) {
    let handed = timeout(HAND_ON, async {
        let mut stream = TcpStream::connect(other.reached_at(&other.listen)).await?;
        stream.write_all(&key.packet()).await?;
        // It closes the connection once the request has been passed on.
        stream.read(&mut [0]).await
    });
    if !matches!(handed.await, Ok(Ok(_))) {
        tracing::warn!(proxy = other.host, "a cancel request could not be handed on");
    }
}
