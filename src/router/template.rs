//! A text, analysed once against one shard map.

use std::sync::{Arc, OnceLock};

use super::hint;
use super::keyed::Keyed;
use super::names::Names;
use super::part::Part;
use super::statement::{Analysis, analyse};
use super::views;
use super::{Access, Context, Control, LeafSite, Leaves, Params, Route};
use crate::ids::{Epoch, GroupId, NodeId, ShardId};
use crate::shard_map::{KeyValue, ShardMap};
use crate::sql::{
    CopyStatement, DdlStatement, Statement, StatementKind, TableName, UseCursor, hint, parse,
};
use crate::wire::ServerError;

/// A text that was analysed against one map: what does not depend on parameters is decided.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent marks")]
pub struct Template {
    /// Of the map that it was analysed against.
    pub epoch: Epoch,
    /// How many statements the text holds; 0 for an empty one.
    pub statement_count: usize,
    /// What it does to the session, if it is exactly one statement.
    pub control: Control,
    /// The strongest access of its statements.
    pub access: Access,
    /// What it may leave in the session of its server.
    pub leaves: Leaves,
    /// Names of settings that it sets and that no server lists.
    pub custom_settings: Vec<String>,
    /// It may change the search path, or how strings are read.
    pub changes_reading: bool,
    /// A text of several statements that begins or ends a transaction on the way, or PREPARE
    /// TRANSACTION: never send it to one node of a transaction that has joined another.
    pub moves_transaction: bool,
    /// Where a leaf could stand for the table of a point statement.
    pub leaf: Option<LeafSite>,
    /// Names of tables and views, without their schemas, of which the map says nothing or that they
    /// are views.
    pub relations: Vec<String>,
    /// Names that mean what they mean by the order of the search path, each with the schema that has
    /// it, as far as is known.
    pub placed: Vec<(String, String)>,
    /// Functions of users that it calls and that were immutable when the map was made.
    pub trusted: Vec<String>,
    /// It closes all cursors.
    pub closes_cursors: bool,
    /// It may change what a lookup table says.
    pub keeps_lookups: bool,
    /// It may define tables that are at home only.
    pub defines_at_home: bool,
    /// It may change the definition of a table that is being imported.
    pub defines_imported: bool,
    /// What the home node is sent instead: the same with the system catalog as the application
    /// thinks of its tables.
    pub shown: Option<Box<str>>,
    /// Its text without plain literals, cut, once somebody has asked.
    fingerprint: OnceLock<Arc<str>>,
    target: Target,
}

#[derive(Debug, Clone)]
enum Target {
    Fixed(Route),
    Keyed(Keyed),
    Refused(ServerError),
}

/// DDL that concerns all nodes, with its names resolved: goes to `planner::ddl`.
#[derive(Debug, Clone)]
pub struct Ddl {
    /// The statement, perhaps behind blanks.
    pub text: String,
    /// The same, read; its byte positions are those in `text`.
    pub statement: DdlStatement,
    /// The schemas in which unqualified names are looked up, in order.
    pub search_path: Vec<String>,
    /// It is for the home node alone.
    pub home_only: bool,
}

/// `COPY … FROM STDIN` with its table resolved: goes to `planner::copy_in`.
#[derive(Debug, Clone)]
pub struct CopyIn {
    /// The statement.
    pub text: String,
    /// The sharded or reference table.
    pub table: TableName,
    /// The same, read.
    pub statement: CopyStatement,
}

/// `COPY … TO STDOUT` of rows on all nodes of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOut {
    /// What each node is sent.
    pub text: String,
    /// The group whose nodes have the rows.
    pub group: GroupId,
    /// There is a header, which the client wants once.
    pub header: bool,
    /// The format is binary.
    pub binary: bool,
}

/// Analyses a text.
pub fn template(text: &str, context: &Context<'_>, map: &ShardMap) -> Template {
    analysed(text, context, Names::new(context, map))
}

