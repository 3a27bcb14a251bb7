//! CREATE TABLE of a sharded table: a partitioned parent, its leaves, and foreign keys from leaf to
//! leaf; of a reference table: the same everywhere. CREATE INDEX.

use super::ddl::{DdlPlan, Scope, ShardedTable, Step, splice};
use super::shard_step::{ShardStep, Target};
use super::{LookupSql, concurrent, lookup};
use crate::router::is_pure_function;
use crate::shard_map::{KeyType, Method, TableKind};
use crate::sql::{
    ColumnDefinition, ConstraintKind, CreateIndex, CreateTable, ForeignKey, Ident, TableElement,
    TableName,
};
use crate::wire::{ServerError, SqlState};

/// Plans CREATE TABLE of a table of the policy.
///
/// # Errors
/// What does not work when its rows are on several nodes.
pub(super) fn table(create: &CreateTable, scope: &Scope<'_>) -> Result<DdlPlan, ServerError> {
    let Some(table) = scope.table(&create.name) else {
        return Err(ServerError::new(SqlState::INTERNAL_ERROR, "not a table of the policy"));
    };
    let name = &table.name;
    let Some(elements) = &create.elements else {
        return Err(refused(create, "AS, OF and PARTITION OF"));
    };
    let odd = create.clauses.iter().find(|clause| *clause != "tablespace");
    if let Some(clause) = odd {
        return Err(refused(create, &clause.to_uppercase()));
    }
    if create.unlogged {
        return Err(refused(create, "UNLOGGED"));
    }
    let mut plan = Create {
        scope,
        table: create,
        parts: Vec::new(),
        foreign: Vec::new(),
        name: name.clone(),
        sequences: Vec::new(),
    };
    let key = match &table.kind {
        TableKind::Reference => None,
        TableKind::Sharded { group, key } => Some(ShardedTable { table, group: *group, key }),
    };
    for element in elements {
        plan.element(element, key.as_ref())?;
    }
    let named = (create.name.span.clone(), name.to_string());
    let Some(key) = key else {
        let text = splice(scope.text, &[named]);
        let mut steps = vec![Step::Nodes(text)];
        if !create.if_not_exists || table.columns.is_empty() {
            steps.extend(plan.sequences);
        }
        return Ok(DdlPlan::new(vec![name.clone()], steps));
    };
    check_key(&key, elements, scope)?;
    let columns: Vec<String> =
        key.key.iter().map(|column| Ident::new(column).to_string()).collect();
    let method = scope.map.method(key.group).word().to_uppercase();
    let body =
        format!("({}) PARTITION BY {method} ({})", plan.parts.join(", "), columns.join(", "));
    let mut edits = vec![named, (create.body.clone(), body)];
    let mut with = String::new();
    if let Some(range) = &create.with {
        // Storage parameters are the leaves': a partitioned table has no storage.
        with = format!(" {}", scope.slice(range));
        edits.push((range.clone(), String::new()));
    }
    let leaf =
        ShardStep::CreateLeaf { table: name.clone(), if_not_exists: create.if_not_exists, with };
    let mut steps = vec![Step::Nodes(splice(scope.text, &edits))];
    if create.if_not_exists && !key.table.columns.is_empty() {
        // It is there: PostgreSQL says so in a notice.
        return Ok(DdlPlan::new(vec![name.clone()], steps));
    }
    steps.push(Step::Shards { group: key.group, step: leaf });
    steps.extend(plan.foreign);
    steps.extend(plan.sequences);
    let plan = DdlPlan::new(vec![name.clone()], steps);
    match scope.map.lookup(name) {
        None => Ok(plan),
        Some(lookup) => lookup::made(create, &LookupSql { map: scope.map, lookup }, plan),
    }
}

fn refused(create: &CreateTable, what: &str) -> ServerError {
    ServerError::refused(
        format!("{what} is not supported for the table \"{}\"", create.name.name),
        "It is a table of the policy, whose storage foreshard lays out on every node.",
        "Write CREATE TABLE with a plain list of columns and constraints.",
    )
}

struct Create<'a> {
    scope: &'a Scope<'a>,
    table: &'a CreateTable,
    /// The elements that stay with the parent.
    parts: Vec<String>,
    foreign: Vec<Step>,
    name: TableName,
    sequences: Vec<Step>,
}

