//! What other proxies write, as soon as they have: etcd tells of each commit in a part of the catalog.
//! <https://etcd.io/docs/v3.5/learning/api/#watch-api>

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::gateway::{Answers, decoded, encoded, number};
use super::{EtcdKv, PAUSE, end_of};
use crate::catalog::kv::{CatalogError, Revision};
use crate::catalog::mirror::{Altered, Mirror};
use crate::runtime::Tasks;

/// A member that has said nothing for so long is asked anew, or another one is.
const SILENCE: Duration = Duration::from_secs(3);

/// The part that is followed, by the prefixes of its records: what is written often is not in it.
const FROM: &str = "events/";
const TO: &str = "term";

impl EtcdKv {
    /// Keeps a mirror of what several proxies tell each other, and tells the keys that have changed,
    /// until the tasks end.
    pub async fn follow_forever(self, mirror: Mirror, heard: impl Fn(&str), tasks: Tasks) {
        tokio::select! {
            () = tasks.token().cancelled() => {}
            () = self.follow(&mirror, &heard) => {}
        }
    }

    async fn follow(&self, mirror: &Mirror, heard: &impl Fn(&str)) {
        loop {
            let ended = match self.all_of_it(mirror, heard).await {
                Ok(at) => self.follow_from(at, mirror, heard).await,
                Err(error) => error.to_string(),
            };
            tracing::debug!(ended, "the catalog is followed anew");
            sleep(PAUSE).await;
        }
    }

    async fn all_of_it(&self, mirror: &Mirror, heard: &impl Fn(&str)) -> Result<u64, CatalogError> {
        let (entries, at) = self.all_between(self.key(FROM), &self.end_of_it()).await?;
        mirror.replace(entries, Revision(at)).iter().for_each(|key| heard(key));
        Ok(at)
    }

    fn end_of_it(&self) -> String {
        encoded(end_of(format!("{}{TO}", self.prefix).into_bytes()))
    }

    /// Applies what comes after a commit; why it has ended.
    async fn follow_from(&self, mut at: u64, mirror: &Mirror, heard: &impl Fn(&str)) -> String {
        loop {
            let request = json!({ "create_request": {
                "key": self.key(FROM), "range_end": self.end_of_it(),
                "start_revision": (at + 1).to_string(),
            }});
            let mut answers = match self.gateway.stream("watch", &request).await {
                Ok(answers) => answers,
                Err(reason) => return reason,
            };
            if let Err(reason) = self.drain(&mut answers, &mut at, mirror, heard).await {
                return reason;
            }
        }
    }

    /// Until nothing has come for a while.
    async fn drain(
        &self,
        answers: &mut Answers,
        at: &mut u64,
        mirror: &Mirror,
        heard: &impl Fn(&str),
    ) -> Result<(), String> {
        loop {
            let Ok(answer) = timeout(SILENCE, answers.next()).await else { return Ok(()) };
            let answer = answer?;
            let result = &answer["result"];
            if result["canceled"] == true || result.is_null() {
                return Err(format!("it does not follow: {answer}"));
            }
            let events = result["events"].as_array().map(Vec::as_slice).unwrap_or_default();
            if events.is_empty() {
                continue;
            }
            let changes: Option<Vec<Altered>> = events.iter().map(|it| self.altered(it)).collect();
            let changes = changes.ok_or("it tells of a change that can't be read")?;
            let revisions = events.iter().map(|it| number(&it["kv"]["mod_revision"]));
            *at = revisions.max().unwrap_or_default().max(*at);
            mirror.apply(changes, Revision(*at)).iter().for_each(|key| heard(key));
        }
    }

    fn altered(&self, event: &Value) -> Option<Altered> {
        let key = String::from_utf8(decoded(&event["kv"]["key"])?).ok()?;
        let key = key.strip_prefix(&*self.prefix)?.to_owned();
        let entry = match event["type"].as_str() {
            Some("DELETE") => None,
            _ => Some(self.entry(&event["kv"])?),
        };
        Some(Altered { key, entry })
    }
}
