//! The route of definitions and of COPY.

use std::sync::Arc;

use super::names::{Meaning, Mention, Names};
use super::part::Part;
use super::statement::Analysis;
use super::{Access, CopyIn, CopyOut, Ddl, Route, global, lookup, query, reference, view};
use crate::ids::GroupId;
use crate::shard_map::{Table, TableKind};
use crate::sql::{
    AlterAction, AlterTable, ConstraintKind, CopyFormat, CopyStatement, CreateTable, DdlStatement,
    Ident, Name, Statement, TableAs, TableElement, ViewStatement, ViewVerb, materialized, table_as,
};
use crate::wire::ServerError;

/// Where a definition belongs: on every node as soon as it is about a table of the policy, or about
/// what tables are made of; else at home.
pub(super) fn analyse(
    text: &str,
    ddl: &DdlStatement,
    statement: &Statement,
    names: &Names<'_>,
) -> Analysis {
    let place = if names.active() { place(ddl, statement, names) } else { Ok(Place::Home) };
    if let Some(made) = made_of_rows(text, ddl, statement, names).filter(|_| place.is_err()) {
        return Analysis::new(Access::Ddl, Ok(Part::TableAs(Arc::new(made))));
    }
    let locks = matches!(ddl, DdlStatement::Lock(_));
    let part = place.and_then(|place| match place {
        Place::Home => Ok(Part::Home),
        Place::Kept => kept(text, statement, names),
        // Each node locks its own part.
        Place::Alike => Ok(Part::EveryNode),
        Place::Nodes | Place::HomeOnly => {
            let home_only = place == Place::HomeOnly;
            let first = statement.span.start;
            let text = &text[statement.span.clone()];
            // The positions are those of the whole text: keep what is before it as blanks.
            let text = format!("{}{text}", " ".repeat(first));
            let search_path = names.path();
            let statement = of_view(ddl, &text, names).unwrap_or_else(|| ddl.clone());
            Ok(Part::Ddl(Arc::new(Ddl { text, statement, search_path, home_only })))
        }
    });
    Analysis::new(if locks { Access::Write } else { Access::Ddl }, part)
}

/// ALTER TABLE of a view, as `pg_dump` writes it: ALTER VIEW.
fn of_view(ddl: &DdlStatement, text: &str, names: &Names<'_>) -> Option<DdlStatement> {
    let DdlStatement::AlterTable(table) = ddl else { return None };
    let Ok(Meaning::View(_)) = names.meaning(&table.name) else { return None };
    Some(DdlStatement::View(view_of(table, text)))
}

fn view_of(table: &AlterTable, text: &str) -> ViewStatement {
    let head = text.get(..table.name.span.start).unwrap_or_default().to_ascii_lowercase();
    ViewStatement {
        verb: ViewVerb::Alter,
        names: vec![table.name.clone()],
        if_exists: head.split_ascii_whitespace().any(|word| word == "exists"),
        materialized: false,
        temporary: false,
        query: None,
    }
}

/// A home table that is made of rows of several nodes.
fn made_of_rows(
    text: &str,
    ddl: &DdlStatement,
    statement: &Statement,
    names: &Names<'_>,
) -> Option<TableAs> {
    let DdlStatement::CreateTable(table) = ddl else { return None };
    let known = |known: &Table| known.name.name == table.name.name;
    let hides = table.temporary && names.map.tables().iter().any(known);
    let at_home = !hides && matches!(names.made(&table.name), Ok(Meaning::Home));
    let made = table_as(text.get(statement.span.clone())?, names.strings());
    made.filter(|_| at_home && table.elements.is_none())
}

/// A statement about materialized views that may be kept ones.
///
/// # Errors
/// It could not be read.
pub(super) fn kept(
    text: &str,
    statement: &Statement,
    names: &Names<'_>,
) -> Result<Part, ServerError> {
    let text = text.get(statement.span.clone()).unwrap_or_default();
    let read = materialized(text, names.strings());
    read.map(|it| Part::Materialized(Arc::new(it))).ok_or_else(|| {
        ServerError::refused(
            "this statement about a materialized view could not be read",
            "Its rows may be those of several nodes.",
            "Write it in a simpler form.",
        )
    })
}

