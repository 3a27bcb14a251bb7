//! MERGE: its tree → a level whose first table is the target and whose second is the source.

use std::ops::Range;

use sqlparser::ast::{
    Expr, Merge as Ast, MergeAction, MergeClause, MergeClauseKind, MergeInsertExpr,
    MergeInsertKind, MergeUpdateKind, Query as AstQuery, SelectItem, SetExpr, TableAlias,
    TableFactor, TableWithJoins,
};

use super::assign::{assigned, first_part, rows};
use super::constants::{column, constant, demands};
use super::cursor::Cursor;
use super::from::{self, Visible};
use super::lexer::Token;
use super::statement::{ColumnRef, Condition, Constant, Join, JoinKind, Level, Target};

/// What a MERGE does.
#[derive(Debug, Clone)]
pub struct Merge {
    /// The columns that WHEN MATCHED sets.
    pub updates: Vec<String>,
    /// What WHEN NOT MATCHED inserts.
    pub inserts: Vec<MergeInsert>,
    /// Columns of the source of which each row has one of these constants.
    pub constants: Vec<(String, Vec<Constant>)>,
    /// Which table of the level is the source; `None` if it is a join without a name for its rows.
    pub source: Option<usize>,
    /// How many levels, and how many functions, come before those of ON and WHEN.
    pub source_end: (usize, usize),
    /// It has RETURNING.
    pub returning: bool,
}

/// INSERT of a WHEN NOT MATCHED.
#[derive(Debug, Clone)]
pub struct MergeInsert {
    /// The column list; `None` where it was not written.
    pub columns: Option<Vec<String>>,
    /// The values in order.
    pub values: Vec<MergeValue>,
}

/// A value that is inserted.
#[derive(Debug, Clone)]
pub enum MergeValue {
    /// A constant.
    Constant(Constant),
    /// A plain column.
    Column(ColumnRef),
    /// DEFAULT
    Default,
    /// An expression.
    Other,
}

/// Reads the tree.
///
/// # Errors
/// What in it is not understood.
pub(super) fn level(merge: &Ast, ctes: &dyn Visible) -> Result<Level, String> {
    let alone = |factor: &TableFactor| TableWithJoins { relation: factor.clone(), joins: vec![] };
    if !merge.into || !matches!(merge.table, TableFactor::Table { args: None, .. }) {
        return Err("MERGE into something that is not a table".to_owned());
    }
    let clauses = &merge.clauses;
    if clauses.iter().any(|clause| clause.clause_kind == MergeClauseKind::NotMatchedBySource) {
        return Err("WHEN NOT MATCHED BY SOURCE".to_owned());
    }
    let mut target = Merge {
        updates: Vec::new(),
        inserts: Vec::new(),
        constants: constants(&merge.source),
        source: None,
        source_end: (0, 0),
        returning: merge.output.is_some(),
    };
    for clause in clauses {
        act(&clause.action, &mut target)?;
    }
    let mut level = Level::default();
    from::read(&alone(&merge.table), &mut level, ctes)?;
    // Not a copy: subqueries are known by their addresses.
    from::factor(&merge.source, &mut level, ctes)?;
    let end = level.tables.len();
    let is_one = !matches!(merge.source, TableFactor::NestedJoin { alias: None, .. });
    target.source = is_one.then_some(end - 1);
    let kept = clauses.iter().any(keeps_source);
    let kind = if kept { JoinKind::Right } else { JoinKind::Inner };
    let join = Some(level.joins.len());
    level.joins.push(Join { kind, left: 0..1, right: 1..end });
    let mut tests = Vec::new();
    demands(&merge.on, &mut tests);
    let tables = if kept { 0..1 } else { 0..end };
    let condition = |test| Condition { tables: tables.clone(), join, test, pushed: false };
    level.conditions.extend(tests.into_iter().map(condition));
    level.target = Some(Target::Merge(target));
    Ok(level)
}

/// Whether rows of the source without a partner do something.
fn keeps_source(clause: &MergeClause) -> bool {
    let nothing = matches!(clause.action, MergeAction::DoNothing { .. });
    clause.clause_kind != MergeClauseKind::Matched && !(nothing && clause.predicate.is_none())
}

