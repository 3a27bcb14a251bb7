//! What the router needs to know of a statement: our small types, not the parser's tree.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{
    ConflictLayout, Control, CopyStatement, DdlStatement, DeclareCursor, InsertLayout, Merge, Name,
    PlanForm, Shape, UpdateLayout, UseCursor,
};

/// A text, read.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// Its statements in order; empty ones (`;;`) are left out.
    pub statements: Vec<Statement>,
}

/// One statement.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Its bytes in the text, without the semicolon.
    pub span: Range<usize>,
    /// What it is.
    pub kind: StatementKind,
    /// Of CALL: the call as the query that it would be as a function's.
    pub call: Option<Box<Query>>,
    /// Each identifier in it, folded and cut, also those inside of dollar-quoted strings, and of
    /// all strings where code is made from strings. Without doubles.
    pub identifiers: Vec<String>,
    /// How often each parameter stands in it, by number from 1.
    pub param_uses: Vec<u16>,
}

/// What a statement is.
#[derive(Debug, Clone)]
pub enum StatementKind {
    /// About the session or its transaction.
    Control(Control),
    /// SELECT, VALUES, TABLE, INSERT, UPDATE, DELETE, MERGE.
    Query(Box<Query>),
    /// EXPLAIN of a query.
    Explain {
        /// With ANALYZE: the query really runs.
        analyze: bool,
        /// The form of the plan.
        form: PlanForm,
        /// Where the query starts in the text.
        start: usize,
        /// The query.
        query: Box<Query>,
    },
    /// DECLARE of a cursor.
    Declare(DeclareCursor),
    /// FETCH, MOVE, CLOSE.
    UseCursor(UseCursor),
    /// COPY.
    Copy(CopyStatement),
    /// A definition that the planner can spread over nodes.
    Ddl(DdlStatement),
    /// Everything else: known by its first words only.
    Other {
        /// The first word, folded.
        verb: String,
        /// Why it was not read as one of the others.
        fault: Option<String>,
    },
}

/// What the outermost statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// SELECT, VALUES, TABLE
    Select,
    /// INSERT
    Insert,
    /// UPDATE
    Update,
    /// DELETE
    Delete,
    /// MERGE
    Merge,
}

/// A query, flattened: its query levels, and what else bears on its route.
#[derive(Debug, Clone)]
pub struct Query {
    /// What the outermost statement does.
    pub verb: Verb,
    /// Every SELECT, INSERT, UPDATE, DELETE and MERGE at any depth; a parent before its children.
    pub levels: Vec<Level>,
    /// What it holds besides.
    pub features: Features,
    /// Each function that it calls.
    pub functions: Vec<Call>,
    /// The places of an INSERT's parts, where it is the outermost.
    pub layout: Option<InsertLayout>,
    /// The places of an UPDATE's parts, likewise.
    pub update: Option<Box<UpdateLayout>>,
    /// The places of what stands behind an INSERT's rows, where that is ON CONFLICT of a plain form.
    pub conflict: Option<Box<ConflictLayout>>,
    /// Where the source of a MERGE stands, likewise.
    pub merged: Option<Range<usize>>,
    /// How it uses columns.
    pub columns: ColumnUse,
    /// Its clauses, if it is a single SELECT.
    pub shape: Option<Box<Shape>>,
}

/// How a query uses columns, for what of its tables has to be read.
#[derive(Debug, Clone, Default)]
pub struct ColumnUse {
    /// `*` stands for columns somewhere, or whole rows are used.
    pub all: bool,
    /// Columns with a schema before their table.
    pub qualifiers: Vec<Qualifier>,
    /// Whole rows are used.
    pub rows: bool,
    /// What stands as a column without a table before it, or behind one: may be a whole row.
    pub(super) names: BTreeSet<String>,
    /// Each place of a column.
    pub(super) places: Vec<(Range<usize>, ColumnRef)>,
    /// The aliases of the outermost select list, with their places.
    pub(super) aliases: Vec<Option<(String, Range<usize>)>>,
}

/// `schema.table.` before a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qualifier {
    /// The schema, as stored.
    pub schema: String,
    /// The table, as stored.
    pub table: String,
    /// The bytes of everything before the table.
    pub before: Range<usize>,
}

/// Clauses that make a query more than a filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent marks")]
pub struct Features {
    /// `WITH`
    pub cte: bool,
    /// UNION, INTERSECT, EXCEPT
    pub set_operation: bool,
    /// GROUP BY or HAVING
    pub group: bool,
    /// `DISTINCT`
    pub distinct: bool,
    /// `OVER (…)` or WINDOW
    pub window: bool,
    /// ORDER BY
    pub order: bool,
    /// LIMIT, OFFSET or FETCH
    pub limit: bool,
    /// FOR UPDATE and its kin
    pub locking: bool,
    /// TABLESAMPLE
    pub sample: bool,
    /// SELECT … INTO
    pub into: bool,
    /// SELECT … INTO TEMP
    pub into_temp: bool,
    /// `ONLY`
    pub only: bool,
    /// A string that a date would take for the present (`'now'`).
    pub clock_word: bool,
}

/// A function call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The function, as stored.
    pub name: String,
    /// The schema, if written.
    pub schema: Option<String>,
    /// Its arguments where they are plain constants.
    pub arguments: Vec<Option<Constant>>,
}