/// The same for rows that are fetched in portions: what needs several nodes is brought together.
pub fn template_together(text: &str, context: &Context<'_>, map: &ShardMap) -> Template {
    analysed(text, context, Names { together: true, ..Names::new(context, map).plain() })
}

/// The same without what lookups say.
pub fn template_plain(text: &str, context: &Context<'_>, map: &ShardMap) -> Template {
    analysed(text, context, Names::new(context, map).plain())
}

fn analysed(text: &str, context: &Context<'_>, mut names: Names<'_>) -> Template {
    let (mut parsed, map) = (parse(text, context.strings), names.map);
    names.mark_overloads(&mut parsed.statements);
    names.lookups &= parsed.statements.len() == 1;
    let mut analyses: Vec<Analysis> =
        parsed.statements.iter().map(|statement| analyse(text, statement, &names)).collect();
    if let Some(hint) = names.active().then(|| hint(text)).flatten() {
        match (analyses.as_mut_slice(), parsed.statements.as_slice()) {
            ([analysis], [statement]) => hint::apply(analysis, statement, hint, &names),
            ([], _) => {}
            ([first, ..], _) => first.part = Err(hint::before_several()),
        }
    }
    if hint(text).is_none() {
        check_functions(&mut analyses, &parsed.statements, &names);
    }
    let several = analyses.len() > 1;
    let control = match analyses.as_mut_slice() {
        [only] => std::mem::replace(&mut only.control, Control::None),
        _ => Control::None,
    };
    let access = |analysis: &Analysis| analysis.access;
    let strongest = |a: Access, b: Access| if rank(b) > rank(a) { b } else { a };
    Template {
        epoch: map.epoch(),
        statement_count: parsed.statements.len(),
        control,
        access: analyses.iter().map(access).fold(Access::Read, strongest),
        leaves: leaves(&analyses, several && parsed.statements.iter().any(changes_session)),
        custom_settings: custom_settings(&parsed.statements),
        changes_reading: parsed.statements.iter().any(changes_reading),
        moves_transaction: parsed.statements.iter().any(|statement| {
            several && moves_transaction(statement) || prepares_transaction(statement)
        }),
        leaf: leaf(text, &parsed.statements, &names),
        relations: names.relations(&parsed.statements),
        placed: names.placed(&parsed.statements),
        trusted: names.trusted(&parsed.statements),
        closes_cursors: parsed.statements.iter().any(closes_cursors),
        keeps_lookups: parsed.statements.iter().any(|it| super::lookup::keeps(it, &names)),
        defines_at_home: parsed.statements.iter().any(defines_at_home),
        defines_imported: parsed.statements.iter().any(|it| defines_imported(it, &names)),
        shown: None,
        fingerprint: OnceLock::new(),
        target: target(analyses, &parsed.statements, &names),
    }
}

fn leaf(text: &str, statements: &[Statement], names: &Names<'_>) -> Option<LeafSite> {
    let [Statement { kind: StatementKind::Query(query), .. }] = statements else { return None };
    super::leaf::site(text, query, &statements[0], names)
}

/// Functions that are known to name sharded tables run where a hint or the policy says only.
fn check_functions(analyses: &mut [Analysis], statements: &[Statement], names: &Names<'_>) {
    for (analysis, statement) in analyses.iter_mut().zip(statements) {
        let (StatementKind::Query(query) | StatementKind::Explain { query, .. }) = &statement.kind
        else {
            continue;
        };
        if analysis.part.is_ok()
            && let Err(error) = views::check_functions(query, names)
        {
            analysis.part = Err(error);
        }
    }
}

/// Whatever is no plain query or COPY and may name a table on its way from home to its nodes.
fn defines_imported(statement: &Statement, names: &Names<'_>) -> bool {
    let imported = names.map.importing();
    let defines = matches!(statement.kind, StatementKind::Ddl(_) | StatementKind::Other { .. });
    let all = || statement.has("all") && (statement.has("tables") || statement.has("sequences"));
    !imported.is_empty()
        && defines
        && names.context.database == names.map.database()
        && (all() || imported.iter().any(|table| statement.may_name(&table.name)))
}

