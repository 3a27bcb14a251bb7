//! ALTER TABLE of a table of the policy: the same on every node, or from leaf to leaf.

use std::ops::Range;

use super::create::{check_column, check_constraint, foreign_key, whole_target};
use super::ddl::{DdlPlan, OnLeaves, Scope, ShardedTable, Step, splice};
use super::rename;
use super::shard_step::ShardStep;
use crate::shard_map::Table;
use crate::sql::{AlterAction, AlterTable, ColumnDefinition, ConstraintKind, TableName};
use crate::wire::{ServerError, SqlState};

/// Plans ALTER TABLE.
///
/// # Errors
/// What would change the key, the partitions, or one node's copy only.
pub(super) fn table(alter: &AlterTable, scope: &Scope<'_>) -> Result<DdlPlan, ServerError> {
    let Some(table) = scope.table(&alter.name) else {
        return Err(ServerError::new(SqlState::INTERNAL_ERROR, "not a table of the policy"));
    };
    let key = scope.sharded(&alter.name);
    if let Some(plan) = rename::table(alter, table, scope) {
        return plan;
    }
    if let ([AlterAction::AddColumn(column)], Some(key)) = (alter.actions.as_slice(), &key)
        && column.constraints.iter().any(|it| matches!(it.kind, ConstraintKind::Foreign(_)))
    {
        return referencing(column, alter, key, scope);
    }
    let mut steps = Vec::new();
    for action in &alter.actions {
        steps.extend(check(action, alter, key.as_ref(), scope)?);
    }
    let of_leaves = match identity(alter)? {
        Some(identity) => Some(identity),
        None => owner(alter, key.is_some())?.then(|| scope.slice(&alter.all)),
    };
    if let (Some(key), Some(rest)) = (&key, of_leaves) {
        let nodes = Step::Nodes(splice(scope.text, &head(alter, &table.name)));
        let step = ShardStep::Alter { table: table.name.clone(), rest: rest.to_owned() };
        steps = vec![nodes, Step::Shards { group: key.group, step }];
    } else if steps.is_empty() {
        steps.push(Step::Nodes(splice(scope.text, &head(alter, &table.name))));
        let numbered = alter.actions.iter().filter_map(|action| numbers(action, table));
        steps.extend(numbered);
    } else if alter.actions.len() > 1 {
        let hint = "Add the foreign key in a statement of its own.";
        return Err(refused(alter, "a foreign key among other actions", hint));
    }
    let on_leaves = key.and_then(|key| on_leaves(alter, &key, scope));
    Ok(DdlPlan { on_leaves, ..DdlPlan::new(vec![table.name.clone()], steps) })
}

/// OWNER TO, which does not reach partitions: each leaf gets it, or nobody but the first owner could change
/// the table any more.
///
/// # Errors
/// It stands among other actions on a sharded table.
fn owner(alter: &AlterTable, sharded: bool) -> Result<bool, ServerError> {
    let is_owner =
        |action: &AlterAction| matches!(action, AlterAction::Other(words) if words == "OWNER TO");
    if !sharded || !alter.actions.iter().any(is_owner) {
        return Ok(false);
    }
    if alter.actions.len() > 1 {
        let hint = "Change the owner in a statement of its own.";
        return Err(refused(alter, "OWNER TO among other actions", hint));
    }
    Ok(true)
}

/// REPLICA IDENTITY, which a partition has of its own: what each leaf gets. Moves keep it as it is.
///
/// # Errors
/// Rows could not be told apart in a move.
fn identity(alter: &AlterTable) -> Result<Option<&'static str>, ServerError> {
    let [AlterAction::ReplicaIdentity(identity)] = alter.actions.as_slice() else {
        return Ok(None);
    };
    match identity.as_str() {
        "full" => Ok(Some("REPLICA IDENTITY FULL")),
        "default" => Ok(Some("REPLICA IDENTITY DEFAULT")),
        _ => {
            let hint = "Use REPLICA IDENTITY FULL, or DEFAULT: a shard moves by its primary key, or by whole rows.";
            Err(refused(alter, "this REPLICA IDENTITY", hint))
        }
    }
}

/// The sequence of a column that becomes an identity column.
fn numbers(action: &AlterAction, table: &Table) -> Option<Step> {
    let AlterAction::ColumnIdentity(name) = action else { return None };
    let column = table.columns.iter().find(|column| column.name == *name)?;
    let limit = match column.type_oid {
        SMALLINT_OID => i64::from(i16::MAX),
        INTEGER_OID => i64::from(i32::MAX),
        _ => i64::MAX,
    };
    Some(Step::Sequence { table: table.name.clone(), column: name.clone(), limit })
}

