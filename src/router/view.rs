//! Where CREATE, ALTER and DROP VIEW belong.

use super::definition::Place;
use super::names::{Meaning, Mention, Names};
use crate::sql::{Query, Source, Statement, ViewStatement, ViewVerb};
use crate::wire::ServerError;

/// A view over sharded and reference tables is on every node, one that reads home tables, too, at
/// home only.
///
/// # Errors
/// It can't be had over rows of several nodes.
pub(super) fn place(
    view: &ViewStatement,
    statement: &Statement,
    names: &Names<'_>,
) -> Result<Place, ServerError> {
    let known = view.names.iter().map(|name| Ok(matches!(names.made(name)?, Meaning::View(_))));
    let known = known.collect::<Result<Vec<_>, ServerError>>()?.contains(&true);
    if view.materialized && view.verb == ViewVerb::Drop {
        return Ok(Place::Kept);
    }
    if view.materialized && view.verb == ViewVerb::Alter && statement.has("owner") {
        return Ok(Place::Kept);
    }
    if view.verb != ViewVerb::Create {
        // The planner sees to it that nodes that lack the view are left alone.
        return Ok(if known { Place::Nodes } else { Place::Home });
    }
    let mention = names.mentioned(statement);
    // Who writes through it has to know of it from then on.
    if matches!(mention, Some(Mention::Reference(_))) && !known && statement.has("replace") {
        return Ok(Place::HomeOnly);
    }
    let Some(table) = mention.filter(|m| known || matches!(m, Mention::Sharded(_))) else {
        return Ok(Place::Home);
    };
    let table = table.name();
    let refuse = |what: &str, why: &str, hint: &str| {
        ServerError::refused(
            format!("{what} that names the sharded table \"{table}\" is not supported"),
            why,
            hint,
        )
    };
    if view.temporary {
        return Err(refuse(
            "a temporary view",
            "It would be on one node only, in a way that the proxy can't see.",
            "Create a plain view.",
        ));
    }
    let Some(query) = &view.query else {
        return Err(refuse(
            "a view",
            "Its query could not be read.",
            "Write it in a simpler form, not recursive.",
        ));
    };
    let name = &view.names[0];
    if !view.materialized
        && matches!(names.made(name)?, Meaning::Sharded(..) | Meaning::Reference(_))
    {
        return Err(refuse("a view", "It has the name of a table.", "Choose another name."));
    }
    let meanings = meanings(query, names)?;
    // A sharded table has the view's name, in another schema, or stands in a string.
    if !known && !meanings.iter().any(|it| matches!(it, Meaning::Sharded(..) | Meaning::View(_))) {
        return Ok(Place::Home);
    }
    if view.materialized {
        return Ok(Place::Kept);
    }
    // What only the home node has makes a view of the home node.
    let only_home = meanings.iter().any(|meaning| match meaning {
        Meaning::Home => true,
        Meaning::View(view) => !view.everywhere,
        Meaning::Sharded(..) | Meaning::Reference(_) => false,
    });
    Ok(if only_home { Place::HomeOnly } else { Place::Nodes })
}

fn meanings<'a>(query: &Query, names: &Names<'a>) -> Result<Vec<Meaning<'a>>, ServerError> {
    let mut found = Vec::new();
    for table in query.levels.iter().flat_map(|level| &level.tables) {
        match &table.source {
            Source::Table(name) if name.schema.as_deref() != Some("pg_catalog") => {
                found.push(names.meaning(name)?);
            }
            _ => {}
        }
    }
    Ok(found)
}