/// It may change which tables and columns the home node has, or lock them against readers.
fn defines_at_home(statement: &Statement) -> bool {
    let StatementKind::Ddl(ddl) = &statement.kind else { return false };
    match ddl {
        DdlStatement::CreateTable(table) => !table.temporary,
        DdlStatement::AlterTable(_)
        | DdlStatement::View(_)
        | DdlStatement::DropTable(_)
        | DdlStatement::Truncate(_) => true,
        _ => false,
    }
}

fn closes_cursors(statement: &Statement) -> bool {
    let all = UseCursor { name: None, closes: true };
    matches!(&statement.kind, StatementKind::UseCursor(used) if *used == all)
}

fn rank(access: Access) -> u8 {
    match access {
        Access::Read => 0,
        Access::Write => 1,
        Access::Ddl => 2,
    }
}

fn leaves(analyses: &[Analysis], settings: bool) -> Leaves {
    let most = analyses.iter().map(|analysis| analysis.leaves).max().unwrap_or_default();
    if settings { most.max(Leaves::State) } else { most }
}

fn custom_settings(statements: &[Statement]) -> Vec<String> {
    statements.iter().flat_map(super::leaves::custom_settings).collect()
}

/// It sets what the proxy has to know, in whatever way, or calls what may do so.
fn changes_reading(statement: &Statement) -> bool {
    let query = matches!(statement.kind, StatementKind::Query(_) | StatementKind::Explain { .. });
    // The SET of an UPDATE sets columns.
    moves_names(statement) || statement.has("set_config") || !query && statement.has("set")
}

/// A text of several statements leaves settings behind.
fn changes_session(statement: &Statement) -> bool {
    matches!(
        &statement.kind,
        StatementKind::Control(Control::Set { .. } | Control::Reset { .. } | Control::Discard(_))
    )
}

fn moves_transaction(statement: &Statement) -> bool {
    matches!(&statement.kind, StatementKind::Control(control) if control.moves_transaction())
}

/// A block begins that does not end in the text: what node joins it later has to know how it began. What
/// is set in the text is reported at its end, so that such a text stays whole.
fn leaves_a_block(statements: &[Statement]) -> bool {
    let control = |statement: &Statement, which: fn(&Control) -> bool| matches!(&statement.kind, StatementKind::Control(control) if which(control));
    let begins = |it: &Statement| {
        let chains = |it: &Control| match it {
            Control::Begin => true,
            Control::Commit { chain } | Control::Rollback { chain } => *chain,
            _ => false,
        };
        control(it, chains)
    };
    let ends = |it: &Statement| {
        let over = |it: &Control| match it {
            Control::Commit { chain } | Control::Rollback { chain } => !chain,
            _ => false,
        };
        control(it, over)
    };
    let begun = statements.iter().rposition(begins);
    let is_left = begun.is_some_and(|at| !statements[at..].iter().any(ends));
    is_left && !statements.iter().any(changes_session)
}

fn prepares_transaction(statement: &Statement) -> bool {
    matches!(&statement.kind, StatementKind::Other { verb, .. } if verb == "prepare")
        && statement.has("transaction")
}

/// About prepared statements, some of which only the proxy knows.
fn is_prepared(statement: &Statement) -> bool {
    matches!(
        &statement.kind,
        StatementKind::Control(
            Control::Prepare(_) | Control::Execute(_) | Control::Deallocate { .. }
        )
    )
}

/// Later statements of the same text would be read with the wrong search path.
fn moves_names(statement: &Statement) -> bool {
    match &statement.kind {
        StatementKind::Control(Control::Set { name, .. } | Control::Reset { name: Some(name) }) => {
            name == "search_path"
        }
        StatementKind::Control(Control::Reset { name: None } | Control::Discard(_)) => true,
        _ => false,
    }
}

