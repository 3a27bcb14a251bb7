//! The server connection on which a pull's rows come together: on the home node, beside the
//! session's own transaction, in a transaction that is always rolled back.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::cancel::CancelTarget;
use super::{Fault, Session};
use crate::backend::{CommandError, Connection, Guard};
use crate::ids::NodeId;
use crate::planner::{InputKeys, PullInput, PullPlan};
use crate::sql::{Ident, Literal};
use crate::wire::{
    CancelKey, Reader, ServerError, put_frame, put_parse, put_query, read_error, with_statement,
};

/// What every stream of COPY in binary starts with: signature, flags, length of extensions.
pub(super) const COPY_HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What ends one.
pub(super) const COPY_TRAILER: [u8; 2] = [0xff, 0xff];

/// What PostgreSQL says of a statement.
#[derive(Debug, Clone, Default)]
pub(super) struct Described {
    /// The `RowDescription` of its result; empty if it has none.
    pub(super) columns: Bytes,
    /// The types of its parameters.
    pub(super) param_types: Vec<u32>,
}

/// The types that a `ParameterDescription` tells of.
pub(super) fn param_types(frame: &[u8]) -> Vec<u32> {
    let mut reader = Reader::new(frame.get(5..).unwrap_or_default());
    let count = reader.count(4).unwrap_or_default();
    (0..count).map_while(|_| reader.u32().ok()).collect()
}

/// The most values of one table by which another is read.
const KEYS_MAX: usize = 10_000;

/// The connection; cancel requests for the session reach it.
#[derive(Debug)]
pub(super) struct MergeSession {
    pub(super) guard: Guard,
    cancel: Arc<CancelTarget>,
    pub(super) node: NodeId,
    key: CancelKey,
    /// Its connection is that of the session's own transaction, which has this one meanwhile.
    pub(super) is_exchanged: bool,
}

impl Drop for MergeSession {
    fn drop(&mut self) {
        if self.cancel.remove(self.node, self.key) {
            // The request may still be on its way to it.
            self.guard.status = None;
        }
    }
}

impl MergeSession {
    /// Checks a connection to the home node out and begins its transaction, under the settings that
    /// the session's own transaction has.
    pub(super) async fn begin(session: &Session) -> Result<Self, Fault> {
        let node = session.engine.live_map.load().home();
        let guard = session.checkout_beside(node).await?;
        let key = guard.key;
        session.cancel.add(node, key);
        let mut merge =
            Self { guard, cancel: Arc::clone(&session.cancel), node, key, is_exchanged: false };
        let mut sql = "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE".to_owned();
        if session.in_transaction() {
            // The transaction may hold locks itself, and would be waited for without end.
            sql.push_str("; SET LOCAL lock_timeout = '10s'");
        }
        for text in session.prelude().filter(|text| !sets_transaction(text)) {
            sql.push_str("; ");
            sql.push_str(text);
        }
        merge.guard.command(&sql).await?;
        Ok(merge)
    }

    /// Lets PostgreSQL read a statement. What is wrong with it is told here, before any row moves.
    pub(super) async fn describe(&mut self, text: &str, types: &[u32]) -> Result<Described, Fault> {
        let mut out = BytesMut::new();
        put_parse(b"", text.as_bytes(), types, &mut out);
        with_statement(b'D', b"", &mut out);
        put_frame(b'S', &mut out, |_| ());
        self.guard.send(&out).await?;
        let (mut described, mut error) = (Described::default(), None);
        loop {
            let (tag, frame) = self.guard.frame().await?;
            match tag {
                b'T' => described.columns = frame,
                b't' => described.param_types = param_types(&frame),
                b'E' => error = error.or(Some(frame)),
                b'Z' => break,
                _ => {}
            }
        }
        error.map_or(Ok(described), |frame| Err(Fault::Reported(frame)))
    }

