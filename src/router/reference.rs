//! Statements of reference tables: a write runs on every node, and must do the same on each.

use std::sync::Arc;

use super::first::First;
use super::insert::{self, Evaluation};
use super::names::{Meaning, Names};
use super::part::Part;
use super::query::{Kinds, Meanings, anywhere, writes};
use super::rekey::returns_own;
use super::system;
use crate::shard_map::Table;
use crate::sql::{
    Call, DdlStatement, Name, Query, Source, Statement, TableName, Target, UpdateLayout, Verb,
};
use crate::wire::ServerError;

/// An UPDATE with FROM of a reference table: of several rows that a row meets PostgreSQL takes any, and on
/// each node another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Where its parts stand.
    pub layout: UpdateLayout,
    /// The table.
    pub table: TableName,
    /// It gives back what it meets, so that a row must not meet two; else these must give it the same.
    pub returns: bool,
}

/// A reference table that some level writes.
pub(super) fn target<'a>(query: &Query, meanings: &Meanings<'a>) -> Option<&'a Table> {
    query.levels.iter().zip(meanings).find_map(|(level, meanings)| match meanings.first() {
        Some(Some(Meaning::Reference(table))) if level.target.is_some() => Some(*table),
        _ => None,
    })
}

/// No level writes through a view of the home node, whose own copy alone PostgreSQL would change.
///
/// # Errors
/// One does.
pub(super) fn check_views(query: &Query, names: &Names<'_>) -> Result<(), ServerError> {
    for level in query.levels.iter().filter(|level| level.target.is_some()) {
        if let Some(Source::Table(name)) = level.tables.first().map(|table| &table.source)
            && names.is_of_copies(name)
        {
            return Err(through_view(&name.name));
        }
        if let Some(Source::Table(name)) = level.tables.first().map(|table| &table.source) {
            check_entangled(name, names)?;
        }
    }
    Ok(())
}

/// A write of a table fires nothing that would do something else on the home node than on all.
///
/// # Errors
/// It does.
pub(super) fn check_entangled(table: &Name, names: &Names<'_>) -> Result<(), ServerError> {
    if !names.is_entangled(table) {
        return Ok(());
    }
    Err(ServerError::refused(
        format!("a write of the home table \"{}\" is not supported", table.name),
        "A trigger or rule of it reads a sharded table, of which the home node has a part, or writes a \
         reference table, of which the home node's copy alone would change.",
        "Drop that, and let the application run its statements.",
    ))
}

/// The same of a function's code, which is not read.
///
/// # Errors
/// It may write through one.
pub(super) fn check_code(
    ddl: &DdlStatement,
    statement: &Statement,
    names: &Names<'_>,
) -> Result<(), ServerError> {
    let DdlStatement::Global { object, .. } = ddl else { return Ok(()) };
    let code = matches!(object.as_str(), "function" | "procedure") && statement.has("create");
    let writes = ["insert", "update", "delete", "merge", "execute"];
    if !code || !writes.iter().any(|word| statement.has(word)) {
        return Ok(());
    }
    names.mentioned_of_copies(statement).map_or(Ok(()), |view| Err(through_view(view)))
}

/// What is written through a view of the home node.
pub fn through_view(view: &str) -> ServerError {
    ServerError::refused(
        format!("the view \"{view}\" can't be written"),
        "It reads a reference table, of which the home node's copy alone would change.",
        "Write the reference table itself.",
    )
}

/// Reference tables, and perhaps home tables.
pub(super) fn route(
    (text, statement): (&str, &Statement),
    query: &Query,
    (meanings, names): (&Meanings<'_>, &Names<'_>),
    kinds: Kinds,
) -> Result<Part, ServerError> {
    let Some(table) = target(query, meanings) else {
        return Ok(if kinds.home || writes(query) { Part::Home } else { anywhere(query) });
    };
    let refuse = |why: &str| {
        ServerError::refused(
            format!("this write to the reference table \"{}\" is not supported", table.name.name),
            format!("It runs on every node, and {why}."),
            "Write plain values, one statement a change.",
        )
    };
    if let Some(column) = system::differs(text, statement) {
        return Err(refuse(&format!("{column} is another value on each")));
    }
    if let Some(first) = values(text, query, table)? {
        return Ok(Part::Evaluate(first));
    }
    if let Some(select) = insert::select(query, text) {
        return Ok(Part::Select(select));
    }
    if kinds.home {
        return Err(refuse("a home table is on one node only"));
    }
    if let Some(first) = insert::still_clock(text) {
        return Ok(Part::Evaluate(first));
    }
    if let Some(column) = default(query, text, meanings) {
        return Err(refuse(&format!("the default of \"{column}\" is another value on each")));
    }
    let same = |call: &&Call| names.is_same_everywhere(call);
    if let Some(call) = query.functions.iter().find(|call| !same(call)) {
        return Err(refuse(&format!("{}() may give another result on each", call.name)));
    }
    let features = &query.features;
    if features.clock_word {
        return Err(refuse("a word such as 'now' is another time on each"));
    }
    let unsure = refuse("which rows it takes may depend on their order");
    if features.limit || features.window || features.distinct || features.sample {
        return Err(unsure);
    }
    let meets = query
        .levels
        .iter()
        .any(|level| matches!(level.target, Some(Target::Update { .. })) && level.tables.len() > 1);
    if !meets {
        return Ok(Part::EveryNode);
    }
    let layout = query.update.as_deref().filter(|_| !features.cte).ok_or_else(|| unsure.clone())?;
    let returns = layout.returning.is_some() && !returns_own(layout, table);
    Ok(Part::First(Arc::new(First {
        text: text.to_owned(),
        verb: Verb::Update,
        early: None,
        tables: Vec::new(),
        before: None,
        once: Some(Once { layout: layout.clone(), table: table.name.clone(), returns }),
        upsert: None,
        refusal: unsure,
    })))
}

/// What of an INSERT could differ between nodes.
fn values(
    text: &str,
    query: &Query,
    table: &Table,
) -> Result<Option<Arc<Evaluation>>, ServerError> {
    let target = query.levels.first().and_then(|level| level.target.as_ref());
    let (Some(Target::Insert(insert)), Some(layout)) = (target, &query.layout) else {
        return Ok(None);
    };
    if layout.rows.is_empty() && !layout.default_values {
        return Ok(None);
    }
    Ok(insert::complete(insert, layout, text, table, None)?.map(Arc::new))
}

/// A column that may get its default, which differs between nodes.
fn default<'a>(query: &Query, text: &str, meanings: &Meanings<'a>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    // The rows of an outermost INSERT are completed.
    let behind = query.layout.as_ref().map_or(0, |layout| layout.source.end);
    let named = text.get(behind..).unwrap_or_default().contains("default");
    query.levels.iter().zip(meanings).find_map(|(level, meanings)| {
        let Some(Some(Meaning::Reference(table))) = meanings.first() else { return None };
        let given = match &level.target {
            Some(Target::Insert(_)) if query.layout.is_some() && !named => return None,
            Some(Target::Insert(insert)) if !named => match (&insert.columns, &insert.rows) {
                (Some(columns), _) => columns.clone(),
                (None, Some(rows)) => {
                    let width = rows.first().map_or(0, Vec::len);
                    table.columns.iter().take(width).map(|column| column.name.clone()).collect()
                }
                // Which columns its query fills is not known.
                (None, None) => Vec::new(),
            },
            Some(Target::Delete) | None => return None,
            Some(_) if !named => return None,
            Some(_) => Vec::new(),
        };
        insert::varying(table, &given)
    })
}
