//! PREPARE, EXECUTE and DEALLOCATE. What PREPARE names on several nodes, or on one by its
//! parameters, is kept here under its name, beside the statements of the protocol, and EXECUTE runs
//! it as those are run; a statement for the home node alone is prepared there.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::extended::invalid;
use super::session::ClientSession;
use super::statements::Prepared;
use crate::executor::Fault;
use crate::planner::replaced;
use crate::router::Template;
use crate::sql::{
    Argument, ArgumentLiteral, Control, ExecuteStatement, Literal, PrepareStatement, StatementKind,
    executed_table, hint, params_of, parse,
};
use crate::wire::{Bind, Reply, ServerError, SqlState};

/// Types that a literal of digits is a value of, as it is written.
const INTEGERS: [u32; 3] = [20, 21, 23];
const BOOL: u32 = 16;

/// Result formats: all in text.
const TEXT: &[u8] = &[0, 0];

impl ClientSession {
    /// PREPARE; leaves `ReadyForQuery` to the caller.
    pub(super) async fn prepare(
        &mut self,
        prepare: &PrepareStatement,
        text: &str,
    ) -> Result<(), Fault> {
        self.session.check_not_failed()?;
        if self.statements.contains_key(prepare.name.as_bytes()) {
            return Err(already_there(&prepare.name).into());
        }
        let body = body(prepare, text);
        let Some(template) = self.kept(&body).await? else { return self.at_home(text).await };
        if self.is_at_home(&prepare.name).await? {
            return Err(already_there(&prepare.name).into());
        }
        let mut declared = Vec::with_capacity(prepare.types.len());
        for span in &prepare.types {
            declared.push(self.type_of(&text[span.clone()]).await?);
        }
        // What PostgreSQL says of it stands at the same place of the text.
        let before = text[..prepare.body.start].chars().count();
        let placed = format!("{}{}", " ".repeat(before), &text[prepare.body.clone()]);
        let types = self.session.param_types(&placed, &declared).await?;
        let sent = self.shown(&template).await?;
        let definitions = self.worker.engine.definitions();
        let prepared = self.worker.statements.named((&body, sent), &types, definitions);
        self.statements.insert(prepare.name.as_bytes().into(), prepared);
        self.client.put(Reply::CommandComplete("PREPARE"));
        self.let_go().await
    }

    /// EXECUTE in the simple protocol; leaves `ReadyForQuery` to the caller.
    pub(super) async fn execute(
        &mut self,
        execute: &ExecuteStatement,
        text: &str,
    ) -> Result<(), Fault> {
        let Some(prepared) = self.statements.get(execute.name.as_bytes()).cloned() else {
            return self.at_home(text).await;
        };
        self.session.check_not_failed()?;
        let (prepared, bind) = self.executed(execute, &prepared, text, (b"", TEXT)).await?;
        self.batch.quiet = true;
        let ran = self.run_bound(prepared, &bind).await;
        let told = match ran {
            Ok(()) => Ok(()),
            Err(fault) => self.fail_batch(fault).await,
        };
        let synced = self.sync_batch().await;
        self.batch.quiet = false;
        self.batch.skipping = false;
        self.batch.portals.remove(&b""[..]);
        if synced.is_err() {
            self.batch.reset(false);
        }
        told?;
        synced.map(drop)
    }

    /// DEALLOCATE; leaves `ReadyForQuery` to the caller.
    pub(super) async fn deallocate(&mut self, name: Option<&str>, text: &str) -> Result<(), Fault> {
        self.session.check_not_failed()?;
        let Some(name) = name else {
            self.statements.clear();
            let home = self.worker.engine.live_map.load().home();
            if self.session.holds(home) {
                self.at_home(text).await?;
                self.session.forget_prepared(home);
                return Ok(());
            }
            self.client.put(Reply::CommandComplete("DEALLOCATE ALL"));
            return Ok(());
        };
        if self.statements.remove(name.as_bytes()).is_none() {
            return self.at_home(text).await;
        }
        self.client.put(Reply::CommandComplete("DEALLOCATE"));
        Ok(())
    }

    /// What a text executes that is kept here, with the name of that.
    pub(super) fn executes(
        &self,
        template: &Template,
    ) -> Option<(Box<ExecuteStatement>, Arc<Prepared>)> {
        let Control::Execute(execute) = &template.control else { return None };
        let prepared = self.statements.get(execute.name.as_bytes())?;
        Some((execute.clone(), Arc::clone(prepared)))
    }

