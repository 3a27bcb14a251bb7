//! What an import finds, and what it is going to do, in words.

use super::super::error::MoveError;
use super::super::names::quoted;
use super::super::session::Session;
use super::define::{self, Place, texts};
use super::{Importer, Plain, beside, refuse};
use crate::ids::NodeId;
use crate::shard_map::{ShardMap, Standing, leaf_name};
use crate::sql::TableName;

/// Object id, bytes with indexes, and rows as they were last counted.
const TABLE: &str = "SELECT c.oid, pg_total_relation_size(c.oid), c.reltuples::bigint \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname = $1 AND c.relname = $2";
/// Functions that name one of some tables, by their code.
const FUNCTIONS: &str = "SELECT p.oid::regprocedure::text, t.name FROM pg_proc p \
     JOIN pg_language l ON l.oid = p.prolang JOIN pg_namespace n ON n.oid = p.pronamespace \
     JOIN unnest($1::text[]) AS t (name) ON p.prosrc ~* ('\\m' || t.name || '\\M') \
     WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal') AND n.nspname !~ '^foreshard' ";
const CALLED: &str = "AND p.prorettype <> 'trigger'::regtype ORDER BY 1, 2";
/// … of triggers on other tables.
const TRIGGERS: &str = "AND EXISTS (SELECT FROM pg_trigger g WHERE g.tgfoid = p.oid \
     AND NOT g.tgisinternal AND g.tgrelid <> ALL ($2)) ORDER BY 1, 2";
/// Tables on the home node alone that the code of triggers on the imported tables names; `$2` and `$3`
/// are the tables that other nodes have, too.
const REACHED: &str = "SELECT DISTINCT p.oid::regprocedure::text, c.oid::regclass::text FROM pg_trigger g \
     JOIN pg_proc p ON p.oid = g.tgfoid JOIN pg_class c ON c.relkind IN ('r', 'p', 'v', 'm') \
     AND p.prosrc ~* ('\\m' || c.relname || '\\M') JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE g.tgrelid = ANY ($1) AND NOT g.tgisinternal AND c.oid <> ALL ($1) \
     AND n.nspname !~ '^(pg_|information_schema|foreshard)' \
     AND NOT EXISTS (SELECT FROM unnest($2::text[], $3::text[]) AS known (schema, name) \
     WHERE known.schema = n.nspname AND known.name = c.relname) ORDER BY 1, 2";
const STATISTICS: &str = "SELECT format('the statistics %I.%I stay with the partition, and are not made \
     on other nodes', n.nspname, s.stxname) FROM pg_statistic_ext s \
     JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = ANY ($1) ORDER BY 1";
/// What an unfinished import has made, and how it is dropped: checks first, which call upon the twins.
const LEFT: [&str; 2] = [
    "SELECT ARRAY[conrelid], format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I', \
     conrelid::regclass, conname) FROM pg_constraint WHERE contype = 'c' AND conname ~ '^foreshard_import_[0-9]+$' \
     AND coninhcount = 0",
    "SELECT array(SELECT oid FROM pg_class WHERE relnamespace = n.oid), \
     format('DROP SCHEMA IF EXISTS %I CASCADE', nspname) FROM pg_namespace n WHERE nspname ~ '^foreshard_import_[0-9]+$'",
];
const SETTINGS: &str =
    "SELECT current_setting('max_prepared_transactions'), current_setting('wal_level')";

/// What is left of imports on the home node: in words, which tables have to be free, and the statement
/// that drops it.
pub(super) async fn left_over(
    home: &Session,
    doing: &'static str,
) -> Result<Vec<(&'static str, Vec<u32>, String)>, MoveError> {
    let mut all = Vec::new();
    for (sql, kind) in LEFT.iter().zip(["dropping a check", "dropping partitioned tables"]) {
        let rows = home.rows(doing, sql, &[]).await?;
        all.extend(rows.iter().map(|row| (kind, row.get(0), row.get(1))));
    }
    Ok(all)
}

impl Importer<'_, '_> {
    /// The tables that are there, once it is known that they can be imported; tells what is going to be
    /// done.
    ///
    /// # Errors
    /// All reasons that speak against it.
    pub(super) async fn check(&mut self) -> Result<Vec<Plain>, MoveError> {
        let map = self.desk.context.live_map.snapshot();
        let (mut tables, mut told, mut bytes) = (Vec::new(), Vec::new(), 0);
        for table in &self.import.tables {
            let (schema, name) = (&table.name.schema, &table.name.name);
            let rows = self.home.rows("looking for a table", TABLE, &[schema, name]).await?;
            let Some(row) = rows.first() else { continue };
            let (size, count): (i64, i64) = (row.get(1), row.get(2));
            bytes += size;
            // PostgreSQL has counted none before the first ANALYZE.
            let rows = if count < 0 { String::new() } else { format!("about {count} rows, ") };
            told.push(format!(
                "{}: {rows}{} with indexes",
                table.name,
                super::super::room::shown(u64::try_from(size).unwrap_or_default())
            ));
            let (name, key) = (table.name.clone(), table.key.clone());
            tables.push(Plain { name, oid: row.get(0), key });
        }
        if tables.is_empty() {
            return Err(MoveError::Refused(format!(
                "none of the tables of group {} is on the home node: reload the policy, and make them",
                self.import.group
            )));
        }
        let mut reasons = refuse::reasons(&self.home, &map, self.import, &tables).await?;
        reasons.extend(self.of_code(&map, &tables).await?);
        if reasons.is_empty() {
            reasons.extend(self.trials(&map, &tables).await?);
        }
        if !reasons.is_empty() {
            return Err(MoveError::Refused(format!(
                "group {} can't be imported:\n  {}",
                self.import.group,
                reasons.join("\n  ")
            )));
        }
        told.extend(self.notes(&map, &tables, bytes).await?);
        for text in told {
            self.desk.tell(text).await?;
        }
        Ok(tables)
    }

