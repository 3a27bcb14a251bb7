//! INSERT into sharded tables: the key of each row, and what has to be evaluated before rows can be
//! routed or copied to every node.

use std::ops::Range;
use std::sync::Arc;

use super::bind::Sharded;
use super::functions;
use super::leaf::{self, LeafSite};
use super::names::Names;
use crate::shard_map::{Column, Identity, KeyType, Table};
use crate::sql::{
    Constant, ConstantValue, Ident, Insert, InsertLayout, Query, Statement, VOLATILE, calls_in,
    clock_calls, params_of,
};
use crate::wire::ServerError;

/// Parts of a statement that are evaluated on one node before the statement goes on with their
/// values in their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// What is evaluated, in order.
    pub pieces: Vec<Piece>,
    /// The new statement: text, and the values of the pieces.
    pub segments: Vec<Segment>,
    /// All pieces are the time at which the transaction began: any node's that is in it.
    pub clock_only: bool,
}

/// An expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// As written.
    pub expression: String,
    /// How many values of it are needed, each evaluated anew.
    pub count: usize,
    /// Its parameters with their places in it.
    pub params: Vec<(u16, Range<usize>)>,
}

/// A part of the new statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Text.
    Text(String),
    /// The value with this index, over all pieces.
    Value(usize),
}

/// INSERT … VALUES, its rows for several nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsertRows {
    /// The statement, to the end.
    pub text: String,
    /// Where its parts stand.
    pub layout: InsertLayout,
    /// It has to be sent to the leaves.
    pub leaf: Option<LeafSite>,
}

/// The keys of an INSERT's rows, or what comes first.
pub(super) enum Rows {
    /// For each row: for each key column its one value.
    Keys(Vec<Vec<Vec<Constant>>>),
    /// Evaluate, and look again.
    Evaluate(Arc<Evaluation>),
}

/// The keys of the rows.
///
/// # Errors
/// Why they can't be told.
pub(super) fn keys(
    insert: &Insert,
    query: &Query,
    text: &str,
    table: &Sharded<'_>,
    types: &[KeyType],
) -> Result<Rows, ServerError> {
    let name = &table.table.name.name;
    let layout = query.layout.as_ref().filter(|layout| {
        layout.default_values || insert.rows.as_ref().is_some_and(|r| r.len() == layout.rows.len())
    });
    if let Some(layout) = layout
        && let Some(evaluation) =
            complete(insert, layout, text, table.table, Some((table.key, types)))?
    {
        return Ok(Rows::Evaluate(Arc::new(evaluation)));
    }
    // DEFAULT VALUES gives nothing to any column.
    let nothing = vec![Vec::new()];
    let none = layout.is_some_and(|layout| layout.default_values).then_some(&nothing);
    let Some(rows) = insert.rows.as_ref().or(none) else {
        return Err(ServerError::refused(
            format!("INSERT into the sharded table \"{name}\" needs VALUES here"),
            "Where the rows of its query belong is not known beforehand.",
            "List the rows in VALUES, or use COPY.",
        ));
    };
    let columns = columns(insert, table.table)?;
    if let Some(column) = layout.is_none().then(|| numbered(table.table, &columns, rows)).flatten()
    {
        let why =
            format!("its \"{column}\" takes a number of a sequence, which is on the home node");
        return Err(no_key(name, &table.key.join("\", \""), &why));
    }
    let place = |key: &String| columns.iter().position(|column| column == key);
    let positions: Vec<Option<usize>> = table.key.iter().map(place).collect();
    let mut keys = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let cells = query.layout.as_ref().and_then(|layout| layout.rows.get(index));
        let mut values = Vec::with_capacity(positions.len());
        for (position, key) in positions.iter().zip(table.key) {
            let cell =
                position.and_then(|at| cells?.cells.get(at)).and_then(|it| text.get(it.clone()));
            let left_out = position.is_none_or(|at| at >= row.len())
                || cell.is_some_and(|cell| cell.eq_ignore_ascii_case("default"));
            let value = match position.and_then(|at| row.get(at)).cloned().flatten() {
                None if left_out && has_no_default(table.table, key) => Some(NULL),
                value => value,
            };
            let why = "its value is an expression, a default or missing";
            values.push(vec![value.ok_or_else(|| no_key(name, key, why))?]);
        }
        keys.push(values);
    }
    Ok(Rows::Keys(keys))
}