    /// What EXECUTE runs, and the `Bind` with its arguments for a portal with these result formats.
    pub(super) async fn executed(
        &mut self,
        execute: &ExecuteStatement,
        prepared: &Arc<Prepared>,
        text: &str,
        (portal, results): (&[u8], &[u8]),
    ) -> Result<(Arc<Prepared>, Bytes), Fault> {
        let types = self.all_types(prepared).await?;
        if types.len() != execute.arguments.len() {
            return Err(wrong_number(execute, types.len()).into());
        }
        let values = if let Some(values) = literals(&types, &execute.arguments) {
            values
        } else {
            self.end_exchange().await?;
            let (first, last) = (execute.arguments.first(), execute.arguments.last());
            let span = first.map_or(0, |it| it.span.start)..last.map_or(0, |it| it.span.end);
            self.session.argument_values(&types, &text[span]).await?
        };
        let bind = Bind::made(portal, &values, results);
        Ok((explaining(execute, prepared, text), bind))
    }

    /// `CREATE TABLE … AS EXECUTE` of what is kept here, as CREATE TABLE of its query; `None` if the text
    /// is something else.
    pub(super) async fn table_of_executed(&mut self, text: &str) -> Result<Option<String>, Fault> {
        let may_be = !self.statements.is_empty()
            && text.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("create"));
        let read = if may_be { executed_table(text, self.session.strings()) } else { None };
        let Some((execute, after)) = read else { return Ok(None) };
        match self.statements.get(execute.name.as_bytes()).cloned() {
            // Large, and rare.
            Some(kept) => {
                Box::pin(self.table_of_kept(text, &execute, after, &kept)).await.map(Some)
            }
            None => Ok(None),
        }
    }

    async fn table_of_kept(
        &mut self,
        text: &str,
        execute: &ExecuteStatement,
        after: Range<usize>,
        prepared: &Prepared,
    ) -> Result<String, Fault> {
        self.session.check_not_failed()?;
        self.end_exchange().await?;
        let types = self.all_types(prepared).await?;
        if types.len() != execute.arguments.len() {
            return Err(wrong_number(execute, types.len()).into());
        }
        let modified: Vec<(u32, i32)> = types.iter().map(|oid| (*oid, -1)).collect();
        let names = self.type_names(&modified, false).await?;
        let arguments = execute.arguments.iter().map(|argument| &text[argument.span.clone()]);
        let casts = arguments.zip(&names).map(|(argument, kind)| {
            format!("CAST(CAST(({argument}) AS {kind}) AS pg_catalog.text)")
        });
        // Each once, however often it stands in the query.
        let ask = format!("SELECT {}", casts.collect::<Vec<_>>().join(", "));
        let values = if types.is_empty() { Vec::new() } else { self.row_of_home(&ask).await? };
        let value = |number: &u16| {
            let at = usize::from(*number).saturating_sub(1);
            let kind = names.get(at).map_or("unknown", String::as_str);
            match values.get(at).and_then(Option::as_ref) {
                Some(value) => format!("CAST({} AS {kind})", Literal(value)),
                None => format!("CAST(NULL AS {kind})"),
            }
        };
        let places = params_of(&prepared.text).into_iter();
        let edits = places.map(|(number, span)| (span, value(&number))).collect();
        let query = replaced(&prepared.text, edits);
        let head = &text[execute.explain.clone().unwrap_or_default()];
        Ok(format!("{head}{query} {}", &text[after]))
    }

    /// Describes what a text that executes it gives.
    pub(super) async fn describe_executed(
        &mut self,
        execute: &ExecuteStatement,
        prepared: &Arc<Prepared>,
        text: &str,
    ) -> Result<(), Fault> {
        self.answer(&Reply::NoParameters);
        let types = self.all_types(prepared).await?;
        let values: Vec<_> = types.iter().map(|_| (0, None)).collect();
        let bind = Bind::made(b"", &values, TEXT);
        self.describe_ours(&explaining(execute, prepared, text), &bind).await
    }

    /// Binds, describes and executes the unnamed portal.
    async fn run_bound(&mut self, prepared: Arc<Prepared>, body: &Bytes) -> Result<(), Fault> {
        let bind = Bind::read(body).map_err(invalid)?;
        let template = self.template(&prepared.text);
        self.bind_to((prepared, template), &bind, body).await?;
        self.on_describe(b"P\0", b"D\0\0\0\x06P\0").await?;
        self.on_execute(&[0; 5], b"E\0\0\0\x09\0\0\0\0\0").await
    }

    /// The template of a body that is kept here; `None` if the home node prepares it.
    async fn kept(&mut self, body: &str) -> Result<Option<Arc<Template>>, Fault> {
        let parsed = parse(body, self.session.strings());
        let query = matches!(
            parsed.statements.as_slice(),
            [only] if matches!(only.kind, StatementKind::Query(_) | StatementKind::Other { .. })
        );
        self.session.check_relations(&self.template(body)).await?;
        let template = self.template(body);
        if !query || template.is_for_home() {
            return Ok(None);
        }
        template.check()?;
        Ok(Some(template))
    }

    /// Whether the session's connection to the home node has a statement of this name from PREPARE.
    async fn is_at_home(&mut self, name: &str) -> Result<bool, Fault> {
        if !self.session.holds(self.worker.engine.live_map.load().home()) {
            return Ok(false);
        }
        let sql = format!(
            "SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql AND name = {}",
            Literal(name)
        );
        Ok(!self.session.rows_at_home(&sql).await?.is_empty())
    }

    /// The home node's id of a type.
    async fn type_of(&mut self, written: &str) -> Result<u32, Fault> {
        let sql = format!("SELECT {}::pg_catalog.regtype::pg_catalog.oid", Literal(written));
        let rows = self.session.rows_at_home(&sql).await?;
        let oid = rows.into_iter().flatten().flatten().next().and_then(|oid| oid.parse().ok());
        Ok(oid.unwrap_or(0))
    }

    /// The types of all parameters, also of those that the client has left to PostgreSQL.
    pub(super) async fn all_types(&mut self, prepared: &Prepared) -> Result<Vec<u32>, Fault> {
        let uses = parse(&prepared.text, self.session.strings()).statements;
        let count = uses.first().map_or(0, |statement| statement.param_uses.len());
        if prepared.types.len() >= count && !prepared.types.contains(&0) {
            return Ok(prepared.types.to_vec());
        }
        self.end_exchange().await?;
        if self.batch.skipping {
            return Ok(prepared.types.to_vec());
        }
        self.session.param_types(&prepared.text, &prepared.types).await
    }

    /// Runs a text on the home node, whose it is, by the simple protocol.
    async fn at_home(&mut self, text: &str) -> Result<(), Fault> {
        self.session.check_not_failed()?;
        let home = self.worker.engine.live_map.load().home();
        let template = self.template(text);
        self.prepare_node(&template, home).await?;
        self.session.run_text(home, text, &mut self.client).await?;
        self.after_statement(&template).await
    }

    /// Lets go of the home node after a question of the proxy's own.
    async fn let_go(&mut self) -> Result<(), Fault> {
        if self.session.in_transaction() { Ok(()) } else { self.session.finish().await }
    }
}

