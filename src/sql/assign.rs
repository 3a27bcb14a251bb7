//! What an INSERT or UPDATE gives to which columns.

use sqlparser::ast::{Assignment, AssignmentTarget, Expr, ObjectName, Query as AstQuery, SetExpr};

use super::constants::constant;
use super::statement::Constant;

/// The rows of a plain VALUES.
pub(super) fn rows(source: &AstQuery) -> Option<Vec<Vec<Option<Constant>>>> {
    let plain = source.with.is_none()
        && source.order_by.is_none()
        && source.limit_clause.is_none()
        && source.fetch.is_none();
    match &*source.body {
        SetExpr::Values(values) if plain => {
            let row = |row: &sqlparser::ast::Parens<Vec<Expr>>| {
                row.content.iter().map(constant).collect()
            };
            Some(values.rows.iter().map(row).collect())
        }
        _ => None,
    }
}

/// The columns that get values.
///
/// # Errors
/// A name that is computed.
pub(super) fn assigned(assignments: &[Assignment]) -> Result<Vec<String>, String> {
    let mut columns = Vec::new();
    for assignment in assignments {
        match &assignment.target {
            AssignmentTarget::ColumnName(name) => columns.push(first_part(name)?),
            AssignmentTarget::Tuple(names) => {
                for name in names {
                    columns.push(first_part(name)?);
                }
            }
        }
    }
    Ok(columns)
}

/// The columns that get another value than the excluded row's own.
pub(super) fn changed(assignments: &[Assignment]) -> Result<Vec<String>, String> {
    let own = |assignment: &&Assignment| match (&assignment.target, &assignment.value) {
        (AssignmentTarget::ColumnName(name), Expr::CompoundIdentifier(value)) => {
            let column = first_part(name).unwrap_or_default();
            matches!(value.as_slice(), [table, own] if table.value == "excluded" && own.value == column)
        }
        _ => false,
    };
    let others: Vec<Assignment> = assignments.iter().filter(|a| !own(a)).cloned().collect();
    assigned(&others)
}

/// The column in `column.field`.
pub(super) fn first_part(name: &ObjectName) -> Result<String, String> {
    let first = name.0.first().and_then(|part| part.as_ident());
    first.map(|ident| ident.value.clone()).ok_or_else(|| "a name that is computed".to_owned())
}