    /// Refuses functions that could look at tables on their own, or change something.
    pub(super) async fn check_functions(
        &mut self,
        functions: &[(Option<String>, String)],
    ) -> Result<(), Fault> {
        if functions.is_empty() {
            return Ok(());
        }
        let named: Vec<_> = functions
            .iter()
            .map(|(schema, name)| match schema {
                None => format!("p.proname = {}", Literal(name)),
                Some(schema) => {
                    format!("n.nspname = {} AND p.proname = {}", Literal(schema), Literal(name))
                }
            })
            .collect();
        // What is built in and not volatile computes or looks at the catalog; what users make may
        // look at tables unless it is immutable.
        let sql = format!(
            "SELECT p.oid::pg_catalog.regprocedure FROM pg_catalog.pg_proc p \
             JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
             WHERE ({}) AND (p.provolatile = 'v' OR p.provolatile = 's' \
             AND n.nspname <> 'pg_catalog') LIMIT 1",
            named.join(" OR ")
        );
        let found = self.guard.command(&sql).await?.rows;
        match found.into_iter().flatten().flatten().next() {
            None => Ok(()),
            Some(function) => Err(ServerError::refused(
                format!("{function} can't be called on rows of several nodes"),
                "It may read tables, of which no node has all rows, or change something.",
                "Bind the shard key to constants, or declare the function IMMUTABLE if it is.",
            )
            .into()),
        }
    }

    /// Makes a temporary table of the columns that `select` gives, with the rows that it gives here
    /// if `fill`.
    pub(super) async fn make(&mut self, name: &str, select: &str, fill: bool) -> Result<(), Fault> {
        let data = if fill { "" } else { " WITH NO DATA" };
        let sql = format!("CREATE TEMP TABLE {} AS {select}{data}", Ident::new(name));
        Ok(self.guard.command(&sql).await.map(drop)?)
    }

    /// Adds the rows that `select` gives here.
    pub(super) async fn fill(&mut self, name: &str, select: &str) -> Result<(), Fault> {
        let sql = format!("INSERT INTO pg_temp.{} {select}", Ident::new(name));
        Ok(self.guard.command(&sql).await.map(drop)?)
    }

    /// A primary key lets GROUP BY name it for all columns: where the statement is not valid on the
    /// temporary tables, they get the keys of the tables that they stand for.
    pub(super) async fn give_keys(&mut self, plan: &PullPlan, types: &[u32]) -> Result<(), Fault> {
        self.guard.command("SAVEPOINT foreshard").await?;
        let needed = match self.describe(&plan.text, types).await {
            Err(Fault::Reported(frame)) => is_grouping_error(&frame),
            // The query in a COPY is looked at when it runs.
            Ok(described) => described.columns.is_empty(),
            Err(other) => return Err(other),
        };
        self.guard.command("ROLLBACK TO foreshard").await?;
        // Whatever else is wrong is told when it runs.
        if !needed {
            return Ok(());
        }
        for input in &plan.inputs {
            self.give_key(input).await?;
        }
        Ok(())
    }

    /// Gives a temporary table the primary key of the table that it stands for, if it has its
    /// columns.
    pub(super) async fn give_key(&mut self, input: &PullInput) -> Result<(), Fault> {
        let name = format!("pg_temp.{}", Ident::new(&input.name));
        let sql = format!(
            "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' \
             ORDER BY pg_catalog.array_position(i.indkey::int2[], a.attnum)) \
             FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a \
             ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) \
             LEFT JOIN pg_catalog.pg_attribute t ON t.attrelid = {0}::pg_catalog.regclass \
             AND t.attname = a.attname WHERE i.indrelid = {1}::pg_catalog.regclass \
             AND i.indisprimary AND NOT EXISTS (SELECT FROM pg_catalog.pg_index h \
             WHERE h.indrelid = {0}::pg_catalog.regclass AND h.indisprimary) \
             HAVING pg_catalog.count(*) = pg_catalog.count(t.attname)",
            Literal(&name),
            Literal(&input.table)
        );
        let key = self.guard.command(&sql).await?.rows.into_iter().flatten().flatten().next();
        if let Some(key) = key {
            self.guard.command(&format!("ALTER TABLE {name} ADD PRIMARY KEY ({key})")).await?;
        }
        Ok(())
    }

