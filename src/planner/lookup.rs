//! Lookup tables: what keeps them on the nodes, and the SQL that reads and writes them.
//!
//! A trigger on the looked-up table notes in a journal which values its rows get and lose; the proxy
//! takes the notes in the same transaction and brings them to the lookup's shards. A transaction that
//! would end with notes that nobody took fails: what bypasses the proxy can't make a lookup wrong.

use super::ddl::{DdlPlan, Step};
use crate::ids::ShardId;
use crate::shard_map::{KeyType, LOOKUP_COUNT, Lookup, ShardMap, Table};
use crate::sql::{
    ColumnDefinition, ConstraintKind, CreateTable, Ident, Literal, TableElement, TableName,
};
use crate::wire::{ServerError, SqlState};

/// Whether a node lacks what [`LOOKUP_SET_UP`] makes.
pub const LOOKUP_IS_SET_UP: &str =
    "SELECT pg_catalog.to_regprocedure('foreshard.take_lookups()') IS NOT NULL";

/// What a node needs before it can have a lookup. Values are noted in the form that JSON has, which
/// no setting of a session changes.
pub const LOOKUP_SET_UP: &str = "
    CREATE SCHEMA IF NOT EXISTS foreshard;
    GRANT USAGE ON SCHEMA foreshard TO PUBLIC;
    CREATE UNLOGGED TABLE foreshard.journal (
        xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(), lookup text NOT NULL,
        change bigint NOT NULL, entry text[] NOT NULL)
        WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
    CREATE INDEX journal_xid ON foreshard.journal (xid);
    CREATE FUNCTION foreshard.note_lookup() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $foreshard$
    DECLARE
        lookup text := TG_ARGV[0];
        line jsonb;
        entry text[];
        changes bigint[] := CASE TG_OP WHEN 'INSERT' THEN '{1}' WHEN 'DELETE' THEN '{-1}'
            WHEN 'UPDATE' THEN '{-1, 1}' ELSE '{0}' END;
        change bigint;
    BEGIN
        FOREACH change IN ARRAY changes LOOP
            entry := '{}';
            IF change <> 0 THEN
                line := CASE change WHEN 1 THEN to_jsonb(NEW) ELSE to_jsonb(OLD) END;
                FOR place IN 1 .. TG_NARGS - 1 LOOP
                    IF NOT line ? TG_ARGV[place] THEN
                        RAISE EXCEPTION 'the column %, by which % is kept, has another name', TG_ARGV[place], lookup
                            USING ERRCODE = '55000', HINT = 'Give it its name back.';
                    END IF;
                    entry := entry || (line ->> TG_ARGV[place]);
                END LOOP;
            END IF;
            IF change = 0 OR entry[1] IS NOT NULL THEN
                INSERT INTO foreshard.journal (lookup, change, entry) VALUES (lookup, change, entry);
            END IF;
        END LOOP;
        RETURN NULL;
    END $foreshard$;
    CREATE FUNCTION foreshard.check_lookups() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $foreshard$
    DECLARE
        missed text := (SELECT min(j.lookup) FROM foreshard.journal j
            WHERE j.xid = pg_current_xact_id_if_assigned());
    BEGIN
        IF missed IS NOT NULL THEN
            RAISE EXCEPTION 'the lookup table % would no longer say where all rows are', missed USING
                ERRCODE = '55000',
                DETAIL = 'A statement changed looked-up values, or rows that have some, in a way that foreshard does not see. Nothing was changed.',
                HINT = 'Write the table through the proxy, by a statement that names it.';
        END IF;
        RETURN NULL;
    END $foreshard$;
    CREATE CONSTRAINT TRIGGER taken AFTER INSERT ON foreshard.journal DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION foreshard.check_lookups();
    CREATE FUNCTION foreshard.take_lookups() RETURNS TABLE (lookup text, entries text)
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $foreshard$
        WITH taken AS (
            DELETE FROM foreshard.journal j WHERE j.xid = pg_current_xact_id_if_assigned()
            RETURNING j.lookup, j.change, j.entry
        ), net AS (
            SELECT t.lookup, sum(t.change)::bigint AS change, t.entry FROM taken t
            GROUP BY t.lookup, t.entry HAVING sum(t.change) <> 0 OR t.entry = '{}'
        )
        SELECT n.lookup, json_agg(json_build_array(n.change, n.entry) ORDER BY n.entry)::text
        FROM net n GROUP BY n.lookup ORDER BY n.lookup
    $foreshard$";

