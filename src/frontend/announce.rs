//! `SET foreshard.announce = '{…}'`: a client says what load it expects of itself.
//!
//! It never reaches a node: it becomes a record that the controller reads.

use std::time::{SystemTime, UNIX_EPOCH};

use super::session::ClientSession;
use crate::catalog::Expect;
use crate::executor::Fault;
use crate::forecast::{Announcement, Event};
use crate::wire::{Reply, ServerError, SqlState};

/// The setting.
pub(super) const SETTING: &str = "foreshard.announce";
/// Announcements and events that are kept, at the most.
const EVENTS_MAX: usize = 1_000;

impl ClientSession {
    /// Takes an announcement.
    pub(super) async fn announce(&mut self, values: &[String]) -> Result<(), Fault> {
        self.session.check_not_failed()?;
        let event = event(&values.join(","), &self.user).map_err(|fault| invalid(&fault))?;
        let catalog = &self.worker.engine.catalog;
        let unavailable = |error: crate::catalog::CatalogError| {
            tracing::warn!(%error, "an announcement could not be kept");
            ServerError::new(SqlState("58000"), "the announcement could not be kept")
                .with_hint("The catalog can't be written; try again later.")
        };
        let known = catalog.list::<Event>().await.map_err(unavailable)?;
        if known.len() >= EVENTS_MAX && known.iter().all(|known| known.record.name != event.name) {
            let full = format!("{EVENTS_MAX} events and announcements are known already");
            return Err(ServerError::new(SqlState("53400"), full)
                .with_hint("Announce again when others are over.")
                .into());
        }
        catalog.put(&event, Expect::Anything).await.map_err(unavailable)?;
        self.client.put(Reply::CommandComplete("SET"));
        Ok(())
    }
}

fn event(text: &str, login: &str) -> Result<Event, String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Announcement::parse(text)?.into_event(Some(login), now_unix_ms)
}

fn invalid(fault: &str) -> ServerError {
    let message = format!("invalid value for parameter \"{SETTING}\": {fault}");
    ServerError::new(SqlState("22023"), message).with_hint(
        "Write it as '{\"lasts_minutes\": 10, \"factor\": 2, \"tables\": [\"orders\"]}'.",
    )
}
