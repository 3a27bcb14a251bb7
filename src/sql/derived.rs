//! Subqueries in FROM: which of their columns are plain columns of their tables, so that what is
//! demanded of the one is demanded of the other.

use sqlparser::ast::{Distinct, Query as AstQuery, Select, SelectItem, SetExpr};

use super::constants::column;
use super::statement::{ColumnRef, Condition, DerivedTable, Level, Source, Test};

/// The address of the SELECT of a subquery whose rows a filter on its columns picks one by one.
pub(super) fn address(subquery: &AstQuery) -> Option<usize> {
    let plain = subquery.limit_clause.is_none()
        && subquery.fetch.is_none()
        && subquery.with.is_none()
        && subquery.locks.is_empty();
    match &*subquery.body {
        SetExpr::Select(select) if plain => Some(address_of(select)),
        _ => None,
    }
}

fn address_of(select: &Select) -> usize {
    std::ptr::from_ref(select).addr()
}

/// `select` is about to become the next level: the table that it is learns so.
pub(super) fn link(levels: &mut [Level], select: &Select) {
    let index = levels.len();
    let address = address_of(select);
    let on = matches!(&select.distinct, Some(Distinct::On(_)));
    for level in levels {
        let pending = level.pending.iter().find(|(_, pending)| *pending == address);
        let Some((table, _)) = pending.filter(|_| !on).copied() else { continue };
        if let Some(table) = level.tables.get_mut(table) {
            let columns = outputs(select);
            table.source = Source::Derived(DerivedTable { level: index, columns });
        }
    }
}

/// The columns by name; none where not all names are known.
fn outputs(select: &Select) -> Vec<(String, Option<ColumnRef>)> {
    let output = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { expr, alias } => Some((alias.value.clone(), column(expr))),
        SelectItem::UnnamedExpr(expr) => {
            let column = column(expr)?;
            Some((column.column.clone(), Some(column)))
        }
        _ => None,
    };
    select.projection.iter().map(output).collect::<Option<_>>().unwrap_or_default()
}

impl DerivedTable {
    /// The column of its tables that its column `name` plainly is.
    pub fn origin(&self, name: &str) -> Option<&ColumnRef> {
        let mut named = self.columns.iter().filter(|(column, _)| column == name);
        let (_, origin) = named.next().filter(|_| named.next().is_none())?;
        origin.as_ref()
    }
}

/// Says of each subquery in FROM what is demanded of its columns from outside. With windows in the
/// query the rows of none are taken one by one.
pub(super) fn finish(levels: &mut [Level], windows: bool) {
    for index in 0..levels.len() {
        levels[index].pending.clear();
        for table in 0..levels[index].tables.len() {
            if !matches!(levels[index].tables[table].source, Source::Derived(_)) {
                continue;
            }
            if windows {
                levels[index].tables[table].source = Source::Other;
                continue;
            }
            let pushed = demanded(&levels[index], table);
            let Source::Derived(derived) = &levels[index].tables[table].source else { continue };
            let inner = derived.level;
            let Some(level) = levels.get_mut(inner) else { continue };
            let tables = 0..level.tables.len();
            let condition =
                |test| Condition { tables: tables.clone(), join: None, test, pushed: true };
            level.conditions.extend(pushed.into_iter().map(condition));
        }
    }
}

/// What the level demands of the columns of its subquery `table`, in terms of that one's tables.
fn demanded(level: &Level, table: usize) -> Vec<Test> {
    let this = &level.tables[table];
    let Source::Derived(derived) = &this.source else { return Vec::new() };
    let alone = level.tables.iter().filter(|other| other.alias == this.alias).count() == 1;
    if this.renamed || !alone || level.natural {
        return Vec::new();
    }
    let origin = |column: &ColumnRef| {
        let own = match &column.table {
            Some(_) => column.table == this.alias && column.schema.is_none(),
            None => level.tables.len() == 1,
        };
        derived.origin(&column.column).filter(|_| own).cloned()
    };
    let test = |condition: &Condition| match &condition.test {
        _ if !condition.tables.contains(&table) => None,
        Test::OneOf(column, constants) => Some(Test::OneOf(origin(column)?, constants.clone())),
        Test::Compares(column, operator, constant) => {
            Some(Test::Compares(origin(column)?, operator, constant.clone()))
        }
        _ => None,
    };
    level.conditions.iter().filter_map(test).collect()
}

/// Whether every level but the first is a subquery in FROM, at any depth.
pub(super) fn are_all_derived(levels: &[Level]) -> bool {
    let derived = levels.iter().flat_map(|level| &level.tables).filter_map(|table| {
        if let Source::Derived(derived) = &table.source { Some(derived.level) } else { None }
    });
    derived.count() + 1 == levels.len()
}