/// Takes what the transaction has noted on a node: lookups, each with `[[change, [value, key, …]], …]`
/// as JSON; a change of 0 and no value after TRUNCATE.
pub const TAKE_LOOKUPS: &str = "SELECT * FROM foreshard.take_lookups()";

/// The lookups of which the home node has the triggers.
pub const MADE_LOOKUPS: &str = "SELECT DISTINCT pg_catalog.convert_from(pg_catalog.substring(t.tgargs, 1, \
     pg_catalog.position(t.tgargs, '\\x00'::pg_catalog.bytea) - 1), 'UTF8') FROM pg_catalog.pg_trigger t \
     JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid WHERE c.relkind = 'p' \
     AND t.tgfoid = pg_catalog.to_regprocedure('foreshard.note_lookup()')";

/// Entries that come and go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LookupChange {
    /// How many more rows have the value and the key; less if negative.
    pub change: i64,
    /// The value, then the key.
    pub entry: Vec<Option<String>>,
}

/// The SQL of one lookup.
#[derive(Debug, Clone, Copy)]
pub struct LookupSql<'a> {
    /// The map that has it.
    pub map: &'a ShardMap,
    /// It.
    pub lookup: &'a Lookup,
}

impl LookupSql<'_> {
    fn table(&self) -> Option<&Table> {
        self.map.table(&self.lookup.table)
    }

    fn columns(&self) -> Vec<String> {
        let columns = self.map.lookup_columns(self.lookup).into_iter();
        columns.map(|column| Ident::new(column).to_string()).collect()
    }

    /// The types of its columns.
    fn types(&self) -> Vec<KeyType> {
        let of = |table: Option<&Table>| {
            let group = table.and_then(Table::group);
            group.map(|group| self.map.groups()[group.index()].key.clone()).unwrap_or_default()
        };
        [of(self.map.table(&self.lookup.name)), of(self.table())].concat()
    }

    /// What makes the table as it has to be.
    pub fn definition(&self) -> String {
        let (columns, types) = (self.columns(), self.types());
        let typed = columns.iter().zip(&types).map(|(c, t)| format!("{c} {} NOT NULL", t.name()));
        let mut parts: Vec<String> = typed.collect();
        let key = if self.lookup.unique { columns[..1].join(", ") } else { columns.join(", ") };
        if !self.lookup.unique {
            parts.push(format!("{LOOKUP_COUNT} bigint NOT NULL"));
        }
        format!("CREATE TABLE {} ({}, PRIMARY KEY ({key}))", self.lookup.name, parts.join(", "))
    }

    /// The statements that make the triggers of the looked-up table.
    pub fn triggers(&self) -> Vec<String> {
        let table = &self.lookup.table;
        let columns = self.columns();
        let value = &columns[0];
        let differs: Vec<String> = columns
            .iter()
            .map(|column| format!("OLD.{column} IS DISTINCT FROM NEW.{column}"))
            .collect();
        let arguments: Vec<String> = [self.lookup.name.to_string()]
            .iter()
            .map(String::as_str)
            .chain(self.map.lookup_columns(self.lookup))
            .map(|argument| Literal(argument).to_string())
            .collect();
        let arguments = arguments.join(", ");
        let row = |word: &str, when: String| {
            format!(
                "CREATE TRIGGER {} AFTER {word} ON {table} FOR EACH ROW WHEN ({when}) \
                 EXECUTE FUNCTION foreshard.note_lookup({arguments})",
                self.trigger(word)
            )
        };
        vec![
            row("INSERT", format!("NEW.{value} IS NOT NULL")),
            row("UPDATE", differs.join(" OR ")),
            row("DELETE", format!("OLD.{value} IS NOT NULL")),
            format!(
                "CREATE TRIGGER {} AFTER TRUNCATE ON {table} FOR EACH STATEMENT \
                 EXECUTE FUNCTION foreshard.note_lookup({arguments})",
                self.trigger("TRUNCATE")
            ),
        ]
    }

    /// The statements that drop them.
    pub fn drop_triggers(&self) -> Vec<String> {
        let words = ["INSERT", "UPDATE", "DELETE", "TRUNCATE"].into_iter();
        let drop = |word| {
            let (name, table) = (self.trigger(word), &self.lookup.table);
            format!("DROP TRIGGER IF EXISTS {name} ON {table}")
        };
        words.map(drop).collect()
    }

    fn trigger(&self, word: &str) -> Ident {
        let name = &self.lookup.name.name;
        let stem = &name[..name.floor_char_boundary(45.min(name.len()))];
        Ident::new(format!("{stem}_kept_{}", word.to_ascii_lowercase()))
    }

    /// The shard of a value; `None` if it can't be read.
    pub fn shard_of(&self, value: &str) -> Option<ShardId> {
        let group = self.map.table(&self.lookup.name)?.group()?;
        let kind = self.map.groups().get(group.index())?.key.first()?;
        self.map.shard_of(group, &[kind.parse(value.as_bytes()).ok()?])
    }

    /// Why the looked-up column can't be looked up: a query on the home node that gives a row then.
    pub fn obstacles(&self) -> String {
        format!(
            "SELECT l.collname FROM pg_catalog.pg_attribute a \
             JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
             WHERE a.attrelid = pg_catalog.to_regclass({}) AND a.attname = {} \
             AND NOT a.attisdropped AND NOT l.collisdeterministic",
            Literal(&self.lookup.table.to_string()),
            Literal(&self.lookup.column)
        )
    }

    /// Every entry of the rows that a leaf has already.
    pub fn existing(&self, leaf: &TableName) -> String {
        let columns = self.columns();
        format!(
            "SELECT pg_catalog.json_agg(pg_catalog.json_build_array(f.n, f.entry))::text FROM \
             (SELECT pg_catalog.count(*) AS n, ARRAY[{}] AS entry FROM {} WHERE {} IS NOT NULL \
             GROUP BY {}) f",
            columns.iter().map(as_noted).collect::<Vec<_>>().join(", "),
            leaf,
            columns[0],
            columns.join(", ")
        )
    }

    /// Entries as the rows on a node say, each as one text.
    pub fn of_rows(&self) -> String {
        let (entry, columns, table) = (self.entry(), self.columns(), &self.lookup.table);
        let some = format!("FROM {table} WHERE {} IS NOT NULL", columns[0]);
        if self.lookup.unique {
            return format!("SELECT {entry} AS entry {some}");
        }
        let columns = columns.join(", ");
        format!("SELECT {entry} || ' ' || pg_catalog.count(*) AS entry {some} GROUP BY {columns}")
    }

    /// The same as the lookup says.
    pub fn of_entries(&self) -> String {
        let (entry, name) = (self.entry(), &self.lookup.name);
        let count =
            if self.lookup.unique { String::new() } else { format!(" || ' ' || {LOOKUP_COUNT}") };
        format!("SELECT {entry}{count} AS entry FROM {name}")
    }

    fn entry(&self) -> String {
        let parts: Vec<String> = self.columns().iter().map(as_noted).collect();
        format!("pg_catalog.array_to_json(ARRAY[{}])::text", parts.join(", "))
    }

    /// The entries of some values, with what tells whether they were changed since.
    pub fn read(&self, values: &[String]) -> String {
        let columns = self.columns();
        let shown: Vec<String> = columns.iter().map(as_noted).collect();
        let values: Vec<String> = values.iter().map(|value| Literal(value).to_string()).collect();
        format!(
            "SELECT xmin::text, xmax::text, {} FROM {} WHERE {} IN ({})",
            shown.join(", "),
            self.lookup.name,
            columns[0],
            values.join(", ")
        )
    }

    /// Takes those of the values, each with a key, that are free, and gives them.
    pub fn claim(&self, entries: &[&Vec<String>]) -> String {
        let columns = self.columns();
        let row = |entry: &&Vec<String>| {
            let values: Vec<String> = entry.iter().map(|it| Literal(it).to_string()).collect();
            format!("({})", values.join(", "))
        };
        let rows: Vec<String> = entries.iter().map(row).collect();
        format!(
            "INSERT INTO {} ({}) VALUES {} ON CONFLICT DO NOTHING RETURNING {}::pg_catalog.text",
            self.lookup.name,
            columns.join(", "),
            rows.join(", "),
            columns[0]
        )
    }

    /// Gives back values that the transaction has taken.
    pub fn give_back(&self, values: &[String]) -> String {
        let values: Vec<String> = values.iter().map(|value| Literal(value).to_string()).collect();
        let (name, column) = (&self.lookup.name, &self.columns()[0]);
        format!("DELETE FROM {name} WHERE {column} IN ({})", values.join(", "))
    }

    /// The key of the row with a value, locked.
    pub fn holder(&self, value: &str) -> String {
        let columns = self.columns();
        let key = columns[1..].iter().map(|column| format!("{column}::pg_catalog.text"));
        let (key, value) = (key.collect::<Vec<_>>().join(", "), Literal(value));
        let name = &self.lookup.name;
        format!("SELECT {key} FROM {name} WHERE {} = {value} FOR UPDATE", columns[0])
    }

    /// The statements that bring changes to the shards of one node, which has all of them: what goes
    /// first, then what comes. Entries in order, so that two transactions wait for each other instead
    /// of deadlocking.
    pub fn write(&self, changes: &[&LookupChange]) -> Vec<String> {
        if self.lookup.unique {
            let gone: Vec<_> = changes.iter().filter(|it| it.change < 0).copied().collect();
            let come: Vec<_> = changes.iter().filter(|it| it.change > 0).copied().collect();
            let mut all = Vec::new();
            if !gone.is_empty() {
                all.push(self.delete(&gone, ""));
            }
            if !come.is_empty() {
                all.push(self.insert(&come));
            }
            return all;
        }
        let count = LOOKUP_COUNT;
        let columns = self.columns().join(", ");
        let conflict = format!(
            "{} ON CONFLICT ({columns}) DO UPDATE SET {count} = was.{count} + excluded.{count}",
            self.insert(changes)
        );
        let gone: Vec<_> = changes.iter().filter(|it| it.change < 0).copied().collect();
        let mut all = vec![conflict];
        if !gone.is_empty() {
            all.push(self.delete(&gone, &format!(" AND was.{count} <= 0")));
        }
        all
    }

    fn insert(&self, changes: &[&LookupChange]) -> String {
        let mut columns = self.columns();
        if !self.lookup.unique {
            columns.push(LOOKUP_COUNT.to_owned());
        }
        let row = |change: &&LookupChange| {
            // Two rows with one value and key are two: a unique lookup refuses the second.
            let times = if self.lookup.unique { change.change } else { 1 };
            let mut values: Vec<String> =
                change.entry.iter().map(|it| value(it.as_ref())).collect();
            if !self.lookup.unique {
                values.push(change.change.to_string());
            }
            let row = format!("({})", values.join(", "));
            std::iter::repeat_n(row, usize::try_from(times).unwrap_or(1).min(2))
        };
        let rows: Vec<String> = changes.iter().flat_map(row).collect();
        format!(
            "INSERT INTO {} AS was ({}) VALUES {}",
            self.lookup.name,
            columns.join(", "),
            rows.join(", ")
        )
    }

    fn delete(&self, changes: &[&LookupChange], also: &str) -> String {
        let columns = self.columns();
        let name = &self.lookup.name;
        if let [one] = changes {
            let equal = columns
                .iter()
                .zip(&one.entry)
                .map(|(c, v)| format!("was.{c} = {}", value(v.as_ref())));
            let equal: Vec<String> = equal.collect();
            return format!("DELETE FROM {name} AS was WHERE {}{also}", equal.join(" AND "));
        }
        let list = |(at, kind): (usize, &KeyType)| {
            let values = changes.iter().map(|it| value(it.entry.get(at).and_then(Option::as_ref)));
            let values: Vec<String> = values.collect();
            format!("pg_catalog.unnest(ARRAY[{}]::{}[])", values.join(", "), kind.name())
        };
        let lists: Vec<String> = self.types().iter().enumerate().map(list).collect();
        let names: Vec<String> = (0..columns.len()).map(|at| format!("c{at}")).collect();
        let equal: Vec<String> =
            columns.iter().zip(&names).map(|(c, g)| format!("was.{c} = gone.{g}")).collect();
        format!(
            "DELETE FROM {name} AS was USING ROWS FROM ({}) AS gone ({}) WHERE {}{also}",
            lists.join(", "),
            names.join(", "),
            equal.join(" AND ")
        )
    }
}