/// Where a definition belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// An ordinary statement of the home node.
    Home,
    /// The home node, by a plan.
    HomeOnly,
    Nodes,
    /// Every node, as it is.
    Alike,
    /// The home node, which may keep rows of others in a materialized view.
    Kept,
}

fn place(
    ddl: &DdlStatement,
    statement: &Statement,
    names: &Names<'_>,
) -> Result<Place, ServerError> {
    global::check_tableoid(ddl, statement, names)?;
    match ddl {
        DdlStatement::CreateTable(table) => created(table, statement, names),
        DdlStatement::AlterTable(table) => altered(table, statement, names),
        DdlStatement::CreateIndex(index) => of_tables(std::slice::from_ref(&index.table), names),
        DdlStatement::DropTable(named) | DdlStatement::Analyze(named) => {
            of_any_tables(&named.names, names)
        }
        DdlStatement::Lock(named) => locked(&named.names, names),
        DdlStatement::Truncate(named) => {
            for name in &named.names {
                lookup::check_target(Some(&names.meaning(name)?), names)?;
                reference::check_entangled(name, names)?;
            }
            of_any_tables(&named.names, names)
        }
        DdlStatement::DropIndex(_) => Ok(Place::Nodes),
        DdlStatement::Maintenance(of) => of_tables(&of.tables, names)
            .map(|place| if of.tables.is_empty() { Place::Nodes } else { place }),
        DdlStatement::View(view) => view::place(view, statement, names),
        DdlStatement::Grant(grant) if grant.at_home => Ok(Place::Home),
        DdlStatement::Grant(grant) => match &grant.tables {
            Some(tables) => of_any_tables(tables, names),
            None => Ok(Place::Nodes),
        },
        DdlStatement::Comment => match names.mentioned(statement) {
            Some(_) => Ok(Place::Nodes),
            None => Ok(Place::Home),
        },
        DdlStatement::Global { object, routine, table } => {
            global::place(object, (routine.as_ref(), table.as_ref()), statement, names)
        }
    }
}

/// Where each table is.
fn places(tables: &[Name], names: &Names<'_>) -> Result<Vec<Place>, ServerError> {
    let place = |table: &Name| {
        Ok(match names.meaning(table)? {
            Meaning::View(view) if view.everywhere => Place::Nodes,
            Meaning::View(_) | Meaning::Home => Place::Home,
            Meaning::Sharded(..) | Meaning::Reference(_) => Place::Nodes,
        })
    };
    tables.iter().map(place).collect()
}

/// Some may be at home, others of the policy: the plan says which node is told of which.
fn of_any_tables(tables: &[Name], names: &Names<'_>) -> Result<Place, ServerError> {
    let all_home = places(tables, names)?.iter().all(|place| *place == Place::Home);
    Ok(if all_home { Place::Home } else { Place::Nodes })
}

/// LOCK: reference tables are locked on the home node, where all who write them come.
fn locked(tables: &[Name], names: &Names<'_>) -> Result<Place, ServerError> {
    let places = places(tables, names)?;
    let sharded = |table| Ok(matches!(names.meaning(table)?, Meaning::Sharded(..)));
    let sharded: Vec<bool> = tables.iter().map(sharded).collect::<Result<_, ServerError>>()?;
    Ok(if sharded.iter().all(|it| !it) {
        Place::Home
    } else if places.contains(&Place::Home) {
        Place::Nodes
    } else {
        Place::Alike
    })
}

/// All at home, or all of the policy.
fn of_tables(tables: &[Name], names: &Names<'_>) -> Result<Place, ServerError> {
    let places = places(tables, names)?;
    let first = places.first().copied().unwrap_or(Place::Home);
    if places.iter().any(|place| *place != first) {
        return Err(ServerError::refused(
            "home tables and tables of the policy can't be named in one statement",
            "The former are on the home node only, the latter on every node.",
            "Use two statements.",
        ));
    }
    Ok(first)
}

