//! The tables of a lane on both its nodes: whether they are alike, and nothing of them would be lost.

use super::check::refused;
use super::error::MoveError;
use super::lane::OneLane;
use super::look::{self, Seen};
use super::session::Session;
use crate::shard_map::{Table, TableKind, leaf_name};
use crate::shard_move::{MovedColumn, MovedTable};

/// Foreign keys that are declared on a partitioned table, or that point at one.
const PARENT_FOREIGN_KEYS: &str = "SELECT conname::text FROM pg_constraint \
     WHERE contype = 'f' AND conparentid = 0 AND (conrelid = $1 OR confrelid = $1)";
/// Extensions whose types a table's columns have, with their versions.
const EXTENSIONS: &str = "SELECT DISTINCT format('extension %s %s', e.extname, e.extversion) AS used \
     FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
     JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.deptype = 'e' \
     AND d.objid IN (t.oid, t.typelem, t.typbasetype) \
     JOIN pg_extension e ON e.oid = d.refobjid \
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1";
/// What a leaf has that its parent does not give it, and that would be lost.
const OWN_EXTRAS: &str = "SELECT 'trigger ' || tgname FROM pg_trigger \
     WHERE tgrelid = $1 AND NOT tgisinternal AND tgparentid = 0 AND tgname !~ '^foreshard_' \
     UNION ALL SELECT 'rule ' || rulename FROM pg_rewrite WHERE ev_class = $1 \
     UNION ALL SELECT 'policy ' || polname FROM pg_policy WHERE polrelid = $1";
/// The columns by which the stream finds a row.
const IDENTITY: &str = "SELECT a.attname::text FROM pg_index x JOIN pg_attribute a \
     ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey::int2[]) WHERE x.indrelid = $1 \
     AND CASE (SELECT relreplident FROM pg_class WHERE oid = $1) WHEN 'd' THEN x.indisprimary \
     WHEN 'i' THEN x.indisreplident END";
/// Views and foreign keys of others that hang on one of some leaves.
const DEPENDENTS: &str = "SELECT 'foreign key ' || k.conname || ' of ' || k.conrelid::regclass::text \
     || ' points at ' || k.confrelid::regclass::text FROM pg_constraint k WHERE k.contype = 'f' \
     AND k.confrelid = ANY ($1) AND k.conrelid <> ALL ($1) \
     UNION ALL SELECT 'view ' || r.ev_class::regclass::text || ' uses ' || d.refobjid::regclass::text \
     FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid WHERE d.classid = 'pg_rewrite'::regclass \
     AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1) AND r.ev_class <> d.refobjid";

/// The two ends of a lane.
pub(super) struct Pair<'a> {
    pub(super) source: &'a Session,
    pub(super) destination: &'a Session,
    pub(super) lane: OneLane<'a>,
}

