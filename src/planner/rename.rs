//! RENAME TO and SET SCHEMA of a table of the policy: it takes the place of another one that the policy
//! names, and that does not exist yet. Both names mean a table of the policy before and after it, so
//! that no statement takes either for a home table, whenever it was routed.

use super::alter::{head, refused};
use super::ddl::{DdlPlan, Scope, Step, splice};
use super::shard_step::ShardStep;
use crate::shard_map::{Table, TableKind};
use crate::sql::{AlterAction, AlterTable, TableName};
use crate::wire::ServerError;

/// Plans it, if ALTER TABLE does that.
///
/// # Errors
/// The policy does not name the new table, or not as one of the same kind; a lookup knows the old one.
pub(super) fn table(
    alter: &AlterTable,
    table: &Table,
    scope: &Scope<'_>,
) -> Option<Result<DdlPlan, ServerError>> {
    let old = &table.name;
    let new = match alter.actions.as_slice() {
        [AlterAction::Rename(name)] => TableName::new(old.schema.as_str(), name.as_str()),
        [AlterAction::SetSchema(schema)] => TableName::new(schema.as_str(), old.name.as_str()),
        _ => return None,
    };
    Some(checked(alter, table, &new, scope).map(|()| plan(alter, table, new, scope)))
}

fn checked(
    alter: &AlterTable,
    table: &Table,
    new: &TableName,
    scope: &Scope<'_>,
) -> Result<(), ServerError> {
    let what = if new.schema == table.name.schema { "a new name" } else { "a new schema" };
    let known = scope.map.table(new);
    if known.is_none_or(|known| known.kind != table.kind) {
        let place = match &table.kind {
            TableKind::Reference => "as a reference table".to_owned(),
            TableKind::Sharded { group, key } => {
                let group = &scope.map.groups()[group.index()].name;
                format!("in group {group} with the key ({})", key.join(", "))
            }
        };
        let hint = format!(
            "Declare {new} in the policy {place}, beside {}, and reload it; then it can take that name. \
             Afterwards the old name can go from the policy.",
            table.name
        );
        return Err(refused(alter, what, &hint));
    }
    let looked_up = scope.map.declared().lookups.iter().find(|lookup| {
        [&lookup.table, &lookup.name].iter().any(|it| [&table.name, new].contains(it))
    });
    match looked_up {
        None => Ok(()),
        Some(lookup) => {
            let hint = format!("The lookup {} goes by its name: keep that.", lookup.name);
            Err(refused(alter, what, &hint))
        }
    }
}

fn plan(alter: &AlterTable, table: &Table, new: TableName, scope: &Scope<'_>) -> DdlPlan {
    let mut steps = vec![Step::Nodes(splice(scope.text, &head(alter, &table.name)))];
    if let TableKind::Sharded { group, .. } = &table.kind {
        let step = ShardStep::Rename { table: table.name.clone(), new: new.clone() };
        steps.push(Step::Shards { group: *group, step });
    }
    let mut tables = vec![table.name.clone(), new];
    // Sequences that give numbers to other tables go with it to another schema.
    let numbered = |other: &&Table| other.columns.iter().any(|it| it.default.is_some());
    tables.extend(scope.map.tables().iter().filter(numbered).map(|other| other.name.clone()));
    DdlPlan::new(tables, steps)
}