/// A column in the form in which changes are noted.
fn as_noted(column: &String) -> String {
    format!("pg_catalog.to_jsonb({column}) #>> '{{}}'")
}

fn value(value: Option<&String>) -> String {
    value.map_or("NULL".to_owned(), |value| Literal(value).to_string())
}

/// Makes a lookup of a table that is made: adds the triggers of what it finds.
///
/// # Errors
/// 42P16: with what would work. 55000: the looked-up table is not there.
pub(super) fn made(
    create: &CreateTable,
    sql: &LookupSql<'_>,
    mut plan: DdlPlan,
) -> Result<DdlPlan, ServerError> {
    check(create, sql)?;
    plan.steps.extend(sql.triggers().into_iter().map(Step::Nodes));
    plan.locks.push(format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", sql.lookup.table));
    plan.fills = Some(sql.lookup.name.clone());
    Ok(plan)
}

/// Whether the table is as its lookup needs it.
fn check(create: &CreateTable, sql: &LookupSql<'_>) -> Result<(), ServerError> {
    let wrong = |detail: &str| {
        let name = &sql.lookup.name;
        let error = ServerError::new(
            SqlState("42P16"),
            format!("the table {name} is not what the policy's lookup needs"),
        );
        Err(error.with_detail(detail).with_hint(format!("{}.", sql.definition())))
    };
    let Some(table) = sql.table().filter(|table| !table.columns.is_empty()) else {
        let error = ServerError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the looked-up table {} does not exist", sql.lookup.table),
        );
        return Err(error.with_hint("Create it first."));
    };
    let types = sql.types();
    let column = table.columns.iter().find(|column| column.name == sql.lookup.column);
    if column.and_then(|column| KeyType::from_oid(column.type_oid)) != types.first().copied() {
        let kind = types.first().map_or("?", |kind| kind.name());
        return wrong(&format!(
            "{} has no column \"{}\" of type {kind}.",
            sql.lookup.table, sql.lookup.column
        ));
    }
    let elements = create.elements.as_deref().unwrap_or_default();
    let columns: Vec<&ColumnDefinition> = elements.iter().filter_map(column_of).collect();
    let names = sql.map.lookup_columns(sql.lookup);
    let mut wanted: Vec<(&str, KeyType)> = names.iter().copied().zip(types).collect();
    if !sql.lookup.unique {
        wanted.push((LOOKUP_COUNT, KeyType::Int8));
    }
    let found = |(name, kind): &(&str, KeyType)| {
        let named = columns.iter().find(|column| column.name == *name);
        named.is_some_and(|it| KeyType::from_name(&it.type_name) == Some(*kind) && !it.sized)
    };
    if columns.len() != wanted.len() || !wanted.iter().all(found) {
        return wrong("It has other columns.");
    }
    let key = if sql.lookup.unique { &names[..1] } else { &names[..] };
    if primary_key(elements).is_none_or(|found| found != key) {
        return wrong("It has another primary key.");
    }
    Ok(())
}

fn column_of(element: &TableElement) -> Option<&ColumnDefinition> {
    if let TableElement::Column(column) = element { Some(column) } else { None }
}

/// The columns of the primary key.
fn primary_key(elements: &[TableElement]) -> Option<Vec<&str>> {
    elements.iter().find_map(|element| match element {
        TableElement::Column(column) => {
            let is_key = |kind: &ConstraintKind| matches!(kind, ConstraintKind::PrimaryKey(_));
            let key = column.constraints.iter().any(|it| is_key(&it.kind));
            key.then(|| vec![column.name.as_str()])
        }
        TableElement::Constraint(constraint) => match &constraint.kind {
            ConstraintKind::PrimaryKey(key) => Some(key.iter().map(String::as_str).collect()),
            _ => None,
        },
        TableElement::Like(_) => None,
    })
}
