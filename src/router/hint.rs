//! Where a statement goes that says it itself, and calls of functions whose key the policy declares.
//!
//! A hint counts only where nothing else says where a statement goes: calls, blocks of code, and what
//! can't be read. There the client vouches for it.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::bind::Bound;
use super::keyed::{Bind, Keyed, NewKey};
use super::names::Names;
use super::operand::Use;
use super::part::Part;
use super::statement::Analysis;
use super::trust;
use crate::ids::{GroupId, ShardId};
use crate::shard_map::{KeyedFunction, TableKind};
use crate::sql::{
    Call, Constant, ConstantValue, Hint, Name, Query, Source, Statement, StatementKind,
};
use crate::wire::{ServerError, SqlState};

/// What a hint may lead to one node without being read.
const VERBS: [&str; 11] = [
    "call", "delete", "do", "insert", "lock", "merge", "select", "table", "update", "values",
    "with",
];

/// Lets a hint decide, where it may.
pub(super) fn apply(
    analysis: &mut Analysis,
    statement: &Statement,
    hint: Result<Hint, String>,
    names: &Names<'_>,
) {
    let hint = match hint {
        Ok(hint) => hint,
        Err(said) => {
            analysis.part = Err(unread(&said));
            return;
        }
    };
    let counts = match (&statement.kind, &analysis.part) {
        (StatementKind::Query(query), part) => {
            let calls = declared(query, names);
            let keyless = calls.iter().all(|(_, function)| function.arguments.is_empty());
            let free = matches!(part, Ok(Part::Home | Part::Anywhere)) || !calls.is_empty();
            no_tables(query) && keyless && free
        }
        (StatementKind::Other { verb, .. }, Ok(Part::Home) | Err(_)) => {
            let calls = statement.call.as_deref().map(|query| declared(query, names));
            let keyed = calls.iter().flatten().any(|(_, it)| !it.arguments.is_empty());
            !keyed && VERBS.binary_search(&verb.as_str()).is_ok()
        }
        _ => false,
    };
    if counts {
        analysis.part = route(hint, names);
    }
}

/// A hint before several statements.
pub(super) fn before_several() -> ServerError {
    ServerError::refused(
        "a hint stands before one statement",
        "This text has several, or none.",
        "Send them one by one, each with its hint.",
    )
}

fn no_tables(query: &Query) -> bool {
    let table = |table: &crate::sql::TableRef| matches!(table.source, Source::Table(_));
    !query.levels.iter().any(|level| level.tables.iter().any(table))
}

fn unread(said: &str) -> ServerError {
    ServerError::new(SqlState("42601"), format!("the hint \"{said}\" can't be read"))
        .with_hint("Write /* foreshard: key(orders) = 42 */, shard = 3 or node = n2.")
}

fn wrong(message: String, hint: &str) -> ServerError {
    ServerError::new(SqlState("22023"), message).with_hint(hint)
}

fn route(hint: Hint, names: &Names<'_>) -> Result<Part, ServerError> {
    match hint {
        Hint::Shard(shard) => match names.map.shard(ShardId(shard)) {
            Some(_) => Ok(Part::Shards(SmallVec::from_slice(&[ShardId(shard)]))),
            None => Err(wrong(
                format!("the hint names shard {shard}, which does not exist"),
                "foreshard status shows all shards.",
            )),
        },
        Hint::Node(name) => {
            let node = names.map.node_named(&name);
            let shards = names.map.shards().filter(|(_, shard)| Some(shard.node) == node);
            let shards: SmallVec<[ShardId; 2]> = shards.map(|(id, _)| id).collect();
            if shards.is_empty() {
                let message = format!("the hint names node \"{name}\", which holds no shard");
                return Err(wrong(message, "foreshard status shows all nodes."));
            }
            Ok(Part::Shards(shards))
        }
        Hint::Key { of, values } => {
            let Some(group) = group(&of, names) else {
                let message =
                    format!("the hint names \"{}\", which is no group and no sharded table", of.1);
                return Err(wrong(message, "Name a group of the policy or one of its tables."));
            };
            let columns = names.map.groups()[group.index()].key.len();
            if columns != values.len() {
                let message =
                    format!("the hint has {} values for a key of {columns} columns", values.len());
                return Err(wrong(message, "Write key(orders) = (1, 'a')."));
            }
            Ok(keyed(of.1, group, values, names))
        }
    }
}

fn group((schema, name): &(Option<String>, String), names: &Names<'_>) -> Option<GroupId> {
    let groups = (0u16..).map(GroupId).zip(names.map.groups());
    let mut named = groups.filter(|(_, group)| schema.is_none() && group.name == *name);
    let table = |table: &crate::shard_map::Table| match &table.kind {
        TableKind::Sharded { group, .. }
            if table.name.name == *name
                && schema.as_ref().is_none_or(|schema| *schema == table.name.schema) =>
        {
            Some(*group)
        }
        _ => None,
    };
    named.next().map(|(id, _)| id).or_else(|| names.map.tables().iter().find_map(table))
}

