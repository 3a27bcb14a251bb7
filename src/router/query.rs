//! The route of SELECT, INSERT, UPDATE and DELETE.

use std::sync::Arc;

use super::bind::{Bound, Sharded};
use super::functions;
use super::insert::{self, Evaluation, Rows};
use super::keyed::{Bind, Keyed, NewKey, Over};
use super::names::{Meaning, Names};
use super::operand::Use;
use super::part::Part;
use super::{
    First, Route, hint, lookup, merge, pull, reference, rekey, scatter, system, through, upsert,
    views, write,
};
use crate::shard_map::{KeyType, Method};
use crate::sql::{Query, Source, Statement, Target, Verb};
use crate::wire::{ServerError, SqlState};

/// What the names of each table of each level mean; `None` for what is no table.
pub(super) type Meanings<'a> = Vec<Vec<Option<Meaning<'a>>>>;

/// Routes a query.
///
/// # Errors
/// Why it is refused.
pub(super) fn route(
    text: &str,
    query: &Query,
    statement: &Statement,
    names: &Names<'_>,
) -> Result<Part, ServerError> {
    if names.active() && functions::hidden_setting(query, statement) {
        return Err(ServerError::refused(
            "set_config can't change this setting through the proxy",
            "The proxy must know it to read statements.",
            "Use SET.",
        ));
    }
    if let Some(part) = through::refused(query, names) {
        return Ok(part);
    }
    let whole = text.get(..statement.span.end).unwrap_or(text);
    let Some((expanded, read)) = views::expand(whole, query, names)? else {
        return routed((text, statement), query, names);
    };
    if query.verb == Verb::Merge {
        return routed((text, statement), query, names);
    }
    if let Some(select) = insert::select(query, whole) {
        // Its query is routed on its own.
        return Ok(Part::Select(select));
    }
    let expanded = Arc::new(expanded);
    let names = &names.plain();
    let inner =
        views::inner(&read).map_err(|fault| ServerError::new(SqlState::INTERNAL_ERROR, fault))?;
    views::check_functions(inner, names)?;
    let with_text = |part| match part {
        Part::Pull(pull) => match views::with_text(Route::Pull(pull), &expanded) {
            Route::Pull(pull) => Part::Pull(pull),
            _ => Part::Home,
        },
        Part::Keyed(mut keyed) => {
            keyed.explain_otherwise(|route| Some(views::with_text(route, &expanded)));
            Part::Keyed(keyed)
        }
        other => other,
    };
    let part = routed((&expanded.text, &read), inner, names).map(with_text)?;
    views::part(part, inner, &expanded, || {
        let meanings = meanings(inner, names)?;
        let text = expanded.text.as_str();
        let spread = Spread { text, query: inner, statement: &read, names, meanings: &meanings };
        spread.pull().map(with_text)
    })
}

/// Routes a query that reads no views over sharded tables.
fn routed(
    (text, statement): (&str, &Statement),
    query: &Query,
    names: &Names<'_>,
) -> Result<Part, ServerError> {
    let meanings = meanings(query, names)?;
    reference::check_views(query, names)?;
    if query.verb == Verb::Merge {
        return merge::route((text, statement), query, names, &meanings);
    }
    let kinds = Kinds::of(&meanings);
    if query.features.only && kinds.reference && !kinds.sharded {
        return Err(ServerError::refused(
            "ONLY is not supported for reference tables",
            "What inherits from a reference table is not known.",
            "Leave ONLY out.",
        ));
    }
    let calls = hint::declared(query, names);
    if !calls.is_empty() && (kinds.home || kinds.reference && writes(query)) {
        return Err(ServerError::refused(
            format!(
                "{}() can't be called beside a table of every or another node",
                calls[0].0.name
            ),
            "The policy declares that it runs on the node of its shard key.",
            "Call it in a statement of its own.",
        ));
    }
    if !calls.is_empty() && !kinds.sharded {
        return hint::of_calls(&calls, &statement.param_uses, names);
    }
    if kinds.sharded {
        let text = text.get(..statement.span.end).unwrap_or(text);
        sharded(query, (text, statement), names, &meanings, kinds)
    } else if kinds.reference {
        let text = text.get(..statement.span.end).unwrap_or(text);
        reference::route((text, statement), query, (&meanings, names), kinds)
    } else if kinds.home || writes(query) || query.features.into {
        Ok(Part::Home)
    } else {
        Ok(anywhere(query))
    }
}

