//! FROM and WHERE of the grammar's tree → tables, joins and conditions of a level.

use std::ops::Range;

use sqlparser::ast::{
    Expr, JoinConstraint, JoinOperator, ObjectName, SetExpr, TableAlias, TableFactor,
    TableWithJoins,
};
use sqlparser::tokenizer::Span;

use super::constants::demands;
use super::cursor::Name;
use super::derived;
use super::statement::{Condition, Join, JoinKind, Level, Source, TableRef, Test};

/// Which WITH queries are visible where a level stands.
pub(super) trait Visible {
    /// Whether `name` is one.
    fn is_cte(&self, name: &str) -> bool;
}

/// Reads one element of FROM into `level`.
///
/// # Errors
/// What in it is not PostgreSQL, or not understood.
pub(super) fn read(
    from: &TableWithJoins,
    level: &mut Level,
    ctes: &dyn Visible,
) -> Result<Range<usize>, String> {
    let start = level.tables.len();
    factor(&from.relation, level, ctes)?;
    for join in &from.joins {
        let middle = level.tables.len();
        factor(&join.relation, level, ctes)?;
        let end = level.tables.len();
        let (kind, constraint) = kind_of(&join.join_operator)?;
        let effect = match kind {
            JoinKind::Inner => start..end,
            JoinKind::Left => middle..end,
            JoinKind::Right => start..middle,
            JoinKind::Full => start..start,
        };
        let index = level.joins.len();
        level.joins.push(Join { kind, left: start..middle, right: middle..end });
        constrain(constraint, level, index, &effect)?;
    }
    Ok(start..level.tables.len())
}

/// Reads WHERE into `level`.
pub(super) fn filter(selection: Option<&Expr>, level: &mut Level) {
    let Some(selection) = selection else { return };
    let mut tests = Vec::new();
    demands(selection, &mut tests);
    let tables = 0..level.tables.len();
    let condition = |test| Condition { tables: tables.clone(), join: None, test, pushed: false };
    level.conditions.extend(tests.into_iter().map(condition));
}

fn constrain(
    constraint: &JoinConstraint,
    level: &mut Level,
    join: usize,
    effect: &Range<usize>,
) -> Result<(), String> {
    let mut tests = Vec::new();
    match constraint {
        JoinConstraint::On(expr) => demands(expr, &mut tests),
        JoinConstraint::Using(columns) => {
            for column in columns {
                tests.push(Test::Using(parts(column)?.2));
            }
        }
        JoinConstraint::Natural => level.natural = true,
        JoinConstraint::None => {}
    }
    let condition =
        |test| Condition { tables: effect.clone(), join: Some(join), test, pushed: false };
    level.conditions.extend(tests.into_iter().map(condition));
    Ok(())
}

fn kind_of(operator: &JoinOperator) -> Result<(JoinKind, &JoinConstraint), String> {
    match operator {
        JoinOperator::Join(c) | JoinOperator::Inner(c) | JoinOperator::CrossJoin(c) => {
            Ok((JoinKind::Inner, c))
        }
        JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => Ok((JoinKind::Left, c)),
        JoinOperator::Right(c) | JoinOperator::RightOuter(c) => Ok((JoinKind::Right, c)),
        JoinOperator::FullOuter(c) => Ok((JoinKind::Full, c)),
        _ => Err("a join that PostgreSQL does not have".to_owned()),
    }
}

/// Reads one table of FROM into `level`.
///
/// # Errors
/// What in it is not PostgreSQL, or not understood.
pub(super) fn factor(
    factor: &TableFactor,
    level: &mut Level,
    ctes: &dyn Visible,
) -> Result<(), String> {
    match factor {
        TableFactor::Table { name, alias, args, with_hints, version, partitions, .. } => {
            if !with_hints.is_empty() || version.is_some() || !partitions.is_empty() {
                return Err("a table with hints, a version or partitions".to_owned());
            }
            let name = table_name(name)?;
            let source = if args.is_some() {
                Source::Rows
            } else if name.schema.is_none() && ctes.is_cte(&name.name) {
                Source::Cte(name.clone())
            } else {
                Source::Table(name.clone())
            };
            push(level, source, alias.as_ref(), Some(name.name));
        }
        TableFactor::NestedJoin { table_with_joins, alias } => {
            let inside = read(table_with_joins, level, ctes)?;
            if let Some(alias) = alias {
                for table in &mut level.tables[inside] {
                    table.renamed = true;
                    table.alias = None;
                }
                push(level, Source::Other, Some(alias), None);
            }
        }
        TableFactor::Function { name, alias, .. } => {
            let name = parts(name)?.2;
            push(level, Source::Rows, alias.as_ref(), Some(name));
        }
        TableFactor::Derived { lateral: false, subquery, alias, .. } => {
            let address = derived::address(subquery);
            level.pending.extend(address.map(|address| (level.tables.len(), address)));
            let values = matches!(&*subquery.body, SetExpr::Values(_)) && subquery.with.is_none();
            let source = if values { Source::Rows } else { Source::Other };
            push(level, source, alias.as_ref(), None);
        }
        TableFactor::UNNEST { alias, .. } => push(level, Source::Rows, alias.as_ref(), None),
        TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::JsonTable { alias, .. }
        | TableFactor::XmlTable { alias, .. } => {
            push(level, Source::Other, alias.as_ref(), None);
        }
        _ => return Err("something in FROM that PostgreSQL does not have".to_owned()),
    }
    Ok(())
}

fn push(level: &mut Level, source: Source, alias: Option<&TableAlias>, name: Option<String>) {
    let renamed = alias.is_some_and(|alias| !alias.columns.is_empty());
    let aliased = alias.is_some();
    let alias = alias.map(|alias| alias.name.value.clone()).or(name);
    level.tables.push(TableRef { source, alias, renamed, aliased });
}

/// The table's name with its place in the text.
///
/// # Errors
/// It is not a name of at most three identifiers.
pub(super) fn table_name(name: &ObjectName) -> Result<Name, String> {
    let (span, schema, name) = parts(name)?;
    Ok(Name { schema, name, span })
}

fn parts(name: &ObjectName) -> Result<(Range<usize>, Option<String>, String), String> {
    let idents: Option<Vec<_>> = name.0.iter().map(|part| part.as_ident()).collect();
    let idents = idents.filter(|idents| (1..=3).contains(&idents.len()));
    let mut idents = idents.ok_or_else(|| "a name that is computed".to_owned())?;
    let (Some(first), Some(last)) = (idents.first().copied(), idents.pop()) else {
        return Err("an empty name".to_owned());
    };
    let span = bytes(first.span).start..bytes(last.span).end;
    let schema = idents.pop().map(|schema| schema.value.clone());
    Ok((span, schema, last.value.clone()))
}

/// The bytes of a span; see `bridge`.
pub(super) fn bytes(span: Span) -> Range<usize> {
    let offset = |column: u64| usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    offset(span.start.column)..offset(span.end.column)
}
