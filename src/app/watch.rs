//! `foreshard status` and `foreshard watch`: what the admin API says, for people.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use super::cli;
use super::http::{AdminClient, HttpError};
use super::signals::Signals;
use super::terminal::{clear, complain, is_terminal, redraw, say};
use super::view::{self, Snapshot};

/// How often the screen is drawn.
const FRAME: Duration = Duration::from_millis(500);

/// Looks at a proxy through its admin API, time and again, and says what it sees.
#[derive(Debug)]
pub struct Observer {
    admin: AdminClient,
    last: Option<Snapshot>,
    told: Option<Snapshot>,
}

impl Observer {
    /// Of the proxy whose admin API is there.
    pub fn new(admin: AdminClient) -> Self {
        Self { admin, last: None, told: None }
    }

    /// Looks.
    ///
    /// # Errors
    /// The proxy does not answer.
    pub async fn look(&mut self) -> Result<(), HttpError> {
        self.last = Some(look(&self.admin).await?);
        Ok(())
    }

    /// What the last look showed, as a screen.
    pub fn screen(&self) -> String {
        self.last.as_ref().map(view::frame).unwrap_or_default()
    }

    /// What is new since this was asked last, a line each.
    pub fn news(&mut self) -> Vec<String> {
        let Some(now) = &self.last else { return Vec::new() };
        let lines = view::changes(self.told.as_ref(), now);
        self.told = Some(now.clone());
        lines
    }
}

/// Prints one look.
pub(super) async fn status(args: cli::Admin) -> ExitCode {
    let look = async {
        let admin = AdminClient::new(&args.admin)?;
        say(view::frame(&look(&admin).await?));
        let shards = admin.get("/api/v1/shards").await?;
        say(view::placement(&shards));
        Ok::<_, HttpError>(())
    };
    told(look.await)
}

/// Prints looks until Ctrl-C: a live screen for a person, else a line for each change.
pub(super) async fn watch(args: cli::Admin) -> ExitCode {
    let Ok(mut signals) = Signals::new() else { return ExitCode::FAILURE };
    tokio::select! {
        ended = live(&args.admin) => told(ended),
        () = signals.any() => ExitCode::SUCCESS,
    }
}

fn told(ended: Result<(), HttpError>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format!("foreshard: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn live(url: &str) -> Result<(), HttpError> {
    let mut observer = Observer::new(AdminClient::new(url)?);
    observer.look().await?;
    let screen = is_terminal();
    if screen {
        clear();
    }
    loop {
        if screen {
            redraw(&observer.screen());
        } else {
            observer.news().iter().for_each(say);
        }
        sleep(FRAME).await;
        observer.look().await?;
    }
}

async fn look(admin: &AdminClient) -> Result<Snapshot, HttpError> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Snapshot {
        now_unix_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        status: admin.get("/api/v1/status").await?,
        nodes: admin.get("/api/v1/nodes").await?,
        moves: admin.get("/api/v1/moves?limit=6").await?,
        decisions: admin.get("/api/v1/decisions?limit=6").await?,
    })
}
