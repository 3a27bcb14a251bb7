//! INSERT of a query's rows: the query runs like any other, its rows are inserted like any others.

use bytes::{Bytes, BytesMut};

use super::capture::Answer;
use super::look_up::Led;
use super::session::ClientSession;
use super::simple::Way;
use super::spool::Spool;
use super::writes::params_of;
use crate::executor::{BindFrames, Bound, Fault, PullMode, PullRun, Scatter, query_message};
use crate::planner::{literal, renumbered};
use crate::router::{InsertRows, Route};
use crate::sql::{Bare, bare_columns};
use crate::wire::{Bind, FIRST_USER_OID, Reader, Reply, ServerError, SqlState, body};

/// Rows of one INSERT.
const ROWS_A_STATEMENT: usize = 1_000;

/// The most rows with ON CONFLICT, which must see all of them at once.
const ROWS_MAX: u64 = 100_000;

/// Rows as literals, some at a time.
struct Portions<'a> {
    rows: Spool,
    most: usize,
    kinds: &'a [String],
    untyped: &'a [bool],
}

impl Portions<'_> {
    async fn next(&mut self) -> Result<Vec<String>, Fault> {
        literal_rows(&self.rows.portion(self.most).await?, self.kinds, Some(self.untyped))
    }
}

impl ClientSession {
    /// Runs `INSERT … SELECT`; leaves `ReadyForQuery` to the caller.
    pub(super) async fn insert_selected(
        &mut self,
        insert: &InsertRows,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        let layout = &insert.layout;
        let source = insert.text.get(layout.source.clone()).unwrap_or_default();
        let types = self.types_in(&insert.text, bound).await?;
        let typed = bound.map(|bound| Bound { types: &types, bind: bound.bind });
        let read =
            async |session: &mut Self| session.read_as(source, typed.as_ref(), Some(&[0, 0])).await;
        let rows = Box::pin(self.spool(read)).await?;
        let columns = rows.columns.as_ref().map_or(Ok(Vec::new()), |c| types_of(c))?;
        let untyped: Vec<bool> = bare_columns(source, columns.len())
            .iter()
            .map(|bare| is_untyped(*bare, &types))
            .collect();
        let (head, tail) = (&insert.text[..layout.source.start], &insert.text[layout.source.end..]);
        if rows.count == 0 {
            // The same without rows: checks it, and describes what RETURNING gives.
            let text = format!("{head}{}{tail}", without_rows(source, &untyped));
            let home = self.worker.engine.live_map.load().home();
            let cost = crate::executor::Cost::none(crate::load::Access::Write);
            return self.write_way(Way::Node(home, cost), &text, typed.as_ref()).await;
        }
        let whole = layout.conflict;
        if whole && rows.count > ROWS_MAX {
            return Err(too_many().into());
        }
        let most = if whole { usize::MAX } else { ROWS_A_STATEMENT };
        let kinds = self.value_types(&columns, false).await?;
        let mut source = Portions { rows, most, kinds: &kinds, untyped: &untyped };
        let insert = async |session: &mut Self| {
            session.insert_portions((head, tail), &mut source, typed.as_ref()).await
        };
        self.in_one_block("INSERT 0", insert).await
    }

    /// Statements that the client takes for one: they stand in its transaction block or one of
    /// their own, and have one tag, with the rows that `work` counts.
    pub(super) async fn in_one_block(
        &mut self,
        tag: &str,
        work: impl AsyncFnOnce(&mut Self) -> Result<u64, Fault>,
    ) -> Result<(), Fault> {
        let tagged = async |session: &mut Self| Ok(format!("{tag} {}", work(session).await?));
        self.as_one(tagged).await
    }

    /// The same with the whole tag.
    pub(super) async fn as_one(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> Result<String, Fault>,
    ) -> Result<(), Fault> {
        let implicit = self.session.begin_unless_begun();
        match work(self).await {
            Ok(tag) => {
                if implicit {
                    self.session.commit().await?;
                }
                self.client.put(Reply::CommandComplete(&tag));
                Ok(())
            }
            Err(fault) => {
                let fault = self.client.told(fault).await;
                if implicit {
                    self.session.rollback().await?;
                } else {
                    self.session.fail();
                }
                Err(fault)
            }
        }
    }

