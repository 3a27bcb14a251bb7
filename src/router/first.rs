//! Writes that need rows of several nodes at once: parts of them run first, and the statement goes on
//! with their rows in their places, until it can be routed.

use std::sync::Arc;

use super::names::{Meaning, Names};
use super::pull::{Place, PullTable};
use crate::sql::{Early, EarlyUse, Query, Source, Statement, Verb, early};
use crate::wire::ServerError;

/// A statement of which something runs first.
#[derive(Debug, Clone)]
pub struct First {
    /// The statement, to the end.
    pub text: String,
    /// What it does.
    pub verb: Verb,
    /// Its parts.
    pub early: Option<Early>,
    /// Tables whose rows can be put in their places, where no part runs on its own.
    pub tables: Vec<(EarlyUse, PullTable)>,
    /// Why it can't run as it is.
    pub refusal: ServerError,
}

/// What of a statement can run before it; `refusal` says why it can't run as it is.
pub(super) fn first(
    text: &str,
    query: &Query,
    statement: &Statement,
    names: &Names<'_>,
    refusal: ServerError,
) -> Result<Arc<First>, ServerError> {
    let writes = query.levels.iter().any(|level| level.target.is_some());
    let features = &query.features;
    let odd = features.only || features.into || features.sample || features.clock_word;
    if !names.active() || !(writes || features.locking) || odd || query.verb == Verb::Merge {
        return Err(refusal);
    }
    let text = text.get(..statement.span.end).unwrap_or(text);
    let early = early(text, names.strings(), query);
    let tables =
        if early.is_some() && features.cte { Vec::new() } else { tables(query, statement, names)? };
    if early.is_none() && tables.is_empty() {
        return Err(refusal);
    }
    Ok(Arc::new(First { text: text.to_owned(), verb: query.verb, early, tables, refusal }))
}

/// The tables that a write reads besides its target.
fn tables(
    query: &Query,
    statement: &Statement,
    names: &Names<'_>,
) -> Result<Vec<(EarlyUse, PullTable)>, ServerError> {
    let mut found = Vec::new();
    let changes = matches!(query.verb, Verb::Update | Verb::Delete | Verb::Insert);
    if !changes || query.features.cte || !query.columns.qualifiers.is_empty() {
        return Ok(found);
    }
    for level in &query.levels {
        for (index, table) in level.tables.iter().enumerate() {
            let Source::Table(name) = &table.source else { continue };
            let meaning = names.meaning(name)?;
            let target = level.target.is_some() && index == 0;
            if target || matches!(meaning, Meaning::Reference(_)) {
                continue;
            }
            let alias = (!table.aliased).then(|| name.name.clone());
            let place = Place { query, statement, level, index };
            let used = EarlyUse { span: name.span.clone(), alias };
            found.push((used, place.table(table, name, &meaning)));
        }
    }
    Ok(found)
}
