//! SELECTs that a merge session in PostgreSQL runs, on the rows that the nodes send it: what is
//! right whatever the query does with its tables.
//!
//! A table is read as little as is plainly safe: the columns whose names stand anywhere in the
//! statement, and the rows that pass the plain tests of its own level.

use std::ops::Range;
use std::sync::Arc;

use super::names::{Meaning, Names};
use super::pull_keys::{self, PullKeys};
use super::{Expanded, functions, trust};
use crate::ids::GroupId;
use crate::shard_map::Table;
use crate::sql::{
    Call, JoinKind, Level, Name, Query, REDUCIBLE, Shape, Source, Statement, TableRef, Test, Verb,
};
use crate::wire::ServerError;

/// A SELECT for a merge session.
#[derive(Debug, Clone)]
pub struct Pull {
    /// What it reads.
    pub tables: Vec<PullTable>,
    /// The groups of its sharded tables, without doubles.
    pub groups: Vec<GroupId>,
    /// GROUP BY is used: a column may depend on a primary key.
    pub groups_rows: bool,
    /// What the nodes can do of it.
    pub reduction: Option<Reduction>,
    /// Functions of which the router does not know what they do, by schema and name.
    pub unknown_functions: Vec<(Option<String>, String)>,
    /// Bytes that are left out: schemas before tables that have an alias now.
    pub left_out: Vec<Range<usize>>,
    /// The statement with the queries of its views, if it has any: all places are those in this.
    pub expanded: Option<Arc<Expanded>>,
}

/// A SELECT whose FROM and WHERE each node can do with its own rows.
#[derive(Debug, Clone)]
pub struct Reduction {
    /// Its clauses.
    pub shape: Shape,
    /// The group whose shards it reads.
    pub group: GroupId,
    /// How many tables it reads.
    pub tables: usize,
    /// The names of all their columns, sorted.
    pub columns: Vec<String>,
}

/// One place in FROM.
#[derive(Debug, Clone)]
pub struct PullTable {
    /// Where its name stands.
    pub span: Range<usize>,
    /// The alias to write behind it, where the statement has none.
    pub alias: Option<String>,
    /// What it is.
    pub kind: PullKind,
    /// The columns that are needed, and whether their types are the same on every node; `None` for
    /// all of an unknown table.
    pub columns: Option<Vec<PullColumn>>,
    /// What its rows have to pass.
    pub tests: Vec<Test>,
    /// How often each parameter stands in the statement.
    pub param_uses: Vec<u16>,
    /// Only its rows with the values of another count.
    pub keys: Option<PullKeys>,
}

/// A column to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullColumn {
    /// As stored.
    pub name: String,
    /// `pg_type.oid`
    pub type_oid: u32,
}

/// What a table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullKind {
    /// Its rows are on the nodes of a group.
    Sharded(GroupId, crate::sql::TableName),
    /// On every node, or on the home node.
    Whole,
    /// The system catalog: read where it stands.
    Catalog,
}

/// Columns whose values tell where a row is stored.
const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"];