impl Create<'_> {
    fn element(
        &mut self,
        element: &TableElement,
        key: Option<&ShardedTable<'_>>,
    ) -> Result<(), ServerError> {
        match element {
            TableElement::Like(_) => Err(refused(self.table, "LIKE")),
            TableElement::Column(column) => self.column(column, key),
            TableElement::Constraint(constraint) => {
                check_constraint(&constraint.kind, None, key)?;
                match (&constraint.kind, key) {
                    (ConstraintKind::Foreign(foreign), Some(key)) => {
                        let step = foreign_key(foreign, constraint.name.as_ref(), key, self.scope)?;
                        self.foreign.push(step);
                    }
                    (ConstraintKind::Foreign(foreign), None) => whole_target(foreign, self.scope)?,
                    _ => self.parts.push(self.scope.slice(&constraint.span).to_owned()),
                }
                Ok(())
            }
        }
    }

    fn column(
        &mut self,
        column: &ColumnDefinition,
        key: Option<&ShardedTable<'_>>,
    ) -> Result<(), ServerError> {
        self.sequences.extend(sequence_limit(column).map(|limit| Step::Sequence {
            table: self.name.clone(),
            column: column.name.clone(),
            limit,
        }));
        let mut edits = Vec::new();
        for constraint in &column.constraints {
            check_constraint(&constraint.kind, Some(&column.name), key)?;
            match (&constraint.kind, key) {
                (ConstraintKind::Foreign(foreign), Some(key)) => {
                    let mut foreign = foreign.clone();
                    foreign.columns = vec![column.name.clone()];
                    let step = foreign_key(&foreign, constraint.name.as_ref(), key, self.scope)?;
                    self.foreign.push(step);
                    edits.push((constraint.span.clone(), String::new()));
                }
                (ConstraintKind::Foreign(foreign), None) => whole_target(foreign, self.scope)?,
                _ => {}
            }
        }
        let start = column.span.start;
        let inside = |range: std::ops::Range<usize>| range.start - start..range.end - start;
        let edits: Vec<_> = edits.into_iter().map(|(range, new)| (inside(range), new)).collect();
        self.parts.push(splice(self.scope.slice(&column.span), &edits));
        Ok(())
    }
}

/// The largest number of a column that takes its values from a sequence of its own.
fn sequence_limit(column: &ColumnDefinition) -> Option<i64> {
    let identity = column.constraints.iter().any(|c| matches!(c.kind, ConstraintKind::Identity));
    match column.type_name.as_str() {
        "smallserial" | "serial2" => Some(i64::from(i16::MAX)),
        "serial" | "serial4" => Some(i64::from(i32::MAX)),
        "bigserial" | "serial8" => Some(i64::MAX),
        "smallint" | "int2" if identity => Some(i64::from(i16::MAX)),
        "integer" | "int" | "int4" if identity => Some(i64::from(i32::MAX)),
        _ => identity.then_some(i64::MAX),
    }
}

/// A column that is added to rows that are there: sequences and, for a copy on every node, changing
/// defaults.
pub(super) fn check_column(column: &ColumnDefinition, whole: bool) -> Result<(), ServerError> {
    if sequence_limit(column).is_some() {
        return Err(sequence(&column.name));
    }
    for constraint in &column.constraints {
        if let ConstraintKind::Default(calls) = &constraint.kind {
            check_default(&column.name, calls, whole)?;
        }
    }
    Ok(())
}

/// A default that calls `calls`.
pub(super) fn check_default(
    column: &str,
    calls: &[String],
    whole: bool,
) -> Result<(), ServerError> {
    if calls.iter().any(|call| call == "nextval") {
        return Err(sequence(column));
    }
    match calls.iter().find(|call| whole && !is_pure_function(call)) {
        None => Ok(()),
        Some(call) => Err(ServerError::refused(
            format!("{call} can't be the default of \"{column}\" in a reference table"),
            "Each node would store another value.",
            "Leave the default out and give the value in each INSERT.",
        )),
    }
}

fn sequence(column: &str) -> ServerError {
    ServerError::refused(
        format!("\"{column}\" can't be added with values from a sequence"),
        "Each node would number the rows that are there, so that numbers would come twice.",
        "Add the column without a default, fill it, then set its default.",
    )
}

