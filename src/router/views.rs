//! Views over sharded tables: a statement that reads one is analysed as if the view's query stood in
//! its place. One node, or each of several, gets the statement as it was written; what is brought
//! together is the one with the views' queries in it.

use std::ops::Range;
use std::sync::Arc;

use super::names::{Meaning, Names};
use super::part::Part;
use super::{Route, functions, hint, through, trust};
use crate::shard_map::{Table, TableKind, View};
use crate::sql::{
    Ident, Query, Source, Statement, StatementKind, Strings, TableName, TableRef, Verb, parse,
};
use crate::wire::ServerError;

/// A statement with views' queries in the place of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// The text, up to the end of the statement; what is before its views stands where it stood.
    pub text: String,
    /// The views, also those that stand in others.
    pub views: Vec<TableName>,
    /// Every node has all of them.
    pub everywhere: bool,
}

/// How deep views may stand on views.
const DEPTH_MAX: usize = 32;
/// Longer texts are not made.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// The statement with the queries of all views over sharded tables that it reads, and the query in
/// it; `None` if it reads none.
///
/// # Errors
/// A view that can't be read through the proxy, or not in this way.
pub(super) fn expand(
    text: &str,
    query: &Query,
    names: &Names<'_>,
) -> Result<Option<(Expanded, Statement)>, ServerError> {
    let mut places = places(query, names)?;
    if places.is_empty() {
        return Ok(None);
    }
    let mut expanded = Expanded { text: text.to_owned(), views: Vec::new(), everywhere: true };
    let mut query = query.clone();
    for _ in 0..DEPTH_MAX {
        expanded.everywhere &= places.iter().all(|place| place.view.everywhere);
        expanded.views.extend(places.iter().map(|place| place.view.name.clone()));
        expanded.text = splice(&expanded.text, &query, &places, names)?;
        if expanded.text.len() > TEXT_BYTES_MAX {
            break;
        }
        let statement = parse(&expanded.text, names.strings()).statements.pop();
        let statement = statement.ok_or_else(|| unread(&expanded.views, "it is empty"))?;
        match inner(&statement) {
            Ok(found) => query = found.clone(),
            Err(fault) => return Err(unread(&expanded.views, &fault)),
        }
        places = self::places(&query, names)?;
        if places.is_empty() {
            expanded.views.sort();
            expanded.views.dedup();
            return Ok(Some((expanded, statement)));
        }
    }
    Err(unread(&expanded.views, "views stand on views too deeply"))
}

/// The query of a statement.
///
/// # Errors
/// Why it has none.
pub(super) fn inner(statement: &Statement) -> Result<&Query, String> {
    match &statement.kind {
        StatementKind::Query(query) | StatementKind::Explain { query, .. } => Ok(query),
        StatementKind::Declare(declare) => Ok(&declare.query),
        StatementKind::Copy(copy) => {
            copy.query.as_deref().ok_or_else(|| "its query could not be read".to_owned())
        }
        StatementKind::Other { fault: Some(fault), .. } => Err(fault.clone()),
        _ => Err("it is of another kind".to_owned()),
    }
}

/// One place where a view is read.
struct Place<'a> {
    view: &'a View,
    span: Range<usize>,
    /// The alias that is to be written.
    alias: Option<String>,
}

fn places<'a>(query: &Query, names: &Names<'a>) -> Result<Vec<Place<'a>>, ServerError> {
    let mut places = Vec::new();
    for (at, level) in query.levels.iter().enumerate() {
        for (index, table) in level.tables.iter().enumerate() {
            let Source::Table(name) = &table.source else { continue };
            let Meaning::View(view) = names.meaning(name)? else { continue };
            let written = level.target.is_some() && index == 0;
            if written && through::is_written(query, (at, table), names)? {
                continue;
            }
            if view.materialized {
                return Err(ServerError::refused(
                    format!("the materialized view \"{}\" can't be read", view.name.name),
                    "It was filled from the rows of one node.",
                    "Read the tables themselves, or make a table and fill it by INSERT … SELECT.",
                ));
            }
            let alias = (!table.aliased).then(|| name.name.clone());
            places.push(Place { view, span: name.span.clone(), alias });
        }
    }
    Ok(places)
}