/// `pg_type.oid` of smallint and of integer.
const SMALLINT_OID: u32 = 21;
const INTEGER_OID: u32 = 23;

/// What changes up to the actions: to the application it is a plain table, of which ONLY says
/// nothing.
pub(super) fn head(alter: &AlterTable, name: &TableName) -> Vec<(Range<usize>, String)> {
    let mut edits = vec![(alter.name.span.clone(), name.to_string())];
    edits.extend(alter.only.clone().map(|only| (only, String::new())));
    edits.sort_by_key(|(range, _)| range.start);
    edits
}

/// ADD COLUMN … REFERENCES: the column on the table, the foreign key on its leaves.
fn referencing(
    column: &ColumnDefinition,
    alter: &AlterTable,
    key: &ShardedTable<'_>,
    scope: &Scope<'_>,
) -> Result<DdlPlan, ServerError> {
    check_column(column, false)?;
    let before = scope.slice(&(alter.all.start..column.span.start)).to_ascii_lowercase();
    if before.contains("exists") {
        let hint = "Leave IF NOT EXISTS out, or add the foreign key in a statement of its own.";
        return Err(refused(alter, "ADD COLUMN IF NOT EXISTS … REFERENCES", hint));
    }
    let mut edits = head(alter, &key.table.name);
    let mut foreign_keys = Vec::new();
    for constraint in &column.constraints {
        check_constraint(&constraint.kind, Some(&column.name), Some(key))?;
        if let ConstraintKind::Foreign(foreign) = &constraint.kind {
            let mut foreign = foreign.clone();
            foreign.columns = vec![column.name.clone()];
            foreign_keys.push(foreign_key(&foreign, constraint.name.as_ref(), key, scope)?);
            edits.push((constraint.span.clone(), String::new()));
        }
    }
    let mut steps = vec![Step::Nodes(splice(scope.text, &edits))];
    steps.extend(foreign_keys);
    Ok(DdlPlan::new(vec![key.table.name.clone()], steps))
}

/// Foreign keys of a sharded table are on its leaves: so is what changes one of them.
fn on_leaves(alter: &AlterTable, key: &ShardedTable<'_>, scope: &Scope<'_>) -> Option<OnLeaves> {
    let named = |action: &AlterAction| match action {
        AlterAction::OtherConstraint(name) => Some(name.clone()),
        _ => None,
    };
    let constraints: Vec<String> = alter.actions.iter().filter_map(named).collect();
    let table = key.table.name.clone();
    let rest = scope.slice(&alter.all).to_owned();
    let step = ShardStep::Alter { table: table.clone(), rest };
    (!constraints.is_empty()).then(|| OnLeaves {
        table,
        constraints,
        alone: alter.actions.len() == 1,
        steps: vec![Step::Shards { group: key.group, step }],
    })
}

pub(super) fn refused(alter: &AlterTable, what: &str, hint: &str) -> ServerError {
    ServerError::refused(
        format!("ALTER TABLE \"{}\" with {what} is not supported", alter.name.name),
        "It is a table of the policy, whose storage foreshard lays out on every node.",
        hint,
    )
}

/// Neither a lookup table changes, nor the column that it looks up.
fn check_lookups(
    action: &AlterAction,
    alter: &AlterTable,
    key: Option<&ShardedTable<'_>>,
    scope: &Scope<'_>,
) -> Result<(), ServerError> {
    let owner = matches!(action, AlterAction::Other(words) if words == "OWNER TO");
    if key.is_some_and(|key| scope.map.lookup(&key.table.name).is_some()) && !owner {
        return Err(refused(alter, "a change of a lookup table", "Drop it, and make it anew."));
    }
    let looked_up = |column: &String| {
        let mut lookups = key.into_iter().flat_map(|key| scope.map.kept_lookups(&key.table.name));
        lookups.find(|lookup| lookup.column == *column)
    };
    if let AlterAction::DropColumn(column)
    | AlterAction::ColumnType(column)
    | AlterAction::RenameColumn(column) = action
        && let Some(lookup) = looked_up(column)
    {
        let what = format!("a change of the looked-up column \"{column}\"");
        let hint = format!("Drop the lookup table {} first.", lookup.name);
        return Err(refused(alter, &what, &hint));
    }
    Ok(())
}