/// Where these values of a key are. A parameter among them is of the key's type.
fn keyed(of: String, group: GroupId, values: Vec<Constant>, names: &Names<'_>) -> Part {
    let params: Vec<u16> = values
        .iter()
        .filter_map(|value| match value.value {
            ConstantValue::Param(number) => Some(number),
            _ => None,
        })
        .collect();
    let mut keyed = Keyed::default();
    let bind = Bind::Columns(values.into_iter().map(|value| vec![value]).collect());
    keyed.push(NewKey { table: of, group, bind, used: Use::Store, cuts_blanks: false }, names.map);
    keyed.vouch_for(params);
    Part::Keyed(keyed)
}

/// The functions with a declared key that a query calls.
pub(super) fn declared<'a>(
    query: &'a Query,
    names: &Names<'a>,
) -> Vec<(&'a Call, &'a KeyedFunction)> {
    let all = &names.map.declared().functions;
    if all.is_empty() || !names.active() {
        return Vec::new();
    }
    query
        .functions
        .iter()
        .filter_map(|call| Some((call, function(trust::schema(call), &call.name, names)?)))
        .collect()
}

/// Whether the policy declares a function or procedure of this name.
pub(super) fn is_declared(routine: &Name, names: &Names<'_>) -> bool {
    names.active() && function(routine.schema.as_ref(), &routine.name, names).is_some()
}

fn function<'a>(
    schema: Option<&String>,
    name: &str,
    names: &Names<'a>,
) -> Option<&'a KeyedFunction> {
    let visible = |function: &&KeyedFunction| match schema {
        Some(schema) => *schema == function.name.schema,
        None => names.schemas().any(|schema| *schema == function.name.schema),
    };
    let all = &names.map.declared().functions;
    all.iter().filter(|function| function.name.name == name).find(visible)
}

/// The keys of calls of such functions, of which there is one at least.
///
/// # Errors
/// A key is no constant.
pub(super) fn keys(
    calls: &[(&Call, &KeyedFunction)],
) -> Result<Vec<(GroupId, String, Vec<Constant>)>, ServerError> {
    let mut keys = Vec::new();
    for (call, function) in calls {
        if function.arguments.is_empty() {
            return Err(ServerError::refused(
                format!("{}() needs a hint", call.name),
                "The policy declares that its rows have one shard key, and no argument that is it.",
                "Write /* foreshard: key(GROUP) = KEY */ before the statement.",
            ));
        }
        let mut values = Vec::with_capacity(function.arguments.len());
        for argument in &function.arguments {
            let constant = call.arguments.get(usize::from(*argument) - 1).cloned().flatten();
            values.push(constant.ok_or_else(|| {
                ServerError::refused(
                    format!(
                        "{}() needs its shard key, argument {argument}, as a constant",
                        call.name
                    ),
                    "The policy declares that this argument says where its rows are.",
                    "Give it as a plain literal or parameter.",
                )
            })?);
        }
        keys.push((function.group, call.name.clone(), values));
    }
    Ok(keys)
}

/// Where a statement goes that calls such functions and names no table.
///
/// # Errors
/// A key is no constant.
pub(super) fn of_calls(
    calls: &[(&Call, &KeyedFunction)],
    uses: &[u16],
    names: &Names<'_>,
) -> Result<Part, ServerError> {
    let (mut keyed, mut key_uses) = (Keyed::default(), HashMap::new());
    for (group, table, values) in keys(calls)? {
        for value in &values {
            if let ConstantValue::Param(number) = value.value {
                *key_uses.entry(number).or_default() += 1;
            }
        }
        let bind = Bind::Columns(values.into_iter().map(|value| vec![value]).collect());
        let used = Use::Store;
        keyed.push(NewKey { table, group, bind, used, cuts_blanks: false }, names.map);
    }
    keyed.set_alone(&key_uses, uses);
    Ok(Part::Keyed(keyed))
}

/// Refuses such calls where their rows would be written beside others.
pub(super) fn check_calls(
    calls: &[(&Call, &KeyedFunction)],
    reads: bool,
) -> Result<(), ServerError> {
    match calls.first() {
        Some((call, _)) if !reads => Err(ServerError::refused(
            format!("{}() can't be called in a statement that writes", call.name),
            "The policy declares that it runs on the node of its shard key.",
            "Call it in a statement of its own, or in the query of INSERT … SELECT.",
        )),
        _ => Ok(()),
    }
}

/// Adds the keys of such calls to those of a query's tables, of which all must be bound.
pub(super) fn push_calls(
    calls: &[(&Call, &KeyedFunction)],
    unbound: bool,
    (bound, keyed): (&mut Bound<'_>, &mut Keyed),
    names: &Names<'_>,
) -> Result<(), ServerError> {
    if let (Some((call, _)), true) = (calls.first(), unbound) {
        return Err(ServerError::refused(
            format!("{}() can't be called for rows of several shards", call.name),
            "The policy declares that it runs on the node of its shard key.",
            "Bind the shard key of each sharded table to constants, too.",
        ));
    }
    for (group, table, values) in keys(calls)? {
        bound.count_uses(&values);
        let bind = Bind::Columns(values.into_iter().map(|value| vec![value]).collect());
        let used = Use::Store;
        keyed.push(NewKey { table, group, bind, used, cuts_blanks: false }, names.map);
    }
    Ok(())
}
