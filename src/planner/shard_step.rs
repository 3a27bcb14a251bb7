//! What a definition does to one leaf.

use crate::ids::ShardId;
use crate::shard_map::{Bounds, OTHERS_CHECK, ShardMap, TableKind, leaf_name};
use crate::sql::{Ident, TableName};

/// What is done to one leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ShardStep {
    /// `CREATE TABLE leaf PARTITION OF table …`
    CreateLeaf {
        table: TableName,
        if_not_exists: bool,
        /// `WITH (…)`, or nothing
        with: String,
    },
    /// `CREATE INDEX CONCURRENTLY index ON leaf …`
    CreateIndex {
        table: TableName,
        index: TableName,
        unique: bool,
        /// What follows the table.
        rest: String,
    },
    /// `ALTER INDEX parent ATTACH PARTITION index`
    AttachIndex { index: TableName },
    /// `DROP INDEX CONCURRENTLY IF EXISTS index`
    DropIndex { index: TableName },
    /// `ALTER TABLE leaf …`
    Alter { table: TableName, rest: String },
    /// `ALTER TABLE leaf RENAME TO …`, or SET SCHEMA
    Rename { table: TableName, new: TableName },
    /// `ALTER TABLE leaf ADD … REFERENCES …`
    ForeignKey {
        table: TableName,
        /// `CONSTRAINT x FOREIGN KEY (…)`
        constraint: String,
        target: Target,
        /// `(…) ON DELETE …`
        rest: String,
    },
}

/// What a leaf's foreign key references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// The leaf of the same shard.
    Leaf(TableName),
    /// A reference table.
    Whole(TableName),
}

impl ShardStep {
    /// What runs on the node that owns `shard`.
    pub(super) fn statement(&self, shard: ShardId, map: &ShardMap) -> String {
        match self {
            Self::CreateLeaf { table, if_not_exists, with } => {
                let exists = if *if_not_exists { "IF NOT EXISTS " } else { "" };
                let leaf = leaf_name(table, shard);
                let key = match map.table(table).map(|table| &table.kind) {
                    Some(TableKind::Sharded { key, .. }) => key.as_slice(),
                    _ => &[],
                };
                let bounds = map.shard(shard).map_or(&Bounds::Nothing, |shard| &shard.bounds);
                let check = match bounds {
                    // The values that other nodes hold are not its own.
                    Bounds::Others(_) => {
                        format!(" (CONSTRAINT {OTHERS_CHECK} CHECK ({}))", bounds.condition(key, 0))
                    }
                    _ => String::new(),
                };
                let bounds = bounds.for_values(key.len());
                format!("CREATE TABLE {exists}{leaf} PARTITION OF {table}{check} {bounds}{with}")
            }
            Self::CreateIndex { table, index, unique, rest } => {
                let unique = if *unique { "UNIQUE " } else { "" };
                let (leaf, index) = (leaf_name(table, shard), leaf_name(index, shard));
                format!(
                    "CREATE {unique}INDEX CONCURRENTLY {} ON {leaf}{rest}",
                    Ident::new(index.name)
                )
            }
            Self::AttachIndex { index } => {
                format!("ALTER INDEX {index} ATTACH PARTITION {}", leaf_name(index, shard))
            }
            Self::DropIndex { index } => {
                format!("DROP INDEX CONCURRENTLY IF EXISTS {}", leaf_name(index, shard))
            }
            Self::Alter { table, rest } => {
                format!("ALTER TABLE {} {rest}", leaf_name(table, shard))
            }
            Self::Rename { table, new } => {
                let (leaf, new) = (leaf_name(table, shard), leaf_name(new, shard));
                let rest = if leaf.schema == new.schema {
                    format!("RENAME TO {}", Ident::new(new.name))
                } else {
                    format!("SET SCHEMA {}", Ident::new(new.schema))
                };
                // With IF EXISTS its table may not be there either.
                format!("ALTER TABLE IF EXISTS {leaf} {rest}")
            }
            Self::ForeignKey { table, constraint, target, rest } => {
                let target = match target {
                    Target::Leaf(target) => leaf_name(target, shard),
                    Target::Whole(target) => target.clone(),
                };
                let leaf = leaf_name(table, shard);
                format!("ALTER TABLE {leaf} ADD {constraint} REFERENCES {target}{rest}")
            }
        }
    }
}
