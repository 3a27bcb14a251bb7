//! Names that mean a table of the policy, or a home table, by the order of the search path: whether it is
//! still as the map says is asked of the home node, and kept for a few seconds.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_postgres::Client;

use super::columns::ask;
use super::learned::Asked;
use super::run::query_message;
use super::{Fault, Session};
use crate::ids::Epoch;
use crate::shard_map::ShardMap;
use crate::sql::{Literal, TableName};
use crate::wire::ServerError;

/// The first schema of a path that has a relation of this name.
fn question(path: &[String], name: &str) -> String {
    let path: Vec<_> = path.iter().map(|schema| Literal(schema).to_string()).collect();
    format!(
        "SELECT n.nspname FROM pg_catalog.unnest(ARRAY[{}]::pg_catalog.name[]) \
         WITH ORDINALITY p (s, o) JOIN pg_catalog.pg_namespace n ON n.nspname = p.s \
         JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = {} \
         ORDER BY p.o LIMIT 1",
        path.join(", "),
        Literal(name)
    )
}

/// The schema that has the name as the map has it.
fn known<'a>(map: &ShardMap, path: &'a [String], name: &str) -> Option<&'a str> {
    let mut schemas = path.iter().map(String::as_str);
    schemas.find(|schema| map.knows(&TableName::new(*schema, name)))
}

impl Session {
    /// Makes sure that the map says which schema of the search path has each name.
    ///
    /// # Errors
    /// It says something else, or it can't be told.
    pub(super) async fn check_placed(&mut self, placed: &[(String, String)]) -> Result<(), Fault> {
        for (name, schema) in placed {
            if self.schema_of(name).await?.as_ref() == Some(schema) {
                continue;
            }
            self.engine.places.forget();
            if let Err(error) = self.engine.refresh_derived().await {
                tracing::warn!(%error, "what names mean could not be looked up");
                return Err(unclear(name));
            }
            // A template of another map is made anew.
            let found = self.schema_of(name).await?;
            let map = self.engine.live_map.snapshot();
            if found.as_deref() != known(&map, &self.search_path, name) {
                return Err(unclear(name));
            }
        }
        Ok(())
    }

    /// The first schema of the session's path with such a relation, as its transaction sees it.
    async fn schema_of(&mut self, name: &str) -> Result<Option<String>, Fault> {
        let question = question(&self.search_path, name);
        let map = self.engine.live_map.snapshot();
        if self.has_redefined() {
            let rows = self.evaluate_here(map.home(), &query_message(&question), 1).await?;
            return Ok(rows.into_iter().flatten().flatten().next());
        }
        let asked = Asked {
            text: name.to_owned(),
            types: Vec::new(),
            search_path: self.search_path.clone(),
            epoch: Epoch(0),
        };
        let generation = match self.engine.places.find(&asked) {
            Ok(found) => return Ok((*found).clone()),
            Err(generation) => generation,
        };
        let since = Instant::now();
        let look = async |client: &Client| client.query_opt(question.as_str(), &[]).await;
        let found = ask(&self.engine.nodes[map.home().index()], &map, look).await;
        let found = found.map_err(|error| {
            tracing::warn!(%error, "what a name means could not be looked up");
            unclear(name)
        })?;
        let found: Option<String> = found.map(|row| row.get(0));
        self.engine.places.keep(asked, Arc::new(found.clone()), (generation, since));
        Ok(found)
    }
}

fn unclear(name: &str) -> Fault {
    ServerError::refused(
        format!("it can't be told which table \"{name}\" is"),
        "search_path names several schemas, and which of them holds it has changed in this \
         transaction, or the home node does not say.",
        format!("Write the schema before \"{name}\", or commit first."),
    )
    .into()
}