/// A pull of `query`, whose names mean `meanings`.
///
/// # Errors
/// Why it can't be done in this way either.
pub(super) fn plan(
    query: &Query,
    statement: &Statement,
    names: &Names<'_>,
    meanings: &[Vec<Option<Meaning<'_>>>],
) -> Result<Pull, ServerError> {
    if let Some(why) = impossible(query, statement) {
        return Err(ServerError::refused(
            "this statement can't be spread over nodes",
            format!("It needs rows of several nodes, and {why}."),
            "Bind the shard key to constants, so that one node is enough.",
        ));
    }
    let mut pull = Pull {
        tables: Vec::new(),
        groups: Vec::new(),
        groups_rows: query.features.group,
        reduction: None,
        unknown_functions: Vec::new(),
        left_out: Vec::new(),
        expanded: None,
    };
    let mut places = Vec::new();
    for (at, (level, meanings)) in query.levels.iter().zip(meanings).enumerate() {
        for (index, (table, meaning)) in level.tables.iter().zip(meanings).enumerate() {
            let (Source::Table(name), Some(meaning)) = (&table.source, meaning) else { continue };
            let place = Place { query, statement, level, index, meanings };
            pull.tables.push(place.table(table, name, meaning));
            places.push((at, index));
            if let Meaning::Sharded(_, group, _) = meaning
                && !pull.groups.contains(group)
            {
                pull.groups.push(*group);
            }
            let same = |q: &&crate::sql::Qualifier| {
                !table.aliased
                    && q.table == name.name
                    && name.schema.as_ref().is_none_or(|schema| *schema == q.schema)
            };
            let left_out = query.columns.qualifiers.iter().filter(same);
            pull.left_out.extend(left_out.map(|q| q.before.clone()));
        }
    }
    pull_keys::link((query, statement), meanings, &places, &mut pull.tables);
    pull.left_out.sort_by_key(|span| span.start);
    pull.left_out.dedup();
    let unknown = query.functions.iter().filter(|call| !functions::reads_only(call));
    pull.unknown_functions =
        unknown.map(|call| (trust::schema(call).cloned(), call.name.clone())).collect();
    pull.unknown_functions.sort();
    pull.unknown_functions.dedup();
    debug_assert!(names.active());
    Ok(pull)
}

/// What the nodes can do of `query`, whose tables are joined where they are.
pub(super) fn reduction(
    query: &Query,
    meanings: &[Vec<Option<Meaning<'_>>>],
    group: GroupId,
) -> Option<Reduction> {
    let shape = query.shape.as_deref().filter(|it| it.lock.is_some() == query.features.locking)?;
    // Only a subquery has an order: PostgreSQL gives its rows in that, and LIMIT the first of them.
    if query.features.order && shape.order.is_empty() && !shape.grouped {
        return None;
    }
    let known = |call: &Call| {
        functions::is_pure(call)
            || call.schema.is_none() && REDUCIBLE.binary_search(&call.name.as_str()).is_ok()
    };
    let whole = query.columns.rows || query.features.clock_word || query.features.only;
    if whole || !query.columns.qualifiers.is_empty() || !query.functions.iter().all(known) {
        return None;
    }
    // Rows that are locked come as they are: nothing is made of their columns.
    let locks = query.features.locking;
    let mut columns = Vec::new();
    let (first, inner) = (query.levels.first()?, meanings.iter().skip(1).flatten());
    for (table, meaning) in first.tables.iter().zip(meanings.first()?) {
        let before = columns.len();
        match (meaning, &table.source) {
            (Some(Meaning::Sharded(table, ..) | Meaning::Reference(table)), _) => {
                columns.extend(table.columns.iter().map(|column| column.name.clone()));
            }
            (None, Source::Derived(derived)) => {
                columns.extend(derived.columns.iter().map(|(name, _)| name.clone()));
            }
            _ if locks => continue,
            _ => return None,
        }
        if columns.len() == before && !locks {
            return None;
        }
    }
    let at_home = |meaning: &Option<Meaning<'_>>| matches!(meaning, Some(Meaning::Home));
    if first.tables.iter().any(|table| table.renamed && !locks) || { inner }.any(at_home) {
        return None;
    }
    columns.sort();
    columns.dedup();
    Some(Reduction { shape: shape.clone(), group, tables: first.tables.len(), columns })
}

/// A SELECT that locks rows in an order: only its reduction is used.
pub(super) fn locked(reduction: Reduction) -> Pull {
    Pull {
        tables: Vec::new(),
        groups: vec![reduction.group],
        groups_rows: false,
        reduction: Some(reduction),
        unknown_functions: Vec::new(),
        left_out: Vec::new(),
        expanded: None,
    }
}

/// What a merge session can't do.
fn impossible(query: &Query, statement: &Statement) -> Option<String> {
    let features = &query.features;
    if query.verb != Verb::Select || query.levels.iter().any(|level| level.target.is_some()) {
        return Some("writes are not spread over nodes in this form".to_owned());
    }
    if features.locking {
        return Some("rows are locked on their own nodes only".to_owned());
    }
    if features.sample && statement.has("repeatable") {
        return Some("the rows that a sample takes again are those of one node".to_owned());
    }
    if features.into {
        return Some("the new table would be on one node only".to_owned());
    }
    if query.functions.iter().any(|call| call.name == "pg_column_size") {
        let why = "pg_column_size() tells how a value is stored, which is lost where rows meet";
        return Some(why.to_owned());
    }
    if let Some(call) = query.functions.iter().find(|call| reads_elsewhere(call)) {
        return Some(format!("{}() reads tables on its own", call.name));
    }
    let column = SYSTEM_COLUMNS.iter().find(|column| statement.has(column))?;
    Some(format!("{column} has another meaning on each node"))
}

/// Built-in functions that read tables by their names.
fn reads_elsewhere(call: &Call) -> bool {
    call.name.contains("_to_xml") || call.name.starts_with("pg_") && call.name.ends_with("_size")
}

/// A table of a level.
pub(super) struct Place<'a> {
    pub(super) query: &'a Query,
    pub(super) statement: &'a Statement,
    pub(super) level: &'a Level,
    pub(super) index: usize,
    /// Of the level's tables, as far as they are known.
    pub(super) meanings: &'a [Option<Meaning<'a>>],
}