/// A column that may take its default, a number of a sequence.
fn numbered<'a>(
    table: &'a Table,
    columns: &[String],
    rows: &[Vec<Option<Constant>>],
) -> Option<&'a str> {
    let takes = |column: &&Column| {
        let place = columns.iter().position(|name| *name == column.name);
        let given = |row: &Vec<Option<Constant>>| {
            place.and_then(|at| row.get(at)).is_some_and(Option::is_some)
        };
        column.default.as_deref().is_some_and(takes_number) && !rows.iter().all(given)
    };
    table.columns.iter().find(takes).map(|column| column.name.as_str())
}

/// What a column without a default gets where nothing is given.
const NULL: Constant = Constant { value: ConstantValue::Null, cast: None };

/// A domain may have one of its own.
fn has_no_default(table: &Table, name: &String) -> bool {
    let none = |it: &Column| {
        it.default.is_none() && !it.generated && it.type_oid < crate::wire::FIRST_USER_OID
    };
    table.columns.iter().any(|it| it.name == *name && none(it))
}

fn columns(insert: &Insert, table: &Table) -> Result<Vec<String>, ServerError> {
    match &insert.columns {
        Some(columns) => Ok(columns.clone()),
        None if table.columns.is_empty() => Err(ServerError::refused(
            format!("the columns of \"{}\" are not known", table.name.name),
            "The table does not exist, or was not created through the proxy.",
            "Write a column list.",
        )),
        None => Ok(table.columns.iter().map(|c| c.name.clone()).collect()),
    }
}

fn no_key(table: &str, column: &str, why: &str) -> ServerError {
    ServerError::refused(
        format!("INSERT into \"{table}\" needs the shard key \"{column}\""),
        format!("Where the row belongs can't be told, since {why}."),
        format!("Give \"{column}\" as a plain literal or parameter."),
    )
}

/// What must be evaluated before INSERT … VALUES can run: of a sharded table (with its `key`) keys
/// that are not constant and whatever takes numbers from sequences; of a reference table all that
/// could differ between nodes. `None` if there is nothing.
///
/// # Errors
/// It can't be told which values are meant.
pub(super) fn complete(
    insert: &Insert,
    layout: &InsertLayout,
    text: &str,
    table: &Table,
    key: Option<(&[String], &[KeyType])>,
) -> Result<Option<Evaluation>, ServerError> {
    // Without its columns nothing is known of defaults: the table does not exist yet, or COPY and
    // INSERT need a column list.
    let width = layout.rows.first().map_or(0, |row| row.cells.len());
    let first = || table.columns.iter().take(width).map(|c| c.name.clone()).collect();
    let names: Vec<String> = insert.columns.clone().unwrap_or_else(first);
    let completion = Completion { table, key, layout, text };
    let missing = |column: &&Column| completion.wanted(column) && !names.contains(&column.name);
    let missing: Vec<&Column> = table.columns.iter().filter(missing).collect();
    let mut build = Build::new(text, layout);
    let mut cells = Vec::with_capacity(layout.rows.len());
    for (index, row) in layout.rows.iter().enumerate() {
        let constants = insert.rows.as_ref().and_then(|rows| rows.get(index));
        let mut places = Vec::new();
        for (position, span) in row.cells.iter().enumerate() {
            let Some(name) = names.get(position) else { continue };
            let constant = constants.and_then(|row| row.get(position)?.as_ref());
            let constant = constant.is_some_and(|constant| !completion.is_unread(name, constant));
            let expression = completion.expression(name, span, constant);
            if let Some(expression) = expression {
                places.push((span.clone(), build.piece(expression, 1)));
            }
        }
        cells.push(places);
    }
    if cells.iter().all(Vec::is_empty) && missing.is_empty() {
        return Ok(None);
    }
    if names.is_empty() && !layout.default_values {
        return Err(no_key(&table.name.name, "", "the table's columns are not known"));
    }
    let rows = layout.rows.len().max(1);
    let added: Vec<usize> = missing
        .iter()
        .map(|column| build.piece(column.default.clone().unwrap_or_default(), rows))
        .collect();
    build.text(0..layout.after_table);
    let all = names.iter().chain(missing.iter().map(|column| &column.name));
    let all: Vec<String> = all.map(|name| Ident::new(name).to_string()).collect();
    build.push(format!(" ({}) ", all.join(", ")));
    let system = match &layout.overriding {
        Some(_) => true,
        // A value for such a column that the client wrote is PostgreSQL's to refuse.
        None => !given_always(&names, layout, table, text),
    };
    if system && table.columns.iter().any(|column| column.identity == Identity::Always) {
        build.push("OVERRIDING SYSTEM VALUE ".to_owned());
    }
    build.push("VALUES ".to_owned());
    build.rows(&cells, &added);
    build.tail();
    Ok(Some(build.done()))
}