/// Checks one action; the steps that replace the statement, if it can't run as written.
fn check(
    action: &AlterAction,
    alter: &AlterTable,
    key: Option<&ShardedTable<'_>>,
    scope: &Scope<'_>,
) -> Result<Option<Step>, ServerError> {
    let of_key = |column: &String| key.is_some_and(|key| key.key.contains(column));
    check_lookups(action, alter, key, scope)?;
    match action {
        AlterAction::AddColumn(column) => {
            check_column(column, key.is_none())?;
            for constraint in &column.constraints {
                check_constraint(&constraint.kind, Some(&column.name), key)?;
                match &constraint.kind {
                    ConstraintKind::Foreign(_) if key.is_some() => {
                        let hint = "Add this column in a statement of its own.";
                        return Err(refused(alter, "REFERENCES among other actions", hint));
                    }
                    ConstraintKind::Foreign(foreign) => whole_target(foreign, scope)?,
                    _ => {}
                }
            }
            Ok(None)
        }
        AlterAction::DropColumn(column)
        | AlterAction::ColumnType(column)
        | AlterAction::RenameColumn(column)
            if of_key(column) =>
        {
            let what = format!("a change of the shard key column \"{column}\"");
            Err(refused(alter, &what, "Create a new table with another key and copy the rows."))
        }
        AlterAction::ColumnDefault(_) => {
            // INSERT is completed with what differs between nodes.
            Ok(None)
        }
        AlterAction::ColumnIdentity(_) if key.is_none() => Err(refused(
            alter,
            "ADD GENERATED … AS IDENTITY",
            "Use uuid DEFAULT gen_random_uuid(), or give the value in each INSERT.",
        )),
        AlterAction::AddConstraint(constraint) => {
            check_constraint(&constraint.kind, None, key)?;
            match (&constraint.kind, key) {
                (ConstraintKind::Foreign(foreign), Some(key)) => {
                    foreign_key(foreign, constraint.name.as_ref(), key, scope).map(Some)
                }
                (ConstraintKind::Foreign(foreign), None) => {
                    whole_target(foreign, scope).map(|()| None)
                }
                _ => Ok(None),
            }
        }
        AlterAction::ReplicaIdentity(_) if key.is_some() && alter.actions.len() > 1 => {
            Err(refused(
                alter,
                "REPLICA IDENTITY among other actions",
                "Set it in a statement of its own.",
            ))
        }
        AlterAction::Other(words) => check_other(words, alter, key, scope),
        _ => Ok(None),
    }
}

/// Checks an action that is known by its words only.
fn check_other(
    words: &str,
    alter: &AlterTable,
    key: Option<&ShardedTable<'_>>,
    scope: &Scope<'_>,
) -> Result<Option<Step>, ServerError> {
    let Some(key) = key else { return Ok(None) };
    if matches!(words, "SET (" | "RESET (") {
        // A partitioned table has no storage of its own.
        if alter.actions.len() > 1 {
            let hint = "Set them in a statement of its own.";
            return Err(refused(alter, "storage parameters among other actions", hint));
        }
        let (table, rest) = (key.table.name.clone(), scope.slice(&alter.all).to_owned());
        let step = ShardStep::Alter { table, rest };
        return Ok(Some(Step::Shards { group: key.group, step }));
    }
    if words.ends_with(" TRIGGER") {
        let switched = scope.slice(&alter.all).to_ascii_lowercase();
        let all = switched.ends_with(" all") || switched.ends_with(" user");
        if all && scope.map.keeps_lookups(key.group) {
            let hint = "Name the triggers one by one.";
            return Err(refused(alter, "all triggers, of which some keep lookups", hint));
        }
        return Ok(None);
    }
    if plain(words) {
        return Ok(None);
    }
    let hint = match words {
        "CLUSTER ON" | "SET WITHOUT" => {
            "Rows of a sharded table are in no order on disk: an index gives one, VACUUM FULL frees room."
        }
        _ => {
            "Only columns, constraints, triggers, the owner, row security, REPLICA IDENTITY and storage \
             parameters can change."
        }
    };
    Err(refused(alter, words, hint))
}

/// Actions on a sharded table that reach its leaves by themselves, or concern the parent only.
fn plain(words: &str) -> bool {
    matches!(words, "OWNER TO" | "ENABLE ROW" | "DISABLE ROW" | "FORCE ROW" | "NO FORCE")
}