fn target(analyses: Vec<Analysis>, statements: &[Statement], names: &Names<'_>) -> Target {
    let several = analyses.len() > 1;
    // What comes last changes them for nobody: drivers end the reset of a connection so.
    let others = statements.split_last().map_or(&[][..], |(_, others)| others);
    let alone = several && !statements.iter().any(prepares_transaction);
    if alone && (statements.iter().any(is_prepared) || leaves_a_block(statements)) {
        return one_by_one(statements);
    }
    if several && names.active() && others.iter().any(moves_names) {
        if alone {
            return one_by_one(statements);
        }
        return Target::Refused(together("One changes what names mean for the others."));
    }
    let mut parts = Vec::with_capacity(analyses.len());
    for analysis in analyses {
        match analysis.part {
            Ok(part) => parts.push(part),
            Err(error) => return Target::Refused(error),
        }
    }
    let keeps = several && statements.iter().any(|it| super::lookup::keeps(it, names));
    let part = match parts.len() {
        0 => Part::Anywhere,
        1 => parts.remove(0),
        _ if keeps && alone => return one_by_one(statements),
        _ => match combine(parts, names.map) {
            Ok(Part::Keyed(mut keyed)) if alone => {
                keyed.set_otherwise(several_route(statements));
                Part::Keyed(keyed)
            }
            Ok(part) => part,
            Err(_) if alone => return one_by_one(statements),
            Err(error) => return Target::Refused(error),
        },
    };
    match part {
        Part::Anywhere => Target::Fixed(Route::Anywhere),
        Part::Home => Target::Fixed(Route::Home),
        Part::Shards(shards) => Target::Fixed(Route::Shards(shards)),
        Part::Scatter(group) => Target::Fixed(Route::Scatter(group)),
        Part::Explain(explained) => Target::Fixed(Route::Explain(explained)),
        Part::Pull(pull) => Target::Fixed(Route::Pull(pull)),
        Part::EveryNode => Target::Fixed(Route::EveryNode),
        Part::Write(group) => {
            let of_group =
                |(id, shard): (_, &crate::shard_map::Shard)| (shard.group == group).then_some(id);
            Target::Fixed(Route::Write(names.map.shards().filter_map(of_group).collect()))
        }
        Part::Declare(route) => Target::Fixed(route),
        Part::Cursor(used) => Target::Fixed(Route::Cursor(used)),
        Part::CopyOut(copy) => Target::Fixed(Route::CopyOut(copy)),
        Part::Select(insert) => Target::Fixed(Route::Select(insert)),
        Part::First(first) => Target::Fixed(Route::First(first)),
        Part::Lock(lock) => Target::Fixed(Route::Lock(lock)),
        Part::Rekey(rekey) => Target::Fixed(Route::Rekey(rekey)),
        Part::Merge(merge) => Target::Fixed(Route::Merge(merge)),
        Part::TableAs(made) => Target::Fixed(Route::TableAs(made)),
        Part::Materialized(made) => Target::Fixed(Route::Materialized(made)),
        Part::Evaluate(first) => Target::Fixed(Route::Evaluate(first)),
        Part::Ddl(ddl) => Target::Fixed(Route::Ddl(ddl)),
        Part::CopyIn(copy) => Target::Fixed(Route::CopyIn(copy)),
        Part::Keyed(keyed) if keyed.depends_on_params() => Target::Keyed(keyed),
        Part::Keyed(keyed) => match keyed.route(&Params::default()) {
            Ok(route) => Target::Fixed(route),
            Err(error) => Target::Refused(error),
        },
    }
}

/// Each statement on its own.
fn one_by_one(statements: &[Statement]) -> Target {
    Target::Fixed(several_route(statements))
}

fn several_route(statements: &[Statement]) -> Route {
    Route::Several(statements.iter().map(|statement| statement.span.clone()).collect())
}