/// What decides which values are evaluated.
struct Completion<'a> {
    table: &'a Table,
    key: Option<(&'a [String], &'a [KeyType])>,
    layout: &'a InsertLayout,
    text: &'a str,
}

impl Completion<'_> {
    fn is_key(&self, name: &String) -> bool {
        self.key.is_some_and(|(key, _)| key.contains(name))
    }

    /// The type of a key column.
    fn key_type(&self, name: &String) -> Option<KeyType> {
        let (key, types) = self.key?;
        types.get(key.iter().position(|column| column == name)?).copied()
    }

    /// Whether it is a date or time for the key in a form that PostgreSQL has to read.
    fn is_unread(&self, name: &String, constant: &Constant) -> bool {
        let ConstantValue::String(text) = &constant.value else { return false };
        let by_server = |kind: KeyType| !kind.reads_all() && kind.parse(text.as_bytes()).is_err();
        constant.cast.is_none() && self.key_type(name).is_some_and(by_server)
    }

    /// Whether the column's default is evaluated first.
    fn wanted(&self, column: &Column) -> bool {
        let Some(default) = &column.default else { return false };
        self.is_key(&column.name) || takes_number(default) || self.key.is_none() && varies(default)
    }

    /// What is evaluated for the value at `span`, if it is.
    fn expression(&self, name: &String, span: &Range<usize>, constant: bool) -> Option<String> {
        let column = self.table.columns.iter().find(|column| column.name == *name);
        let cell = self.text.get(span.clone()).unwrap_or_default();
        let default = |column: &Column| column.default.clone();
        if cell.eq_ignore_ascii_case("default") {
            return column.filter(|c| self.wanted(c)).and_then(default);
        }
        let user = matches!(&self.layout.overriding, Some((_, true)));
        if user && column.is_some_and(|c| c.identity != Identity::No) {
            return column.and_then(default);
        }
        let first = self.is_key(name) || takes_number(cell) || self.key.is_none() && varies(cell);
        if !first || constant {
            return None;
        }
        Some(match self.key_type(name) {
            Some(key_type) => format!("CAST({cell} AS {})", key_type.name()),
            None => cell.to_owned(),
        })
    }
}

/// The client has given a value for an identity column that takes none.
fn given_always(names: &[String], layout: &InsertLayout, table: &Table, text: &str) -> bool {
    let always = |name: &String| {
        let column = table.columns.iter().find(|column| column.name == *name);
        column.is_some_and(|column| column.identity == Identity::Always)
    };
    let given =
        |position: usize| {
            layout.rows.iter().filter_map(|row| row.cells.get(position)).any(|cell| {
                !text.get(cell.clone()).unwrap_or_default().eq_ignore_ascii_case("default")
            })
        };
    (0..names.len()).any(|position| always(&names[position]) && given(position))
}

/// Whether a default takes a number from a sequence, or must run at home for another reason.
pub fn takes_number(expression: &str) -> bool {
    calls_in(expression).iter().any(|call| functions::is_home_only(call))
}

/// Words that may stand before a parenthesis and call nothing.
const SYNTAX: [&str; 12] =
    ["and", "between", "case", "cast", "else", "in", "like", "not", "or", "row", "then", "when"];

/// Whether a default could give another value on each node.
pub fn varies(expression: &str) -> bool {
    let harmless =
        |call: &String| functions::is_pure_function(call) || SYNTAX.contains(&call.as_str());
    expression.to_ascii_lowercase().contains("select")
        || !clock_calls(expression).is_empty()
        || !calls_in(expression).iter().all(harmless)
}

/// A column other than `given` whose default could differ between nodes.
pub(super) fn varying<'a>(table: &'a Table, given: &[String]) -> Option<&'a str> {
    let varies = |column: &&Column| {
        let default = column.default.as_deref();
        default.is_some_and(varies) && !given.contains(&column.name)
    };
    table.columns.iter().find(varies).map(|column| column.name.as_str())
}

struct Build<'a> {
    source: &'a str,
    layout: &'a InsertLayout,
    evaluation: Evaluation,
    values: usize,
}

impl<'a> Build<'a> {
    fn new(source: &'a str, layout: &'a InsertLayout) -> Self {
        let evaluation = Evaluation { pieces: Vec::new(), segments: Vec::new(), clock_only: false };
        Self { source, layout, evaluation, values: 0 }
    }

    /// Adds an expression; the index of its first value.
    fn piece(&mut self, expression: String, count: usize) -> usize {
        let first = self.values;
        self.values += count;
        let params = params_of(&expression);
        self.evaluation.pieces.push(Piece { expression, count, params });
        first
    }