    /// The values of a column of a temporary table, as an array's text; `None` if they are too many
    /// to be sent.
    pub(super) async fn values_of(
        &mut self,
        name: &str,
        keys: &InputKeys,
    ) -> Result<Option<String>, Fault> {
        let (column, most) = (Ident::new(&keys.column), KEYS_MAX);
        let sql = format!(
            "SELECT CASE WHEN pg_catalog.count(*) <= {most} \
             THEN coalesce(pg_catalog.array_agg(v)::pg_catalog.text, '{{}}') END \
             FROM (SELECT DISTINCT {column} AS v FROM pg_temp.{} WHERE {column} IS NOT NULL \
             LIMIT {most} + 1) AS x",
            Ident::new(name)
        );
        Ok(self.guard.command(&sql).await?.rows.into_iter().flatten().flatten().next())
    }

    /// Gives the planner statistics of a temporary table.
    pub(super) async fn analyze(&mut self, name: &str) -> Result<(), Fault> {
        Ok(self.guard.command(&format!("ANALYZE pg_temp.{}", Ident::new(name))).await.map(drop)?)
    }

    /// Starts taking rows into a temporary table.
    pub(super) async fn start_copy(&mut self, name: &str, binary: bool) -> Result<(), Fault> {
        let format = if binary { " (FORMAT binary)" } else { "" };
        let mut out = BytesMut::new();
        put_query(&format!("COPY pg_temp.{} FROM STDIN{format}", Ident::new(name)), &mut out);
        self.guard.send(&out).await?;
        loop {
            let (tag, frame) = self.guard.frame().await?;
            match tag {
                b'G' => break,
                b'E' => {
                    self.guard.finish_command().await?;
                    return Err(Fault::Reported(frame));
                }
                _ => {}
            }
        }
        if binary {
            out.clear();
            put_frame(b'd', &mut out, |out| out.extend_from_slice(&COPY_HEADER));
            self.guard.send_more(&out).await?;
        }
        Ok(())
    }

    /// Ends it.
    pub(super) async fn end_copy(&mut self, binary: bool) -> Result<(), Fault> {
        let mut out = BytesMut::new();
        if binary {
            put_frame(b'd', &mut out, |out| out.extend_from_slice(&COPY_TRAILER));
        }
        put_frame(b'c', &mut out, |_| ());
        self.guard.send_more(&out).await?;
        Ok(self.guard.finish_command().await.map(drop)?)
    }

    /// Ends its transaction; nothing of it stays.
    pub(super) async fn end(mut self) -> Result<(), CommandError> {
        self.guard.command("ROLLBACK").await.map(drop)
    }
}

/// Whether a text of the transaction is about its modes, which the merge session has its own of.
fn sets_transaction(text: &str) -> bool {
    let mut words = text.split_ascii_whitespace().map(str::to_ascii_lowercase);
    match words.next().as_deref() {
        Some("commit") => true,
        Some("set") => {
            let mut words = words.skip_while(|word| matches!(word.as_str(), "local" | "session"));
            words.next().is_some_and(|w| w.starts_with("transaction") || w == "constraints")
        }
        _ => false,
    }
}

/// Whether an `ErrorResponse` is about the type of a temporary table, which stands for another one.
pub(super) fn names_stand_in(frame: &[u8]) -> bool {
    let error = read_error(frame.get(5..).unwrap_or_default());
    matches!(&*error.code, "42846" | "42883" | "42804") && error.message.contains("\"foreshard ")
}

pub(super) fn of_row_type() -> ServerError {
    ServerError::refused(
        "a whole row of several nodes can't be used as a value of its table's type",
        "It is brought together with others in a table of another name, and so of another type.",
        "Name the columns: ROW(a.x, a.y)::t",
    )
}

/// Whether an `ErrorResponse` says that a column is neither grouped nor aggregated.
pub(super) fn is_grouping_error(frame: &[u8]) -> bool {
    read_error(frame.get(5..).unwrap_or_default()).code == "42803"
}

/// Whether an `ErrorResponse` says that there is no such table.
pub(super) fn is_unknown_table(frame: &[u8]) -> bool {
    read_error(frame.get(5..).unwrap_or_default()).code == "42P01"
}

/// Reads frames of `connection` until `count` commands have ended.
pub(super) async fn drain(connection: &mut Connection, mut count: usize) -> Result<(), Fault> {
    while count > 0 {
        if connection.frame().await?.0 == b'Z' {
            count -= 1;
        }
    }
    Ok(())
}