fn splice(
    text: &str,
    query: &Query,
    places: &[Place<'_>],
    names: &Names<'_>,
) -> Result<String, ServerError> {
    if query.features.only {
        return Err(odd(places, "ONLY says nothing of a view"));
    }
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    for place in places {
        let definition = &place.view.definition;
        if names.strings() != Strings::Standard && definition.contains('\\') {
            return Err(odd(places, "standard_conforming_strings is off"));
        }
        let before = text.get(..place.span.start).unwrap_or_default().trim_end().as_bytes();
        if before.len() >= 5 && before[before.len() - 5..].eq_ignore_ascii_case(b"table") {
            return Err(odd(places, "TABLE is written before it"));
        }
        let alias = place.alias.as_ref().map(|alias| format!(" AS {}", Ident::new(alias)));
        edits.push((place.span.clone(), format!("({definition}){}", alias.unwrap_or_default())));
    }
    // `schema.view.column`: the view has an alias without a schema now.
    let is_alias =
        |table: &TableRef, name: &str| !table.aliased && table.alias.as_deref() == Some(name);
    for qualifier in &query.columns.qualifiers {
        let tables = query.levels.iter().flat_map(|level| &level.tables);
        let viewed = tables.filter(|table| is_alias(table, &qualifier.table)).any(|table| {
            matches!(&table.source, Source::Table(name)
                if places.iter().any(|place| place.span == name.span))
        });
        if viewed {
            edits.push((qualifier.before.clone(), String::new()));
        }
    }
    edits.sort_by_key(|(span, _)| span.start);
    edits.dedup_by_key(|(span, _)| span.start);
    let (mut out, mut at) = (String::with_capacity(text.len() * 2), 0);
    for (span, with) in &edits {
        out.push_str(text.get(at..span.start).unwrap_or_default());
        out.push_str(with);
        at = span.end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    Ok(out)
}

fn odd(places: &[Place<'_>], why: &str) -> ServerError {
    let view = places.first().map(|place| place.view.name.name.clone()).unwrap_or_default();
    ServerError::refused(
        format!("the view \"{view}\" can't be read in this form"),
        format!("It reads sharded tables, and {why}."),
        "Write SELECT … FROM the view.",
    )
}

fn unread(views: &[TableName], fault: &str) -> ServerError {
    let view = views.first().map(|name| name.name.clone()).unwrap_or_default();
    ServerError::refused(
        format!("the view \"{view}\" can't be read through the proxy"),
        format!("It reads sharded tables, and with its query in the place of its name: {fault}."),
        "Write the view in a simpler form, or read the tables themselves.",
    )
}

/// What of a route may be done with a statement that reads views: `part` is that of the expanded
/// statement, `pull` brings all together.
///
/// # Errors
/// It needs a view where there is none, or would have to be rewritten with its queries.
pub(super) fn part(
    part: Part,
    query: &Query,
    expanded: &Arc<Expanded>,
    pull: impl FnOnce() -> Result<Part, ServerError>,
) -> Result<Part, ServerError> {
    let reads = query.verb == Verb::Select && query.levels.iter().all(|l| l.target.is_none());
    match part {
        Part::Pull(_) => Ok(part),
        _ if reads && !expanded.everywhere => pull(),
        Part::Keyed(_) | Part::Scatter(_) | Part::Anywhere | Part::Home if reads => Ok(part),
        Part::Keyed(keyed) if expanded.everywhere => Ok(Part::Keyed(keyed.on_one_node())),
        _ => Err(unread(&expanded.views, "a write that needs several nodes can't read it")),
    }
}

/// Refuses calls of functions whose code is known to name sharded tables.
pub(super) fn check_functions(query: &Query, names: &Names<'_>) -> Result<(), ServerError> {
    let derived = names.map.derived();
    let sharded = |table: &&Table| matches!(table.kind, TableKind::Sharded { .. });
    for call in &query.functions {
        let tables = names.map.tables().iter().filter(sharded).map(|table| &*table.name.name);
        let views = derived.views.iter().map(|view| &*view.name.name);
        if names.active() && functions::runs_text_of(call, tables.chain(views)) {
            return Err(ServerError::refused(
                format!("{}() can't read a sharded table", call.name),
                "It would see only the rows of the node that it runs on.",
                "Copy what it is to read into a table that is not sharded (CREATE TEMP TABLE … AS).",
            ));
        }
    }
    let known = !derived.functions.is_empty() || !derived.callers.is_empty();
    if !known || !hint::declared(query, names).is_empty() {
        return Ok(());
    }
    for call in query.functions.iter().filter(|call| !functions::is_pure(call)) {
        let is = |function: &TableName| {
            function.name == call.name
                && trust::schema(call).is_none_or(|schema| *schema == function.schema)
        };
        if derived.functions.iter().any(is) {
            return Err(ServerError::refused(
                format!("the function {}() names a sharded table", call.name),
                "It would see only the rows of the node that it runs on.",
                "Write its query as a statement, or as a view.",
            ));
        }
        if derived.callers.iter().any(is) {
            return Err(of_one_node(&call.name));
        }
    }
    Ok(())
}

/// Code that does something else on one node than on all.
pub(super) fn of_one_node(named: &str) -> ServerError {
    ServerError::refused(
        format!("what \"{named}\" does can't run on one node alone"),
        "It writes a reference table, of which one copy would change, or names a sharded table, of which \
         one node has a part, or calls a function or fires a trigger that does.",
        "Let the application run its statements.",
    )
}

/// The pull of a route, with the expanded text.
pub(super) fn with_text(route: Route, expanded: &Arc<Expanded>) -> Route {
    match route {
        Route::Pull(pull) => {
            let mut pull = Arc::unwrap_or_clone(pull);
            pull.expanded = Some(Arc::clone(expanded));
            Route::Pull(Arc::new(pull))
        }
        other => other,
    }
}