    /// Triggers whose code reaches rows that are going to be elsewhere.
    async fn of_code(&self, map: &ShardMap, tables: &[Plain]) -> Result<Vec<String>, MoveError> {
        let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.name.name.as_str()).collect();
        let doing = "reading functions";
        let mut reasons = Vec::new();
        let sql = format!("{FUNCTIONS}{TRIGGERS}");
        for row in self.home.rows(doing, &sql, &[&names, &oids]).await? {
            let (function, table): (String, String) = (row.get(0), row.get(1));
            reasons.push(format!(
                "{function} names {table} and is called by a trigger of a table that is not \
                 imported: it would find some of the rows only; import that table too, or drop the \
                 trigger"
            ));
        }
        let known =
            map.tables().iter().map(|table| &table.name).chain(tables.iter().map(|it| &it.name));
        let (schemas, names): (Vec<&str>, Vec<&str>) =
            known.map(|name| (name.schema.as_str(), name.name.as_str())).unzip();
        if map.members().count() > 1 {
            for row in self.home.rows(doing, REACHED, &[&oids, &schemas, &names]).await? {
                let (function, table): (String, String) = (row.get(0), row.get(1));
                reasons.push(format!(
                    "{function} is called by a trigger of the tables and names {table}, which other \
                     nodes do not have: add that to the group, declare it as a reference table, or \
                     drop the trigger"
                ));
            }
        }
        Ok(reasons)
    }

    /// What every node would say of the definitions: they are made there, and taken back.
    async fn trials(&self, map: &ShardMap, tables: &[Plain]) -> Result<Vec<String>, MoveError> {
        let mut reasons = Vec::new();
        let shard = map.free_shards(1, |_| false).first().copied();
        for table in tables {
            let Some(leaf) = shard.map(|shard| leaf_name(&table.name, shard)) else { continue };
            if super::super::look::table(&self.home, &leaf).await?.is_some() {
                reasons.push(format!("there is a table {leaf} already: rename it"));
            }
        }
        let splits = self.import.split && self.import.bounds.len() > 1;
        for (node, member) in map.members() {
            let session = self.desk.session(node).await?;
            let rows = session.rows("looking at the settings", SETTINGS, &[]).await?;
            let setting = |at| rows.first().map(|row| row.get::<_, String>(at)).unwrap_or_default();
            if setting(0) == "0" {
                reasons.push(format!(
                    "node {} has max_prepared_transactions = 0: raise it and restart it",
                    member.name
                ));
            }
            if splits && setting(1) != "logical" {
                reasons.push(format!(
                    "node {} has wal_level = {}, so that shards can't be split or moved: set \
                     wal_level = logical and restart it",
                    member.name,
                    setting(1)
                ));
            }
            let sql = self.definitions(map, node, tables).await?;
            let sql = format!("BEGIN; SET LOCAL check_function_bodies = off; {sql}; ROLLBACK");
            if let Err(error) = session.run("trying the definitions", &sql).await {
                session.run("rolling back", "ROLLBACK").await?;
                let joins = if node == map.home() {
                    ""
                } else {
                    "; a node that joins brings types, functions and roles with it, so let nodes join \
                     before the import, or make there what it lacks"
                };
                reasons.push(format!(
                    "node {} can't have the tables: {}{joins}",
                    member.name,
                    error.story()
                ));
            }
        }
        Ok(reasons)
    }

    /// The statements that make the tables' definitions on a node.
    pub(super) async fn definitions(
        &self,
        map: &ShardMap,
        node: NodeId,
        tables: &[Plain],
    ) -> Result<String, MoveError> {
        let schema = beside(self.job());
        let mut all = Vec::new();
        let place = if node == map.home() {
            all.push(format!("CREATE SCHEMA {}", quoted(&schema)));
            Place::Beside(&schema)
        } else {
            Place::Node(node)
        };
        for table in tables {
            all.extend(define::statements(&self.home, table, self.method(), place).await?);
        }
        Ok(all.join("; "))
    }

    /// What its user should know.
    async fn notes(
        &self,
        map: &ShardMap,
        tables: &[Plain],
        bytes: i64,
    ) -> Result<Vec<String>, MoveError> {
        let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.name.name.as_str()).collect();
        let mut notes = texts(&self.home, STATISTICS, &[&oids]).await?;
        let declared = |name: &str| {
            let declared = self.import.functions.iter().map(|(declared, _)| declared);
            let plain = |it: &TableName| format!("{}.{}(", it.schema, it.name);
            declared.into_iter().any(|it| name.starts_with(&plain(it)))
        };
        let sql = format!("{FUNCTIONS}{CALLED}");
        for row in self.home.rows("reading functions", &sql, &[&names]).await? {
            let (function, table): (String, String) = (row.get(0), row.get(1));
            if !declared(&function) {
                notes.push(format!(
                    "{function} names {table}: calls of it need a hint afterwards, or the policy has \
                     to declare it"
                ));
            }
        }
        let takes = map.members().filter(|(_, node)| node.standing == Standing::Member);
        let nodes: Vec<&str> = takes.map(|(_, node)| node.name.as_str()).collect();
        let (count, bytes) = (self.import.bounds.len(), u64::try_from(bytes).unwrap_or_default());
        let size = super::super::room::shown(bytes);
        notes.push(if self.import.split && count > 1 {
            format!("{size} become one shard, then {count} over the nodes {}", nodes.join(", "))
        } else {
            format!("{size} become one shard on node {}", map.node(map.home()).name)
        });
        Ok(notes)
    }
}