fn act(action: &MergeAction, target: &mut Merge) -> Result<(), String> {
    let odd = || Err("a clause that PostgreSQL does not have".to_owned());
    match action {
        MergeAction::Insert(insert) => target.inserts.push(inserted(insert)?),
        MergeAction::Update(update) => match &update.kind {
            _ if update.update_predicate.is_some() || update.delete_predicate.is_some() => {
                return odd();
            }
            MergeUpdateKind::Set(assignments) => target.updates.extend(assigned(assignments)?),
            MergeUpdateKind::Wildcard => return odd(),
        },
        MergeAction::Delete { .. } | MergeAction::DoNothing { .. } => {}
    }
    Ok(())
}

fn inserted(insert: &MergeInsertExpr) -> Result<MergeInsert, String> {
    let MergeInsertKind::Values(values) = &insert.kind else {
        return Err("a clause that PostgreSQL does not have".to_owned());
    };
    let ([row], None) = (values.rows.as_slice(), &insert.insert_predicate) else {
        return Err("a clause that PostgreSQL does not have".to_owned());
    };
    let columns = insert.columns.iter().map(first_part).collect::<Result<Vec<_>, _>>()?;
    let columns = (!columns.is_empty()).then_some(columns);
    Ok(MergeInsert { columns, values: row.content.iter().map(value).collect() })
}

fn value(expr: &Expr) -> MergeValue {
    let default = |ident: &sqlparser::ast::Ident| {
        ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default")
    };
    match expr {
        Expr::Identifier(ident) if default(ident) => MergeValue::Default,
        expr => match (constant(expr), column(expr)) {
            (Some(constant), _) => MergeValue::Constant(constant),
            (None, Some(column)) => MergeValue::Column(column),
            (None, None) => MergeValue::Other,
        },
    }
}

/// The columns of a subquery that are constants in each row.
fn constants(source: &TableFactor) -> Vec<(String, Vec<Constant>)> {
    let TableFactor::Derived { subquery, alias: Some(alias), .. } = source else {
        return Vec::new();
    };
    let columns = named(subquery);
    let name = |(at, (name, constants)): (usize, (Option<String>, Option<Vec<Constant>>))| {
        let written = alias_column(alias, at);
        Some((written.or(name)?, constants?))
    };
    columns.into_iter().enumerate().filter_map(name).collect()
}

fn alias_column(alias: &TableAlias, at: usize) -> Option<String> {
    alias.columns.get(at).map(|column| column.name.value.clone())
}

/// The columns of a query with their names and constants.
fn named(query: &AstQuery) -> Vec<(Option<String>, Option<Vec<Constant>>)> {
    if let Some(rows) = rows(query) {
        let width = rows.first().map_or(0, Vec::len);
        let column = |at: usize| {
            let values = rows.iter().map(|row| row.get(at).cloned().flatten());
            (Some(format!("column{}", at + 1)), values.collect())
        };
        return (0..width).map(column).collect();
    }
    let SetExpr::Select(select) = &*query.body else { return Vec::new() };
    let wildcard = |item: &SelectItem| {
        matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
    };
    if select.projection.iter().any(wildcard) {
        return Vec::new();
    }
    let item = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { expr, alias } => {
            (Some(alias.value.clone()), constant(expr).map(|constant| vec![constant]))
        }
        SelectItem::UnnamedExpr(expr) => {
            let name = column(expr).map(|column| column.column);
            (name, constant(expr).map(|constant| vec![constant]))
        }
        _ => (None, None),
    };
    select.projection.iter().map(item).collect()
}

/// Where the source stands: from behind USING up to ON.
pub(super) fn source(text: &str, tokens: &[Token]) -> Option<Range<usize>> {
    let source = source_tokens(&mut Cursor::new(text, tokens))?;
    Some(tokens.get(source.start)?.start..tokens.get(source.end.checked_sub(1)?)?.end)
}

/// Which tokens of a MERGE are a join without parentheses: the grammar reads one with them.
pub(super) fn bare_join(text: &str, tokens: &[Token]) -> Option<Range<usize>> {
    let mut cursor = Cursor::new(text, tokens);
    let source = source_tokens(&mut cursor)?;
    let mut inside = Cursor { at: source.start, ..cursor };
    while inside.at < source.end {
        if inside.word() == Some("join") {
            return Some(source);
        }
        if inside.parenthesized().is_none() {
            inside.at += 1;
        }
    }
    None
}

