//! Statements whose rows are found by a lookup: the entries are read, the statement goes where they
//! lead, and its answer counts only if that was right.
//!
//! Between the two a row may have got another key, and be where the statement did not look. An answer
//! with a row for each entry is right as it is. Another one is right if the entries are the same
//! afterwards, of the same versions, and no transaction is about to change them; else the statement
//! runs as if there was no lookup.

use std::sync::Arc;

use super::capture::Answer;
use super::session::ClientSession;
use super::simple::Way;
use super::writes::params_of;
use crate::executor::{Bound, Fault, LookedUp};
use crate::router::{LookUp, Params, Route, Template};
use crate::wire::Reply;

/// What came of it.
pub(super) enum Led {
    /// The client has its answer.
    Done,
    /// It has to run so.
    Otherwise(Way, Arc<Template>),
}

impl ClientSession {
    /// Runs a statement where lookups lead; leaves `ReadyForQuery` to the caller. `describe` says
    /// whether the client gets the description of the columns.
    pub(super) async fn look_up(
        &mut self,
        look: &LookUp,
        (text, bound): (&str, Option<&Bound<'_, '_>>),
        describe: bool,
    ) -> Result<Led, Fault> {
        let found = self.session.look_up(&look.reads).await?;
        let (way, template) = match &found {
            Some(found) => {
                let params = Params { looked_up: Some(&found.keys), ..params_of(bound) };
                self.way(text, params, self.template(text)).await?
            }
            None if look.explains && look.reads.is_empty() => self.plain_way(text, bound).await?,
            None => {
                let (way, template) = self.without_lookups(text, bound).await?;
                return Ok(Led::Otherwise(way, template));
            }
        };
        let one_node = matches!(&way, Way::Node(_, cost) if !cost.shards.is_empty());
        if found.is_none() && !one_node {
            return Ok(Led::Otherwise(way, template));
        }
        let lines = look.explains.then(|| self.lines(found.as_ref(), &way));
        let run = async |session: &mut Self| match way {
            Way::Steps(Route::LookUp(_)) => Ok(()),
            Way::Steps(route @ Route::Explain(_)) => {
                Box::pin(session.steps(&route, text, Some(&[]))).await
            }
            Way::Steps(route) => Box::pin(session.write(route, text, bound)).await,
            way if look.writes => session.write_way(way, text, bound).await,
            way => {
                if let Way::Node(node, _) = &way {
                    session.prepare_node(&template, *node).await?;
                }
                Box::pin(session.read_way(way, text, bound)).await
            }
        };
        let answer = self.capture(run).await?;
        if let Some(found) = &found
            && !self.is_right(look, found, &answer).await?
        {
            let (way, template) = self.without_lookups(text, bound).await?;
            return Ok(Led::Otherwise(way, template));
        }
        if let Some(columns) = answer.columns.filter(|_| describe) {
            self.client.relay(&columns).await?;
        }
        for line in lines.into_iter().flatten() {
            self.client.put(Reply::TextRow(&line));
        }
        for row in &answer.rows {
            self.client.relay(row).await?;
        }
        self.client.put(Reply::CommandComplete(&answer.tag));
        Ok(Led::Done)
    }

    async fn is_right(
        &mut self,
        look: &LookUp,
        found: &LookedUp,
        answer: &Answer,
    ) -> Result<bool, Fault> {
        let count = if look.writes {
            usize::try_from(answer.count()).unwrap_or(usize::MAX)
        } else {
            answer.rows.len()
        };
        if answer.tag.is_empty() {
            return Ok(false);
        }
        if found.entries() == 0 || look.sure && count >= found.entries() {
            return Ok(true);
        }
        let again = self.session.look_up(&look.reads).await?;
        Ok(again.is_some_and(|again| again.is_still(found)))
    }

    /// Where it goes as if there was no lookup.
    pub(super) async fn without_lookups(
        &mut self,
        text: &str,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(Way, Arc<Template>), Fault> {
        metrics::counter!("foreshard_frontend_lookups_passed_over_total").increment(1);
        self.plain_way(text, bound).await
    }

    /// The same where lookups have said what they know.
    pub(super) async fn plain_way(
        &mut self,
        text: &str,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(Way, Arc<Template>), Fault> {
        loop {
            let template = self.templates.plain(text, &self.map());
            let route = template.route(&params_of(bound))?;
            if let Some(way) = self.enter_route(route, &template).await? {
                return Ok((way, template));
            }
        }
    }

    /// What EXPLAIN says before the plan of a node, and of lookups.
    fn lines(&self, found: Option<&LookedUp>, way: &Way) -> Vec<String> {
        let map = self.worker.engine.live_map.snapshot();
        let word = if found.is_some() { "lookup, then where it leads" } else { "one node" };
        let mut lines = vec![format!("Way: {word}")];
        let looked_up = found.into_iter().flat_map(|found| found.places.iter().zip(&found.keys));
        for ((name, places), keys) in looked_up {
            let on: Vec<String> = places
                .iter()
                .map(|(shard, node)| format!("{} (s{shard})", map.node(*node).name))
                .collect();
            let count = keys.len();
            let noun = if count == 1 { "entry" } else { "entries" };
            lines.push(format!("  \"{name}\" on {}: {count} {noun}", on.join(", ")));
        }
        if let Way::Node(node, cost) = way {
            let shards: Vec<String> = cost.shards.iter().map(|shard| format!("s{shard}")).collect();
            let shards = if shards.is_empty() { "no shard".to_owned() } else { shards.join(" ") };
            lines.push(format!("  On {} ({shards}):", map.node(*node).name));
        }
        lines
    }
}