/// Which kinds of table a query names.
#[derive(Clone, Copy, Default)]
pub(super) struct Kinds {
    sharded: bool,
    reference: bool,
    pub(super) home: bool,
}

impl Kinds {
    fn of(meanings: &Meanings<'_>) -> Self {
        let mut kinds = Self::default();
        for meaning in meanings.iter().flatten().flatten() {
            match meaning {
                Meaning::Sharded(..) => kinds.sharded = true,
                Meaning::Reference(_) => kinds.reference = true,
                Meaning::View(_) | Meaning::Home => kinds.home = true,
            }
        }
        kinds
    }
}

fn meanings<'a>(query: &Query, names: &Names<'a>) -> Result<Meanings<'a>, ServerError> {
    let meaning = |source: &Source| match source {
        Source::Table(name) => names.meaning(name).map(Some),
        Source::Cte(_) | Source::Derived(_) | Source::Rows | Source::Other => Ok(None),
    };
    let level =
        |level: &crate::sql::Level| level.tables.iter().map(|t| meaning(&t.source)).collect();
    let mut meanings = query.levels.iter().map(level).collect::<Result<_, _>>()?;
    through::resolve(query, &mut meanings, names);
    Ok(meanings)
}

pub(super) fn writes(query: &Query) -> bool {
    query.verb != Verb::Select || query.levels.iter().any(|level| level.target.is_some())
}

/// No home or sharded table: any node, unless a function may look for more.
pub(super) fn anywhere(query: &Query) -> Part {
    let known = query.functions.iter().all(functions::reads_only);
    if known && !query.features.locking && !query.features.into {
        Part::Anywhere
    } else {
        Part::Home
    }
}

fn sharded(
    query: &Query,
    (text, statement): (&str, &Statement),
    names: &Names<'_>,
    meanings: &Meanings<'_>,
    kinds: Kinds,
) -> Result<Part, ServerError> {
    let reads = query.verb == Verb::Select && !writes(query);
    check_clauses(query, reads)?;
    if let Some(select) = insert::select(query, text) {
        return Ok(Part::Select(select));
    }
    if kinds.home && !reads {
        return Err(write::mixed(query, meanings));
    }
    lookup::check_targets(query, meanings, names)?;
    system::check(statement)?;
    let calls = hint::declared(query, names);
    hint::check_calls(&calls, reads)?;
    let mut bound = lookup::bound(query, meanings, names);
    let mut keyed = Keyed::default();
    keyed.set_by_place(system::names_places(statement));
    let mut free = None;
    if let Some(table) = rekey::table(query, &bound) {
        let types = &names.map.groups()[table.group.index()].key;
        check_functions(query, meanings)?;
        let rekey = rekey::plan(query, (text, statement), (table, meanings, names), types)?;
        return Ok(insert::still_clock(text).map_or(Part::Rekey(rekey), Part::Evaluate));
    }
    if let Some(evaluation) = bind_tables(query, text, names, (&mut bound, &mut keyed, &mut free))?
    {
        return evaluate(evaluation, bound.sharded.len() > 1);
    }
    let main = bound.sharded.first().filter(|_| names.lookups);
    if let Some(upsert) =
        main.map(|table| upsert::plan(query, text, table, names)).transpose()?.flatten()
    {
        return Ok(Part::First(Arc::new(First::of_upsert(upsert))));
    }
    if !bound.looked_up.is_empty() {
        let Some(lookups) = lookup::lookups((query, statement), &bound, meanings, (names, free))
        else {
            return sharded(query, (text, statement), &names.plain(), meanings, kinds);
        };
        keyed.set_lookups(lookups);
    }
    hint::push_calls(&calls, free.is_some(), (&mut bound, &mut keyed), names)?;
    check_functions(query, meanings)?;
    if !calls.is_empty() {
        keyed.set_alone(&bound.key_uses, &statement.param_uses);
        return Ok(Part::Keyed(keyed));
    }
    keyed.set_alone(&bound.key_uses, &statement.param_uses);
    if write::is_change(query) {
        let spread = write::check_spread(query, statement, &bound, (meanings, names));
        let all = spread.map(|()| every_shard(&bound, names));
        return change(keyed, free, text, all);
    }
    if let Some(rows) = insert::splits(query, (text, statement), names) {
        keyed.set_by_leaf(rows.leaf.is_some());
        keyed.set_over(insert::still_clock(text).map_or(Over::Rows(rows), Over::Evaluate));
    }
    let spread = Spread { text, query, statement, names, meanings };
    match free {
        None if !reads => Ok(Part::Keyed(keyed)),
        // What is read at home need not be where the shard is, and ONLY would read nothing there.
        None if kinds.home || query.features.only => spread.pull(),
        None => Ok(Part::Keyed(spread.keyed(keyed, &bound))),
        Some(table) if !reads || query.features.locking => {
            scatter::locked(query, statement, &bound, meanings, &table)
        }
        Some(table) => spread.route(&bound, &table).map(|route| match route {
            Route::Scatter(group) => Part::Scatter(group),
            Route::Pull(pull) => Part::Pull(pull),
            _ => Part::Home,
        }),
    }
}