/// The tokens from behind USING up to the ON that is of no join. The cursor stands at MERGE.
fn source_tokens(cursor: &mut Cursor<'_>) -> Option<Range<usize>> {
    if !cursor.eat_all(&["merge", "into"]) {
        return None;
    }
    cursor.eat("only");
    cursor.name()?;
    cursor.eat_symbol("*");
    if cursor.eat("as") || cursor.word() != Some("using") {
        cursor.ident()?;
    }
    if !cursor.eat("using") {
        return None;
    }
    let start = cursor.at;
    // Joins whose condition is still to come.
    let mut open = 0_usize;
    loop {
        match cursor.word() {
            Some("on") if open == 0 => return Some(start..cursor.at),
            Some("on") => open -= 1,
            Some("using") if cursor.symbol_ahead(1, "(") => open = open.checked_sub(1)?,
            Some("join") if has_condition(cursor) => open += 1,
            _ if cursor.at_end() => return None,
            _ => {}
        }
        if !cursor.symbol_ahead(0, "(") || cursor.parenthesized().is_none() {
            cursor.at += 1;
        }
    }
}

/// Whether the JOIN here is neither CROSS nor NATURAL.
fn has_condition(cursor: &Cursor<'_>) -> bool {
    let before = (0..cursor.at).rev().map(|at| Cursor { at, ..*cursor });
    let kind =
        |word: Option<&str>| matches!(word, Some("inner" | "left" | "right" | "full" | "outer"));
    let word = before.map(|before| before.word()).find(|word| !kind(*word)).flatten();
    !matches!(word, Some("cross" | "natural"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{StatementKind, Strings, parse};

    fn of(text: &str) -> (Merge, String) {
        let statement = parse(text, Strings::Standard).statements.remove(0);
        let StatementKind::Query(query) = statement.kind else { panic!("{:?}", statement.kind) };
        let Some(Target::Merge(merge)) = query.levels[0].target.clone() else { panic!("{text}") };
        (merge, text[query.merged.unwrap()].to_owned())
    }

    #[test]
    fn the_source_is_found_with_the_constants_of_its_columns() {
        let (merge, source) =
            of("MERGE INTO a.b AS t USING (VALUES (1, x), (2, 'y')) AS s (id, v) \
            ON t.id = s.id WHEN NOT MATCHED THEN INSERT (v, id) VALUES (DEFAULT, s.id)");
        assert_eq!(source, "(VALUES (1, x), (2, 'y')) AS s (id, v)");
        let names: Vec<_> = merge.constants.iter().map(|(name, of)| (&**name, of.len())).collect();
        assert_eq!(names, [("id", 2)]);
        let [insert] = merge.inserts.as_slice() else { panic!("{merge:?}") };
        assert!(matches!(insert.values.as_slice(), [MergeValue::Default, MergeValue::Column(_)]));
    }

    #[test]
    fn a_join_is_a_source_up_to_the_on_that_is_of_no_join() {
        for source in [
            "a JOIN b ON a.x = b.x",
            "a NATURAL LEFT OUTER JOIN b CROSS JOIN c",
            "a LEFT JOIN b JOIN c USING (y) AS u ON a.x = b.x",
            "(a JOIN b USING (x))",
        ] {
            let text =
                format!("MERGE INTO t USING {source} ON t.id = a.x WHEN MATCHED THEN DELETE");
            let (merge, found) = of(&text);
            assert_eq!((merge.source, &*found), (None, source));
        }
        let (merge, _) = of("MERGE INTO t USING (a JOIN b USING (x)) AS j ON t.id = j.x \
            WHEN MATCHED THEN DELETE");
        assert_eq!(merge.source, Some(3));
    }

    #[test]
    fn what_comes_before_on_and_when_is_the_sources() {
        let (merge, _) = of("MERGE INTO t USING (SELECT f(id) AS id FROM u) s ON t.id = s.id \
            WHEN MATCHED AND g(t.a) THEN UPDATE SET a = (SELECT h(1) FROM v), b = 2 \
            WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN DO NOTHING");
        assert_eq!(merge.source_end, (2, 1));
        assert_eq!(merge.updates, ["a", "b"]);
    }
}