impl Place<'_> {
    pub(super) fn table(&self, table: &TableRef, name: &Name, meaning: &Meaning<'_>) -> PullTable {
        let known = match meaning {
            Meaning::Sharded(known, ..) | Meaning::Reference(known) => Some(*known),
            Meaning::View(_) | Meaning::Home => None,
        };
        let known = known.filter(|table| !table.columns.is_empty());
        let kind = match meaning {
            Meaning::Sharded(table, group, _) => PullKind::Sharded(*group, table.name.clone()),
            Meaning::Home if is_catalog(name) => PullKind::Catalog,
            Meaning::Reference(_) | Meaning::View(_) | Meaning::Home => PullKind::Whole,
        };
        PullTable {
            span: name.span.clone(),
            alias: (!table.aliased).then(|| name.name.clone()),
            kind,
            columns: known.map(|known| self.columns(table, known)),
            tests: known.map(|known| self.tests(table, known)).unwrap_or_default(),
            param_uses: self.statement.param_uses.clone(),
            keys: None,
        }
    }

    fn columns(&self, table: &TableRef, known: &Table) -> Vec<PullColumn> {
        let equated = self.equated();
        let all = self.query.columns.all || table.renamed || equated.is_none();
        let is_equated = |name: &String| equated.iter().flatten().any(|it| it == &name);
        let needed = known.columns.iter();
        let needed = needed.filter(|c| all || self.statement.has(&c.name) || is_equated(&c.name));
        let column = |c: &crate::shard_map::Column| PullColumn {
            name: c.name.clone(),
            type_oid: c.type_oid,
        };
        needed.map(column).collect()
    }

    /// The columns that a NATURAL JOIN may equate with one of this table; `None` if they are not known.
    fn equated(&self) -> Option<Vec<&String>> {
        if !self.level.natural {
            return Some(Vec::new());
        }
        let mut equated = Vec::new();
        for (index, other) in self.level.tables.iter().enumerate() {
            match self.meanings.get(index)? {
                _ if index == self.index => {}
                Some(Meaning::Sharded(known, ..) | Meaning::Reference(known))
                    if !other.renamed && !known.columns.is_empty() =>
                {
                    equated.extend(known.columns.iter().map(|column| &column.name));
                }
                _ => return None,
            }
        }
        Some(equated)
    }

    /// The tests of the level that every row of the table that counts must pass.
    fn tests(&self, table: &TableRef, known: &Table) -> Vec<Test> {
        if table.renamed || self.level.natural || self.query.features.clock_word {
            return Vec::new();
        }
        let inner = self.level.joins.iter().all(|join| join.kind == JoinKind::Inner);
        let own = |test: &Test| match test {
            // A row that an outer join makes for want of a partner passes it, too.
            Test::IsNull(_, true) if !inner => false,
            Test::OneOf(column, _) | Test::Compares(column, ..) | Test::IsNull(column, _) => {
                self.is_own(column, table, known)
            }
            Test::Same(..) | Test::Using(_) => false,
        };
        let conditions = self.level.conditions.iter();
        let here = conditions.filter(|condition| condition.tables.contains(&self.index));
        here.map(|condition| &condition.test).filter(|test| own(test)).cloned().collect()
    }

    /// Whether `column` is one of this table, and not one that USING made of two.
    pub(super) fn is_own(
        &self,
        column: &crate::sql::ColumnRef,
        table: &TableRef,
        known: &Table,
    ) -> bool {
        if !known.columns.iter().any(|c| c.name == column.column) {
            return false;
        }
        if column.table.is_some() {
            let same = |other: &&TableRef| other.alias == column.table;
            return table.alias == column.table
                && self.level.tables.iter().filter(same).count() == 1;
        }
        let merged = |condition: &crate::sql::Condition| match &condition.test {
            Test::Using(name) => *name == column.column,
            _ => false,
        };
        !self.level.conditions.iter().any(merged)
    }
}

/// Whether a home name is the system catalog's.
fn is_catalog(name: &Name) -> bool {
    match name.schema.as_deref() {
        Some("pg_catalog" | "information_schema") => true,
        Some(_) => false,
        None => name.name.starts_with("pg_"),
    }
}