/// The one node of several statements.
fn combine(parts: Vec<Part>, map: &ShardMap) -> Result<Part, ServerError> {
    let mut all = Part::Anywhere;
    for part in parts {
        // Among others only the home node's own cursors are used.
        let part = if let Part::Cursor(_) = part { Part::Home } else { part };
        all = match (all, part) {
            (Part::Anywhere, Part::Keyed(keyed)) if !keyed.is_declared() => {
                Part::Keyed(keyed.among_others())
            }
            (Part::Anywhere, part @ (Part::Home | Part::Anywhere)) => part,
            (all @ (Part::Home | Part::Keyed(_)), Part::Anywhere) => all,
            (Part::Home, Part::Home) => Part::Home,
            (Part::Keyed(mut keyed), Part::Keyed(other)) if !other.is_declared() => {
                keyed.extend(other, map);
                Part::Keyed(keyed)
            }
            _ => return Err(together("They belong to different nodes, or to several.")),
        };
    }
    Ok(all)
}

fn together(why: &str) -> ServerError {
    ServerError::refused("these statements can't be sent in one text", why, "Send them one by one.")
}

impl Template {
    /// Whether it can go to the home node as it is.
    pub fn is_for_home(&self) -> bool {
        matches!(self.target, Target::Fixed(Route::Anywhere | Route::Home))
    }

    /// Whether all that it does is done by the text as it is, sent to its node.
    pub fn is_plain(&self) -> bool {
        let noted = self.changes_reading || self.moves_transaction || self.closes_cursors;
        !noted && self.leaves == Leaves::Nothing && self.shown.is_none()
    }

    /// Whether it goes anywhere at all.
    ///
    /// # Errors
    /// 0A000 where it does not, whatever the parameters are.
    pub fn check(&self) -> Result<(), ServerError> {
        match &self.target {
            Target::Refused(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// The same, sent to the home node as `shown`.
    #[must_use]
    pub fn showing(self, shown: String) -> Self {
        Self { shown: Some(shown.into()), target: Target::Fixed(Route::Home), ..self }
    }

    /// Whether [`Template::route`] looks at its parameters.
    pub fn depends_on_params(&self) -> bool {
        matches!(self.target, Target::Keyed(_))
    }

    /// Whether it tells where any text of its shape goes: one statement, bound by its literals to
    /// shards, that does nothing to the session.
    pub fn serves_shape(&self) -> bool {
        let plain = matches!(self.control, Control::None)
            && self.leaves < Leaves::State
            && !self.moves_transaction;
        plain && self.statement_count == 1 && self.depends_on_params() && !self.changes_reading
    }

    /// The one shard that a statement of one key touches, and its node; `None` says nothing, and
    /// neither does it of what has to be looked at, noted or waited for beside its shard's gate.
    pub fn point(&self, params: &Params<'_>) -> Option<(ShardId, NodeId)> {
        let beside = self.keeps_lookups || self.moves_transaction || self.defines_imported;
        match &self.target {
            Target::Keyed(keyed) if !beside && self.names_are_sure() => keyed.point(params),
            _ => None,
        }
    }

    /// Nothing has to be asked of what its names mean.
    pub fn names_are_sure(&self) -> bool {
        self.relations.is_empty() && self.placed.is_empty()
    }

    /// What the texts that it serves have in common, for the samples of the load: made by `of_text` of
    /// any of them.
    pub fn fingerprint(&self, of_text: impl FnOnce() -> Arc<str>) -> Arc<str> {
        Arc::clone(self.fingerprint.get_or_init(of_text))
    }

    /// One of the keys that it is bound by, for the samples of the load: its first column, and the
    /// hash of all. Only where they are parameters, or literals of a shape.
    pub fn sample_key(&self, params: &Params<'_>) -> Option<(KeyValue, u64)> {
        match &self.target {
            Target::Keyed(keyed) => keyed.sample(params),
            _ => None,
        }
    }

    /// Where the text goes with these parameters, at the template's epoch.
    ///
    /// # Errors
    /// 0A000 where the right answer can't be had.
    pub fn route(&self, params: &Params<'_>) -> Result<Route, ServerError> {
        match &self.target {
            Target::Fixed(route) => Ok(route.clone()),
            Target::Keyed(keyed) => keyed.route(params),
            Target::Refused(error) => Err(error.clone()),
        }
    }
}
