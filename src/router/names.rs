//! What a table's name means in a session.

use super::Context;
use crate::ids::{GroupId, ShardId};
use crate::shard_map::{ShardMap, Table, TableKind, View, leaf_name};
use crate::sql::{
    CopyStatement, DdlStatement, DeclareCursor, Ident, Name, Query, Source, Statement,
    StatementKind, Strings, TableName,
};
use crate::wire::ServerError;

/// The schemas of the system catalog.
const CATALOG: [&str; 2] = ["information_schema", "pg_catalog"];

/// The session's names against the map's tables.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) map: &'a ShardMap,
    /// What needs several nodes is brought together, never only concatenated.
    pub(super) together: bool,
    /// Lookups may say where rows are.
    pub(super) lookups: bool,
}

/// What a name means.
#[derive(Clone, Copy)]
pub(super) enum Meaning<'a> {
    /// A sharded table, its group and key.
    Sharded(&'a Table, GroupId, &'a [String]),
    /// A reference table.
    Reference(&'a Table),
    /// A view that reads sharded tables.
    View(&'a View),
    /// A home table, another view, or the system catalog.
    Home,
}

impl<'a> Meaning<'a> {
    /// That of a table of the policy.
    pub(super) fn of(table: &'a Table) -> Self {
        match &table.kind {
            TableKind::Sharded { group, key } => Self::Sharded(table, *group, key),
            TableKind::Reference => Self::Reference(table),
        }
    }
}

impl<'a> Names<'a> {
    pub(super) fn new(context: &'a Context<'a>, map: &'a ShardMap) -> Self {
        Self { context, map, together: false, lookups: true }
    }

    /// The same without lookups.
    pub(super) fn plain(&self) -> Self {
        Self { lookups: false, ..*self }
    }

    /// Whether any name can mean a table of the policy.
    pub(super) fn active(&self) -> bool {
        !self.map.tables().is_empty() && self.context.database == self.map.database()
    }

    /// What `name` means.
    ///
    /// # Errors
    /// It is a leaf of a sharded table.
    pub(super) fn meaning(&self, name: &Name) -> Result<Meaning<'a>, ServerError> {
        if !self.active() {
            return Ok(Meaning::Home);
        }
        if self.is_leaf(&name.name) {
            return Err(ServerError::refused(
                format!("\"{}\" is a partition that foreshard manages", name.name),
                "Partitions move between nodes; only their parent is reachable through the proxy.",
                "Name the sharded table instead.",
            ));
        }
        Ok(match &name.schema {
            Some(schema) => self.qualified(schema, &name.name),
            None => self.unqualified(&name.name),
        })
    }

    /// What a new table of this name will be: it is made in the first schema of the path.
    ///
    /// # Errors
    /// It has the name of a partition.
    pub(super) fn made(&self, name: &Name) -> Result<Meaning<'a>, ServerError> {
        let schema = name.schema.as_ref().or_else(|| self.schemas().next());
        self.meaning(&Name { schema: schema.cloned(), ..name.clone() })
    }

    /// How strings are read.
    pub(super) fn strings(&self) -> Strings {
        self.context.strings
    }

    /// The schemas of the path, in order.
    pub(super) fn path(&self) -> Vec<String> {
        self.context.search_path.to_vec()
    }

    fn qualified(&self, schema: &str, name: &str) -> Meaning<'a> {
        let name = TableName::new(schema, name);
        match self.map.table(&name) {
            None => self.map.view(&name).map_or(Meaning::Home, Meaning::View),
            Some(table) => Meaning::of(table),
        }
    }

    /// The first schema of the path that has the name decides. A temporary table hides all of them,
    /// which is why one with the name of a table of the policy is refused when it is made.
    fn unqualified(&self, name: &str) -> Meaning<'a> {
        for schema in self.schemas() {
            match self.qualified(schema, name) {
                Meaning::Home if self.is_namesake(schema, name) => break,
                Meaning::Home => {}
                found => return found,
            }
        }
        Meaning::Home
    }

    fn is_namesake(&self, schema: &str, name: &str) -> bool {
        let namesakes = &self.map.derived().namesakes;
        namesakes.iter().any(|known| known.name == name && known.schema == schema)
    }

    /// Names in statements that mean a table of the policy, or not, by what schemas before its own in
    /// the path hold: each with the schema that has it, as far as is known.
    pub(super) fn placed(&self, statements: &[Statement]) -> Vec<(String, String)> {
        let mut schemas = self.schemas();
        let (Some(first), true) = (schemas.next(), self.active()) else { return Vec::new() };
        let tables = self.map.tables().iter().map(|table| &table.name);
        let views = self.map.derived().views.iter().map(|view| &view.name);
        let mut found = Vec::new();
        for name in tables.chain(views) {
            let later = schemas.clone().any(|schema| *schema == name.schema);
            let ours = !matches!(self.qualified(first, &name.name), Meaning::Home);
            if !later || ours || !statements.iter().any(|it| it.may_name(&name.name)) {
                continue;
            }
            let known =
                |schema: &&String| self.map.knows(&TableName::new(schema.as_str(), &*name.name));
            found.extend(self.schemas().find(known).map(|it| (name.name.clone(), it.clone())));
        }
        found.sort();
        found.dedup();
        found
    }

    /// The schemas that can hold tables of the policy.
    pub(super) fn schemas(&self) -> impl Iterator<Item = &'a String> + Clone {
        let path = self.context.search_path;
        path.iter().filter(|schema| *schema != "pg_catalog")
    }

    /// Whether a table of this name, in any schema, is a partition of a sharded table.
    fn is_leaf(&self, name: &str) -> bool {
        let Some((_, digits)) = name.rsplit_once("_s") else { return false };
        let Ok(shard) = digits.parse() else { return false };
        let sharded = |table: &&Table| matches!(table.kind, TableKind::Sharded { .. });
        self.map
            .tables()
            .iter()
            .filter(sharded)
            .any(|table| leaf_name(&table.name, ShardId(shard)).name == name)
    }

    /// Whether a name means a view of the home node over reference tables.
    pub(super) fn is_of_copies(&self, name: &Name) -> bool {
        let known = |schema: &str| {
            let views = &self.map.derived().of_copies;
            views.iter().any(|view| view.name == name.name && view.schema == schema)
        };
        match &name.schema {
            Some(schema) => known(schema),
            None => self.schemas().any(|schema| known(schema)),
        }
    }

    /// A function whose name stands somewhere in a statement, or a home table with such triggers, that does
    /// something else on the home node than on all.
    pub(super) fn mentioned_code(&self, statement: &Statement) -> Option<&'a str> {
        let derived = self.map.derived();
        let known = derived.functions.iter().chain(&derived.callers).chain(&derived.entangled);
        let mut known = known.map(|it| it.name.as_str());
        known.find(|name| self.active() && statement.may_name(name))
    }

    /// Whether a name means a home table whose triggers or rules do something else there than on all nodes.
    pub(super) fn is_entangled(&self, name: &Name) -> bool {
        let tables = &self.map.derived().entangled;
        let known = |schema: &str| {
            tables.iter().any(|table| table.name == name.name && table.schema == schema)
        };
        match &name.schema {
            _ if tables.is_empty() => false,
            Some(schema) => known(schema),
            None => self.schemas().any(|schema| known(schema)),
        }
    }

    /// Such a view whose name stands somewhere in a statement.
    pub(super) fn mentioned_of_copies(&self, statement: &Statement) -> Option<&'a str> {
        let mut views = self.map.derived().of_copies.iter().map(|view| view.name.as_str());
        views.find(|view| statement.may_name(view))
    }

    /// The names of tables and views in statements that are not tables of the policy.
    pub(super) fn relations(&self, statements: &[Statement]) -> Vec<String> {
        if !self.active() {
            return Vec::new();
        }
        let mut found = Vec::new();
        for statement in statements {
            match &statement.kind {
                StatementKind::Query(query)
                | StatementKind::Explain { query, .. }
                | StatementKind::Declare(DeclareCursor { query, .. })
                | StatementKind::Copy(CopyStatement { query: Some(query), .. }) => {
                    self.add_relations(query, &mut found);
                }
                StatementKind::Ddl(DdlStatement::View(view)) => {
                    found.extend(view.names.iter().map(|name| name.name.clone()));
                    if let Some(query) = &view.query {
                        self.add_relations(query, &mut found);
                    }
                }
                _ => {}
            }
        }
        found.sort();
        found.dedup();
        found
    }

    fn add_relations(&self, query: &Query, found: &mut Vec<String>) {
        for table in query.levels.iter().flat_map(|level| &level.tables) {
            let Source::Table(name) = &table.source else { continue };
            let catalog = name.schema.as_deref().is_some_and(|schema| CATALOG.contains(&schema))
                || name.schema.is_none() && name.name.starts_with("pg_");
            let known = self.meaning(name);
            if !catalog && matches!(known, Ok(Meaning::Home | Meaning::View(_))) {
                found.push(name.name.clone());
            }
        }
    }

    /// ALTER TABLE may name a sequence: one that gives numbers to a table of the policy is on every node.
    ///
    /// # Errors
    /// It is such a sequence.
    pub(super) fn check_gives_no_numbers(&self, name: &Name) -> Result<(), ServerError> {
        let written = [format!(".{}'", name.name), format!(".{}'", Ident(name.name.clone()))];
        let named = |default: &String| {
            default.contains("nextval") && written.iter().any(|it| default.contains(it))
        };
        let columns = self.map.tables().iter().flat_map(|table| &table.columns);
        if !columns.filter_map(|column| column.default.as_ref()).any(named) {
            return Ok(());
        }
        Err(ServerError::refused(
            format!("ALTER TABLE can't give \"{}\" another name", name.name),
            "It may be a sequence that gives numbers to a table of the policy.",
            "Use ALTER SEQUENCE.",
        ))
    }

    /// The first sharded table, or partition of one, that a statement that was not read may name;
    /// else the first reference table.
    pub(super) fn mentioned(&self, statement: &Statement) -> Option<Mention<'a>> {
        if !self.active() {
            return None;
        }
        let named = |table: &&Table| statement.may_name(&table.name.name);
        let sharded = |table: &&Table| matches!(table.kind, TableKind::Sharded { .. });
        let tables = self.map.tables().iter();
        if let Some(table) = tables.clone().filter(sharded).find(named) {
            return Some(Mention::Sharded(&table.name.name));
        }
        let view = self.map.derived().views.iter().map(|view| &view.name.name);
        if let Some(view) = view.into_iter().find(|view| statement.may_name(view)) {
            return Some(Mention::Sharded(view));
        }
        if statement.identifiers.iter().any(|name| self.is_leaf(name)) {
            return Some(Mention::Sharded("a partition of a sharded table"));
        }
        tables.clone().find(named).map(|table| Mention::Reference(&table.name.name))
    }
}

/// A table of the policy whose name stands somewhere in a statement.
#[derive(Clone, Copy)]
pub(super) enum Mention<'a> {
    Sharded(&'a str),
    Reference(&'a str),
}

impl<'a> Mention<'a> {
    pub(super) fn name(self) -> &'a str {
        match self {
            Self::Sharded(name) | Self::Reference(name) => name,
        }
    }
}
