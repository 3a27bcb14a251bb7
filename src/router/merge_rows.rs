//! A MERGE whose source is read first: where each row of it goes.

use std::ops::Range;

use super::Params;
use super::operand::{self, Operand, Use};
use crate::ids::{GroupId, ShardId};
use crate::shard_map::{KeyType, KeyValue, ShardMap};
use crate::sql::Constant;
use crate::wire::ServerError;

/// A MERGE that runs with the rows of its source in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeWith {
    /// The statement, to the end.
    pub text: String,
    /// Where its source stands, with its alias.
    pub source: Range<usize>,
    /// The name of the source's rows.
    pub alias: String,
    /// Where it runs then.
    pub to: MergeTo,
}

/// Where a MERGE runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeTo {
    /// On the home node.
    Home,
    /// On every node, as all have the target.
    EveryNode,
    /// On each node of a group, with all rows.
    EveryShard(GroupId),
    /// Each row on the node of its key.
    Shards {
        /// The target's name, for errors.
        table: String,
        /// Its group.
        group: GroupId,
        /// The columns of the key in order.
        key: Vec<MergeKey>,
        /// Trailing blanks may be cut off when the key is stored.
        cuts_blanks: bool,
    },
}

/// A column of the key of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeKey {
    /// A column of the source.
    Column(String),
    /// The same for all rows.
    Constant(Constant),
}

/// The rows of a source.
#[derive(Debug, Clone, Copy)]
pub struct MergeRows<'a> {
    /// Names and `pg_type.oid` of its columns.
    pub columns: &'a [(String, u32)],
    /// The rows, as text.
    pub rows: &'a [Vec<Option<String>>],
}

impl MergeWith {
    /// The shard of each row; none unless it runs on shards.
    ///
    /// # Errors
    /// A key can't be told.
    pub fn shards(
        &self,
        source: MergeRows<'_>,
        params: &Params<'_>,
        map: &ShardMap,
    ) -> Result<Vec<ShardId>, ServerError> {
        let MergeTo::Shards { table, group, key, cuts_blanks } = &self.to else {
            return Ok(Vec::new());
        };
        let unknown = |why: &str| {
            ServerError::refused(
                format!("the shard key of \"{table}\" can't be derived"),
                format!("A row of the source of MERGE belongs to one shard, but {why}."),
                "Cast the column of the source to the type of the shard key.",
            )
        };
        let types = &map.groups()[group.index()].key;
        let mut parts = Vec::with_capacity(key.len());
        for (part, key_type) in key.iter().zip(types) {
            parts.push(Part::of(part, *key_type, source, params).map_err(unknown)?);
        }
        let shard = |row: &Vec<Option<String>>| {
            let values = parts.iter().map(|part| part.value(row)).collect::<Result<Vec<_>, _>>();
            let values = values.map_err(unknown)?;
            let cut = |value: &KeyValue| matches!(value, KeyValue::Text(text) if *cuts_blanks && text.ends_with(b" "));
            if values.iter().any(cut) {
                return Err(unknown("it ends with blanks, which its column may cut off"));
            }
            // A key of no shard matches nothing, and no node has a partition for it.
            let any = || map.directory(*group).shards().first().copied();
            map.shard_of(*group, &values).or_else(any).ok_or_else(|| unknown("there is none"))
        };
        source.rows.iter().map(shard).collect()
    }
}

/// A column of the key, found.
enum Part {
    Column(usize, KeyType),
    Fixed(KeyValue),
}

impl Part {
    fn of(
        key: &MergeKey,
        key_type: KeyType,
        source: MergeRows<'_>,
        params: &Params<'_>,
    ) -> Result<Self, &'static str> {
        match key {
            MergeKey::Column(name) => {
                let mut named = source.columns.iter().enumerate().filter(|(_, (n, _))| n == name);
                let found = named.next().filter(|_| named.next().is_none());
                let (at, (_, oid)) = found.ok_or("its column is not known")?;
                let kind = KeyType::from_oid(*oid).filter(|kind| kind.compares_with(key_type));
                Ok(Self::Column(at, kind.ok_or("its column is of another type")?))
            }
            MergeKey::Constant(constant) => {
                match operand::read(constant, key_type, Use::Store, params, |_| false) {
                    Operand::Value(value) => Ok(Self::Fixed(value)),
                    Operand::NoRow => Ok(Self::Fixed(KeyValue::Null)),
                    Operand::Invalid => Err("a constant is not of its type"),
                    Operand::Unknown(why) => Err(why),
                }
            }
        }
    }

    fn value(&self, row: &[Option<String>]) -> Result<KeyValue, &'static str> {
        match self {
            Self::Fixed(value) => Ok(value.clone()),
            Self::Column(at, kind) => match row.get(*at) {
                Some(Some(text)) => {
                    let read = kind.parse(text.as_bytes());
                    read.map_err(|_| "its date or time is not written in ISO form")
                }
                _ => Ok(KeyValue::Null),
            },
        }
    }
}