/// Tells the keys of all tables, and one that is not bound; or what has to be evaluated first.
fn bind_tables<'a>(
    query: &Query,
    text: &str,
    names: &Names<'_>,
    (bound, keyed, free): (&mut Bound<'a>, &mut Keyed, &mut Option<Sharded<'a>>),
) -> Result<Option<Arc<Evaluation>>, ServerError> {
    for table in bound.sharded.clone() {
        let level = &query.levels[table.level];
        let target = level.target.as_ref().filter(|_| table.index == 0);
        if let Some(Target::Insert(insert)) = target {
            let types = &names.map.groups()[table.group.index()].key;
            let keys = match insert::keys(insert, query, text, &table, types)? {
                Rows::Keys(keys) => keys,
                Rows::Evaluate(first) => return Ok(Some(first)),
            };
            for columns in keys {
                columns.iter().for_each(|constants| bound.count_uses(constants));
                keyed.push(new_key(&table, Bind::Columns(columns), Use::Store, names), names.map);
            }
            continue;
        }
        match binding(bound, &table, names) {
            Some(bind) => keyed.push(new_key(&table, bind, Use::Compare, names), names.map),
            None => *free = free.or(Some(table)),
        }
    }
    Ok(None)
}

pub(super) fn check_clauses(query: &Query, reads: bool) -> Result<(), ServerError> {
    if query.features.only && !reads {
        return Err(ServerError::refused(
            "ONLY is not supported for sharded tables that are written",
            "A sharded table is partitioned, so that ONLY would find nothing.",
            "Leave ONLY out.",
        ));
    }
    if query.features.into {
        return Err(ServerError::refused(
            "SELECT INTO from a sharded table is not supported",
            "The new table would be on one node only.",
            "Create the table first.",
        ));
    }
    Ok(())
}

/// Refuses functions that belong to the home node, and writes to reference tables.
pub(super) fn check_functions(query: &Query, meanings: &Meanings<'_>) -> Result<(), ServerError> {
    if let Some(table) = reference::target(query, meanings) {
        return Err(ServerError::refused(
            format!("\"{}\" can't be written beside a sharded table", table.name.name),
            "A reference table is written on every node, a sharded one on the nodes of its shards.",
            "Write them in two statements.",
        ));
    }

    for call in &query.functions {
        if let Some(why) = functions::home_only(call) {
            return Err(ServerError::refused(
                format!("{}() can't be called beside a sharded table", call.name),
                why,
                "Call it in a statement of its own.",
            ));
        }
    }
    Ok(())
}

/// A SELECT that one node is not enough for.
struct Spread<'a, 'b> {
    text: &'a str,
    query: &'a Query,
    statement: &'a Statement,
    names: &'a Names<'b>,
    meanings: &'a Meanings<'b>,
}

