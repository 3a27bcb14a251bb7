//! Definitions of what is no table: types, functions, triggers, policies, roles, schemas.

use super::definition::{Place, of_sharded};
use super::hint;
use super::names::{Meaning, Mention, Names};
use crate::shard_map::Table;
use crate::sql::{DdlStatement, Name, Statement, TableName};
use crate::wire::ServerError;

/// Checks and the like of a sharded table would see its partitions.
///
/// # Errors
/// It names tableoid.
pub(super) fn check_tableoid(
    ddl: &DdlStatement,
    statement: &Statement,
    names: &Names<'_>,
) -> Result<(), ServerError> {
    let keeps = matches!(
        ddl,
        DdlStatement::CreateTable(_) | DdlStatement::AlterTable(_) | DdlStatement::CreateIndex(_)
    );
    let bound = matches!(ddl, DdlStatement::Global { table: Some(_), .. });
    match names.mentioned(statement) {
        Some(Mention::Sharded(table)) if (keeps || bound) && statement.has("tableoid") => {
            Err(ServerError::refused(
                format!("tableoid in a definition of \"{table}\" is not supported"),
                "It would be that of the partition in which a row is.",
                "Write the table's name itself: 'orders'::regclass.",
            ))
        }
        _ => Ok(()),
    }
}

/// Types, functions, roles, schemas: every node has them alike.
pub(super) fn place(
    object: &str,
    (routine, table): (Option<&Name>, Option<&Name>),
    statement: &Statement,
    names: &Names<'_>,
) -> Result<Place, ServerError> {
    if let Some(Ok(Meaning::Home)) = table.map(|table| names.meaning(table)) {
        return match names.mentioned(statement) {
            Some(Mention::Sharded(sharded)) if statement.has("select") => {
                Err(of_sharded("CREATE POLICY", sharded))
            }
            _ => Ok(Place::Home),
        };
    }
    let writes = ["insert", "update", "delete", "merge", "truncate", "copy", "execute"]
        .iter()
        .any(|word| statement.has(word));
    let code = matches!(object, "function" | "procedure" | "routine") && statement.has("create");
    match names.mentioned(statement) {
        // They belong to their table.
        None if matches!(object, "trigger" | "policy") => Ok(Place::Home),
        None if object == "statistics" && statement.has("create") => Ok(Place::Home),
        Some(Mention::Reference(table)) if object == "trigger" && statement.has("create") => {
            Err(ServerError::refused(
                format!("a trigger on the reference table \"{table}\" is not supported"),
                "It would run on each node, and could store another value in each copy.",
                "Let the application give the values.",
            ))
        }
        Some(mention)
            if object == "trigger"
                && statement.has("create")
                && (!statement.has("row") || statement.has("referencing")) =>
        {
            Err(ServerError::refused(
                format!("a statement trigger on \"{}\" is not supported", mention.name()),
                "It would run on each node that has rows, and see the rows of that node only.",
                "Write it in a simpler form: FOR EACH ROW, without REFERENCING.",
            ))
        }
        // Another database is at home alone.
        _ if object == "database" && routine.is_none_or(|it| it.name != names.map.database()) => {
            Ok(Place::Home)
        }
        // Its table is at home, and so is the sequence.
        None if object == "sequence" && statement.has("owned") => Ok(Place::Home),
        // It runs where the policy declares its rows to be.
        Some(Mention::Sharded(_))
            if code && routine.is_some_and(|it| hint::is_declared(it, names)) =>
        {
            Ok(Place::Nodes)
        }
        Some(Mention::Sharded(table)) if code => Err(ServerError::refused(
            format!("a function that names the sharded table \"{table}\" is not supported"),
            "It would see only the rows of the node that it happens to run on.",
            "Declare it in the policy (functions), if all its rows have one shard key.",
        )),
        Some(Mention::Reference(table)) if code && writes => Err(ServerError::refused(
            format!(
                "a function that names the reference table \"{table}\" and writes is not \
                     supported"
            ),
            "It would change the copy of one node only.",
            "Let the application run the statements itself.",
        )),
        _ if object == "schema" && statement.has("alter") && statement.has("rename") => {
            renamed_schema(statement, names)
        }
        _ if object == "schema" && (statement.has("table") || statement.has("view")) => {
            Err(ServerError::refused(
                "CREATE SCHEMA with tables in it is not supported",
                "A schema belongs on every node, a home table on one.",
                "Create the schema first and its tables after it.",
            ))
        }
        _ => Ok(Place::Nodes),
    }
}

/// The map would look for its tables in the old one.
fn renamed_schema(statement: &Statement, names: &Names<'_>) -> Result<Place, ServerError> {
    let of_policy = |table: &&Table| statement.has(&table.name.schema);
    let Some(table) = names.map.tables().iter().find(of_policy) else { return Ok(Place::Nodes) };
    let TableName { schema, .. } = &table.name;
    Err(ServerError::refused(
        format!("the schema \"{schema}\" can't be renamed: it has tables of the policy"),
        format!("The policy and the shard map name them with their schema: {}.", table.name),
        "Keep its name, and set search_path where the application uses another one.",
    ))
}