/// One SELECT, INSERT, UPDATE, DELETE or MERGE.
#[derive(Debug, Clone, Default)]
pub struct Level {
    /// The level around it.
    pub parent: Option<usize>,
    /// What stands in FROM, USING, or as the target (then first).
    pub tables: Vec<TableRef>,
    /// What WHERE and ON demand in AND position.
    pub conditions: Vec<Condition>,
    /// The joins, inner ones first to last, for what may be scattered.
    pub joins: Vec<Join>,
    /// NATURAL JOIN is used: which columns it equates is not known here.
    pub natural: bool,
    /// What it does to its first table.
    pub target: Option<Target>,
    /// It groups its rows, or drops doubles.
    pub groups: bool,
    /// The functions that are called in it, at any depth, as indices of [`Query::functions`].
    pub calls: Range<usize>,
    /// Its subqueries in FROM that are not read yet: the table, and the address of the SELECT.
    pub(super) pending: Vec<(usize, usize)>,
}

/// A table in FROM, or anything else that has columns there.
#[derive(Debug, Clone)]
pub struct TableRef {
    /// What it is.
    pub source: Source,
    /// The name by which columns refer to it: the alias, else the table's own.
    pub alias: Option<String>,
    /// Its columns have other names than the table's (`t AS a(x, y)`), or are hidden by an alias
    /// around it.
    pub renamed: bool,
    /// The alias was written.
    pub aliased: bool,
}

/// What a [`TableRef`] reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A table or view.
    Table(Name),
    /// A query of WITH.
    Cte(Name),
    /// A subquery whose rows depend on those of its tables one by one, or group by group.
    Derived(DerivedTable),
    /// A function or VALUES: it reads no table but by subqueries inside.
    Rows,
    /// Another subquery, or a join with an alias.
    Other,
}

/// A subquery in FROM without LIMIT, windows and the like: which of its rows pass a filter on a
/// plain column depends only on the rows of its tables that pass it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerivedTable {
    /// Its level.
    pub level: usize,
    /// The names of its columns, where all are known; those that are plain columns of its tables
    /// with these.
    pub columns: Vec<(String, Option<ColumnRef>)>,
}

impl Level {
    /// Whether a join may give rows that have NULLs for the table's columns.
    pub fn is_optional(&self, table: usize) -> bool {
        self.joins.iter().any(|join| match join.kind {
            JoinKind::Inner => false,
            JoinKind::Left => join.right.contains(&table),
            JoinKind::Right => join.left.contains(&table),
            JoinKind::Full => join.left.contains(&table) || join.right.contains(&table),
        })
    }
}

/// A join that is not inner, or whose condition is ON/USING.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// How rows without a partner are kept.
    pub kind: JoinKind,
    /// The level's tables on its left.
    pub left: Range<usize>,
    /// The level's tables on its right.
    pub right: Range<usize>,
}

/// How rows without a partner are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// Not.
    Inner,
    /// The left ones.
    Left,
    /// The right ones.
    Right,
    /// All.
    Full,
}

/// A demand in AND position.
#[derive(Debug, Clone)]
pub struct Condition {
    /// The level's tables whose rows it filters.
    pub tables: Range<usize>,
    /// The index in [`Level::joins`] of the join that it is the condition of; `None` for WHERE.
    pub join: Option<usize>,
    /// What it demands.
    pub test: Test,
    /// It was written around the subquery that this level is.
    pub pushed: bool,
}

/// What a [`Condition`] demands.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// The column equals one of the constants.
    OneOf(ColumnRef, Vec<Constant>),
    /// The column compares so with the constant; the operator as it is to be written.
    Compares(ColumnRef, &'static str, Constant),
    /// The column is NULL, or is not.
    IsNull(ColumnRef, bool),
    /// The columns are equal.
    Same(ColumnRef, ColumnRef),
    /// The columns of this name on both sides of the join are equal.
    Using(String),
}

/// A column as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnRef {
    /// The schema before the table.
    pub schema: Option<String>,
    /// The table or alias.
    pub table: Option<String>,
    /// The column, as stored.
    pub column: String,
}

/// A constant, perhaps in a cast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constant {
    /// The value as written.
    pub value: ConstantValue,
    /// The type that it is cast to, lower case and without modifiers.
    pub cast: Option<String>,
}

/// A constant's value as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConstantValue {
    /// NULL
    Null,
    /// A string, its quotes and escapes undone.
    String(String),
    /// Digits, with a `-` before them if negative.
    Integer(String),
    /// A number with a point or an exponent, with a `-` before it if negative.
    Decimal(String),
    /// TRUE or FALSE
    Bool(bool),
    /// A parameter, from 1.
    Param(u16),
    /// Not written: a column of the keys that a lookup, by its number in the statement, gives.
    LookedUp {
        /// Which lookup.
        lookup: usize,
        /// Which column of the key.
        column: usize,
    },
}

/// What a level does to its first table.
#[derive(Debug, Clone)]
pub enum Target {
    /// INSERT
    Insert(Insert),
    /// UPDATE, with the columns that it sets.
    Update {
        /// As stored.
        columns: Vec<String>,
    },
    /// DELETE
    Delete,
    /// MERGE
    Merge(Merge),
}

/// What is inserted.
#[derive(Debug, Clone)]
pub struct Insert {
    /// The column list; `None` where it was not written.
    pub columns: Option<Vec<String>>,
    /// The rows of VALUES; `None` for DEFAULT VALUES or a query. A value that is not a constant is
    /// `None`.
    pub rows: Option<Vec<Vec<Option<Constant>>>>,
    /// The columns that ON CONFLICT DO UPDATE sets.
    pub updates: Vec<String>,
}