fn created(
    table: &CreateTable,
    statement: &Statement,
    names: &Names<'_>,
) -> Result<Place, ServerError> {
    let name = &table.name.name;
    if table.temporary {
        let views = names.map.derived().views.iter().map(|view| &view.name);
        if names.map.tables().iter().map(|known| &known.name).chain(views).any(|k| k.name == *name)
        {
            return Err(ServerError::refused(
                format!("a temporary table can't be named \"{name}\""),
                "It would hide a table of the policy in a way that the proxy can't see.",
                "Choose another name.",
            ));
        }
    } else if !matches!(names.made(&table.name)?, Meaning::Home | Meaning::View(_)) {
        return Ok(Place::Nodes);
    }
    let Some(elements) = &table.elements else {
        return match names.mentioned(statement) {
            Some(Mention::Sharded(sharded)) => Err(of_sharded("CREATE TABLE", sharded)),
            _ => Ok(Place::Home),
        };
    };
    for element in elements {
        match element {
            // It takes the columns, and no rows.
            TableElement::Like(_) => {}
            TableElement::Constraint(constraint) => foreign(&constraint.kind, names)?,
            TableElement::Column(column) => {
                for constraint in &column.constraints {
                    foreign(&constraint.kind, names)?;
                }
            }
        }
    }
    let inherits = table.clauses.iter().any(|clause| clause == "inherits");
    match names.mentioned(statement).filter(|_| inherits) {
        Some(mention) => Err(of_policy("INHERITS", mention)),
        None => Ok(Place::Home),
    }
}

/// A home table's foreign key can't reach a sharded table.
fn foreign(kind: &ConstraintKind, names: &Names<'_>) -> Result<(), ServerError> {
    match kind {
        ConstraintKind::Foreign(key) => sharded_is_refused("REFERENCES", &key.target, names),
        _ => Ok(()),
    }
}

fn sharded_is_refused(what: &str, name: &Name, names: &Names<'_>) -> Result<(), ServerError> {
    match names.meaning(name)? {
        Meaning::Sharded(table, ..) => Err(of_sharded(what, &table.name.name)),
        Meaning::Reference(_) | Meaning::View(_) | Meaning::Home => Ok(()),
    }
}

pub(super) fn of_sharded(what: &str, table: &str) -> ServerError {
    ServerError::refused(
        format!("{what} of a home table can't name the sharded table \"{table}\""),
        "The home node has only some of its rows.",
        "Declare the table as sharded or as a reference table in the policy.",
    )
}

/// A home table and one of the policy can't have rows of each other.
fn of_policy(what: &str, mention: Mention<'_>) -> ServerError {
    let Mention::Reference(table) = mention else { return of_sharded(what, mention.name()) };
    ServerError::refused(
        format!("{what} of a home table can't name the reference table \"{table}\""),
        "The home node has one of its copies, which have to stay equal.",
        "Use another table.",
    )
}