impl Pair<'_> {
    /// One table of the group; `None` if it does not exist on either node.
    pub(super) async fn table(&self, table: &Table) -> Result<Option<MovedTable>, MoveError> {
        let (name, lane) = (&table.name, self.lane.lane);
        let new_leaf = leaf_name(name, lane.target.shard);
        let here = look::table(self.source, name).await?;
        let there = look::table(self.destination, name).await?;
        let (here, there) = match (here, there) {
            (None, None) => return Ok(None),
            (Some(here), Some(there)) => (here, there),
            _ => return refused(format!("table {name} exists on one of the two nodes only")),
        };
        let is_there = look::table(self.destination, &new_leaf).await?.is_some();
        if is_there && self.lane.mv.reverses.is_none() {
            return refused(format!(
                "node {} has a table {new_leaf} already: drop or rename it",
                self.destination.node
            ));
        }
        self.equal_parents(table, &here, &there).await?;
        self.leaf(table, &here).await.map(Some)
    }

    /// Both partitioned tables have the same columns, key, constraints and indexes.
    async fn equal_parents(&self, table: &Table, a: &Seen, b: &Seen) -> Result<(), MoveError> {
        let name = &table.name;
        let differ = |what: &str| {
            refused(format!(
                "table {name} has other {what} on node {} than on node {}: make them equal",
                self.source.node, self.destination.node
            ))
        };
        if a.kind != "p" || b.kind != "p" || a.partition_key != b.partition_key {
            return differ("partitioning");
        }
        let (mut columns, _) = look::columns(self.source, a.oid).await?;
        let (mut others, _) = look::columns(self.destination, b.oid).await?;
        columns.sort();
        others.sort();
        if columns != others {
            return differ("columns");
        }
        let keys = look::keys(self.source, a.oid).await?;
        if keys != look::keys(self.destination, b.oid).await? {
            return differ("constraints or indexes");
        }
        if a.owner != b.owner {
            return differ("owners");
        }
        let here = look::names(self.source, a.oid, EXTENSIONS).await?;
        let there = look::names(self.destination, b.oid, EXTENSIONS).await?;
        if here != there {
            return refused(format!(
                "table {name} uses {} on node {} and {} on node {}: ALTER EXTENSION … UPDATE",
                here.join(", "),
                self.source.node,
                there.join(", "),
                self.destination.node
            ));
        }
        for (session, oid) in [(self.source, a.oid), (self.destination, b.oid)] {
            let keys = look::names(session, oid, PARENT_FOREIGN_KEYS).await?;
            if let Some(key) = keys.first() {
                return refused(format!(
                    "foreign key {key} stands on the partitioned table {name} on node {}, so that \
                     its shards can't be detached: declare it from partition to partition",
                    session.node
                ));
            }
        }
        Ok(())
    }

    /// The source's partition, as it will be copied.
    async fn leaf(&self, table: &Table, parent: &Seen) -> Result<MovedTable, MoveError> {
        let lane = self.lane.lane;
        let leaf_name_here = leaf_name(&table.name, lane.source.shard);
        let node = &self.source.node;
        let Some(leaf) = look::table(self.source, &leaf_name_here).await? else {
            return refused(format!("node {node} has no table {leaf_name_here}"));
        };
        let columns = match &table.kind {
            TableKind::Sharded { key, .. } => key.len(),
            TableKind::Reference => 0,
        };
        let bounds = lane.source.bounds.for_values(columns);
        if leaf.parent != Some(parent.oid)
            || !lane.source.bounds.are_shown_as(&leaf.bounds, columns)
        {
            return refused(format!(
                "table {leaf_name_here} on node {node} is not the partition {bounds} of {}",
                table.name
            ));
        }
        if leaf.persistence != "p" {
            return refused(format!(
                "table {leaf_name_here} on node {node} is unlogged: SET LOGGED"
            ));
        }
        if let Some(extra) = look::names(self.source, leaf.oid, OWN_EXTRAS).await?.first() {
            return refused(format!(
                "{extra} stands on the partition {leaf_name_here} alone and would be lost: declare \
                 it on {}",
                table.name
            ));
        }
        let (columns, builtin_types) = self.columns(table, &leaf, parent).await?;
        let key = match &table.kind {
            TableKind::Sharded { key, .. } => key.clone(),
            TableKind::Reference => Vec::new(),
        };
        let moved = MovedTable {
            parent: table.name.clone(),
            leaf: leaf_name_here,
            new_leaf: leaf_name(&table.name, lane.target.shard),
            key,
            columns,
            whole_row_identity: match leaf.identity.as_str() {
                "d" => !leaf.has_primary_key,
                "n" => true,
                _ => false,
            },
            identity: leaf.identity.clone(),
            shape: look::shape(self.source, &[parent.oid, leaf.oid]).await?,
            builtin_types,
            across: None,
        };
        self.can_be_filtered(&moved, &leaf, parent).await?;
        Ok(moved)
    }

    /// The leaf's columns that are copied, which are its parent's.
    async fn columns(
        &self,
        table: &Table,
        leaf: &Seen,
        parent: &Seen,
    ) -> Result<(Vec<MovedColumn>, bool), MoveError> {
        let (columns, builtin_types) = look::columns(self.source, leaf.oid).await?;
        let (mut expected, _) = look::columns(self.source, parent.oid).await?;
        let mut sorted = columns.clone();
        sorted.sort();
        expected.sort();
        if let Some(own) = sorted.iter().find(|column| !expected.contains(column)) {
            return refused(format!(
                "column {:?} of a partition of {} on node {} is not as its parent's: make them \
                 equal",
                own.name, table.name, self.source.node
            ));
        }
        let columns = columns.into_iter().filter(|column| !column.generated);
        let columns = columns.map(|c| MovedColumn { name: c.name, type_name: c.type_name });
        Ok((columns.collect(), builtin_types))
    }

    /// The same of a table that is no partition yet.
    pub(super) async fn filter_suits(&self, moved: &MovedTable) -> Result<(), MoveError> {
        let gone = || MoveError::Refused(format!("node {} has lost a table", self.source.node));
        let leaf = look::table(self.source, &moved.leaf).await?.ok_or_else(gone)?;
        let parent = look::table(self.source, &moved.parent).await?.ok_or_else(gone)?;
        self.can_be_filtered(moved, &leaf, &parent).await
    }

    /// The same of a filter by other columns than those of the shard key.
    pub(super) async fn is_identified_by(
        &self,
        moved: &MovedTable,
        key: &[String],
    ) -> Result<(), MoveError> {
        if moved.whole_row_identity || moved.identity == "f" {
            return Ok(());
        }
        let leaf = look::oid(self.source, &moved.leaf).await?;
        let identity = look::names(self.source, leaf, IDENTITY).await?;
        match key.iter().find(|column| !identity.contains(column)) {
            None => Ok(()),
            Some(column) => refused(format!(
                "the replica identity of {} lacks the new shard key {column:?}: ALTER TABLE {0} \
                 REPLICA IDENTITY FULL",
                moved.leaf
            )),
        }
    }

    /// A publication with a filter would make the application's updates fail if the columns of the
    /// filter were not part of what identifies a row.
    async fn can_be_filtered(
        &self,
        moved: &MovedTable,
        leaf: &Seen,
        parent: &Seen,
    ) -> Result<(), MoveError> {
        let whole = moved.whole_row_identity || moved.identity == "f";
        if whole || self.lane.given(moved, parent.oid).is_none() {
            return Ok(());
        }
        let identity = look::names(self.source, leaf.oid, IDENTITY).await?;
        match moved.key.iter().find(|column| !identity.contains(column)) {
            None => Ok(()),
            Some(column) => refused(format!(
                "{} can't be split: its replica identity lacks the shard key {column:?}; ALTER \
                 TABLE {0} REPLICA IDENTITY FULL",
                moved.leaf
            )),
        }
    }
}

/// Nobody else would be left with a table that is gone.
pub(super) async fn nothing_else_depends(
    source: &Session,
    tables: &[MovedTable],
) -> Result<(), MoveError> {
    let mut leaves = Vec::new();
    for table in tables {
        leaves.push(look::oid(source, &table.leaf).await?);
    }
    let rows =
        source.rows("looking at who uses the shard's tables", DEPENDENTS, &[&leaves]).await?;
    match rows.first() {
        None => Ok(()),
        Some(row) => refused(format!(
            "{} on node {}, and would be left without it: drop it first",
            row.get::<_, String>(0),
            source.node
        )),
    }
}