/// The statement that PREPARE names, behind the hint that PREPARE is behind.
fn body(prepare: &PrepareStatement, text: &str) -> String {
    let body = text[prepare.body.clone()].trim();
    match text.find("*/").filter(|_| hint(text).is_some() && hint(body).is_none()) {
        Some(end) => format!("{} {body}", &text[..end + 2]),
        None => body.to_owned(),
    }
}

/// The same behind EXPLAIN, if EXECUTE stands behind it.
fn explaining(execute: &ExecuteStatement, prepared: &Arc<Prepared>, text: &str) -> Arc<Prepared> {
    match &execute.explain {
        None => Arc::clone(prepared),
        Some(span) => {
            let explained = format!("{} {}", &text[span.clone()], prepared.text);
            Prepared::unnamed(&explained, None, &prepared.types)
        }
    }
}

/// The arguments as parameters in text, if all are written as literals whose value is that.
fn literals(types: &[u32], arguments: &[Argument]) -> Option<Vec<(i16, Option<Bytes>)>> {
    let value = |(oid, argument): (&u32, &Argument)| match argument.literal.as_ref()? {
        ArgumentLiteral::Null => Some((0, None)),
        ArgumentLiteral::String(value) => Some((0, Some(value.clone().into()))),
        ArgumentLiteral::Integer(digits) => {
            INTEGERS.contains(oid).then(|| (0, Some(digits.clone().into())))
        }
        ArgumentLiteral::Bool(value) => (*oid == BOOL).then(|| (0, Some(value.to_string().into()))),
    };
    types.iter().zip(arguments).map(value).collect()
}

fn already_there(name: &str) -> ServerError {
    let message = format!("prepared statement \"{name}\" already exists");
    ServerError::new(SqlState::DUPLICATE_PREPARED_STATEMENT, message)
}

fn wrong_number(execute: &ExecuteStatement, expected: usize) -> ServerError {
    let message = format!("wrong number of parameters for prepared statement \"{}\"", execute.name);
    let given = execute.arguments.len();
    ServerError::new(SqlState::SYNTAX_ERROR, message)
        .with_detail(format!("Expected {expected} parameters but got {given}."))
}