fn altered(table: &AlterTable, of: &Statement, names: &Names<'_>) -> Result<Place, ServerError> {
    if let Meaning::View(view) = names.meaning(&table.name)? {
        if table.only.is_some() {
            return Err(ServerError::refused(
                format!("ALTER TABLE ONLY can't change the view \"{}\"", view.name.name),
                "It reads sharded tables, and is on every node.",
                "Use ALTER VIEW.",
            ));
        }
        return view::place(&view_of(table, ""), of, names);
    }
    let place = of_tables(std::slice::from_ref(&table.name), names)?;
    if place == Place::Nodes {
        return Ok(place);
    }
    if let ([AlterAction::Other(what)], None) = (table.actions.as_slice(), &table.only)
        && what == "OWNER TO"
    {
        // It may be a materialized view, or a sequence.
        return Ok(Place::Kept);
    }
    for action in &table.actions {
        let taken = match action {
            AlterAction::Other(what) if action.takes_in() => {
                names.mentioned(of).map_or(Ok(()), |mention| Err(of_policy(what, mention)))?;
                None
            }
            AlterAction::AddConstraint(constraint) => {
                foreign(&constraint.kind, names)?;
                None
            }
            AlterAction::AddColumn(column) => {
                for constraint in &column.constraints {
                    foreign(&constraint.kind, names)?;
                }
                None
            }
            AlterAction::Rename(new) => Some(Name { name: new.clone(), ..table.name.clone() }),
            AlterAction::SetSchema(schema) => {
                Some(Name { schema: Some(schema.clone()), ..table.name.clone() })
            }
            _ => None,
        };
        let Some(taken) = taken else { continue };
        names.check_gives_no_numbers(&table.name)?;
        if !matches!(names.made(&taken)?, Meaning::Home) {
            return Err(ServerError::refused(
                format!("\"{}\" is a table of the policy", taken.name),
                "A home table can't take its name.",
                "Choose another name.",
            ));
        }
    }
    Ok(Place::Home)
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
    let Some(copy_table) = &copy.table else { return copy_query(text, copy, statement, names) };
    let table = match names.meaning(copy_table)? {
        Meaning::Home if copy.from => {
            return reference::check_entangled(copy_table, names).map(|()| Part::Home);
        }
        // A view takes no COPY: PostgreSQL says so.
        Meaning::View(_) | Meaning::Home => return Ok(Part::Home),
        Meaning::Reference(_) if !copy.from && copy.by_client => return Ok(Part::Anywhere),
        Meaning::Reference(table) | Meaning::Sharded(table, ..) => table,
    };
    let name = &table.name.name;
    if copy.from {
        lookup::check_target(names.meaning(copy_table).ok().as_ref(), names)?;
    }
    if !copy.by_client {
        return Err(ServerError::refused(
            format!("COPY of \"{name}\" by a file or program of the server is not supported"),
            "Each node has files of its own.",
            "Use COPY … FROM STDIN, or \\copy in psql.",
        ));
    }
    if !copy.from {
        return copy_table_out(text, copy, statement, table);
    }
    Ok(Part::CopyIn(Arc::new(CopyIn {
        text: text[statement.span.clone()].to_owned(),
        table: table.name.clone(),
        statement: copy.clone(),
    })))
}

/// A partitioned table gives its rows to COPY as a query only.
fn copy_table_out(
    text: &str,
    copy: &CopyStatement,
    statement: &Statement,
    table: &Table,
) -> Result<Part, ServerError> {
    let TableKind::Sharded { group, .. } = &table.kind else { return Ok(Part::Anywhere) };
    let known = || table.columns.iter().filter(|c| !c.generated).map(|c| c.name.clone()).collect();
    let columns: Vec<String> = copy.columns.clone().unwrap_or_else(known);
    if columns.is_empty() {
        return Err(ServerError::refused(
            format!("the columns of \"{}\" are not known", table.name.name),
            "The table does not exist, or was not created through the proxy.",
            "Write a column list.",
        ));
    }
    let columns: Vec<String> = columns.iter().map(|c| Ident::new(c).to_string()).collect();
    let rest = text.get(copy.target.start..statement.span.end).unwrap_or_default();
    let text = format!("COPY (SELECT {} FROM {}) TO {rest}", columns.join(", "), table.name);
    Ok(copy_out(text, copy, *group))
}

fn copy_out(text: String, copy: &CopyStatement, group: GroupId) -> Part {
    Part::CopyOut(out_of(text, copy, group))
}

fn out_of(text: String, copy: &CopyStatement, group: GroupId) -> Arc<CopyOut> {
    let (header, binary) = (copy.options.header, copy.options.format == CopyFormat::Binary);
    Arc::new(CopyOut { text, group, header, binary })
}

fn copy_query(
    text: &str,
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
    match query::route(text, inner, statement, &names.plain())? {
        Part::Scatter(group) if copy.by_client => {
            let text = text.get(statement.span.clone()).unwrap_or_default();
            Ok(copy_out(text.to_owned(), copy, group))
        }
        Part::Scatter(_)
        | Part::EveryNode
        | Part::Write(_)
        | Part::Evaluate(_)
        | Part::Select(_)
        | Part::Rekey(_)
        | Part::Lock(_)
        | Part::First(_)
        | Part::Merge(_) => Err(ServerError::refused(
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
        Part::Keyed(keyed) => {
            let mut keyed = keyed.on_one_node();
            keyed.explain_otherwise(|route| match route {
                Route::Scatter(group) => {
                    let text = text.get(statement.span.clone()).unwrap_or_default();
                    Some(Route::CopyOut(out_of(text.to_owned(), copy, group)))
                }
                other => Some(other),
            });
            Ok(Part::Keyed(keyed))
        }
        part => Ok(part),
    }
}