    fn push(&mut self, text: String) {
        match self.evaluation.segments.last_mut() {
            Some(Segment::Text(last)) => last.push_str(&text),
            _ => self.evaluation.segments.push(Segment::Text(text)),
        }
    }

    fn text(&mut self, range: Range<usize>) {
        self.push(self.source.get(range).unwrap_or_default().to_owned());
    }

    fn value(&mut self, index: usize) {
        self.evaluation.segments.push(Segment::Value(index));
    }

    fn rows(&mut self, cells: &[Vec<(Range<usize>, usize)>], added: &[usize]) {
        if self.layout.default_values {
            self.push("(".to_owned());
            self.added(added, 0, true);
            self.push(")".to_owned());
        }
        for (index, (row, cells)) in self.layout.rows.iter().zip(cells).enumerate() {
            if index > 0 {
                self.push(", ".to_owned());
            }
            let mut at = row.span.start;
            for (span, value) in cells {
                self.text(at..span.start);
                self.value(*value);
                at = span.end;
            }
            let end = row.cells.last().map_or(row.span.end - 1, |cell| cell.end);
            self.text(at..end.max(at));
            self.added(added, index, false);
            self.push(")".to_owned());
        }
    }

    fn added(&mut self, added: &[usize], row: usize, mut first: bool) {
        for value in added {
            if !std::mem::take(&mut first) {
                self.push(", ".to_owned());
            }
            self.value(value + row);
        }
    }

    /// ON CONFLICT and RETURNING: the clock in them stands still.
    fn tail(&mut self) {
        let rest = self.source.get(self.layout.source.end..).unwrap_or_default();
        self.clocked(rest);
    }

    fn clocked(&mut self, text: &str) {
        let mut at = 0;
        for call in clock_calls(text) {
            self.push(text[at..call.start].to_owned());
            let value = self.piece(text[call.clone()].to_owned(), 1);
            self.value(value);
            at = call.end;
        }
        self.push(text[at..].to_owned());
    }

    fn done(self) -> Evaluation {
        self.evaluation
    }
}

/// A statement whose calls of the clock are evaluated once; `None` if it has none.
pub(super) fn still_clock(text: &str) -> Option<Arc<Evaluation>> {
    let layout = InsertLayout {
        after_table: 0,
        columns: None,
        overriding: None,
        source: 0..0,
        rows: Vec::new(),
        default_values: false,
        conflict: false,
        params: Vec::new(),
    };
    let mut build = Build::new(text, &layout);
    build.clocked(text);
    let mut evaluation = build.done();
    evaluation.clock_only = true;
    (!evaluation.pieces.is_empty()).then(|| Arc::new(evaluation))
}

/// Whether the rows of an INSERT may be split over nodes: nothing else in it reads a sharded table.
pub(super) fn splits(
    query: &Query,
    (text, statement): (&str, &Statement),
    names: &Names<'_>,
) -> Option<Arc<InsertRows>> {
    let leaf = leaf::insert_site(query, statement, names);
    let least = if leaf.is_some() { 1 } else { 2 };
    let layout = query.layout.as_ref().filter(|layout| layout.rows.len() >= least)?;
    let other = |level: &crate::sql::Level| {
        level.target.is_none()
            && level.tables.iter().all(|table| match &table.source {
                crate::sql::Source::Table(name) => {
                    !matches!(names.meaning(name), Ok(super::names::Meaning::Sharded(..)) | Err(_))
                }
                _ => true,
            })
    };
    let plain = query.levels.iter().skip(1).all(other)
        && !query.features.cte
        && !computes_once(text.get(layout.source.end..).unwrap_or_default());
    plain.then(|| Arc::new(InsertRows { text: text.to_owned(), layout: layout.clone(), leaf }))
}

/// Whether ON CONFLICT or RETURNING has a subquery that may give one value for all rows, and another
/// one each time.
fn computes_once(tail: &str) -> bool {
    let calls = calls_in(tail);
    tail.to_ascii_lowercase().contains("select")
        && calls.iter().any(|call| VOLATILE.contains(&call.as_str()))
}

/// INSERT of a query's rows, where the query can run on its own.
pub(super) fn select(query: &Query, text: &str) -> Option<Arc<InsertRows>> {
    let layout = query.layout.as_ref()?;
    let selects = layout.rows.is_empty() && !layout.default_values;
    let reads = query.levels.iter().skip(1).all(|level| level.target.is_none());
    (selects && reads)
        .then(|| Arc::new(InsertRows { text: text.to_owned(), layout: layout.clone(), leaf: None }))
}