/// A unique constraint is kept by each leaf alone.
pub(super) fn check_constraint(
    kind: &ConstraintKind,
    column: Option<&String>,
    key: Option<&ShardedTable<'_>>,
) -> Result<(), ServerError> {
    let Some(key) = key else { return Ok(()) };
    let (word, columns) = match kind {
        ConstraintKind::PrimaryKey(columns) => ("PRIMARY KEY", columns),
        ConstraintKind::Unique(columns) => ("UNIQUE", columns),
        ConstraintKind::Unsupported => {
            return Err(ServerError::refused(
                "EXCLUDE and USING INDEX are not supported for a sharded table",
                "PostgreSQL does not have them for partitioned tables.",
                "Use UNIQUE with the shard key in it.",
            ));
        }
        _ => return Ok(()),
    };
    let columns = match column {
        Some(column) => std::slice::from_ref(column),
        None => columns,
    };
    check_unique(word, columns, key)
}

fn check_unique(word: &str, columns: &[String], key: &ShardedTable<'_>) -> Result<(), ServerError> {
    let missing: Vec<&String> = key.key.iter().filter(|k| !columns.contains(k)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let all = missing.iter().copied().chain(columns);
    let all: Vec<String> = all.map(|column| shown(column)).collect();
    let lacks: Vec<String> = missing.iter().map(|column| shown(column)).collect();
    Err(ServerError::refused(
        format!(
            "{word} on the sharded table \"{}\" must include the shard key",
            key.table.name.name
        ),
        format!(
            "It lacks {}: uniqueness over all shards can't be kept by each alone.",
            lacks.join(", ")
        ),
        format!("Use {word} ({}).", all.join(", ")),
    ))
}

/// An identifier, in quotes only where it needs them.
fn shown(name: &str) -> String {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if plain { name.to_owned() } else { Ident::new(name).to_string() }
}

/// The shard key's columns are there, with the group's types.
fn check_key(
    key: &ShardedTable<'_>,
    elements: &[TableElement],
    scope: &Scope<'_>,
) -> Result<(), ServerError> {
    let types = &scope.map.groups()[key.group.index()].key;
    for (name, key_type) in key.key.iter().zip(types) {
        let column = elements.iter().find_map(|element| match element {
            TableElement::Column(column) if column.name == *name => Some(column),
            _ => None,
        });
        let wrong = |detail: String| {
            ServerError::refused(
                format!(
                    "the sharded table \"{}\" needs the shard key column {} {}",
                    key.table.name.name,
                    shown(name),
                    key_type.name()
                ),
                detail,
                "Add it, or change the key in the policy.",
            )
        };
        let Some(column) = column else { return Err(wrong("It has no such column.".to_owned())) };
        let type_name = match column.type_name.as_str() {
            "smallserial" | "serial2" => "smallint",
            "serial" | "serial4" => "integer",
            "bigserial" | "serial8" => "bigint",
            other => other,
        };
        if KeyType::from_name(type_name) != Some(*key_type) {
            return Err(wrong(format!("Its type is {} here.", column.type_name)));
        }
        if column.sized && *key_type == KeyType::Timestamptz {
            return Err(wrong(
                "With a precision it would be rounded before it is stored.".to_owned(),
            ));
        }
        let by_range = scope.map.method(key.group) == Method::Range;
        match column.collation.as_deref() {
            None if by_range && *key_type == KeyType::Text => {
                let why = "Ranges of texts follow the order of bytes: it needs COLLATE \"C\".";
                return Err(wrong(why.to_owned()));
            }
            None | Some("C" | "POSIX") => {}
            Some(_) => {
                let why = "Its collation could order or equate texts in another way.";
                return Err(wrong(why.to_owned()));
            }
        }
    }
    Ok(())
}

/// A foreign key of a sharded table, from leaf to leaf or to a reference table.
///
/// # Errors
/// Referenced rows could be on another node.
pub(super) fn foreign_key(
    foreign: &ForeignKey,
    name: Option<&String>,
    key: &ShardedTable<'_>,
    scope: &Scope<'_>,
) -> Result<Step, ServerError> {
    let refuse = |why: &str, hint: String| {
        let target = &foreign.target.name;
        Err(ServerError::refused(
            format!(
                "the foreign key from \"{}\" to \"{target}\" is not supported",
                key.table.name.name
            ),
            why,
            hint,
        ))
    };
    let Some(target) = scope.table(&foreign.target) else {
        let hint = "Declare the referenced table as a reference table in the policy.";
        return refuse("The referenced table is on the home node only.", hint.to_owned());
    };
    let target = match scope.sharded(&foreign.target) {
        None => Target::Whole(target.name.clone()),
        Some(sharded) => {
            let pairs = format!(
                "FOREIGN KEY ({}, …) REFERENCES {} ({}, …)",
                key.key.join(", "),
                shown(&foreign.target.name),
                sharded.key.join(", ")
            );
            if sharded.group != key.group {
                let hint = "Put both tables into one group.";
                return refuse("The tables are of different groups.", hint.to_owned());
            }
            // A primary key of one column is the shard key, as it has that in it.
            let primary = (foreign.columns.len() == 1).then_some(sharded.key);
            let written = foreign.target_columns.as_deref();
            let Some(columns) = written.or(primary) else {
                return refuse(
                    "Its referenced columns are not written.",
                    format!("Write {pairs}."),
                );
            };
            let together = key.key.iter().zip(sharded.key).all(|(own, other)| {
                foreign.columns.iter().zip(columns).any(|(a, b)| a == own && b == other)
            });
            if !together {
                let why = "It does not pair the shard keys, so that rows could be on two nodes.";
                return refuse(why, format!("Write {pairs}."));
            }
            Target::Leaf(sharded.table.name.clone())
        }
    };
    let list = |columns: &[String]| {
        let columns: Vec<String> = columns.iter().map(|c| Ident::new(c).to_string()).collect();
        format!("({})", columns.join(", "))
    };
    // Without a name it gets the one that the table's own key would have: every partition has it.
    let made_up = || {
        let mut made = format!("{}_{}_fkey", key.table.name.name, foreign.columns.join("_"));
        made.truncate(made.floor_char_boundary(63));
        made
    };
    let name = Ident::new(name.cloned().unwrap_or_else(made_up));
    let constraint = format!("CONSTRAINT {name} FOREIGN KEY {}", list(&foreign.columns));
    let target_columns = foreign.target_columns.as_deref().map(list);
    let actions = scope.slice(&foreign.actions).trim();
    let rest = match (target_columns, actions) {
        (None, "") => String::new(),
        (None, actions) => format!(" {actions}"),
        (Some(columns), "") => format!(" {columns}"),
        (Some(columns), actions) => format!(" {columns} {actions}"),
    };
    let step = ShardStep::ForeignKey { table: key.table.name.clone(), constraint, target, rest };
    Ok(Step::Shards { group: key.group, step })
}

/// A reference table references reference tables only.
pub(super) fn whole_target(foreign: &ForeignKey, scope: &Scope<'_>) -> Result<(), ServerError> {
    let whole = scope.table(&foreign.target).is_some_and(|t| t.kind == TableKind::Reference);
    if whole {
        return Ok(());
    }
    Err(ServerError::refused(
        format!("a reference table can't reference \"{}\"", foreign.target.name),
        "It is on every node, the rows of the other table are not.",
        "Declare the other table as a reference table, too.",
    ))
}

/// Plans CREATE INDEX on a table of the policy.
///
/// # Errors
/// A unique index without the shard key.
pub(super) fn index(index: &CreateIndex, scope: &Scope<'_>) -> Result<DdlPlan, ServerError> {
    let key = scope.sharded(&index.table);
    if let Some(key) = &key {
        if index.only {
            return Err(ServerError::refused(
                "CREATE INDEX ON ONLY is not supported for a sharded table",
                "The index would be on no rows.",
                "Leave ONLY out.",
            ));
        }
        if index.unique {
            check_unique("UNIQUE", &index.columns, key)?;
        }
    }
    if index.concurrently {
        return Ok(concurrent::created(index, scope));
    }
    let name = scope.table(&index.table).map(|table| table.name.to_string());
    let edit = (index.table.span.clone(), name.unwrap_or_default());
    Ok(DdlPlan::new(Vec::new(), vec![Step::Nodes(splice(scope.text, &[edit]))]))
}
