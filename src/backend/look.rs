//! Looks at what a session has left on a connection: settings, and state that others must not get.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use super::command::Command;
use super::{CommandError, Connection, Settings};
use crate::sql::Literal;

/// What a session has left on a connection.
#[derive(Debug)]
pub struct Found {
    /// Its settings.
    pub settings: Arc<Settings>,
    /// The schemas that its `search_path` means, in order.
    pub search_path: Vec<String>,
    /// Temporary tables, session locks, cursors, channels or prepared statements, if any: one of
    /// them, by name.
    pub state: Option<String>,
}

/// The schemas that `search_path` means, in order, as an expression. Where it names `pg_temp`, PostgreSQL's
/// own function would make a temporary schema, in a transaction that has to do with temporary objects then:
/// its words are read instead.
const SCHEMAS: &str = "\
    CASE WHEN pg_catalog.current_setting('search_path') !~* 'pg_temp' \
    THEN pg_catalog.current_schemas(false)::pg_catalog.text[] ELSE ARRAY(SELECT name FROM (\
        SELECT at, CASE word WHEN '$user' THEN current_user::pg_catalog.text ELSE word END AS name FROM (\
            SELECT at, coalesce(pg_catalog.replace(found[1], '\"\"', '\"'), pg_catalog.lower(found[2])) AS word \
            FROM pg_catalog.regexp_matches(pg_catalog.current_setting('search_path'), \
            '\"((?:[^\"]|\"\")*)\"|([^\",[:space:]]+)', 'g') WITH ORDINALITY AS it (found, at)) AS words) AS names \
    WHERE name = 'pg_temp' OR EXISTS (SELECT FROM pg_catalog.pg_namespace n \
        WHERE n.nspname = name AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')) ORDER BY at) END";

/// Lists the settings of the session that a `SET` made, the search path's schemas, and each kind
/// of state that it has. What a transaction sets for itself alone is not a session's.
const LOOK: &str = "\
    SELECT 'setting', name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings \
    WHERE source = 'session' AND name NOT LIKE 'transaction\\_%' \
    UNION ALL SELECT 'setting', 'role', pg_catalog.current_setting('role') \
    WHERE pg_catalog.current_setting('role') <> 'none' \
    UNION ALL SELECT 'setting', 'session_authorization', session_user \
    UNION ALL SELECT 'path', s, NULL FROM pg_catalog.unnest(SCHEMAS) s \
    UNION ALL SELECT 'state', 'temporary objects', NULL WHERE EXISTS (\
        SELECT FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::regclass \
        AND refobjid = pg_catalog.pg_my_temp_schema()) \
    UNION ALL SELECT 'state', 'channels', NULL \
    WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) \
    UNION ALL SELECT 'state', 'cursors', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors) \
    UNION ALL SELECT 'state', 'prepared statements', NULL \
    WHERE EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql) \
    UNION ALL SELECT 'state', 'advisory locks', NULL WHERE EXISTS (\
        SELECT FROM pg_catalog.pg_locks \
        WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())";

impl Connection {
    /// The schemas that `search_path` means now, in order.
    pub async fn search_path(&mut self) -> Result<Vec<String>, CommandError> {
        let command = self.command(&format!("SELECT pg_catalog.unnest({SCHEMAS})")).await?;
        Ok(command.rows.into_iter().flatten().flatten().collect())
    }

    /// Looks, outside of a transaction block. Settings of an extension or of the application that
    /// no library knows are listed nowhere: their names are `custom`.
    pub async fn look(&mut self, custom: &BTreeSet<String>) -> Result<Found, CommandError> {
        let mut sql = LOOK.replace("SCHEMAS", SCHEMAS);
        for name in custom {
            let name = Literal(name);
            // Writing to a string does not fail.
            let _written = write!(
                sql,
                " UNION ALL SELECT 'setting', {name}, pg_catalog.current_setting({name}, true) \
                 WHERE pg_catalog.current_setting({name}, true) IS NOT NULL"
            );
        }
        let (command, timeout) = match self.quick_command(&sql).await {
            Err(error) if error.is_cancelled() => {
                let (command, timeout) = self.look_untimed(&sql).await?;
                (command, Some(timeout))
            }
            done => (done?, None),
        };
        let (mut settings, mut search_path, mut state) = (Settings::default(), Vec::new(), None);
        for row in command.rows {
            let mut values = row.into_iter().flatten();
            match (values.next().as_deref(), values.next(), values.next()) {
                (Some("setting"), Some(name), Some(value)) => {
                    settings.0.insert(name, value);
                }
                (Some("path"), Some(schema), _) => search_path.push(schema),
                (Some("state"), what, _) => state = state.or(what),
                _ => {}
            }
        }
        if settings.0.get("session_authorization").is_some_and(|user| **user == *self.user) {
            settings.0.remove("session_authorization");
        }
        settings.0.extend(timeout.map(|timeout| ("statement_timeout".to_owned(), timeout)));
        let settings = Arc::new(settings);
        self.settings = Arc::clone(&settings);
        Ok(Found { settings, search_path, state })
    }

    /// The same question where it takes longer than the session's `statement_timeout`, or was hit by a
    /// cancel request that came late; and this timeout.
    async fn look_untimed(&mut self, sql: &str) -> Result<(Command, String), CommandError> {
        let asked = "SELECT pg_catalog.current_setting('statement_timeout')";
        let rows = self.quick_command_anyway(asked).await?.rows;
        let timeout = rows.into_iter().flatten().flatten().next().unwrap_or_default();
        self.quick_command_anyway("SET statement_timeout = 0").await?;
        let command = self.quick_command_anyway(sql).await?;
        let back = format!("SET statement_timeout = {}", Literal(&timeout));
        self.quick_command_anyway(&back).await?;
        Ok((command, timeout))
    }
}