impl Spread<'_, '_> {
    /// What is bound to shards, with what to do where one node is not enough.
    fn keyed(&self, mut keyed: Keyed, bound: &Bound<'_>) -> Keyed {
        let Some(first) = bound.sharded.first() else { return keyed };
        if self.query.features.locking {
            match scatter::locked(self.query, self.statement, bound, self.meanings, first) {
                Ok(Part::Lock(lock)) => keyed.set_otherwise(Route::Lock(lock)),
                Ok(_) => keyed.set_over(Over::Write),
                Err(_) => {}
            }
        } else if let Ok(route) = self.route(bound, first) {
            keyed.set_otherwise(route);
        }
        keyed
    }

    /// The cheaper of the ways that are right.
    fn route(&self, bound: &Bound<'_>, free: &Sharded<'_>) -> Result<Route, ServerError> {
        if !self.names.together
            && let Ok(Part::Scatter(group)) =
                scatter::route(self.query, (self.text, self.statement), bound, self.meanings, free)
        {
            return Ok(Route::Scatter(group));
        }
        let mut pull = pull::plan(self.query, self.statement, self.names, self.meanings)?;
        if scatter::apart(self.query, bound, self.meanings, free).is_none() {
            pull.reduction = pull::reduction(self.query, self.meanings, free.group);
        }
        Ok(Route::Pull(Arc::new(pull)))
    }

    fn pull(&self) -> Result<Part, ServerError> {
        let pull = pull::plan(self.query, self.statement, self.names, self.meanings)?;
        Ok(Part::Pull(Arc::new(pull)))
    }
}

/// UPDATE and DELETE: on one node, or on each that has rows.
fn change(
    mut keyed: Keyed,
    free: Option<Sharded<'_>>,
    text: &str,
    all: Result<Route, ServerError>,
) -> Result<Part, ServerError> {
    let Some(free) = free else {
        if let Ok(all) = all {
            let clock = insert::still_clock(text);
            keyed.set_otherwise(clock.clone().map_or(all, Route::Evaluate));
            keyed.set_over(clock.map_or(Over::Write, Over::Evaluate));
        }
        return Ok(Part::Keyed(keyed));
    };
    all?;
    Ok(insert::still_clock(text).map_or(Part::Write(free.group), Part::Evaluate))
}

/// A write to all shards of the target's group.
pub(super) fn every_shard(bound: &Bound<'_>, names: &Names<'_>) -> Route {
    let group = bound.sharded.first().map(|table| table.group);
    let of_group = names.map.shards().filter(|(_, shard)| Some(shard.group) == group);
    Route::Write(of_group.map(|(id, _)| id).collect())
}

/// What is evaluated at home must not read sharded tables.
fn evaluate(first: Arc<Evaluation>, others: bool) -> Result<Part, ServerError> {
    let reads = |piece: &insert::Piece| piece.expression.to_ascii_lowercase().contains("select");
    if others && first.pieces.iter().any(reads) {
        return Err(ServerError::refused(
            "a subquery can't give the shard key here",
            "It reads a sharded table, and where the row belongs must be known first.",
            "Run the subquery first and give its result as a literal or parameter.",
        ));
    }
    Ok(Part::Evaluate(first))
}

/// What the query says of a table's key, if that can leave shards out.
pub(super) fn binding(bound: &Bound<'_>, table: &Sharded<'_>, names: &Names<'_>) -> Option<Bind> {
    if let Some(columns) = bound.constants_of(table) {
        return Some(Bind::Columns(columns.into_iter().map(<[_]>::to_vec).collect()));
    }
    let by_range = names.map.method(table.group) == Method::Range;
    bound.limits_of(table).filter(|_| by_range).map(Bind::Limits)
}

pub(super) fn new_key(table: &Sharded<'_>, bind: Bind, used: Use, names: &Names<'_>) -> NewKey {
    let types = &names.map.groups()[table.group.index()].key;
    let cut = |(name, key_type): (&String, &KeyType)| {
        let column = table.table.columns.iter().find(|column| column.name == *name);
        *key_type == KeyType::Text && column.is_none_or(|column| column.type_oid != TEXT_OID)
    };
    let cuts_blanks = used == Use::Store && table.key.iter().zip(types).any(cut);
    NewKey { table: table.table.name.name.clone(), group: table.group, bind, used, cuts_blanks }
}

/// `pg_type.oid` of text, which has no length.
const TEXT_OID: u32 = 25;
