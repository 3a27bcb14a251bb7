//! The route of definitions and of COPY.

use std::sync::Arc;

use super::names::{Meaning, Names};
use super::part::Part;
use super::statement::Analysis;
use super::{CopyIn, Ddl, query};
use crate::sql::{CopyStatement, DdlStatement, Statement};
use crate::wire::ServerError;

pub(super) fn analyse(
    _text: &str,
    ddl: &DdlStatement,
    _statement: &Statement,
    _names: &Names<'_>,
) -> Analysis {
    match *ddl {}
}

/// COPY in and out.
///
/// # Errors
/// Why it is refused.
pub(super) fn copy(
    text: &str,
    copy: &CopyStatement,
    statement: &Statement,
    names: &Names<'_>,
) -> Result<Part, ServerError> {
    let Some(table) = &copy.table else { return copy_query(copy, statement, names) };
    let table = match names.meaning(table)? {
        Meaning::Home => return Ok(Part::Home),
        Meaning::Reference(_) if !copy.from && copy.by_client => return Ok(Part::Anywhere),
        Meaning::Reference(table) | Meaning::Sharded(table, ..) => table,
    };
    let name = &table.name.name;
    if !copy.by_client {
        return Err(ServerError::refused(
            format!("COPY of \"{name}\" by a file or program of the server is not supported"),
            "Each node has files of its own.",
            "Use COPY … FROM STDIN, or \\copy in psql.",
        ));
    }
    if !copy.from {
        return Err(ServerError::refused(
            format!("COPY TO of the sharded table \"{name}\" is not yet supported"),
            "Its rows are on several nodes.",
            "Use COPY (SELECT … WHERE the shard key = …) TO STDOUT.",
        ));
    }
    Ok(Part::CopyIn(Arc::new(CopyIn {
        text: text[statement.span.clone()].to_owned(),
        table: table.name.clone(),
        statement: copy.clone(),
    })))
}

fn copy_query(
    copy: &CopyStatement,
    statement: &Statement,
    names: &Names<'_>,
) -> Result<Part, ServerError> {
    let Some(inner) = &copy.query else {
        return match names.mentioned(statement) {
            None => Ok(Part::Home),
            Some(mention) => Err(ServerError::refused(
                format!("COPY of a query that names \"{}\" is not supported", mention.name()),
                "The query could not be read.",
                "Write it in a simpler form.",
            )),
        };
    };
    match query::route(inner, statement, names)? {
        Part::Scatter(_) | Part::EveryNode => Err(ServerError::refused(
            "COPY of a query over several nodes is not yet supported",
            "Its rows are on several nodes.",
            "Bind the shard key in the query.",
        )),
        // A file of the server's is the home node's.
        Part::Keyed(_) if !copy.by_client => Err(ServerError::refused(
            "COPY of a sharded table to a file or program of the server is not supported",
            "Each node has files of its own.",
            "Use COPY … TO STDOUT, or \\copy in psql.",
        )),
        Part::Anywhere if !copy.by_client => Ok(Part::Home),
        part => Ok(part),
    }
}