    /// The types of a statement's parameters, also those that PostgreSQL infers; 0 for those that
    /// users made.
    pub(super) async fn types_in(
        &mut self,
        text: &str,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<Vec<u32>, Fault> {
        let Some(bound) = bound else { return Ok(Vec::new()) };
        let declared = |at: usize| bound.types.get(at).copied().unwrap_or(0);
        let mut types: Vec<u32> = (0..bound.bind.values.len()).map(declared).collect();
        if types.contains(&0) {
            // Parts of it may have run, with their parameters.
            let (text, numbers) = renumbered(text);
            let place = |number: &u16| usize::from(*number).checked_sub(1);
            let given: Vec<u32> = numbers.iter().map(|n| place(n).map_or(0, &declared)).collect();
            let inferred = self.session.param_types(&text, &given).await?;
            for (number, inferred) in numbers.iter().zip(inferred) {
                let kind = place(number).and_then(|at| types.get_mut(at));
                if let Some(kind) = kind.filter(|kind| **kind == 0 && inferred < FIRST_USER_OID) {
                    *kind = inferred;
                }
            }
        }
        Ok(types)
    }

    async fn insert_portions(
        &mut self,
        (head, tail): (&str, &str),
        source: &mut Portions<'_>,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<u64, Fault> {
        let mut count = 0;
        for index in 0.. {
            let rows = source.next().await?;
            if rows.is_empty() {
                break;
            }
            let text = format!("{head}VALUES {}{tail}", rows.join(", "));
            let answer =
                self.capture(async |session| session.rewritten(&text, bound).await).await?;
            count += answer.count();
            if let Some(columns) = answer.columns.filter(|_| index == 0) {
                self.client.relay(&columns).await?;
            }
            for row in &answer.rows {
                self.client.relay(row).await?;
            }
        }
        Ok(count)
    }

    /// Routes and runs a statement that the proxy has made of the client's.
    pub(super) async fn rewritten(
        &mut self,
        text: &str,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        let template = self.template(text);
        let params = params_of(bound);
        let (way, _) = self.way(text, params, template).await?;
        match way {
            Way::Steps(route) => self.write(route, text, bound).await,
            way => self.write_way(way, text, bound).await,
        }
    }

    /// Runs a query and keeps its rows, as text.
    pub(super) async fn fetch(
        &mut self,
        source: &str,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<Answer, Fault> {
        self.fetch_as(source, bound, Some(&[0, 0])).await
    }

    /// The same with result formats of its own; without, in those that the client wants.
    pub(super) async fn fetch_as(
        &mut self,
        source: &str,
        bound: Option<&Bound<'_, '_>>,
        results: Option<&[u8]>,
    ) -> Result<Answer, Fault> {
        let read = async |session: &mut Self| session.read_as(source, bound, results).await;
        self.capture(read).await
    }

    /// Runs a query with those parameters that it uses.
    pub(super) async fn read_as(
        &mut self,
        source: &str,
        bound: Option<&Bound<'_, '_>>,
        results: Option<&[u8]>,
    ) -> Result<(), Fault> {
        let Some(bound) = bound else { return Box::pin(self.read(source, None)).await };
        let (text, numbers) = renumbered(source);
        let (frame, types) = part_of(&numbers, results, bound);
        let bind = Bind::read(body(&frame)).map_err(crate::executor::ClientError::from)?;
        let part = Bound { types: &types, bind: &bind };
        Box::pin(self.read(&text, Some(&part))).await
    }

    /// Runs a query.
    async fn read(&mut self, text: &str, bound: Option<&Bound<'_, '_>>) -> Result<(), Fault> {
        let template = self.template(text);
        let params = params_of(bound);
        let (way, _) = self.way(text, params, template).await?;
        if let Way::Steps(Route::LookUp(look)) = &way {
            return match Box::pin(self.look_up(look, (text, bound), true)).await? {
                Led::Done => Ok(()),
                Led::Otherwise(way, _) => self.read_way(way, text, bound).await,
            };
        }
        self.read_way(way, text, bound).await
    }

    /// Runs a query in a way that is known.
    pub(super) async fn read_way(
        &mut self,
        way: Way,
        text: &str,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        let params = params_of(bound);
        let messages = match bound {
            None => query_message(text),
            Some(bound) => bound.described(text),
        };
        match way {
            Way::Node(node, cost) => {
                let nodes = [(node, cost)];
                let only = Scatter::one_by_one(&nodes, &messages, true);
                self.session.scatter(&only, &mut self.client).await
            }
            Way::Scatter(nodes) => {
                let scatter = Scatter::one_by_one(&nodes, &messages, true);
                self.session.scatter(&scatter, &mut self.client).await
            }
            Way::Pull(pull) => {
                let bind = bound.map(|bound| BindFrames::of(bound.bind));
                let run = PullRun {
                    pull,
                    text,
                    start: 0,
                    params,
                    bind,
                    describe: true,
                    mode: PullMode::All,
                };
                self.session.pull(&run, &mut self.client).await
            }
            Way::Steps(route) if is_write(&route) => Box::pin(self.write(route, text, bound)).await,
            Way::Steps(_) => Err(ServerError::refused(
                "the rows of this query can't be inserted",
                "It does not only read.",
                "Run the query first.",
            )
            .into()),
        }
    }

    /// Each row as `(…)` of literals, with the types of the query's columns: [`literal_rows`].
    pub(super) async fn literals(
        &mut self,
        selected: &Answer,
        untyped: Option<&[bool]>,
    ) -> Result<Vec<String>, Fault> {
        if selected.rows.is_empty() {
            return Ok(Vec::new());
        }
        let types = match &selected.columns {
            Some(columns) => self.value_types(&types_of(columns)?, false).await?,
            None => Vec::new(),
        };
        literal_rows(&selected.rows, &types, untyped)
    }

    /// The names of the types of values that a statement gave as text and another one gets: see
    /// [`Self::type_names`].
    ///
    /// # Errors
    /// 0A000: the session's setting takes digits away from them.
    pub(super) async fn value_types(
        &mut self,
        types: &[(u32, i32)],
        modified: bool,
    ) -> Result<Vec<String>, Fault> {
        let names = self.type_names(types, modified).await?;
        let rounds = |(name, (oid, _)): (&String, &(u32, i32))| {
            let name = name.trim_end_matches("[]");
            *oid >= FIRST_USER_OID || ROUNDED.iter().any(|known| name.starts_with(known))
        };
        if names.iter().zip(types).any(rounds) {
            Box::pin(self.check_digits()).await?;
        }
        Ok(names)
    }

    /// The names of types, each with its modifier if that is wanted: whatever node has described
    /// them, they have the home node's ids.
    pub(super) async fn type_names(
        &mut self,
        types: &[(u32, i32)],
        modified: bool,
    ) -> Result<Vec<String>, Fault> {
        if types.is_empty() {
            return Ok(Vec::new());
        }
        let home = self.worker.engine.live_map.load().home();
        let list = types.iter().enumerate().map(|(at, (oid, modifier))| {
            format!("({at}, {oid}::oid, {})", if modified { *modifier } else { -1 })
        });
        let text = format!(
            "SELECT pg_catalog.format_type(o, m) FROM (VALUES {}) AS x (n, o, m) ORDER BY n",
            list.collect::<Vec<_>>().join(", ")
        );
        let session = async |session: &mut Self| {
            let run = session.session.run_text(home, &text, &mut session.client);
            run.await
        };
        let answer = self.capture(session).await?;
        let name = |row: &Bytes| Ok(values(row)?.into_iter().flatten().next().unwrap_or_default());
        answer.rows.iter().map(name).collect()
    }
}

/// Types whose text has as many digits as `extra_float_digits` says.
const ROUNDED: [&str; 9] =
    ["real", "double precision", "point", "line", "lseg", "box", "path", "polygon", "circle"];

/// Each row as `(…)` of literals of these types; a column that is a string without a type, by
/// `untyped`, has none here either. Without `untyped` also NULLs have types where nothing else tells
/// them.
fn literal_rows(
    frames: &[Bytes],
    types: &[String],
    untyped: Option<&[bool]>,
) -> Result<Vec<String>, Fault> {
    let is_untyped = |at: usize| untyped.and_then(|all| all.get(at)) == Some(&true);
    let mut rows = Vec::with_capacity(frames.len());
    for (number, row) in frames.iter().enumerate() {
        let value = |(index, value): (usize, Option<String>)| {
            let kind = types.get(index).filter(|_| !is_untyped(index));
            match (value, kind) {
                // VALUES that are all NULL would be texts; in INSERT they have the column's type.
                (None, Some(kind)) if number == 0 && untyped.is_none() => {
                    format!("CAST(NULL AS {kind})")
                }
                (value, kind) => {
                    let kind = kind.map_or("unknown", String::as_str).to_owned();
                    literal(&value.map(|value| (value, kind)))
                }
            }
        };
        let values: Vec<String> = values(row)?.into_iter().enumerate().map(value).collect();
        rows.push(format!("({})", values.join(", ")));
    }
    Ok(rows)
}

/// Whether [`ClientSession::write`] runs it.
pub(super) fn is_write(route: &Route) -> bool {
    matches!(
        route,
        Route::EveryNode
            | Route::Write(_)
            | Route::Keep(_)
            | Route::Insert(..)
            | Route::Evaluate(_)
            | Route::Select(_)
            | Route::Rekey(_)
            | Route::Lock(_)
            | Route::TableAs(_)
            | Route::Materialized(_)
            | Route::First(_)
            | Route::Merge(_)
    )
}

/// A `Bind` of the unnamed statement with some of the parameters, and their types. `results` may
/// replace the formats of its columns.
fn part_of(numbers: &[u16], results: Option<&[u8]>, bound: &Bound<'_, '_>) -> (BytesMut, Vec<u32>) {
    let mut frame = BytesMut::new();
    bound.bind.put_part(numbers, results, &mut frame);
    let declared = |number: &u16| {
        bound.types.get(usize::from(*number).saturating_sub(1)).copied().unwrap_or(0)
    };
    (frame, numbers.iter().map(declared).collect())
}

/// The messages that run a text whose rows are kept: described, and as text.
pub(super) fn described_as_text(
    text: &str,
    bound: Option<&Bound<'_, '_>>,
) -> Result<BytesMut, Fault> {
    let Some(bound) = bound else { return Ok(query_message(text)) };
    let (text, numbers) = renumbered(text);
    let (frame, types) = part_of(&numbers, Some(&[0, 0]), bound);
    let bind = Bind::read(body(&frame)).map_err(crate::executor::ClientError::from)?;
    Ok(Bound { types: &types, bind: &bind }.described(&text))
}

/// Whether a column takes the type of what it is inserted into.
fn is_untyped(bare: Bare, types: &[u32]) -> bool {
    match bare {
        Bare::No => false,
        Bare::String => true,
        Bare::Param(number) => {
            let at = usize::from(number).checked_sub(1);
            at.and_then(|at| types.get(at)).is_none_or(|kind| *kind == 0)
        }
    }
}

/// A query of the same columns that gives no rows.
fn without_rows(source: &str, untyped: &[bool]) -> String {
    if untyped.is_empty() {
        return format!("SELECT * FROM ({source}) AS none WHERE false");
    }
    let names: Vec<String> = (1..=untyped.len()).map(|number| format!("c{number}")).collect();
    let value = |(name, untyped): (&String, &bool)| {
        if *untyped { "NULL".to_owned() } else { format!("none.{name}") }
    };
    let values: Vec<String> = names.iter().zip(untyped).map(value).collect();
    let (values, names) = (values.join(", "), names.join(", "));
    format!("SELECT {values} FROM ({source}) AS none ({names}) WHERE false")
}

/// The types of the columns that a `RowDescription` describes.
pub(super) fn types_of(frame: &[u8]) -> Result<Vec<(u32, i32)>, Fault> {
    Ok(all_columns(frame)?.into_iter().map(|(_, oid, modifier)| (oid, modifier)).collect())
}

/// Names and types of the columns that a `RowDescription` describes.
pub(super) fn described_columns(frame: &[u8]) -> Result<Vec<(String, u32)>, Fault> {
    Ok(all_columns(frame)?.into_iter().map(|(name, oid, _)| (name, oid)).collect())
}

/// The same with the modifiers of the types.
fn all_columns(frame: &[u8]) -> Result<Vec<(String, u32, i32)>, Fault> {
    let read = || {
        let mut reader = Reader::new(body(frame));
        let count = reader.count(19)?;
        (0..count)
            .map(|_| {
                let name = String::from_utf8_lossy(reader.cstr()?).into_owned();
                reader.bytes(6)?;
                let oid = reader.u32()?;
                reader.bytes(2)?;
                let modifier = reader.i32()?;
                reader.bytes(2)?;
                Ok((name, oid, modifier))
            })
            .collect::<Result<_, crate::wire::Malformed>>()
    };
    read().map_err(|error| crate::executor::ClientError::from(error).into())
}

/// The values of a `DataRow` in text.
pub(super) fn values(frame: &[u8]) -> Result<Vec<Option<String>>, Fault> {
    let read = || {
        let mut reader = Reader::new(body(frame));
        let count = reader.count(4)?;
        (0..count)
            .map(|_| Ok(reader.value()?.map(|value| String::from_utf8_lossy(value).into_owned())))
            .collect::<Result<_, crate::wire::Malformed>>()
    };
    read().map_err(|error| crate::executor::ClientError::from(error).into())
}

fn too_many() -> ServerError {
    ServerError::new(SqlState("54000"), format!("ON CONFLICT with more than {ROWS_MAX} rows"))
        .with_hint("Insert fewer rows a statement.")
}
